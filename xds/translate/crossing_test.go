package translate

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

func importKey(name string) resolve.BackendKey {
	return resolve.BackendKey{Kind: resolve.BackendImport, Namespace: "app", Name: name, Port: 80}
}

func domainOf(id cluster.ID) string { return string(id) + "." + testSet }

// A request from east to an import that west serves, on another network: through
// west's crossing gateway over mTLS, by server name.
func TestCrossingInEnvoy(t *testing.T) {
	w := newWorld(t, "east", "west")
	here, there := echo(t, "east"), echo(t, "west")
	binds := &ports{t: t}
	gate := Proxy{Cluster: "west", Role: RoleCrossing, Namespace: "causeway-system", Name: "crossing"}
	gateAt, _ := binds.Crossing(gate)
	own := service("svc", resolve.AppHTTP, there)
	own.Groups[0].Cluster = "west"
	imp := &resolve.Import{Namespace: "app", Name: "svc", Ports: []resolve.ImportPort{
		{Port: 80, Protocol: "TCP", AppProtocol: resolve.AppHTTP, Clusters: []cluster.ID{"east", "west"}},
		{Port: 81, Protocol: "TCP", Clusters: []cluster.ID{"east"}},
	}}
	in := Input{Proxy: gate, Result: result("west", imp, own)}
	g := w.start(in, binds)
	if n := count(g.state, TypeCluster); n != 1 {
		t.Errorf("the crossing gateway has %d clusters, want that of port 80 alone", n)
	}

	backend := func(local bool, healthy bool) *resolve.Backend {
		b := &resolve.Backend{Key: importKey("svc"), Config: resolve.BackendConfig{
			Protocol: "TCP", AppProtocol: resolve.AppHTTP, Crossings: []resolve.Crossing{{Cluster: "west", TrustDomain: domainOf("west")}},
		}}
		if local {
			b.Groups = append(b.Groups, resolve.EndpointGroup{Cluster: "east", Endpoints: []resolve.Endpoint{{Addr: here, Weight: 1, Healthy: healthy, Pod: "p"}}})
		}
		return func() *resolve.Backend {
			b.Groups = append(b.Groups, resolve.EndpointGroup{Cluster: "west", Priority: uint32(len(b.Groups)), Crossing: true, Endpoints: []resolve.Endpoint{{Addr: gateAt, Weight: 1, Healthy: true, Behind: 1}}})
			return b
		}()
	}
	front := &resolve.Frontend{
		Key:   resolve.FrontendKey{Kind: cluster.KindServiceImport, Namespace: "app", Name: "svc"},
		Ports: []resolve.FrontendPort{{Port: 80, Protocol: "TCP", AppProtocol: resolve.AppHTTP, Backend: importKey("svc")}},
	}
	side := Proxy{Cluster: "east", Role: RoleSidecar, Namespace: "dev", Name: "w"}
	input := Input{Proxy: side, Result: result("east", front, backend(false, false)), Options: Options{DebugHeaders: true}}
	s := w.start(input, binds)
	at, _ := binds.Frontend(side, front.Key, TransportTCP, 80)

	x := ask(t, at, "GET", "svc.app", "/x")
	if x.status != 200 || x.from() != "west" {
		t.Fatalf("%d from %q: %s", x.status, x.from(), x.body)
	}
	if got, want := x.header.Get(HeaderUpstream), "ServiceImport/app/svc/80; cluster=west; pod=; address="+gateAt.String(); got != want {
		t.Errorf("%s: %q, want %q", HeaderUpstream, got, want)
	}

	// Endpoints alone: here first; not ready here: there; and back.
	input.Bindings, input.Cache = binds, w.cache
	input.Identity, input.Bundles = s.state.in.Identity, s.state.in.Bundles
	step := func(b *resolve.Backend, want string) {
		t.Helper()
		input.Result = result("east", front, b)
		next, changes := s.state.Update(input, resolve.Delta{BackendEndpoints: []string{b.Key.String()}})
		if len(changes.Removed) != 0 || len(changes.Changed) != 1 || len(changes.Changed[TypeEndpoint]) != 1 {
			t.Errorf("endpoints changed, and the changes are %v", changes)
		}
		s.state = next
		s.feed.set(next)
		await(t, func() error {
			if x := ask(t, at, "GET", "svc.app", "/x"); x.status != 200 || x.from() != want {
				return fmt.Errorf("%d from %q, want %q", x.status, x.from(), want)
			}
			return nil
		})
	}
	step(backend(true, true), "east")
	step(backend(true, false), "west")
	step(backend(true, true), "east")
	// Here is said to be ready and isn't: the last try goes there.
	down := backend(true, true)
	down.Groups[0].Endpoints[0].Addr = closedPort(t)
	step(down, "west")
	for range 20 {
		if x := ask(t, at, "POST", "svc.app", "/x"); x.status != 200 {
			t.Fatalf("the only endpoint here refuses connections, there is one that doesn't, and the answer is %d", x.status)
		}
	}
	step(backend(false, false), "west")

	// A trust domain without authorities is not trusted; once they are there it
	// is, and only a secret has changed.
	input.Result.Snapshot = snapshotOf("east", "west")
	trusting := input.Bundles
	input.Bundles = w.bundles("east")
	lone := side
	lone.Name = "lone"
	input.Proxy, input.Identity = lone, nil
	l := w.start(input, binds)
	input.Identity = l.state.in.Identity
	at, _ = binds.Frontend(lone, front.Key, TransportTCP, 80)
	if x := ask(t, at, "GET", "svc.app", "/x"); x.status != 503 {
		t.Errorf("nobody of west is trusted, and the answer is %d from %q", x.status, x.from())
	}
	input.Bundles = trusting
	healed, changes := l.state.Update(input, resolve.Delta{})
	if want := prefixBundle + domainOf("west"); len(changes.Removed) != 0 || len(changes.Changed) != 1 || !slices.Equal(changes.Changed[TypeSecret], []string{want}) {
		t.Errorf("authorities came, and the changes are %v", changes)
	}
	l.feed.set(healed)
	await(t, func() error {
		if x := ask(t, at, "GET", "svc.app", "/x"); x.status != 200 || x.from() != "west" {
			return fmt.Errorf("%d from %q", x.status, x.from())
		}
		return nil
	})
	l.accepted(t)

	// Who may come in.
	dial := func(a *identity.Authority, id spiffeid.ID, sni string) string {
		t.Helper()
		c, err := a.Issue(identity.SVIDRequest{ID: id, TTL: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		conf := identity.ClientConfig(c, w.authorities["west"], func(identity.Identity) error { return nil })
		conf.ServerName = sni
		return talk(gateAt, conf)
	}
	must := func(id spiffeid.ID, err error) spiffeid.ID {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	east := w.authorities["east"]
	proxyID := must(identity.ProxyID(east.TrustDomain(), identity.RoleSidecar, "dev", "w"))
	name := importKey("svc").SNI()
	if got := dial(east, proxyID, name); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("a sidecar of east is not let in: %s", got)
	}
	stranger, err := identity.OpenAuthority(identity.AuthorityConfig{TrustDomain: spiffeid.RequireTrustDomainFromString("south." + testSet)})
	if err != nil {
		t.Fatal(err)
	}
	impostor, err := identity.OpenAuthority(identity.AuthorityConfig{TrustDomain: east.TrustDomain()})
	if err != nil {
		t.Fatal(err)
	}
	for what, got := range map[string]string{
		"an unknown service":                  dial(east, proxyID, "81.svc.app.svc.clusterset.local"),
		"the name of the cluster of xDS":      dial(east, proxyID, clusterXDS),
		"no name":                             dial(east, proxyID, ""),
		"an agent":                            dial(east, must(identity.AgentID(east.TrustDomain())), name),
		"an unknown trust domain":             dial(stranger, must(identity.ProxyID(stranger.TrustDomain(), identity.RoleSidecar, "dev", "w")), name),
		"another authority of east":           dial(impostor, proxyID, name),
		"a client without certificate":        talk(gateAt, &tls.Config{InsecureSkipVerify: true, ServerName: name}),
		"a client of TLS 1.2":                 talk(gateAt, &tls.Config{InsecureSkipVerify: true, ServerName: name, MaxVersion: tls.VersionTLS12}),
		"a client that doesn't speak any TLS": talk(gateAt, nil),
	} {
		if strings.HasPrefix(got, "HTTP/") {
			t.Errorf("%s got through", what)
		}
		// What is no name of a service must not even be looked up as a cluster.
		if strings.Contains(what, "name") && !strings.HasPrefix(got, noHandshake) {
			t.Errorf("%s: a handshake, then %q", what, got)
		}
	}
	g.accepted(t)
	s.accepted(t)
}

const noHandshake = "no handshake: "

// talk sends a request and gives the answer's first bytes, or what went wrong.
func talk(at netip.AddrPort, conf *tls.Config) string {
	raw, err := net.DialTimeout("tcp", at.String(), 5*time.Second)
	if err != nil {
		return err.Error()
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(time.Minute))
	conn := raw
	if conf != nil {
		c := tls.Client(raw, conf)
		if err := c.Handshake(); err != nil {
			return noHandshake + err.Error()
		}
		conn = c
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		return err.Error()
	}
	body, err := io.ReadAll(conn)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

// An opaque port is a TCP proxy, and becomes HTTP when routes come to govern it.
func TestOpaqueInEnvoy(t *testing.T) {
	w := newWorld(t, "east")
	a, b := echo(t, "a"), echo(t, "b")
	f := frontend("a", nil)
	f.Ports[0].AppProtocol = resolve.AppTCP
	p := Proxy{Cluster: "east", Role: RoleSidecar, Namespace: "app", Name: "w"}
	binds := &ports{t: t}
	in := Input{Proxy: p, Result: result("east", f, service("a", resolve.AppTCP, closedPort(t), a), service("b", resolve.AppTCP, b)), Options: Options{AccessLog: "/dev/null"}}
	r := w.start(in, binds)
	at, _ := binds.Frontend(p, f.Key, TransportTCP, 80)
	if n := count(r.state, TypeRoute); n != 0 {
		t.Errorf("an opaque port has %d route configurations", n)
	}
	for range 10 {
		if got := talk(at, nil); !strings.HasPrefix(got, "HTTP/1.1 200") || strings.Contains(got, "X-Request-Id") {
			t.Fatalf("not an opaque connection to a: %s", got)
		}
	}
	governed := frontend("a", table(prefixRule("r", 0, "/", to("b", 1))))
	in.Result = result("east", governed, service("a", resolve.AppTCP, a), service("b", resolve.AppTCP, b))
	in.Bindings, in.Cache, in.Identity, in.Bundles = binds, w.cache, r.state.in.Identity, r.state.in.Bundles
	next, changes := r.state.Update(in, resolve.Delta{Frontends: []string{f.Key.String()}})
	if got := changes.Removed[TypeCluster]; len(got) != 1 || got[0] != "raw/Service/app/a/80" {
		t.Errorf("nothing refers to a any more, and the changes are %v", changes)
	}
	r.feed.set(next)
	await(t, func() error {
		if got := talk(at, nil); !strings.HasPrefix(got, "HTTP/1.1 200") || !strings.Contains(got, "X-Request-Id") {
			return fmt.Errorf("not routed to b: %s", got)
		}
		return nil
	})
	r.accepted(t)
}
