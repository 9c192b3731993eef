package tests

import (
	"net"
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/conformance/utils/tcp"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func init() { ConformanceTests = append(ConformanceTests, TCPRouteServiceImportWeight) }

var TCPRouteServiceImportWeight = suite.ConformanceTest{
	ShortName:   "TCPRouteServiceImportWeight",
	Description: "A Service of the Gateway's cluster and a ServiceImport of another share the connections of a TCPRoute by their weights",
	Manifests:   []string{"tests/tcproute-serviceimport-weight.yaml"},
	Features:    []features.FeatureName{features.SupportGateway, features.SupportTCPRoute},
	Parallel:    true,
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		gwNN, routeNN := infra("tcproute-serviceimport-weight"), infra("tcp-serviceimport-weight")
		ready(t, s)
		gwAddr := attached(t, s, gwNN, "weight", &gatewayv1.TCPRoute{}, routeNN)
		resolvedRefs(t, s, &gatewayv1.TCPRoute{}, routeNN, gatewayv1.RouteReasonResolvedRefs)
		tcp.ExpectEchoResponse(t, s.TimeoutConfig, gwAddr)
		distributed(t, map[string]float64{"tcp-backend": 0.7, "member-tcp": 0.3}, func() (string, error) {
			return echoed(t.Context(), &net.Dialer{}, gwAddr, s.TimeoutConfig.RequestTimeout)
		})
	},
}
