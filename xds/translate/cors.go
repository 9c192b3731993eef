package translate

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

const (
	headerOrigin      = "origin"
	headerAskMethod   = "access-control-request-method"
	headerAskHeaders  = "access-control-request-headers"
	headerAllowOrigin = "access-control-allow-origin"
	headerAllowCreds  = "access-control-allow-credentials"
	headerExpose      = "access-control-expose-headers"

	// maxOrigins bounds, in bytes, what one regular expression holds: Envoy bounds
	// its size, and a list of origins may be longer.
	maxOrigins = 600
)

// cors makes a route mark its responses for browsers, and gives the routes that
// answer preflight requests in its place (GEP-1767).
//
// Envoy's filter does the former. It would do the latter, but tells an origin that
// is not allowed which methods and headers others may use, repeats headers that
// nobody asked for, and its answers don't name the route. So preflights are
// answered by routes of their own: 200 if the origin is allowed, else 403 without
// any CORS header. A preflight never reaches the backend, nor does it need to be
// authorized.
func (s *routeSet) cors(out *routev3.Route, rule *resolve.Rule, c *resolve.CORS) ([]*routev3.Route, error) {
	for _, x := range slices.Concat(c.AllowMethods, c.AllowHeaders, c.ExposeHeaders) {
		if !resolve.IsToken(x) { // "*" is one
			return nil, fmt.Errorf("CORS: %q can't be the name of a method or header", clip(x))
		}
	}
	policy := &corsv3.CorsPolicy{ExposeHeaders: strings.Join(c.ExposeHeaders, ", ")}
	if c.AllowCredentials {
		policy.AllowCredentials = yes()
		if slices.Contains(c.ExposeHeaders, "*") {
			policy.ExposeHeaders = "" // "*" would mean a header of that name
		}
	}
	var origins []string
	for _, o := range c.AllowOrigins {
		p, err := originPattern(o)
		if err != nil {
			return nil, err
		}
		origins = append(origins, p)
		policy.AllowOriginStringMatch = append(policy.AllowOriginStringMatch, matching(p))
	}
	var list []*routev3.Route
	preflight := func(action int, origin *matcherv3.StringMatcher, add ...*corev3.HeaderValueOption) {
		r := &routev3.Route{Name: out.Name, Match: narrow(out.Match, exactHeader(":method", http.MethodOptions), presentHeader(headerAskMethod)),
			Action:               &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: uint32(action)}},
			ResponseHeadersToAdd: add,
		}
		if origin == nil {
			r.Match.Headers = append(r.Match.Headers, presentHeader(headerOrigin))
		} else {
			r.Match.Headers = append(r.Match.Headers, headerMatcher(headerOrigin, origin))
		}
		s.debug(r)
		list = append(list, r)
	}
	if m := rule.Match.Method; m == "" || m == http.MethodOptions {
		answer := marks(policy)
		answer = append(answer, listOr("access-control-allow-methods", c.AllowMethods, headerAskMethod)...)
		answer = append(answer, listOr("access-control-allow-headers", c.AllowHeaders, headerAskHeaders)...)
		if c.MaxAge > 0 {
			answer = append(answer, setHeader("access-control-max-age", strconv.FormatInt(int64(c.MaxAge/time.Second), 10)))
		}
		for _, p := range inPieces(origins) {
			preflight(http.StatusOK, matching(p), answer...)
		}
		preflight(http.StatusForbidden, nil)
	}
	if out.GetRoute() != nil {
		configure(out, filterCORS, policy)
	} else {
		// The filter leaves alone what doesn't go to a backend.
		for _, p := range inPieces(origins) {
			r := proto.Clone(out).(*routev3.Route)
			r.Match = narrow(out.Match, headerMatcher(headerOrigin, matching(p)))
			r.ResponseHeadersToAdd = append(r.ResponseHeadersToAdd, marks(policy)...)
			list = append(list, r)
		}
	}
	if !slices.Contains(c.AllowOrigins, "*") {
		out.ResponseHeadersToAdd = append(out.ResponseHeadersToAdd, &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: "vary", Value: "Origin"},
			AppendAction: corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD,
		})
	}
	return list, nil
}

// marks are the headers of every response to an origin that is allowed. The
// origin is always repeated: "*" is no answer to requests with credentials.
func marks(p *corsv3.CorsPolicy) []*corev3.HeaderValueOption {
	out := []*corev3.HeaderValueOption{setHeader(headerAllowOrigin, "%REQ("+headerOrigin+")%")}
	if p.AllowCredentials.GetValue() {
		out = append(out, setHeader(headerAllowCreds, "true"))
	}
	if p.ExposeHeaders != "" {
		out = append(out, setHeader(headerExpose, literal(p.ExposeHeaders)))
	}
	return out
}

// listOr gives a header with a list, or with what the request asked for where
// everything is allowed; none where nothing is, or nothing was asked for.
func listOr(name string, list []string, asked string) []*corev3.HeaderValueOption {
	switch {
	case len(list) == 0:
		return nil
	case !slices.Contains(list, "*"):
		return []*corev3.HeaderValueOption{setHeader(name, literal(strings.Join(list, ", ")))}
	}
	h := setHeader(name, "%REQ("+asked+")%")
	h.KeepEmptyValue = false
	return []*corev3.HeaderValueOption{h}
}

// originPattern is a regular expression for the origins that an entry of
// allowOrigins means. Browsers leave a scheme's own port out.
func originPattern(s string) (string, error) {
	if s == "*" {
		return ".*", nil
	}
	scheme, rest, ok := strings.Cut(s, "://")
	host, port, hasPort := strings.Cut(rest, ":")
	own := map[string]string{"http": "80", "https": "443"}[strings.ToLower(scheme)]
	if n, err := strconv.ParseUint(port, 10, 16); !ok || own == "" || hasPort && (err != nil || n == 0) {
		return "", fmt.Errorf("CORS: %q is not an origin", clip(s))
	}
	name, any := strings.CutPrefix(host, "*")
	bare := strings.TrimPrefix(name, ".")
	if name == "" && !any || bare != "" && !hostname(bare) || !any && bare != name {
		return "", fmt.Errorf("CORS: %q is not an origin", clip(s))
	}
	out := "(?i:" + strings.ToLower(scheme) + "://"
	if any {
		out += "[^/:]+"
	}
	out += regexp.QuoteMeta(name)
	switch {
	case !hasPort || port == own:
		out += "(?::" + own + ")?"
	default:
		out += ":" + port
	}
	return out + ")", nil
}

// inPieces joins alternatives into regular expressions that are not too large.
func inPieces(list []string) (out []string) {
	var piece []string
	size := 0
	flush := func() {
		if len(piece) > 0 {
			out = append(out, strings.Join(piece, "|"))
		}
		piece, size = nil, 0
	}
	for _, p := range list {
		if size+len(p) > maxOrigins {
			flush()
		}
		piece = append(piece, p)
		size += len(p)
	}
	flush()
	return out
}

// narrow adds conditions to a match.
func narrow(m *routev3.RouteMatch, and ...*routev3.HeaderMatcher) *routev3.RouteMatch {
	out := proto.Clone(m).(*routev3.RouteMatch)
	out.Headers = append(out.Headers, and...)
	return out
}

func exactHeader(name, value string) *routev3.HeaderMatcher {
	return headerMatcher(name, exactly(value))
}

func presentHeader(name string) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}}
}
