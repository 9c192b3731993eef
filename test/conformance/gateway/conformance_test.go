package gateway

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/gateway-api/conformance"
	confv1 "sigs.k8s.io/gateway-api/conformance/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
	"sigs.k8s.io/yaml"

	"github.com/causeway-mesh/causeway/test/conformance/fleet"
	"github.com/causeway-mesh/causeway/test/conformance/gateway/upstream"
	"github.com/causeway-mesh/causeway/test/lab"
)

func TestGatewayAPI(t *testing.T) {
	version := version(t) // before the first report changes the tree
	for _, channel := range []lab.Channel{lab.Experimental, lab.Standard} {
		t.Run(string(channel), func(t *testing.T) { runChannel(t, channel, version) })
	}
}

func runChannel(t *testing.T, channel lab.Channel, version string) {
	f := fleet.Start(t, fleet.Options{Networks: []string{"one"}, CRDs: lab.CRDs{GatewayAPI: channel, MCS: true}})
	c := f.Clusters[0]
	upstream.Load(t, c)
	upstream.Classify(t, c)

	report := filepath.Join(t.TempDir(), "report.yaml")
	runs := &record{begun: time.Now(), state: map[string]state{}}
	t.Run("tests", func(t *testing.T) {
		o := upstream.Options(t, c)
		o.Implementation = confv1.Implementation{
			Organization: "causeway-mesh", Project: "causeway", URL: "https://github.com/causeway-mesh/causeway",
			Version: version, Contact: []string{"https://github.com/causeway-mesh/causeway/issues/new"},
		}
		o.ReportOutputPath = report
		o.Hook = runs.hear
		conformance.RunConformanceWithOptions(t, o)
	})
	runs.judge(t, channel)
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	var r confv1.ConformanceReport
	if err := yaml.UnmarshalStrict(text, &r); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(r.ProfileReports, func(a, b confv1.ProfileReport) int { return cmp.Compare(a.Name, b.Name) })
	judge(t, channel, r)
	if len(runs.state) < len(tests.ConformanceTests) {
		return // a part says nothing about the whole
	}
	if text, err = yaml.Marshal(r); err != nil {
		t.Fatal(err)
	}
	root, err := lab.SourceRoot()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "docs", "conformance", fmt.Sprintf("%s-%s-report.yaml", channel, r.Mode))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	fmt.Println("report:", path)
}

// version is the commit's.
func version(t *testing.T) string {
	out, err := exec.CommandContext(t.Context(), "git", "describe", "--tags", "--always", "--dirty").Output()
	if err != nil {
		t.Fatal("git describe:", err)
	}
	return strings.TrimSpace(string(out))
}

// record is what became of each test.
type record struct {
	begun time.Time
	mu    sync.Mutex
	state map[string]state
}

type state struct {
	skipped  bool
	features []features.FeatureName
}

// hear is the suite's hook. It tells how things go.
func (r *record) hear(t *testing.T, test suite.ConformanceTest, _ *suite.ConformanceTestSuite) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state[test.ShortName] = state{skipped: t.Skipped(), features: test.Features}
	word := "ok     "
	switch {
	case t.Failed():
		word = "FAILED "
	case t.Skipped():
		return
	}
	fmt.Printf("%4.0fs %s %s\n", time.Since(r.begun).Seconds(), word, test.ShortName)
}

// judge fails t for tests that were skipped without need.
func (r *record) judge(t *testing.T, channel lab.Channel) {
	mesh := features.SetsToNamesSet(features.MeshCoreFeatures, features.MeshExtendedFeatures)
	for name, s := range r.state {
		if s.skipped && !slices.ContainsFunc(s.features, func(f features.FeatureName) bool { return mesh.Has(f) || !served(f, channel) }) {
			t.Errorf("%s was skipped", name)
		}
	}
}

// served says whether the channel's CRDs have what a feature needs. Those of the standard
// channel lack the fields of retries; other experimental features need none of their own.
func served(f features.FeatureName, channel lab.Channel) bool {
	switch f {
	case features.SupportHTTPRouteRetry, features.SupportHTTPRouteRetryBackendTimeout, features.SupportHTTPRouteRetryConnectionError:
		return channel == lab.Experimental
	}
	return true
}

// judge fails t for what a report has that is not perfect, and says what it has.
func judge(t *testing.T, channel lab.Channel, r confv1.ConformanceReport) {
	if r.GatewayAPIChannel != string(channel) {
		t.Errorf("the suite found the channel %s, not %s", r.GatewayAPIChannel, channel)
	}
	for _, p := range r.ProfileReports {
		parts := map[string]confv1.Status{"core": p.Core}
		if p.Extended != nil {
			parts["extended"] = p.Extended.Status
			for _, f := range p.Extended.UnsupportedFeatures {
				if served(features.FeatureName(f), channel) {
					t.Errorf("%s: the feature %s is not supported", p.Name, f)
				}
			}
		}
		for _, part := range sets.List(sets.KeySet(parts)) {
			s := parts[part]
			fmt.Printf("%-12s %-8s passed %d, failed %d, skipped %d\n", p.Name, part, s.Passed, s.Failed, s.Skipped)
			if s.Failed > 0 || s.Skipped > 0 {
				t.Errorf("%s %s: failed %v, skipped %v", p.Name, part, s.FailedTests, s.SkippedTests)
			}
		}
	}
}
