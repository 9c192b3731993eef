package tests

import (
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/conformance/utils/udp"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func init() { ConformanceTests = append(ConformanceTests, UDPRouteServiceImport) }

var UDPRouteServiceImport = suite.ConformanceTest{
	ShortName:   "UDPRouteServiceImport",
	Description: "A UDPRoute with a ServiceImport of its namespace as backend reaches the endpoints of the cluster that exports it; one that does not exist is not found",
	Manifests:   []string{"tests/udproute-serviceimport.yaml"},
	Features:    []features.FeatureName{features.SupportGateway, features.SupportUDPRoute},
	Parallel:    true,
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		gwNN, routeNN, unknownNN := infra("udproute-serviceimport"), infra("udp-serviceimport"), infra("udp-serviceimport-nonexistent")
		ready(t, s)
		known := attached(t, s, gwNN, "known", &gatewayv1.UDPRoute{}, routeNN)
		unknown := attached(t, s, gwNN, "unknown", &gatewayv1.UDPRoute{}, unknownNN)

		t.Run("An existing ServiceImport is resolved and answers from its cluster", func(t *testing.T) {
			resolvedRefs(t, s, &gatewayv1.UDPRoute{}, routeNN, gatewayv1.RouteReasonResolvedRefs)
			udp.ExpectEchoResponseFromBackend(t, s.TimeoutConfig.MaxTimeToConsistency, known, udp.ExpectedResponse{Service: "member-udp", Namespace: suite.InfrastructureNamespace})
		})
		t.Run("A ServiceImport that does not exist gives BackendNotFound, and datagrams are dropped", func(t *testing.T) {
			resolvedRefs(t, s, &gatewayv1.UDPRoute{}, unknownNN, gatewayv1.RouteReasonBackendNotFound)
			unanswered(t, s, unknown)
		})
	},
}
