package gateways

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/test/conformance/fleet"
)

const (
	many = 1000
	// hands are how many requests are under way at a time, to the API server and to the
	// Gateway.
	hands = 16
)

var httpRoutes = schema.GroupVersionResource{Group: gatewayv1.GroupName, Version: "v1", Resource: "httproutes"}

// writes counts how often each object of a kind was written after it was made.
type writes struct {
	mu sync.Mutex
	n  map[string]int
}

func (w *world) writes(r schema.GroupVersionResource) *writes {
	w.Helper()
	api := w.objects.Resource(r).Namespace(ns)
	list, err := api.List(w.Context(), metav1.ListOptions{})
	if err != nil {
		w.Fatal(err)
	}
	events, err := api.Watch(w.Context(), metav1.ListOptions{ResourceVersion: list.GetResourceVersion()})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(events.Stop)
	out := &writes{n: map[string]int{}}
	go func() {
		for e := range events.ResultChan() {
			if u, ok := e.Object.(*unstructured.Unstructured); ok && e.Type == watch.Modified && u.GetDeletionTimestamp() == nil {
				out.mu.Lock()
				out.n[u.GetName()]++
				out.mu.Unlock()
			}
		}
	}()
	return out
}

// most is the object that was written most often. It begins to count anew.
func (x *writes) most() (name string, n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for k, v := range x.n {
		if v > n {
			name, n = k, v
		}
	}
	clear(x.n)
	return name, n
}

func each(ctx context.Context, do func(ctx context.Context, i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(hands)
	for i := range many {
		g.Go(func() error { return do(ctx, i) })
	}
	return g.Wait()
}

func hostOf(i int) string { return fmt.Sprintf("r%04d.example.com", i) }

// all awaits that the routes' hosts are answered with a status, and tells when the last one was.
func (w *world) all(address string, status int) time.Time {
	w.Helper()
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: hands}}
	defer client.CloseIdleConnections()
	if err := each(w.Context(), func(ctx context.Context, i int) error {
		for deadline := time.Now().Add(fleet.Patience); ; time.Sleep(20 * time.Millisecond) {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
			if err != nil {
				return err
			}
			req.Host = hostOf(i)
			resp, err := client.Do(req)
			if err != nil {
				return err
			}
			resp.Body.Close()
			switch {
			case resp.StatusCode == status:
				return nil
			case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNotFound:
				return fmt.Errorf("%s is answered with %d", req.Host, resp.StatusCode)
			case time.Now().After(deadline):
				return fmt.Errorf("%s is still answered with %d", req.Host, resp.StatusCode)
			}
		}
	}); err != nil {
		w.Fatal(err)
	}
	return time.Now()
}

// attached awaits a number of routes in the Gateway's status, then that nobody writes any more.
func (w *world) attached(name string, n int32) time.Time {
	w.Helper()
	fleet.Eventually(w, fmt.Sprintf("%d routes are attached", n), func() error {
		g, err := w.gateway(name)
		if err == nil && (len(g.Status.Listeners) != 1 || g.Status.Listeners[0].AttachedRoutes != n) {
			err = fmt.Errorf("listeners %+v", g.Status.Listeners)
		}
		return err
	})
	return time.Now()
}

// What Gateways do under load, on one cluster.
func TestLoad(t *testing.T) {
	w := start(t, "one")[0]
	t.Run("AtOnce", func(t *testing.T) { testAtOnce(t, w) })
	t.Run("OneByOne", func(t *testing.T) { testOneByOne(t, w) })
	t.Run("Changes", func(t *testing.T) { testChanges(t, w) })
}

