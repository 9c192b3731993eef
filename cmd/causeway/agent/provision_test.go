package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/kubernetes"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/test/lab"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// From Results to a real API server and back to Bindings: another network's import appears
// with its namespace, gets an address and an entry that the gateways are told of, and goes.
func TestImports(t *testing.T) {
	t.Parallel()
	cp := lab.StartControlPlane(t, lab.ControlPlaneOptions{CRDs: lab.CRDs{MCS: true}})
	if err := lab.Apply(t.Context(), cp.Config, []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n")); err != nil {
		t.Fatal(err)
	}
	admin, err := dynamic.NewForConfig(cp.Config)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewClient(cp.Config)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var rebound []string
	i, err := NewImports(ImportsConfig{
		Cluster: "east", Client: client, CrossingPods: "causeway-system/crossing", IPv6: true, Logger: slog.New(slog.DiscardHandler), Dir: t.TempDir(),
		Rebind: func(f []string) { mu.Lock(); defer mu.Unlock(); rebound = append(rebound, f...) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { _ = i.Watch(ctx) })
	wg.Go(func() { _ = i.Lead(ctx) })
	await := func(what string, ok func() bool) {
		t.Helper()
		deadline, tick := time.Now().Add(time.Minute), time.NewTicker(20*time.Millisecond)
		defer tick.Stop()
		for !ok() {
			if time.Now().After(deadline) {
				t.Fatalf("%s: not after a minute; problems %v", what, i.Problems())
			}
			<-tick.C
		}
	}
	imported := func() *unstructured.Unstructured {
		o, err := admin.Resource(schema.GroupVersionResource{Group: "multicluster.x-k8s.io", Version: "v1beta1", Resource: "serviceimports"}).Namespace("shop").Get(t.Context(), "a", metav1.GetOptions{})
		if err != nil {
			return nil
		}
		return o
	}
	apart := "east: {network: one}\nwest: {network: two, crossing: ['192.0.2.2:15443']}\n"
	namespace := "kind: Namespace\nmetadata: {name: shop}\n"
	res := worldOf(t, "east", apart, "kind: Namespace\nmetadata: {name: other}\n", exporting("http", 2, 0, ""))
	i.OnResult(res, resolve.Delta{Imports: []string{"shop/a"}})
	await("it knows the entries", i.Ready)
	// The namespace comes, by a Result that says nothing of it.
	i.OnResult(worldOf(t, "east", apart, namespace, exporting("http", 2, 0, "")), resolve.Delta{})
	await("an address", func() bool {
		o := imported()
		if o == nil {
			return false
		}
		ips, _, _ := unstructured.NestedStringSlice(o.Object, "spec", "ips")
		return len(ips) == 2
	})
	key := resolve.FrontendKey{Kind: cluster.KindServiceImport, Namespace: "shop", Name: "a"}
	var at netip.AddrPort
	await("an entry", func() bool {
		var ok bool
		at, ok = i.Entry(translate.Proxy{}, key, translate.TransportTCP, 80)
		return ok
	})
	if at.Addr() != netip.IPv6Unspecified() {
		t.Errorf("the entry is bound to %s", at)
	}
	if _, ok := i.Entry(translate.Proxy{}, key, translate.TransportUDP, 80); ok {
		t.Error("there is an entry for a port that the import has not")
	}
	await("the gateways are told", func() bool { mu.Lock(); defer mu.Unlock(); return slices.Contains(rebound, key.String()) })
	await("it stands, without gateways", func() bool { s, ok := i.Standing("shop", "a"); return ok && s.Ready.Reason == "Pending" })
	mu.Lock()
	rebound = nil
	mu.Unlock()
	i.OnResult(worldOf(t, "east", apart, namespace, namespace), resolve.Delta{Imports: []string{"shop/a"}})
	await("it goes", func() bool { return imported() == nil })
	await("so does its entry, and the gateways are told", func() bool {
		_, ok := i.Entry(translate.Proxy{}, key, translate.TransportTCP, 80)
		mu.Lock()
		defer mu.Unlock()
		return !ok && slices.Contains(rebound, key.String())
	})
}
