package tests

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/conformance/utils/tlog"
	"sigs.k8s.io/gateway-api/conformance/utils/weight"
)

// infra names an object of the suite's first namespace, where all routes and Gateways are.
func infra(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: suite.InfrastructureNamespace, Name: name}
}

// sameNamespace is the suite's own Gateway for HTTP.
var sameNamespace = infra("same-namespace")

// attached waits until a route is accepted at a listener of a Gateway, or at the Gateway
// if it is empty, and gives the address to call. route is of the route's kind.
func attached(t *testing.T, s *suite.ConformanceTestSuite, gwNN types.NamespacedName, listener string, route client.Object, routeNN types.NamespacedName) string {
	t.Helper()
	gw := kubernetes.NewGatewayRef(gwNN)
	if listener != "" {
		gw = kubernetes.NewGatewayRef(gwNN, listener)
	}
	return kubernetes.GatewayAndRoutesMustBeAccepted(t, s.Client, s.TimeoutConfig, s.ControllerName, gw, route, true, routeNN)
}

// resolvedRefs waits until a route says so of its references. An import may still be on
// its way from the other cluster when the route is made.
func resolvedRefs(t *testing.T, s *suite.ConformanceTestSuite, route client.Object, routeNN types.NamespacedName, reason gatewayv1.RouteConditionReason) {
	t.Helper()
	status := metav1.ConditionFalse
	if reason == gatewayv1.RouteReasonResolvedRefs {
		status = metav1.ConditionTrue
	}
	err := wait.PollUntilContextTimeout(t.Context(), s.TimeoutConfig.DefaultPollInterval, s.TimeoutConfig.RouteMustHaveParents, true, func(ctx context.Context) (bool, error) {
		if err := s.Client.Get(ctx, routeNN, route); err != nil {
			return false, err
		}
		parents := parentsOf(t, route)
		for _, p := range parents {
			if err := kubernetes.ConditionsHaveLatestObservedGeneration(route, p.Conditions); err != nil {
				tlog.Logf(t, "%s: %v", routeNN, err)
				return false, nil
			}
			if !has(p.Conditions, string(gatewayv1.RouteConditionResolvedRefs), status, string(reason)) {
				tlog.Logf(t, "%s: ResolvedRefs is not yet %s with reason %s: %v", routeNN, status, reason, p.Conditions)
				return false, nil
			}
		}
		return len(parents) > 0, nil
	})
	require.NoErrorf(t, err, "%T %s has to have ResolvedRefs=%s with reason %s", route, routeNN, status, reason)
}

func parentsOf(t *testing.T, route client.Object) []gatewayv1.RouteParentStatus {
	t.Helper()
	switch r := route.(type) {
	case *gatewayv1.HTTPRoute:
		return r.Status.Parents
	case *gatewayv1.GRPCRoute:
		return r.Status.Parents
	case *gatewayv1.TLSRoute:
		return r.Status.Parents
	case *gatewayv1.TCPRoute:
		return r.Status.Parents
	case *gatewayv1.UDPRoute:
		return r.Status.Parents
	}
	t.Fatalf("%T is no route", route)
	return nil
}

func has(conditions []metav1.Condition, kind string, status metav1.ConditionStatus, reason string) bool {
	for _, c := range conditions {
		if c.Type == kind {
			return c.Status == status && c.Reason == reason
		}
	}
	return false
}

// revoke deletes a ReferenceGrant of the namespace of backends.
func revoke(t *testing.T, s *suite.ConformanceTestSuite, grant string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), s.TimeoutConfig.DeleteTimeout)
	defer cancel()
	require.NoError(t, s.Client.Delete(ctx, &gatewayv1.ReferenceGrant{ObjectMeta: metav1.ObjectMeta{Namespace: suite.AppBackendNamespace, Name: grant}}))
}

// distributed holds samples, each the name of the pod that has answered, to the weights of
// the Deployments that they should come from.
func distributed(t *testing.T, weights map[string]float64, sample func() (string, error)) {
	t.Helper()
	var err error
	for i := range weight.MaxTestRetries {
		if err = weight.TestWeightedDistribution(weight.NewFunctionBasedSender(sample), weights); err == nil {
			return
		}
		tlog.Logf(t, "distribution attempt %d of %d: %v", i+1, weight.MaxTestRetries, err)
	}
	t.Fatalf("the distribution was never right, at last: %v", err)
}
