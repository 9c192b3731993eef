package resolve

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
)

// filterPlace is where filters stand, which decides what they may be and mean.
type filterPlace struct {
	where      string // for messages: "rules[0]" or "rules[0].backendRefs[1]"
	onlyPrefix bool   // all matches of the rule are prefixes
	via        via
}

// filtered is what a list of filters comes to.
type filtered struct {
	Filters
	redirect *Redirect
	// unresolved, if not empty, says which filter refers to something that can't
	// be used: the requests that it is for get 500 instead of passing without it.
	unresolved string
}

// grpcFilterTypes are those that GRPCRoutes have.
var grpcFilterTypes = []gatewayv1.HTTPRouteFilterType{gatewayv1.HTTPRouteFilterRequestHeaderModifier, gatewayv1.HTTPRouteFilterResponseHeaderModifier, gatewayv1.HTTPRouteFilterRequestMirror, gatewayv1.HTTPRouteFilterExtensionRef}

// compileFilters reads the filters of a rule or of a backendRef. Values that
// can't be served go to fail; references that can't be followed to c.
func (r *reader) compileFilters(c *compiled, o *cluster.Object, in []gatewayv1.HTTPRouteFilter, at filterPlace, fail failFunc) filtered {
	var out filtered
	unresolve := func(p problem) {
		c.unresolve(p)
		if out.unresolved == "" {
			out.unresolved = p.message
		}
	}
	seen := map[gatewayv1.HTTPRouteFilterType]bool{}
	for i := range in {
		x := &in[i]
		if repeats := x.Type == gatewayv1.HTTPRouteFilterRequestMirror || x.Type == gatewayv1.HTTPRouteFilterExtensionRef; seen[x.Type] && !repeats {
			fail(gatewayv1.RouteReasonIncompatibleFilters, "filter %s is there twice", clip(string(x.Type)))
			continue
		}
		seen[x.Type] = true
		here := fmt.Sprintf("%s.filters[%d]", at.where, i)
		switch {
		case o.Kind == cluster.KindGRPCRoute && !slices.Contains(grpcFilterTypes, x.Type):
			fail(gatewayv1.RouteReasonUnsupportedValue, "filter %s is unknown", clip(string(x.Type)))
		case x.Type == gatewayv1.HTTPRouteFilterRequestHeaderModifier && x.RequestHeaderModifier != nil:
			out.Request = headerMods(x.RequestHeaderModifier, "RequestHeaderModifier", fail)
		case x.Type == gatewayv1.HTTPRouteFilterResponseHeaderModifier && x.ResponseHeaderModifier != nil:
			out.Response = headerMods(x.ResponseHeaderModifier, "ResponseHeaderModifier", fail)
		case x.Type == gatewayv1.HTTPRouteFilterURLRewrite && x.URLRewrite != nil:
			out.Rewrite = compileRewrite(x.URLRewrite, at, fail)
		case x.Type == gatewayv1.HTTPRouteFilterRequestRedirect && x.RequestRedirect != nil:
			out.redirect = compileRedirect(x.RequestRedirect, at, fail)
		case x.Type == gatewayv1.HTTPRouteFilterRequestMirror && x.RequestMirror != nil:
			if m := r.compileMirror(c, o, x.RequestMirror, here, at.via, fail); m != nil {
				out.Mirrors = append(out.Mirrors, *m)
			}
		case x.Type == gatewayv1.HTTPRouteFilterCORS && x.CORS != nil:
			out.CORS = compileCORS(x.CORS, fail)
		case x.Type == gatewayv1.HTTPRouteFilterExternalAuth && x.ExternalAuth != nil:
			a, p := r.compileAuth(o, x.ExternalAuth, here, at.via, fail)
			if out.Auth = a; p != nil {
				unresolve(*p)
			}
		case x.Type == gatewayv1.HTTPRouteFilterExtensionRef && x.ExtensionRef != nil:
			unresolve(problem{string(gatewayv1.RouteReasonInvalidKind), fmt.Sprintf("%s: no filter of kind %s is known", here, clip(string(x.ExtensionRef.Group)+"/"+string(x.ExtensionRef.Kind)))})
		case slices.Contains(filterTypes, x.Type):
			fail(gatewayv1.RouteReasonUnsupportedValue, "filter %s says nothing", x.Type)
		default:
			fail(gatewayv1.RouteReasonUnsupportedValue, "filter %s is unknown", clip(string(x.Type)))
		}
	}
	if out.redirect != nil {
		if out.Rewrite != nil {
			fail(gatewayv1.RouteReasonIncompatibleFilters, "RequestRedirect and URLRewrite exclude each other")
		}
		if len(out.Mirrors) > 0 {
			fail(gatewayv1.RouteReasonIncompatibleFilters, "RequestRedirect and RequestMirror exclude each other: what is redirected is not forwarded")
		}
	}
	return out
}

