package resolve

import (
	"fmt"
	"net/http"
	"regexp/syntax"
	"sort"
	"strings"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
)

// via is how requests reach a route's rules: what the same route means depends
// on it.
type via struct {
	gateway bool  // else mesh
	chain   bool  // gateways: backends' producer routes apply
	port    int32 // of the listener or frontend, for redirects; 0 where only the report counts
}

// problem is a reason of the standard with its message.
type problem struct{ reason, message string }

// compiled is a route's rules, one for each match, with what is wrong with it.
type compiled struct {
	rules []*Rule
	// unaccepted, if not nil, is why the route is not Accepted; the rules
	// concerned are Invalid.
	unaccepted *problem
	// unresolved, if not nil, is why ResolvedRefs is False.
	unresolved *problem
}

func (c *compiled) refuse(reason gatewayv1.RouteConditionReason, format string, a ...any) string {
	msg := fmt.Sprintf(format, a...)
	if c.unaccepted == nil {
		c.unaccepted = &problem{reason: string(reason)}
	}
	if c.unaccepted.reason == string(reason) {
		c.unaccepted.message = joinMessage(c.unaccepted.message, msg)
	}
	return msg
}

func (c *compiled) unresolve(p problem) {
	if c.unresolved == nil {
		c.unresolved = &problem{reason: p.reason}
	}
	if c.unresolved.reason == p.reason {
		c.unresolved.message = joinMessage(c.unresolved.message, p.message)
	}
}

func joinMessage(have, add string) string {
	switch {
	case have == "":
		return add
	case strings.Contains(have, add) || len(have) > 2048:
		return have
	}
	return have + "; " + add
}

// compile turns a route into rules for one way of reaching it.
func (r *reader) compile(o *cluster.Object, v via) compiled {
	var c compiled
	route, ok := o.Value.(*gatewayv1.HTTPRoute)
	if !ok {
		c.refuse(gatewayv1.RouteReasonUnsupportedValue, "routes of kind %s are not supported yet", o.Kind)
		return c
	}
	rules := route.Spec.Rules
	if len(rules) == 0 {
		rules = []gatewayv1.HTTPRouteRule{{}}
	}
	id := RouteID{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name, Cluster: o.Cluster}
	for i := range rules {
		r.compileRule(&c, o, id, i, &rules[i], v)
	}
	return c
}

func (r *reader) compileRule(c *compiled, o *cluster.Object, id RouteID, index int, in *gatewayv1.HTTPRouteRule, v via) {
	base := Rule{Route: id, RuleIndex: index, RuleName: string(deref(in.Name, ""))}
	where := fmt.Sprintf("rules[%d]", index)
	fail := func(reason gatewayv1.RouteConditionReason, format string, a ...any) {
		msg := c.refuse(reason, "%s: %s", where, fmt.Sprintf(format, a...))
		if base.Invalid == "" {
			base.Invalid = msg
		}
	}
	if in.Retry != nil {
		fail(gatewayv1.RouteReasonUnsupportedValue, "retry is not supported yet")
	}
	if in.SessionPersistence != nil {
		fail(gatewayv1.RouteReasonUnsupportedValue, "sessionPersistence is not supported yet")
	}
	compileTimeouts(&base, in.Timeouts, fail)
	matches, onlyPrefix := compileMatches(in.Matches, fail)
	base.Filters, base.Redirect = compileFilters(in.Filters, filterPlace{rule: true, onlyPrefix: onlyPrefix, port: v.port}, fail)
	base.Backends = r.compileBackends(c, o, where, in.BackendRefs, v)
	switch {
	case base.Redirect != nil && len(base.Backends) > 0:
		fail(gatewayv1.RouteReasonIncompatibleFilters, "a RequestRedirect answers by itself: remove the backendRefs")
		base.Backends = nil
	case base.Invalid != "" || base.Redirect != nil:
	case len(base.Backends) == 0:
		base.Invalid = "the rule has no backends"
	default:
		base.Invalid = "all weights are zero"
		for _, b := range base.Backends {
			if b.Weight > 0 {
				base.Invalid = ""
			}
		}
	}
	for j, m := range matches {
		if m == nil {
			continue
		}
		rule := base
		rule.MatchIndex, rule.Match = j, *m
		c.rules = append(c.rules, &rule)
	}
}

type failFunc func(reason gatewayv1.RouteConditionReason, format string, a ...any)

