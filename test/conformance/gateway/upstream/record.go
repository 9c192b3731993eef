package upstream

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

// Record is what became of each test of a run. Its methods may be called from any
// goroutine.
type Record struct {
	begun time.Time
	mu    sync.Mutex
	of    map[string]outcome
}

type outcome struct {
	test            suite.ConformanceTest
	failed, skipped bool
}

// NewRecord is that of a run that begins now.
func NewRecord() *Record { return &Record{begun: time.Now(), of: map[string]outcome{}} }

// Hear is the suite's hook. It prints how things go.
func (r *Record) Hear(t *testing.T, test suite.ConformanceTest, _ *suite.ConformanceTestSuite) {
	r.add(test, t.Failed(), t.Skipped())
	word := "ok     "
	switch {
	case t.Failed():
		word = "FAILED "
	case t.Skipped():
		return
	}
	fmt.Printf("%4.0fs %s %s\n", time.Since(r.begun).Seconds(), word, test.ShortName)
}

func (r *Record) add(test suite.ConformanceTest, failed, skipped bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.of[test.ShortName] = outcome{test, failed, skipped}
}

// Len is how many tests there were, those included that were skipped.
func (r *Record) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.of)
}

// Faults says what keeps a run from being perfect: that it was none, tests that failed, and
// tests that were skipped, but for those with a feature that excused says is not meant. It
// is sorted.
func (r *Record) Faults(excused func(features.FeatureName) bool) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.of) == 0 {
		return []string{"no test has that name"}
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(r.of)) {
		switch o := r.of[name]; {
		case o.failed:
			out = append(out, name+" failed")
		case o.skipped && (excused == nil || !slices.ContainsFunc(o.test.Features, excused)):
			out = append(out, name+" was skipped")
		}
	}
	return out
}

// Proven are the features that tests name which ran: with Faults, those that a run proves.
func (r *Record) Proven() suite.FeaturesSet {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := suite.FeaturesSet{}
	for _, o := range r.of {
		if !o.skipped {
			out.Insert(o.test.Features...)
		}
	}
	return out
}
