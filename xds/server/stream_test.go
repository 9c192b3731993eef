package server

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/prometheus/client_golang/prometheus"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/causeway-mesh/causeway/xds/translate"
)

// anyone lets every node have the proxy of its own name up to a "#".
func anyone(_ context.Context, n *corev3.Node) (string, error) {
	id, _, _ := strings.Cut(n.GetId(), "#")
	if id == "evil" {
		return "", errors.New("spiffe://east/other is not its identity")
	}
	return id, nil
}

type rig struct {
	*Server
	t    *testing.T
	reg  *prometheus.Registry
	dial func() discoveryv3.AggregatedDiscoveryServiceClient
}

func newRig(t *testing.T, limits Limits) *rig {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	s, err := New(Config{Registerer: reg, Authorize: anyone, Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	l := bufconn.Listen(1 << 16)
	g := grpc.NewServer(ServerOptions()...)
	s.Register(g)
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return &rig{Server: s, t: t, reg: reg, dial: func() discoveryv3.AggregatedDiscoveryServiceClient {
		c, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return discoveryv3.NewAggregatedDiscoveryServiceClient(c)
	}}
}

// scripted is a client whose every word the test says.
type scripted struct {
	t *testing.T
	discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	cancel context.CancelFunc
	got    chan *discoveryv3.DeltaDiscoveryResponse
	ended  chan error
}

func (r *rig) open(node string) *scripted {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r.t.Cleanup(cancel)
	st, err := r.dial().DeltaAggregatedResources(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	c := &scripted{r.t, st, cancel, make(chan *discoveryv3.DeltaDiscoveryResponse), make(chan error, 1)}
	go func() {
		for {
			m, err := st.Recv()
			if err != nil {
				c.ended <- err
				return
			}
			select {
			case c.got <- m:
			case <-ctx.Done():
				return
			}
		}
	}()
	c.say(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: translate.TypeCluster, Node: &corev3.Node{
		Id: node, UserAgentName: "envoy", UserAgentVersionType: &corev3.Node_UserAgentBuildVersion{
			UserAgentBuildVersion: &corev3.BuildVersion{Version: &typev3.SemanticVersion{MajorNumber: 1, MinorNumber: 40}},
		},
	}})
	return c
}

func (c *scripted) say(r *discoveryv3.DeltaDiscoveryRequest) {
	c.t.Helper()
	if err := c.Send(r); err != nil {
		c.t.Fatal(err)
	}
}

// hear awaits a response of a type that carries something. Empty ones, which say
// that a wildcard covers nothing yet, are acknowledged on the way.
func (c *scripted) hear(typeURL string) *discoveryv3.DeltaDiscoveryResponse {
	c.t.Helper()
	for {
		m := c.hearAny()
		if names(m) == "" {
			c.ack(m)
			continue
		}
		if m.GetTypeUrl() != typeURL {
			c.t.Fatalf("want a response of %s, got %v", typeURL, m)
		}
		return m
	}
}

func (c *scripted) hearAny() *discoveryv3.DeltaDiscoveryResponse {
	c.t.Helper()
	select {
	case m := <-c.got:
		return m
	case err := <-c.ended:
		c.t.Fatal(err)
	case <-time.After(time.Minute):
		c.t.Fatal("no response")
	}
	return nil
}

// Envoy waits for the first answer to a wildcard, 15 s if none comes.
func TestWildcardThatCoversNothingIsAnswered(t *testing.T) {
	r := newRig(t, Limits{})
	c := r.open("p") // asks for all clusters
	r.put(newWorld(), newWorld(), 1)
	m := c.hearAny()
	if m.GetTypeUrl() != translate.TypeCluster || names(m) != "" {
		t.Fatalf("want an empty response for clusters, got %v", m)
	}
	c.ack(m)
	c.say(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: translate.TypeListener})
	if m = c.hearAny(); m.GetTypeUrl() != translate.TypeListener || names(m) != "" {
		t.Fatalf("want an empty response for listeners, got %v", m)
	}
	c.ack(m)
	r.await("in sync with nothing", ProxyStatus.InSync)
	// Only once: what comes next carries something.
	r.put(newWorld().put(kindCluster, "1", plain("c").get(t, kindCluster, "c")), newWorld(), 2)
	if m = c.hearAny(); names(m) != "c" {
		t.Fatalf("want the cluster, got %v", m)
	}
	c.ack(m)
	r.await("in sync", ProxyStatus.InSync)
}

func (c *scripted) end() error {
	c.t.Helper()
	select {
	case err := <-c.ended:
		return err
	case m := <-c.got:
		c.t.Fatalf("want the end, got %v", m)
	case <-time.After(time.Minute):
		c.t.Fatal("the stream does not end")
	}
	return nil
}

func (c *scripted) ack(m *discoveryv3.DeltaDiscoveryResponse) {
	c.t.Helper()
	c.say(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: m.GetTypeUrl(), ResponseNonce: m.GetNonce()})
}

