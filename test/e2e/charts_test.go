package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/causeway-mesh/causeway/test/conformance/fleet"
)

const (
	agentChart = "deploy/helm/causeway"
	hubChart   = "deploy/helm/causeway-hub"
)

// agentValues and hubValues are the least that the charts ask for.
const (
	agentValues = "{cluster: {name: west}, clusterset: {name: prod}, store: {endpoints: ['https://etcd.example.com:2379']}}"
	hubValues   = "{clusterset: {name: prod}, store: {endpoints: ['https://etcd.example.com:2379']}}"
)

func needE2E(t *testing.T) {
	t.Helper()
	if os.Getenv("CAUSEWAY_E2E_IMAGES") == "" {
		t.Skip("needs Helm: run it by `make e2e`")
	}
}

func TestLint(t *testing.T) {
	needE2E(t)
	for chart, values := range map[string]string{agentChart: agentValues, hubChart: hubValues} {
		for name, args := range map[string][]string{"bare": {"lint", "--strict", "--skip-schema-validation", chart}, "with values": {"lint", "--strict", "--values", "-", chart}} {
			if chart == agentChart && name == "with values" {
				args = append(args, "--namespace", "causeway-system")
			}
			if out, err := fleet.HelmAlone(t.Context(), []byte(values), args...); err != nil || !strings.Contains(out, "0 chart(s) failed") {
				t.Errorf("%s %s: %s %v", chart, name, out, err)
			}
		}
	}
}

// Values that make no sense are refused before anything reaches a cluster, and it is said which.
func TestValuesSchema(t *testing.T) {
	needE2E(t)
	for _, x := range []struct{ chart, values, set, says string }{
		{agentChart, "{}", "", "/cluster/name"},
		{agentChart, agentValues, "cluster.name=West_1", "/cluster/name"},
		{agentChart, agentValues, "agent.replicas=0", "/agent/replicas"},
		{agentChart, agentValues, "agent.replica=2", "replica"},
		{agentChart, agentValues, "crossing.service.type=Balancer", "/crossing/service/type"},
		{agentChart, agentValues, "store.endpoints[0]=http://etcd:2379", "/store/endpoints/0"},
		{agentChart, agentValues, "image.pullPolicy=Sometimes", "/image/pullPolicy"},
		{hubChart, "{}", "", "/clusterset/name"},
		{hubChart, hubValues, "etcd.enabled=true", "/etcd/tls"},
		{hubChart, hubValues, "etcd.members=2", "/etcd/members"},
		{hubChart, hubValues, "etcd.snapshot.schedule=daily", "/etcd/snapshot/schedule"},
		{hubChart, hubValues, "hubs.replicas=2", "hubs"},
	} {
		args := []string{"template", "causeway", x.chart, "--namespace", "causeway-system", "--values", "-"}
		if x.set != "" {
			args = append(args, "--set", x.set)
		}
		out, err := fleet.HelmAlone(t.Context(), []byte(x.values), args...)
		if err == nil || !strings.Contains(err.Error(), x.says) {
			t.Errorf("%s with %s %s: %.300s %v", filepath.Base(x.chart), x.values, x.set, out, err)
		}
	}
	if out, err := fleet.HelmAlone(t.Context(), []byte(agentValues), "template", "causeway", agentChart, "--namespace", "elsewhere", "--values", "-"); err == nil || !strings.Contains(err.Error(), "causeway-system") {
		t.Errorf("another namespace: %.300s %v", out, err)
	}
}
