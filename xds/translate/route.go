package translate

import (
	"fmt"
	"net/http"
	"slices"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"google.golang.org/protobuf/proto"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

// Response headers of Options.DebugHeaders.
const (
	// HeaderRoute names the routes that governed a request, in the order in which
	// they did, separated by ", ": RuleName, or PlainRouteName.
	HeaderRoute = "x-causeway-route"
	// HeaderUpstream names the endpoint that answered:
	// "<Backend>; cluster=<cluster>; pod=<pod>; address=<address>". The pod is
	// empty and the address the crossing gateway's where it is behind one.
	HeaderUpstream = "x-causeway-upstream"

	upstreamFormat = "%UPSTREAM_CLUSTER%; cluster=%UPSTREAM_METADATA(causeway:cluster)%; pod=%UPSTREAM_METADATA(causeway:pod)%; address=%UPSTREAM_REMOTE_ADDRESS%"
)

// routeSet gathers what a RouteConfiguration needs besides itself.
type routeSet struct {
	opts     Options
	needs    []unitKey
	problems []Problem
}

func (s *routeSet) fail(subject, format string, a ...any) {
	s.problems = append(s.problems, Problem{Subject: subject, Message: fmt.Sprintf(format, a...)})
}

func routeConfiguration(name string, hosts []*routev3.VirtualHost) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{
		Name:         name,
		VirtualHosts: hosts,
		// A listener is told by its port already; Host may repeat it or not.
		IgnorePortInHostMatching: true,
		// A share that is invalid names a cluster that there is not.
		ValidateClusters: no(),
	}
}

// virtualHost translates a table. A request that no rule matches gets 404 from
// Envoy, since there is no other route (GEP-1294, route presence); a gRPC client
// sees UNIMPLEMENTED.
func (s *routeSet) virtualHost(name string, domains []string, table *resolve.RouteTable, exactHost string) *routev3.VirtualHost {
	out := &routev3.VirtualHost{Name: name, Domains: domains, RetryPolicy: retryPolicy()}
	for _, rule := range table.Rules {
		out.Routes = append(out.Routes, s.routes(rule, exactHost)...)
	}
	return out
}

// plainHost delivers everything to one backend.
func (s *routeSet) plainHost(name string, key resolve.FrontendKey, backend resolve.BackendKey) *routev3.VirtualHost {
	s.needs = append(s.needs, backendUnit(backend))
	r := &routev3.Route{
		Name:  PlainRouteName(key),
		Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: ""}},
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier:            &routev3.RouteAction_Cluster{Cluster: backend.String()},
			ClusterNotFoundResponseCode: routev3.RouteAction_INTERNAL_SERVER_ERROR,
			Timeout:                     dur(0),
		}},
	}
	if s.opts.DebugHeaders {
		r.ResponseHeadersToAdd = []*corev3.HeaderValueOption{setHeader(HeaderRoute, literal(r.Name)), setHeader(HeaderUpstream, upstreamFormat)}
	}
	return &routev3.VirtualHost{Name: name, Domains: []string{"*"}, RetryPolicy: retryPolicy(), Routes: []*routev3.Route{r}}
}

// routes translates a rule: one Envoy route for each of its legs, with those that
// answer CORS preflights before it. None if its match can't be translated.
func (s *routeSet) routes(rule *resolve.Rule, exactHost string) []*routev3.Route {
	where := fmt.Sprintf("rules[%d].matches[%d]", rule.RuleIndex, rule.MatchIndex)
	match, err := routeMatch(&rule.Match)
	if err != nil {
		s.fail(rule.Route.String(), "%s is left out: %v", where, err)
		return nil
	}
	var out []*routev3.Route
	for _, l := range legs(rule) {
		out = append(out, s.leg(rule, l, l.within(match, rule), where, exactHost)...)
	}
	return out
}