// gatewayOf makes a Gateway with one listener.
func (w *world) gatewayOf(name string) {
	w.Helper()
	w.apply(fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: %s, namespace: shop}
spec:
  gatewayClassName: causeway
  listeners: [{name: http, port: 80, protocol: HTTP}]
`, name))
}

// testAtOnce: a thousand routes that come at once, and go at once, cost a status write each,
// and two of their Gateway's beyond the last one.
func testAtOnce(t *testing.T, of *world) {
	w := of.in(t)
	w.gatewayOf("many")
	address := w.programmed("many")
	routeWrites, gatewayWrites := w.writes(httpRoutes), w.writes(gateways)
	routes := w.objects.Resource(httpRoutes).Namespace(ns)

	begun := time.Now()
	if err := each(t.Context(), func(ctx context.Context, i int) error { return create(ctx, routes, "many", i) }); err != nil {
		t.Fatal(err)
	}
	created := time.Now()
	answered := w.all(address, http.StatusOK)
	attached := w.attached("many", many)
	fleet.Eventually(t, "all routes are accepted", func() error { return accepted(t.Context(), routes) })
	t.Logf("%d routes: created after %s, the last one answered after %s, attachedRoutes right after %s, all accepted after %s",
		many, since(begun, created), since(begun, answered), since(begun, attached), since(begun, time.Now()))
	w.sparing(routeWrites, gatewayWrites, 1)

	begun = time.Now()
	if err := routes.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	created = time.Now()
	answered = w.all(address, http.StatusNotFound)
	attached = w.attached("many", 0)
	t.Logf("deleted after %s, the last one 404 after %s, attachedRoutes right after %s", since(begun, created), since(begun, answered), since(begun, attached))
	w.sparing(routeWrites, gatewayWrites, 0)
	w.removed("many")
}

func since(begun, then time.Time) time.Duration { return then.Sub(begun).Round(time.Millisecond) }

// gatewayAllowed is how often the status of a Gateway may be written, the last time included.
const gatewayAllowed = 3

// sparing holds the writes so far to what is allowed.
func (w *world) sparing(routeWrites, gatewayWrites *writes, perRoute int) {
	w.Helper()
	time.Sleep(6 * time.Second) // for what would still be written
	if name, n := routeWrites.most(); n > perRoute {
		w.Errorf("the status of HTTPRoute %s was written %d times", name, n)
	}
	if name, n := gatewayWrites.most(); n > gatewayAllowed {
		w.Errorf("the status of Gateway %s was written %d times, not %d at most", name, n, gatewayAllowed)
	} else {
		w.Logf("the Gateway's status was written %d times", n)
	}
}

func create(ctx context.Context, routes dynamic.ResourceInterface, gateway gatewayv1.ObjectName, i int) error {
	port := gatewayv1.PortNumber(80)
	route := gatewayv1.HTTPRoute{TypeMeta: metav1.TypeMeta{APIVersion: gatewayv1.GroupVersion.String(), Kind: "HTTPRoute"}}
	route.Name, route.Spec.ParentRefs = fmt.Sprintf("r%04d", i), []gatewayv1.ParentReference{{Name: gateway}}
	route.Spec.Hostnames = []gatewayv1.Hostname{gatewayv1.Hostname(hostOf(i))}
	var backend gatewayv1.HTTPBackendRef
	backend.Name, backend.Port = "web", &port
	route.Spec.Rules = []gatewayv1.HTTPRouteRule{{BackendRefs: []gatewayv1.HTTPBackendRef{backend}}}
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&route)
	if err != nil {
		return err
	}
	delete(object, "status")
	_, err = routes.Create(ctx, &unstructured.Unstructured{Object: object}, metav1.CreateOptions{})
	return err
}

// accepted tells what is missing until all routes are.
func accepted(ctx context.Context, routes dynamic.ResourceInterface) error {
	list, err := routes.List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return err
	}
	n := 0
	for _, u := range list.Items {
		var route gatewayv1.HTTPRoute
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &route); err != nil {
			return err
		}
		for _, p := range route.Status.Parents {
			for _, c := range p.Conditions {
				if c.Type == string(gatewayv1.RouteConditionAccepted) && c.Status == metav1.ConditionTrue {
					n++
				}
			}
		}
	}
	if n != many {
		return fmt.Errorf("%d of %d", n, many)
	}
	return nil
}
