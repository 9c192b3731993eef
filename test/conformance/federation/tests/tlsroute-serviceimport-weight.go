package tests

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/util/wait"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func init() { ConformanceTests = append(ConformanceTests, TLSRouteServiceImportWeight) }

var TLSRouteServiceImportWeight = suite.ConformanceTest{
	ShortName:   "TLSRouteServiceImportWeight",
	Description: "A Service of the Gateway's cluster and a ServiceImport of another share the connections of a TLSRoute by their weights",
	Manifests:   []string{"tests/tlsroute-serviceimport-weight.yaml"},
	Features:    []features.FeatureName{features.SupportGateway, features.SupportTLSRoute},
	Parallel:    true,
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		gwNN, routeNN := infra("tlsroute-serviceimport-weight"), infra("tls-serviceimport-weight")
		ready(t, s)
		gwAddr := attached(t, s, gwNN, "weight", &gatewayv1.TLSRoute{}, routeNN)
		resolvedRefs(t, s, &gatewayv1.TLSRoute{}, routeNN, gatewayv1.RouteReasonResolvedRefs)
		roots := x509.NewCertPool()
		require.True(t, roots.AppendCertsFromPEM(passthroughAuthority(t, s)))
		dialer := &tls.Dialer{Config: &tls.Config{ServerName: passthroughName, RootCAs: roots, MinVersion: tls.VersionTLS12}}
		require.NoError(t, wait.PollUntilContextTimeout(t.Context(), s.TimeoutConfig.DefaultPollInterval, s.TimeoutConfig.MaxTimeToConsistency, true, func(ctx context.Context) (bool, error) {
			_, err := echoed(ctx, dialer, gwAddr, s.TimeoutConfig.RequestTimeout)
			return err == nil, nil
		}))
		distributed(t, map[string]float64{"tcp-backend": 0.7, "member-tcp": 0.3}, func() (string, error) {
			return echoed(t.Context(), dialer, gwAddr, s.TimeoutConfig.RequestTimeout)
		})
	},
}
