package resolve

import (
	"math"
	"math/bits"
	"slices"

	"github.com/causeway-mesh/causeway/federation"
)

// Draining, as other clusters see it (a client's own cluster never counts as
// drained). Of the requests that a cluster would get, the drained part goes to
// its peers in the same tier or, if all that are ready there are draining, to
// the tiers below. Drains are relative: whoever is drained least among those
// that could serve counts as not drained, so that nothing is ever lost and a
// cluster that serves alone keeps everything; and what is drained in full is
// left out, since then somebody else is ready.
//
// All is reckoned in integers, which give the same bytes everywhere.
const whole = 10_000

// relative is what remains of a drain where the least is one too: from least to
// whole, stretched over 0 to whole. least is less than whole.
func relative(drained, least uint64) uint64 {
	if drained <= least {
		return 0
	}
	return (drained - least) * whole / (whole - least)
}

// settleDrains makes the drains relative to that of the whole backend, leaves
// out the shares that nobody is to use, and tells whether any of the others is
// draining. Dead clusters are not used while anybody else is ready, and after
// that drained or not.
func (r *reader) settleDrains(shares []share) (left []share, draining bool) {
	dead := func(s *share) bool { return s.cluster.ID != r.local && s.cluster.Health.Liveness == federation.Dead }
	least := uint64(whole)
	for i := range shares {
		if s := &shares[i]; s.ready.n > 0 && !dead(s) {
			least = min(least, s.drained)
		}
	}
	for i := range shares {
		s := &shares[i]
		if least == whole || dead(s) {
			s.drained = 0
		} else {
			s.drained = relative(s.drained, least)
		}
	}
	left = slices.DeleteFunc(shares, func(s share) bool { return s.drained == whole })
	return left, slices.ContainsFunc(left, func(s share) bool { return s.drained > 0 })
}

// allDraining tells whether everything that is ready in the tiers is to leave
// requests to others.
func allDraining(tiers [][]*share) bool {
	for _, s := range slices.Concat(tiers...) {
		if s.ready.n > 0 && s.drained == 0 {
			return false
		}
	}
	return true
}

// drain moves weight from the clusters of a tier that are draining to those that
// are drained least, so that the healthy weight stays as it was and each has the
// part that is left to it. It gives what the tier as a whole is to leave to
// others, in parts of whole.
func drain(tier []*share, weights []uint64) (shed uint64) {
	shed = whole
	var healthy uint64
	for i, s := range tier {
		if s.ready.n > 0 {
			shed = min(shed, s.drained)
			healthy += s.healthy(weights[i])
		}
	}
	if healthy == 0 {
		return 0
	}
	// What is not ready may come to weigh leastHealth times as much; all together
	// must stay below Envoy's limit.
	if healthy > tierWeight {
		for i := range weights {
			weights[i] = max(1, muldiv(weights[i], tierWeight, healthy))
		}
	}
	var peers, moved uint64
	for i, s := range tier {
		if d := relative(s.drained, shed); d > 0 {
			moved += s.healthy(weights[i]) * d
		} else {
			peers += s.healthy(weights[i]) * whole
		}
	}
	for i, s := range tier {
		if d := relative(s.drained, shed); d > 0 {
			weights[i] = muldiv(weights[i], whole-d, whole)
		} else if peers > 0 {
			weights[i] = muldiv(weights[i], peers+moved, peers)
		}
	}
	return shed
}

// healthy is the part of a share's weight that is ready.
func (s *share) healthy(weight uint64) uint64 {
	if s.empty() {
		return 0
	}
	return muldiv(weight, s.ready.n, s.count())
}

// withhold adds to a tier the weight that makes Envoy leave the shed part of the
// requests that would come to the tier to others: Envoy gives a tier 1.4 times
// its healthy share of all requests, in whole percent, as long as any are left.
// It returns the percentage that the tier takes.
func withhold(tier []EndpointGroup, shed, left uint64) uint64 {
	var healthy, all uint64
	for _, g := range tier {
		for _, e := range g.Endpoints {
			all += uint64(e.Weight)
			if e.Healthy {
				healthy += uint64(e.Weight)
			}
		}
	}
	if healthy == 0 {
		return 0
	}
	take := min(left, overprovisioning*healthy/all)
	if shed == 0 || take == 0 {
		return take
	}
	take = max(1, ((whole-shed)*take+whole/2)/whole)
	if wanted := min(overprovisioning*healthy/take, healthy*leastHealth); wanted > all {
		g := &tier[slices.IndexFunc(tier, func(g EndpointGroup) bool {
			return slices.ContainsFunc(g.Endpoints, func(e Endpoint) bool { return e.Healthy })
		})] // one of those that are draining
		g.Endpoints = append(g.Endpoints, Endpoint{Addr: placeholder(g.Cluster, portDrained), Weight: clamp32(wanted - all), Missing: true})
		sortEndpoints(g.Endpoints)
	}
	return take
}

// muldiv is a*b/c; the result must fit.
func muldiv(a, b, c uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	q, _ := bits.Div64(hi, lo, c)
	return q
}

// clamp32 makes a weight that Envoy takes.
func clamp32(w uint64) uint32 { return uint32(min(max(1, w), math.MaxUint32)) }
