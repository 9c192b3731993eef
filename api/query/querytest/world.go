// Package querytest gives tests a small clusterset and a query server over real
// mTLS on loopback: three clusters, of which the server runs east and west and
// the hub's view, while north is known only by what it published, is suspect, and
// is being drained.
//
// Results come from the real resolver. Where proxies are, what they acknowledged
// and what went wrong are given by the test.
package querytest

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/api/query"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/federation/store"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// Created is when every object of the world was made.
var Created = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// World is a clusterset that a test changes. All methods may be called from any
// goroutine.
type World struct {
	t testing.TB

	mu        sync.Mutex
	builder   *federation.Builder
	views     []query.View
	proxies   []query.Proxy
	problems  []cluster.Problem
	addresses map[string]netip.AddrPort
	snapshots map[int64]*federation.Snapshot
	changed   chan struct{}
	// Compacted is the oldest revision that History forgot.
	compacted int64
}

// New makes the world as the package comment has it.
func New(t testing.TB) *World {
	w := &World{t: t, builder: federation.NewBuilder(), changed: make(chan struct{}),
		addresses: map[string]netip.AddrPort{}, snapshots: map[int64]*federation.Snapshot{}}
	w.Edit(func(e *federation.Edit) {
		for _, c := range []struct {
			id               cluster.ID
			region, network  string
			liveness         federation.Liveness
			reason, crossing string
			drained, target  int
		}{
			{"east", "europe", "blue", federation.Alive, "", "127.0.1.1:15443", 0, 0},
			{"west", "europe", "green", federation.Alive, "", "127.0.2.1:15443", 0, 0},
			{"north", "america", "red", federation.Suspect, "lease gone, 0 of 1 agents alive in gossip", "127.0.3.1:15443", 40, 100},
		} {
			e.SetCluster(federation.Cluster{ID: c.id, Drained: c.drained, DrainTarget: c.target, Health: federation.Health{Liveness: c.liveness, Reason: c.reason},
				Meta: cluster.Meta{Region: c.region, Zone: c.region + "-1", Network: c.network, TrustDomain: string(c.id) + "." + Clusterset, Crossing: []string{c.crossing}}})
		}
		revision := int64(0)
		put := func(o *cluster.Object) {
			revision++
			o.Seniority = cluster.Seniority{Revision: revision, Created: Created}
			if err := e.Apply(federation.Change{Cluster: o.Cluster, Ref: o.Ref, Object: o}); err != nil {
				t.Fatal(err)
			}
		}
		for _, s := range []struct {
			id        cluster.ID
			name      string
			endpoints []cluster.Endpoint
		}{
			{"east", "web", []cluster.Endpoint{pod("10.1.0.1", "web-0", true), pod("10.1.0.2", "web-1", false)}},
			{"west", "web", []cluster.Endpoint{pod("10.2.0.1", "web-0", true)}},
			{"north", "web", []cluster.Endpoint{pod("10.3.0.1", "web-0", true)}},
			{"west", "web-v2", []cluster.Endpoint{pod("10.2.0.9", "web-v2-0", true)}},
		} {
			for _, o := range Service(s.id, "app", s.name, s.endpoints...) {
				put(o)
			}
		}
		put(Object("east", cluster.KindGatewayClass, "", "causeway", &gatewayv1.GatewayClass{
			ObjectMeta: metav1.ObjectMeta{Name: "causeway"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: cluster.ControllerName},
		}))
		put(Object("east", cluster.KindNamespace, "", "app", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "app"}}))
		host := gatewayv1.Hostname("example.local")
		put(Object("east", cluster.KindGateway, "infra", "gw", &gatewayv1.Gateway{
			ObjectMeta: metav1.ObjectMeta{Namespace: "infra", Name: "gw"},
			Spec: gatewayv1.GatewaySpec{GatewayClassName: "causeway", Listeners: []gatewayv1.Listener{
				{Name: "http", Port: 80, Protocol: gatewayv1.HTTPProtocolType, Hostname: &host},
			}},
		}))
		put(Route("east", "app", "web-split", Import("app", "web"),
			Rule("/v2", Backend("web-v2", 1)), Rule("/", Backend("web", 70), Backend("web-v2", 30))))
		put(Route("west", "dev", "web-dev", Import("app", "web"), Rule("/", BackendIn("app", "web-v2", 1))))
		entry := Route("east", "infra", "entry", Gateway("infra", "gw"), Rule("/", Backend("nothing", 1)))
		entry.Value.(*gatewayv1.HTTPRoute).Spec.Hostnames = []gatewayv1.Hostname{"example.local"}
		put(entry)
		put(Route("north", "app", "refused", Gateway("infra", "gw"), Rule("/", Backend("web", 1))))
		e.SetRevision(revision)
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problems = []cluster.Problem{{Cluster: "west", Where: "app.yaml:12:3", Object: "HTTPRoute/app/broken", Message: "spec.rules[0].matches: unknown field \"pth\"; did you mean \"path\"?"}}
	for _, p := range []translate.Proxy{
		{Cluster: "east", Role: translate.RoleSidecar, Namespace: "dev", Name: "sidecar"},
		{Cluster: "east", Role: translate.RoleGateway, Namespace: "infra", Name: "gw"},
		{Cluster: "west", Role: translate.RoleSidecar, Namespace: "app", Name: "sidecar"},
		{Cluster: "west", Role: translate.RoleCrossing, Namespace: "causeway-system", Name: "crossing"},
	} {
		w.proxies = append(w.proxies, query.Proxy{Proxy: p, Envoy: "1.40.0", Connected: true, Since: Created, Revision: 20, Acked: 20, Lag: 3 * time.Millisecond,
			Types: []query.ProxyType{
				{TypeURL: translate.TypeCluster, Sent: "aaaa", Acked: "aaaa", Resources: 4},
				{TypeURL: translate.TypeListener, Sent: "bbbb", Acked: "bbbb", Resources: 2},
			}})
	}
	return w
}