var filterTypes = append([]gatewayv1.HTTPRouteFilterType{gatewayv1.HTTPRouteFilterURLRewrite, gatewayv1.HTTPRouteFilterRequestRedirect, gatewayv1.HTTPRouteFilterCORS, gatewayv1.HTTPRouteFilterExternalAuth}, grpcFilterTypes...)

// headerMods reads a header modifier. Of several entries of one name in one list
// the first counts (HTTPHeader.name); more than one action for a name is invalid
// (HTTPHeaderFilter).
func headerMods(in *gatewayv1.HTTPHeaderFilter, filter string, fail failFunc) HeaderMods {
	var m HeaderMods
	action := map[string]string{}
	// once tells whether a name is to be taken: it is good and new to all lists.
	once := func(name, verb string) bool {
		switch prev, twice := action[name]; {
		case !IsToken(name):
			fail(gatewayv1.RouteReasonUnsupportedValue, "%s: %q can't be the name of a header", filter, clip(name))
		case twice && prev != verb:
			fail(gatewayv1.RouteReasonUnsupportedValue, "%s: header %s is both to be %s and to be %s", filter, clip(name), prev, verb)
		case !twice:
			action[name] = verb
			return true
		}
		return false
	}
	list := func(hs []gatewayv1.HTTPHeader, verb string) []Header {
		var out []Header
		for _, h := range hs {
			n := strings.ToLower(string(h.Name))
			if !once(n, verb) {
				continue
			}
			if !IsFieldValue(h.Value) {
				fail(gatewayv1.RouteReasonUnsupportedValue, "%s: %q can't be the value of header %s", filter, clip(h.Value), clip(n))
				continue
			}
			out = append(out, Header{Name: n, Value: h.Value})
		}
		sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
		return out
	}
	m.Set, m.Add = list(in.Set, "set"), list(in.Add, "added")
	for _, n := range in.Remove {
		if n = strings.ToLower(n); once(n, "removed") {
			m.Remove = append(m.Remove, n)
		}
	}
	sort.Strings(m.Remove)
	if filter == "RequestHeaderModifier" {
		checkHost(m, fail)
	}
	return m
}

// checkHost judges what becomes of a request's Host: it can become another name.
func checkHost(m HeaderMods, fail failFunc) {
	const host = "host"
	for _, h := range append(slices.Clone(m.Set), m.Add...) {
		if h.Name == host && !isHostname(h.Value) {
			fail(gatewayv1.RouteReasonUnsupportedValue, "RequestHeaderModifier: Host can't become %q: it takes a hostname without a port", clip(h.Value))
		}
	}
	if slices.Contains(m.Remove, host) {
		fail(gatewayv1.RouteReasonUnsupportedValue, "RequestHeaderModifier: requests need their Host header, it can't be removed")
	}
}

// isHostname judges what takes the place of a request's host (PreciseHostname).
func isHostname(s string) bool {
	return len(validation.IsDNS1123Subdomain(strings.ToLower(s))) == 0
}

func compilePath(in *gatewayv1.HTTPPathModifier, at filterPlace, fail failFunc) (full, prefix *string) {
	if in == nil {
		return nil, nil
	}
	check := func(s, also string) {
		bad := func(c rune) bool { return c <= ' ' || c >= 0x7f || strings.ContainsRune(also, c) }
		switch {
		case len(s) > maxPath || strings.ContainsFunc(s, bad):
			fail(gatewayv1.RouteReasonUnsupportedValue, "%s: %q is not a path", in.Type, clip(s))
		case s != "" && !strings.HasPrefix(s, "/"):
			fail(gatewayv1.RouteReasonUnsupportedValue, "%s: path %q does not begin with '/'", in.Type, clip(s))
		}
	}
	switch {
	case in.Type == gatewayv1.FullPathHTTPPathModifier && in.ReplaceFullPath != nil:
		check(*in.ReplaceFullPath, "#")
		return in.ReplaceFullPath, nil
	case in.Type == gatewayv1.PrefixMatchHTTPPathModifier && in.ReplacePrefixMatch != nil:
		if !at.onlyPrefix {
			fail(gatewayv1.RouteReasonUnsupportedValue, "ReplacePrefixMatch needs matches of type PathPrefix")
		}
		check(*in.ReplacePrefixMatch, "?#")
		return nil, in.ReplacePrefixMatch
	}
	fail(gatewayv1.RouteReasonUnsupportedValue, "path modifier %q is unknown or lacks its value", clip(string(in.Type)))
	return nil, nil
}

func compileRewrite(in *gatewayv1.HTTPURLRewriteFilter, at filterPlace, fail failFunc) *Rewrite {
	w := &Rewrite{Hostname: string(deref(in.Hostname, ""))}
	if in.Hostname != nil && !isHostname(w.Hostname) {
		fail(gatewayv1.RouteReasonUnsupportedValue, "URLRewrite: %q is not a hostname", clip(w.Hostname))
	}
	w.FullPath, w.PrefixPath = compilePath(in.Path, at, fail)
	return w
}