func compileTimeouts(rule *Rule, in *gatewayv1.HTTPRouteTimeouts, fail failFunc) {
	if in == nil {
		return
	}
	parse := func(name string, d *gatewayv1.Duration) time.Duration {
		if d == nil {
			return 0
		}
		v, err := time.ParseDuration(string(*d))
		if err != nil || v < 0 {
			fail(gatewayv1.RouteReasonUnsupportedValue, "timeouts.%s: %q is not a duration such as 500ms or 10s", name, clip(string(*d)))
			return 0
		}
		return v
	}
	rule.RequestTimeout = parse("request", in.Request)
	rule.BackendTimeout = parse("backendRequest", in.BackendRequest)
	if rule.RequestTimeout > 0 && rule.BackendTimeout > rule.RequestTimeout {
		fail(gatewayv1.RouteReasonUnsupportedValue, "timeouts.backendRequest must not be longer than timeouts.request")
	}
}

// compileMatches gives one Match for each of the rule's, nil where a match can't
// be expressed: leaving it out is the only way not to match more than was asked.
func compileMatches(in []gatewayv1.HTTPRouteMatch, fail failFunc) (out []*Match, onlyPrefix bool) {
	onlyPrefix = true
	if len(in) == 0 {
		return []*Match{{PathType: PathPrefix, Path: "/"}}, true
	}
	for i := range in {
		m, err := compileMatch(&in[i])
		if err != nil {
			fail(gatewayv1.RouteReasonUnsupportedValue, "matches[%d] is left out: %v", i, err)
		} else if m.PathType != PathPrefix {
			onlyPrefix = false
		}
		out = append(out, m)
	}
	return out, onlyPrefix
}

func compileMatch(in *gatewayv1.HTTPRouteMatch) (*Match, error) {
	m := &Match{PathType: PathPrefix, Path: "/"}
	if in.Path != nil {
		m.PathType = PathType(deref(in.Path.Type, gatewayv1.PathMatchPathPrefix))
		m.Path = deref(in.Path.Value, "/")
	}
	switch m.PathType {
	case PathExact:
	case PathPrefix:
		// "/a" and "/a/" are the same prefix: it is compared by path elements.
		if m.Path = strings.TrimRight(m.Path, "/"); m.Path == "" {
			m.Path = "/"
		}
	case PathRegex:
		if err := checkRegex(m.Path); err != nil {
			return nil, fmt.Errorf("path: %w", err)
		}
	default:
		return nil, fmt.Errorf("path type %q is unknown", clip(string(m.PathType)))
	}
	if m.PathType != PathRegex && !strings.HasPrefix(m.Path, "/") {
		return nil, fmt.Errorf("path %q does not begin with '/'", clip(m.Path))
	}
	m.Method = string(deref(in.Method, ""))
	for _, h := range in.Headers {
		v, err := valueMatch(strings.ToLower(string(h.Name)), string(deref(h.Type, gatewayv1.HeaderMatchExact)), h.Value)
		if err != nil {
			return nil, fmt.Errorf("header %q: %w", clip(string(h.Name)), err)
		}
		m.Headers = addMatch(m.Headers, v)
	}
	for _, q := range in.QueryParams {
		v, err := valueMatch(string(q.Name), string(deref(q.Type, gatewayv1.QueryParamMatchExact)), q.Value)
		if err != nil {
			return nil, fmt.Errorf("query parameter %q: %w", clip(string(q.Name)), err)
		}
		m.Query = addMatch(m.Query, v)
	}
	return m, nil
}

// addMatch keeps the first of several entries of one name, as Gateway API says,
// and the list sorted by name.
func addMatch(list []ValueMatch, v ValueMatch) []ValueMatch {
	i := sort.Search(len(list), func(i int) bool { return list[i].Name >= v.Name })
	if i < len(list) && list[i].Name == v.Name {
		return list
	}
	list = append(list, ValueMatch{})
	copy(list[i+1:], list[i:])
	list[i] = v
	return list
}

func valueMatch(name, typ, value string) (ValueMatch, error) {
	v := ValueMatch{Name: name, Value: value}
	switch typ {
	case string(gatewayv1.HeaderMatchExact):
		return v, nil
	case string(gatewayv1.HeaderMatchRegularExpression):
		v.Regex = true
		return v, checkRegex(value)
	}
	return v, fmt.Errorf("match type %q is unknown", clip(typ))
}

// Bounds of a regular expression: its length (Gateway API's own for paths) and
// its size once compiled, since one may be short and huge.
const (
	maxRegex        = 1024
	maxRegexProgram = 1000
)

// checkRegex accepts what both Go and Envoy read as RE2, within bounds.
func checkRegex(s string) error {
	if s == "" || len(s) > maxRegex {
		return fmt.Errorf("the regular expression %q is not of 1 to %d bytes", clip(s), maxRegex)
	}
	parsed, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		return fmt.Errorf("%q is not a regular expression in RE2 syntax", clip(s))
	}
	if prog, err := syntax.Compile(parsed.Simplify()); err != nil || len(prog.Inst) > maxRegexProgram {
		return fmt.Errorf("the regular expression %q is too large once compiled", clip(s))
	}
	return nil
}