// Edit changes the Snapshot and resolves it for east, west and the hub.
func (w *World) Edit(change func(*federation.Edit)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.builder.Edit()
	change(e)
	s, _ := e.Commit()
	w.snapshots[s.Revision] = s
	w.views = nil
	for _, id := range []cluster.ID{"east", "west", ""} {
		w.views = append(w.views, query.View{Cluster: id, Result: resolve.Resolve(id, w.knownTo(id, s)), Confirmed: Created})
	}
	w.wake()
}

// knownTo is what of a Snapshot a cluster's agent knows, or a hub (""): since no
// two clusters share a network, they publish no addresses of endpoints.
func (w *World) knownTo(id cluster.ID, s *federation.Snapshot) *federation.Snapshot {
	e := federation.NewBuilder().Edit()
	for _, c := range s.Clusters() {
		e.SetCluster(c)
	}
	for _, kind := range cluster.Kinds {
		for _, o := range s.OfKind(kind) {
			if slice, ok := o.Value.(*cluster.EndpointSlice); ok && o.Cluster != id {
				c := *o
				c.Value, o = slice.Counted(), &c
			}
			if err := e.Apply(federation.Change{Cluster: o.Cluster, Ref: o.Ref, Object: o}); err != nil {
				w.t.Error(err)
			}
		}
	}
	e.SetTrust(s.Trust())
	e.SetPolicies(s.Policies())
	e.SetRevision(s.Revision)
	known, _ := e.Commit()
	return known
}

// wake tells of a change. The caller holds mu.
func (w *World) wake() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// Proxy changes the proxy of an id.
func (w *World) Proxy(id string, change func(*query.Proxy)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.proxies = slices.Clone(w.proxies)
	for i := range w.proxies {
		if w.proxies[i].ID() == id {
			w.proxies[i].Types = slices.Clone(w.proxies[i].Types) // readers may have the old ones
			change(&w.proxies[i])
			w.wake()
			return
		}
	}
	w.t.Errorf("no proxy %s", id)
}

// Listen says where the proxy of an id listens for what: "Kind/ns/name:port", or
// ":port" for Gateways, or "" for crossing gateways.
func (w *World) Listen(id, what string, at netip.AddrPort) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.addresses[id+" "+what] = at
	w.wake()
}

// SetViews replaces what is published.
func (w *World) SetViews(views ...query.View) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.views = views
	w.wake()
}

// Compact makes History forget revisions up to r.
func (w *World) Compact(r int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.compacted = r
}

// Views, Proxies, Problems and Changed are what a query.Config asks for.
func (w *World) Views() []query.View { w.mu.Lock(); defer w.mu.Unlock(); return w.views }

// Proxies gives the proxies.
func (w *World) Proxies() []query.Proxy { w.mu.Lock(); defer w.mu.Unlock(); return w.proxies }

// Problems gives the problems.
func (w *World) Problems() []cluster.Problem { w.mu.Lock(); defer w.mu.Unlock(); return w.problems }

// Changed gives a channel that the next change closes.
func (w *World) Changed() <-chan struct{} { w.mu.Lock(); defer w.mu.Unlock(); return w.changed }

// Frontend implements query.Bindings.
func (w *World) Frontend(p translate.Proxy, key resolve.FrontendKey, _ translate.Transport, port int32) (netip.AddrPort, bool) {
	return w.address(p, fmt.Sprintf("%s:%d", key, port))
}

// Gateway implements query.Bindings.
func (w *World) Gateway(p translate.Proxy, _ translate.Transport, port int32) (netip.AddrPort, bool) {
	return w.address(p, fmt.Sprintf(":%d", port))
}

