package provision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/kubernetes"
	"github.com/causeway-mesh/causeway/test/lab"
)

// rig is an agent's provisioning on a real API server, with what the resolver says in the
// test's hands.
type rig struct {
	t        *testing.T
	admin    dynamic.Interface
	entries  *Entries
	prov     *Provisioner
	registry *prometheus.Registry
	stop     func()
	asked    asked

	mu       sync.Mutex
	wants    map[Name]*Import
	gateways []Crossing
	open     atomic.Bool // gateways take connections
	dir      string      // for the copy of the entry ports
}

// asAgent gives the connection of somebody who has the rights of Rules alone.
func asAgent(t *testing.T, cp *lab.ControlPlane) *kubernetes.Client {
	t.Helper()
	var rules []rbacv1.PolicyRule
	for _, r := range Rules() {
		rules = append(rules, r.PolicyRule)
	}
	cfg, err := lab.Restrict(t.Context(), cp.Config, "causeway-system", "provisioner", rules)
	if err != nil {
		t.Fatal(err)
	}
	c, err := kubernetes.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (r *rig) start(c *kubernetes.Client) {
	t := r.t
	t.Helper()
	var err error
	log := slog.New(slog.DiscardHandler)
	r.registry = prometheus.NewRegistry()
	if r.entries, err = NewEntries(EntriesConfig{Client: c, Logger: log, Dir: r.dir}); err != nil {
		t.Fatal(err)
	}
	r.prov, err = New(Config{
		Local: "east", Client: c, Entries: r.entries, Logger: log, Registerer: r.registry, Rate: 500,
		Want: func(n Name) (*Import, bool) {
			r.asked.add(n)
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.wants[n], true
		},
		Names: func() []Name {
			r.mu.Lock()
			defer r.mu.Unlock()
			return slices.Collect(maps.Keys(r.wants))
		},
		Namespace: func(ns string) bool { return ns == "shop" },
		Gateways:  func() []Crossing { r.mu.Lock(); defer r.mu.Unlock(); return r.gateways },
	})
	if err != nil {
		t.Fatal(err)
	}
	r.prov.served.dial = func(context.Context, netip.AddrPort) error {
		if r.open.Load() {
			return nil
		}
		return errors.New("refused")
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.entries.Run(ctx) })
	wg.Go(func() {
		if err := r.prov.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	r.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(func() { r.stop() })
}

// want says what the resolver says, nil for nothing.
func (r *rig) want(n Name, imp *Import) {
	r.mu.Lock()
	if imp == nil {
		delete(r.wants, n)
	} else {
		r.wants[n] = imp
	}
	r.mu.Unlock()
	r.prov.Touch([]Name{n})
}

func (r *rig) object(version, name string) *unstructured.Unstructured {
	o, err := r.admin.Resource(importsResource(version)).Namespace("shop").Get(r.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return o
}

func (r *rig) imported(name string) *mcsv1beta1.ServiceImport {
	if o := r.object("v1beta1", name); o != nil {
		m, err := typed(o)
		if err != nil {
			r.t.Fatal(err)
		}
		return m.(*mcsv1beta1.ServiceImport)
	}
	return nil
}

func (r *rig) derived(n Name) *corev1.Service {
	o, err := r.admin.Resource(servicesResource).Namespace("shop").Get(r.t.Context(), ServiceName(n), metav1.GetOptions{})
	if err != nil {
		return nil
	}
	m, err := typed(o)
	if err != nil {
		r.t.Fatal(err)
	}
	return m.(*corev1.Service)
}

// have is what the API server has of an import, read anew.
func (r *rig) have(n Name) Have {
	h := Have{Import: r.imported(n.Name), Service: r.derived(n)}
	list, err := r.admin.Resource(slicesResource).Namespace("shop").List(r.t.Context(), metav1.ListOptions{LabelSelector: mcsv1beta1.LabelServiceName + "=" + n.Name})
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range list.Items {
		m, err := typed(&list.Items[i])
		if err != nil {
			r.t.Fatal(err)
		}
		h.Slices = append(h.Slices, m.(SliceObject))
	}
	return h
}

// patience is how long anything may take on a busy machine.
const patience = time.Minute

func (r *rig) await(what string, ok func() bool) {
	r.t.Helper()
	deadline, tick := time.Now().Add(patience), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: not after a minute; problems %v; there is %+v", what, r.prov.Problems(), r.have(catalog))
		}
		<-tick.C
	}
}

func (r *rig) writes() int { return sum(r.t, r.registry, "causeway_provision_writes_total") }

// sum adds up a counter's series.
func sum(t *testing.T, registry *prometheus.Registry, name string) (n int) {
	t.Helper()
	list, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				n += int(m.GetCounter().GetValue())
			}
		}
	}
	return n
}

