package tests

import (
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/conformance/utils/tcp"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func init() { ConformanceTests = append(ConformanceTests, TCPRouteServiceImport) }

var TCPRouteServiceImport = suite.ConformanceTest{
	ShortName:   "TCPRouteServiceImport",
	Description: "A TCPRoute with a ServiceImport of its namespace as backend reaches the endpoints of the cluster that exports it; one that does not exist is not found",
	Manifests:   []string{"tests/tcproute-serviceimport.yaml"},
	Features:    []features.FeatureName{features.SupportGateway, features.SupportTCPRoute},
	Parallel:    true,
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		gwNN, routeNN, unknownNN := infra("tcproute-serviceimport"), infra("tcp-serviceimport"), infra("tcp-serviceimport-nonexistent")
		ready(t, s)
		known := attached(t, s, gwNN, "known", &gatewayv1.TCPRoute{}, routeNN)
		unknown := attached(t, s, gwNN, "unknown", &gatewayv1.TCPRoute{}, unknownNN)

		t.Run("An existing ServiceImport is resolved and answers from its cluster", func(t *testing.T) {
			resolvedRefs(t, s, &gatewayv1.TCPRoute{}, routeNN, gatewayv1.RouteReasonResolvedRefs)
			tcp.MakeTCPRequestAndExpectEventuallyValidResponse(t, s.TimeoutConfig, known, nil, "", false, tcp.ExpectedResponse{Backend: "member-tcp", Namespace: suite.InfrastructureNamespace})
		})
		t.Run("A ServiceImport that does not exist gives BackendNotFound, and connections are rejected", func(t *testing.T) {
			resolvedRefs(t, s, &gatewayv1.TCPRoute{}, unknownNN, gatewayv1.RouteReasonBackendNotFound)
			tcpRejected(t, s, unknown)
		})
	},
}
