package tests

import (
	"testing"

	"google.golang.org/grpc/codes"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func init() { ConformanceTests = append(ConformanceTests, GRPCRouteServiceImportReferenceGrant) }

var GRPCRouteServiceImportReferenceGrant = suite.ConformanceTest{
	ShortName:   "GRPCRouteServiceImportReferenceGrant",
	Description: "A GRPCRoute needs a ReferenceGrant for a ServiceImport of another namespace, which one for the Service of that name is not",
	Manifests:   []string{"tests/grpcroute-serviceimport-reference-grant.yaml"},
	Features:    []features.FeatureName{features.SupportGateway, features.SupportGRPCRoute, features.SupportReferenceGrant},
	Parallel:    true,
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		grantedNN, refusedNN := infra("grpc-serviceimport-granted"), infra("grpc-serviceimport-not-granted")
		gwAddr := attached(t, s, sameNamespace, "", &gatewayv1.GRPCRoute{}, grantedNN)
		attached(t, s, sameNamespace, "", &gatewayv1.GRPCRoute{}, refusedNN)

		t.Run("A ServiceImport that a ReferenceGrant names is reached", func(t *testing.T) {
			resolvedRefs(t, s, &gatewayv1.GRPCRoute{}, grantedNN, gatewayv1.RouteReasonResolvedRefs)
			call(t, s, gwAddr, "serviceimport-granted.grpc.example.com", codes.OK, "member-grpc", suite.AppBackendNamespace)
		})
		t.Run("A ReferenceGrant for Services is none for ServiceImports", func(t *testing.T) {
			resolvedRefs(t, s, &gatewayv1.GRPCRoute{}, refusedNN, gatewayv1.RouteReasonRefNotPermitted)
			call(t, s, gwAddr, "serviceimport-not-granted.grpc.example.com", codes.Unavailable, "", "")
		})
		t.Run("Without its ReferenceGrant a ServiceImport is not reached any more", func(t *testing.T) {
			revoke(t, s, "grpcroute-to-serviceimport")
			resolvedRefs(t, s, &gatewayv1.GRPCRoute{}, grantedNN, gatewayv1.RouteReasonRefNotPermitted)
			call(t, s, gwAddr, "serviceimport-granted.grpc.example.com", codes.Unavailable, "", "")
		})
	},
}