// Crossing implements query.Bindings.
func (w *World) Crossing(p translate.Proxy) (netip.AddrPort, bool) { return w.address(p, "") }

func (w *World) address(p translate.Proxy, what string) (netip.AddrPort, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at, ok := w.addresses[p.ID()+" "+what]
	return at, ok
}

// At implements query.History over the Snapshots that Edit has made.
func (w *World) At(_ context.Context, revision int64, id cluster.ID) (query.View, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if revision <= w.compacted {
		return query.View{}, store.ErrCompacted
	}
	s, ok := w.snapshots[revision]
	if !ok {
		return query.View{}, store.ErrFutureRevision
	}
	return query.View{Cluster: id, Result: resolve.Resolve(id, w.knownTo("", s))}, nil
}

// Object makes an object of a cluster.
func Object(id cluster.ID, kind cluster.Kind, namespace, name string, value any) *cluster.Object {
	return &cluster.Object{Ref: cluster.Ref{Kind: kind, Namespace: namespace, Name: name}, Cluster: id, Value: value, Origin: "app.yaml:" + name}
}

// Service makes an exported Service with port 80 and its endpoints.
func Service(id cluster.ID, namespace, name string, endpoints ...cluster.Endpoint) []*cluster.Object {
	http := "http"
	meta := metav1.ObjectMeta{Namespace: namespace, Name: name, CreationTimestamp: metav1.NewTime(Created)}
	return []*cluster.Object{
		Object(id, cluster.KindService, namespace, name, &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, AppProtocol: &http}}}}),
		Object(id, cluster.KindServiceExport, namespace, name, &mcsv1beta1.ServiceExport{ObjectMeta: meta}),
		Object(id, cluster.KindEndpointSlice, namespace, name+"-1", &cluster.EndpointSlice{
			Service: name, Ports: []cluster.EndpointPort{{Name: "http", Port: 8080, Protocol: "TCP", AppProtocol: "http"}}, Endpoints: endpoints}),
	}
}

func pod(addr, name string, ready bool) cluster.Endpoint {
	return cluster.Endpoint{Addr: netip.MustParseAddr(addr), Pod: name, Ready: ready, Serving: ready}
}

// Import, Gateway make parentRefs.
func Import(namespace, name string) gatewayv1.ParentReference {
	return parent("multicluster.x-k8s.io", "ServiceImport", namespace, name)
}

// Gateway makes a parentRef.
func Gateway(namespace, name string) gatewayv1.ParentReference {
	return parent("gateway.networking.k8s.io", "Gateway", namespace, name)
}

func parent(group gatewayv1.Group, kind gatewayv1.Kind, namespace, name string) gatewayv1.ParentReference {
	ns := gatewayv1.Namespace(namespace)
	return gatewayv1.ParentReference{Group: &group, Kind: &kind, Namespace: &ns, Name: gatewayv1.ObjectName(name)}
}

// Route makes an HTTPRoute.
func Route(id cluster.ID, namespace, name string, parent gatewayv1.ParentReference, rules ...gatewayv1.HTTPRouteRule) *cluster.Object {
	return Object(id, cluster.KindHTTPRoute, namespace, name, &gatewayv1.HTTPRoute{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, CreationTimestamp: metav1.NewTime(Created)},
		Spec:       gatewayv1.HTTPRouteSpec{CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{parent}}, Rules: rules},
	})
}

// Rule makes a rule for a path prefix.
func Rule(prefix string, backends ...gatewayv1.HTTPBackendRef) gatewayv1.HTTPRouteRule {
	kind := gatewayv1.PathMatchPathPrefix
	return gatewayv1.HTTPRouteRule{Matches: []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Type: &kind, Value: &prefix}}}, BackendRefs: backends}
}

// Backend makes a backendRef to a ServiceImport of the route's namespace.
func Backend(name string, weight int32) gatewayv1.HTTPBackendRef { return BackendIn("", name, weight) }

// BackendIn makes a backendRef to a ServiceImport.
func BackendIn(namespace, name string, weight int32) gatewayv1.HTTPBackendRef {
	group, kind, port := gatewayv1.Group("multicluster.x-k8s.io"), gatewayv1.Kind("ServiceImport"), gatewayv1.PortNumber(80)
	ref := gatewayv1.BackendObjectReference{Group: &group, Kind: &kind, Name: gatewayv1.ObjectName(name), Port: &port}
	if namespace != "" {
		ns := gatewayv1.Namespace(namespace)
		ref.Namespace = &ns
	}
	return gatewayv1.HTTPBackendRef{BackendRef: gatewayv1.BackendRef{BackendObjectReference: ref, Weight: &weight}}
}
