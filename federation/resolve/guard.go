package resolve

import (
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
)

// defaultMaxAge is how long browsers may remember an answer to a preflight
// request of which a route does not say it (HTTPCORSFilter.maxAge).
const defaultMaxAge = 5 * time.Second

func compileCORS(in *gatewayv1.HTTPCORSFilter, fail failFunc) *CORS {
	out := &CORS{AllowCredentials: deref(in.AllowCredentials, false), MaxAge: defaultMaxAge}
	bad := func(format string, a ...any) { fail(gatewayv1.RouteReasonUnsupportedValue, "CORS: "+format, a...) }
	switch {
	case in.MaxAge < 0:
		bad("maxAge %d is negative", in.MaxAge)
	case in.MaxAge > 0:
		out.MaxAge = time.Duration(in.MaxAge) * time.Second
	}
	for _, o := range in.AllowOrigins {
		origin, ok := normalOrigin(string(o))
		if !ok {
			bad("%q is not an origin such as https://www.example.com or https://*.example.com:8443", clip(string(o)))
			continue
		}
		out.AllowOrigins = addOnce(out.AllowOrigins, origin)
	}
	for _, m := range in.AllowMethods {
		if m != "*" && !slices.Contains(methods, string(m)) {
			bad("method %q is unknown", clip(string(m)))
			continue
		}
		out.AllowMethods = addOnce(out.AllowMethods, string(m))
	}
	names := func(in []gatewayv1.HTTPHeaderName) (out []string) {
		for _, n := range in {
			if !IsToken(string(n)) {
				bad("%q can't be the name of a header", clip(string(n)))
				continue
			}
			out = addOnce(out, string(n))
		}
		return out
	}
	out.AllowHeaders, out.ExposeHeaders = names(in.AllowHeaders), names(in.ExposeHeaders)
	for _, list := range [][]string{out.AllowOrigins, out.AllowMethods, out.AllowHeaders} {
		if len(list) > 1 && slices.Contains(list, "*") {
			bad("'*' must stand alone in %s", clip(strings.Join(list, ", ")))
		}
	}
	return out
}

// addOnce appends what is not in a list yet, whatever its case.
func addOnce(list []string, s string) []string {
	if slices.ContainsFunc(list, func(x string) bool { return strings.EqualFold(x, s) }) {
		return list
	}
	return append(list, s)
}

var originForm = regexp.MustCompile(`^(https?)://((?:\*\.)?(?:[a-z0-9-]+\.)*[a-z0-9-]+|\*)(?::([0-9]{1,5}))?$`)

// normalOrigin writes an origin as browsers do: in lower case, without the
// scheme's own port.
func normalOrigin(s string) (string, bool) {
	if s == "*" {
		return s, true
	}
	if len(s) > 253 {
		return "", false
	}
	m := originForm.FindStringSubmatch(strings.ToLower(s))
	if m == nil {
		return "", false
	}
	scheme, host, port := m[1], m[2], m[3]
	if port == "" {
		return scheme + "://" + host, true
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < 1 || n > 65535 {
		return "", false
	}
	if scheme == "http" && n == 80 || scheme == "https" && n == 443 {
		return scheme + "://" + host, true
	}
	return scheme + "://" + host + ":" + strconv.Itoa(n), true
}

// compileAuth reads a filter that asks a service. A problem means that the
// service can't be asked: then no request may pass.
func (r *reader) compileAuth(o *cluster.Object, in *gatewayv1.HTTPExternalAuthFilter, where string, v via, fail failFunc) (*ExternalAuth, *problem) {
	out := &ExternalAuth{}
	bad := func(format string, a ...any) {
		fail(gatewayv1.RouteReasonUnsupportedValue, "ExternalAuth: "+format, a...)
	}
	names := func(in []string) (out []string) {
		for _, n := range in {
			if n = strings.ToLower(n); !IsToken(n) {
				bad("%q can't be the name of a header", clip(n))
			} else {
				out = append(out, n)
			}
		}
		sort.Strings(out)
		return slices.Compact(out)
	}
	switch {
	case in.ExternalAuthProtocol == gatewayv1.HTTPRouteExternalAuthGRPCProtocol && in.HTTPAuthConfig == nil:
		out.GRPC = true
		if c := in.GRPCAuthConfig; c != nil {
			out.RequestHeaders = names(c.AllowedRequestHeaders)
		}
	case in.ExternalAuthProtocol == gatewayv1.HTTPRouteExternalAuthHTTPProtocol && in.GRPCAuthConfig == nil:
		if c := in.HTTPAuthConfig; c != nil {
			out.RequestHeaders, out.ResponseHeaders = names(c.AllowedRequestHeaders), names(c.AllowedResponseHeaders)
			if p := strings.Trim(c.Path, "/"); p != "" {
				out.Path = "/" + p
				if err := checkPath(out.Path); err != nil {
					bad("path %q: %v", clip(c.Path), err)
				}
			}
		}
	case in.ExternalAuthProtocol == gatewayv1.HTTPRouteExternalAuthGRPCProtocol || in.ExternalAuthProtocol == gatewayv1.HTTPRouteExternalAuthHTTPProtocol:
		bad("protocol %s does not go with the other protocol's settings", in.ExternalAuthProtocol)
	default:
		bad("protocol %q is unknown: use GRPC or HTTP", clip(string(in.ExternalAuthProtocol)))
	}
	if in.ForwardBody != nil {
		out.MaxBody = uint32(in.ForwardBody.MaxSize)
	}
	v.chain = false
	var b WeightedBackend
	if p := r.resolveBackendFor(o, in.BackendRef, v, out.GRPC, &b); p != nil {
		p.message = where + ": " + p.message
		return nil, p
	}
	out.Backend = b.Backend
	return out, nil
}

// Allows tells whether requests of an origin, as browsers write it, are allowed
// (HTTPCORSFilter.allowOrigins). Scheme and host are compared regardless of case, and a
// scheme's own port may be left out.
func (c *CORS) Allows(origin string) bool {
	scheme, host, port := splitOrigin(origin)
	return slices.ContainsFunc(c.AllowOrigins, func(o string) bool {
		s, h, p := splitOrigin(o)
		suffix, wild := strings.CutPrefix(h, "*")
		fits := h == host || wild && strings.HasSuffix(host, suffix) && len(host) > len(suffix)
		return o == "*" || s == scheme && p == port && fits
	})
}

func splitOrigin(origin string) (scheme, host, port string) {
	scheme, rest, _ := strings.Cut(strings.ToLower(origin), "://")
	host, port, given := strings.Cut(rest, ":")
	if !given {
		port = map[string]string{"http": "80", "https": "443"}[scheme]
	}
	return scheme, host, port
}
