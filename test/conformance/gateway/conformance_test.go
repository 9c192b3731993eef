package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/dynamic"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance"
	confv1 "sigs.k8s.io/gateway-api/conformance/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
	"sigs.k8s.io/yaml"

	"github.com/causeway-mesh/causeway/test/conformance/fleet"
	"github.com/causeway-mesh/causeway/test/lab"
)

// class is the GatewayClass of all Gateways of the suite. It is none of Causeway's own:
// what makes a class ours is its controller alone.
const class = `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: gateway-conformance}
spec: {controllerName: causeway.dev/gateway-controller}
`

var profiles = []suite.ConformanceProfileName{
	suite.GatewayHTTPConformanceProfileName, suite.GatewayGRPCConformanceProfileName, suite.GatewayTLSConformanceProfileName,
	suite.GatewayTCPConformanceProfileName, suite.GatewayUDPConformanceProfileName,
}

func TestGatewayAPI(t *testing.T) {
	for _, channel := range []lab.Channel{lab.Experimental, lab.Standard} {
		t.Run(string(channel), func(t *testing.T) { runChannel(t, channel) })
	}
}

func runChannel(t *testing.T, channel lab.Channel) {
	f := fleet.Start(t, fleet.Options{Networks: []string{"one"}, CRDs: lab.CRDs{GatewayAPI: channel, MCS: true}})
	c := f.Clusters[0]
	archives, err := buildImages(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.LoadImage(t.Context(), archives...); err != nil && !errors.Is(err, lab.ErrForeign) {
		t.Fatal(err)
	}
	if err := c.Apply(t.Context(), []byte(class)); err != nil {
		t.Fatal(err)
	}
	awaitFeatures(t, c)

	t.Setenv("KUBECONFIG", c.Kubeconfig)
	report := filepath.Join(t.TempDir(), "report.yaml")
	runs := &record{begun: time.Now(), state: map[string]state{}}
	t.Run("tests", func(t *testing.T) {
		o := conformance.DefaultOptions(t)
		o.RestConfig.QPS = -1
		o.CleanupBaseResources = false // they go with the cluster
		o.ConformanceProfiles = profiles
		if o.UsableNetworkAddresses == nil && c.LoadBalancers4.IsValid() {
			// Services that ask for no address get the lowest.
			usable := c.LoadBalancers4.Addr().As4()
			usable[3] = 254
			o.UsableNetworkAddresses = []gatewayv1.GatewaySpecAddress{address(fmt.Sprintf("%d.%d.%d.%d", usable[0], usable[1], usable[2], usable[3]))}
		}
		if o.UnusableNetworkAddresses == nil {
			o.UnusableNetworkAddresses = []gatewayv1.GatewaySpecAddress{address("192.0.2.1")} // RFC 5737: nobody's
		}
		o.Implementation = confv1.Implementation{
			Organization: "causeway-mesh", Project: "causeway", URL: "https://github.com/causeway-mesh/causeway",
			Version: version(t), Contact: []string{"https://github.com/causeway-mesh/causeway/issues/new"},
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

func address(ip string) gatewayv1.GatewaySpecAddress {
	return gatewayv1.GatewaySpecAddress{Type: new(gatewayv1.IPAddressType), Value: ip}
}

// version is the commit's.
func version(t *testing.T) string {
	out, err := exec.CommandContext(t.Context(), "git", "describe", "--tags", "--always", "--dirty").Output()
	if err != nil {
		t.Fatal("git describe:", err)
	}
	return strings.TrimSpace(string(out))
}

// awaitFeatures waits until the class says what its controller supports: the suite reads
// that before it waits for anything.
func awaitFeatures(t *testing.T, c *lab.Cluster) {
	t.Helper()
	d, err := dynamic.NewForConfig(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	fleet.Eventually(t, "the GatewayClass lists its features", func() error {
		u, err := d.Resource(schema.GroupVersionResource{Group: gatewayv1.GroupName, Version: "v1", Resource: "gatewayclasses"}).Get(t.Context(), "gateway-conformance", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if list, _, err := unstructured.NestedSlice(u.Object, "status", "supportedFeatures"); err != nil {
			return err
		} else if len(list) == 0 {
			return fmt.Errorf("its status is %v", u.Object["status"])
		}
		return nil
	})
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
