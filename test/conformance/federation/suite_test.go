package federation

import (
	"embed"
	"io/fs"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/utils/config"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"

	"github.com/causeway-mesh/causeway/test/conformance/fleet"
	"github.com/causeway-mesh/causeway/test/conformance/gateway/upstream"
	"github.com/causeway-mesh/causeway/test/lab"
)

//go:embed base tests
var manifests embed.FS

// ConformanceTests are all of them, in the order of the files.
var ConformanceTests []suite.ConformanceTest

func TestFederation(t *testing.T) {
	f := fleet.Start(t, fleet.Options{Networks: []string{"one", "two"}, CRDs: lab.CRDs{GatewayAPI: lab.Standard, MCS: true}})
	upstream.Load(t, f.Clusters...)
	upstream.Classify(t, f.Clusters[0])
	o := upstream.Options(t, f.Clusters[0])
	o.ManifestFS = []fs.FS{&conformance.Manifests, &manifests}
	s, err := suite.NewConformanceTestSuite(o)
	require.NoError(t, err)
	s.Setup(t, ConformanceTests)
	member, err := client.New(f.Clusters[1].Config, client.Options{Scheme: s.Client.Scheme()})
	require.NoError(t, err)
	equip(t, s, member)
	require.NoError(t, s.Run(t, ConformanceTests))
}

// equip makes what the other cluster has.
func equip(t *testing.T, s *suite.ConformanceTestSuite, member client.Client) {
	namespaces := []string{suite.InfrastructureNamespace, suite.AppBackendNamespace}
	for _, ns := range namespaces {
		require.NoError(t, member.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}))
		// The suite has made it, with a key of this run.
		var certificate corev1.Secret
		require.NoError(t, s.Client.Get(t.Context(), types.NamespacedName{Namespace: ns, Name: "tls-passthrough-checks-certificate"}, &certificate))
		certificate.ObjectMeta = metav1.ObjectMeta{Namespace: ns, Name: certificate.Name}
		require.NoError(t, member.Create(t.Context(), &certificate))
	}
	kubernetes.Applier{ManifestFS: []fs.FS{&manifests}}.MustApplyWithCleanup(t, member, s.TimeoutConfig, "base/member.yaml", false)
	kubernetes.NamespacesMustBeReady(t, member, s.TimeoutConfig, namespaces)
}

// resolved waits until a route's references are found, be the imports still on their way
// when it is made.
func resolved(t *testing.T, c client.Client, timeouts config.TimeoutConfig, route client.Object, routeNN, gwNN types.NamespacedName, status metav1.ConditionStatus, reason gatewayv1.RouteConditionReason) {
	t.Helper()
	want := metav1.Condition{Type: string(gatewayv1.RouteConditionResolvedRefs), Status: status, Reason: string(reason)}
	switch route.(type) {
	case *gatewayv1.HTTPRoute:
		kubernetes.HTTPRouteMustHaveCondition(t, c, timeouts, routeNN, gwNN, want)
	case *gatewayv1.TLSRoute:
		kubernetes.TLSRouteMustHaveCondition(t, c, timeouts, routeNN, gwNN, want)
	case *gatewayv1.TCPRoute:
		kubernetes.TCPRouteMustHaveCondition(t, c, timeouts, routeNN, gwNN, want)
	case *gatewayv1.UDPRoute:
		kubernetes.UDPRouteMustHaveCondition(t, c, timeouts, routeNN, gwNN, want)
	default:
		t.Fatalf("no route: %T", route)
	}
}
