package tests

import (
	"testing"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/conformance/utils/udp"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func init() { ConformanceTests = append(ConformanceTests, UDPRouteServiceImportWeight) }

var UDPRouteServiceImportWeight = suite.ConformanceTest{
	ShortName:   "UDPRouteServiceImportWeight",
	Description: "A Service of the Gateway's cluster and a ServiceImport of another share the datagrams of a UDPRoute by their weights",
	Manifests:   []string{"tests/udproute-serviceimport-weight.yaml"},
	Features:    []features.FeatureName{features.SupportGateway, features.SupportUDPRoute},
	Parallel:    true,
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		gwNN, routeNN := infra("udproute-serviceimport-weight"), infra("udp-serviceimport-weight")
		ready(t, s)
		gwAddr := attached(t, s, gwNN, "weight", &gatewayv1.UDPRoute{}, routeNN)
		resolvedRefs(t, s, &gatewayv1.UDPRoute{}, routeNN, gatewayv1.RouteReasonResolvedRefs)
		udp.ExpectEchoResponse(t, s.TimeoutConfig.MaxTimeToConsistency, gwAddr)
		distributed(t, map[string]float64{"udp-serviceimport-local": 0.7, "member-udp": 0.3}, func() (string, error) {
			return datagram(t.Context(), gwAddr, 10*time.Second)
		})
	},
}
