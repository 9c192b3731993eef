package resolve

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// pick draws one of a few values.
func pick[T any](t *rapid.T, label string, of ...T) T { return rapid.SampledFrom(of).Draw(t, label) }

// one is true once in n times.
func one(t *rapid.T, n int, label string) bool { return rapid.IntRange(0, n-1).Draw(t, label) == 0 }

func drawParents(t *rapid.T) (out []gatewayv1.ParentReference) {
	for range rapid.IntRange(1, 2).Draw(t, "parents") {
		p := gatewayv1.ParentReference{Name: gatewayv1.ObjectName(pick(t, "parent", someNames...)), Namespace: ptr(gatewayv1.Namespace(pick(t, "parentNamespace", someNamespaces...)))}
		switch rapid.IntRange(0, 4).Draw(t, "parentKind") {
		case 0:
			p.Group, p.Kind = ptr(gatewayv1.Group("")), ptr(gatewayv1.Kind("Service"))
		case 1:
			p.Group, p.Kind = ptr(gatewayv1.Group(groupMCS)), ptr(gatewayv1.Kind("ServiceImport"))
		case 2:
			p.Kind = ptr(gatewayv1.Kind("ListenerSet"))
		}
		if one(t, 4, "ported") {
			p.Port = ptr(gatewayv1.PortNumber(80))
		}
		if one(t, 6, "section") {
			p.SectionName = ptr(gatewayv1.SectionName("l0"))
		}
		out = append(out, p)
	}
	return out
}

func drawHostnames(t *rapid.T) (out []gatewayv1.Hostname) {
	for range rapid.IntRange(0, 2).Draw(t, "hostnames") {
		out = append(out, gatewayv1.Hostname(pick(t, "hostname", someHosts...)))
	}
	return out
}

func drawBackend(t *rapid.T) (b gatewayv1.BackendRef) {
	b.Name, b.Port = gatewayv1.ObjectName(pick(t, "backend", someNames...)), ptr(gatewayv1.PortNumber(80))
	b.Namespace = ptr(gatewayv1.Namespace(pick(t, "backendNamespace", someNamespaces...)))
	b.Weight = ptr(rapid.Int32Range(0, 2).Draw(t, "weight"))
	if rapid.Bool().Draw(t, "import") {
		b.Group, b.Kind = ptr(gatewayv1.Group(groupMCS)), ptr(gatewayv1.Kind("ServiceImport"))
	}
	return b
}

func drawRoute(t *rapid.T, m metav1.ObjectMeta) *gatewayv1.HTTPRoute {
	h := &gatewayv1.HTTPRoute{ObjectMeta: m}
	h.Spec.ParentRefs, h.Spec.Hostnames = drawParents(t), drawHostnames(t)
	for range rapid.IntRange(1, 2).Draw(t, "rules") {
		r := gatewayv1.HTTPRouteRule{Matches: []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{
			Type:  ptr(pick(t, "pathType", gatewayv1.PathMatchPathPrefix, gatewayv1.PathMatchExact, gatewayv1.PathMatchRegularExpression)),
			Value: ptr(pick(t, "path", "/", "/a", "/a/b", "/("))}}}}
		if one(t, 4, "method") {
			r.Matches[0].Method = ptr(pick(t, "method", gatewayv1.HTTPMethodGet, gatewayv1.HTTPMethodPost, "PURGE"))
		}
		for range rapid.IntRange(0, 2).Draw(t, "backends") {
			b := gatewayv1.HTTPBackendRef{BackendRef: drawBackend(t)}
			if one(t, 4, "backendFilters") {
				b.Filters = drawFilters(t)
			}
			r.BackendRefs = append(r.BackendRefs, b)
		}
		if one(t, 2, "filters") {
			r.Filters = drawFilters(t)
		}
		if one(t, 5, "patience") {
			r.Timeouts = &gatewayv1.HTTPRouteTimeouts{Request: ptr(pick(t, "request", gatewayv1.Duration("0s"), "10s", "soon")), BackendRequest: ptr(gatewayv1.Duration("1s"))}
			r.Retry = &gatewayv1.HTTPRouteRetry{Attempts: ptr(rapid.IntRange(-1, 3).Draw(t, "attempts")), Codes: []gatewayv1.HTTPRouteRetryStatusCode{503, 500, pick(t, "code", gatewayv1.HTTPRouteRetryStatusCode(200), 503)}}
		}
		r.SessionPersistence = drawSession(t)
		h.Spec.Rules = append(h.Spec.Rules, r)
	}
	return h
}

