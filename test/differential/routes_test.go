package differential

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
)

// route makes a route at home in east or, if it may, in west.
func (w *world) route(t *testing.T, name, ns string, parent gatewayv1.ParentReference) {
	c := east
	if parent.Kind != nil && w.chance(4) {
		c = w.abroad()
	}
	w.routeIn(t, c, name, ns, parent)
}

// abroad is a cluster other than east.
func (w *world) abroad() cluster.ID {
	if !w.steady && w.chance(2) {
		return north
	}
	return west
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
	if !w.steady && w.chance(3) {
		out = append(out, w.auth())
	}
	for w.chance(4) {
		out = append(out, w.mirror())
	}
	return out
}

// special are filters of a backendRef that make its share a route of its own.
func (w *world) special(prefixes bool) (out []gatewayv1.HTTPRouteFilter) {
	if !w.steady && w.chance(3) {
		return append(out, w.auth())
	}
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
		b.Port = ptr(pick(w.Rand, []int32{portAlt, portAlt, portBytes, portTLS}))
	}
	if w.chance(3) {
		b.Weight = ptr(pick(w.Rand, []int32{0, 1, 2, 10}))
	}
	return b
}

// auth asks a service that anything may stand behind: pods answer as authorities too.
func (w *world) auth() gatewayv1.HTTPRouteFilter {
	a := &gatewayv1.HTTPExternalAuthFilter{ExternalAuthProtocol: gatewayv1.HTTPRouteExternalAuthHTTPProtocol, BackendRef: w.backend().BackendObjectReference}
	if !w.chance(4) {
		a.BackendRef.Namespace, a.BackendRef.Name, a.BackendRef.Port = ptr(gatewayv1.Namespace("app")), "a", ptr(int32(portHTTP))
	}
	if w.chance(2) {
		a.ExternalAuthProtocol = gatewayv1.HTTPRouteExternalAuthGRPCProtocol
	} else {
		a.HTTPAuthConfig = &gatewayv1.HTTPAuthConfig{Path: pick(w.Rand, []string{"", authPath, authPath + "/", authPath + "/deep"})}
		if w.chance(2) {
			a.HTTPAuthConfig.AllowedResponseHeaders = some(w.Rand, []string{authHeader, "x-other"})
		}
	}
	return gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterExternalAuth, ExternalAuth: a}
}

// forward makes a route of connections or datagrams.
func (w *world) forward(t *testing.T, name string, edge bool) {
	kind, ns, c := pick(w.Rand, []cluster.Kind{cluster.KindTCPRoute, cluster.KindTLSRoute, cluster.KindTLSRoute, cluster.KindUDPRoute}), namespaces[w.IntN(3)], east
	var parent gatewayv1.ParentReference
	if edge {
		parent = gatewayv1.ParentReference{Namespace: ptr(gatewayv1.Namespace("app")), Name: "gw"}
		switch w.IntN(6) {
		case 0:
			parent.SectionName = ptr(gatewayv1.SectionName(pick(w.Rand, []string{"s0", "s1", "s2", "tcp", "udp"})))
		case 1:
			parent.Port = ptr(pick(w.Rand, gatewayPorts[2:]))
		}
	} else {
		parent = w.meshParent()
		parent.Port = ptr(pick(w.Rand, []int32{portBytes, portBytes, portTLS, portTLS, portHTTP}))
		if kind == cluster.KindUDPRoute {
			parent.Port = ptr(int32(portUDP))
		}
		if w.chance(5) {
			parent.Port = nil
		}
		if w.chance(4) {
			c = w.abroad()
		}
		if w.chance(2) {
			ns = string(*parent.Namespace)
		}
	}
	meta, common := metav1.ObjectMeta{Namespace: ns, Name: name}, gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{parent}}
	var backends []gatewayv1.BackendRef
	for range 1 + w.IntN(3) {
		b := w.backend()
		b.Port = ptr(pick(w.Rand, []int32{portBytes, portBytes, portTLS, portHTTP}))
		if kind == cluster.KindUDPRoute {
			b.Port = ptr(int32(portUDP))
		}
		backends = append(backends, b)
	}
	switch kind {
	case cluster.KindTCPRoute:
		w.put(t, c, kind, ns, name, &gatewayv1.TCPRoute{ObjectMeta: meta, Spec: gatewayv1.TCPRouteSpec{CommonRouteSpec: common, Rules: []gatewayv1.TCPRouteRule{{BackendRefs: backends}}}})
	case cluster.KindUDPRoute:
		w.put(t, c, kind, ns, name, &gatewayv1.UDPRoute{ObjectMeta: meta, Spec: gatewayv1.UDPRouteSpec{CommonRouteSpec: common, Rules: []gatewayv1.UDPRouteRule{{BackendRefs: backends}}}})
	default:
		r := &gatewayv1.TLSRoute{ObjectMeta: meta, Spec: gatewayv1.TLSRouteSpec{CommonRouteSpec: common, Rules: []gatewayv1.TLSRouteRule{{BackendRefs: backends}}}}
		for _, h := range some(w.Rand, tlsPatterns) {
			r.Spec.Hostnames = append(r.Spec.Hostnames, gatewayv1.Hostname(h))
		}
		w.put(t, c, kind, ns, name, r)
	}
}
