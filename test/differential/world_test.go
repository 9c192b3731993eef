package differential

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/resolve/resolvetest"
)

// The little world: few names, so that everything meets everything. East is the
// cluster whose Envoys are tried; west is in its network and exports too; north is in
// another network, behind its crossing gateway.
const (
	east  cluster.ID = "east"
	west  cluster.ID = "west"
	north cluster.ID = "north"
)

var (
	namespaces = []string{"app", "dev", "ext"}
	services   = []svc{{"app", "a"}, {"app", "b"}, {"ext", "c"}, {"ext", "d"}}
	// homes are the clusters that have a Service.
	homes    = map[string][]cluster.ID{"a": {east, west, north}, "b": {east}, "c": {east, west, north}, "d": {west, north}}
	hosts    = []string{"example.com", "a.example.com", "b.example.com", "deep.a.example.com", "other.org"}
	patterns = []string{"example.com", "a.example.com", "*.example.com", "*.com", "b.example.com", "other.org"}
	// Server names that connections of TLS ask for, besides the hosts.
	tlsHosts    = []string{"tls.example", "x.tls.example", "deep.x.tls.example"}
	tlsPatterns = []string{"tls.example", "*.tls.example", "x.tls.example", "a.example.com", "*.example.com", "*.com"}
	paths       = []string{"/", "/a", "/a/b", "/ab", "/a/b/c", "/v1", "/v1.0", "/x-y_z"}
	regexes     = []string{"/a.*", "/[a-z]+", "/a(/b)?", "/v\\d(\\.\\d)?", "/.*b"}
	methods     = []string{"GET", "POST", "PUT", "DELETE", "OPTIONS"}
	origins     = []string{"https://web.example", "https://a.web.example", "http://web.example:8080", "https://evil.example", "HTTPS://WEB.example:443"}
	headers     = []string{"x-a", "x-b", "x-c"}
	values      = []string{"1", "2", "on", "a b"}
	params      = []string{"p", "q", "r.s"}

	grpcServices = []string{"pkg.A", "pkg.B", "other"}
	grpcMethods  = []string{"Get", "Put"}
)

type svc struct{ namespace, name string }

// The ports of every Service: two that speak HTTP, one of which nothing is said, one
// that speaks TLS, one of UDP.
const (
	portHTTP, portAlt  = 80, 8080
	portBytes, portTLS = 9000, 9443
	portUDP            = 5300
)

// world makes objects from one source of chance.
type world struct {
	*rand.Rand
	// edit is the world as east knows it, far as north does, nil for a world without
	// north. Neither knows addresses of pods in the other's network.
	edit, far *federation.Edit
	pods      *pods
	revision  int64
	born      map[string]int64 // create revisions, by cluster and object
	// steady leaves out what answers 503: every Service has endpoints that are ready.
	steady bool
}

// draw makes a clusterset, as east and north know it. crossing is where north is entered.
func draw(t *testing.T, seed uint64, p *pods, crossing string) map[cluster.ID]*federation.Snapshot {
	t.Helper()
	near, far := federation.NewBuilder(), federation.NewBuilder()
	newWorld(t, seed, p, near, far, crossing)
	return map[cluster.ID]*federation.Snapshot{east: near.Snapshot(), north: far.Snapshot()}
}

// newWorld makes the first Snapshot of Builders. Without a Builder for north it is a
// steady world of requests alone.
func newWorld(t *testing.T, seed uint64, p *pods, near, far *federation.Builder, crossing string) *world {
	t.Helper()
	w := &world{Rand: rand.New(rand.NewPCG(seed, 0)), edit: near.Edit(), pods: p, born: map[string]int64{}, steady: far == nil}
	clusters := []cluster.ID{east, west}
	if !w.steady {
		w.far, clusters = far.Edit(), append(clusters, north)
	}
	for _, c := range clusters {
		w.cluster(t, c, crossing)
	}
	for _, s := range services {
		for _, c := range homes[s.name] {
			if slices.Contains(clusters, c) {
				w.service(t, c, s)
			}
		}
	}
	if w.one(3) > 0 {
		w.grant(t, "ext")
	}
	w.gateway(t)
	for i := range 2 + w.IntN(4) {
		w.route(t, fmt.Sprintf("edge-%d", i), namespaces[w.IntN(3)], w.gatewayParent())
	}
	for i := range 2 + w.IntN(5) {
		parent, ns := w.meshParent(), namespaces[w.IntN(3)]
		if w.chance(2) {
			ns = string(*parent.Namespace) // a producer's
		}
		w.route(t, fmt.Sprintf("mesh-%d", i), ns, parent)
	}
	if !w.steady {
		for i := range 2 + w.IntN(5) {
			w.forward(t, fmt.Sprintf("edge-bytes-%d", i), true)
		}
		for i := range 2 + w.IntN(5) {
			w.forward(t, fmt.Sprintf("mesh-bytes-%d", i), false)
		}
	}
	for _, e := range w.views() {
		e.SetRevision(w.revision)
		e.Commit()
	}
	return w
}