func drawSession(t *rapid.T) *gatewayv1.SessionPersistence {
	if !one(t, 6, "session") {
		return nil
	}
	return &gatewayv1.SessionPersistence{
		Type:            ptr(pick(t, "sessionType", gatewayv1.CookieBasedSessionPersistence, gatewayv1.HeaderBasedSessionPersistence)),
		SessionName:     pick(t, "sessionName", nil, ptr("s"), ptr("s;t")),
		AbsoluteTimeout: pick(t, "absoluteTimeout", nil, ptr(gatewayv1.Duration("1h"))),
	}
}

func drawGRPCRoute(t *rapid.T, m metav1.ObjectMeta) *gatewayv1.GRPCRoute {
	g := &gatewayv1.GRPCRoute{ObjectMeta: m}
	g.Spec.ParentRefs, g.Spec.Hostnames = drawParents(t), drawHostnames(t)
	for range rapid.IntRange(0, 2).Draw(t, "rules") {
		r := gatewayv1.GRPCRouteRule{SessionPersistence: drawSession(t)}
		for range rapid.IntRange(0, 2).Draw(t, "matches") {
			x := gatewayv1.GRPCRouteMatch{Method: &gatewayv1.GRPCMethodMatch{
				Type:    ptr(pick(t, "methodType", gatewayv1.GRPCMethodMatchExact, gatewayv1.GRPCMethodMatchRegularExpression)),
				Service: pick(t, "service", nil, ptr("p.S"), ptr("p.SS"), ptr("(")),
				Method:  pick(t, "method", nil, ptr("M"), ptr("N")),
			}}
			if one(t, 3, "header") {
				x.Headers = []gatewayv1.GRPCHeaderMatch{{Name: "x", Value: "1"}}
			}
			r.Matches = append(r.Matches, x)
		}
		for range rapid.IntRange(0, 2).Draw(t, "backends") {
			r.BackendRefs = append(r.BackendRefs, gatewayv1.GRPCBackendRef{BackendRef: drawBackend(t)})
		}
		if one(t, 4, "filters") {
			r.Filters = []gatewayv1.GRPCRouteFilter{
				{Type: gatewayv1.GRPCRouteFilterRequestMirror, RequestMirror: drawMirror(t)},
				{Type: pick(t, "filter", gatewayv1.GRPCRouteFilterRequestHeaderModifier, "Sparkle"), RequestHeaderModifier: &gatewayv1.HTTPHeaderFilter{Remove: []string{"x"}}},
			}
		}
		g.Spec.Rules = append(g.Spec.Rules, r)
	}
	return g
}

func drawMirror(t *rapid.T) *gatewayv1.HTTPRequestMirrorFilter {
	return &gatewayv1.HTTPRequestMirrorFilter{BackendRef: drawBackend(t).BackendObjectReference, Percent: pick(t, "percent", nil, ptr(int32(0)), ptr(int32(7)), ptr(int32(101)))}
}

