package translate

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"time"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	prioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"

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
// Envoy, since there is no other route (GEP-1294, route presence).
func (s *routeSet) virtualHost(name string, domains []string, table *resolve.RouteTable, exactHost string) *routev3.VirtualHost {
	out := &routev3.VirtualHost{Name: name, Domains: domains, RetryPolicy: retryPolicy()}
	for _, rule := range table.Rules {
		if r := s.route(rule, exactHost); r != nil {
			out.Routes = append(out.Routes, r)
		}
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

// route translates a rule; nil if its match can't be.
func (s *routeSet) route(rule *resolve.Rule, exactHost string) *routev3.Route {
	subject := rule.Route.String()
	where := fmt.Sprintf("rules[%d].matches[%d]", rule.RuleIndex, rule.MatchIndex)
	match, err := routeMatch(&rule.Match)
	if err != nil {
		s.fail(subject, "%s is left out: %v", where, err)
		return nil
	}
	out := &routev3.Route{Name: valid(RuleName(rule)), Match: match}
	before := len(s.needs)
	if err := s.act(out, rule, exactHost); err != nil {
		s.fail(subject, "%s answers 500: %v", where, err)
		s.needs = s.needs[:before]
		s.answer500(out)
	}
	// What is wrong must stay within this route: Envoy refuses a RouteConfiguration whole.
	if err := out.ValidateAll(); err != nil {
		s.fail(subject, "%s is left out: %v", where, err)
		s.needs = s.needs[:before]
		return nil
	}
	return out
}

func (s *routeSet) answer500(out *routev3.Route) {
	name, match := out.Name, out.Match
	out.Reset()
	out.Name, out.Match = name, match
	out.Action = &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: http.StatusInternalServerError}}
	s.debug(out)
}

func (s *routeSet) debug(out *routev3.Route) {
	if s.opts.DebugHeaders {
		out.ResponseHeadersToAdd = append(out.ResponseHeadersToAdd, setHeader(HeaderRoute, literal(out.Name)))
	}
}

func (s *routeSet) act(out *routev3.Route, rule *resolve.Rule, exactHost string) error {
	if rule.Invalid != "" {
		s.answer500(out)
		return nil
	}
	change, err := headerMods(rule.Filters)
	if err != nil {
		return err
	}
	if rule.Redirect != nil {
		r, err := redirectAction(&rule.Match, rule.Redirect, exactHost)
		if err != nil {
			return err
		}
		out.Action = &routev3.Route_Redirect{Redirect: r}
		change.putOn(out)
		s.debug(out)
		return nil
	}
	action := &routev3.RouteAction{
		ClusterNotFoundResponseCode: routev3.RouteAction_INTERNAL_SERVER_ERROR,
		Timeout:                     dur(max(rule.RequestTimeout, 0)),
	}
	if w := rule.Filters.Rewrite; w != nil {
		if w.Hostname != "" {
			if !hostname(w.Hostname) {
				return fmt.Errorf("%q can't be a hostname", clip(w.Hostname))
			}
			change.host = w.Hostname
		}
		c, err := changePath(&rule.Match, w.FullPath, w.PrefixPath)
		if err != nil {
			return err
		}
		action.PrefixRewrite, action.RegexRewrite = c.prefix, c.regex
	}
	live, sum := liveBackends(rule)
	switch {
	case len(live) == 0:
		s.answer500(out)
		return nil
	case len(live) == 1:
		err = s.single(out, action, change, live[0])
	default:
		err = s.weighted(out, action, change, live, sum)
	}
	if err != nil {
		return err
	}
	chained := !slices.ContainsFunc(live, func(b *resolve.WeightedBackend) bool { return b.Chain == nil || b.Invalid != "" })
	action.RetryPolicy = tries(rule.BackendTimeout, chained)
	out.Action = &routev3.Route_Route{Route: action}
	return nil
}