func (w *world) views() []*federation.Edit {
	if w.far == nil {
		return []*federation.Edit{w.edit}
	}
	return []*federation.Edit{w.edit, w.far}
}

func (w *world) cluster(t *testing.T, c cluster.ID, crossing string) {
	t.Helper()
	meta := cluster.Meta{Region: "region-" + string(c), Network: "one", TrustDomain: string(c) + ".test"}
	if c == north {
		meta.Network, meta.Crossing = "two", []string{crossing}
	}
	for _, e := range w.views() {
		e.SetCluster(federation.Cluster{ID: c, Health: federation.Health{Liveness: federation.Alive}, Meta: meta})
	}
	for _, ns := range namespaces {
		w.put(t, c, cluster.KindNamespace, "", ns, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns, Labels: map[string]string{cluster.LabelNamespaceName: ns}}})
	}
}

func (w *world) one(n int) int { return w.IntN(n) }

// chance is true in one of n cases.
func (w *world) chance(n int) bool { return w.IntN(n) == 0 }

func pick[T any](w *rand.Rand, list []T) T { return list[w.IntN(len(list))] }

// some picks each with even chance.
func some[T any](w *rand.Rand, list []T) []T {
	var out []T
	for _, x := range list {
		if w.IntN(2) == 0 {
			out = append(out, x)
		}
	}
	return out
}

func ptr[T any](v T) *T { return &v }

func (w *world) put(t *testing.T, c cluster.ID, kind cluster.Kind, ns, name string, value any) {
	t.Helper()
	w.revision++
	o := &cluster.Object{Ref: cluster.Ref{Kind: kind, Namespace: ns, Name: name}, Cluster: c, Value: value}
	key := string(c) + " " + o.String()
	if w.born[key] == 0 {
		w.born[key] = w.revision
	}
	o.Seniority.Revision = w.born[key]
	for _, e := range w.views() {
		known := *o
		if slice, ok := value.(*cluster.EndpointSlice); ok && (e == w.far) != (c == north) {
			known.Value = slice.Counted()
		}
		if err := e.Apply(federation.Change{Cluster: c, Ref: o.Ref, Object: &known}); err != nil {
			t.Fatal(err)
		}
	}
}

func (w *world) service(t *testing.T, c cluster.ID, s svc) {
	meta := metav1.ObjectMeta{Namespace: s.namespace, Name: s.name}
	ports := []corev1.ServicePort{{Name: "http", Port: portHTTP, AppProtocol: ptr("http")}, {Name: "alt", Port: portAlt, AppProtocol: ptr("http")}}
	for _, p := range []corev1.ServicePort{{Name: "bytes", Port: portBytes}, {Name: "tls", Port: portTLS, AppProtocol: ptr("https")}, {Name: "udp", Port: portUDP, Protocol: corev1.ProtocolUDP}} {
		if !w.steady && !w.chance(6) {
			ports = append(ports, p)
		}
	}
	w.put(t, c, cluster.KindService, s.namespace, s.name, &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.1", Ports: ports}})
	w.endpoints(t, c, s)
	if s.name == "a" || s.name == "d" || w.chance(2) {
		export := &mcsv1beta1.ServiceExport{ObjectMeta: meta}
		export.Annotations = map[string]string{}
		if w.chance(5) {
			export.Annotations[cluster.AnnotationDistribution] = cluster.DistributionEven
		}
		if w.chance(5) {
			export.Annotations[cluster.AnnotationWeight] = pick(w.Rand, []string{"0", "1", "3"})
		}
		w.put(t, c, cluster.KindServiceExport, s.namespace, s.name, export)
	}
}

// endpoints gives a Service some pods.
func (w *world) endpoints(t *testing.T, c cluster.ID, s svc) {
	slice := &cluster.EndpointSlice{Service: s.name, Ports: []cluster.EndpointPort{{Name: "udp", Port: w.pods.port, Protocol: "UDP"}}}
	for _, name := range []string{"http", "alt", "bytes", "tls"} {
		slice.Ports = append(slice.Ports, cluster.EndpointPort{Name: name, Port: w.pods.port, Protocol: "TCP"})
	}
	n := w.IntN(4)
	if w.steady {
		n = max(n, 1)
	}
	for i, a := range w.pods.take(c, n) {
		ready := !w.chance(5) || w.steady && i == 0
		slice.Endpoints = append(slice.Endpoints, cluster.Endpoint{Addr: a, Pod: fmt.Sprintf("%s-%s-%d", s.name, c, i), Ready: ready, Serving: true})
	}
	w.put(t, c, cluster.KindEndpointSlice, s.namespace, s.name+"-1", slice)
}

func (w *world) grant(t *testing.T, ns string) {
	g := &gatewayv1beta1.ReferenceGrant{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "grant"}}
	for _, from := range []string{"app", "dev"} {
		kinds := []string{"HTTPRoute", "GRPCRoute"}
		if !w.steady {
			kinds = append(kinds, some(w.Rand, []string{"TCPRoute", "TLSRoute", "UDPRoute"})...)
		}
		for _, kind := range kinds {
			g.Spec.From = append(g.Spec.From, gatewayv1beta1.ReferenceGrantFrom{Group: gatewayv1.GroupName, Kind: gatewayv1.Kind(kind), Namespace: gatewayv1.Namespace(from)})
		}
	}
	g.Spec.To = []gatewayv1beta1.ReferenceGrantTo{{Kind: "Service"}, {Group: "multicluster.x-k8s.io", Kind: "ServiceImport"}}
	w.put(t, east, cluster.KindReferenceGrant, ns, g.Name, g)
}