func (c *scripted) nack(m *discoveryv3.DeltaDiscoveryResponse, why string) {
	c.t.Helper()
	c.say(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: m.GetTypeUrl(), ResponseNonce: m.GetNonce(), ErrorDetail: &statuspb.Status{Code: 13, Message: why},
	})
}

// names lists what a response carries, removals with a "-".
func names(m *discoveryv3.DeltaDiscoveryResponse) string {
	var out []string
	for _, r := range m.GetResources() {
		out = append(out, r.GetName())
	}
	for _, n := range m.GetRemovedResources() {
		out = append(out, "-"+n)
	}
	return strings.Join(out, " ")
}

func (c *scripted) expect(typeURL, want string) *discoveryv3.DeltaDiscoveryResponse {
	c.t.Helper()
	m := c.hear(typeURL)
	if got := names(m); got != want {
		c.t.Fatalf("want %q, got %q", want, got)
	}
	return m
}

// await waits until the only node of a proxy is as wanted.
func (r *rig) await(what string, ok func(ProxyStatus) bool) ProxyStatus {
	r.t.Helper()
	deadline := time.After(time.Minute)
	for {
		changed := r.Changed()
		all := r.Proxies()
		for _, p := range all {
			if ok(p) {
				return p
			}
		}
		select {
		case <-changed:
		case <-deadline:
			r.t.Fatalf("%s: not reached, at %+v", what, all)
		}
	}
}

// metric reads a counter or gauge, with the value of its label if it has one.
func (r *rig) metric(name, label string) float64 {
	r.t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	r.t.Fatalf("no metric %s{%s}", name, label)
	return 0
}

// put hands over a world for proxy "p".
func (r *rig) put(w, before world, rev int64) {
	r.Set("p", w.resources(), w.since(before), Stamp{Revision: rev, At: time.Now()})
}

func plain(names ...string) world {
	w := newWorld()
	for _, n := range names {
		c := edsCluster(n, time.Second)
		c.EdsClusterConfig, c.ClusterDiscoveryType = nil, nil // STATIC
		w.put(kindCluster, "1", c)
	}
	return w
}

