package tests

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func init() { ConformanceTests = append(ConformanceTests, HTTPRouteServiceImportSpansClusters) }

var HTTPRouteServiceImportSpansClusters = suite.ConformanceTest{
	ShortName:   "HTTPRouteServiceImportSpansClusters",
	Description: "Of a Service that two clusters export, a Service as backend means the endpoints of the Gateway's cluster, a ServiceImport those of both",
	Manifests:   []string{"tests/httproute-serviceimport-spans-clusters.yaml"},
	Features:    []features.FeatureName{features.SupportGateway, features.SupportHTTPRoute},
	Parallel:    true,
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		routeNN := infra("serviceimport-spans-clusters")
		gwAddr := attached(t, s, sameNamespace, "", &gatewayv1.HTTPRoute{}, routeNN)
		resolvedRefs(t, s, &gatewayv1.HTTPRoute{}, routeNN, gatewayv1.RouteReasonResolvedRefs)

		t.Run("The Service is the endpoints of its own cluster", func(t *testing.T) {
			ask(t, s, gwAddr, "/spanning-serviceimport", "", suite.InfrastructureNamespace)
			ask(t, s, gwAddr, "/spanning-service", "spanning-local", suite.InfrastructureNamespace)
			for i := range 50 {
				pod, err := sample(t, s, gwAddr, "/spanning-service")
				require.NoError(t, err, "request %d", i)
				require.True(t, strings.HasPrefix(pod, "spanning-local-"), "request %d to the Service was answered by %s", i, pod)
			}
		})
		t.Run("The ServiceImport goes on in the other cluster when this one has no endpoint", func(t *testing.T) {
			var local appsv1.Deployment
			require.NoError(t, s.Client.Get(t.Context(), infra("spanning-local"), &local))
			none := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":0}}`))
			require.NoError(t, s.Client.Patch(t.Context(), &local, none))
			ask(t, s, gwAddr, "/spanning-serviceimport", "spanning-member", suite.InfrastructureNamespace)
			refused(t, s, gwAddr, "/spanning-service", 503)
		})
	},
}