func compileRedirect(in *gatewayv1.HTTPRequestRedirectFilter, at filterPlace, fail failFunc) *Redirect {
	d := &Redirect{Scheme: deref(in.Scheme, ""), Hostname: string(deref(in.Hostname, "")), StatusCode: deref(in.StatusCode, http.StatusFound)}
	d.FullPath, d.PrefixPath = compilePath(in.Path, at, fail)
	if in.Hostname != nil && !isHostname(d.Hostname) {
		fail(gatewayv1.RouteReasonUnsupportedValue, "redirect: %q is not a hostname", clip(d.Hostname))
	}
	switch d.Scheme {
	case "", "http", "https":
	default:
		fail(gatewayv1.RouteReasonUnsupportedValue, "redirect scheme %q is unknown", clip(d.Scheme))
	}
	switch d.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		fail(gatewayv1.RouteReasonUnsupportedValue, "redirect status code %d is not supported", d.StatusCode)
	}
	// Without a port, a scheme brings its own; without both, it is the port
	// that was called.
	scheme := d.Scheme
	if scheme == "" {
		scheme = "http"
		if at.via.https {
			scheme = "https"
		}
	}
	switch {
	case in.Port != nil:
		if d.Port = *in.Port; d.Port < 1 || d.Port > 65535 {
			fail(gatewayv1.RouteReasonUnsupportedValue, "redirect port %d is none", d.Port)
			d.Port = 0
		}
	case d.Scheme == "http":
		d.Port = 80
	case d.Scheme == "https":
		d.Port = 443
	default:
		d.Port = at.via.port // of a parent that an API server has not checked, it may be none
		if d.Port < 1 || d.Port > 65535 {
			d.Port = 0
		}
	}
	if (scheme == "http" && d.Port == 80) || (scheme == "https" && d.Port == 443) {
		d.Port = 0
	}
	return d
}

// circles tells of the rules of a route that redirect what a listener takes to where it
// came from, without end: a redirect to HTTPS, say, on the HTTPS listener too. It may be
// meant, where something before the Gateway changes scheme or port.
func circles(o *cluster.Object, l *listenerView) (notes []string) {
	route, ok := o.Value.(*gatewayv1.HTTPRoute)
	if !ok {
		return nil
	}
	scheme, own := "http", int32(80)
	if l.protocol == gatewayv1.HTTPSProtocolType {
		scheme, own = "https", 443
	}
	for i := range route.Spec.Rules {
		for j := range route.Spec.Rules[i].Filters {
			in := route.Spec.Rules[i].Filters[j].RequestRedirect
			if in == nil || in.Hostname != nil || in.Path != nil {
				continue
			}
			d := compileRedirect(in, filterPlace{via: via{port: l.port, https: scheme == "https"}}, func(gatewayv1.RouteConditionReason, string, ...any) {})
			if port := cmp.Or(d.Port, own); (d.Scheme == "" || d.Scheme == scheme) && port == l.port {
				notes = append(notes, fmt.Sprintf("rules[%d] redirects requests of listener %s to where they came from: name the listener that is meant in the parentRef, or redirect elsewhere", i, l.name))
			}
		}
	}
	return notes
}

// compileMirror reads a mirror. It is nil if it can't be used: the request then
// goes on without being copied (HTTPRequestMirrorFilter.backendRef).
func (r *reader) compileMirror(c *compiled, o *cluster.Object, in *gatewayv1.HTTPRequestMirrorFilter, where string, v via, fail failFunc) *Mirror {
	m := Mirror{Numerator: 100, Denominator: 100}
	switch {
	case in.Percent != nil && in.Fraction != nil:
		fail(gatewayv1.RouteReasonUnsupportedValue, "RequestMirror: percent and fraction exclude each other")
		return nil
	case in.Percent != nil:
		if *in.Percent < 0 || *in.Percent > 100 {
			fail(gatewayv1.RouteReasonUnsupportedValue, "RequestMirror: percent %d is not from 0 to 100", *in.Percent)
			return nil
		}
		m.Numerator = uint32(*in.Percent)
	case in.Fraction != nil:
		n, d := in.Fraction.Numerator, deref(in.Fraction.Denominator, 100)
		if n < 0 || d < 1 || n > d {
			fail(gatewayv1.RouteReasonUnsupportedValue, "RequestMirror: %d/%d is not a fraction from 0 to 1", n, d)
			return nil
		}
		m.Numerator, m.Denominator = uint32(n), uint32(d)
	}
	v.chain = false
	var b WeightedBackend
	if p := r.resolveBackend(o, in.BackendRef, v, &b); p != nil {
		c.unresolve(problem{p.reason, where + " copies nothing: " + p.message})
		return nil
	}
	if m.Numerator == 0 {
		return nil
	}
	m.Backend = b.Backend
	return &m
}
