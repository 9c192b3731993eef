package tests

import (
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func init() { ConformanceTests = append(ConformanceTests, HTTPRouteServiceImportReferenceGrant) }

var HTTPRouteServiceImportReferenceGrant = suite.ConformanceTest{
	ShortName:   "HTTPRouteServiceImportReferenceGrant",
	Description: "An HTTPRoute needs a ReferenceGrant for a ServiceImport of another namespace, which one for the Service of that name is not",
	Manifests:   []string{"tests/httproute-serviceimport-reference-grant.yaml"},
	Features:    []features.FeatureName{features.SupportGateway, features.SupportHTTPRoute, features.SupportReferenceGrant},
	Parallel:    true,
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		grantedNN, refusedNN := infra("serviceimport-granted"), infra("serviceimport-not-granted")
		gwAddr := attached(t, s, sameNamespace, "", &gatewayv1.HTTPRoute{}, grantedNN)
		attached(t, s, sameNamespace, "", &gatewayv1.HTTPRoute{}, refusedNN)

		t.Run("A ServiceImport that a ReferenceGrant names is reached", func(t *testing.T) {
			resolvedRefs(t, s, &gatewayv1.HTTPRoute{}, grantedNN, gatewayv1.RouteReasonResolvedRefs)
			ask(t, s, gwAddr, "/serviceimport-granted", "member-http", suite.AppBackendNamespace)
		})
		t.Run("A ReferenceGrant for Services is none for ServiceImports", func(t *testing.T) {
			resolvedRefs(t, s, &gatewayv1.HTTPRoute{}, refusedNN, gatewayv1.RouteReasonRefNotPermitted)
			refused(t, s, gwAddr, "/serviceimport-not-granted", 500)
		})
		t.Run("Without its ReferenceGrant a ServiceImport is not reached any more", func(t *testing.T) {
			revoke(t, s, "httproute-to-serviceimport")
			resolvedRefs(t, s, &gatewayv1.HTTPRoute{}, grantedNN, gatewayv1.RouteReasonRefNotPermitted)
			refused(t, s, gwAddr, "/serviceimport-granted", 500)
		})
	},
}