// asked counts how often each name was asked for. One goroutine at a time looks at a name
// and asks first, so that whoever is asked again has its former writes behind it, counted.
type asked struct {
	mu    sync.Mutex
	times map[Name]int
}

func (a *asked) add(n Name) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.times == nil {
		a.times = map[Name]int{}
	}
	a.times[n]++
}

// settle waits, by a rig's await, until all that was written for names so far is counted;
// touch has them looked at again.
func (a *asked) settle(touch func([]Name), await func(what string, ok func() bool), names ...Name) {
	a.mu.Lock()
	before := maps.Clone(a.times)
	a.mu.Unlock()
	touch(names)
	for _, n := range names {
		await(n.String()+" is looked at again", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return a.times[n] > before[n] })
	}
}

// quiet fails if anything is written although nothing differs: all imports are looked at
// again, and then the one that is made last is there, written once.
func (r *rig) quiet() {
	r.t.Helper()
	r.mu.Lock()
	all := slices.Collect(maps.Keys(r.wants))
	r.mu.Unlock()
	r.asked.settle(r.prov.Touch, r.await, all...)
	before := r.writes()
	r.asked.settle(r.prov.Touch, r.await, all...)
	last := Name{"shop", fmt.Sprint("quiet-", before)}
	r.want(last, &Import{Name: last, Headless: true, Sources: []Source{}})
	r.await("a headless import", func() bool { return r.imported(last.Name) != nil })
	r.want(last, nil)
	r.await("it goes", func() bool { return r.imported(last.Name) == nil })
	r.asked.settle(r.prov.Touch, r.await, last)
	if n := r.writes() - before; n != 2 {
		r.t.Errorf("%d writes, though nothing but one import came and went", n-2)
	}
}

