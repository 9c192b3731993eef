package gateway

import (
	"fmt"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/util/sets"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	confv1 "sigs.k8s.io/gateway-api/conformance/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"github.com/causeway-mesh/causeway/test/lab"
)

// profiles are those of gateways.
var profiles = []suite.ConformanceProfile{
	suite.GatewayHTTPConformanceProfile, suite.GatewayGRPCConformanceProfile, suite.GatewayTLSConformanceProfile,
	suite.GatewayTCPConformanceProfile, suite.GatewayUDPConformanceProfile,
}

// uncounted are features of Gateways that no profile counts.
var uncounted = sets.New[features.FeatureName](features.SupportGRPCRouteNamedRouteRule)

// untested are features that no test of this version of the suite names. A real Envoy
// proves them in xds/translate, TestRetriesInEnvoy.
var untested = sets.New[features.FeatureName](features.SupportHTTPRouteRetryBackendTimeout, features.SupportHTTPRouteRetryConnectionError)

// meant are the features that a GatewayClass has to list on a channel: all there are of
// Gateways, for which its CRDs have the fields. Those of the standard channel lack the ones
// of retries; other experimental features need none of their own.
func meant(channel lab.Channel) suite.FeaturesSet {
	out := uncounted.Clone()
	for _, p := range profiles {
		out = out.Union(p.CoreFeatures).Union(p.ExtendedFeatures)
	}
	if channel == lab.Standard {
		out.Delete(features.SupportHTTPRouteRetry, features.SupportHTTPRouteRetryBackendTimeout, features.SupportHTTPRouteRetryConnectionError)
	}
	return out
}

// unmeant says of a feature that it is another channel's, or no Gateway's: a mesh's.
func unmeant(channel lab.Channel) func(features.FeatureName) bool {
	all := meant(channel)
	return func(f features.FeatureName) bool { return !all.Has(f) }
}

// claimed compares what a GatewayClass lists with what it has to and with what a whole run
// has proved.
func claimed(channel lab.Channel, listed []gatewayv1.SupportedFeature, proven suite.FeaturesSet) (faults []string) {
	list := suite.FeaturesSet{}
	for _, f := range listed {
		list.Insert(features.FeatureName(f.Name))
	}
	for what, set := range map[string]suite.FeaturesSet{
		"is not listed by the GatewayClass":                                   meant(channel).Difference(list),
		"is listed by the GatewayClass, but was proved by no test":            list.Difference(proven).Difference(untested),
		"was proved, but is not listed by the GatewayClass":                   proven.Difference(list),
		"is said to be tested by no test, but is: mend the list of this test": untested.Intersection(proven),
	} {
		for _, f := range sets.List(set) {
			faults = append(faults, fmt.Sprintf("the feature %s %s", f, what))
		}
	}
	slices.Sort(faults)
	return faults
}

// reported says what keeps a report from being perfect.
func reported(channel lab.Channel, r confv1.ConformanceReport) (faults []string) {
	if r.GatewayAPIChannel != string(channel) {
		faults = append(faults, fmt.Sprintf("the suite found the channel %s, not %s", r.GatewayAPIChannel, channel))
	}
	judge := func(profile, part string, s confv1.Status) {
		if s.Failed > 0 || s.Skipped > 0 {
			faults = append(faults, fmt.Sprintf("%s %s: failed %v, skipped %v", profile, part, s.FailedTests, s.SkippedTests))
		}
	}
	for _, p := range r.ProfileReports {
		judge(p.Name, "core", p.Core)
		if p.Extended == nil {
			continue
		}
		judge(p.Name, "extended", p.Extended.Status)
		for _, f := range p.Extended.UnsupportedFeatures {
			if meant(channel).Has(features.FeatureName(f)) {
				faults = append(faults, fmt.Sprintf("%s: the feature %s is not supported", p.Name, f))
			}
		}
	}
	return faults
}

// What a whole run holds a GatewayClass to: the features of a channel, each proved by a test
// that this version of the suite has, and no other.
func TestClaimed(t *testing.T) {
	t.Parallel()
	for _, channel := range []lab.Channel{lab.Experimental, lab.Standard} {
		proven := suite.FeaturesSet{}
		for _, test := range tests.ConformanceTests {
			if !slices.ContainsFunc(test.Features, unmeant(channel)) {
				proven.Insert(test.Features...)
			}
		}
		var list []gatewayv1.SupportedFeature
		for _, f := range sets.List(meant(channel)) {
			list = append(list, gatewayv1.SupportedFeature{Name: gatewayv1.FeatureName(f)})
		}
		if got := claimed(channel, list, proven); len(got) > 0 {
			t.Errorf("%s: %q", channel, got)
		}
		if got := claimed(channel, list[1:], proven); len(got) != 2 {
			t.Errorf("%s: the first is missing, and there are the faults %q", channel, got)
		}
		if got := claimed(channel, append(list, gatewayv1.SupportedFeature{Name: "Mesh"}), proven); len(got) != 1 {
			t.Errorf("%s: one is too many, and there are the faults %q", channel, got)
		}
		if got := claimed(channel, list, proven.Difference(sets.New[features.FeatureName](features.SupportHTTPRouteCORS))); len(got) != 1 {
			t.Errorf("%s: one is not proved, and there are the faults %q", channel, got)
		}
	}
}

// A report with a failure, a skip or a gap is not perfect, nor one of another channel.
func TestReported(t *testing.T) {
	t.Parallel()
	report := func(change func(*confv1.ConformanceReport, *confv1.ProfileReport)) []string {
		r := confv1.ConformanceReport{GatewayAPIChannel: string(lab.Standard), ProfileReports: []confv1.ProfileReport{{Name: "GATEWAY-HTTP", Extended: &confv1.ExtendedStatus{}}}}
		change(&r, &r.ProfileReports[0])
		return reported(lab.Standard, r)
	}
	for name, change := range map[string]func(*confv1.ConformanceReport, *confv1.ProfileReport){
		"channel": func(r *confv1.ConformanceReport, _ *confv1.ProfileReport) {
			r.GatewayAPIChannel = string(lab.Experimental)
		},
		"core failed":      func(_ *confv1.ConformanceReport, p *confv1.ProfileReport) { p.Core.Failed = 1 },
		"core skipped":     func(_ *confv1.ConformanceReport, p *confv1.ProfileReport) { p.Core.Skipped = 1 },
		"extended failed":  func(_ *confv1.ConformanceReport, p *confv1.ProfileReport) { p.Extended.Failed = 1 },
		"extended skipped": func(_ *confv1.ConformanceReport, p *confv1.ProfileReport) { p.Extended.Skipped = 1 },
		"gap": func(_ *confv1.ConformanceReport, p *confv1.ProfileReport) {
			p.Extended.UnsupportedFeatures = []string{string(features.SupportHTTPRouteCORS)}
		},
	} {
		if got := report(change); len(got) != 1 {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := report(func(_ *confv1.ConformanceReport, p *confv1.ProfileReport) {
		p.Extended.UnsupportedFeatures = []string{string(features.SupportHTTPRouteRetry)} // no field for it there
	}); len(got) > 0 {
		t.Errorf("%q", got)
	}
}
