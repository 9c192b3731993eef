package resolve

import (
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
	t := &RouteTable{Rules: make([]*Rule, len(rules))}
	for i, r := range rules {
		t.Rules[i] = r.rule
	}
	return t
}

// before is the precedence of Gateway API (HTTPRouteRule.matches): hostname,
// path, method, number of headers, number of query parameters, the senior
// route, then the order within the route.
func before(a, b ranked) bool {
	if a.host != b.host {
		return a.host.before(b.host)
	}
	x, y := &a.rule.Match, &b.rule.Match
	if cx, cy := pathClass(x), pathClass(y); cx != cy {
		return cx < cy
	}
	if x.PathType == PathPrefix && len(x.Path) != len(y.Path) {
		return len(x.Path) > len(y.Path)
	}
	if (x.Method != "") != (y.Method != "") {
		return x.Method != ""
	}
	if len(x.Headers) != len(y.Headers) {
		return len(x.Headers) > len(y.Headers)
	}
	if len(x.Query) != len(y.Query) {
		return len(x.Query) > len(y.Query)
	}
	if a.route != b.route {
		return cluster.Older(a.route, b.route)
	}
	if a.rule.RuleIndex != b.rule.RuleIndex {
		return a.rule.RuleIndex < b.rule.RuleIndex
	}
	return a.rule.MatchIndex < b.rule.MatchIndex
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