// leg translates a leg. What is wrong must stay within it: Envoy refuses a
// RouteConfiguration whole.
func (s *routeSet) leg(rule *resolve.Rule, l *leg, match *routev3.RouteMatch, where, exactHost string) []*routev3.Route {
	subject := rule.Route.String()
	main := &routev3.Route{Name: valid(RuleName(rule)), Match: match}
	before := len(s.needs)
	list, err := s.act(main, rule, l, exactHost)
	if err != nil {
		s.fail(subject, "%s answers %d: %v", where, rule.Route.FailureStatus(), err)
		s.needs = s.needs[:before]
		s.refuse(main, rule)
		list = []*routev3.Route{main}
	}
	for _, r := range list {
		err := r.ValidateAll()
		if err == nil {
			_, err = proto.Marshal(r) // what is not UTF-8
		}
		if err != nil {
			s.fail(subject, "%s is left out: %v", where, err)
			s.needs = s.needs[:before]
			return nil
		}
	}
	return list
}

func (s *routeSet) refuse(out *routev3.Route, rule *resolve.Rule) {
	name, match := out.Name, out.Match
	out.Reset()
	out.Name, out.Match = name, match
	out.Action = &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: uint32(rule.Route.FailureStatus())}}
	s.debug(out)
}

func (s *routeSet) debug(out *routev3.Route) {
	if s.opts.DebugHeaders {
		out.ResponseHeadersToAdd = append(out.ResponseHeadersToAdd, setHeader(HeaderRoute, literal(out.Name)))
	}
}

// act says what the route of a leg does, and gives it after the routes that must
// come before it.
func (s *routeSet) act(out *routev3.Route, rule *resolve.Rule, l *leg, exactHost string) ([]*routev3.Route, error) {
	if l.refuse {
		s.refuse(out, rule)
		return []*routev3.Route{out}, nil
	}
	change, err := headerMods(l.filters)
	if err != nil {
		return nil, err
	}
	var run []*corev3.TypedExtensionConfig
	if a := l.filters.Auth; a != nil {
		f, err := s.authorize(a)
		if err != nil {
			return nil, err
		}
		run = append(run, f)
	}
	if l.redirect != nil {
		r, err := redirectAction(&rule.Match, l.redirect, exactHost)
		if err != nil {
			return nil, err
		}
		out.Action = &routev3.Route_Redirect{Redirect: r}
		change.putOn(out)
		s.debug(out)
	} else {
		if err := s.forward(out, rule, l, change); err != nil {
			return nil, err
		}
		if rule.Session != nil {
			f, err := persist(out, rule, l)
			if err != nil {
				return nil, err
			}
			// Before the authorization: a filter that waits is the last to run.
			run = append([]*corev3.TypedExtensionConfig{f}, run...)
		}
	}
	runFilters(out, run)
	if l.filters.CORS == nil {
		return []*routev3.Route{out}, nil
	}
	before, err := s.cors(out, rule, l.filters.CORS)
	return append(before, out), err
}

// forward sends the requests of a leg to its shares.
func (s *routeSet) forward(out *routev3.Route, rule *resolve.Rule, l *leg, change headerChanges) (err error) {
	action := &routev3.RouteAction{
		ClusterNotFoundResponseCode: routev3.RouteAction_INTERNAL_SERVER_ERROR,
		Timeout:                     dur(max(rule.RequestTimeout, 0)),
	}
	if rule.Route.FailureStatus() == http.StatusServiceUnavailable {
		action.ClusterNotFoundResponseCode = routev3.RouteAction_SERVICE_UNAVAILABLE
	}
	if w := l.filters.Rewrite; w != nil {
		c, err := changePath(&rule.Match, w.FullPath, w.PrefixPath)
		if err != nil {
			return err
		}
		action.PrefixRewrite, action.RegexRewrite = c.prefix, c.regex
	}
	for _, m := range l.filters.Mirrors {
		if p := mirrorPolicy(m, l.alone); p != nil {
			p.Cluster = s.clusterOf(m.Backend)
			action.RequestMirrorPolicies = append(action.RequestMirrorPolicies, p)
		}
	}
	if len(l.shares) == 1 {
		err = s.single(out, action, change, l.shares[0])
	} else {
		err = s.weighted(out, action, change, l)
	}
	if err != nil {
		return err
	}
	if rule.Session == nil && l.chained() {
		// The second hop tells, and would believe, whose session it is.
		out.RequestHeadersToRemove = append(out.RequestHeadersToRemove, headerPin)
		out.ResponseHeadersToRemove = append(out.ResponseHeadersToRemove, headerPin)
	}
	chained := !slices.ContainsFunc(l.shares, func(b *resolve.WeightedBackend) bool { return b.Chain == nil || b.Invalid != "" })
	action.RetryPolicy = tries(rule, chained)
	out.Action = &routev3.Route_Route{Route: action}
	return nil
}