// gatewayPorts are the ports of the one Gateway: two of HTTP, one of HTTPS and TLS,
// one of TCP, one of UDP.
var gatewayPorts = []int32{80, 8080, 443, 9000, 5300}

func (w *world) gateway(t *testing.T) {
	g := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: "gw"}, Spec: gatewayv1.GatewaySpec{GatewayClassName: cluster.ClassCauseway}}
	if w.chance(6) {
		g.Annotations = map[string]string{cluster.AnnotationServiceRoutes: cluster.ServiceRoutesIgnore}
	}
	for i, name := range append([]string{""}, some(w.Rand, []string{"a.example.com", "*.example.com", "*.com"})...) {
		l := gatewayv1.Listener{Name: gatewayv1.SectionName(fmt.Sprintf("l%d", i)), Port: gatewayPorts[0], Protocol: gatewayv1.HTTPProtocolType,
			AllowedRoutes: &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: ptr(gatewayv1.NamespacesFromAll)}}}
		if name != "" {
			l.Hostname = ptr(gatewayv1.Hostname(name))
		}
		if w.chance(5) {
			l.Port = gatewayPorts[1]
		}
		if w.chance(8) {
			l.AllowedRoutes = nil
		}
		g.Spec.Listeners = append(g.Spec.Listeners, l)
	}
	for i, name := range some(w.Rand, []string{"", "a.example.com", "*.example.com", "b.example.com", "tls.example", "*.tls.example"}) {
		l := gatewayv1.Listener{Name: gatewayv1.SectionName(fmt.Sprintf("s%d", i)), Port: gatewayPorts[2], Protocol: gatewayv1.HTTPSProtocolType,
			AllowedRoutes: &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: ptr(gatewayv1.NamespacesFromAll)}},
			TLS:           &gatewayv1.ListenerTLSConfig{CertificateRefs: []gatewayv1.SecretObjectReference{{Name: "tls"}}}}
		if name != "" {
			l.Hostname = ptr(gatewayv1.Hostname(name))
		}
		if !w.steady && (strings.HasSuffix(name, "tls.example") || w.chance(4)) {
			l.Protocol = gatewayv1.TLSProtocolType
			if w.chance(2) {
				l.TLS = &gatewayv1.ListenerTLSConfig{Mode: ptr(gatewayv1.TLSModePassthrough)}
			}
		}
		g.Spec.Listeners = append(g.Spec.Listeners, l)
	}
	for i, p := range []gatewayv1.ProtocolType{gatewayv1.TCPProtocolType, gatewayv1.UDPProtocolType} {
		if !w.steady && !w.chance(6) {
			g.Spec.Listeners = append(g.Spec.Listeners, gatewayv1.Listener{Name: gatewayv1.SectionName(strings.ToLower(string(p))), Port: gatewayPorts[3+i], Protocol: p,
				AllowedRoutes: &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: ptr(gatewayv1.NamespacesFromAll)}}})
		}
	}
	w.certificate(t)
	w.put(t, east, cluster.KindGateway, g.Namespace, g.Name, g)
}

// certificate makes, or renews, the Secret of all listeners of TLS.
func (w *world) certificate(t *testing.T) {
	t.Helper()
	cert, key := resolvetest.PEM(t, "example.com")
	w.put(t, east, cluster.KindSecret, "app", "tls", &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: "tls"},
		Type: corev1.SecretTypeTLS, Data: map[string][]byte{corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key}})
}

func (w *world) gatewayParent() gatewayv1.ParentReference {
	p := gatewayv1.ParentReference{Namespace: ptr(gatewayv1.Namespace("app")), Name: "gw"}
	switch w.IntN(6) {
	case 0:
		p.SectionName = ptr(gatewayv1.SectionName("l0"))
	case 1:
		p.Port = ptr(pick(w.Rand, gatewayPorts[:3]))
	}
	return p
}

func (w *world) meshParent() gatewayv1.ParentReference {
	s := pick(w.Rand, services)
	p := gatewayv1.ParentReference{Namespace: ptr(gatewayv1.Namespace(s.namespace)), Name: gatewayv1.ObjectName(s.name)}
	if w.chance(2) {
		p.Group, p.Kind = ptr(gatewayv1.Group("")), ptr(gatewayv1.Kind("Service"))
	} else {
		p.Group, p.Kind = ptr(gatewayv1.Group("multicluster.x-k8s.io")), ptr(gatewayv1.Kind("ServiceImport"))
	}
	if w.chance(3) {
		p.Port = ptr(int32(80))
	}
	return p
}
