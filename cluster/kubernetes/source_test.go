package kubernetes_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/file"
	"github.com/causeway-mesh/causeway/cluster/kubernetes"
	"github.com/causeway-mesh/causeway/test/lab"
)

var everything = lab.ControlPlaneOptions{CRDs: lab.CRDs{GatewayAPI: lab.Experimental, MCS: true}}

// One object of each kind, and all that is defaulted left out.
const sample = `
apiVersion: v1
kind: Namespace
metadata: {name: app, labels: {team: a}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: app, annotations: {note: hello}}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: web}, {name: dns, port: 53, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: app}
spec: {clusterIP: None, sessionAffinity: ClientIP, ports: [{port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: outside, namespace: app}
spec: {type: ExternalName, externalName: example.com}
---
apiVersion: multicluster.x-k8s.io/v1alpha1
kind: ServiceExport
metadata: {name: web, namespace: app, annotations: {causeway.dev/weight: "3"}}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: headless, namespace: app}
spec: {exportedLabels: {a: b}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: app, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: dns, port: 53, protocol: UDP}]
endpoints:
- {addresses: [10.1.0.1], zone: a, hostname: web-0, targetRef: {kind: Pod, name: web-0}, conditions: {ready: true}}
- {addresses: [10.1.0.2], conditions: {ready: false, serving: true, terminating: true}}
- {addresses: [10.1.0.3]}
---
apiVersion: v1
kind: Secret
metadata: {name: cert, namespace: app}
type: kubernetes.io/tls
stringData: {tls.crt: certificate, tls.key: key}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: roots, namespace: app}
data: {ca.crt: authorities}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: mine}
spec: {controllerName: causeway.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front, namespace: app}
spec:
  gatewayClassName: mine
  listeners:
  - {name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more, namespace: app}
spec:
  parentRef: {name: front}
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: HTTPRoute
metadata: {name: web, namespace: app}
spec:
  parentRefs: [{name: front}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: web, namespace: app}
spec:
  parentRefs: [{name: front}]
  rules: [{matches: [{method: {service: a.B}}], backendRefs: [{name: web, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TLSRoute
metadata: {name: web, namespace: app}
spec: {parentRefs: [{name: front}], hostnames: [a.example.com], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: web, namespace: app}
spec: {parentRefs: [{name: front}], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: UDPRoute
metadata: {name: web, namespace: app}
spec: {parentRefs: [{name: front}], rules: [{backendRefs: [{name: web, port: 53}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: web, namespace: app}
spec:
  targetRefs: [{group: "", kind: Service, name: web}]
  validation: {hostname: web.example.com, caCertificateRefs: [{group: "", kind: ConfigMap, name: roots}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: all, namespace: app}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: other}]
  to: [{group: "", kind: Service}]
`

// What a real API server holds is delivered with the values that the same
// manifests have as files, whatever version they were written in.
func TestSameAsFiles(t *testing.T) {
	t.Parallel()
	cp := lab.StartControlPlane(t, everything)
	apply(t, cp, sample)
	w := run(t, kubernetes.Config{Client: asAgent(t, cp), Meta: cluster.Meta{Region: "eu"}})
	w.await(t, "the first full set", func() bool { return w.synced })
	w.mu.Lock()
	if w.full != 1 {
		t.Errorf("the first full set came in %d batches", w.full)
	}
	if w.meta.Region != "eu" {
		t.Errorf("meta is %+v", w.meta)
	}
	w.mu.Unlock()
	got := map[cluster.Ref]*cluster.Object{}
	for r, o := range w.current(t) {
		if r.Namespace == "app" || r.Name == "app" || r.Name == "mine" {
			got[r] = o
		}
	}
	if diff := cmp.Diff(fromFiles(t, sample), got, likeFiles()...); diff != "" {
		t.Errorf("the API server's objects are not those of the files (-files +API server):\n%s", diff)
	}
	for _, k := range cluster.Kinds {
		if !anyOf(got, k) {
			t.Errorf("no %s was compared", k)
		}
	}
}

func anyOf(m map[cluster.Ref]*cluster.Object, k cluster.Kind) bool {
	for r := range m {
		if r.Kind == k {
			return true
		}
	}
	return false
}

