package status_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/kubernetes"
	"github.com/causeway-mesh/causeway/cluster/status"
	"github.com/causeway-mesh/causeway/test/lab"
)

const objects = `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: causeway}
spec: {controllerName: causeway.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front, namespace: default}
spec: {gatewayClassName: causeway, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more, namespace: default}
spec: {parentRef: {name: front}, listeners: [{name: http, port: 81, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: default}
spec: {parentRefs: [{name: front}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: web, namespace: default}
spec: {targetRefs: [{group: "", kind: Service, name: web}], validation: {hostname: a.example.com, wellKnownCACertificates: System}}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: web, namespace: default}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {name: web, namespace: default}
spec: {type: ClusterSetIP, ports: [{port: 80}]}
`

// sink takes objects, of which a verdict needs the generation.
type sink struct {
	mu      sync.Mutex
	objects map[cluster.Ref]*cluster.Object
	then    func([]cluster.Ref)
}

func (s *sink) Deliver(_ context.Context, b cluster.Batch) error {
	s.mu.Lock()
	var refs []cluster.Ref
	for _, e := range b.Events {
		s.objects[e.Ref] = e.Object
		refs = append(refs, e.Ref)
	}
	s.mu.Unlock()
	s.then(refs)
	return nil
}

// A real API server takes every kind of status, from somebody who has no other
// rights than those that are listed; what it then has is what was to be written,
// and nothing is written twice.
func TestAPIServer(t *testing.T) {
	t.Parallel()
	cp := lab.StartControlPlane(t, lab.ControlPlaneOptions{CRDs: lab.CRDs{GatewayAPI: lab.Experimental, MCS: true}})
	if err := lab.Apply(t.Context(), cp.Config, []byte(objects)); err != nil {
		t.Fatal(err)
	}
	var rules []rbacv1.PolicyRule
	for _, r := range kubernetes.Rules() {
		rules = append(rules, r.PolicyRule)
	}
	cfg, err := lab.Restrict(t.Context(), cp.Config, "causeway-system", "causeway-agent", rules)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	var (
		writer *status.Writer
		s      = &sink{objects: map[cluster.Ref]*cluster.Object{}}
		mu     sync.Mutex
		writes = map[cluster.Ref]int{}
	)
	source, err := kubernetes.New(kubernetes.Config{Cluster: "west", Client: client, Logger: log, OnLive: func(refs []cluster.Ref) { writer.Touch(refs) }})
	if err != nil {
		t.Fatal(err)
	}
	ok := func(types ...string) (out []metav1.Condition) {
		for _, typ := range types {
			out = append(out, metav1.Condition{Type: typ, Status: metav1.ConditionTrue, Reason: "Fine"})
		}
		return out
	}
	judge := func(ref cluster.Ref) (*status.Verdict, bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		v := &status.Verdict{}
		if o := s.objects[ref]; o != nil {
			v.Generation = o.Value.(metav1.Object).GetGeneration()
		} else if ref.Kind != cluster.KindServiceImport {
			return nil, false
		}
		parent := []status.Parent{{Ref: gatewayv1.ParentReference{Name: "front"}, Conditions: ok("Accepted", "ResolvedRefs")}}
		listeners := []status.Listener{{Name: "http", AttachedRoutes: 1, SupportedKinds: []gatewayv1.RouteGroupKind{{Kind: "HTTPRoute"}}, Conditions: ok("Accepted", "Programmed", "ResolvedRefs", "Conflicted")}}
		n := int32(1)
		switch ref.Kind {
		case cluster.KindHTTPRoute:
			v.Parents, v.Conditions = parent, ok("Federated")
		case cluster.KindBackendTLSPolicy:
			v.Parents = parent
		case cluster.KindGateway:
			v.Listeners, v.Conditions, v.AttachedListenerSets = listeners, ok("Accepted", "Programmed"), &n
		case cluster.KindListenerSet:
			v.Listeners, v.Conditions = listeners, ok("Accepted", "Programmed")
		case cluster.KindGatewayClass:
			v.Conditions = ok("Accepted")
		case cluster.KindServiceExport:
			v.Conditions = ok("Valid", "Ready")
		case cluster.KindServiceImport:
			v.Clusters = []cluster.ID{"east", "west"}
		default:
			return nil, true
		}
		return v, true
	}
	writer, err = status.NewWriter(status.Config{Live: source.Live, Judge: judge, Logger: log,
		Patch: func(ctx context.Context, ref cluster.Ref, patch []byte, manager string) error {
			mu.Lock()
			writes[ref]++
			mu.Unlock()
			return client.PatchStatus(ctx, ref, patch, manager)
		}})
	if err != nil {
		t.Fatal(err)
	}
	s.then = writer.Judged
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(cancel)
	wg.Go(func() { _ = source.Run(ctx, s) })
	wg.Go(func() { _ = writer.Run(ctx) })

	dyn, err := dynamic.NewForConfig(cp.Config)
	if err != nil {
		t.Fatal(err)
	}
	resources := map[cluster.Ref]dynamic.ResourceInterface{}
	for kind, at := range map[cluster.Kind]schema.GroupVersionResource{
		cluster.KindGateway: {Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gateways"}, cluster.KindListenerSet: {Group: "gateway.networking.k8s.io", Version: "v1", Resource: "listenersets"},
		cluster.KindHTTPRoute: {Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"}, cluster.KindBackendTLSPolicy: {Group: "gateway.networking.k8s.io", Version: "v1", Resource: "backendtlspolicies"},
		cluster.KindServiceExport: {Group: "multicluster.x-k8s.io", Version: "v1beta1", Resource: "serviceexports"}, cluster.KindServiceImport: {Group: "multicluster.x-k8s.io", Version: "v1beta1", Resource: "serviceimports"},
	} {
		name := map[cluster.Kind]string{cluster.KindGateway: "front", cluster.KindListenerSet: "more"}[kind]
		if name == "" {
			name = "web"
		}
		resources[cluster.Ref{Kind: kind, Namespace: "default", Name: name}] = dyn.Resource(at).Namespace("default")
	}
	resources[cluster.Ref{Kind: cluster.KindGatewayClass, Name: "causeway"}] = dyn.Resource(schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gatewayclasses"})
	settled := func(ref cluster.Ref) (string, bool) {
		o, err := resources[ref].Get(t.Context(), ref.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := json.Marshal(o.Object["status"])
		live, found := source.Live(ref)
		if !found || live.ResourceVersion != o.GetResourceVersion() {
			return string(raw), false
		}
		v, known := judge(ref)
		patch, _, err := status.Plan(live, v, time.Now())
		return string(raw), known && err == nil && patch == nil
	}
	await := func() {
		t.Helper()
		for ref := range resources {
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
				raw, good := settled(ref)
				if good {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("the status of %s is %s", ref, raw)
				}
			}
		}
	}
	await()
	mu.Lock()
	for ref := range resources {
		if writes[ref] != 1 {
			t.Errorf("%s was written %d times", ref, writes[ref])
		}
	}
	clear(writes)
	mu.Unlock()

	// Somebody else's entry stays, and a new generation is one write.
	route := cluster.Ref{Kind: cluster.KindHTTPRoute, Namespace: "default", Name: "web"}
	o, err := resources[route].Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	parents := o.Object["status"].(map[string]any)["parents"].([]any)
	theirs := map[string]any{"parentRef": map[string]any{"name": "front"}, "controllerName": "example.com/other", "conditions": parents[0].(map[string]any)["conditions"]}
	o.Object["status"].(map[string]any)["parents"] = append([]any{theirs}, parents...)
	if _, err := resources[route].UpdateStatus(t.Context(), o, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := resources[route].Patch(t.Context(), "web", types.MergePatchType, []byte(`{"spec":{"hostnames":["a.example.com"]}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	var st struct {
		Parents []gatewayv1.RouteParentStatus
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		raw, good := settled(route)
		if err := json.Unmarshal([]byte(raw), &st); err != nil {
			t.Fatal(err)
		}
		if good && st.Parents[1].Conditions[0].ObservedGeneration == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the status is %s", raw)
		}
	}
	if len(st.Parents) != 2 || st.Parents[0].ControllerName != "example.com/other" || st.Parents[0].Conditions[0].ObservedGeneration != 1 {
		t.Errorf("parents are %+v", st.Parents)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(writes) != 1 || writes[route] > 2 {
		t.Errorf("written: %v", writes)
	}
}
