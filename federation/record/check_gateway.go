package record

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// What follows repeats, for readers of other clusters' routes, the part of the
// CRDs' schema on which the resolver and Envoy rely. Filters and kinds that this
// version doesn't know pass: how they are reported is the resolver's business.

const maxWeight = 1_000_000

var (
	headerName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+\\-.^_`|~]{1,256}$")
	duration   = regexp.MustCompile(`^([0-9]{1,5}(h|m|s|ms)){1,4}$`) // GEP-2257
	methods    = map[gatewayv1.HTTPMethod]bool{
		http.MethodGet: true, http.MethodHead: true, http.MethodPost: true, http.MethodPut: true, http.MethodDelete: true,
		http.MethodConnect: true, http.MethodOptions: true, http.MethodTrace: true, http.MethodPatch: true,
	}
)

func checkHTTPRoute(s *gatewayv1.HTTPRouteSpec) error {
	if err := checkBounds(s); err != nil {
		return err
	}
	for i, p := range s.ParentRefs {
		if err := checkRef(string(p.Name), p.Namespace, p.Port); err != nil {
			return fmt.Errorf("spec.parentRefs[%d]: %w", i, err)
		}
	}
	for i, h := range s.Hostnames {
		if err := checkHostname(string(h)); err != nil {
			return fmt.Errorf("spec.hostnames[%d]: %w", i, err)
		}
	}
	for i := range s.Rules {
		if err := checkRule(&s.Rules[i]); err != nil {
			return fmt.Errorf("spec.rules[%d]: %w", i, err)
		}
	}
	return nil
}

func checkRule(r *gatewayv1.HTTPRouteRule) error {
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
		if err := checkRef(string(b.Name), b.Namespace, b.Port); err != nil {
			return fmt.Errorf("backendRefs[%d]: %w", i, err)
		}
		if w := b.Weight; w != nil && (*w < 0 || *w > maxWeight) {
			return fmt.Errorf("backendRefs[%d]: weight %d is not from 0 to %d", i, *w, maxWeight)
		}
		if err := checkFilters(b.Filters); err != nil {
			return fmt.Errorf("backendRefs[%d]: %w", i, err)
		}
	}
	if t := r.Timeouts; t != nil {
		for _, d := range []*gatewayv1.Duration{t.Request, t.BackendRequest} {
			if d != nil && !duration.MatchString(string(*d)) {
				return fmt.Errorf("timeout %q is not a duration such as 1m30s", shorten(string(*d)))
			}
		}
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
		if p.Value != nil && len(*p.Value) > 1024 {
			return fmt.Errorf("path is longer than 1024 bytes")
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

func checkFilters(filters []gatewayv1.HTTPRouteFilter) error {
	for i := range filters {
		if err := checkFilter(&filters[i]); err != nil {
			return fmt.Errorf("filters[%d]: %w", i, err)
		}
	}
	return nil
}

func checkFilter(f *gatewayv1.HTTPRouteFilter) error {
	for _, h := range []*gatewayv1.HTTPHeaderFilter{f.RequestHeaderModifier, f.ResponseHeaderModifier} {
		if err := checkHeaderFilter(h); err != nil {
			return err
		}
	}
	if r := f.RequestRedirect; r != nil {
		if r.Scheme != nil && *r.Scheme != "http" && *r.Scheme != "https" {
			return fmt.Errorf("redirect scheme %q is not http or https", shorten(*r.Scheme))
		}
		if err := checkPrecise(r.Hostname); err != nil {
			return err
		}
		if r.Port != nil {
			if err := checkPortNumber(*r.Port); err != nil {
				return err
			}
		}
		if c := r.StatusCode; c != nil && *c != 301 && *c != 302 && *c != 303 && *c != 307 && *c != 308 {
			return fmt.Errorf("redirect status %d is not 301, 302, 303, 307 or 308", *c)
		}
		if err := checkPath(r.Path); err != nil {
			return err
		}
	}
	if u := f.URLRewrite; u != nil {
		if err := checkPrecise(u.Hostname); err != nil {
			return err
		}
		if err := checkPath(u.Path); err != nil {
			return err
		}
	}
	if m := f.RequestMirror; m != nil {
		return checkRef(string(m.BackendRef.Name), m.BackendRef.Namespace, m.BackendRef.Port)
	}
	return nil
}

func checkHeaderFilter(h *gatewayv1.HTTPHeaderFilter) error {
	if h == nil {
		return nil
	}
	var names []string
	for _, s := range h.Set {
		names = append(names, string(s.Name))
	}
	for _, a := range h.Add {
		names = append(names, string(a.Name))
	}
	for _, n := range append(names, h.Remove...) {
		if !headerName.MatchString(n) {
			return fmt.Errorf("header name %q is none by RFC 9110", shorten(n))
		}
	}
	return nil
}

func checkPath(p *gatewayv1.HTTPPathModifier) error {
	if p == nil {
		return nil
	}
	for _, v := range []*string{p.ReplaceFullPath, p.ReplacePrefixMatch} {
		if v != nil && len(*v) > 1024 {
			return fmt.Errorf("path is longer than 1024 bytes")
		}
	}
	return nil
}

func checkPrecise(h *gatewayv1.PreciseHostname) error {
	if h != nil && len(validation.IsDNS1123Subdomain(string(*h))) > 0 {
		return fmt.Errorf("hostname %q is not a DNS name", shorten(string(*h)))
	}
	return nil
}

func checkHostname(h string) error {
	if len(validation.IsDNS1123Subdomain(strings.TrimPrefix(h, "*."))) > 0 {
		return fmt.Errorf("hostname %q is not a DNS name, nor one behind '*.'", shorten(h))
	}
	return nil
}

func checkRef(name string, namespace *gatewayv1.Namespace, port *gatewayv1.PortNumber) error {
	if name == "" || len(name) > 253 {
		return fmt.Errorf("name %q has no or too many letters", shorten(name))
	}
	if namespace != nil && len(validation.IsDNS1123Label(string(*namespace))) > 0 {
		return fmt.Errorf("namespace %q is not a DNS label", shorten(string(*namespace)))
	}
	if port != nil {
		return checkPortNumber(*port)
	}
	return nil
}

func checkPortNumber(p gatewayv1.PortNumber) error {
	if p < 1 || p > 65535 {
		return fmt.Errorf("port %d is not from 1 to 65535", p)
	}
	return nil
}

func checkGateway(s *gatewayv1.GatewaySpec) error {
	if err := checkBounds(s); err != nil {
		return err
	}
	seen := make(map[gatewayv1.SectionName]bool, len(s.Listeners))
	for i := range s.Listeners {
		if err := checkListener(&s.Listeners[i]); err != nil {
			return fmt.Errorf("spec.listeners[%d]: %w", i, err)
		}
		if seen[s.Listeners[i].Name] {
			return fmt.Errorf("spec.listeners[%d]: name %q is given twice", i, s.Listeners[i].Name)
		}
		seen[s.Listeners[i].Name] = true
	}
	return nil
}

func checkListener(l *gatewayv1.Listener) error {
	if len(validation.IsDNS1123Subdomain(string(l.Name))) > 0 {
		return fmt.Errorf("name %q is not a DNS name", shorten(string(l.Name)))
	}
	if err := checkPortNumber(l.Port); err != nil {
		return err
	}
	if l.Hostname != nil && *l.Hostname != "" {
		if err := checkHostname(string(*l.Hostname)); err != nil {
			return err
		}
	}
	if a := l.AllowedRoutes; a != nil && a.Namespaces != nil {
		return checkSelector(a.Namespaces.Selector)
	}
	return nil
}

func checkSelector(s *metav1.LabelSelector) error {
	if s == nil {
		return nil
	}
	return first(metav1validation.ValidateLabelSelector(s, metav1validation.LabelSelectorValidationOptions{}, field.NewPath("selector")))
}