// liveBackends lists the shares that get requests, with the sum of their weights;
// none if all of them are invalid.
func liveBackends(rule *resolve.Rule) (live []*resolve.WeightedBackend, sum uint64) {
	usable := false
	for i := range rule.Backends {
		if b := &rule.Backends[i]; b.Weight > 0 {
			live = append(live, b)
			sum += uint64(b.Weight)
			usable = usable || b.Invalid == ""
		}
	}
	if !usable {
		return nil, 0
	}
	return live, sum
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
	action.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: s.clusterOf(b)}
	return nil
}

// weighted splits requests. Envoy applies what stands on a share before what
// stands on its route, but a rule's filters come first: they are repeated on each
// share, unless no share has filters of its own.
func (s *routeSet) weighted(out *routev3.Route, action *routev3.RouteAction, change headerChanges, live []*resolve.WeightedBackend, sum uint64) error {
	list := &routev3.WeightedCluster{}
	repeat := slices.ContainsFunc(live, func(b *resolve.WeightedBackend) bool {
		return !b.Filters.Request.Empty() || !b.Filters.Response.Empty()
	})
	if !repeat {
		change.putOn(out)
	}
	if change.host != "" {
		action.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: change.host}
	}
	for _, b := range live {
		w := &routev3.WeightedCluster_ClusterWeight{Name: s.clusterOf(b), Weight: u32(scale(b.Weight, sum))}
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

func (s *routeSet) clusterOf(b *resolve.WeightedBackend) string {
	switch {
	case b.Invalid != "" || !utf8.ValidString(b.Backend.String()):
		return nameNoCluster
	case b.Chain != nil && utf8.ValidString(b.Chain.String()):
		k := chainUnit(*b.Chain, b.Backend.Port)
		s.needs = append(s.needs, k)
		return ChainName(*b.Chain, b.Backend.Port)
	}
	s.needs = append(s.needs, backendUnit(b.Backend))
	return b.Backend.String()
}

// scale keeps the sum of a rule's weights within Envoy's 32 bits.
func scale(weight uint32, sum uint64) uint32 {
	if sum <= math.MaxUint32 {
		return weight
	}
	return uint32(max(1, uint64(weight)*(math.MaxUint32/2)/sum))
}

// retryPolicy repeats what no backend can have seen: connections that failed and
// streams that were refused or reset before the request went out. That is safe
// for every method. The second repetition goes to other clusters, if there are.
func retryPolicy() *routev3.RetryPolicy {
	return &routev3.RetryPolicy{
		RetryOn:    "connect-failure,refused-stream,reset-before-request",
		NumRetries: u32(2),
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name:       "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: pack(&hostsv3.PreviousHostsPredicate{})},
		}},
		RetryPriority: &routev3.RetryPolicy_RetryPriority{
			Name:       "envoy.retry_priorities.previous_priorities",
			ConfigType: &routev3.RetryPolicy_RetryPriority_TypedConfig{TypedConfig: pack(&prioritiesv3.PreviousPrioritiesConfig{UpdateFrequency: 2})},
		},
		HostSelectionRetryMaxAttempts: 3,
		RetryBackOff:                  &routev3.RetryPolicy_RetryBackOff{BaseInterval: dur(10 * time.Millisecond), MaxInterval: dur(100 * time.Millisecond)},
	}
}

// tries is the retry policy of a route, nil for that of its virtual host. The
// first hop of a chain repeats nothing that the second one has seen; but while
// the internal listener is being made, it waits for it.
func tries(perTry time.Duration, chained bool) *routev3.RetryPolicy {
	if perTry <= 0 && !chained {
		return nil
	}
	p := retryPolicy()
	if chained {
		p = &routev3.RetryPolicy{
			RetryOn:      "connect-failure",
			NumRetries:   u32(5),
			RetryBackOff: &routev3.RetryPolicy_RetryBackOff{BaseInterval: dur(25 * time.Millisecond), MaxInterval: dur(250 * time.Millisecond)},
		}
	}
	if perTry > 0 {
		p.PerTryTimeout = dur(perTry)
	}
	return p
}
