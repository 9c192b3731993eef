package tests

import (
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/conformance/utils/udp"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func init() { ConformanceTests = append(ConformanceTests, UDPRouteServiceImportReferenceGrant) }

var UDPRouteServiceImportReferenceGrant = suite.ConformanceTest{
	ShortName:   "UDPRouteServiceImportReferenceGrant",
	Description: "A UDPRoute needs a ReferenceGrant for a ServiceImport of another namespace, which one for the Service of that name is not",
	Manifests:   []string{"tests/udproute-serviceimport-reference-grant.yaml"},
	Features:    []features.FeatureName{features.SupportGateway, features.SupportUDPRoute, features.SupportReferenceGrant},
	Parallel:    true,
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		gwNN, grantedNN, refusedNN := infra("udproute-serviceimport-reference-grant"), infra("udp-serviceimport-granted"), infra("udp-serviceimport-not-granted")
		ready(t, s)
		granted := attached(t, s, gwNN, "granted", &gatewayv1.UDPRoute{}, grantedNN)
		refused := attached(t, s, gwNN, "refused", &gatewayv1.UDPRoute{}, refusedNN)

		t.Run("A ServiceImport that a ReferenceGrant names is reached", func(t *testing.T) {
			resolvedRefs(t, s, &gatewayv1.UDPRoute{}, grantedNN, gatewayv1.RouteReasonResolvedRefs)
			udp.ExpectEchoResponseFromBackend(t, s.TimeoutConfig.MaxTimeToConsistency, granted, udp.ExpectedResponse{Service: "member-udp", Namespace: suite.AppBackendNamespace})
		})
		t.Run("A ReferenceGrant for Services is none for ServiceImports", func(t *testing.T) {
			resolvedRefs(t, s, &gatewayv1.UDPRoute{}, refusedNN, gatewayv1.RouteReasonRefNotPermitted)
			unanswered(t, s, refused)
		})
		t.Run("Without its ReferenceGrant a ServiceImport is not reached any more", func(t *testing.T) {
			revoke(t, s, "udproute-to-serviceimport")
			resolvedRefs(t, s, &gatewayv1.UDPRoute{}, grantedNN, gatewayv1.RouteReasonRefNotPermitted)
			unanswered(t, s, granted)
		})
	},
}
