package resolve

import (
	"slices"
	"sort"

	"github.com/causeway-mesh/causeway/cluster"
)

// ranked is a rule with what its place in a table depends on.
type ranked struct {
	rule  *Rule
	route *cluster.Object
	// host is the specificity of the route's hostname that covers the request;
	// zero in the mesh, where hostnames mean nothing.
	host hostRank
}

// table sorts rules into the order in which they are tried.
func table(rules []ranked) *RouteTable {
	sort.SliceStable(rules, func(i, j int) bool { return before(rules[i], rules[j]) })
	// Without rules the table is equal to one for connections that takes none.
	t := &RouteTable{Rules: slices.Grow([]*Rule(nil), len(rules))}
	for _, r := range rules {
		t.Rules = append(t.Rules, r.rule)
	}
	return t
}

// before is the precedence of Gateway API. HTTPRouteRule.matches: hostname, path,
// method, number of headers, number of query parameters; GRPCRouteRule.matches:
// hostname, service, method, number of headers. Then the senior route, then the
// order within the route. Where routes of both kinds met, which contest and
// governingKind prevent, GRPCRoutes would come first.
func before(a, b ranked) bool {
	if a.host != b.host {
		return a.host.before(b.host)
	}
	x, y := &a.rule.Match, &b.rule.Match
	order := httpBefore
	switch grpc := a.rule.Route.Kind == cluster.KindGRPCRoute; {
	case grpc != (b.rule.Route.Kind == cluster.KindGRPCRoute):
		return grpc
	case grpc:
		order = grpcBefore
	}
	if n := order(x, y); n != 0 {
		return n > 0
	}
	if a.route != b.route {
		return cluster.Older(a.route, b.route)
	}
	if a.rule.RuleIndex != b.rule.RuleIndex {
		return a.rule.RuleIndex < b.rule.RuleIndex
	}
	return a.rule.MatchIndex < b.rule.MatchIndex
}

// httpBefore is positive if x comes first, negative if y does.
func httpBefore(x, y *Match) int {
	if n := pathClass(y) - pathClass(x); n != 0 {
		return n
	}
	if x.PathType == PathPrefix && len(x.Path) != len(y.Path) {
		return len(x.Path) - len(y.Path)
	}
	if (x.Method != "") != (y.Method != "") {
		return len(x.Method) - len(y.Method) // one of them is 0
	}
	if n := len(x.Headers) - len(y.Headers); n != 0 {
		return n
	}
	return len(x.Query) - len(y.Query)
}

// grpcBefore is httpBefore for matches of GRPCRoutes. Regular expressions come
// after what is said exactly: how much of a request they match can't be told.
func grpcBefore(x, y *Match) int {
	var none GRPCMethod
	a, b := &none, &none
	if x.GRPC != nil {
		a = x.GRPC
	}
	if y.GRPC != nil {
		b = y.GRPC
	}
	if n := grpcClass(y.GRPC) - grpcClass(x.GRPC); n != 0 {
		return n
	}
	if n := len(a.Service) - len(b.Service); n != 0 {
		return n
	}
	if n := len(a.Method) - len(b.Method); n != 0 {
		return n
	}
	return len(x.Headers) - len(y.Headers)
}

func grpcClass(m *GRPCMethod) int {
	switch {
	case m == nil:
		return 2
	case m.Regex:
		return 1
	}
	return 0
}

func pathClass(m *Match) int {
	switch {
	case m.PathType == PathExact:
		return 0
	case m.PathType == PathPrefix && m.Path != "/":
		return 1
	case m.PathType == PathRegex:
		return 2
	}
	return 3
}
