package tests

import (
	"testing"

	"google.golang.org/grpc/codes"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func init() { ConformanceTests = append(ConformanceTests, GRPCRouteServiceImportWeight) }

var GRPCRouteServiceImportWeight = suite.ConformanceTest{
	ShortName:   "GRPCRouteServiceImportWeight",
	Description: "A Service of the Gateway's cluster and a ServiceImport of another share the calls of a GRPCRoute by their weights",
	Manifests:   []string{"tests/grpcroute-serviceimport-weight.yaml"},
	Features:    []features.FeatureName{features.SupportGateway, features.SupportGRPCRoute},
	Parallel:    true,
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		const host = "serviceimport-weight.grpc.example.com"
		routeNN := infra("grpc-serviceimport-weight")
		gwAddr := attached(t, s, sameNamespace, "", &gatewayv1.GRPCRoute{}, routeNN)
		resolvedRefs(t, s, &gatewayv1.GRPCRoute{}, routeNN, gatewayv1.RouteReasonResolvedRefs)
		call(t, s, gwAddr, host, codes.OK, "", suite.InfrastructureNamespace)
		distributed(t, map[string]float64{"grpc-infra-backend-v1": 0.7, "member-grpc": 0.3}, func() (string, error) {
			return sampleGRPC(t, s, gwAddr, host)
		})
	},
}
