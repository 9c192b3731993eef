package translate

import (
	"math"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

// leg is what one Envoy route serves of a rule: as a rule all of it. Envoy splits
// a route's requests by weights, but only headers can differ from one share to the
// other. Where a share has a filter that is more than that, each share becomes
// a leg: routes with the same match, one after the other, each of which takes its
// fraction. Envoy draws one random number for a request, whichever routes it
// looks at, so that the fractions partition the requests exactly.
type leg struct {
	shares []*resolve.WeightedBackend
	sum    uint64 // of their weights
	// filters are the rule's, with those of the share where there is but one.
	// Header modifiers of shares are not among them.
	filters  resolve.Filters
	redirect *resolve.Redirect // answers the requests itself
	refuse   bool              // answers that it can't serve them
	alone    bool              // the leg is one share of a rule that has several
	// pinned legs take the requests whose session is with their share, whatever
	// its weight.
	pinned bool
	// below, of legParts, is where its fraction ends; 0 for all that is left.
	below uint32
}

const legParts = 1_000_000 // the finest denominator that Envoy has

// legs divides a rule.
func legs(rule *resolve.Rule) []*leg {
	switch {
	case rule.Invalid != "":
		return []*leg{{refuse: true}}
	case rule.Redirect != nil:
		return []*leg{{redirect: rule.Redirect, filters: rule.Filters}}
	}
	live, sum := rule.Live()
	if len(live) == 0 {
		return []*leg{{refuse: true}}
	}
	if !rule.Divided() {
		return []*leg{{shares: live, sum: sum, filters: rule.Filters}}
	}
	out := pinnedLegs(rule)
	var seen uint64
	last := uint32(0)
	for i, b := range live {
		l := &leg{shares: live[i : i+1], sum: uint64(b.Weight), filters: rule.Filters.Then(b.Filters), redirect: b.Redirect, refuse: b.Invalid != "", alone: len(live) > 1}
		seen += uint64(b.Weight)
		if i < len(live)-1 {
			// Every share gets something, as far as there are parts enough.
			at := uint32(math.Round(float64(seen) / float64(sum) * legParts))
			last = min(max(at, last+1), legParts-1)
			l.below = last
		}
		out = append(out, l)
	}
	return out
}

// chained reports whether requests go through a second hop.
func (l *leg) chained() bool {
	return slices.ContainsFunc(l.shares, func(b *resolve.WeightedBackend) bool { return b.Chain != nil && b.Invalid == "" })
}

// within narrows a match to the leg's fraction, or to its sessions.
func (l *leg) within(match *routev3.RouteMatch, rule *resolve.Rule) *routev3.RouteMatch {
	switch {
	case l.pinned:
		return narrow(match, sessionMatcher(rule.Session, shareMark(l.shares[0])))
	case l.below == 0:
		return match
	}
	out := proto.Clone(match).(*routev3.RouteMatch)
	out.RuntimeFraction = fraction(l.below, typev3.FractionalPercent_MILLION)
	return out
}

func fraction(numerator uint32, of typev3.FractionalPercent_DenominatorType) *corev3.RuntimeFractionalPercent {
	return &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{Numerator: numerator, Denominator: of}}
}

// scale keeps the sum of a rule's weights within Envoy's 32 bits.
func scale(weight uint32, sum uint64) uint32 {
	if sum <= math.MaxUint32 {
		return weight
	}
	return uint32(max(1, uint64(weight)*(math.MaxUint32/2)/sum))
}
