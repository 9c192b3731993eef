package differential

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/xds/envoy/envoytest"
	"github.com/causeway-mesh/causeway/xds/server"
	"github.com/causeway-mesh/causeway/xds/translate"
	"github.com/causeway-mesh/causeway/xds/translate/translatetest"
)

// rig is the real half: xDS server, Envoys, pods.
type rig struct {
	t       *testing.T
	server  *server.Server
	xdsPort int
	envoy   string
	own     block
	trust   map[cluster.ID]*identity.Authority
	bundles *translate.Bundles
	caches  map[cluster.ID]*translate.Cache // as each cluster's agent has one
	proxies map[string]*proxy
	// clients of HTTP/1.1, of HTTP/2 with prior knowledge, and of TLS.
	client, h2, secure http.Client
}

// serverName is where a context says which name a connection asks for.
type serverName struct{}

type proxy struct {
	translate.Proxy
	svid  *translate.Identity
	state atomic.Pointer[translate.State] // what it was told last
	binds *translatetest.Bindings
}

func newRig(t *testing.T) *rig {
	t.Helper()
	path := envoytest.Binary(t)
	s, err := server.New(server.Config{
		Authorize: func(_ context.Context, n *corev3.Node) (string, error) { return n.GetId(), nil },
		Limits:    server.Limits{Warm: time.Second},
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(server.ServerOptions()...)
	s.Register(g)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	r := &rig{t: t, server: s, xdsPort: l.Addr().(*net.TCPAddr).Port, envoy: path, own: newBlock(t),
		trust: map[cluster.ID]*identity.Authority{}, caches: map[cluster.ID]*translate.Cache{}, proxies: map[string]*proxy{}}
	for _, c := range []cluster.ID{east, west, north} {
		td, err := identity.TrustDomain(c, "test")
		if err != nil {
			t.Fatal(err)
		}
		if r.trust[c], err = identity.OpenAuthority(identity.AuthorityConfig{TrustDomain: td}); err != nil {
			t.Fatal(err)
		}
		r.caches[c] = translate.NewCache()
	}
	r.bundles = r.allBundles()
	r.client = http.Client{Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	r.h2, r.secure = r.client, r.client
	var prior http.Protocols
	prior.SetUnencryptedHTTP2(true)
	r.h2.Transport = &http.Transport{Protocols: &prior}
	r.secure.Transport = &http.Transport{DisableKeepAlives: true, DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		// Which certificate it is, is for others to test.
		d := tls.Dialer{Config: &tls.Config{ServerName: ctx.Value(serverName{}).(string), InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}} //nolint:gosec // see above
		return d.DialContext(ctx, network, addr)
	}}
	return r
}

// start runs an Envoy until the test ends.
func (r *rig) start(p translate.Proxy) {
	r.t.Helper()
	envoytest.Follow(r.t, r.envoy, p.ID(), r.xdsPort)
	r.proxies[p.ID()] = &proxy{Proxy: p, svid: r.issue(p), binds: r.own.listeners(len(r.proxies))}
}

// issue makes a proxy's identity.
func (r *rig) issue(p translate.Proxy) *translate.Identity {
	r.t.Helper()
	a := r.trust[p.Cluster]
	id, err := identity.ProxyID(a.TrustDomain(), identity.Role(p.Role), p.Namespace, p.Name)
	if err != nil {
		r.t.Fatal(err)
	}
	c, err := a.Issue(identity.SVIDRequest{ID: id, TTL: time.Hour})
	if err != nil {
		r.t.Fatal(err)
	}
	return translate.NewIdentity(c.CertPEM(), c.KeyPEM())
}

// allBundles are the authorities of all clusters.
func (r *rig) allBundles() *translate.Bundles {
	trust := map[string][][]byte{}
	for _, a := range r.trust {
		for _, c := range a.Bundle().X509Authorities() {
			trust[a.TrustDomain().Name()] = append(trust[a.TrustDomain().Name()], c.Raw)
		}
	}
	return translate.NewBundles(trust)
}

// input is what a proxy's configuration is made of.
func (r *rig) input(p *proxy, res *resolve.Result) translate.Input {
	return translate.Input{Proxy: p.Proxy, Result: res, Bindings: p.binds, Identity: p.svid, Bundles: r.bundles, Options: translate.Options{DebugHeaders: true}, Cache: r.caches[p.Cluster]}
}

// follow makes all Envoys follow their clusters' results, and returns once they have
// said so.
func (r *rig) follow(revision int64, results views) {
	r.t.Helper()
	r.hangUp() // nobody goes on by what was
	for id, p := range r.proxies {
		old, next := p.state.Load(), translate.Build(r.input(p, results[p.Cluster]))
		p.state.Store(next)
		r.server.Set(id, next.Resources, changes(old, next), server.Stamp{Revision: revision, At: time.Now()})
	}
	deadline := time.After(time.Minute)
	for {
		changed := r.server.Changed()
		if r.settled(revision) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			r.t.Fatalf("the Envoys did not take over what they were told within a minute: %+v", r.server.Proxies())
		}
	}
}

// changes compares two worlds, which have nothing in common.
func changes(old, next *translate.State) translate.Changes {
	c := translate.Changes{Changed: map[string][]string{}, Removed: map[string][]string{}}
	for _, t := range translate.Types {
		for name := range next.Resources.All(t) {
			c.Changed[t] = append(c.Changed[t], name)
		}
		if old == nil {
			continue
		}
		for name := range old.Resources.All(t) {
			if _, ok := next.Resources.Get(t, name); !ok {
				c.Removed[t] = append(c.Removed[t], name)
			}
		}
	}
	return c
}

func (r *rig) settled(revision int64) bool {
	seen := 0
	for _, p := range r.server.Proxies() {
		for _, x := range p.Rejected {
			r.t.Fatalf("%s refused %v", p.Proxy, x.String())
		}
		if p.InSync() && p.Acked >= revision {
			seen++
		}
	}
	return seen == len(r.proxies)
}

// block is the second number of 127.0.0.0/8 addresses that are this process's own.
type block byte

// newBlock takes a block until the test ends: whoever listens at its last address has it.
func newBlock(t *testing.T) block {
	t.Helper()
	for b := 64; b < 255; b++ {
		l, err := net.Listen("tcp", netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, byte(b), 255, 254}), listenPort).String())
		if err == nil {
			t.Cleanup(func() { _ = l.Close() })
			return block(b)
		}
	}
	t.Fatal("all blocks of 127.0.0.0/8 are taken")
	return 0
}

func (b block) pod(cluster, n int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, byte(b), byte(1 + cluster), byte(1 + n)})
}

// listenPort is the port of every listener; addresses tell them apart.
const listenPort = 15080

// listeners gives every listener of the nth proxy an address of its own.
func (b block) listeners(proxy int) *translatetest.Bindings {
	return translatetest.NewBindings(func(n int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, byte(b), byte(32 + 16*proxy + n>>8), byte(n)}), listenPort)
	})
}
