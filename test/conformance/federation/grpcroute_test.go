package federation

import (
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	pb "sigs.k8s.io/gateway-api/conformance/echo-basic/grpcechoserver"
	"sigs.k8s.io/gateway-api/conformance/utils/grpc"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func init() { ConformanceTests = append(ConformanceTests, GRPCRouteServiceImport) }

var GRPCRouteServiceImport = suite.ConformanceTest{
	ShortName:   "GRPCRouteServiceImport",
	Description: "A GRPCRoute reaches ServiceImports of its own namespace, of another by a ReferenceGrant, and beside a Service by weight",
	Manifests:   []string{"tests/grpcroute-serviceimport.yaml"},
	Features:    []features.FeatureName{features.SupportGateway, features.SupportGRPCRoute, features.SupportReferenceGrant},
	Parallel:    true,
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		ns := suite.InfrastructureNamespace
		gwAddr := kubernetes.GatewayAndRoutesMustBeAccepted(t, s.Client, s.TimeoutConfig, s.ControllerName, kubernetes.NewGatewayRef(sameNamespace), &gatewayv1.GRPCRoute{}, true,
			types.NamespacedName{Namespace: ns, Name: "grpc-serviceimport"}, types.NamespacedName{Namespace: ns, Name: "grpc-serviceimport-weight"})
		host := func(authority string) *grpc.RequestMetadata { return &grpc.RequestMetadata{Authority: authority} }
		for _, want := range []grpc.ExpectedResponse{
			{EchoRequest: &pb.EchoRequest{}, Backend: "member-grpc", Namespace: ns},
			{EchoTwoRequest: &pb.EchoRequest{}, Backend: "member-grpc", Namespace: suite.AppBackendNamespace},
		} {
			want.RequestMetadata = host("serviceimport.grpc.example.com")
			grpc.MakeRequestAndExpectEventuallyConsistentResponse(t, s.GRPCClient, s.TimeoutConfig, gwAddr, want)
		}
		expected := grpc.ExpectedResponse{EchoRequest: &pb.EchoRequest{}, RequestMetadata: host("serviceimport-weight.grpc.example.com"), Response: grpc.Response{Code: codes.OK}, Namespace: ns}
		grpc.MakeRequestAndExpectEventuallyConsistentResponse(t, s.GRPCClient, s.TimeoutConfig, gwAddr, expected)
		distributed(t, map[string]float64{"grpc-infra-backend-v1": 0.7, "member-grpc": 0.3}, func() (string, error) {
			c := &grpc.DefaultClient{}
			defer c.Close()
			r, err := c.SendRPC(t, gwAddr, expected, s.TimeoutConfig.MaxTimeToConsistency)
			if err != nil {
				return "", err
			}
			if r.Code != codes.OK {
				return "", fmt.Errorf("answered with %v", r.Code)
			}
			return r.Response.GetAssertions().GetContext().GetPod(), nil
		})
	},
}