func drawFilters(t *rapid.T) (out []gatewayv1.HTTPRouteFilter) {
	for range rapid.IntRange(1, 3).Draw(t, "filters") {
		f := gatewayv1.HTTPRouteFilter{Type: pick(t, "filter", gatewayv1.HTTPRouteFilterRequestHeaderModifier, gatewayv1.HTTPRouteFilterResponseHeaderModifier, gatewayv1.HTTPRouteFilterURLRewrite,
			gatewayv1.HTTPRouteFilterRequestRedirect, gatewayv1.HTTPRouteFilterRequestMirror, gatewayv1.HTTPRouteFilterCORS, gatewayv1.HTTPRouteFilterExternalAuth, gatewayv1.HTTPRouteFilterExtensionRef, "Sparkle")}
		switch f.Type {
		case gatewayv1.HTTPRouteFilterRequestHeaderModifier:
			f.RequestHeaderModifier = drawModifier(t)
		case gatewayv1.HTTPRouteFilterResponseHeaderModifier:
			f.ResponseHeaderModifier = drawModifier(t)
		case gatewayv1.HTTPRouteFilterURLRewrite:
			f.URLRewrite = &gatewayv1.HTTPURLRewriteFilter{Hostname: ptr(pick(t, "host", gatewayv1.PreciseHostname("x.example"), "a b")), Path: drawPathModifier(t)}
		case gatewayv1.HTTPRouteFilterRequestRedirect:
			f.RequestRedirect = &gatewayv1.HTTPRequestRedirectFilter{Port: pick(t, "port", nil, ptr(int32(443)), ptr(int32(0))), StatusCode: pick(t, "status", nil, ptr(308), ptr(200)), Path: drawPathModifier(t)}
		case gatewayv1.HTTPRouteFilterRequestMirror:
			f.RequestMirror = drawMirror(t)
		case gatewayv1.HTTPRouteFilterCORS:
			f.CORS = &gatewayv1.HTTPCORSFilter{AllowOrigins: []gatewayv1.CORSOrigin{pick(t, "origin", gatewayv1.CORSOrigin("*"), "https://*.x:8443", "x")}, AllowMethods: []gatewayv1.HTTPMethodWithWildcard{"GET", pick(t, "corsMethod", gatewayv1.HTTPMethodWithWildcard("PUT"), "*")}}
		case gatewayv1.HTTPRouteFilterExternalAuth:
			f.ExternalAuth = &gatewayv1.HTTPExternalAuthFilter{ExternalAuthProtocol: pick(t, "protocol", gatewayv1.HTTPRouteExternalAuthGRPCProtocol, gatewayv1.HTTPRouteExternalAuthHTTPProtocol, "SOAP"), BackendRef: drawBackend(t).BackendObjectReference}
		case gatewayv1.HTTPRouteFilterExtensionRef:
			f.ExtensionRef = &gatewayv1.LocalObjectReference{Group: "example.com", Kind: "X", Name: "x"}
		}
		out = append(out, f)
	}
	return out
}

func drawModifier(t *rapid.T) *gatewayv1.HTTPHeaderFilter {
	name := func() gatewayv1.HTTPHeaderName {
		return pick(t, "name", gatewayv1.HTTPHeaderName("X-A"), "x-b", "Host", "x y")
	}
	return &gatewayv1.HTTPHeaderFilter{
		Set:    []gatewayv1.HTTPHeader{{Name: name(), Value: "v.example"}},
		Add:    []gatewayv1.HTTPHeader{{Name: name(), Value: pick(t, "value", "1", "a\nb")}},
		Remove: []string{string(name())},
	}
}

func drawPathModifier(t *rapid.T) *gatewayv1.HTTPPathModifier {
	return pick(t, "pathModifier", nil, &gatewayv1.HTTPPathModifier{Type: gatewayv1.FullPathHTTPPathModifier, ReplaceFullPath: ptr("/x")},
		&gatewayv1.HTTPPathModifier{Type: gatewayv1.PrefixMatchHTTPPathModifier, ReplacePrefixMatch: ptr("")}, &gatewayv1.HTTPPathModifier{Type: "ReplaceSuffix"})
}
