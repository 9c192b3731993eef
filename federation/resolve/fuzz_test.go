package resolve

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
)

// FuzzRoutes resolves one HTTPRoute or GRPCRoute of any content, as a manifest,
// with a Service, its export and a Gateway around it. Nothing may panic, and what
// comes out must be what the middle form promises.
func FuzzRoutes(f *testing.F) {
	files, err := filepath.Glob("testdata/*/*.yaml")
	if err != nil || len(files) == 0 {
		f.Fatalf("no manifests to begin with: %v", err)
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, doc := range strings.Split("\n"+string(raw), "\n---") {
			if strings.Contains(doc, "kind: HTTPRoute\n") || strings.Contains(doc, "kind: GRPCRoute\n") {
				f.Add([]byte(doc))
			}
		}
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		if len(doc) > 1<<16 {
			return
		}
		var head metav1.TypeMeta
		if yaml.Unmarshal(doc, &head) != nil {
			return
		}
		m := metav1.ObjectMeta{Namespace: "app", Name: "a"}
		var route any
		switch head.Kind {
		case "HTTPRoute":
			r := &gatewayv1.HTTPRoute{}
			if yaml.Unmarshal(doc, r) != nil {
				return
			}
			r.ObjectMeta, r.Spec.ParentRefs = m, fuzzParents
			route = r
		case "GRPCRoute":
			r := &gatewayv1.GRPCRoute{}
			if yaml.Unmarshal(doc, r) != nil {
				return
			}
			r.ObjectMeta, r.Spec.ParentRefs = m, fuzzParents
			route = r
		default:
			return
		}
		e := federation.NewBuilder().Edit()
		e.SetCluster(federation.Cluster{ID: "east", Health: federation.Health{Liveness: federation.Alive}})
		e.SetCluster(federation.Cluster{ID: "west", Health: federation.Health{Liveness: federation.Alive}})
		for kind, v := range map[cluster.Kind]any{
			cluster.KindService:       &corev1.Service{ObjectMeta: m, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}},
			cluster.KindServiceExport: &mcsv1beta1.ServiceExport{ObjectMeta: m},
			cluster.KindGateway: &gatewayv1.Gateway{ObjectMeta: m, Spec: gatewayv1.GatewaySpec{GatewayClassName: cluster.ClassClusterset,
				Listeners: []gatewayv1.Listener{{Name: "http", Port: 80, Protocol: gatewayv1.HTTPProtocolType}}}},
			cluster.Kind(head.Kind): route,
		} {
			ref := cluster.Ref{Kind: kind, Namespace: "app", Name: "a"}
			if err := e.Apply(federation.Change{Cluster: "east", Ref: ref, Object: &cluster.Object{Ref: ref, Cluster: "east", Value: v, Seniority: cluster.Seniority{Revision: 1}}}); err != nil {
				t.Fatal(err)
			}
		}
		snap, _ := e.Commit()
		for _, id := range []cluster.ID{"east", "west"} {
			res := Resolve(id, snap)
			if s := unsound(res); s != "" {
				t.Errorf("%s: %s", id, s)
			}
			if _, ok := res.Reports.Get([]byte(head.Kind + "/app/a@east")); !ok {
				t.Errorf("%s does not report on the route", id)
			}
		}
	})
}

var fuzzParents = []gatewayv1.ParentReference{
	{Name: "a"},
	{Group: ptr(gatewayv1.Group("")), Kind: ptr(gatewayv1.Kind("Service")), Name: "a"},
	{Group: ptr(gatewayv1.Group(groupMCS)), Kind: ptr(gatewayv1.Kind("ServiceImport")), Name: "a"},
}