func TestFirstChangeAtOnceThenCoalesced(t *testing.T) {
	r := newRig(t, Limits{Linger: -1})
	c := r.open("p#1")
	r.await("opened", func(p ProxyStatus) bool { return p.Connected })
	if p := r.Proxies()[0]; p.InSync() && p.Revision > 0 || p.Envoy != "1.40.0" || p.Node != "p#1" {
		t.Fatalf("%+v", p)
	}
	w1 := plain("a")
	r.put(w1, newWorld(), 1)
	m := c.expect(translate.TypeCluster, "a")
	// While that is not acknowledged, changes gather; what came and went is skipped.
	w2 := w1.clone().put(kindCluster, "1", plain("b").get(t, kindCluster, "b"))
	r.put(w2, w1, 2)
	w3 := w2.clone().drop(kindCluster, "b").put(kindCluster, "1", plain("c").get(t, kindCluster, "c"))
	r.put(w3, w2, 3)
	r.await("in flight", func(p ProxyStatus) bool { return p.Revision == 3 && p.Types[kindCluster].InFlight == 1 })
	c.ack(m)
	m = c.expect(translate.TypeCluster, "c")
	c.ack(m)
	// Listeners have not been asked for, so nothing is complete.
	if p := r.await("answered", func(p ProxyStatus) bool { return p.Types[kindCluster].Pending == 0 }); p.Acked != 0 {
		t.Fatalf("acknowledged %d", p.Acked)
	}
	c.say(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: translate.TypeListener})
	p := r.await("in sync", ProxyStatus.InSync)
	if p.Acked != 3 || p.Types[kindCluster].Acked != p.Types[kindCluster].Sent || p.Types[kindCluster].Resources != 2 || p.BytesSent == 0 {
		t.Fatalf("%+v", p)
	}
	// A revision may come twice, with another content.
	w4 := w3.clone().put(kindCluster, "2", plain("c").get(t, kindCluster, "c"))
	if n := r.Behind("p"); n != 0 {
		t.Fatalf("%d nodes are behind, though all is acknowledged", n)
	}
	r.put(w4, w3, 3)
	if p := r.Proxies()[0]; p.InSync() || r.Behind("p") != 1 {
		t.Fatal("in sync with what it has not been sent")
	}
	m = c.expect(translate.TypeCluster, "c")
	if p := r.Proxies()[0]; p.InSync() || r.Behind("p") != 1 {
		t.Fatal("in sync with what it has not acknowledged")
	}
	c.ack(m)
	r.await("again in sync", ProxyStatus.InSync)
	if n := r.Behind("p"); n != 0 {
		t.Fatalf("%d nodes are still behind", n)
	}
	w3 = w4
	// An empty change is in force at once.
	r.put(w3, w3, 4)
	if p := r.Proxies()[0]; !p.InSync() || p.Acked != 4 || r.Behind("p") != 0 {
		t.Fatalf("after a change of nothing: %+v", p)
	}
	// One that follows is not hidden by it.
	w5 := w4.clone().put(kindCluster, "3", plain("c").get(t, kindCluster, "c"))
	r.put(w5, w3, 5)
	r.put(w5, w5, 6)
	if p := r.Proxies()[0]; p.Acked >= 5 || r.Behind("p") != 1 {
		t.Fatalf("in sync with what it has not been sent: %+v", p)
	}
	c.ack(c.expect(translate.TypeCluster, "c"))
	r.await("in sync with all", func(p ProxyStatus) bool { return p.InSync() && p.Acked == 6 })
}

func TestRejectionsAreIsolated(t *testing.T) {
	r := newRig(t, Limits{Linger: -1, RetryMin: 50 * time.Millisecond, RetryMax: 100 * time.Millisecond})
	c := r.open("p")
	w := plain("a", "b", "c", "d")
	r.put(w, newWorld(), 1)
	c.nack(c.expect(translate.TypeCluster, "a b c d"), "c is bad")
	c.ack(c.expect(translate.TypeCluster, "a b"))
	c.nack(c.expect(translate.TypeCluster, "c d"), "c is bad")
	c.nack(c.expect(translate.TypeCluster, "c"), "c is bad indeed")
	c.ack(c.expect(translate.TypeCluster, "d"))
	p := r.await("set aside", func(p ProxyStatus) bool {
		return p.RejectedTotal == 1 && p.Types[kindCluster].Resources == 3
	})
	if j := p.Rejected[0]; j.Name != "c" || j.Subject != "Test/c" || j.Message != "c is bad indeed" || j.HeldBack || j.Attempts < 1 {
		t.Fatalf("%+v", j)
	}
	if p.InSync() || p.Acked != 0 {
		t.Fatalf("in sync with something set aside: %+v", p)
	}
	if n := r.metric("causeway_xds_nacks_total", "Cluster"); n != 3 {
		t.Fatalf("%v rejections counted", n)
	}
	// It is tried again, and heals.
	c.nack(c.expect(translate.TypeCluster, "c"), "still")
	c.ack(c.expect(translate.TypeCluster, "c"))
	c.say(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: translate.TypeListener})
	r.await("healed", ProxyStatus.InSync)
	if n := r.metric("causeway_xds_rejected_resources", "Cluster"); n != 0 {
		t.Fatalf("%v are set aside by the metric", n)
	}
}

