package resolve

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/causeway-mesh/causeway/cluster"
)

func TestGoverningKind(t *testing.T) {
	all := cluster.RouteKinds
	for _, c := range []struct {
		protocol string
		bound    []cluster.Kind
		want     cluster.Kind
	}{
		{"TCP", all, cluster.KindGRPCRoute},
		{"TCP", []cluster.Kind{cluster.KindTCPRoute, cluster.KindTLSRoute, cluster.KindHTTPRoute}, cluster.KindHTTPRoute},
		{"TCP", []cluster.Kind{cluster.KindTCPRoute, cluster.KindTLSRoute}, cluster.KindTLSRoute},
		{"TCP", []cluster.Kind{cluster.KindUDPRoute}, ""},
		{"UDP", all, cluster.KindUDPRoute},
		{"UDP", []cluster.Kind{cluster.KindHTTPRoute}, ""},
		{"SCTP", all, ""},
		{"TCP", nil, ""},
	} {
		if got := governingKind(c.protocol, c.bound); got != c.want {
			t.Errorf("%s with %v: %q governs, want %q", c.protocol, c.bound, got, c.want)
		}
	}
}

// TestContest holds contest to its definition, pair by pair: a route is refused
// if and only if an accepted senior route of the other kind shares a host with
// it, and the one that is named is the senior of those.
func TestContest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var claims []claim
		for i := range rapid.IntRange(0, 8).Draw(t, "claims") {
			kind := rapid.SampledFrom([]cluster.Kind{cluster.KindHTTPRoute, cluster.KindHTTPRoute, cluster.KindGRPCRoute, cluster.KindTLSRoute}).Draw(t, "kind")
			o := &cluster.Object{Ref: cluster.Ref{Kind: kind, Namespace: "app", Name: string(rune('a' + i))}, Seniority: cluster.Seniority{Revision: rapid.Int64Range(1, 4).Draw(t, "revision")}}
			hosts := rapid.SliceOfN(rapid.SampledFrom(poolOfHosts), 1, 3).Draw(t, "hosts")
			claims = append(claims, claim{o, hosts})
		}
		got := contest(claims)
		share := func(a, b claim) bool {
			return slices.ContainsFunc(a.hosts, func(x string) bool {
				return slices.ContainsFunc(b.hosts, func(y string) bool { _, ok := intersect(x, y); return ok })
			})
		}
		for i, c := range claims {
			var want *cluster.Object
			for j, d := range claims {
				rivals := c.route.Kind == cluster.KindHTTPRoute && d.route.Kind == cluster.KindGRPCRoute || c.route.Kind == cluster.KindGRPCRoute && d.route.Kind == cluster.KindHTTPRoute
				if rivals && got[j] == nil && cluster.Older(d.route, c.route) && share(c, d) && (want == nil || cluster.Older(d.route, want)) {
					want = d.route
				}
			}
			if got[i] != want {
				t.Fatalf("%s %v: refused for %v, want %v", c.route, c.hosts, got[i], want)
			}
		}
		order := rapid.Permutation(seq(len(claims))).Draw(t, "order")
		shuffled := make([]claim, len(claims))
		for i, k := range order {
			shuffled[i] = claims[k]
		}
		for i, o := range contest(shuffled) {
			if o != got[order[i]] {
				t.Fatalf("the order of the claims matters: %s", shuffled[i].route)
			}
		}
	})
}

func seq(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}
