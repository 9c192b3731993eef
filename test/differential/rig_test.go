package differential

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/xds/envoy"
	"github.com/causeway-mesh/causeway/xds/server"
	"github.com/causeway-mesh/causeway/xds/translate"
)

const bootstrap = `{
  "node": {"id": %q, "cluster": "test"},
  "admin": {"address": {"pipe": {"path": %q}}},
  "bootstrap_extensions": [{"name": "envoy.bootstrap.internal_listener",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"}}],
  "dynamic_resources": {
    "ads_config": {"api_type": "DELTA_GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
      "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]},
    "cds_config": {"ads": {}, "resource_api_version": "V3"},
    "lds_config": {"ads": {}, "resource_api_version": "V3"}
  },
  "static_resources": {"clusters": [{
    "name": "xds", "connect_timeout": "1s", "type": "STATIC",
    "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
      "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
      "explicit_http_config": {"http2_protocol_options": {}}}},
    "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [{"endpoint":
      {"address": {"socket_address": {"address": "127.0.0.1", "port_value": %d}}}}]}]}
  }]}
}`

// rig is the real half: xDS server, Envoys, pods.
type rig struct {
	t       *testing.T
	server  *server.Server
	xdsPort int
	envoy   string
	cache   *translate.Cache
	proxies map[string]*proxy
	// clients of HTTP/1.1, of HTTP/2 with prior knowledge, and of TLS.
	client, h2, secure http.Client
}

// serverName is where a context says which name a connection asks for.
type serverName struct{}

type proxy struct {
	translate.Proxy
	state atomic.Pointer[translate.State] // what it was told last
	binds *binds
}

func newRig(t *testing.T) *rig {
	t.Helper()
	path, err := envoy.Find("")
	if err != nil {
		t.Skipf("no Envoy: %v", err)
	}
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
	r := &rig{t: t, server: s, xdsPort: l.Addr().(*net.TCPAddr).Port, envoy: path, cache: translate.NewCache(), proxies: map[string]*proxy{}}
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
	t := r.t
	t.Helper()
	dir := t.TempDir()
	sockets, err := os.MkdirTemp("", "cw") // names of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	file, log := filepath.Join(dir, "envoy.json"), filepath.Join(dir, "envoy.log")
	if err := os.WriteFile(file, fmt.Appendf(nil, bootstrap, p.ID(), filepath.Join(sockets, "a"), r.xdsPort), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- envoy.Process{Path: r.envoy, Bootstrap: file, LogPath: log, Logger: slog.New(slog.DiscardHandler)}.Run(ctx)
	}()
	t.Cleanup(func() {
		if t.Failed() {
			b, _ := os.ReadFile(log)
			t.Logf("%s: Envoy's log:\n%s", p.ID(), b[max(0, len(b)-4000):])
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(sockets)
	})
	r.proxies[p.ID()] = &proxy{Proxy: p, binds: &binds{proxy: byte(len(r.proxies)), at: map[string]netip.AddrPort{}}}
}

// follow makes all Envoys follow a result, and returns once they have said so.
func (r *rig) follow(revision int64, res *resolve.Result) {
	r.t.Helper()
	for id, p := range r.proxies {
		in := translate.Input{Proxy: p.Proxy, Result: res, Bindings: p.binds, Options: translate.Options{DebugHeaders: true}, Cache: r.cache}
		old, next := p.state.Load(), translate.Build(in)
		p.state.Store(next)
		r.server.Set(id, next.Resources, changes(old, next), server.Stamp{Revision: revision, At: time.Now()})
	}
	deadline := time.After(30 * time.Second)
	for {
		changed := r.server.Changed()
		if r.settled(revision) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			r.t.Fatalf("the Envoys did not take over what they were told within 30 s: %+v", r.server.Proxies())
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

// binds gives every listener of a proxy an address of its own.
type binds struct {
	proxy byte
	mu    sync.Mutex
	at    map[string]netip.AddrPort
}

func (b *binds) of(key string) (netip.AddrPort, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a, ok := b.at[key]
	if !ok {
		n := len(b.at) + 1
		a = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 78 + b.proxy, byte(n >> 8), byte(n)}), 15080)
		b.at[key] = a
	}
	return a, true
}

func (b *binds) Frontend(_ translate.Proxy, key resolve.FrontendKey, t translate.Transport, port int32) (netip.AddrPort, bool) {
	return b.of(translate.FrontendListenerName(key, t, port))
}

func (b *binds) Gateway(_ translate.Proxy, t translate.Transport, port int32) (netip.AddrPort, bool) {
	return b.of(translate.GatewayListenerName(t, port))
}

func (b *binds) Crossing(translate.Proxy) (netip.AddrPort, bool) { return b.of("crossing") }

func (b *binds) Entry(translate.Proxy, resolve.FrontendKey, translate.Transport, int32) (netip.AddrPort, bool) {
	return netip.AddrPort{}, false
}

// seen is what a pod saw of a request; it answers with it.
type seen struct {
	Address string
	Method  string
	URI     string
	Host    string
	Headers http.Header
}

// pods are HTTP servers on addresses of their own, all on one port.
type pods struct {
	ca    *authority
	port  uint16
	addrs map[cluster.ID][]netip.Addr
	next  map[cluster.ID]int
}

// newPods listens on n addresses for each cluster.
func newPods(t *testing.T, n int, clusters ...cluster.ID) *pods {
	t.Helper()
	p := &pods{ca: newAuthority(t), addrs: map[cluster.ID][]netip.Addr{}, next: map[cluster.ID]int{}}
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	serve := func(l net.Listener) {
		s := &http.Server{Protocols: &both, ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			_, _ = io.Copy(io.Discard, req.Body)
			w.Header().Set("x-r", "backend")
			w.Header().Set("x-r-drop", "backend")
			_ = json.NewEncoder(w).Encode(seen{Address: l.Addr().String(), Method: req.Method, URI: req.RequestURI, Host: req.Host, Headers: req.Header})
		})}
		go func() { _ = s.Serve(l) }()
		t.Cleanup(func() { _ = s.Close() })
	}
	for i, c := range clusters {
		for j := range n {
			a := netip.AddrFrom4([4]byte{127, 77, byte(i + 1), byte(j + 1)})
			l, err := net.Listen("tcp", netip.AddrPortFrom(a, p.port).String())
			if err != nil {
				t.Fatal(err)
			}
			if p.port == 0 {
				p.port = l.Addr().(*net.TCPAddr).AddrPort().Port()
			}
			serve(l)
			p.addrs[c] = append(p.addrs[c], a)
		}
	}
	return p
}

// take gives n addresses, in turns.
func (p *pods) take(c cluster.ID, n int) []netip.Addr {
	var out []netip.Addr
	for range n {
		out = append(out, p.addrs[c][p.next[c]%len(p.addrs[c])])
		p.next[c]++
	}
	return out
}

// authority issues the certificates of listeners.
type authority struct {
	key  *ecdsa.PrivateKey
	next atomic.Int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{key: key}
}

// issue makes a certificate with its key, as PEM.
func (a *authority) issue(t *testing.T) (cert, key []byte) {
	t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(a.next.Add(1)), DNSNames: []string{"example.com"}, NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(crand.Reader, tmpl, tmpl, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	k, err := x509.MarshalECPrivateKey(a.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: k})
}
