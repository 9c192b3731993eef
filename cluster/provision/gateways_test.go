package provision

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster/kubernetes"
	"github.com/causeway-mesh/causeway/test/lab"
)

// gatewayRig is the provisioning of Gateways on a real API server, without controllers:
// what these would do is in the test's hands.
type gatewayRig struct {
	t        *testing.T
	admin    dynamic.Interface
	gateways *Gateways
	registry *prometheus.Registry
	stop     func()
	asked    asked

	mu    sync.Mutex
	wants map[Name]*Gateway
}

func (r *gatewayRig) start(c *kubernetes.Client) {
	t := r.t
	t.Helper()
	r.registry = prometheus.NewRegistry()
	var err error
	r.gateways, err = NewGateways(GatewaysConfig{
		Local: "east", Client: c, Settings: shopGateway().settings, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Registerer: r.registry, Rate: 500,
		Want: func(n Name) (*Gateway, bool) {
			r.asked.add(n)
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.wants[n], true
		},
		Names: func() []Name { r.mu.Lock(); defer r.mu.Unlock(); return slices.Collect(maps.Keys(r.wants)) },
		Roots: func() string { return "PEM" },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.gateways.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { r.stop() })
}

func (r *gatewayRig) want(n Name, g *Gateway) {
	r.mu.Lock()
	if g == nil {
		delete(r.wants, n)
	} else {
		r.wants[n] = g
	}
	r.mu.Unlock()
	r.gateways.Touch([]Name{n})
}

func (r *gatewayRig) await(what string, ok func() bool) {
	r.t.Helper()
	deadline, tick := time.Now().Add(patience), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			s, known := r.gateways.Standing(edge)
			r.t.Fatalf("%s: not after a minute; it stands %+v %v; problems %v; there is %v", what, s, known, r.gateways.Problems(), r.versions())
		}
		<-tick.C
	}
}

// versions gives the resourceVersion of each object of ours.
func (r *gatewayRig) versions() map[string]string {
	out := map[string]string{}
	for _, k := range gatewayResources {
		list, err := r.admin.Resource(k).Namespace("shop").List(r.t.Context(), metav1.ListOptions{LabelSelector: LabelManagedBy + "=" + Manager})
		if err != nil {
			r.t.Fatal(err)
		}
		for _, o := range list.Items {
			out[o.GetKind()+"/"+o.GetName()] = o.GetResourceVersion()
		}
	}
	return out
}

func (r *gatewayRig) patch(k schema.GroupVersionResource, name string, sub []string, patch string) {
	r.t.Helper()
	if _, err := r.admin.Resource(k).Namespace("shop").Patch(r.t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, sub...); err != nil {
		r.t.Fatal(err)
	}
}

// quiet fails if anything is written although nothing differs.
func (r *gatewayRig) quiet(what string) {
	r.t.Helper()
	r.mu.Lock()
	all := slices.Collect(maps.Keys(r.wants))
	r.mu.Unlock()
	r.asked.settle(r.gateways.Touch, r.await, all...)
	before, writes := r.versions(), sum(r.t, r.registry, "causeway_gateway_writes_total")
	r.asked.settle(r.gateways.Touch, r.await, all...)
	last := Name{"shop", "last"}
	r.want(last, &Gateway{Name: last, Class: "c", Ports: []GatewayPort{{corev1.ProtocolTCP, 1}}})
	r.await("another Gateway comes", func() bool { return len(r.versions()) == len(before)+5 })
	r.want(last, nil)
	r.await("it goes", func() bool { return len(r.versions()) == len(before) })
	r.asked.settle(r.gateways.Touch, r.await, last)
	if n := sum(r.t, r.registry, "causeway_gateway_writes_total") - writes; n != 10 {
		r.t.Errorf("%s: %d writes, though nothing but one Gateway came and went", what, n-10)
	}
	if after := r.versions(); !maps.Equal(before, after) {
		r.t.Errorf("%s: %v became %v", what, before, after)
	}
}