// The whole of it on a real API server: what is made, who owns it, that nothing is written
// twice, that leaders change without a trace, and that others' objects stay.
func TestProvisioner(t *testing.T) {
	t.Parallel()
	cp := lab.StartControlPlane(t, lab.ControlPlaneOptions{CRDs: lab.CRDs{MCS: true}})
	admin, err := dynamic.NewForConfig(cp.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Apply(t.Context(), cp.Config, []byte(`
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {name: theirs, namespace: shop}
spec: {type: ClusterSetIP, ips: [10.9.9.9], ports: [{port: 80}]}
`)); err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, admin: admin, dir: t.TempDir(), wants: map[Name]*Import{}, gateways: []Crossing{gateway("10.0.0.1"), gateway("fd01::1")}}
	c := asAgent(t, cp)
	r.start(c)

	// One network, no routes: the endpoints themselves.
	imp := scene(false, port("http", 80), Port{Number: 53, Protocol: corev1.ProtocolUDP}).want
	imp.Labels, imp.Annotations = map[string]string{"team": "a"}, map[string]string{"note": "x"}
	timeout := int32(60)
	imp.SessionAffinity, imp.AffinityConfig = corev1.ServiceAffinityClientIP, &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &timeout}}
	r.want(catalog, imp)
	r.await("an address", func() bool { o := r.imported("catalog"); return o != nil && len(o.Spec.IPs) > 0 })
	r.await("slices", func() bool { return len(r.have(catalog).Slices) == 2 })
	h := r.have(catalog)
	equal(t, "ips", fmt.Sprint(h.Import.Spec.IPs), fmt.Sprint(h.Service.Spec.ClusterIPs[:1])) // the pods have IPv4 alone
	equal(t, "affinity", *h.Service.Spec.SessionAffinityConfig.ClientIP.TimeoutSeconds, 60)
	equal(t, "label", h.Import.Labels["team"], "a")
	equal(t, "port of the import", h.Import.Spec.Ports[1].Name, "udp-53")
	equal(t, "port of the Service", h.Service.Spec.Ports[1].Name, "udp-53")
	equal(t, "proxied", fmt.Sprint(proxied(h)), "[10.1.0.1:8080 http]")
	for _, o := range append([]metav1.Object{h.Service}, h.Slices[0], h.Slices[1]) {
		equal(t, "owner of "+o.GetName(), o.GetOwnerReferences()[0].UID, h.Import.UID)
	}
	// CoreDNS reads the older version.
	old := r.object("v1alpha1", "catalog")
	ips, _, _ := unstructured.NestedStringSlice(old.Object, "spec", "ips")
	equal(t, "v1alpha1", fmt.Sprint(ips), fmt.Sprint(h.Import.Spec.IPs))
	r.quiet()

	// Routes come: through the gateways, once these take connections.
	http, _ := r.entries.Port(catalog, "TCP", 80)
	equal(t, "recorded", h.Service.Spec.Ports[0].TargetPort.IntVal, int32(http))
	through := *imp
	through.Gateways = true
	r.want(catalog, &through)
	// UDP settles by time; TCP waits.
	r.await("datagrams are served", func() bool { return strings.Contains(fmt.Sprint(proxied(r.have(catalog))), "udp-53") })
	if got := fmt.Sprint(proxied(r.have(catalog))); !strings.Contains(got, "10.1.0.1:8080 http") || strings.Contains(got, fmt.Sprint(http)) {
		t.Errorf("no gateway takes http yet, and kube-proxy has %s", got)
	}
	r.open.Store(true)
	udp, _ := r.entries.Port(catalog, "UDP", 53)
	var list []string
	for _, g := range r.gateways {
		list = append(list, fmt.Sprintf("%s:%d http", g.Addr, http), fmt.Sprintf("%s:%d udp-53", g.Addr, udp))
	}
	slices.Sort(list)
	want := fmt.Sprint(list)
	r.await("through the gateways", func() bool { return fmt.Sprint(proxied(r.have(catalog))) == want })
	r.await("both addresses", func() bool {
		h := r.have(catalog)
		return fmt.Sprint(h.Import.Spec.IPs) == fmt.Sprint(h.Service.Spec.ClusterIPs) && len(h.Import.Spec.IPs) == 2
	})
	r.await("ready", func() bool {
		s, _ := r.prov.Standing(catalog)
		return s.Ready.Status == metav1.ConditionTrue && s.EndpointSlices == mcsv1beta1.EndpointSliceObjectsPresent
	})
	r.await("the endpoints are gone", func() bool { return len(r.have(catalog).Slices) == 2 })

	// Somebody's label stays, an exported one goes with its export.
	if _, err := admin.Resource(importsResource("v1beta1")).Namespace("shop").Patch(t.Context(), "catalog", "application/merge-patch+json", []byte(`{"metadata":{"labels":{"somebody":"else"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	bare := through
	bare.Labels = nil
	r.want(catalog, &bare)
	r.await("the label goes", func() bool { return r.imported("catalog").Labels["team"] == "" })
	equal(t, "somebody's label", r.imported("catalog").Labels["somebody"], "else")
	// Somebody deletes the Service, whose entry ports come back with it.
	if err := admin.Resource(servicesResource).Namespace("shop").Delete(t.Context(), ServiceName(catalog), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.await("the Service is made again", func() bool {
		s, o := r.derived(catalog), r.imported("catalog")
		return s != nil && s.Spec.Ports[0].TargetPort.IntVal == int32(http) && fmt.Sprint(o.Spec.IPs) == fmt.Sprint(s.Spec.ClusterIPs)
	})
	// Somebody changes it, and it is changed back.
	if _, err := admin.Resource(servicesResource).Namespace("shop").Patch(t.Context(), ServiceName(catalog), "application/json-patch+json", []byte(`[{"op":"replace","path":"/spec/ports/0/targetPort","value":1}]`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	r.await("the entry port is put back", func() bool { return r.derived(catalog).Spec.Ports[0].TargetPort.IntVal == int32(http) })
	r.await("its slice", func() bool { return fmt.Sprint(proxied(r.have(catalog))) == want })

	// What is somebody else's stays, and it is said.
	theirs := Name{"shop", "theirs"}
	r.want(theirs, &Import{Name: theirs, Ports: []Port{port("http", 80)}})
	r.await("a problem", func() bool { return len(r.prov.Problems()) == 1 })
	equal(t, "theirs", fmt.Sprint(r.imported("theirs").Spec.IPs), "[10.9.9.9]")
	squatted := Name{"shop", "squatted"}
	if err := lab.Apply(t.Context(), cp.Config, []byte("apiVersion: v1\nkind: Service\nmetadata: {name: "+ServiceName(squatted)+", namespace: shop}\nspec: {ports: [{port: 1}]}\n")); err != nil {
		t.Fatal(err)
	}
	r.want(squatted, &Import{Name: squatted, Ports: []Port{port("http", 80)}})
	r.await("another problem", func() bool { return len(r.prov.Problems()) == 2 })
	equal(t, "squatted", r.derived(squatted).Spec.Ports[0].Port, 1)
	r.want(squatted, nil)
	r.want(theirs, nil)
	r.await("no problem", func() bool { return len(r.prov.Problems()) == 0 })
	if r.derived(squatted) == nil || r.imported("theirs") == nil {
		t.Error("somebody else's object is gone")
	}

	// Another leader goes on where this one ended, and writes nothing. What it has on disk
	// would do if the API server were away.
	r.stop()
	alone, err := NewEntries(EntriesConfig{Client: c, Logger: slog.New(slog.DiscardHandler), Dir: r.dir})
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := alone.Port(catalog, "TCP", 80); !alone.Known() || !ok || n != http {
		t.Errorf("the entry port was %d, and the copy knows %d: %v", http, n, alone.Known())
	}
	if err := os.WriteFile(alone.path(), []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if broken, err := NewEntries(EntriesConfig{Client: c, Logger: slog.New(slog.DiscardHandler), Dir: r.dir}); err != nil || broken.Known() {
		t.Errorf("a broken copy counts as known, or is an error: %v", err)
	}
	if err := alone.save(); err != nil {
		t.Fatal(err)
	}
	// What the copy alone knows goes once the API server has told all.
	stale := Name{"shop", "stale"}
	alone.seen[stale] = recording(1, map[int32]uint16{80: 16000})
	if err := alone.save(); err != nil {
		t.Fatal(err)
	}
	version := func() string {
		h := r.have(catalog)
		out := h.Import.ResourceVersion + " " + h.Service.ResourceVersion
		for _, s := range h.Slices {
			out += " " + s.ResourceVersion
		}
		return out
	}
	before := version()
	r.start(c)
	r.await("it has seen all", func() bool { _, ok := r.prov.Standing(catalog); return ok })
	r.quiet()
	if after := version(); after != before {
		t.Errorf("a new leader rewrites: %s became %s", before, after)
	}
	if n, ok := r.entries.Port(catalog, "TCP", 80); !ok || n != http {
		t.Errorf("the entry port was %d, and is %d to a new agent", http, n)
	}
	r.await("the stale entry goes", func() bool { _, ok := r.entries.Port(stale, "TCP", 80); return !ok })

	// Back to the endpoints themselves, of both families.
	imp.Sources = []Source{source("east", true, true, pod("10.1.0.7", true), cluster.Endpoint{Addr: netip.MustParseAddr("fd02::7"), Ready: true, Serving: true})}
	r.want(catalog, imp)
	r.await("the endpoints", func() bool { return fmt.Sprint(proxied(r.have(catalog))) == "[10.1.0.7:8080 http fd02::7:8080 http]" })

	// The last export goes, and all with it.
	r.want(catalog, nil)
	r.await("all is gone", func() bool { h := r.have(catalog); return h.Import == nil && h.Service == nil && len(h.Slices) == 0 })
	r.await("its entry port is free", func() bool { _, ok := r.entries.Port(catalog, "TCP", 80); return !ok })
}
