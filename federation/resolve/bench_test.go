package resolve

import (
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
)

// bigWorld is n services in each of three clusters, all exported, with ten
// endpoints each, a producer route for every fifth and a route of one clusterset
// Gateway for every second.
func bigWorld(b testing.TB, n int) *federation.Builder {
	w := &worldWriter{t: b, builder: federation.NewBuilder()}
	w.edit = w.builder.Edit()
	for i, id := range someClusters {
		w.edit.SetCluster(federation.Cluster{ID: id, Health: federation.Health{Liveness: federation.Alive}, Meta: cluster.Meta{Region: "eu", Network: fmt.Sprint("n", i%2), Crossing: []string{fmt.Sprintf("192.0.2.%d:15443", i+1)}}})
		for k := range n {
			name := fmt.Sprint("svc-", k)
			m := metav1.ObjectMeta{Namespace: "app", Name: name}
			w.put(id, cluster.KindService, name, &corev1.Service{ObjectMeta: m, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}})
			w.put(id, cluster.KindServiceExport, name, &mcsv1beta1.ServiceExport{ObjectMeta: m})
			w.put(id, cluster.KindEndpointSlice, name, tenEndpoints(name, i, 10))
		}
	}
	w.put("east", cluster.KindGateway, "gw", &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: "gw"}, Spec: gatewayv1.GatewaySpec{
		GatewayClassName: cluster.ClassClusterset, Listeners: []gatewayv1.Listener{{Name: "http", Port: 80, Protocol: "HTTP"}}}})
	for k := range n {
		if k%5 == 0 {
			w.put("east", cluster.KindHTTPRoute, fmt.Sprint("mesh-", k), importRoute(fmt.Sprint("mesh-", k), gatewayv1.ParentReference{Group: ptr(gatewayv1.Group(groupMCS)), Kind: ptr(gatewayv1.Kind("ServiceImport")), Name: gatewayv1.ObjectName(fmt.Sprint("svc-", k))}, "/", fmt.Sprint("svc-", (k+1)%n)))
		}
		if k%2 == 0 {
			w.put("east", cluster.KindHTTPRoute, fmt.Sprint("gw-", k), importRoute(fmt.Sprint("gw-", k), gatewayv1.ParentReference{Name: "gw"}, fmt.Sprint("/", k), fmt.Sprint("svc-", k)))
		}
	}
	w.edit.Commit()
	return w.builder
}

type worldWriter struct {
	t       interface{ Fatal(...any) }
	builder *federation.Builder
	edit    *federation.Edit
	n       int64
}

func (w *worldWriter) put(id cluster.ID, kind cluster.Kind, name string, v any) {
	w.n++
	ref := cluster.Ref{Kind: kind, Namespace: "app", Name: name}
	o := &cluster.Object{Ref: ref, Cluster: id, Value: v, Seniority: cluster.Seniority{Revision: w.n}}
	if err := w.edit.Apply(federation.Change{Cluster: id, Ref: ref, Object: o}); err != nil {
		w.t.Fatal(err)
	}
}

func tenEndpoints(name string, subnet, ready int) *cluster.EndpointSlice {
	s := &cluster.EndpointSlice{Service: name, Ports: []cluster.EndpointPort{{Port: 8080, Protocol: "TCP"}}}
	for i := range 10 {
		s.Endpoints = append(s.Endpoints, cluster.Endpoint{Addr: netip.AddrFrom4([4]byte{10, byte(subnet), 0, byte(i)}), Ready: i < ready, Serving: i < ready})
	}
	return s
}

func importRoute(name string, parent gatewayv1.ParentReference, path, backend string) *gatewayv1.HTTPRoute {
	h := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: name}}
	h.Spec.ParentRefs = []gatewayv1.ParentReference{parent}
	b := gatewayv1.HTTPBackendRef{}
	b.Group, b.Kind, b.Name, b.Port = ptr(gatewayv1.Group(groupMCS)), ptr(gatewayv1.Kind("ServiceImport")), gatewayv1.ObjectName(backend), ptr(gatewayv1.PortNumber(80))
	h.Spec.Rules = []gatewayv1.HTTPRouteRule{{Matches: []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Value: &path}}}, BackendRefs: []gatewayv1.HTTPBackendRef{b}}}
	return h
}

// change is an edit that alternates between two states.
type change struct {
	name string
	kind cluster.Kind
	obj  string
	make func(i int) any
}

var changes = []change{
	{"endpoints", cluster.KindEndpointSlice, "svc-5", func(i int) any { return tenEndpoints("svc-5", 0, 8+i%2) }},
	{"mesh-route", cluster.KindHTTPRoute, "mesh-5", func(i int) any {
		return importRoute("mesh-5", gatewayv1.ParentReference{Group: ptr(gatewayv1.Group(groupMCS)), Kind: ptr(gatewayv1.Kind("ServiceImport")), Name: "svc-5"}, fmt.Sprint("/", i%2), "svc-6")
	}},
	{"gateway-route", cluster.KindHTTPRoute, "gw-6", func(i int) any {
		return importRoute("gw-6", gatewayv1.ParentReference{Name: "gw"}, fmt.Sprint("/x", i%2), "svc-6")
	}},
}

func BenchmarkUpdate(b *testing.B) {
	for _, c := range changes {
		for _, n := range []int{100, 1000} {
			b.Run(fmt.Sprintf("%s/services=%d", c.name, n), func(b *testing.B) {
				w := &worldWriter{t: b, builder: bigWorld(b, n)}
				res := Resolve("west", w.builder.Snapshot())
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					i++
					w.edit = w.builder.Edit()
					w.put("east", c.kind, c.obj, c.make(i))
					snap, changed := w.edit.Commit()
					var d Delta
					if res, d = res.Update(snap, changed); d.Empty() {
						b.Fatal("the change changed nothing")
					}
				}
			})
		}
	}
}

func BenchmarkResolve(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			snap := bigWorld(b, n).Snapshot()
			b.ReportAllocs()
			for b.Loop() {
				Resolve("west", snap)
			}
		})
	}
}