// likeFiles leaves out what only an API server can say.
func likeFiles() []cmp.Option {
	return []cmp.Option{
		cmpopts.IgnoreFields(cluster.Object{}, "Origin", "Seniority"),
		cmpopts.IgnoreFields(metav1.ObjectMeta{}, "CreationTimestamp", "Generation"),
		cmpopts.IgnoreFields(corev1.ServiceSpec{}, "ClusterIP", "ClusterIPs", "IPFamilies", "IPFamilyPolicy"),
		cmpopts.IgnoreFields(metav1.TypeMeta{}, "APIVersion"), // a file's Namespace and Service say it, the rest is tested below
		cmpopts.EquateComparable(cluster.Endpoint{}),
		cmp.FilterPath(func(p cmp.Path) bool {
			f, ok := p.Last().(cmp.MapIndex)
			return ok && f.Key().String() == ""
		}, cmp.Ignore()),
		cmpopts.EquateEmpty(),
	}
}

// fromFiles reads manifests as cluster/file does.
func fromFiles(t *testing.T, manifests string) map[cluster.Ref]*cluster.Object {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(manifests), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := file.New(file.Config{Cluster: "west", Dir: dir, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{objects: map[cluster.Ref]*cluster.Object{}, when: map[cluster.Ref]time.Time{}, changed: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Run(ctx, w)
	}()
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-ended
	if len(w.problems) > 0 {
		t.Fatalf("the files have problems: %v", w.problems)
	}
	delete(w.objects, ref(cluster.KindNamespace, "", "default"))
	return w.objects
}

// Definitions come and go, and change their versions, under a running source.
func TestDefinitionsComeAndGo(t *testing.T) {
	t.Parallel()
	cp := lab.StartControlPlane(t, lab.ControlPlaneOptions{})
	w := run(t, kubernetes.Config{Client: asAgent(t, cp)})
	w.await(t, "the first full set without any custom kind", func() bool { return w.synced })

	if err := lab.ApplyCRDs(t.Context(), cp.Config, lab.CRDs{GatewayAPI: lab.Standard, MCS: true}); err != nil {
		t.Fatal(err)
	}
	apply(t, cp, `
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: web, namespace: default}
spec: {exportedLabels: {a: b}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: default}
spec: {parentRefs: [{name: front}]}
`)
	export, route := ref(cluster.KindServiceExport, "default", "web"), ref(cluster.KindHTTPRoute, "default", "web")
	w.await(t, "objects of kinds that have just arrived", func() bool { return w.has(export) && w.has(route) })
	before := w.known()[export]

	dyn, err := dynamic.NewForConfig(cp.Config)
	if err != nil {
		t.Fatal(err)
	}
	crds := dyn.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	// From now on v1alpha1 alone is served, as by older installations.
	const name = "serviceexports.multicluster.x-k8s.io"
	crd, err := crds.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	versions := crd.Object["spec"].(map[string]any)["versions"].([]any)
	for _, v := range versions {
		v := v.(map[string]any)
		v["served"] = v["name"] == "v1alpha1"
	}
	if _, err := crds.Update(t.Context(), crd, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	apply(t, cp, "apiVersion: multicluster.x-k8s.io/v1alpha1\nkind: ServiceExport\nmetadata: {name: second, namespace: default}\n")
	w.await(t, "an export in the only version that is served", func() bool { return w.has(ref(cluster.KindServiceExport, "default", "second")) })
	if w.known()[export] != before {
		t.Error("an export that did not change was delivered again, or taken away, because its version changed")
	}
	if _, err := dyn.Resource(schema.GroupVersionResource{Group: "multicluster.x-k8s.io", Version: "v1alpha1", Resource: "serviceexports"}).Namespace("default").Get(t.Context(), "web", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}

	if err := crds.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.await(t, "the end of a kind", func() bool { return !w.has(export) && !anyOf(w.objects, cluster.KindServiceExport) })
	if !w.has(route) {
		t.Error("another kind went with it")
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if _, err := crds.Get(t.Context(), name, metav1.GetOptions{}); apierrors.IsNotFound(err) {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the definition is still there: %v", err)
		}
	}
	if err := lab.ApplyCRDs(t.Context(), cp.Config, lab.CRDs{MCS: true}); err != nil {
		t.Fatal(err)
	}
	apply(t, cp, "apiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceExport\nmetadata: {name: third, namespace: default}\n")
	w.await(t, "a kind that is back", func() bool { return w.has(ref(cluster.KindServiceExport, "default", "third")) })
}

// Of Secrets and ConfigMaps those alone are read that something of ours refers to,
// as long as it does.
func TestReferences(t *testing.T) {
	t.Parallel()
	cp := lab.StartControlPlane(t, everything)
	secret := func(ns, name string) string {
		return "apiVersion: v1\nkind: Secret\nmetadata: {name: " + name + ", namespace: " + ns + "}\ntype: kubernetes.io/tls\nstringData: {tls.crt: one, tls.key: two}\n---\n"
	}
	gateway := func(name, class, certificate string) string {
		return "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: " + name + "}\nspec:\n  gatewayClassName: " + class +
			"\n  listeners: [{name: a, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: " + certificate + "}]}}]\n---\n"
	}
	apply(t, cp, secret("default", "used")+secret("default", "unused")+secret("default", "foreign")+secret("default", "later")+secret("default", "outside")+
		gateway("ours", "causeway", "used")+gateway("theirs", "somebody-elses", "foreign"))
	w := run(t, kubernetes.Config{Client: asAgent(t, cp)})
	w.await(t, "the first full set", func() bool { return w.synced })
	secrets := func() []string {
		var out []string
		for r := range w.objects {
			if r.Kind == cluster.KindSecret {
				out = append(out, r.Name)
			}
		}
		slices.Sort(out)
		return out
	}
	is := func(names ...string) func() bool { return func() bool { return slices.Equal(secrets(), names) } }
	w.mu.Lock()
	if !is("used")() {
		t.Errorf("the first full set has Secrets %v", secrets())
	}
	w.mu.Unlock()

	// A Gateway never arrives before the Secret that it refers to.
	late := ref(cluster.KindGateway, "default", "late")
	apply(t, cp, gateway("late", "causeway", "later"))
	w.await(t, "the second Gateway", func() bool {
		if w.has(late) && !is("later", "used")() {
			t.Errorf("a Gateway was delivered with Secrets %v", secrets())
		}
		return w.has(late)
	})
	apply(t, cp, "apiVersion: v1\nkind: Secret\nmetadata: {name: later, namespace: default}\ntype: kubernetes.io/tls\nstringData: {tls.crt: renewed, tls.key: two}\n")
	w.await(t, "a renewed certificate", func() bool {
		o := w.objects[ref(cluster.KindSecret, "default", "later")]
		return o != nil && string(o.Value.(*corev1.Secret).Data[corev1.TLSCertKey]) == "renewed"
	})
	w.Need([]cluster.Ref{ref(cluster.KindSecret, "default", "outside"), ref(cluster.KindSecret, "default", "missing")})
	w.await(t, "what other clusters' Gateways refer to", is("later", "outside", "used"))
	w.Need(nil)
	w.await(t, "the end of that", is("later", "used"))

	dyn, err := dynamic.NewForConfig(cp.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := dyn.Resource(schema.GroupVersionResource{Group: gatewayv1.GroupName, Version: "v1", Resource: "gateways"}).Namespace("default").Delete(t.Context(), "late", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.await(t, "nothing that nobody refers to", is("used"))
}

// A status is nobody's business but its writer's.
func TestLive(t *testing.T) {
	t.Parallel()
	cp := lab.StartControlPlane(t, everything)
	apply(t, cp, sample)
	agent := asAgent(t, cp)
	w := run(t, kubernetes.Config{Client: agent})
	w.await(t, "the first full set", func() bool { return w.synced })
	w.awaitOwn(t)
	route := ref(cluster.KindTLSRoute, "app", "web")
	live, ok := w.Live(route)
	if !ok || live.Generation != 1 || live.UID == "" {
		t.Fatalf("live is %+v", live)
	}
	w.mu.Lock()
	batches, told := w.batches, w.live[route]
	w.mu.Unlock()
	patch := `{"metadata":{"resourceVersion":"` + live.ResourceVersion + `"},"status":{"parents":[{"parentRef":{"name":"front"},"controllerName":"causeway.dev/gateway-controller","conditions":[{"type":"Accepted","status":"True","reason":"Accepted","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]}]}}`
	if err := agent.PatchStatus(t.Context(), route, []byte(patch), "test"); err != nil {
		t.Fatal(err)
	}
	w.await(t, "word of the new status", func() bool { return w.live[route] > told })
	if live, _ := w.Live(route); len(live.Status.(*gatewayv1.RouteStatus).Parents) != 1 {
		t.Errorf("live is %+v", live.Status)
	}
	w.mu.Lock()
	if w.batches != batches {
		t.Errorf("a status was delivered: %d batches, then %d", batches, w.batches)
	}
	w.mu.Unlock()
	if err := agent.PatchStatus(t.Context(), route, []byte(patch), "test"); err == nil {
		t.Error("a patch of an old version was not refused")
	}

	// Which channel the definitions are of matters to what GatewayClasses say.
	class := ref(cluster.KindGatewayClass, "", "mine")
	w.await(t, "the channel of the definitions", w.Experimental)
	w.mu.Lock()
	told = w.live[class]
	w.mu.Unlock()
	definitions, err := dynamic.NewForConfig(cp.Config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := definitions.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}).Patch(t.Context(), "httproutes.gateway.networking.k8s.io",
		types.MergePatchType, []byte(`{"metadata":{"annotations":{"gateway.networking.k8s.io/channel":"standard"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	w.await(t, "word of another channel", func() bool { return !w.Experimental() && w.live[class] > told })

	// The crossing gateways' Service says where the cluster is entered.
	x := run(t, kubernetes.Config{Client: agent, CrossingService: "app/crossing"})
	x.await(t, "the first full set", func() bool { return x.synced })
	apply(t, cp, `
apiVersion: v1
kind: Service
metadata: {name: crossing, namespace: app}
spec: {type: LoadBalancer, ports: [{name: crossing, port: 15443}]}
`)
	if _, err := definitions.Resource(corev1.SchemeGroupVersion.WithResource("services")).Namespace("app").Patch(t.Context(), "crossing", types.MergePatchType,
		[]byte(`{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.7"},{"hostname":"west.example.com"}]}}}`), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	x.await(t, "the load balancer's addresses", func() bool {
		return slices.Equal(x.meta.Crossing, []string{"192.0.2.7:15443", "west.example.com:15443"})
	})
}

// After an outage as long as client-go's patience the source follows again within
// 3 s of the API server's return.
func TestOutage(t *testing.T) {
	t.Parallel()
	cp := lab.StartControlPlane(t, everything)
	apply(t, cp, sample)
	dir := t.TempDir()
	w := run(t, kubernetes.Config{Client: asAgent(t, cp), Dir: dir})
	w.await(t, "the first full set", func() bool { return w.synced })
	survivor := run(t, kubernetes.Config{Client: asAgent(t, cp)})
	survivor.await(t, "the first full set", func() bool { return survivor.synced })
	w.awaitOwn(t)
	survivor.awaitOwn(t)
	before := w.current(t)
	quiet := len(survivor.current(t))
	if err := cp.StopAPIServer(); err != nil {
		t.Fatal(err)
	}
	down := time.Now()
	w.stop() // which leaves the copy on disk

	// A restart meanwhile begins with the copy.
	copied := run(t, kubernetes.Config{Client: client(t, lab.Impersonate(cp.Config, "causeway-system", "causeway-agent")), Dir: dir, Grace: time.Second})
	copied.await(t, "the copy", func() bool { return copied.synced })
	if copied.Full() {
		t.Error("a copy passes for the API server's own word")
	}
	if diff := cmp.Diff(before, copied.known(), cmpopts.EquateComparable(cluster.Endpoint{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("the copy differs from what was delivered (-delivered +copy):\n%s", diff)
	}
	batches := copied.delivered() + survivor.delivered()
	time.Sleep(30*time.Second - time.Since(down))
	if a, b := len(copied.known()), len(survivor.known()); a != len(before) || b != quiet || copied.delivered()+survivor.delivered() != batches {
		t.Errorf("an outage changed what is known: %d and %d objects in place of %d", a, b, len(before))
	}
	if survivor.Connected() {
		t.Error("the source takes a dead API server for a live one")
	}
	if err := cp.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	apply(t, cp, `
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: outside, namespace: app}
---
apiVersion: v1
kind: Service
metadata: {name: new, namespace: app}
spec: {ports: [{port: 80}]}
`)
	// An API server that has just started takes its time with what it is told, and on a
	// busy machine everything does: one that starts now tells how much.
	back := time.Now()
	fresh := run(t, kubernetes.Config{Client: client(t, lab.Impersonate(cp.Config, "causeway-system", "causeway-agent"))})
	most := max(3*time.Second, 3*fresh.await(t, "the first full set after the outage", func() bool { return fresh.synced }))
	for name, w := range map[string]*world{"the survivor": survivor, "the one that began with the copy": copied} {
		export, service := ref(cluster.KindServiceExport, "app", "outside"), ref(cluster.KindService, "app", "new")
		w.await(t, "a change after the outage", func() bool { return w.has(export) && w.has(service) })
		took := max(w.when[export].Sub(back), w.when[service].Sub(back))
		t.Logf("%s followed %s after the first change", name, took.Round(time.Millisecond))
		if took > most {
			t.Errorf("%s followed %s after the first change that the API server took after its return; want %s", name, took, most)
		}
	}
	if got := copied.current(t); len(got) != len(before)+2 {
		t.Errorf("%d objects, then %d", len(before), len(got))
	}
}
