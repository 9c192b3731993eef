package provision

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/kubernetes"
)

// api is what of an API server matters to plans: it makes UIDs and cluster IPs.
type api struct {
	have    map[Name]Have
	entries *allocation
	dual    bool
	uids    int
	writes  []string // of the last settle
}

func newAPI() *api {
	return &api{have: map[Name]Have{}, entries: newAllocation(PortRange{20000, 20063})}
}

func (a *api) uid() types.UID { a.uids++; return types.UID(fmt.Sprint("uid-", a.uids)) }

func (a *api) apply(t fataler, n Name, o metav1.Object) {
	h := a.have[n]
	a.writes = append(a.writes, fmt.Sprintf("apply %T %s", o, o.GetName()))
	switch o := o.(type) {
	case *mcsv1beta1.ServiceImport:
		if h.Import != nil && !ours(h.Import) {
			t.Fatalf("somebody else's ServiceImport is written")
		}
		c := o.DeepCopy()
		if c.UID = a.uid(); h.Import != nil {
			c.UID = h.Import.UID
		}
		h.Import = c
	case *corev1.Service:
		if h.Service != nil && !oursDerived(h.Service) {
			t.Fatalf("somebody else's Service is written")
		}
		if o.OwnerReferences[0].UID == "" || o.OwnerReferences[0].UID != h.Import.UID {
			t.Fatalf("the Service's owner is %v", o.OwnerReferences)
		}
		c := o.DeepCopy()
		if c.UID = a.uid(); h.Service != nil {
			c.UID, c.Spec.ClusterIP, c.Spec.ClusterIPs = h.Service.UID, h.Service.Spec.ClusterIP, h.Service.Spec.ClusterIPs
		} else {
			c.Spec.ClusterIPs = []string{fmt.Sprintf("10.96.0.%d", a.uids)}
			if a.dual {
				c.Spec.ClusterIPs = append(c.Spec.ClusterIPs, fmt.Sprintf("fd00::%d", a.uids))
			}
			c.Spec.ClusterIP = c.Spec.ClusterIPs[0]
		}
		h.Service = c
		a.entries.set(n, c)
	case *discoveryv1.EndpointSlice:
		i := slices.IndexFunc(h.Slices, func(s SliceObject) bool { return s.Name == o.Name })
		if i >= 0 {
			if !oursDerived(h.Slices[i]) {
				t.Fatalf("somebody else's slice is written")
			}
			h.Slices = slices.Delete(slices.Clone(h.Slices), i, i+1)
		}
		h.Slices = append(slices.Clone(h.Slices), o.DeepCopy())
	}
	a.have[n] = h
}

func (a *api) remove(t fataler, n Name, o metav1.Object) {
	if !ours(o) {
		t.Fatalf("somebody else's %T %s is deleted", o, o.GetName())
	}
	a.writes = append(a.writes, fmt.Sprintf("remove %T %s", o, o.GetName()))
	h := a.have[n]
	switch o := o.(type) {
	case *mcsv1beta1.ServiceImport:
		h.Import = nil
	case *corev1.Service:
		h.Service = nil
		a.entries.set(n, nil)
	case *discoveryv1.EndpointSlice:
		h.Slices = slices.DeleteFunc(slices.Clone(h.Slices), func(s SliceObject) bool { return s.Name == o.Name })
	}
	a.have[n] = h
}

type fataler interface{ Fatalf(string, ...any) }

// settle plans and writes until nothing is left to do. each sees what there is after
// every single write.
func (a *api) settle(t fataler, in input, each func(Have)) plan {
	a.writes = nil
	for range 10 {
		in.have, in.entries = a.have[in.name], a.entries
		p := planFor(in)
		if len(p.apply)+len(p.remove) == 0 {
			return p
		}
		for _, o := range p.apply {
			a.apply(t, in.name, o)
			each(a.have[in.name])
		}
		for _, o := range p.remove {
			a.remove(t, in.name, o)
			each(a.have[in.name])
		}
	}
	t.Fatalf("plans do not come to rest: %v", a.writes)
	return plan{}
}

var catalog = Name{"shop", "catalog"}

