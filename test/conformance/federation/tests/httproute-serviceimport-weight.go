package tests

import (
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func init() { ConformanceTests = append(ConformanceTests, HTTPRouteServiceImportWeight) }

var HTTPRouteServiceImportWeight = suite.ConformanceTest{
	ShortName:   "HTTPRouteServiceImportWeight",
	Description: "A Service of the Gateway's cluster and a ServiceImport of another share the requests of an HTTPRoute by their weights",
	Manifests:   []string{"tests/httproute-serviceimport-weight.yaml"},
	Features:    []features.FeatureName{features.SupportGateway, features.SupportHTTPRoute},
	Parallel:    true,
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		routeNN := infra("serviceimport-weight")
		gwAddr := attached(t, s, sameNamespace, "", &gatewayv1.HTTPRoute{}, routeNN)
		resolvedRefs(t, s, &gatewayv1.HTTPRoute{}, routeNN, gatewayv1.RouteReasonResolvedRefs)
		ask(t, s, gwAddr, "/serviceimport-weight", "", suite.InfrastructureNamespace)
		distributed(t, map[string]float64{suite.InfraBackendServiceNameV1: 0.7, "member-http": 0.3}, func() (string, error) {
			return sample(t, s, gwAddr, "/serviceimport-weight")
		})
	},
}
