package resolve

import (
	"slices"

	"github.com/causeway-mesh/causeway/cluster"
)

// meshPrecedence orders the kinds of routes that a TCP port of a frontend may
// have: the first that is there governs it alone (DESIGN section 3).
var meshPrecedence = []cluster.Kind{cluster.KindGRPCRoute, cluster.KindHTTPRoute, cluster.KindTLSRoute, cluster.KindTCPRoute}

// governingKind tells which of the kinds of routes that are bound to a frontend's
// port governs it; the others' routes are Accepted=False with reason Conflicted.
// It is empty if none of them can.
func governingKind(protocol string, bound []cluster.Kind) cluster.Kind {
	if protocol == "UDP" {
		if slices.Contains(bound, cluster.KindUDPRoute) {
			return cluster.KindUDPRoute
		}
		return ""
	}
	for _, k := range meshPrecedence {
		if protocol == tcp && slices.Contains(bound, k) {
			return k
		}
	}
	return ""
}

// claim is what a route that attaches to a listener asks of it.
type claim struct {
	route *cluster.Object
	// hosts are the route's hostnames as the listener narrows them; "*" for a
	// route without hostnames on a listener without one.
	hosts []string
}

// contest settles which HTTPRoutes and GRPCRoutes of one listener are accepted:
// of two routes of different kinds whose hostnames intersect exactly one is, the
// senior (GRPCRouteSpec.hostnames). For each claim it gives the accepted route
// that stands in its way, or nil. Routes of other kinds neither win nor lose. The
// outcome does not depend on the order of the claims.
func contest(claims []claim) []*cluster.Object {
	out := make([]*cluster.Object, len(claims))
	order := make([]int, 0, len(claims))
	var kinds [2]bool
	for i, c := range claims {
		switch c.route.Kind {
		case cluster.KindHTTPRoute:
			kinds[0] = true
		case cluster.KindGRPCRoute:
			kinds[1] = true
		default:
			continue
		}
		order = append(order, i)
	}
	if !kinds[0] || !kinds[1] {
		return out
	}
	slices.SortFunc(order, func(a, b int) int {
		switch {
		case cluster.Older(claims[a].route, claims[b].route):
			return -1
		case cluster.Older(claims[b].route, claims[a].route):
			return 1
		}
		return 0
	})
	accepted := map[cluster.Kind]*hostSet{cluster.KindHTTPRoute: newHostSet(), cluster.KindGRPCRoute: newHostSet()}
	for _, i := range order {
		c := claims[i]
		rivals := accepted[cluster.KindHTTPRoute]
		if c.route.Kind == cluster.KindHTTPRoute {
			rivals = accepted[cluster.KindGRPCRoute]
		}
		for _, h := range c.hosts {
			if r := rivals.meets(h); r != nil && (out[i] == nil || cluster.Older(r, out[i])) {
				out[i] = r
			}
		}
		if out[i] == nil {
			for _, h := range c.hosts {
				accepted[c.route.Kind].add(h, c.route)
			}
		}
	}
	return out
}

// hostSet finds the senior of the routes whose hostnames intersect a hostname.
// Routes must be added in the order of their seniority.
type hostSet struct {
	exactly map[string]*cluster.Object // by a hostname of a route
	below   map[string]*cluster.Object // by every hostname that covers one of a route
}

func newHostSet() *hostSet {
	return &hostSet{exactly: map[string]*cluster.Object{}, below: map[string]*cluster.Object{}}
}

func (s *hostSet) add(host string, o *cluster.Object) {
	host = HostOrAny(host)
	if s.exactly[host] == nil {
		s.exactly[host] = o
	}
	for _, h := range coveringNames(host) {
		if s.below[h] == nil {
			s.below[h] = o
		}
	}
}

// meets gives the senior route with a hostname that covers host or that host covers.
func (s *hostSet) meets(host string) *cluster.Object {
	host = HostOrAny(host)
	senior := s.below[host]
	for _, h := range coveringNames(host) {
		if o := s.exactly[h]; o != nil && (senior == nil || cluster.Older(o, senior)) {
			senior = o
		}
	}
	return senior
}
