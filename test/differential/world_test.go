package differential

import (
	"fmt"
	"math/rand/v2"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
)

// The little world: few names, so that everything meets everything. East is the
// cluster whose Envoys are tried; west is in its network and exports too.
const (
	east cluster.ID = "east"
	west cluster.ID = "west"
)

var (
	namespaces = []string{"app", "dev", "ext"}
	services   = []svc{{"app", "a"}, {"app", "b"}, {"ext", "c"}, {"ext", "d"}}
	hosts      = []string{"example.com", "a.example.com", "b.example.com", "deep.a.example.com", "other.org"}
	patterns   = []string{"example.com", "a.example.com", "*.example.com", "*.com", "b.example.com", "other.org"}
	paths      = []string{"/", "/a", "/a/b", "/ab", "/a/b/c", "/v1", "/v1.0", "/x-y_z"}
	regexes    = []string{"/a.*", "/[a-z]+", "/a(/b)?", "/v\\d(\\.\\d)?", "/.*b"}
	methods    = []string{"GET", "POST", "PUT", "DELETE", "OPTIONS"}
	origins    = []string{"https://web.example", "https://a.web.example", "http://web.example:8080", "https://evil.example", "HTTPS://WEB.example:443"}
	headers    = []string{"x-a", "x-b", "x-c"}
	values     = []string{"1", "2", "on", "a b"}
	params     = []string{"p", "q", "r.s"}

	grpcServices = []string{"pkg.A", "pkg.B", "other"}
	grpcMethods  = []string{"Get", "Put"}
)

type svc struct{ namespace, name string }

// world makes objects from one source of chance.
type world struct {
	*rand.Rand
	edit     *federation.Edit
	pods     *pods
	revision int64
	born     map[string]int64 // create revisions, by cluster and object
	// steady leaves out what answers 503: every Service has endpoints that are ready.
	steady bool
}

// draw makes a clusterset.
func draw(t *testing.T, seed uint64, p *pods) *federation.Snapshot {
	t.Helper()
	b := federation.NewBuilder()
	newWorld(t, seed, p, b, false)
	return b.Snapshot()
}

// newWorld makes the first Snapshot of a Builder.
func newWorld(t *testing.T, seed uint64, p *pods, b *federation.Builder, steady bool) *world {
	t.Helper()
	w := &world{Rand: rand.New(rand.NewPCG(seed, 0)), edit: b.Edit(), pods: p, born: map[string]int64{}, steady: steady}
	for _, c := range []cluster.ID{east, west} {
		w.edit.SetCluster(federation.Cluster{ID: c, Health: federation.Health{Liveness: federation.Alive},
			Meta: cluster.Meta{Region: "region-" + string(c), Network: "one", TrustDomain: string(c) + ".test"}})
		for _, ns := range namespaces {
			w.put(t, c, cluster.KindNamespace, "", ns, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns, Labels: map[string]string{cluster.LabelNamespaceName: ns}}})
		}
	}
	for _, s := range services {
		for _, c := range []cluster.ID{east, west} {
			if c == east && s.name == "d" || c == west && s.name == "b" {
				continue
			}
			w.service(t, c, s)
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
		w.route(t, fmt.Sprintf("mesh-%d", i), namespaces[w.IntN(3)], w.meshParent())
	}
	w.edit.SetRevision(w.revision)
	w.edit.Commit()
	return w
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
	if err := w.edit.Apply(federation.Change{Cluster: c, Ref: o.Ref, Object: o}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) service(t *testing.T, c cluster.ID, s svc) {
	meta := metav1.ObjectMeta{Namespace: s.namespace, Name: s.name}
	w.put(t, c, cluster.KindService, s.namespace, s.name, &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.1",
		Ports: []corev1.ServicePort{{Name: "http", Port: 80, AppProtocol: ptr("http")}, {Name: "alt", Port: 8080, AppProtocol: ptr("http")}}}})
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
	slice := &cluster.EndpointSlice{Service: s.name, Ports: []cluster.EndpointPort{{Name: "http", Port: w.pods.port, Protocol: "TCP"}, {Name: "alt", Port: w.pods.port, Protocol: "TCP"}}}
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
		for _, kind := range []string{"HTTPRoute", "GRPCRoute"} {
			g.Spec.From = append(g.Spec.From, gatewayv1beta1.ReferenceGrantFrom{Group: gatewayv1.GroupName, Kind: gatewayv1.Kind(kind), Namespace: gatewayv1.Namespace(from)})
		}
	}
	g.Spec.To = []gatewayv1beta1.ReferenceGrantTo{{Kind: "Service"}, {Group: "multicluster.x-k8s.io", Kind: "ServiceImport"}}
	w.put(t, east, cluster.KindReferenceGrant, ns, g.Name, g)
}