// What plans say on a real API server: with the rights of Rules alone, nothing is written
// twice, whatever the server fills in; leaders change without a trace.
func TestGateways(t *testing.T) {
	t.Parallel()
	cp := lab.StartControlPlane(t, lab.ControlPlaneOptions{})
	admin, err := dynamic.NewForConfig(cp.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Apply(t.Context(), cp.Config, []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n")); err != nil {
		t.Fatal(err)
	}
	r := &gatewayRig{t: t, admin: admin, wants: map[Name]*Gateway{}}
	c := asAgent(t, cp)
	r.start(c)
	g := *shopGateway().want
	g.Ports = append(g.Ports, GatewayPort{corev1.ProtocolUDP, 53})
	r.want(edge, &g)
	r.await("all is there", func() bool { return len(r.versions()) == 5 })
	r.await("it says what is missing", func() bool {
		s, ok := r.gateways.Standing(edge)
		return ok && s.Programmed.Reason == string(gatewayv1.GatewayReasonAddressNotAssigned)
	})
	r.quiet("a new Gateway")

	// What others do for it.
	r.patch(servicesResource, "edge-causeway", []string{"status"}, `{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"}]}}}`)
	r.patch(deploymentsResource, "edge-causeway", []string{"status"}, `{"status":{"observedGeneration":1,"replicas":1,"readyReplicas":1,"availableReplicas":1}}`)
	r.await("it is programmed", func() bool {
		s, _ := r.gateways.Standing(edge)
		return s.Programmed.Status == metav1.ConditionTrue && len(s.Addresses) == 1
	})
	// An autoscaler.
	r.patch(deploymentsResource, "edge-causeway", []string{"scale"}, `{"spec":{"replicas":4}}`)
	more := g
	more.Annotations = map[string]string{"note": "y"}
	r.want(edge, &more)
	r.await("the annotation changes", func() bool {
		o, err := admin.Resource(budgetsResource).Namespace("shop").Get(t.Context(), "edge-causeway", metav1.GetOptions{}) // the last
		return err == nil && o.GetAnnotations()["note"] == "y"
	})
	o, err := admin.Resource(deploymentsResource).Namespace("shop").Get(t.Context(), "edge-causeway", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if n := fmt.Sprint(o.Object["spec"].(map[string]any)["replicas"]); n != "4" {
		t.Errorf("an autoscaler asked for 4 replicas, and there are %s", n)
	}
	r.quiet("a changed Gateway")

	// A port moves; a label goes.
	moved := more
	moved.Ports, moved.Labels = []GatewayPort{{corev1.ProtocolTCP, 8080}, {corev1.ProtocolTCP, 80}}, nil
	r.want(edge, &moved)
	r.await("ports and labels follow", func() bool {
		o, err := admin.Resource(servicesResource).Namespace("shop").Get(t.Context(), "edge-causeway", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(fmt.Sprint(o.Object["spec"]), "tcp-8080") && !strings.Contains(fmt.Sprint(o.Object["spec"]), "udp") && o.GetLabels()["team"] == ""
	})
	r.await("the label is gone everywhere", func() bool {
		for _, k := range gatewayResources {
			list, err := admin.Resource(k).Namespace("shop").List(t.Context(), metav1.ListOptions{LabelSelector: "team"})
			if err != nil {
				t.Fatal(err)
			}
			if len(list.Items) > 0 {
				return false
			}
		}
		return true
	})
	r.quiet("a Gateway with other listeners")

	// Another leader.
	before := r.versions()
	r.stop()
	r.start(c)
	r.await("it has seen all", func() bool { s, _ := r.gateways.Standing(edge); return s.Programmed.Status == metav1.ConditionTrue })
	r.quiet("a new leader")
	if after := r.versions(); !maps.Equal(before, after) {
		t.Errorf("a new leader rewrites: %v became %v", before, after)
	}

	// What is somebody else's stays, and it is said.
	if err := lab.Apply(t.Context(), cp.Config, []byte(`
apiVersion: v1
kind: Service
metadata: {name: theirs-causeway, namespace: shop}
spec: {ports: [{port: 1}]}
`)); err != nil {
		t.Fatal(err)
	}
	theirs := Name{"shop", "theirs"}
	r.want(theirs, &Gateway{Name: theirs, Class: "causeway", Ports: g.Ports})
	r.await("somebody's Service is in the way", func() bool {
		p := r.gateways.Problems()
		return len(p) == 1 && strings.Contains(p[0].Message, "Service shop/theirs-causeway is there already")
	})
	r.want(theirs, nil)
	r.want(edge, nil)
	r.await("all is gone", func() bool { return len(r.versions()) == 0 && len(r.gateways.Problems()) == 0 })
	if _, err := admin.Resource(servicesResource).Namespace("shop").Get(t.Context(), "theirs-causeway", metav1.GetOptions{}); err != nil {
		t.Errorf("somebody's Service: %v", err)
	}
}
