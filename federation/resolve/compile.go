package resolve

import (
	"fmt"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
)

// via is how requests reach a route's rules: what the same route means depends
// on it.
type via struct {
	gateway bool  // else mesh
	chain   bool  // gateways: backends' producer routes apply
	port    int32 // of the listener or frontend, for redirects; 0 where only the report counts
	https   bool  // the listener's protocol is HTTPS, for redirects
	tls     bool  // gateways: the listener ended TLS
}

// problem is a reason of the standard with its message.
type problem struct{ reason, message string }

// compiled is a route's rules, one for each match, with what is wrong with it.
type compiled struct {
	rules []*Rule
	total int // rules in the spec, at least 1
	// refused are the rules with a value that can't be served, sorted by index:
	// their requests get an error.
	refused []refusal
	// forward is the one rule of a TCPRoute, TLSRoute or UDPRoute.
	forward *ForwardRule
	// unresolved, if not nil, is why ResolvedRefs is False.
	unresolved *problem
}

// refusal is why a rule of a route can't be served.
type refusal struct {
	rule int
	problem
}

// refuse notes that a rule can't be served. Rules are refused in their order.
func (c *compiled) refuse(rule int, reason gatewayv1.RouteConditionReason, msg string) {
	if n := len(c.refused); n > 0 && c.refused[n-1].rule == rule {
		r := &c.refused[n-1]
		if r.reason == string(reason) {
			r.message = joinMessage(r.message, msg)
		}
		return
	}
	c.refused = append(c.refused, refusal{rule, problem{string(reason), msg}})
}

func (c *compiled) unresolve(p problem) {
	if c.unresolved == nil {
		c.unresolved = &problem{reason: p.reason}
	}
	if c.unresolved.reason == p.reason {
		c.unresolved.message = joinMessage(c.unresolved.message, p.message)
	}
}

