package gateways

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/federation/resolve/resolvetest"
	"github.com/causeway-mesh/causeway/test/conformance/fleet"
	"github.com/causeway-mesh/causeway/test/lab"
)

const ns = "shop"

// world is one cluster with an echo server.
type world struct {
	*testing.T
	c       *lab.Cluster
	objects dynamic.Interface
	core    *kubernetes.Clientset
}

var gateways = schema.GroupVersionResource{Group: gatewayv1.GroupName, Version: "v1", Resource: "gateways"}

func start(t *testing.T, networks ...string) (out []*world) {
	f := fleet.Start(t, fleet.Options{Networks: networks, CRDs: lab.CRDs{GatewayAPI: lab.Standard, MCS: true}})
	for _, c := range f.Clusters {
		out = append(out, equip(t, c))
	}
	return out
}

// equip runs the echo server in a cluster, and waits until it is ready: a Gateway may be
// programmed sooner, and is to answer then.
func equip(t *testing.T, c *lab.Cluster) *world {
	t.Helper()
	w := &world{T: t, c: c}
	var err error
	if w.objects, err = dynamic.NewForConfig(w.c.Config); err != nil {
		t.Fatal(err)
	}
	if w.core, err = kubernetes.NewForConfig(w.c.Config); err != nil {
		t.Fatal(err)
	}
	w.apply(`
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: echo
        image: "` + lab.TestImage(t, "causeway-test") + `"
        args: [serve, -http, "8080"]
        env: [{name: NAMESPACE, value: shop}, {name: CLUSTER, value: ` + c.Name + `}]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080, appProtocol: http}]
`)
	fleet.Eventually(t, "the echo server of "+c.Name+" is ready", func() error {
		d, err := w.core.AppsV1().Deployments(ns).Get(w.Context(), "web", metav1.GetOptions{})
		if err == nil && d.Status.AvailableReplicas == 0 {
			err = fmt.Errorf("%+v", d.Status)
		}
		return err
	})
	return w
}

// in is the world of a test within the one that started it.
func (w *world) in(t *testing.T) *world {
	out := *w
	out.T = t
	return &out
}

func (w *world) apply(manifests string) {
	w.Helper()
	if err := w.c.Apply(w.Context(), []byte(manifests)); err != nil {
		w.Fatal(err)
	}
}

func (w *world) gateway(name string) (*gatewayv1.Gateway, error) {
	u, err := w.objects.Resource(gateways).Namespace(ns).Get(w.Context(), name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	g := &gatewayv1.Gateway{}
	return g, runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, g)
}

// awaits a condition of a Gateway's current generation, and gives the Gateway.
func (w *world) awaits(name string, kind gatewayv1.GatewayConditionType, status metav1.ConditionStatus, reason gatewayv1.GatewayConditionReason) (g *gatewayv1.Gateway) {
	w.Helper()
	fleet.Eventually(w, fmt.Sprintf("Gateway %s: %s=%s %s", name, kind, status, reason), func() (err error) {
		if g, err = w.gateway(name); err != nil {
			return err
		}
		for _, c := range g.Status.Conditions {
			if c.Type == string(kind) && c.Status == status && c.Reason == string(reason) && c.ObservedGeneration == g.Generation {
				return nil
			}
		}
		return fmt.Errorf("conditions %+v", g.Status.Conditions)
	})
	return g
}

// programmed awaits that a Gateway serves, and gives its address.
func (w *world) programmed(name string) string {
	w.Helper()
	g := w.awaits(name, gatewayv1.GatewayConditionProgrammed, metav1.ConditionTrue, gatewayv1.GatewayReasonProgrammed)
	if len(g.Status.Addresses) != 1 {
		w.Fatalf("Gateway %s has the addresses %+v", name, g.Status.Addresses)
	}
	return g.Status.Addresses[0].Value
}

// answers is how a URL is answered, by a client of the test's.
func answers(c *http.Client, url, host string) error {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Host = host
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%d: %s", resp.StatusCode, body)
	}
	return err
}

// slow is how long an answer may take that is to come at the first attempt: no machine is so
// busy. What may not be answered yet is asked again after less.
const slow = 30 * time.Second

func fresh() *http.Client {
	return &http.Client{Timeout: slow, Transport: &http.Transport{DisableKeepAlives: true}}
}

