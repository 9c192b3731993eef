package federation

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/conformance/utils/weight"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func init() {
	ConformanceTests = append(ConformanceTests, HTTPRouteServiceImport, HTTPRouteServiceImportReferenceGrant, HTTPRouteServiceImportWeight, HTTPRouteServiceImportSpansClusters)
}

var sameNamespace = types.NamespacedName{Namespace: suite.InfrastructureNamespace, Name: "same-namespace"}

// accepted waits for the HTTPRoutes, and gives the address of their Gateway.
func accepted(t *testing.T, s *suite.ConformanceTestSuite, routes ...types.NamespacedName) string {
	t.Helper()
	return kubernetes.GatewayAndHTTPRoutesMustBeAccepted(t, s.Client, s.TimeoutConfig, s.ControllerName, kubernetes.NewGatewayRef(sameNamespace), routes...)
}

// ask sends requests to a path until they are answered so, three times in a row.
func ask(t *testing.T, s *suite.ConformanceTestSuite, gwAddr, path, backend, namespace string, status int) {
	t.Helper()
	http.MakeRequestAndExpectEventuallyConsistentResponse(t, s.RoundTripper, s.TimeoutConfig, gwAddr, http.ExpectedResponse{
		Request: http.Request{Path: path}, Response: http.Response{StatusCodes: []int{status}}, Backend: backend, Namespace: namespace,
	})
}

// sample sends one request and tells which pod has answered.
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

// distributed holds samples to the weights that they should come by.
func distributed(t *testing.T, weights map[string]float64, sample func() (string, error)) {
	t.Helper()
	var err error
	for range weight.MaxTestRetries {
		if err = weight.TestWeightedDistribution(weight.NewFunctionBasedSender(sample), weights); err == nil {
			return
		}
		t.Log(err)
	}
	t.Fatal("the distribution was never right")
}

var HTTPRouteServiceImport = suite.ConformanceTest{
	ShortName:   "HTTPRouteServiceImport",
	Description: "An HTTPRoute with a ServiceImport as its backend reaches endpoints of the cluster that exports it; one that nobody exports is not found",
	Manifests:   []string{"tests/httproute-serviceimport.yaml"},
	Features:    []features.FeatureName{features.SupportGateway, features.SupportHTTPRoute},
	Parallel:    true,
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		ns := suite.InfrastructureNamespace
		routeNN, noneNN := types.NamespacedName{Namespace: ns, Name: "serviceimport"}, types.NamespacedName{Namespace: ns, Name: "serviceimport-nonexistent"}
		gwAddr := accepted(t, s, routeNN, noneNN)
		resolved(t, s.Client, s.TimeoutConfig, &gatewayv1.HTTPRoute{}, routeNN, sameNamespace, metav1.ConditionTrue, gatewayv1.RouteReasonResolvedRefs)
		resolved(t, s.Client, s.TimeoutConfig, &gatewayv1.HTTPRoute{}, noneNN, sameNamespace, metav1.ConditionFalse, gatewayv1.RouteReasonBackendNotFound)
		ask(t, s, gwAddr, "/serviceimport", "member-http", ns, 200)
		ask(t, s, gwAddr, "/serviceimport-nonexistent", "", ns, 500)
	},
}