func port(name string, number int32) Port {
	return Port{Name: name, Number: number, Protocol: corev1.ProtocolTCP}
}

func pod(addr string, ready bool) cluster.Endpoint {
	return cluster.Endpoint{Addr: netip.MustParseAddr(addr), Pod: "p", Hostname: "h-" + addr[len(addr)-1:], Zone: "z1", Ready: ready, Serving: ready}
}

func source(id cluster.ID, own, used bool, pods ...cluster.Endpoint) Source {
	return Source{Cluster: id, Own: own, Direct: true, Used: used, Slices: []Slice{{
		Name: "catalog-" + string(id), Ports: []cluster.EndpointPort{{Name: "http", Port: 8080, Protocol: "TCP"}}, Endpoints: pods,
	}}}
}

func gateway(addr string) Crossing {
	return Crossing{Addr: netip.MustParseAddr(addr), Ready: true, Serving: true}
}

func all(Crossing, socket) bool  { return true }
func none(Crossing, socket) bool { return false }

func scene(gateways bool, ports ...Port) input {
	return input{
		name: catalog, local: "east", version: "v1beta1", serves: all,
		gateways: []Crossing{gateway("10.0.0.1"), gateway("10.0.0.2")},
		want: &Import{Name: catalog, Ports: ports, Gateways: gateways, SessionAffinity: corev1.ServiceAffinityNone,
			Sources: []Source{source("east", true, true, pod("10.1.0.1", true)), source("west", false, false, pod("10.2.0.1", true))}},
	}
}

func withNamespace() *api {
	a := newAPI()
	a.have[catalog] = Have{Namespace: true}
	return a
}

func nothing(Have) {}