// pods lists a Gateway's, without those that go.
func (w *world) pods(gateway string) (names []string, err error) {
	list, err := w.core.CoreV1().Pods(ns).List(w.Context(), metav1.ListOptions{LabelSelector: "gateway.networking.k8s.io/gateway-name=" + gateway})
	if err != nil {
		return nil, err
	}
	for _, p := range list.Items {
		if p.DeletionTimestamp == nil {
			names = append(names, p.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func edge(listeners string) string {
	return `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: causeway
  infrastructure:
    labels: {team: shop}
    parametersRef: {group: "", kind: ConfigMap, name: edge-options}
  listeners:
  - {name: http, port: 80, protocol: HTTP}
` + listeners
}

const options = `
apiVersion: v1
kind: ConfigMap
metadata: {name: edge-options, namespace: shop}
data:
`

// One cluster for all that takes no other.
func TestGateway(t *testing.T) {
	w := start(t, "one")[0]
	for _, part := range []struct {
		name string
		do   func(*world)
	}{{"life", (*world).life}, {"options", (*world).options}, {"connections", (*world).connections}, {"strangers", (*world).strangers}, {"examples", (*world).examples}} {
		t.Run(part.name, func(t *testing.T) {
			own := *w
			own.T = t
			part.do(&own)
		})
	}
}

// One Gateway through its life.
func (w *world) life() {
	t := w.T
	cert, key := resolvetest.PEM(t, "shop.example.com")
	if err := w.c.Apply(t.Context(), fmt.Appendf(nil, "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {name: shop, namespace: shop}\nstringData: {tls.crt: %q, tls.key: %q}\n", cert, key)); err != nil {
		t.Fatal(err)
	}
	w.apply(options + "  accessLog: json\n---" + edge("") + `---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  hostnames: [shop.example.com]
  rules: [{backendRefs: [{name: web, port: 80}]}]
`)
	address := w.programmed("edge")
	url := "http://" + address + "/"
	// Programmed is no promise: it serves.
	if err := answers(fresh(), url, "shop.example.com"); err != nil {
		t.Errorf("Programmed, and yet: %v", err)
	}
	before, err := w.pods("edge")
	if err != nil || len(before) != 1 {
		t.Fatalf("pods %v: %v", before, err)
	}

	// Listeners come without a connection that ends or a pod that restarts.
	kept := &http.Client{Timeout: slow}
	if err := answers(kept, url, "shop.example.com"); err != nil {
		t.Fatal(err)
	}
	dials := 0
	kept.Transport = &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials++
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}}
	if err := answers(kept, url, "shop.example.com"); err != nil {
		t.Fatal(err)
	}
	w.apply(edge("  - {name: https, port: 443, protocol: HTTPS, hostname: shop.example.com, tls: {certificateRefs: [{name: shop}]}}\n"))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	secure := fresh()
	secure.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: roots, ServerName: "shop.example.com"}
	fleet.Eventually(t, "the new listener answers", func() error { return answers(secure, "https://"+address+"/", "shop.example.com") })
	w.programmed("edge")
	if err := answers(kept, url, "shop.example.com"); err != nil || dials != 1 {
		t.Errorf("a connection of another listener: %v, after %d dials", err, dials)
	}
	if after, err := w.pods("edge"); err != nil || !slices.Equal(before, after) {
		t.Errorf("pods were %v and are %v (%v)", before, after, err)
	}
	fleet.Eventually(t, "the access log", func() error { // Envoy gathers it for seconds
		log, err := w.core.CoreV1().Pods(ns).GetLogs(before[0], &corev1.PodLogOptions{}).DoRaw(t.Context())
		if err == nil && !bytes.Contains(log, []byte(`"host":"shop.example.com"`)) {
			err = fmt.Errorf("it is %s", log)
		}
		return err
	})

	// Options that are none stop nothing, and say what to change.
	w.apply(options + "  replicas: many\n")
	g := w.awaits("edge", gatewayv1.GatewayConditionAccepted, metav1.ConditionFalse, gatewayv1.GatewayReasonInvalidParameters)
	for _, c := range g.Status.Conditions {
		if c.Type == string(gatewayv1.GatewayConditionAccepted) && !strings.Contains(c.Message, `replicas: "many" is not a number`) {
			t.Errorf("the message is %q", c.Message)
		}
	}
	w.apply(options + "  replicas: '2'\n")
	w.programmed("edge")
	fleet.Eventually(t, "two pods", func() error {
		if p, err := w.pods("edge"); err != nil || len(p) != 2 {
			return fmt.Errorf("pods %v: %w", p, errors.Join(err))
		}
		return answers(fresh(), url, "shop.example.com")
	})
	// Somebody else scales.
	scale, err := w.core.AppsV1().Deployments(ns).GetScale(t.Context(), "edge-causeway", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	scale.Spec.Replicas = 3
	if _, err := w.core.AppsV1().Deployments(ns).UpdateScale(t.Context(), "edge-causeway", scale, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.apply(edge("")) // makes it look again
	fleet.Eventually(t, "the listener is gone from the Service", func() error {
		s, err := w.core.CoreV1().Services(ns).Get(t.Context(), "edge-causeway", metav1.GetOptions{})
		if err == nil && len(s.Spec.Ports) != 1 {
			err = fmt.Errorf("ports %+v", s.Spec.Ports)
		}
		return err
	})
	fleet.Stays(t, "the replicas are who scaled them's", func() error {
		d, err := w.core.AppsV1().Deployments(ns).Get(t.Context(), "edge-causeway", metav1.GetOptions{})
		if err == nil && *d.Spec.Replicas != 3 {
			err = fmt.Errorf("%d replicas", *d.Spec.Replicas)
		}
		return err
	})

	// Classes are known by their controller alone. Somebody else's are none of our business.
	w.apply(`
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: other}
spec: {controllerName: causeway.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: foreign}
spec: {controllerName: example.com/controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: foreign, namespace: shop}
spec: {gatewayClassName: foreign, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: other, namespace: shop}
spec: {gatewayClassName: other, listeners: [{name: http, port: 61001, protocol: HTTP}, {name: high, port: 10080, protocol: HTTP}]}
`)
	w.programmed("other")
	if g, err := w.gateway("other"); err != nil || !slices.ContainsFunc(g.Status.Listeners[0].Conditions, func(c metav1.Condition) bool {
		return c.Type == string(gatewayv1.ListenerConditionAccepted) && c.Reason == string(gatewayv1.ListenerReasonPortUnavailable)
	}) {
		t.Errorf("a listener that can't be: %+v (%v)", g.Status.Listeners, err)
	}
	for name, ours := range map[string]bool{"causeway": true, "causeway-clusterset": true, "other": true, "foreign": false} {
		fleet.Eventually(t, "GatewayClass "+name, func() error {
			u, err := w.objects.Resource(gateways.GroupVersion().WithResource("gatewayclasses")).Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			c := &gatewayv1.GatewayClass{}
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, c); err != nil {
				return err
			}
			accepted := slices.ContainsFunc(c.Status.Conditions, func(x metav1.Condition) bool {
				return x.Type == string(gatewayv1.GatewayClassConditionStatusAccepted) && x.Status == metav1.ConditionTrue
			})
			if accepted != ours || ours != (len(c.Status.SupportedFeatures) > 30) {
				return fmt.Errorf("its status is %+v", c.Status)
			}
			return nil
		})
	}
	if g, err := w.gateway("foreign"); err != nil || len(g.Status.Addresses)+len(g.Status.Listeners) > 0 {
		t.Errorf("somebody else's Gateway has the status %+v (%v)", g.Status, err)
	}
	if p, err := w.pods("foreign"); err != nil || len(p) > 0 {
		t.Errorf("somebody else's Gateway has the pods %v (%v)", p, err)
	}
	w.removed("other")
	w.removed("edge")
}

// removed deletes a Gateway and awaits that nothing of it is left.
func (w *world) removed(name string) {
	w.Helper()
	if err := w.objects.Resource(gateways).Namespace(ns).Delete(w.Context(), name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		w.Fatal(err)
	}
	kinds := []schema.GroupVersionResource{
		{Version: "v1", Resource: "services"}, {Version: "v1", Resource: "serviceaccounts"}, {Version: "v1", Resource: "configmaps"}, {Version: "v1", Resource: "pods"},
		{Group: "apps", Version: "v1", Resource: "deployments"}, {Group: "apps", Version: "v1", Resource: "replicasets"},
		{Group: "policy", Version: "v1", Resource: "poddisruptionbudgets"}, {Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"},
	}
	fleet.Eventually(w, "nothing is left of Gateway "+name, func() error {
		for _, k := range kinds {
			list, err := w.objects.Resource(k).Namespace(ns).List(w.Context(), metav1.ListOptions{})
			if err != nil {
				return err
			}
			for _, o := range list.Items {
				if strings.HasPrefix(o.GetName(), name+"-causeway") {
					return fmt.Errorf("%s %s is there", k.Resource, o.GetName())
				}
			}
		}
		return nil
	})
}
