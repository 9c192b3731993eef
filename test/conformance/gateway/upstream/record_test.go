package upstream

import (
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

// A run passes only if there was one, nothing in it failed, and nothing was skipped but
// what is not meant.
func TestFaults(t *testing.T) {
	t.Parallel()
	test := func(name string, f ...features.FeatureName) suite.ConformanceTest {
		return suite.ConformanceTest{ShortName: name, Features: f}
	}
	mesh := func(f features.FeatureName) bool { return f == features.SupportMesh }
	for _, c := range []struct {
		name string
		fill func(*Record)
		want []string
	}{
		{"no test at all", func(*Record) {}, []string{"no test has that name"}},
		{"all of them passed", func(r *Record) { r.add(test("A"), false, false) }, nil},
		{"one failed, one was skipped", func(r *Record) {
			r.add(test("C", features.SupportGateway), false, true)
			r.add(test("B"), true, false)
			r.add(test("A"), false, false)
		}, []string{"B failed", "C was skipped"}},
		{"skipped with reason", func(r *Record) { r.add(test("A", features.SupportGateway, features.SupportMesh), false, true) }, nil},
		{"failed, reason or not", func(r *Record) { r.add(test("A", features.SupportMesh), true, true) }, []string{"A failed"}},
	} {
		r := NewRecord()
		c.fill(r)
		if got := r.Faults(mesh); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, not %q", c.name, got, c.want)
		}
	}
	r := NewRecord()
	r.add(test("A", features.SupportGateway, features.SupportTLSRoute), false, false)
	r.add(test("B", features.SupportMesh), false, true)
	if got := sets.List(r.Proven()); !slices.Equal(got, []features.FeatureName{features.SupportGateway, features.SupportTLSRoute}) {
		t.Errorf("proven: %v", got)
	}
}