// endpoints lists what kube-proxy sends connections to: "address:port name".
func proxied(h Have) (out []string) {
	for _, s := range h.Slices {
		if s.Labels[discoveryv1.LabelServiceName] == "" {
			continue
		}
		for _, p := range s.Ports {
			for _, e := range s.Endpoints {
				if *e.Conditions.Ready {
					out = append(out, fmt.Sprintf("%s:%d %s", e.Addresses[0], *p.Port, *p.Name))
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// "A multi-cluster service will be imported only by clusters in which the service's
// namespace exists", and gone when nobody exports it any more.
func TestImportNeedsItsNamespace(t *testing.T) {
	a := newAPI()
	a.have[catalog] = Have{}
	in := scene(false, port("http", 80))
	if p := a.settle(t, in, nothing); p.standing != nil || len(a.writes) > 0 {
		t.Fatalf("no namespace, and there were %v", a.writes)
	}
	a.have[catalog] = Have{Namespace: true}
	p := a.settle(t, in, nothing)
	h := a.have[catalog]
	equal(t, "type", h.Import.Spec.Type, mcsv1beta1.ClusterSetIP)
	equal(t, "ips", strings.Join(h.Import.Spec.IPs, " "), h.Service.Spec.ClusterIP)
	equal(t, "ready", p.standing.Ready.Reason, "Ready")
	equal(t, "slices", p.standing.EndpointSlices, mcsv1beta1.EndpointSliceObjectsPresent)
	equal(t, "clusters", fmt.Sprint(p.standing.Clusters), "[east west]")
	uid := h.Import.UID
	in.want = nil
	a.settle(t, in, nothing)
	if h := a.have[catalog]; h.Import != nil || h.Service != nil || len(h.Slices) > 0 {
		t.Errorf("nobody exports it, and there is %+v", h)
	}
	if len(a.writes) == 0 || !strings.Contains(a.writes[0], "ServiceImport") {
		t.Errorf("the name has to go first: %v (uid %s)", a.writes, uid)
	}
}

// internalTrafficPolicy Local: kube-proxy has the pods with their nodes, and uses those of
// the client's alone. Behind gateways, which are on other nodes as a rule, it is theirs to
// stay in this cluster; on the way there and back nobody is without an endpoint.
func TestNodesOnly(t *testing.T) {
	local := corev1.ServiceInternalTrafficPolicyLocal
	a := withNamespace()
	in := scene(false, port("http", 80))
	here := pod("10.1.0.1", true)
	here.Node = "node-1"
	in.want.InternalTrafficPolicy = &local
	in.want.Sources = []Source{source("east", true, true, here), {Cluster: "west"}}
	each := func(h Have) {
		if h.Service == nil || len(h.Slices) == 0 {
			return
		}
		usable := false
		for _, s := range h.Slices {
			for _, e := range s.Endpoints {
				usable = usable || !nodesOnly(h.Service) || e.NodeName != nil && *e.NodeName == "node-1"
			}
		}
		if !usable {
			t.Errorf("on node-1 there is no endpoint: %v", a.writes)
		}
	}
	for _, gateways := range []bool{false, true, false} {
		in.want.Gateways = gateways
		a.settle(t, in, each)
		h := a.have[catalog]
		equal(t, "kube-proxy stays on the node", nodesOnly(h.Service), !gateways)
		equal(t, "the import says so", *h.Import.Spec.InternalTrafficPolicy, local)
		for _, s := range h.Slices {
			equal(t, "nodes in "+s.Name, s.Endpoints[0].NodeName != nil, !gateways)
		}
	}
	in.want.InternalTrafficPolicy = nil
	a.settle(t, in, each)
	equal(t, "no more", nodesOnly(a.have[catalog].Service), false)
}

// On one network and without routes kube-proxy has the endpoints themselves, those of the
// clusters that take requests; each slice has one source cluster, its labels and one owner.
func TestEndpointsThemselves(t *testing.T) {
	a := withNamespace()
	in := scene(false, port("http", 80))
	a.settle(t, in, nothing)
	h := a.have[catalog]
	equal(t, "proxied", fmt.Sprint(proxied(h)), "[10.1.0.1:8080 http]")
	seen := map[string]int{}
	for _, s := range h.Slices {
		seen[s.Labels[mcsv1beta1.LabelSourceCluster]]++
		equal(t, "service name", s.Labels[mcsv1beta1.LabelServiceName], "catalog")
		equal(t, "managed by", s.Labels[discoveryv1.LabelManagedBy], Manager)
		equal(t, "owner", s.OwnerReferences[0].UID, h.Import.UID)
		_, hidden := s.Labels[corev1.IsHeadlessService]
		if hidden == (s.Labels[discoveryv1.LabelServiceName] != "") {
			t.Errorf("slice %s: kube-proxy is to see it or not: %v", s.Name, s.Labels)
		}
		pods := s.Endpoints[0].TargetRef != nil
		equal(t, "target of "+s.Name, pods, s.Labels[mcsv1beta1.LabelSourceCluster] == "east")
	}
	equal(t, "slices by source", fmt.Sprint(seen), "map[east:1 west:1]")

	// The nearer cluster overflows: the other one's endpoints come before any goes.
	in.want.Sources[1].Used = true
	label := map[string]string{}
	for _, s := range h.Slices {
		label[s.Name] = s.Labels[discoveryv1.LabelServiceName]
	}
	a.settle(t, in, func(h Have) {
		for _, s := range h.Slices {
			if was, ok := label[s.Name]; ok && was != s.Labels[discoveryv1.LabelServiceName] {
				t.Errorf("slice %s is relabelled, which kube-proxy does not understand", s.Name)
			}
		}
		if !slices.Contains(proxied(h), "10.1.0.1:8080 http") {
			t.Errorf("nothing is served meanwhile: %v", proxied(h))
		}
	})
	equal(t, "proxied", fmt.Sprint(proxied(a.have[catalog])), "[10.1.0.1:8080 http 10.2.0.1:8080 http]")
	equal(t, "slices", len(a.have[catalog].Slices), 2)
	// One pod changes: one small object does.
	in.want.Sources[1].Slices[0].Endpoints = []cluster.Endpoint{pod("10.2.0.1", false)}
	a.settle(t, in, nothing)
	equal(t, "writes", len(a.writes), 1)
	equal(t, "proxied", fmt.Sprint(proxied(a.have[catalog])), "[10.1.0.1:8080 http]")
}

// Through the gateways: an entry port each, named once it is served; the entry ports stay
// whatever comes and goes.
func TestThroughGateways(t *testing.T) {
	a := withNamespace()
	in := scene(true, port("http", 80), Port{Name: "dns", Number: 53, Protocol: corev1.ProtocolUDP}, Port{Name: "s", Number: 9, Protocol: corev1.ProtocolSCTP})
	in.serves = none
	p := a.settle(t, in, nothing)
	equal(t, "ready", p.standing.Ready.Reason, "Pending")
	equal(t, "waits", p.waits, true)
	equal(t, "slices", len(a.have[catalog].Slices), 0)
	equal(t, "ips before anything is served", len(a.have[catalog].Import.Spec.IPs), 1)
	entry := func(protocol corev1.Protocol, n int32) uint16 {
		got, ok := a.entries.get(entryKey{catalog, protocol, n})
		if !ok {
			t.Fatalf("no entry port for %d", n)
		}
		return got
	}
	http, dns := entry("TCP", 80), entry("UDP", 53)
	// The first gateway serves both, the second only http yet.
	in.serves = func(g Crossing, s socket) bool {
		return g.Addr == netip.MustParseAddr("10.0.0.1") || s.protocol == "TCP"
	}
	p = a.settle(t, in, nothing)
	equal(t, "ready", p.standing.Ready.Reason, "Ready")
	equal(t, "waits", p.waits, true)
	want := []string{fmt.Sprintf("10.0.0.1:%d dns", dns), fmt.Sprintf("10.0.0.1:%d http", http), fmt.Sprintf("10.0.0.2:%d http", http)}
	slices.Sort(want)
	equal(t, "proxied", fmt.Sprint(proxied(a.have[catalog])), fmt.Sprint(want))
	in.serves = all
	p = a.settle(t, in, func(h Have) {
		for _, w := range want {
			if !slices.Contains(proxied(h), w) {
				t.Errorf("%s is gone meanwhile: %v", w, proxied(h))
			}
		}
	})
	equal(t, "waits", p.waits, false)
	equal(t, "slices", len(a.have[catalog].Slices), 1)
	equal(t, "source", a.have[catalog].Slices[0].Labels[mcsv1beta1.LabelSourceCluster], "east")
	// Another leader knows of nothing yet, or of the half, and takes nothing away.
	for _, knows := range []func(Crossing, socket) bool{none, func(_ Crossing, s socket) bool { return s.protocol == "TCP" }} {
		in.serves = knows
		a.settle(t, in, nothing)
		equal(t, "writes of a new leader", len(a.writes), 0)
	}
	in.serves = all
	// All gateways are lost: what there was stays.
	before := fmt.Sprint(proxied(a.have[catalog]), a.have[catalog].Import.Spec.IPs)
	in.gateways = nil
	a.settle(t, in, nothing)
	equal(t, "without gateways", fmt.Sprint(proxied(a.have[catalog]), a.have[catalog].Import.Spec.IPs), before)
	equal(t, "writes", len(a.writes), 0)
	// Routes go, so kube-proxy may have the endpoints; and come back.
	in.gateways = []Crossing{gateway("10.0.0.1")}
	for _, through := range []bool{false, true} {
		in.want.Gateways = through
		a.settle(t, in, func(h Have) {
			if len(proxied(h)) == 0 {
				t.Errorf("gateways %v: nothing is served meanwhile", through)
			}
		})
	}
	equal(t, "http entry", entry("TCP", 80), http)
	equal(t, "dns entry", entry("UDP", 53), dns)
	// A port comes and one goes; the third keeps its entry.
	in.want.Ports = []Port{port("http", 80), port("metrics", 9090)}
	a.settle(t, in, nothing)
	equal(t, "http entry", entry("TCP", 80), http)
	if _, ok := a.entries.get(entryKey{catalog, "UDP", 53}); ok {
		t.Error("the entry port of a port that is gone is still held")
	}
}

// "Headless services ... do not configure a VIP": no Service, all sources' slices with
// hostnames, and clusters of other networks have none.
func TestHeadless(t *testing.T) {
	a := withNamespace()
	in := scene(false, port("http", 80))
	in.want.Headless, in.want.IPFamilies = true, []corev1.IPFamily{corev1.IPv4Protocol}
	in.want.Sources = append(in.want.Sources, Source{Cluster: "far"})
	p := a.settle(t, in, nothing)
	h := a.have[catalog]
	if h.Service != nil || len(h.Import.Spec.IPs) > 0 || h.Import.Spec.Type != mcsv1beta1.Headless {
		t.Errorf("a headless import has an address: %+v", h)
	}
	equal(t, "slices", len(h.Slices), 2)
	for _, s := range h.Slices {
		equal(t, "hostname", *s.Endpoints[0].Hostname, "h-1")
		if _, ok := s.Labels[discoveryv1.LabelServiceName]; ok {
			t.Error("kube-proxy would use it")
		}
	}
	equal(t, "ready", p.standing.Ready.Reason, "Ready")
	if !strings.Contains(p.standing.Ready.Message, "far") {
		t.Errorf("nobody is told that far's pods are missing: %q", p.standing.Ready.Message)
	}
	// It gets an address after all, and loses it again.
	in.want.Headless, in.want.Sources = false, in.want.Sources[:2]
	a.settle(t, in, nothing)
	equal(t, "ips", len(a.have[catalog].Import.Spec.IPs), 1)
	in.want.Headless = true
	a.settle(t, in, nothing)
	if h := a.have[catalog]; h.Service != nil || len(h.Import.Spec.IPs) > 0 {
		t.Errorf("headless again: %+v", h)
	}
}

// Dual stack: both addresses, in the order of the derived Service; those alone whose
// family the gateways have.
func TestDualStack(t *testing.T) {
	a := withNamespace()
	a.dual = true
	in := scene(true, port("http", 80))
	in.gateways = []Crossing{gateway("10.0.0.1"), gateway("fd01::1")}
	a.settle(t, in, nothing)
	h := a.have[catalog]
	equal(t, "families", fmt.Sprint(h.Import.Spec.IPFamilies), "[IPv4 IPv6]")
	equal(t, "ips", fmt.Sprint(h.Import.Spec.IPs), fmt.Sprint(h.Service.Spec.ClusterIPs))
	equal(t, "slices", len(h.Slices), 2)
	in.gateways = []Crossing{gateway("10.0.0.1")}
	a.settle(t, in, nothing)
	equal(t, "families", fmt.Sprint(a.have[catalog].Import.Spec.IPFamilies), "[IPv4]")
	equal(t, "slices", len(a.have[catalog].Slices), 1)
	a = withNamespace()
	in.gateways = []Crossing{gateway("fd01::1")}
	p := a.settle(t, in, nothing)
	equal(t, "ready", p.standing.Ready.Reason, string(mcsv1beta1.ServiceImportReasonIPFamilyNotSupported))
	// Endpoints themselves: nobody is sent to an address behind which there is nothing.
	a = withNamespace()
	a.dual = true
	in.want.Gateways = false
	a.settle(t, in, nothing)
	equal(t, "families of the endpoints", fmt.Sprint(a.have[catalog].Import.Spec.IPFamilies), "[IPv4]")
	in.want.Sources = append(in.want.Sources, source("north", false, true, pod("fd02::1", true)))
	a.settle(t, in, nothing)
	equal(t, "families of more", fmt.Sprint(a.have[catalog].Import.Spec.IPFamilies), "[IPv4 IPv6]")
	in.want.Sources = nil
	a.settle(t, in, nothing)
	equal(t, "families without an endpoint", fmt.Sprint(a.have[catalog].Import.Spec.IPFamilies), "[IPv4 IPv6]")
}

// Exported labels and annotations come and go; others', and what the API server would
// refuse, don't matter.
func TestExportedLabels(t *testing.T) {
	a := withNamespace()
	in := scene(false, port("http", 80))
	in.want.Labels = map[string]string{"team": "a", "no good!": "x", LabelManagedBy: "me"}
	in.want.Annotations = map[string]string{"note": "hello"}
	a.settle(t, in, nothing)
	h := a.have[catalog]
	equal(t, "labels", fmt.Sprint(h.Import.Labels), fmt.Sprint(map[string]string{"team": "a", LabelManagedBy: Manager}))
	equal(t, "note", h.Import.Annotations["note"], "hello")
	h.Import.Labels["somebody"] = "else"
	a.settle(t, in, nothing)
	equal(t, "writes for a foreign label", len(a.writes), 0)
	in.want.Labels = nil
	a.settle(t, in, nothing)
	equal(t, "writes for a label that goes", len(a.writes), 1)
	in.want.Annotations = nil
	a.settle(t, in, nothing)
	equal(t, "annotations", len(a.have[catalog].Import.Annotations), 0)
}

// Nothing of others' is touched, whatever stands in our way.
func TestForeignObjectsStay(t *testing.T) {
	for what, foreign := range map[string]Have{
		"import": {Import: &mcsv1beta1.ServiceImport{ObjectMeta: metav1.ObjectMeta{Name: "catalog", Namespace: "shop", UID: "theirs"}}},
		"service": {Service: &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: ServiceName(catalog), Namespace: "shop", Labels: map[string]string{LabelManagedBy: Manager}},
			Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80, Protocol: "TCP", TargetPort: intstr.FromInt32(20001)}}}}},
		"slice": {Slices: []SliceObject{{ObjectMeta: metav1.ObjectMeta{Name: ServiceName(catalog) + "-gateways-ipv4-0", Namespace: "shop", Labels: map[string]string{kubernetes.LabelDerived: derived}}}}},
	} {
		foreign.Namespace = true
		a := newAPI()
		a.have[catalog] = foreign
		in := scene(true, port("http", 80))
		// The slice's write is planned again and again only if nothing is said of it.
		p := a.settle(t, in, nothing)
		if p.problem == "" {
			t.Errorf("%s: nobody is told", what)
		}
		in.want = nil
		a.settle(t, in, nothing)
		h := a.have[catalog]
		if what == "import" && h.Import == nil || what == "service" && h.Service == nil || what == "slice" && len(h.Slices) != 1 {
			t.Errorf("%s: it is gone", what)
		}
	}
}