// filterPlace is where filters stand, which decides what they may be.
type filterPlace struct {
	rule       bool // else on a backendRef
	onlyPrefix bool // all matches of the rule are prefixes
	port       int32
}

func compileFilters(in []gatewayv1.HTTPRouteFilter, at filterPlace, fail failFunc) (Filters, *Redirect) {
	var f Filters
	var redirect *Redirect
	seen := map[gatewayv1.HTTPRouteFilterType]bool{}
	for _, x := range in {
		if seen[x.Type] {
			fail(gatewayv1.RouteReasonIncompatibleFilters, "filter %s is there twice", clip(string(x.Type)))
			continue
		}
		seen[x.Type] = true
		switch {
		case x.Type == gatewayv1.HTTPRouteFilterRequestHeaderModifier && x.RequestHeaderModifier != nil:
			f.Request = headerMods(x.RequestHeaderModifier)
		case x.Type == gatewayv1.HTTPRouteFilterResponseHeaderModifier && x.ResponseHeaderModifier != nil:
			f.Response = headerMods(x.ResponseHeaderModifier)
		case at.rule && x.Type == gatewayv1.HTTPRouteFilterURLRewrite && x.URLRewrite != nil:
			f.Rewrite = compileRewrite(x.URLRewrite, at, fail)
		case at.rule && x.Type == gatewayv1.HTTPRouteFilterRequestRedirect && x.RequestRedirect != nil:
			redirect = compileRedirect(x.RequestRedirect, at, fail)
		case at.rule:
			fail(gatewayv1.RouteReasonUnsupportedValue, "filter %s is not supported", clip(string(x.Type)))
		default:
			fail(gatewayv1.RouteReasonUnsupportedValue, "filter %s is not supported on a backendRef", clip(string(x.Type)))
		}
	}
	if redirect != nil && f.Rewrite != nil {
		fail(gatewayv1.RouteReasonIncompatibleFilters, "RequestRedirect and URLRewrite exclude each other")
	}
	return f, redirect
}

func headerMods(in *gatewayv1.HTTPHeaderFilter) HeaderMods {
	var m HeaderMods
	list := func(hs []gatewayv1.HTTPHeader) []Header {
		var out []Header
		seen := map[string]bool{}
		for _, h := range hs {
			n := strings.ToLower(string(h.Name))
			if !seen[n] { // the first of several of one name counts
				seen[n] = true
				out = append(out, Header{Name: n, Value: h.Value})
			}
		}
		sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
		return out
	}
	m.Set, m.Add = list(in.Set), list(in.Add)
	for _, n := range in.Remove {
		m.Remove = append(m.Remove, strings.ToLower(n))
	}
	sort.Strings(m.Remove)
	return m
}

func compilePath(in *gatewayv1.HTTPPathModifier, at filterPlace, fail failFunc) (full, prefix *string) {
	if in == nil {
		return nil, nil
	}
	switch {
	case in.Type == gatewayv1.FullPathHTTPPathModifier && in.ReplaceFullPath != nil:
		return in.ReplaceFullPath, nil
	case in.Type == gatewayv1.PrefixMatchHTTPPathModifier && in.ReplacePrefixMatch != nil:
		if !at.onlyPrefix {
			fail(gatewayv1.RouteReasonUnsupportedValue, "ReplacePrefixMatch needs matches of type PathPrefix")
		}
		return nil, in.ReplacePrefixMatch
	}
	fail(gatewayv1.RouteReasonUnsupportedValue, "path modifier %q is unknown or lacks its value", clip(string(in.Type)))
	return nil, nil
}

func compileRewrite(in *gatewayv1.HTTPURLRewriteFilter, at filterPlace, fail failFunc) *Rewrite {
	w := &Rewrite{Hostname: string(deref(in.Hostname, ""))}
	w.FullPath, w.PrefixPath = compilePath(in.Path, at, fail)
	return w
}

func compileRedirect(in *gatewayv1.HTTPRequestRedirectFilter, at filterPlace, fail failFunc) *Redirect {
	d := &Redirect{Scheme: deref(in.Scheme, ""), Hostname: string(deref(in.Hostname, "")), StatusCode: deref(in.StatusCode, http.StatusFound)}
	d.FullPath, d.PrefixPath = compilePath(in.Path, at, fail)
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
		scheme = "http" // the only protocol of listeners and frontends so far
	}
	switch {
	case in.Port != nil:
		d.Port = *in.Port
	case d.Scheme == "http":
		d.Port = 80
	case d.Scheme == "https":
		d.Port = 443
	default:
		d.Port = at.port
	}
	if (scheme == "http" && d.Port == 80) || (scheme == "https" && d.Port == 443) {
		d.Port = 0
	}
	return d
}