// single sends all requests to one backend: everything stands on the route.
func (s *routeSet) single(out *routev3.Route, action *routev3.RouteAction, change headerChanges, b *resolve.WeightedBackend) error {
	own, err := headerMods(b.Filters)
	if err != nil {
		return err
	}
	change = change.then(own)
	if change.host != "" {
		action.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: change.host}
	}
	change.response.add = append(change.response.add, s.debugBackend(out.Name, b)...)
	change.putOn(out)
	action.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: s.shareCluster(b)}
	return nil
}

// weighted splits requests. Envoy applies what stands on a share before what
// stands on its route, but a rule's filters come first: they are repeated on each
// share, unless no share has filters of its own.
func (s *routeSet) weighted(out *routev3.Route, action *routev3.RouteAction, change headerChanges, l *leg) error {
	list := &routev3.WeightedCluster{}
	repeat := slices.ContainsFunc(l.shares, func(b *resolve.WeightedBackend) bool {
		return !b.Filters.Request.Empty() || !b.Filters.Response.Empty() || b.Filters.Rewrite != nil
	})
	if !repeat {
		change.putOn(out)
	}
	if change.host != "" {
		action.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: change.host}
	}
	for _, b := range l.shares {
		w := &routev3.WeightedCluster_ClusterWeight{Name: s.shareCluster(b), Weight: u32(scale(b.Weight, l.sum))}
		var own headerChanges
		if repeat {
			mine, err := headerMods(b.Filters)
			if err != nil {
				return err
			}
			if mine.host != "" {
				w.HostRewriteSpecifier = &routev3.WeightedCluster_ClusterWeight_HostRewriteLiteral{HostRewriteLiteral: mine.host}
			}
			own = change.then(mine)
		}
		own.response.add = append(own.response.add, s.debugBackend(out.Name, b)...)
		w.RequestHeadersToAdd, w.RequestHeadersToRemove = own.request.add, own.request.remove
		w.ResponseHeadersToAdd, w.ResponseHeadersToRemove = own.response.add, own.response.remove
		list.Clusters = append(list.Clusters, w)
	}
	action.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: list}
	return nil
}

// debugBackend are the debug headers of responses that come by a backend. Behind
// a chain the second hop has said which routes governed and who answered.
func (s *routeSet) debugBackend(route string, b *resolve.WeightedBackend) []*corev3.HeaderValueOption {
	switch {
	case !s.opts.DebugHeaders:
		return nil
	case b.Invalid != "":
		return []*corev3.HeaderValueOption{setHeader(HeaderRoute, literal(route))}
	case b.Chain != nil:
		return []*corev3.HeaderValueOption{setHeader(HeaderRoute, literal(route)+", %RESP("+HeaderRoute+")%")}
	}
	return []*corev3.HeaderValueOption{setHeader(HeaderRoute, literal(route)), setHeader(HeaderUpstream, upstreamFormat)}
}

// shareCluster names the cluster of a share.
func (s *routeSet) shareCluster(b *resolve.WeightedBackend) string {
	switch {
	case b.Invalid != "":
		return nameNoCluster
	case b.Chain != nil && utf8.ValidString(b.Chain.String()):
		s.needs = append(s.needs, chainUnit(b))
		return ChainName(*b.Chain, b.Backend.Port, b.ChainRaw)
	}
	return s.clusterOf(b.Backend)
}

// clusterOf names the cluster of a backend.
func (s *routeSet) clusterOf(b resolve.BackendKey) string {
	if !utf8.ValidString(b.String()) {
		return nameNoCluster
	}
	s.needs = append(s.needs, backendUnit(b))
	return b.String()
}
