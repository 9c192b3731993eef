package record

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// What follows repeats, for readers of other clusters' routes, the part of the
// CRDs' schema on which the resolver and Envoy rely. Filters and kinds that this
// version doesn't know pass: how they are reported is the resolver's business.

const (
	maxWeight    = 1_000_000
	maxHostnames = 1024 // of a TLSRoute
	maxPattern   = 1024 // a path, or a gRPC service or method
)

var (
	headerName  = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+\\-.^_`|~]{1,256}$")
	duration    = regexp.MustCompile(`^([0-9]{1,5}(h|m|s|ms)){1,4}$`) // GEP-2257
	grpcService = regexp.MustCompile(`^(?i)\.?[a-z_][a-z_0-9]*(\.[a-z_][a-z_0-9]*)*$`)
	grpcMethod  = regexp.MustCompile(`^[A-Za-z_][A-Za-z_0-9]*$`)
	methods     = map[gatewayv1.HTTPMethod]bool{
		http.MethodGet: true, http.MethodHead: true, http.MethodPost: true, http.MethodPut: true, http.MethodDelete: true,
		http.MethodConnect: true, http.MethodOptions: true, http.MethodTrace: true, http.MethodPatch: true,
	}
)

func checkHTTPRoute(s *gatewayv1.HTTPRouteSpec) error {
	if err := checkRoute(s, s.ParentRefs, s.Hostnames); err != nil {
		return err
	}
	return checkRules(s.Rules, func(r *gatewayv1.HTTPRouteRule) error {
		for i := range r.Matches {
			if err := checkMatch(&r.Matches[i]); err != nil {
				return fmt.Errorf("matches[%d]: %w", i, err)
			}
		}
		if err := checkFilters(r.Filters); err != nil {
			return err
		}
		for i := range r.BackendRefs {
			b := &r.BackendRefs[i]
			if err := checkBackend(&b.BackendRef); err != nil {
				return fmt.Errorf("backendRefs[%d]: %w", i, err)
			}
			if err := checkFilters(b.Filters); err != nil {
				return fmt.Errorf("backendRefs[%d]: %w", i, err)
			}
		}
		if t := r.Timeouts; t != nil {
			if err := checkDurations("timeout", t.Request, t.BackendRequest); err != nil {
				return err
			}
		}
		if err := checkRetry(r.Retry); err != nil {
			return err
		}
		return checkSession(r.SessionPersistence)
	})
}

func checkGRPCRoute(s *gatewayv1.GRPCRouteSpec) error {
	if err := checkRoute(s, s.ParentRefs, s.Hostnames); err != nil {
		return err
	}
	return checkRules(s.Rules, func(r *gatewayv1.GRPCRouteRule) error {
		for i := range r.Matches {
			if err := checkGRPCMatch(&r.Matches[i]); err != nil {
				return fmt.Errorf("matches[%d]: %w", i, err)
			}
		}
		if err := checkGRPCFilters(r.Filters); err != nil {
			return err
		}
		for i := range r.BackendRefs {
			b := &r.BackendRefs[i]
			if err := checkBackend(&b.BackendRef); err != nil {
				return fmt.Errorf("backendRefs[%d]: %w", i, err)
			}
			if err := checkGRPCFilters(b.Filters); err != nil {
				return fmt.Errorf("backendRefs[%d]: %w", i, err)
			}
		}
		return checkSession(r.SessionPersistence)
	})
}

func checkTLSRoute(s *gatewayv1.TLSRouteSpec) error {
	if n := len(s.Hostnames); n > maxHostnames {
		return fmt.Errorf("spec.hostnames %w", tooMany("items", n, maxHostnames))
	}
	rest := *s
	rest.Hostnames = nil // longer than any other list; each is checked by itself
	if err := checkRoute(&rest, s.ParentRefs, s.Hostnames); err != nil {
		return err
	}
	return checkRules(s.Rules, func(r *gatewayv1.TLSRouteRule) error { return checkBackends(r.BackendRefs) })
}

func checkTCPRoute(s *gatewayv1.TCPRouteSpec) error {
	if err := checkRoute(s, s.ParentRefs, nil); err != nil {
		return err
	}
	return checkRules(s.Rules, func(r *gatewayv1.TCPRouteRule) error { return checkBackends(r.BackendRefs) })
}

func checkUDPRoute(s *gatewayv1.UDPRouteSpec) error {
	if err := checkRoute(s, s.ParentRefs, nil); err != nil {
		return err
	}
	return checkRules(s.Rules, func(r *gatewayv1.UDPRouteRule) error { return checkBackends(r.BackendRefs) })
}

// checkRoute looks at what all kinds of routes have.
func checkRoute(spec any, parents []gatewayv1.ParentReference, hostnames []gatewayv1.Hostname) error {
	if err := checkBounds(spec); err != nil {
		return err
	}
	for i, p := range parents {
		if err := checkRef(string(p.Name), p.Namespace, p.Port); err != nil {
			return fmt.Errorf("spec.parentRefs[%d]: %w", i, err)
		}
	}
	for i, h := range hostnames {
		if err := checkHostname(string(h)); err != nil {
			return fmt.Errorf("spec.hostnames[%d]: %w", i, err)
		}
	}
	return nil
}

func checkRules[R any](rules []R, check func(*R) error) error {
	for i := range rules {
		if err := check(&rules[i]); err != nil {
			return fmt.Errorf("spec.rules[%d]: %w", i, err)
		}
	}
	return nil
}

func checkBackends(refs []gatewayv1.BackendRef) error {
	for i := range refs {
		if err := checkBackend(&refs[i]); err != nil {
			return fmt.Errorf("backendRefs[%d]: %w", i, err)
		}
	}
	return nil
}

func checkBackend(b *gatewayv1.BackendRef) error {
	if err := checkRef(string(b.Name), b.Namespace, b.Port); err != nil {
		return err
	}
	if w := b.Weight; w != nil && (*w < 0 || *w > maxWeight) {
		return fmt.Errorf("weight %d is not from 0 to %d", *w, maxWeight)
	}
	return nil
}

func checkMatch(m *gatewayv1.HTTPRouteMatch) error {
	if p := m.Path; p != nil {
		kind := gatewayv1.PathMatchPathPrefix
		if p.Type != nil {
			kind = *p.Type
		}
		switch kind {
		case gatewayv1.PathMatchExact, gatewayv1.PathMatchPathPrefix:
			if p.Value != nil && !strings.HasPrefix(*p.Value, "/") {
				return fmt.Errorf("path %q does not begin with a slash", shorten(*p.Value))
			}
		case gatewayv1.PathMatchRegularExpression:
		default:
			return fmt.Errorf("path type %q is unknown", shorten(string(kind)))
		}
		if p.Value != nil && len(*p.Value) > maxPattern {
			return fmt.Errorf("path is longer than %d bytes", maxPattern)
		}
	}
	for _, h := range m.Headers {
		if !headerName.MatchString(string(h.Name)) {
			return fmt.Errorf("header name %q is none by RFC 9110", shorten(string(h.Name)))
		}
		if t := h.Type; t != nil && *t != gatewayv1.HeaderMatchExact && *t != gatewayv1.HeaderMatchRegularExpression {
			return fmt.Errorf("header match type %q is unknown", shorten(string(*t)))
		}
	}
	for _, q := range m.QueryParams {
		if !headerName.MatchString(string(q.Name)) {
			return fmt.Errorf("query parameter name %q is none by Gateway API", shorten(string(q.Name)))
		}
		if t := q.Type; t != nil && *t != gatewayv1.QueryParamMatchExact && *t != gatewayv1.QueryParamMatchRegularExpression {
			return fmt.Errorf("query parameter match type %q is unknown", shorten(string(*t)))
		}
	}
	if m.Method != nil && !methods[*m.Method] {
		return fmt.Errorf("method %q is unknown", shorten(string(*m.Method)))
	}
	return nil
}

func checkGRPCMatch(m *gatewayv1.GRPCRouteMatch) error {
	for _, h := range m.Headers {
		if !headerName.MatchString(string(h.Name)) {
			return fmt.Errorf("header name %q is none by RFC 9110", shorten(string(h.Name)))
		}
		if t := h.Type; t != nil && *t != gatewayv1.GRPCHeaderMatchExact && *t != gatewayv1.GRPCHeaderMatchRegularExpression {
			return fmt.Errorf("header match type %q is unknown", shorten(string(*t)))
		}
	}
	if m.Method == nil {
		return nil
	}
	exact := m.Method.Type == nil || *m.Method.Type == gatewayv1.GRPCMethodMatchExact
	if !exact && *m.Method.Type != gatewayv1.GRPCMethodMatchRegularExpression {
		return fmt.Errorf("method match type %q is unknown", shorten(string(*m.Method.Type)))
	}
	for _, part := range []struct {
		what  string
		value *string
		form  *regexp.Regexp
	}{{"service", m.Method.Service, grpcService}, {"method", m.Method.Method, grpcMethod}} {
		switch {
		case part.value == nil:
		case len(*part.value) > maxPattern:
			return fmt.Errorf("gRPC %s is longer than %d bytes", part.what, maxPattern)
		case exact && !part.form.MatchString(*part.value):
			return fmt.Errorf("gRPC %s %q is none by Gateway API", part.what, shorten(*part.value))
		}
	}
	return nil
}

func checkRetry(r *gatewayv1.HTTPRouteRetry) error {
	if r == nil {
		return nil
	}
	for _, c := range r.Codes {
		if c < 400 || c > 599 {
			return fmt.Errorf("retry code %d is not from 400 to 599", c)
		}
	}
	if r.Attempts != nil && *r.Attempts < 1 {
		return fmt.Errorf("retry attempts are %d, at least 1 is needed", *r.Attempts)
	}
	return checkDurations("retry backoff", r.Backoff)
}

func checkSession(s *gatewayv1.SessionPersistence) error {
	if s == nil {
		return nil
	}
	if s.SessionName != nil && len(*s.SessionName) > 128 {
		return fmt.Errorf("session name is longer than 128 bytes")
	}
	if t := s.Type; t != nil && *t != gatewayv1.CookieBasedSessionPersistence && *t != gatewayv1.HeaderBasedSessionPersistence {
		return fmt.Errorf("session persistence type %q is unknown", shorten(string(*t)))
	}
	if c := s.CookieConfig; c != nil && c.LifetimeType != nil {
		if l := *c.LifetimeType; l != gatewayv1.SessionCookieLifetimeType && l != gatewayv1.PermanentCookieLifetimeType {
			return fmt.Errorf("cookie lifetime %q is unknown", shorten(string(l)))
		}
	}
	return checkDurations("session timeout", s.AbsoluteTimeout)
}

func checkDurations(what string, ds ...*gatewayv1.Duration) error {
	for _, d := range ds {
		if d != nil && !duration.MatchString(string(*d)) {
			return fmt.Errorf("%s %q is not a duration such as 1m30s", what, shorten(string(*d)))
		}
	}
	return nil
}