// From any state, through any changes: plans come to rest, write nothing then, keep the
// addresses, and never leave clients without an endpoint that had one and is to have one.
func TestPlansSettle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := withNamespace()
		a.dual = rapid.Bool().Draw(t, "dual")
		in := scene(false)
		last := ""
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			w := &Import{Name: catalog, SessionAffinity: corev1.ServiceAffinityNone, Gateways: rapid.Bool().Draw(t, "gateways"), Headless: rapid.IntRange(0, 5).Draw(t, "headless") == 0}
			if w.Headless {
				w.Gateways = false
			}
			for i, n := range []string{"http", "", "grpc"} {
				if rapid.Bool().Draw(t, "port"+n) || i == 0 {
					w.Ports = append(w.Ports, port(n, int32(80+i)))
				}
			}
			for i, id := range []cluster.ID{"east", "west"} {
				s := source(id, i == 0, i == 0 || rapid.Bool().Draw(t, "used"), pod(fmt.Sprintf("10.%d.0.1", i+1), true))
				w.Sources = append(w.Sources, s)
			}
			in.want = w
			serving := rapid.SliceOfN(rapid.Bool(), 2, 2).Draw(t, "serves")
			in.serves = func(g Crossing, _ socket) bool { return serving[int(g.Addr.As4()[3])-1] }
			had := proxied(a.have[catalog])
			p := a.settle(t, in, func(h Have) {
				if !w.Headless && len(had) > 0 && last == "addressed" && len(proxied(h)) == 0 {
					t.Fatalf("clients have no endpoint: %v", a.writes)
				}
			})
			h := a.have[catalog]
			if p.problem != "" {
				t.Fatalf("problem: %s", p.problem)
			}
			if ready := p.standing.Ready.Status == metav1.ConditionTrue; ready && !w.Headless && len(proxied(h)) == 0 {
				t.Fatalf("Ready, and kube-proxy has nothing")
			}
			last = "addressed"
			if w.Headless {
				last = ""
			} else if h.Service.Spec.ClusterIP == "" {
				t.Fatalf("no address")
			}
		}
	})
}
