package translate

import (
	"math"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

// mirrorPolicy translates a mirror, but for its cluster; nil for one that gets
// nothing. The copy's Host is that of the request.
//
// Envoy takes the random number by which it chooses a route for the mirrors too.
// So in a leg (alone), which has the numbers from one part of legParts to another,
// a fraction must not be as fine as that: the digits that tell legs apart would
// decide about copies.
func mirrorPolicy(m resolve.Mirror, alone bool) *routev3.RouteAction_RequestMirrorPolicy {
	out := &routev3.RouteAction_RequestMirrorPolicy{DisableShadowHostSuffixAppend: true}
	switch {
	case m.Numerator == 0 || m.Denominator == 0:
		return nil
	case m.Numerator >= m.Denominator:
		return out
	}
	finest := len(denominators) - 1
	if alone {
		finest--
	}
	for i, d := range denominators[:finest+1] {
		parts := uint64(m.Numerator) * d.parts
		if parts%uint64(m.Denominator) == 0 || i == finest {
			n := math.Round(float64(parts) / float64(m.Denominator))
			out.RuntimeFraction = fraction(uint32(max(n, 1)), d.kind)
			break
		}
	}
	return out
}

var denominators = []struct {
	parts uint64
	kind  typev3.FractionalPercent_DenominatorType
}{
	{100, typev3.FractionalPercent_HUNDRED},
	{10_000, typev3.FractionalPercent_TEN_THOUSAND},
	{legParts, typev3.FractionalPercent_MILLION},
}
