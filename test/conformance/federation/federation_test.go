package federation

import (
	"flag"
	"io/fs"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"

	"github.com/causeway-mesh/causeway/test/conformance/federation/tests"
	"github.com/causeway-mesh/causeway/test/conformance/fleet"
	"github.com/causeway-mesh/causeway/test/conformance/gateway/upstream"
	"github.com/causeway-mesh/causeway/test/lab"
)

var memberKubeconfig = flag.String("member-kubeconfig", "", "the kubeconfig of another cluster of the clusterset whose Gateways $KUBECONFIG's cluster runs; without it the test makes a clusterset of Causeway's in a lab")

func TestFederation(t *testing.T) {
	if *memberKubeconfig != "" {
		member, err := clientcmd.BuildConfigFromFlags("", *memberKubeconfig)
		require.NoError(t, err)
		run(t, conformance.DefaultOptions(t), member)
		return
	}
	f := fleet.Start(t, fleet.Options{Networks: []string{"one", "two"}, CRDs: lab.CRDs{GatewayAPI: lab.Standard, MCS: true}})
	upstream.Load(t, f.Clusters...)
	upstream.Classify(t, f.Clusters[0])
	o := upstream.Options(t, f.Clusters[0])
	record := upstream.NewRecord()
	o.Hook = record.Hear
	t.Cleanup(func() { // after the parallel tests
		for _, fault := range record.Faults(nil) {
			t.Error(fault)
		}
	})
	run(t, o, f.Clusters[1].Config)
}

// run runs the tests, on Gateways of the cluster of the options.
func run(t *testing.T, o suite.ConformanceOptions, other *rest.Config) {
	o.ManifestFS = []fs.FS{&conformance.Manifests, &Manifests}
	s, err := suite.NewConformanceTestSuite(o)
	require.NoError(t, err)
	s.Setup(t, tests.ConformanceTests)
	member, err := client.New(other, client.Options{Scheme: s.Client.Scheme()})
	require.NoError(t, err)
	equip(t, s, member)
	require.NoError(t, s.Run(t, tests.ConformanceTests))
}

// equip makes what the other cluster has. It goes with the tests where what the suite
// makes in its cluster does.
func equip(t *testing.T, s *suite.ConformanceTestSuite, member client.Client) {
	namespaces := []string{suite.InfrastructureNamespace, suite.AppBackendNamespace}
	applier := kubernetes.Applier{ManifestFS: []fs.FS{&Manifests}}
	for _, ns := range namespaces {
		// The suite has made it, with a key of this run.
		var certificate corev1.Secret
		require.NoError(t, s.Client.Get(t.Context(), types.NamespacedName{Namespace: ns, Name: "tls-passthrough-checks-certificate"}, &certificate))
		certificate.ObjectMeta = metav1.ObjectMeta{Namespace: ns, Name: certificate.Name}
		applier.MustApplyObjectsWithCleanup(t, member, s.TimeoutConfig, []client.Object{
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, &certificate,
		}, s.Cleanup)
	}
	applier.MustApplyWithCleanup(t, member, s.TimeoutConfig, "base/member.yaml", s.Cleanup)
	// Deployments that have no pods yet are not ready either: the tests wait for answers.
	kubernetes.MeshNamespacesMustBeReady(t, member, s.TimeoutConfig, namespaces)
}
