package translate

import (
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"testing"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// ask8 sends n requests from 8 clients, and counts the answers: the backend's
// name, or the status where it was none that answered. Pods that fail say "ill".
func ask8(t *testing.T, at netip.AddrPort, n int) map[string]int {
	t.Helper()
	var mu sync.Mutex
	got := map[string]int{}
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for range n / 8 {
				res, err := client.Get("http://" + at.String() + "/")
				if err != nil {
					t.Error(err)
					return
				}
				_ = res.Body.Close()
				name := res.Header.Get("X-From")
				if name == "" {
					name = fmt.Sprint(res.StatusCode)
				}
				mu.Lock()
				got[name]++
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	return got
}

// ill is a pod that answers 503, or without a status breaks the connection.
func ill(t *testing.T, status int) netip.AddrPort {
	t.Helper()
	return serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if status == 0 {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("X-From", "ill")
		w.WriteHeader(status)
	}))
}

// Endpoints that fail are put out, but never so many that none is left, and never
// a crossing gateway for what one of the pods behind it does.
func TestOutliersInEnvoy(t *testing.T) {
	w := newWorld(t, "east", "west")
	binds := &ports{t: t}
	gate := Proxy{Cluster: "west", Role: RoleCrossing, Namespace: "causeway-system", Name: "crossing"}
	gateAt, _ := binds.Crossing(gate)
	names := []string{"ill", "broken", "closed"}
	bad := map[string]netip.AddrPort{"ill": ill(t, 503), "broken": ill(t, 0), "closed": closedPort(t)}
	var behind, parts []any
	good := []netip.AddrPort{echo(t, "good"), echo(t, "good")}
	front := func(b *resolve.Backend) *resolve.Frontend {
		return &resolve.Frontend{
			Key:   resolve.FrontendKey{Kind: cluster.KindServiceImport, Namespace: "app", Name: b.Key.Name},
			Ports: []resolve.FrontendPort{{Port: 80, Protocol: "TCP", AppProtocol: resolve.AppHTTP, Backend: b.Key}},
		}
	}
	for _, name := range names {
		pods := service(name, resolve.AppHTTP, append([]netip.AddrPort{bad[name]}, good...)...)
		pods.Groups[0].Cluster = "west"
		behind = append(behind, pods, &resolve.Import{Namespace: "app", Name: name, Ports: []resolve.ImportPort{{Port: 80, Protocol: "TCP", Clusters: []cluster.ID{"west"}}}})
		far := &resolve.Backend{Key: importKey(name), Config: resolve.BackendConfig{Protocol: "TCP", AppProtocol: resolve.AppHTTP, Crossings: []resolve.Crossing{{Cluster: "west", TrustDomain: domainOf("west")}}},
			Groups: []resolve.EndpointGroup{{Cluster: "west", Crossing: true, Endpoints: []resolve.Endpoint{{Addr: gateAt, Weight: 3, Healthy: true, Behind: 3}}}}}
		near := service("near-"+name, resolve.AppHTTP, append([]netip.AddrPort{bad[name]}, good...)...)
		near.Key.Kind = resolve.BackendImport
		lone := service("lone-"+name, resolve.AppHTTP, bad[name])
		lone.Key.Kind = resolve.BackendImport
		for _, b := range []*resolve.Backend{far, near, lone} {
			parts = append(parts, b, front(b))
		}
	}
	// The gateway of north is gone: its share overflows to west.
	over := &resolve.Backend{Key: importKey("over"), Config: resolve.BackendConfig{Protocol: "TCP", AppProtocol: resolve.AppHTTP, Crossings: []resolve.Crossing{{Cluster: "north", TrustDomain: domainOf("west")}}},
		Groups: []resolve.EndpointGroup{
			{Cluster: "north", Crossing: true, Endpoints: []resolve.Endpoint{{Addr: closedPort(t), Weight: 3, Healthy: true, Behind: 3}}},
			{Cluster: "east", Priority: 1, Endpoints: []resolve.Endpoint{{Addr: good[0], Weight: 1, Healthy: true}, {Addr: good[1], Weight: 1, Healthy: true}}},
		}}
	parts = append(parts, over, front(over))
	g := w.start(Input{Proxy: gate, Result: result("west", behind...)}, binds)
	side := Proxy{Cluster: "east", Role: RoleSidecar, Namespace: "dev", Name: "w"}
	r := w.start(Input{Proxy: side, Result: result("east", parts...)}, binds)
	at := func(name string) netip.AddrPort {
		a, _ := binds.Frontend(side, resolve.FrontendKey{Kind: cluster.KindServiceImport, Namespace: "app", Name: name}, TransportTCP, 80)
		return a
	}
	const n = 400
	for name, answer := range map[string]string{"ill": "ill", "broken": "503", "closed": ""} {
		// Behind a crossing gateway with one address: the good pods go on. What
		// the ill one says is heard, and nothing else fails.
		got := ask8(t, at(name), n)
		if got["good"] < n/2 || got["good"]+got[answer] != n || answer == "" && got["good"] != n {
			t.Errorf("behind a crossing gateway, one of three pods is %s, and the answers are %v", name, got)
		}
		// Reached directly, the bad one is put out.
		ask8(t, at("near-"+name), 80)
		if got := ask8(t, at("near-"+name), n); got["good"] < n*95/100 {
			t.Errorf("one of three endpoints is %s, and the answers are %v", name, got)
		}
		// A single one stays.
		ask8(t, at("lone-"+name), 80)
		if got := ask8(t, at("lone-"+name), 40); answer != "" && got[answer] != 40 {
			t.Errorf("the only endpoint is %s, and the answers are %v", name, got)
		}
		cluster := "cluster." + "ServiceImport/app/lone-" + name + "/80"
		if m := r.stat(t, cluster+".membership_healthy"); m != 1 {
			t.Errorf("the only endpoint of lone-%s is put out", name)
		}
		if m := r.stat(t, "cluster."+importKey(name).String()+".membership_healthy"); m != 1 {
			t.Errorf("the crossing gateway is put out because a pod behind it is %s", name)
		}
	}
	if got := ask8(t, at("over"), n); got["good"] != n {
		t.Errorf("a crossing gateway is gone, and the answers are %v", got)
	}
	g.accepted(t)
	r.accepted(t)
}
