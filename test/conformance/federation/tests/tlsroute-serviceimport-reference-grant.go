package tests

import (
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/conformance/utils/tcp"
	"sigs.k8s.io/gateway-api/conformance/utils/tls"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func init() { ConformanceTests = append(ConformanceTests, TLSRouteServiceImportReferenceGrant) }

var TLSRouteServiceImportReferenceGrant = suite.ConformanceTest{
	ShortName:   "TLSRouteServiceImportReferenceGrant",
	Description: "A TLSRoute needs a ReferenceGrant for a ServiceImport of another namespace, which one for the Service of that name is not",
	Manifests:   []string{"tests/tlsroute-serviceimport-reference-grant.yaml"},
	Features:    []features.FeatureName{features.SupportGateway, features.SupportTLSRoute, features.SupportReferenceGrant},
	Parallel:    true,
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		gwNN, grantedNN, refusedNN := infra("tlsroute-serviceimport-reference-grant"), infra("tls-serviceimport-granted"), infra("tls-serviceimport-not-granted")
		authority := passthroughAuthority(t, s)
		ready(t, s)
		granted := attached(t, s, gwNN, "granted", &gatewayv1.TLSRoute{}, grantedNN)
		refused := attached(t, s, gwNN, "refused", &gatewayv1.TLSRoute{}, refusedNN)

		t.Run("A ServiceImport that a ReferenceGrant names is reached", func(t *testing.T) {
			resolvedRefs(t, s, &gatewayv1.TLSRoute{}, grantedNN, gatewayv1.RouteReasonResolvedRefs)
			tcp.MakeTCPRequestAndExpectEventuallyValidResponse(t, s.TimeoutConfig, granted, authority, passthroughName, true,
				tcp.ExpectedResponse{BackendIsTLS: true, Backend: "member-tcp", Namespace: suite.AppBackendNamespace, Hostname: passthroughName})
		})
		t.Run("A ReferenceGrant for Services is none for ServiceImports", func(t *testing.T) {
			resolvedRefs(t, s, &gatewayv1.TLSRoute{}, refusedNN, gatewayv1.RouteReasonRefNotPermitted)
			tls.MakeTLSConnectionAndExpectEventuallyConnectionRejection(t, s.TimeoutConfig, refused, passthroughName)
		})
		t.Run("Without its ReferenceGrant a ServiceImport is not reached any more", func(t *testing.T) {
			revoke(t, s, "tlsroute-to-serviceimport")
			resolvedRefs(t, s, &gatewayv1.TLSRoute{}, grantedNN, gatewayv1.RouteReasonRefNotPermitted)
			tls.MakeTLSConnectionAndExpectEventuallyConnectionRejection(t, s.TimeoutConfig, granted, passthroughName)
		})
	},
}
