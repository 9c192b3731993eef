package tests

import (
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/conformance/utils/tcp"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func init() { ConformanceTests = append(ConformanceTests, TCPRouteServiceImportReferenceGrant) }

var TCPRouteServiceImportReferenceGrant = suite.ConformanceTest{
	ShortName:   "TCPRouteServiceImportReferenceGrant",
	Description: "A TCPRoute needs a ReferenceGrant for a ServiceImport of another namespace, which one for the Service of that name is not",
	Manifests:   []string{"tests/tcproute-serviceimport-reference-grant.yaml"},
	Features:    []features.FeatureName{features.SupportGateway, features.SupportTCPRoute, features.SupportReferenceGrant},
	Parallel:    true,
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		gwNN, grantedNN, refusedNN := infra("tcproute-serviceimport-reference-grant"), infra("tcp-serviceimport-granted"), infra("tcp-serviceimport-not-granted")
		ready(t, s)
		granted := attached(t, s, gwNN, "granted", &gatewayv1.TCPRoute{}, grantedNN)
		refused := attached(t, s, gwNN, "refused", &gatewayv1.TCPRoute{}, refusedNN)

		t.Run("A ServiceImport that a ReferenceGrant names is reached", func(t *testing.T) {
			resolvedRefs(t, s, &gatewayv1.TCPRoute{}, grantedNN, gatewayv1.RouteReasonResolvedRefs)
			tcp.MakeTCPRequestAndExpectEventuallyValidResponse(t, s.TimeoutConfig, granted, nil, "", false, tcp.ExpectedResponse{Backend: "member-tcp", Namespace: suite.AppBackendNamespace})
		})
		t.Run("A ReferenceGrant for Services is none for ServiceImports", func(t *testing.T) {
			resolvedRefs(t, s, &gatewayv1.TCPRoute{}, refusedNN, gatewayv1.RouteReasonRefNotPermitted)
			tcpRejected(t, s, refused)
		})
		t.Run("Without its ReferenceGrant a ServiceImport is not reached any more", func(t *testing.T) {
			revoke(t, s, "tcproute-to-serviceimport")
			resolvedRefs(t, s, &gatewayv1.TCPRoute{}, grantedNN, gatewayv1.RouteReasonRefNotPermitted)
			tcpRejected(t, s, granted)
		})
	},
}
