package tests

import (
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/conformance/utils/tcp"
	"sigs.k8s.io/gateway-api/conformance/utils/tls"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func init() { ConformanceTests = append(ConformanceTests, TLSRouteServiceImport) }

var TLSRouteServiceImport = suite.ConformanceTest{
	ShortName:   "TLSRouteServiceImport",
	Description: "A TLSRoute with a ServiceImport of its namespace as backend passes connections through to the endpoints of the cluster that exports it; one that does not exist is not found",
	Manifests:   []string{"tests/tlsroute-serviceimport.yaml"},
	Features:    []features.FeatureName{features.SupportGateway, features.SupportTLSRoute},
	Parallel:    true,
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		gwNN, routeNN, unknownNN := infra("tlsroute-serviceimport"), infra("tls-serviceimport"), infra("tls-serviceimport-nonexistent")
		authority := passthroughAuthority(t, s)
		ready(t, s)
		known := attached(t, s, gwNN, "known", &gatewayv1.TLSRoute{}, routeNN)
		unknown := attached(t, s, gwNN, "unknown", &gatewayv1.TLSRoute{}, unknownNN)

		t.Run("An existing ServiceImport is resolved and answers from its cluster", func(t *testing.T) {
			resolvedRefs(t, s, &gatewayv1.TLSRoute{}, routeNN, gatewayv1.RouteReasonResolvedRefs)
			tcp.MakeTCPRequestAndExpectEventuallyValidResponse(t, s.TimeoutConfig, known, authority, passthroughName, true,
				tcp.ExpectedResponse{BackendIsTLS: true, Backend: "member-tcp", Namespace: suite.InfrastructureNamespace, Hostname: passthroughName})
		})
		t.Run("A ServiceImport that does not exist gives BackendNotFound, and connections are rejected", func(t *testing.T) {
			resolvedRefs(t, s, &gatewayv1.TLSRoute{}, unknownNN, gatewayv1.RouteReasonBackendNotFound)
			tls.MakeTLSConnectionAndExpectEventuallyConnectionRejection(t, s.TimeoutConfig, unknown, passthroughName)
		})
	},
}