// gatewayPorts are the ports of the one Gateway; the last speaks TLS.
var gatewayPorts = []int32{80, 8080, 443}

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
	for i, name := range some(w.Rand, []string{"", "a.example.com", "*.example.com", "b.example.com"}) {
		l := gatewayv1.Listener{Name: gatewayv1.SectionName(fmt.Sprintf("s%d", i)), Port: gatewayPorts[2], Protocol: gatewayv1.HTTPSProtocolType,
			AllowedRoutes: &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: ptr(gatewayv1.NamespacesFromAll)}},
			TLS:           &gatewayv1.ListenerTLSConfig{CertificateRefs: []gatewayv1.SecretObjectReference{{Name: "tls"}}}}
		if name != "" {
			l.Hostname = ptr(gatewayv1.Hostname(name))
		}
		g.Spec.Listeners = append(g.Spec.Listeners, l)
	}
	w.certificate(t)
	w.put(t, east, cluster.KindGateway, g.Namespace, g.Name, g)
}

// certificate makes, or renews, the Secret of all listeners of TLS.
func (w *world) certificate(t *testing.T) {
	t.Helper()
	cert, key := w.pods.ca.issue(t)
	w.put(t, east, cluster.KindSecret, "app", "tls", &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: "tls"},
		Type: corev1.SecretTypeTLS, Data: map[string][]byte{corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key}})
}

