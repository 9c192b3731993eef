package federation

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/conformance/utils/tcp"
	"sigs.k8s.io/gateway-api/conformance/utils/udp"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func init() {
	ConformanceTests = append(ConformanceTests, TLSRouteServiceImport, TCPRouteServiceImport, UDPRouteServiceImport)
}

// revoked takes a ReferenceGrant away, and waits until a route says so.
func revoked(t *testing.T, s *suite.ConformanceTestSuite, grant string, route client.Object, routeNN, gwNN types.NamespacedName) {
	t.Helper()
	require.NoError(t, s.Client.Delete(t.Context(), &gatewayv1.ReferenceGrant{ObjectMeta: metav1.ObjectMeta{Namespace: suite.AppBackendNamespace, Name: grant}}))
	resolved(t, s.Client, s.TimeoutConfig, route, routeNN, gwNN, metav1.ConditionFalse, gatewayv1.RouteReasonRefNotPermitted)
}

// streams is what the tests of TLSRoutes, TCPRoutes and UDPRoutes have in common: a Gateway,
// and routes of the same listeners.
type streams struct {
	gwNN, sameNN, crossNN types.NamespacedName
}

func newStreams(gateway, route string) streams {
	in := func(name string) types.NamespacedName {
		return types.NamespacedName{Namespace: suite.InfrastructureNamespace, Name: name}
	}
	return streams{in(gateway), in(route), in(route + "-granted")}
}

// ready waits for the routes, and gives the address of a listener.
func (x streams) ready(t *testing.T, s *suite.ConformanceTestSuite, route client.Object) func(listener string) string {
	t.Helper()
	kubernetes.NamespacesMustBeReady(t, s.Client, s.TimeoutConfig, []string{suite.InfrastructureNamespace})
	for _, routeNN := range []types.NamespacedName{x.sameNN, x.crossNN} {
		resolved(t, s.Client, s.TimeoutConfig, route, routeNN, x.gwNN, metav1.ConditionTrue, gatewayv1.RouteReasonResolvedRefs)
	}
	return func(listener string) string {
		gwAddr, err := kubernetes.WaitForGatewayAddress(t, s.Client, s.TimeoutConfig, kubernetes.NewGatewayRef(x.gwNN, listener))
		require.NoError(t, err)
		return gwAddr
	}
}

var TLSRouteServiceImport = suite.ConformanceTest{
	ShortName:   "TLSRouteServiceImport",
	Description: "A TLSRoute passes connections through to ServiceImports of its own namespace, and of another by a ReferenceGrant",
	Manifests:   []string{"tests/tlsroute-serviceimport.yaml"},
	Features:    []features.FeatureName{features.SupportGateway, features.SupportTLSRoute, features.SupportReferenceGrant},
	Parallel:    true,
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		x := newStreams("tlsroute-serviceimport", "tls-serviceimport")
		address := x.ready(t, s, &gatewayv1.TLSRoute{})
		authority, err := kubernetes.GetConfigMapData(s.Client, s.TimeoutConfig, types.NamespacedName{Namespace: suite.InfrastructureNamespace, Name: "tls-checks-ca-certificate"})
		require.NoError(t, err)
		const name = "abc.example.com"
		for listener, ns := range map[string]string{"same": suite.InfrastructureNamespace, "cross": suite.AppBackendNamespace} {
			tcp.MakeTCPRequestAndExpectEventuallyValidResponse(t, s.TimeoutConfig, address(listener), []byte(authority["ca.crt"]), name, true,
				tcp.ExpectedResponse{BackendIsTLS: true, Backend: "member-tcp", Namespace: ns, Hostname: name})
		}
		revoked(t, s, "tlsroute-to-serviceimport", &gatewayv1.TLSRoute{}, x.crossNN, x.gwNN)
	},
}

var TCPRouteServiceImport = suite.ConformanceTest{
	ShortName:   "TCPRouteServiceImport",
	Description: "A TCPRoute reaches ServiceImports of its own namespace, of another by a ReferenceGrant, and beside a Service by weight",
	Manifests:   []string{"tests/tcproute-serviceimport.yaml"},
	Features:    []features.FeatureName{features.SupportGateway, features.SupportTCPRoute, features.SupportReferenceGrant},
	Parallel:    true,
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		x := newStreams("tcproute-serviceimport", "tcp-serviceimport")
		address := x.ready(t, s, &gatewayv1.TCPRoute{})
		for listener, ns := range map[string]string{"same": suite.InfrastructureNamespace, "cross": suite.AppBackendNamespace} {
			tcp.MakeTCPRequestAndExpectEventuallyValidResponse(t, s.TimeoutConfig, address(listener), nil, "", false, tcp.ExpectedResponse{Backend: "member-tcp", Namespace: ns})
		}
		weighted := address("weight")
		require.Eventually(t, func() bool {
			_, err := tcp.EchoSendOnce(t.Context(), weighted, 5*time.Second)
			return err == nil
		}, s.TimeoutConfig.MaxTimeToConsistency, s.TimeoutConfig.DefaultPollInterval)
		distributed(t, map[string]float64{"tcp-backend": 0.7, "member-tcp": 0.3}, func() (string, error) { return tcp.EchoSendOnce(t.Context(), weighted, 5*time.Second) })
		revoked(t, s, "tcproute-to-serviceimport", &gatewayv1.TCPRoute{}, x.crossNN, x.gwNN)
	},
}

var UDPRouteServiceImport = suite.ConformanceTest{
	ShortName:   "UDPRouteServiceImport",
	Description: "A UDPRoute reaches ServiceImports of its own namespace, and of another by a ReferenceGrant",
	Manifests:   []string{"tests/udproute-serviceimport.yaml"},
	Features:    []features.FeatureName{features.SupportGateway, features.SupportUDPRoute, features.SupportReferenceGrant},
	Parallel:    true,
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		x := newStreams("udproute-serviceimport", "udp-serviceimport")
		address := x.ready(t, s, &gatewayv1.UDPRoute{})
		for listener, ns := range map[string]string{"same": suite.InfrastructureNamespace, "cross": suite.AppBackendNamespace} {
			udp.ExpectEchoResponseFromBackend(t, s.TimeoutConfig.DefaultTestTimeout, address(listener), udp.ExpectedResponse{Service: "member-udp", Namespace: ns})
		}
		revoked(t, s, "udproute-to-serviceimport", &gatewayv1.UDPRoute{}, x.crossNN, x.gwNN)
	},
}
