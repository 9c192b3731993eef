// Package upstream is what runs of Gateway API's conformance suite have in common: the
// images that its manifests name, a GatewayClass of ours and options for a cluster of the
// lab. Tests of test/conformance that use the suite or its helpers call it.
package upstream

import (
	"errors"
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/utils/flags"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"

	"github.com/causeway-mesh/causeway/test/conformance/fleet"
	"github.com/causeway-mesh/causeway/test/lab"
)

// class is the GatewayClass of all Gateways of a run. It is none of Causeway's own:
// what makes a class ours is its controller alone.
const class = `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: ` + flags.DefaultGatewayClassName + `}
spec: {controllerName: causeway.dev/gateway-controller}
`

// Load gives clusters the images of the suite, except those of somebody's own, which
// fetch them.
func Load(t testing.TB, clusters ...*lab.Cluster) {
	t.Helper()
	archives, err := Images(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range clusters {
		if err := c.LoadImage(t.Context(), archives...); err != nil && !errors.Is(err, lab.ErrForeign) {
			t.Fatal(err)
		}
	}
}

// Classify makes the GatewayClass in a cluster, waits until it says what its controller
// supports, and gives that: the suite reads it before it waits for anything.
func Classify(t testing.TB, c *lab.Cluster) (supported []gatewayv1.SupportedFeature) {
	t.Helper()
	if err := c.Apply(t.Context(), []byte(class)); err != nil {
		t.Fatal(err)
	}
	d, err := dynamic.NewForConfig(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	classes := d.Resource(schema.GroupVersionResource{Group: gatewayv1.GroupName, Version: "v1", Resource: "gatewayclasses"})
	fleet.Eventually(t, "the GatewayClass lists its features", func() error {
		u, err := classes.Get(t.Context(), flags.DefaultGatewayClassName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		var class gatewayv1.GatewayClass
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &class); err != nil {
			return err
		}
		if supported = class.Status.SupportedFeatures; len(supported) == 0 {
			return fmt.Errorf("its status is %+v", class.Status)
		}
		return nil
	})
	return supported
}

// Options are those of the suite for a cluster: its own, or what its flags say, with the
// profiles of gateways, and addresses that a lab can give and that nobody can.
func Options(t *testing.T, c *lab.Cluster) suite.ConformanceOptions {
	t.Helper()
	t.Setenv("KUBECONFIG", c.Kubeconfig)
	o := conformance.DefaultOptions(t)
	o.RestConfig.QPS = -1
	o.CleanupBaseResources = false // they go with the cluster
	o.ConformanceProfiles = []suite.ConformanceProfileName{
		suite.GatewayHTTPConformanceProfileName, suite.GatewayGRPCConformanceProfileName, suite.GatewayTLSConformanceProfileName,
		suite.GatewayTCPConformanceProfileName, suite.GatewayUDPConformanceProfileName,
	}
	address := func(ip string) []gatewayv1.GatewaySpecAddress {
		return []gatewayv1.GatewaySpecAddress{{Type: new(gatewayv1.IPAddressType), Value: ip}}
	}
	if o.UsableNetworkAddresses == nil && c.LoadBalancers4.IsValid() {
		// Services that ask for no address get the lowest.
		usable := c.LoadBalancers4.Addr().As4()
		o.UsableNetworkAddresses = address(fmt.Sprintf("%d.%d.%d.254", usable[0], usable[1], usable[2]))
	}
	if o.UnusableNetworkAddresses == nil {
		o.UnusableNetworkAddresses = address("192.0.2.1") // RFC 5737: nobody's
	}
	return o
}