func (w *world) gatewayParent() gatewayv1.ParentReference {
	p := gatewayv1.ParentReference{Namespace: ptr(gatewayv1.Namespace("app")), Name: "gw"}
	switch w.IntN(6) {
	case 0:
		p.SectionName = ptr(gatewayv1.SectionName("l0"))
	case 1:
		p.Port = ptr(gatewayPorts[w.IntN(3)])
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

// route makes a route at home in east or, if it may, in west.
func (w *world) route(t *testing.T, name, ns string, parent gatewayv1.ParentReference) {
	c := east
	if parent.Kind != nil && w.chance(4) {
		c = west
	}
	w.routeIn(t, c, name, ns, parent)
}

func (w *world) routeIn(t *testing.T, c cluster.ID, name, ns string, parent gatewayv1.ParentReference) {
	r := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	r.Spec.ParentRefs = []gatewayv1.ParentReference{parent}
	if parent.Kind == nil {
		for _, h := range some(w.Rand, patterns) {
			r.Spec.Hostnames = append(r.Spec.Hostnames, gatewayv1.Hostname(h))
		}
	}
	if w.chance(5) {
		g := &gatewayv1.GRPCRoute{ObjectMeta: r.ObjectMeta}
		g.Spec.CommonRouteSpec, g.Spec.Hostnames = r.Spec.CommonRouteSpec, r.Spec.Hostnames
		for range 1 + w.IntN(3) {
			g.Spec.Rules = append(g.Spec.Rules, w.grpcRule())
		}
		w.put(t, c, cluster.KindGRPCRoute, ns, name, g)
		return
	}
	for range 1 + w.IntN(3) {
		r.Spec.Rules = append(r.Spec.Rules, w.rule())
	}
	w.put(t, c, cluster.KindHTTPRoute, ns, name, r)
}

func (w *world) grpcRule() gatewayv1.GRPCRouteRule {
	var r gatewayv1.GRPCRouteRule
	for range w.IntN(3) {
		var m gatewayv1.GRPCRouteMatch
		if !w.chance(4) {
			m.Method = &gatewayv1.GRPCMethodMatch{Service: ptr(pick(w.Rand, grpcServices))}
			if w.chance(2) {
				m.Method.Method = ptr(pick(w.Rand, grpcMethods))
			}
			if w.chance(4) {
				m.Method = &gatewayv1.GRPCMethodMatch{Type: ptr(gatewayv1.GRPCMethodMatchRegularExpression), Service: ptr("pkg.*"), Method: ptr("G.t")}
			}
		}
		if w.chance(4) {
			m.Headers = append(m.Headers, gatewayv1.GRPCHeaderMatch{Name: gatewayv1.GRPCHeaderName(pick(w.Rand, headers)), Value: pick(w.Rand, values)})
		}
		r.Matches = append(r.Matches, m)
	}
	for range 1 + w.IntN(2) {
		r.BackendRefs = append(r.BackendRefs, gatewayv1.GRPCBackendRef{BackendRef: w.backend()})
	}
	return r
}

func (w *world) rule() gatewayv1.HTTPRouteRule {
	var r gatewayv1.HTTPRouteRule
	prefixes := true
	for range w.IntN(3) {
		m := w.match()
		prefixes = prefixes && (m.Path == nil || *m.Path.Type == gatewayv1.PathMatchPathPrefix)
		r.Matches = append(r.Matches, m)
	}
	if w.chance(6) {
		r.Filters = append(r.Filters, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterRequestRedirect, RequestRedirect: w.redirect(prefixes)})
		return r
	}
	r.Filters = w.filters(prefixes)
	if w.chance(4) {
		r.Retry = &gatewayv1.HTTPRouteRetry{Attempts: ptr(1 + w.IntN(2)), Codes: []gatewayv1.HTTPRouteRetryStatusCode{503}}
	}
	if w.chance(8) {
		r.SessionPersistence = &gatewayv1.SessionPersistence{}
	}
	for range 1 + w.IntN(3) {
		b := gatewayv1.HTTPBackendRef{BackendRef: w.backend()}
		if w.chance(3) {
			b.Filters = w.modifiers()
		}
		if w.chance(6) {
			b.Filters = append(b.Filters, w.special(prefixes)...)
		}
		r.BackendRefs = append(r.BackendRefs, b)
	}
	return r
}

func (w *world) match() gatewayv1.HTTPRouteMatch {
	var m gatewayv1.HTTPRouteMatch
	switch w.IntN(4) {
	case 0:
		m.Path = &gatewayv1.HTTPPathMatch{Type: ptr(gatewayv1.PathMatchExact), Value: ptr(pick(w.Rand, paths))}
	case 1:
		m.Path = &gatewayv1.HTTPPathMatch{Type: ptr(gatewayv1.PathMatchRegularExpression), Value: ptr(pick(w.Rand, regexes))}
	case 2:
		m.Path = &gatewayv1.HTTPPathMatch{Type: ptr(gatewayv1.PathMatchPathPrefix), Value: ptr(pick(w.Rand, append(paths, "/a/", "/v1/")))}
	}
	if w.chance(4) {
		m.Method = ptr(gatewayv1.HTTPMethod(pick(w.Rand, methods)))
	}
	for _, h := range some(w.Rand, headers[:1+w.IntN(len(headers))]) {
		if w.chance(2) {
			continue
		}
		x := gatewayv1.HTTPHeaderMatch{Name: gatewayv1.HTTPHeaderName(h), Value: pick(w.Rand, values)}
		if w.chance(3) {
			x.Type, x.Value = ptr(gatewayv1.HeaderMatchRegularExpression), pick(w.Rand, []string{"[0-9]", "o.", ".* .*", "1|2", "1,.*"})
		}
		m.Headers = append(m.Headers, x)
	}
	if w.chance(4) {
		x := gatewayv1.HTTPQueryParamMatch{Name: gatewayv1.HTTPHeaderName(pick(w.Rand, params)), Value: pick(w.Rand, values[:3])}
		if w.chance(3) {
			x.Type, x.Value = ptr(gatewayv1.QueryParamMatchRegularExpression), "[0-9]|o."
		}
		m.QueryParams = append(m.QueryParams, x)
	}
	return m
}

func (w *world) pathModifier(prefixes bool) *gatewayv1.HTTPPathModifier {
	switch {
	case w.chance(3):
		return nil
	case w.chance(2) || !prefixes:
		return &gatewayv1.HTTPPathModifier{Type: gatewayv1.FullPathHTTPPathModifier, ReplaceFullPath: ptr(pick(w.Rand, []string{"/", "/full", "/full/path", "/full/"}))}
	}
	return &gatewayv1.HTTPPathModifier{Type: gatewayv1.PrefixMatchHTTPPathModifier, ReplacePrefixMatch: ptr(pick(w.Rand, []string{"/", "/new", "/new/", "/new/two", ""}))}
}

func (w *world) redirect(prefixes bool) *gatewayv1.HTTPRequestRedirectFilter {
	d := &gatewayv1.HTTPRequestRedirectFilter{Path: w.pathModifier(prefixes)}
	if w.chance(2) {
		d.Scheme = ptr(pick(w.Rand, []string{"http", "https"}))
	}
	if w.chance(2) {
		d.Hostname = ptr(gatewayv1.PreciseHostname("new.example.org"))
	}
	if w.chance(3) {
		d.Port = ptr(pick(w.Rand, []int32{80, 443, 8443}))
	}
	if w.chance(2) {
		d.StatusCode = ptr(pick(w.Rand, []int{301, 302, 303, 307, 308}))
	}
	return d
}

func (w *world) filters(prefixes bool) []gatewayv1.HTTPRouteFilter {
	out := w.modifiers()
	if w.chance(3) {
		rw := &gatewayv1.HTTPURLRewriteFilter{Path: w.pathModifier(prefixes)}
		if w.chance(2) {
			rw.Hostname = ptr(gatewayv1.PreciseHostname("rewritten.example.org"))
		}
		out = append(out, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterURLRewrite, URLRewrite: rw})
	}
	if w.chance(6) {
		out = append(out, w.cors())
	}
	for w.chance(4) {
		out = append(out, w.mirror())
	}
	return out
}

