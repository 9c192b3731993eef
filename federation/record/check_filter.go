package record

import (
	"fmt"
	"regexp"
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

var (
	corsOrigin = regexp.MustCompile(`^(\*|https?://((\*\.)?([a-zA-Z0-9-]+\.)*[a-zA-Z0-9-]+|\*)(:[0-9]{1,5})?)$`)
	urlPath    = regexp.MustCompile(`^([-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})+$`)
)

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
		if err := checkMirror(m); err != nil {
			return fmt.Errorf("mirror: %w", err)
		}
	}
	if c := f.CORS; c != nil {
		if err := checkCORS(c); err != nil {
			return fmt.Errorf("CORS: %w", err)
		}
	}
	if a := f.ExternalAuth; a != nil {
		if err := checkAuth(a); err != nil {
			return fmt.Errorf("external auth: %w", err)
		}
	}
	return nil
}

// checkGRPCFilters takes them for those of HTTP, of which they are a part.
func checkGRPCFilters(filters []gatewayv1.GRPCRouteFilter) error {
	for i, f := range filters {
		if err := checkFilter(&gatewayv1.HTTPRouteFilter{RequestHeaderModifier: f.RequestHeaderModifier, ResponseHeaderModifier: f.ResponseHeaderModifier, RequestMirror: f.RequestMirror}); err != nil {
			return fmt.Errorf("filters[%d]: %w", i, err)
		}
	}
	return nil
}

func checkMirror(m *gatewayv1.HTTPRequestMirrorFilter) error {
	if p := m.Percent; p != nil && (*p < 0 || *p > 100) {
		return fmt.Errorf("%d percent is not from 0 to 100", *p)
	}
	if f := m.Fraction; f != nil {
		of := int32(100)
		if f.Denominator != nil {
			of = *f.Denominator
		}
		if of < 1 || f.Numerator < 0 || f.Numerator > of {
			return fmt.Errorf("fraction %d/%d is not from 0 to 1", f.Numerator, of)
		}
	}
	return checkRef(string(m.BackendRef.Name), m.BackendRef.Namespace, m.BackendRef.Port)
}

func checkCORS(c *gatewayv1.HTTPCORSFilter) error {
	for _, o := range c.AllowOrigins {
		if len(o) > 253 || !corsOrigin.MatchString(string(o)) {
			return fmt.Errorf("origin %q is neither '*' nor of the form https://host:port", shorten(string(o)))
		}
	}
	for _, m := range c.AllowMethods {
		if m != "*" && !methods[gatewayv1.HTTPMethod(m)] {
			return fmt.Errorf("method %q is unknown", shorten(string(m)))
		}
	}
	for _, h := range slices.Concat(c.AllowHeaders, c.ExposeHeaders) {
		if !headerName.MatchString(string(h)) {
			return fmt.Errorf("header name %q is none by RFC 9110", shorten(string(h)))
		}
	}
	if len(c.AllowOrigins) > 1 && slices.Contains(c.AllowOrigins, "*") || len(c.AllowMethods) > 1 && slices.Contains(c.AllowMethods, "*") ||
		len(c.AllowHeaders) > 1 && slices.Contains(c.AllowHeaders, "*") {
		return fmt.Errorf("'*' stands beside other origins, methods or headers: leave the others out")
	}
	if c.MaxAge < 0 {
		return fmt.Errorf("maxAge %d is negative", c.MaxAge)
	}
	return nil
}

func checkAuth(a *gatewayv1.HTTPExternalAuthFilter) error {
	if err := checkRef(string(a.BackendRef.Name), a.BackendRef.Namespace, a.BackendRef.Port); err != nil {
		return err
	}
	var names []string
	switch a.ExternalAuthProtocol {
	case gatewayv1.HTTPRouteExternalAuthGRPCProtocol:
	case gatewayv1.HTTPRouteExternalAuthHTTPProtocol:
	default:
		return fmt.Errorf("protocol %q is not HTTP or GRPC", shorten(string(a.ExternalAuthProtocol)))
	}
	if g := a.GRPCAuthConfig; g != nil {
		names = append(names, g.AllowedRequestHeaders...)
	}
	if h := a.HTTPAuthConfig; h != nil {
		if h.Path != "" && (len(h.Path) > maxPattern || !urlPath.MatchString(h.Path)) {
			return fmt.Errorf("path %q is none of a URL", shorten(h.Path))
		}
		names = slices.Concat(names, h.AllowedRequestHeaders, h.AllowedResponseHeaders)
	}
	for _, n := range names {
		if !headerName.MatchString(n) {
			return fmt.Errorf("header name %q is none by RFC 9110", shorten(n))
		}
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
		if v != nil && len(*v) > maxPattern {
			return fmt.Errorf("path is longer than %d bytes", maxPattern)
		}
	}
	return nil
}