// verdict says what the refused rules mean for the route: it is not Accepted if
// none of its rules can be served (refused), and partially invalid if some can't
// (partial). At most one of them is set.
func (c *compiled) verdict() (refused, partial *problem) {
	if len(c.refused) == 0 {
		return nil, nil
	}
	p := problem{reason: c.refused[0].reason}
	var which []string
	for _, r := range c.refused {
		which = append(which, fmt.Sprint(r.rule))
		p.message = joinMessage(p.message, r.message)
	}
	if len(c.refused) >= c.total {
		return &p, nil
	}
	word := "Dropped Rule "
	if len(which) > 1 {
		word = "Dropped Rules "
	}
	// RouteConditionPartiallyInvalid prescribes how the message begins.
	p.message = word + strings.Join(which, ", ") + " (requests that match get an error): " + p.message
	return nil, &p
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

// ruleSpec is a rule of an HTTPRoute or a GRPCRoute in the same words.
type ruleSpec struct {
	name     string
	matches  []matchSpec // at least one
	filters  []gatewayv1.HTTPRouteFilter
	backends []gatewayv1.HTTPBackendRef
	timeouts *gatewayv1.HTTPRouteTimeouts
	retry    *gatewayv1.HTTPRouteRetry
	session  *gatewayv1.SessionPersistence
}

// matchSpec is a match as far as it can be expressed, with what is wrong with it.
// Without a Match, leaving it out is the only way not to match more than was asked.
type matchSpec struct {
	match *Match
	err   error
}

// compile turns an HTTPRoute or GRPCRoute into rules for one way of reaching it.
func (r *reader) compile(o *cluster.Object, v via) compiled {
	var rules []ruleSpec
	switch route := o.Value.(type) {
	case *gatewayv1.HTTPRoute:
		for i := range route.Spec.Rules {
			rules = append(rules, httpRule(&route.Spec.Rules[i]))
		}
		if len(rules) == 0 {
			rules = append(rules, httpRule(&gatewayv1.HTTPRouteRule{}))
		}
	case *gatewayv1.GRPCRoute:
		for i := range route.Spec.Rules {
			rules = append(rules, grpcRule(&route.Spec.Rules[i]))
		}
		if len(rules) == 0 {
			rules = append(rules, grpcRule(&gatewayv1.GRPCRouteRule{}))
		}
	case *gatewayv1.TCPRoute, *gatewayv1.TLSRoute, *gatewayv1.UDPRoute:
		return r.compileForward(o, v)
	default:
		c := compiled{total: 1}
		c.refuse(0, gatewayv1.RouteReasonUnsupportedValue, fmt.Sprintf("%s has no rules for requests", o.Kind))
		return c
	}
	c := compiled{total: len(rules)}
	for i := range rules {
		r.compileRule(&c, o, i, &rules[i], v)
	}
	return c
}

func httpRule(in *gatewayv1.HTTPRouteRule) ruleSpec {
	out := ruleSpec{name: string(deref(in.Name, "")), filters: in.Filters, backends: in.BackendRefs, timeouts: in.Timeouts, retry: in.Retry, session: in.SessionPersistence}
	for i := range in.Matches {
		m, err := compileMatch(&in.Matches[i])
		out.matches = append(out.matches, matchSpec{m, err})
	}
	if len(out.matches) == 0 {
		out.matches = []matchSpec{{match: &Match{PathType: PathPrefix, Path: "/"}}}
	}
	return out
}

// failFunc notes that a rule can't be served.
type failFunc func(reason gatewayv1.RouteConditionReason, format string, a ...any)

func (r *reader) compileRule(c *compiled, o *cluster.Object, index int, in *ruleSpec, v via) {
	base := Rule{
		Route:     RouteID{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name, Cluster: o.Cluster},
		RuleIndex: index, RuleName: in.name,
	}
	where := fmt.Sprintf("rules[%d]", index)
	fail := func(reason gatewayv1.RouteConditionReason, format string, a ...any) {
		msg := where + ": " + fmt.Sprintf(format, a...)
		c.refuse(index, reason, msg)
		if base.Invalid == "" {
			base.Invalid = msg
		}
	}
	onlyPrefix := true
	for i, m := range in.matches {
		switch {
		case m.err != nil && m.match == nil:
			fail(gatewayv1.RouteReasonUnsupportedValue, "matches[%d] is left out: %v", i, m.err)
		case m.err != nil:
			fail(gatewayv1.RouteReasonUnsupportedValue, "matches[%d]: %v", i, m.err)
		}
		if m.match != nil && m.match.PathType != PathPrefix {
			onlyPrefix = false
		}
	}
	compileTimeouts(&base, in.timeouts, fail)
	base.Retry = compileRetry(in.retry, fail)
	base.Session = compileSession(base.Route, index, in.name, in.session, fail)
	place := filterPlace{where: where, onlyPrefix: onlyPrefix, via: v}
	filters := r.compileFilters(c, o, in.filters, place, fail)
	base.Filters, base.Redirect = filters.Filters, filters.redirect
	base.Backends = r.compileBackends(c, o, in.backends, place, fail)
	switch {
	case base.Redirect != nil && len(base.Backends) > 0:
		fail(gatewayv1.RouteReasonIncompatibleFilters, "a RequestRedirect answers by itself: remove the backendRefs")
	case base.Invalid != "":
	case filters.unresolved != "":
		base = Rule{Route: base.Route, RuleIndex: index, RuleName: in.name, Invalid: filters.unresolved}
	case base.Redirect != nil:
	case len(base.Backends) == 0:
		base.Invalid = "the rule has no backends"
	case !slices.ContainsFunc(base.Backends, func(b WeightedBackend) bool { return b.Weight > 0 }):
		base.Invalid = "all weights are zero"
	}
	if n := len(c.refused); n > 0 && c.refused[n-1].rule == index {
		// Nothing that was found wrong goes on to a proxy.
		base = Rule{Route: base.Route, RuleIndex: index, RuleName: in.name, Invalid: base.Invalid}
	}
	for j, m := range in.matches {
		if m.match == nil {
			continue
		}
		rule := base
		rule.MatchIndex, rule.Match = j, *m.match
		c.rules = append(c.rules, &rule)
	}
}