// special are filters of a backendRef that make its share a route of its own.
func (w *world) special(prefixes bool) (out []gatewayv1.HTTPRouteFilter) {
	switch w.IntN(4) {
	case 0:
		out = append(out, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterURLRewrite, URLRewrite: &gatewayv1.HTTPURLRewriteFilter{Path: w.pathModifier(prefixes), Hostname: ptr(gatewayv1.PreciseHostname("own.example.org"))}})
	case 1:
		out = append(out, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterRequestRedirect, RequestRedirect: w.redirect(prefixes)})
	case 2:
		out = append(out, w.mirror())
	default:
		out = append(out, w.cors())
	}
	return out
}

func (w *world) mirror() gatewayv1.HTTPRouteFilter {
	m := &gatewayv1.HTTPRequestMirrorFilter{BackendRef: w.backend().BackendObjectReference}
	if w.chance(2) {
		m.Percent = ptr(int32(w.IntN(101)))
	}
	return gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterRequestMirror, RequestMirror: m}
}

func (w *world) cors() gatewayv1.HTTPRouteFilter {
	return gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterCORS, CORS: &gatewayv1.HTTPCORSFilter{
		AllowOrigins: []gatewayv1.CORSOrigin{pick(w.Rand, []gatewayv1.CORSOrigin{"https://web.example", "https://*.web.example", "http://web.example:8080", "*"})},
		AllowMethods: []gatewayv1.HTTPMethodWithWildcard{"GET", "PUT"}, MaxAge: 5,
	}}
}

func (w *world) modifiers() []gatewayv1.HTTPRouteFilter {
	var out []gatewayv1.HTTPRouteFilter
	mods := func(names []string) *gatewayv1.HTTPHeaderFilter {
		var f gatewayv1.HTTPHeaderFilter
		for _, h := range some(w.Rand, names) {
			x := gatewayv1.HTTPHeader{Name: gatewayv1.HTTPHeaderName(h), Value: pick(w.Rand, []string{"s1", "s2", "100%", "%REQ(x)%"})}
			switch w.IntN(3) {
			case 0:
				f.Set = append(f.Set, x)
			case 1:
				f.Add = append(f.Add, x)
			default:
				f.Remove = append(f.Remove, h)
			}
		}
		return &f
	}
	if w.chance(3) {
		out = append(out, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterRequestHeaderModifier, RequestHeaderModifier: mods(headers)})
	}
	if w.chance(3) {
		out = append(out, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterResponseHeaderModifier, ResponseHeaderModifier: mods(responseHeaders)})
	}
	return out
}

// responseHeaders are those that filters change; pods send the first two.
var responseHeaders = []string{"x-r", "x-r-drop", "x-r-new"}

func (w *world) backend() gatewayv1.BackendRef {
	s := pick(w.Rand, append(services, svc{"app", "missing"}))
	b := gatewayv1.BackendRef{BackendObjectReference: gatewayv1.BackendObjectReference{Namespace: ptr(gatewayv1.Namespace(s.namespace)), Name: gatewayv1.ObjectName(s.name), Port: ptr(int32(80))}}
	if w.chance(2) {
		b.Group, b.Kind = ptr(gatewayv1.Group("multicluster.x-k8s.io")), ptr(gatewayv1.Kind("ServiceImport"))
	}
	if w.chance(8) {
		b.Port = ptr(int32(8080))
	}
	if w.chance(3) {
		b.Weight = ptr(pick(w.Rand, []int32{0, 1, 2, 10}))
	}
	return b
}
