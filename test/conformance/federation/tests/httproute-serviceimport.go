package tests

import (
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func init() { ConformanceTests = append(ConformanceTests, HTTPRouteServiceImport) }

var HTTPRouteServiceImport = suite.ConformanceTest{
	ShortName:   "HTTPRouteServiceImport",
	Description: "An HTTPRoute with a ServiceImport of its namespace as backend reaches the endpoints of the cluster that exports it; one that does not exist is not found",
	Manifests:   []string{"tests/httproute-serviceimport.yaml"},
	Features:    []features.FeatureName{features.SupportGateway, features.SupportHTTPRoute},
	Parallel:    true,
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		routeNN, unknownNN := infra("serviceimport"), infra("serviceimport-nonexistent")
		gwAddr := attached(t, s, sameNamespace, "", &gatewayv1.HTTPRoute{}, routeNN)
		attached(t, s, sameNamespace, "", &gatewayv1.HTTPRoute{}, unknownNN)

		t.Run("An existing ServiceImport is resolved and answers from its cluster", func(t *testing.T) {
			resolvedRefs(t, s, &gatewayv1.HTTPRoute{}, routeNN, gatewayv1.RouteReasonResolvedRefs)
			ask(t, s, gwAddr, "/serviceimport", "member-http", suite.InfrastructureNamespace)
		})
		t.Run("A ServiceImport that does not exist gives BackendNotFound and 500", func(t *testing.T) {
			resolvedRefs(t, s, &gatewayv1.HTTPRoute{}, unknownNN, gatewayv1.RouteReasonBackendNotFound)
			refused(t, s, gwAddr, "/serviceimport-nonexistent", 500)
		})
	},
}

// ask sends HTTP requests to a path until a backend answers three times in a row. An empty
// backend is any.
func ask(t *testing.T, s *suite.ConformanceTestSuite, gwAddr, path, backend, namespace string) {
	t.Helper()
	http.MakeRequestAndExpectEventuallyConsistentResponse(t, s.RoundTripper, s.TimeoutConfig, gwAddr, http.ExpectedResponse{
		Request: http.Request{Path: path}, Response: http.Response{StatusCodes: []int{200}}, Backend: backend, Namespace: namespace,
	})
}

// refused sends HTTP requests to a path until the Gateway itself answers so three times in
// a row.
func refused(t *testing.T, s *suite.ConformanceTestSuite, gwAddr, path string, status int) {
	t.Helper()
	http.MakeRequestAndExpectEventuallyConsistentResponse(t, s.RoundTripper, s.TimeoutConfig, gwAddr, http.ExpectedResponse{
		Request: http.Request{Path: path}, Response: http.Response{StatusCodes: []int{status}},
	})
}

// sample sends one HTTP request and tells which pod has answered.
func sample(t *testing.T, s *suite.ConformanceTestSuite, gwAddr, path string) (string, error) {
	expected := http.ExpectedResponse{Request: http.Request{Path: path}, Response: http.Response{StatusCodes: []int{200}}, Namespace: suite.InfrastructureNamespace}
	if err := http.AddEntropy(&expected); err != nil {
		return "", err
	}
	req := http.MakeRequest(t, &expected, gwAddr, "HTTP", "http")
	cReq, cRes, err := s.RoundTripper.CaptureRoundTrip(req)
	if err != nil {
		return "", err
	}
	if err := http.CompareRoundTrip(t, &req, cReq, cRes, expected); err != nil {
		return "", err
	}
	return cReq.Pod, nil
}