func TestInvalidIsHeldBack(t *testing.T) {
	r := newRig(t, Limits{Linger: -1})
	c := r.open("p")
	w := plain("a", "b")
	bad := edsCluster("b", -time.Second) // Envoy wants a positive timeout
	w.put(kindCluster, "2", bad)
	w.put(kindCluster, "1", edsCluster("liar", time.Second))
	w[translate.TypeCluster]["liar"].Facts = translate.FactsOf(edsCluster("a", time.Second))
	r.put(w, newWorld(), 1)
	c.ack(c.expect(translate.TypeCluster, "a"))
	p := r.await("held back", func(p ProxyStatus) bool { return p.RejectedTotal == 2 && p.Types[kindCluster].Pending == 0 })
	if j := p.Rejected[0]; j.Name != "b" || !j.HeldBack || !strings.Contains(j.Message, "ConnectTimeout") {
		t.Fatalf("%+v", j)
	}
	if j := p.Rejected[1]; j.Name != "liar" || !strings.Contains(j.Message, `calls itself "a"`) {
		t.Fatalf("%+v", j)
	}
	// New content takes its place.
	good := plain("a", "b")
	r.put(good, w, 2)
	c.ack(c.expect(translate.TypeCluster, "b"))
	r.await("taken", func(p ProxyStatus) bool { return p.RejectedTotal == 0 })
}

func TestReconnectSendsTheDifference(t *testing.T) {
	r := newRig(t, Limits{Linger: -1})
	w := plain("a", "b")
	r.put(w, newWorld(), 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	st, err := r.dial().DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	say := func(req *discoveryv3.DeltaDiscoveryRequest) {
		t.Helper()
		if err := st.Send(req); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want string) {
		t.Helper()
		m, err := st.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if got := names(m); got != want || m.GetTypeUrl() != translate.TypeCluster {
			t.Fatalf("want %q, got %q", want, got)
		}
		say(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: m.GetTypeUrl(), ResponseNonce: m.GetNonce()})
	}
	say(&discoveryv3.DeltaDiscoveryRequest{
		Node: &corev3.Node{Id: "p"}, TypeUrl: translate.TypeCluster,
		InitialResourceVersions: map[string]string{"a": "1", "b": "0", "gone": "7"},
	})
	// What is gone goes once the proxy has told that no listener needs it.
	expect("b")
	r.await("b", func(p ProxyStatus) bool {
		return p.Types[kindCluster].Pending == 0 && p.Types[kindCluster].Deferred == 1
	})
	say(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: translate.TypeListener})
	expect("-gone")
	r.await("in sync", ProxyStatus.InSync)
}

func TestUnknownProxyIsSentNothingUntilSet(t *testing.T) {
	r := newRig(t, Limits{})
	c := r.open("p")
	c.say(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: translate.TypeListener, InitialResourceVersions: map[string]string{"l": "1"}})
	r.await("asked", func(p ProxyStatus) bool { return len(p.Types) > 0 && p.Types[kindListener].Resources == 1 })
	select {
	case m := <-c.got:
		t.Fatalf("sent %v before anything was known", m)
	default:
	}
	r.put(plain("a"), newWorld(), 1)
	c.ack(c.expect(translate.TypeCluster, "a"))
	c.expect(translate.TypeListener, "-l")
}

func TestSubscriptionsByName(t *testing.T) {
	r := newRig(t, Limits{})
	c := r.open("p")
	w := newWorld()
	w.put(kindEndpoint, "1", endpoints("x", 1))
	r.put(w, newWorld(), 1)
	c.say(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: translate.TypeEndpoint, ResourceNamesSubscribe: []string{"eds/x", "eds/none"}})
	c.ack(c.expect(translate.TypeEndpoint, "eds/x -eds/none"))
	// It springs into existence.
	w2 := w.clone().put(kindEndpoint, "1", endpoints("none", 2)).put(kindEndpoint, "1", endpoints("unasked", 2))
	r.put(w2, w, 2)
	c.ack(c.expect(translate.TypeEndpoint, "eds/none"))
	// Asking again is answered again.
	c.say(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: translate.TypeEndpoint, ResourceNamesSubscribe: []string{"eds/x"}})
	c.ack(c.expect(translate.TypeEndpoint, "eds/x"))
	// What is no longer asked for is not sent; the wildcard can be asked for by name.
	c.say(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: translate.TypeEndpoint, ResourceNamesUnsubscribe: []string{"eds/x"}})
	r.await("unsubscribed", func(p ProxyStatus) bool { return p.Types[kindEndpoint].Subscribed == 1 })
	r.put(w2.clone().put(kindEndpoint, "2", endpoints("x", 3)), w2, 3)
	c.say(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: translate.TypeEndpoint, ResourceNamesSubscribe: []string{"*"}})
	c.ack(c.expect(translate.TypeEndpoint, "eds/unasked eds/x"))
}
