package tests

import (
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	pb "sigs.k8s.io/gateway-api/conformance/echo-basic/grpcechoserver"
	"sigs.k8s.io/gateway-api/conformance/utils/grpc"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func init() { ConformanceTests = append(ConformanceTests, GRPCRouteServiceImport) }

var GRPCRouteServiceImport = suite.ConformanceTest{
	ShortName:   "GRPCRouteServiceImport",
	Description: "A GRPCRoute with a ServiceImport of its namespace as backend reaches the endpoints of the cluster that exports it; one that does not exist is not found",
	Manifests:   []string{"tests/grpcroute-serviceimport.yaml"},
	Features:    []features.FeatureName{features.SupportGateway, features.SupportGRPCRoute},
	Parallel:    true,
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		routeNN, unknownNN := infra("grpc-serviceimport"), infra("grpc-serviceimport-nonexistent")
		gwAddr := attached(t, s, sameNamespace, "", &gatewayv1.GRPCRoute{}, routeNN)
		attached(t, s, sameNamespace, "", &gatewayv1.GRPCRoute{}, unknownNN)

		t.Run("An existing ServiceImport is resolved and answers from its cluster", func(t *testing.T) {
			resolvedRefs(t, s, &gatewayv1.GRPCRoute{}, routeNN, gatewayv1.RouteReasonResolvedRefs)
			call(t, s, gwAddr, "serviceimport.grpc.example.com", codes.OK, "member-grpc", suite.InfrastructureNamespace)
		})
		t.Run("A ServiceImport that does not exist gives BackendNotFound and UNAVAILABLE", func(t *testing.T) {
			resolvedRefs(t, s, &gatewayv1.GRPCRoute{}, unknownNN, gatewayv1.RouteReasonBackendNotFound)
			call(t, s, gwAddr, "serviceimport-nonexistent.grpc.example.com", codes.Unavailable, "", "")
		})
	},
}

// echo is a call of a host, and what is to come of it.
func echo(host string, code codes.Code, backend, namespace string) grpc.ExpectedResponse {
	return grpc.ExpectedResponse{
		EchoRequest: &pb.EchoRequest{}, RequestMetadata: &grpc.RequestMetadata{Authority: host},
		Response: grpc.Response{Code: code}, Backend: backend, Namespace: namespace,
	}
}

// call calls a host until it has answered so three times in a row.
func call(t *testing.T, s *suite.ConformanceTestSuite, gwAddr, host string, code codes.Code, backend, namespace string) {
	t.Helper()
	grpc.MakeRequestAndExpectEventuallyConsistentResponse(t, s.GRPCClient, s.TimeoutConfig, gwAddr, echo(host, code, backend, namespace))
}

// sampleGRPC calls a host once and tells which pod has answered.
func sampleGRPC(t *testing.T, s *suite.ConformanceTestSuite, gwAddr, host string) (string, error) {
	expected := echo(host, codes.OK, "", suite.InfrastructureNamespace)
	if err := grpc.AddEntropy(&expected); err != nil {
		return "", err
	}
	c := s.GRPCClient
	if c == nil {
		own := &grpc.DefaultClient{}
		defer own.Close()
		c = own
	}
	r, err := c.SendRPC(t, gwAddr, expected, s.TimeoutConfig.MaxTimeToConsistency)
	if err != nil {
		return "", err
	}
	if r.Code != codes.OK {
		return "", fmt.Errorf("answered with %v", r.Code)
	}
	return r.Response.GetAssertions().GetContext().GetPod(), nil
}