var HTTPRouteServiceImportReferenceGrant = suite.ConformanceTest{
	ShortName:   "HTTPRouteServiceImportReferenceGrant",
	Description: "An HTTPRoute of a Gateway needs a ReferenceGrant for ServiceImports of another namespace, which one for Services is not",
	Manifests:   []string{"tests/httproute-serviceimport-reference-grant.yaml"},
	Features:    []features.FeatureName{features.SupportGateway, features.SupportHTTPRoute, features.SupportReferenceGrant},
	Parallel:    true,
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		ns := suite.InfrastructureNamespace
		routeNN, notNN := types.NamespacedName{Namespace: ns, Name: "serviceimport-granted"}, types.NamespacedName{Namespace: ns, Name: "serviceimport-not-granted"}
		gwAddr := accepted(t, s, routeNN, notNN)
		resolved(t, s.Client, s.TimeoutConfig, &gatewayv1.HTTPRoute{}, routeNN, sameNamespace, metav1.ConditionTrue, gatewayv1.RouteReasonResolvedRefs)
		resolved(t, s.Client, s.TimeoutConfig, &gatewayv1.HTTPRoute{}, notNN, sameNamespace, metav1.ConditionFalse, gatewayv1.RouteReasonRefNotPermitted)
		ask(t, s, gwAddr, "/serviceimport-granted", "member-http", suite.AppBackendNamespace, 200)
		ask(t, s, gwAddr, "/serviceimport-not-granted", "", ns, 500)

		grant := &gatewayv1.ReferenceGrant{ObjectMeta: metav1.ObjectMeta{Namespace: suite.AppBackendNamespace, Name: "httproute-to-serviceimport"}}
		require.NoError(t, s.Client.Delete(t.Context(), grant))
		resolved(t, s.Client, s.TimeoutConfig, &gatewayv1.HTTPRoute{}, routeNN, sameNamespace, metav1.ConditionFalse, gatewayv1.RouteReasonRefNotPermitted)
		ask(t, s, gwAddr, "/serviceimport-granted", "", ns, 500)
	},
}

var HTTPRouteServiceImportWeight = suite.ConformanceTest{
	ShortName:   "HTTPRouteServiceImportWeight",
	Description: "A Service of the Gateway's cluster and a ServiceImport of another share the requests of an HTTPRoute by their weights",
	Manifests:   []string{"tests/httproute-serviceimport-weight.yaml"},
	Features:    []features.FeatureName{features.SupportGateway, features.SupportHTTPRoute},
	Parallel:    true,
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		routeNN := types.NamespacedName{Namespace: suite.InfrastructureNamespace, Name: "serviceimport-weight"}
		gwAddr := accepted(t, s, routeNN)
		resolved(t, s.Client, s.TimeoutConfig, &gatewayv1.HTTPRoute{}, routeNN, sameNamespace, metav1.ConditionTrue, gatewayv1.RouteReasonResolvedRefs)
		ask(t, s, gwAddr, "/serviceimport-weight", "", suite.InfrastructureNamespace, 200)
		distributed(t, map[string]float64{suite.InfraBackendServiceNameV1: 0.7, "member-http": 0.3}, func() (string, error) { return sample(t, s, gwAddr, "/serviceimport-weight") })
	},
}

var HTTPRouteServiceImportSpansClusters = suite.ConformanceTest{
	ShortName:   "HTTPRouteServiceImportSpansClusters",
	Description: "Of a Service that two clusters export, a Service as backend means the endpoints of the Gateway's cluster, a ServiceImport those of both",
	Manifests:   []string{"tests/httproute-serviceimport-spans-clusters.yaml"},
	Features:    []features.FeatureName{features.SupportGateway, features.SupportHTTPRoute},
	Parallel:    true,
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		ns := suite.InfrastructureNamespace
		routeNN := types.NamespacedName{Namespace: ns, Name: "serviceimport-spans-clusters"}
		gwAddr := accepted(t, s, routeNN)
		resolved(t, s.Client, s.TimeoutConfig, &gatewayv1.HTTPRoute{}, routeNN, sameNamespace, metav1.ConditionTrue, gatewayv1.RouteReasonResolvedRefs)
		ask(t, s, gwAddr, "/spanning-service", "spanning-local", ns, 200)
		ask(t, s, gwAddr, "/spanning-serviceimport", "", ns, 200)
		for i := range 50 {
			pod, err := sample(t, s, gwAddr, "/spanning-service")
			require.NoError(t, err, "request %d", i)
			require.True(t, strings.HasPrefix(pod, "spanning-local-"), "request %d to the Service was answered by %s", i, pod)
		}

		var local appsv1.Deployment
		require.NoError(t, s.Client.Get(t.Context(), types.NamespacedName{Namespace: ns, Name: "spanning-local"}, &local))
		none := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":0}}`))
		require.NoError(t, s.Client.Patch(t.Context(), &local, none))
		ask(t, s, gwAddr, "/spanning-serviceimport", "spanning-member", ns, 200)
		ask(t, s, gwAddr, "/spanning-service", "", ns, 503)
	},
}
