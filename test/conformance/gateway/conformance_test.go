package gateway

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
	confv1 "sigs.k8s.io/gateway-api/conformance/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/yaml"

	"github.com/causeway-mesh/causeway/test/conformance/fleet"
	"github.com/causeway-mesh/causeway/test/conformance/gateway/upstream"
	"github.com/causeway-mesh/causeway/test/lab"
)

var reports = flag.String("reports", "", "the folder that a whole run without a fault leaves its report in; empty: nowhere")

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
	listed := upstream.Classify(t, c)

	report := filepath.Join(t.TempDir(), "report.yaml")
	record := upstream.NewRecord()
	t.Run("tests", func(t *testing.T) {
		o := upstream.Options(t, c)
		o.Implementation = confv1.Implementation{
			Organization: "causeway-mesh", Project: "causeway", URL: "https://github.com/causeway-mesh/causeway",
			Version: version, Contact: []string{"https://github.com/causeway-mesh/causeway/issues/new"},
		}
		o.ReportOutputPath = report
		o.Hook = record.Hear
		conformance.RunConformanceWithOptions(t, o)
	})
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	var r confv1.ConformanceReport
	if err := yaml.UnmarshalStrict(text, &r); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(r.ProfileReports, func(a, b confv1.ProfileReport) int { return cmp.Compare(a.Name, b.Name) })
	tell(r)
	whole := record.Len() == len(tests.ConformanceTests)
	faults := append(record.Faults(unmeant(channel)), reported(channel, r)...)
	if whole { // a part says nothing about it
		faults = append(faults, claimed(channel, listed, record.Proven())...)
	}
	for _, fault := range faults {
		t.Error(fault)
	}
	if whole && !t.Failed() && *reports != "" {
		write(t, r)
	}
}

// write leaves a report by the name that upstream gives such files.
func write(t *testing.T, r confv1.ConformanceReport) {
	text, err := yaml.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(*reports, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(*reports, fmt.Sprintf("%s-%s-report.yaml", r.GatewayAPIChannel, r.Mode))
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

// tell prints what a report has.
func tell(r confv1.ConformanceReport) {
	line := func(profile, part string, s confv1.Status) {
		fmt.Printf("%-12s %-8s passed %d, failed %d, skipped %d\n", profile, part, s.Passed, s.Failed, s.Skipped)
	}
	for _, p := range r.ProfileReports {
		line(p.Name, "core", p.Core)
		if p.Extended != nil {
			line(p.Name, "extended", p.Extended.Status)
		}
	}
}
