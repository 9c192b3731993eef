package up

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/provision/loopback"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/xds/translate"
)

func TestBindings(t *testing.T) {
	pool := loopback.NewPool()
	defer pool.Close()
	b := newBindings(pool, 1024, slog.New(slog.DiscardHandler))
	p := translate.Proxy{Cluster: "west", Role: translate.RoleSidecar, Namespace: "shop", Name: "sidecar"}
	key := resolve.FrontendKey{Kind: cluster.KindService, Namespace: "shop", Name: "catalog"}

	low, ok := b.Frontend(p, key, translate.TransportTCP, 80)
	if !ok || low.Port() != 10080 {
		t.Errorf("port 80, which may not be bound, became %v, %v; want 10080", low, ok)
	}
	// The stand-in of 80 does not take the place of a port of the same number.
	high, ok := b.Frontend(p, key, translate.TransportTCP, 10080)
	if !ok || high.Addr() != low.Addr() || high.Port() == low.Port() {
		t.Errorf("port 10080 is at %v, port 80 at %v", high, low)
	}
	if again, _ := b.Frontend(p, key, translate.TransportTCP, 80); again != low {
		t.Errorf("port 80 moved from %v to %v", low, again)
	}
	// The other transport is another socket of the same address.
	if udp, ok := b.Frontend(p, key, translate.TransportUDP, 80); !ok || udp != low {
		t.Errorf("port 80 of TCP is at %v, of UDP at %v", low, udp)
	}
	other := key
	other.Name = "checkout"
	if at, _ := b.Frontend(p, other, translate.TransportTCP, 8080); at.Addr() == low.Addr() {
		t.Errorf("two frontends share the address %v", at)
	}
	if _, ok := b.Frontend(p, key, translate.TransportTCP, 0); ok {
		t.Error("port 0 was bound")
	}

	// Somebody listens on the port of all addresses.
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port
	if at, ok := b.Gateway(p, translate.TransportTCP, int32(taken)); ok && int(at.Port()) == taken {
		t.Errorf("the taken port %d was bound", taken)
	}
}

type sink struct{ batches []cluster.Batch }

func (s *sink) Deliver(_ context.Context, b cluster.Batch) error {
	s.batches = append(s.batches, b)
	return nil
}

func TestRelayGivesANewAgentEverything(t *testing.T) {
	r, ctx := newRelay(), t.Context()
	object := func(name string) cluster.Event {
		ref := cluster.Ref{Kind: cluster.KindNamespace, Name: name}
		return cluster.Event{Ref: ref, Object: &cluster.Object{Ref: ref, Cluster: "west"}}
	}
	var first, second sink
	if err := r.attach(ctx, &first); err != nil || len(first.batches) != 0 {
		t.Fatalf("an agent was told %v of nothing, %v", first.batches, err)
	}
	deliver := func(b cluster.Batch) {
		t.Helper()
		if err := r.Deliver(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	deliver(cluster.Batch{Events: []cluster.Event{object("a"), object("b")}, Meta: &cluster.Meta{Region: "eu"}, Synced: true})
	if len(first.batches) != 1 {
		t.Fatalf("%d batches reached the agent, want 1", len(first.batches))
	}
	r.detach()
	deliver(cluster.Batch{Events: []cluster.Event{{Ref: cluster.Ref{Kind: cluster.KindNamespace, Name: "a"}}, object("c")}, Synced: true})
	if len(first.batches) != 1 {
		t.Error("a stopped agent was told of a change")
	}
	if err := r.attach(ctx, &second); err != nil {
		t.Fatal(err)
	}
	if len(second.batches) != 1 {
		t.Fatalf("%d batches for the new agent, want 1", len(second.batches))
	}
	got := second.batches[0]
	names := map[string]bool{}
	for _, e := range got.Events {
		names[e.Ref.Name] = e.Object != nil
	}
	if len(names) != 2 || !names["b"] || !names["c"] || !got.Synced || got.Meta == nil || got.Meta.Region != "eu" {
		t.Errorf("the new agent was given %+v", got)
	}
}

func TestStateFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openState(dir); err == nil || !strings.Contains(err.Error(), "--state") {
		t.Errorf("a second run in the same folder: %v; want a refusal that names --state", err)
	}
	for name, keep := range map[string]bool{"etcd": false, "authority": false, "client.yaml": false, "mine.txt": true} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if _, err := os.Stat(filepath.Join(dir, name)); keep != (err == nil) {
				t.Errorf("%s: %v after the next start; kept should be %v", name, err, keep)
			}
		}()
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	next, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := next.close(); err != nil {
		t.Error(err)
	}
}

func TestClusterFolders(t *testing.T) {
	dir := t.TempDir()
	if _, err := clusterFolders(dir); err == nil {
		t.Error("a folder without clusters is no error")
	}
	for _, name := range []string{"west", "east", ".git"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "README.md"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := clusterFolders(dir)
	if err != nil || len(got) != 2 || got[0] != "east" || got[1] != "west" {
		t.Errorf("got %v, %v", got, err)
	}
	if err := os.Mkdir(filepath.Join(dir, "My Cluster"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := clusterFolders(dir); err == nil || !strings.Contains(err.Error(), "My Cluster") {
		t.Errorf("a folder that can't name a cluster: %v", err)
	}
}

func TestTrial(t *testing.T) {
	calls := []bool{}
	fail := errors.New("stuck")
	tr := newTrial()
	tr.add("store", &part{description: "d", set: func(_ context.Context, broken bool) error {
		calls = append(calls, broken)
		if len(calls) == 3 {
			return fail
		}
		return nil
	}})
	set := func(target string, on bool) error {
		_, err := tr.SetFault(t.Context(), &causewayv1.SetFaultRequest{Target: target, Active: on})
		return err
	}
	if err := set("stroe", true); status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "store") {
		t.Errorf("an unknown target: %v; want NotFound with what there is", err)
	}
	for _, on := range []bool{false, true, true, false} {
		if err := set("store", on); err != nil {
			t.Fatal(err)
		}
	}
	if len(calls) != 2 || !calls[0] || calls[1] {
		t.Errorf("the part was set %v, want true, then false", calls)
	}
	if err := set("store", true); status.Code(err) != codes.Internal {
		t.Errorf("a part that can't be broken: %v", err)
	}
	list, err := tr.ListFaults(t.Context(), &causewayv1.ListFaultsRequest{})
	if err != nil || len(list.Faults) != 1 || list.Faults[0].Active {
		t.Errorf("after a failure: %v, %v", list, err)
	}
}

func TestListenerAddress(t *testing.T) {
	at := netip.MustParseAddrPort("127.20.0.1:10443")
	for want, l := range map[string]resolve.Listener{
		"http://127.20.0.1:10443 host *":                        {Protocol: "HTTP"},
		"https://127.20.0.1:10443 host *.example":               {Protocol: "HTTPS", Hostname: "*.example", TLS: &resolve.ListenerTLS{}},
		"tls://127.20.0.1:10443 host a.example":                 {Protocol: "TLS", Hostname: "a.example", TLS: &resolve.ListenerTLS{}},
		"tls://127.20.0.1:10443 passed through, host a.example": {Protocol: "TLS", Hostname: "a.example"},
		"tcp://127.20.0.1:10443":                                {Protocol: "TCP"},
		"udp://127.20.0.1:10443":                                {Protocol: "UDP"},
	} {
		if got := listenerAddress(&l, at); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
