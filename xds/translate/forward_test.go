package translate

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// pki is an authority of the tests.
type pki struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &pki{t: t, cert: cert, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (p *pki) issue(names ...string) (certPEM, keyPEM []byte) {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, p.cert, &key.PublicKey, p.key)
	if err != nil {
		p.t.Fatal(err)
	}
	k, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		p.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: k})
}

func (p *pki) secret(name string, hosts ...string) *resolve.Certificate {
	p.t.Helper()
	cert, key := p.issue(hosts...)
	c, err := resolve.NewCertificate("app", name, cert, key)
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

func first(a, _ []byte) []byte { return a }

func (p *pki) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(p.cert)
	return pool
}

// said answers every connection with its name, and then with what it hears.
func said(t *testing.T, name string, config *tls.Config) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().(*net.TCPAddr).AddrPort()
	if config != nil {
		l = tls.NewListener(l, config)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = fmt.Fprintf(c, "%s\n", name)
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return at
}

// hear gives the first line of a connection, or "closed".
func hear(c net.Conn, err error) string {
	if err != nil {
		return "closed: " + err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	buf := make([]byte, 64)
	n, err := c.Read(buf)
	if err != nil {
		return "closed: " + err.Error()
	}
	return strings.TrimSpace(string(buf[:n]))
}

func forwardTo(backends ...resolve.WeightedBackend) *resolve.ForwardRule {
	return &resolve.ForwardRule{Route: resolve.RouteID{Kind: cluster.KindTCPRoute, Namespace: "app", Name: "r", Cluster: "east"}, Backends: backends}
}

func forwardTable(f *resolve.ForwardRule) *resolve.RouteTable { return &resolve.RouteTable{Forward: f} }

// A Gateway with every protocol: TCP with weights, and one port for HTTPS, TLS that is
// ended and TLS that is passed through, told apart by server name.
func TestListenersInEnvoy(t *testing.T) {
	w := newWorld(t, "east")
	ca := newPKI(t)
	serverCert, serverKey := ca.issue("pass.example.com")
	pair, err := tls.X509KeyPair(serverCert, serverKey)
	if err != nil {
		t.Fatal(err)
	}
	a, b := said(t, "a", nil), said(t, "b", nil)
	secure := said(t, "secure", &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
	web := echo(t, "web")
	hosts := func(name string, rule *resolve.Rule) []resolve.VirtualHost {
		return []resolve.VirtualHost{{Hostname: name, Table: table(rule)}}
	}
	forwards := func(name, backend string) []resolve.VirtualHost {
		return []resolve.VirtualHost{{Hostname: name, Table: forwardTable(forwardTo(to(backend, 1)))}}
	}
	gw := func(certificate *resolve.Certificate, splits ...resolve.WeightedBackend) *resolve.Gateway {
		return &resolve.Gateway{Namespace: "app", Name: "gw", Home: "east", Listeners: []resolve.Listener{
			{Name: "tcp", Port: 9000, Protocol: "TCP", Forward: forwardTo(splits...)},
			{Name: "nothing", Port: 9001, Protocol: "TCP"},
			{Name: "web", Port: 443, Protocol: "HTTPS", Hostname: "web.example.com", TLS: &resolve.ListenerTLS{Certificates: []*resolve.Certificate{certificate}}, Hosts: hosts("web.example.com", prefixRule("web", 0, "/", to("web", 1)))},
			{Name: "any", Port: 443, Protocol: "HTTPS", Hostname: "*.example.com", TLS: &resolve.ListenerTLS{Certificates: []*resolve.Certificate{ca.secret("any", "*.example.com")}}, Hosts: hosts("*.example.com", prefixRule("any", 0, "/", to("web", 1)))},
			{Name: "mutual", Port: 443, Protocol: "HTTPS", Hostname: "mutual.example.com", TLS: &resolve.ListenerTLS{Certificates: []*resolve.Certificate{ca.secret("mutual", "mutual.example.com")}, ClientCAs: ca.pem}, Hosts: hosts("mutual.example.com", prefixRule("mutual", 0, "/", to("web", 1)))},
			{Name: "lenient", Port: 443, Protocol: "HTTPS", Hostname: "lenient.example.com", TLS: &resolve.ListenerTLS{Certificates: []*resolve.Certificate{ca.secret("lenient", "lenient.example.com")}, ClientCAs: ca.pem, AllowInsecure: true}, Hosts: hosts("lenient.example.com", prefixRule("lenient", 0, "/", to("web", 1)))},
			{Name: "pass", Port: 443, Protocol: "TLS", Hostname: "pass.example.com", Hosts: forwards("pass.example.com", "secure")},
			{Name: "end", Port: 443, Protocol: "TLS", Hostname: "end.example.com", TLS: &resolve.ListenerTLS{Certificates: []*resolve.Certificate{ca.secret("end", "end.example.com")}}, Hosts: forwards("end.example.com", "a")},
		}}
	}
	backends := []any{service("a", resolve.AppTCP, a), service("b", resolve.AppTCP, b), service("secure", resolve.AppTCP, secure), service("web", resolve.AppHTTP, web)}
	binds := &ports{t: t}
	proxy := Proxy{Cluster: "east", Role: RoleGateway, Namespace: "app", Name: "gw"}
	in := Input{Proxy: proxy, Result: result("east", append(backends, gw(ca.secret("web", "web.example.com"), to("a", 3), to("b", 1)))...), Options: Options{DebugHeaders: true}}
	r := w.start(in, binds)
	at := func(port int32) string { x, _ := binds.Gateway(proxy, TransportTCP, port); return x.String() }

	counts := map[string]int{}
	for range 200 {
		counts[hear(net.Dial("tcp", at(9000)))]++
	}
	if counts["a"] < 120 || counts["b"] < 25 || len(counts) != 2 {
		t.Errorf("of 200 connections for a and b as 3 to 1: %v", counts)
	}
	if got := hear(net.Dial("tcp", at(9001))); !strings.HasPrefix(got, "closed") {
		t.Errorf("a listener without routes says %q", got)
	}
	secureDial := func(name string, certs ...tls.Certificate) (net.Conn, error) {
		return tls.Dial("tcp", at(443), &tls.Config{ServerName: name, RootCAs: ca.pool(), Certificates: certs, MinVersion: tls.VersionTLS12})
	}
	for name, want := range map[string]string{"pass.example.com": "secure", "end.example.com": "a"} {
		if got := hear(secureDial(name)); got != want {
			t.Errorf("TLS to %s reaches %q, want %q", name, got, want)
		}
	}
	if got := hear(secureDial("other.org")); !strings.HasPrefix(got, "closed") {
		t.Errorf("TLS to nobody's name reaches %q", got)
	}

	get := func(name, host string, certs ...tls.Certificate) (int, string, error) {
		c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{ForceAttemptHTTP2: true, DisableKeepAlives: true, DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
			return tls.Dial("tcp", at(443), &tls.Config{ServerName: name, RootCAs: ca.pool(), Certificates: certs, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12})
		}}}
		req, err := http.NewRequest(http.MethodGet, "https://"+host+"/", nil)
		if err != nil {
			return 0, "", err
		}
		resp, err := c.Do(req)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		return resp.StatusCode, resp.Header.Get(HeaderRoute), nil
	}
	ownCert, ownKey := ca.issue("client")
	client, err := tls.X509KeyPair(ownCert, ownKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		name, host, route string
		status            int
		certs             []tls.Certificate
	}{
		{name: "web.example.com", host: "web.example.com", status: 200, route: "HTTPRoute/app/web@east/0/0"},
		{name: "b.example.com", host: "b.example.com", status: 200, route: "HTTPRoute/app/any@east/0/0"},
		{name: "b.example.com", host: "web.example.com", status: 421, route: "misdirected"},
		{name: "b.example.com", host: "mutual.example.com", status: 421, route: "misdirected"},
		{name: "mutual.example.com", host: "mutual.example.com", certs: []tls.Certificate{client}, status: 200, route: "HTTPRoute/app/mutual@east/0/0"},
		{name: "lenient.example.com", host: "lenient.example.com", status: 200, route: "HTTPRoute/app/lenient@east/0/0"},
	} {
		status, route, err := get(x.name, x.host, x.certs...)
		if err != nil || status != x.status || route != x.route {
			t.Errorf("server name %s, host %s: %d by %q (%v), want %d by %q", x.name, x.host, status, route, err, x.status, x.route)
		}
	}
	if status, _, err := get("mutual.example.com", "mutual.example.com"); err == nil {
		t.Errorf("a client without a certificate gets %d where one is required", status)
	}

	// A new certificate changes a secret, and nothing else.
	renewed := ca.secret("web", "web.example.com")
	in.Bindings, in.Cache, in.Identity, in.Bundles = binds, w.cache, r.state.in.Identity, r.state.in.Bundles
	g, _ := in.Result.Gateways.Get([]byte("app/gw"))
	next := *g
	next.Listeners = slices.Clone(g.Listeners)
	next.Listeners[2].TLS = &resolve.ListenerTLS{Certificates: []*resolve.Certificate{renewed}}
	in.Result = result("east", append(backends, &next)...)
	state, changes := r.state.Update(in, resolve.Delta{Gateways: []string{"app/gw"}})
	if len(changes.Removed) != 0 || len(changes.Changed) != 1 || !slices.Equal(changes.Changed[TypeSecret], []string{"certificate/app/web"}) {
		t.Errorf("a certificate was renewed, and the changes are %v", changes)
	}
	r.feed.set(state)
	want, _ := pem.Decode(first(renewed.PEM()))
	await(t, func() error {
		c, err := secureDial("web.example.com")
		if err != nil {
			return err
		}
		defer c.Close()
		if got := c.(*tls.Conn).ConnectionState().PeerCertificates[0]; !slices.Equal(got.Raw, want.Bytes) {
			return errors.New("the old certificate is still in use")
		}
		return nil
	})
	r.accepted(t)
	for _, p := range r.state.Problems() {
		t.Errorf("problem: %+v", p)
	}
}

// A Gateway reaches backends by TLS as their policies say, and shows its certificate.
func TestBackendTLSInEnvoy(t *testing.T) {
	w := newWorld(t, "east")
	ca, other := newPKI(t), newPKI(t)
	cert, key := ca.issue("svc.example.com", "alt.example.com")
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		who := "nobody"
		if c := req.TLS.PeerCertificates; len(c) > 0 {
			who = c[0].Subject.CommonName
		}
		rw.Header().Set("x-seen", req.TLS.ServerName+" "+who)
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	at := l.Addr().(*net.TCPAddr).AddrPort()

	with := func(name string, p *resolve.BackendTLS) *resolve.Backend {
		b := service(name, resolve.AppHTTP, at)
		if p != nil {
			p.Cluster = "east"
			b.Config.TLS = []resolve.BackendTLS{*p}
		}
		return b
	}
	rules := []*resolve.Rule{}
	parts := []any{}
	for name, p := range map[string]*resolve.BackendTLS{
		"good":  {Hostname: "svc.example.com", CAs: ca.pem},
		"sans":  {Hostname: "ignored.example.com", DNSNames: []string{"alt.example.com"}, CAs: ca.pem},
		"wrong": {Hostname: "wrong.example.com", CAs: ca.pem},
		"alien": {Hostname: "svc.example.com", CAs: other.pem},
		"bad":   {Hostname: "svc.example.com", CAs: ca.pem, Invalid: "no such ConfigMap"},
		"root":  {Hostname: "svc.example.com", System: true},
		"plain": nil,
	} {
		parts = append(parts, with(name, p))
		rules = append(rules, prefixRule(name, 0, "/"+name, to(name, 1)))
	}
	mine := ca.secret("gw-client", "gateway-client")
	gw := &resolve.Gateway{Namespace: "app", Name: "gw", Home: "east", Listeners: []resolve.Listener{
		{Name: "http", Port: 80, Protocol: "HTTP", Hosts: []resolve.VirtualHost{{Hostname: "*", Table: table(rules...)}}},
	}, ClientCertificate: mine}
	proxy := Proxy{Cluster: "east", Role: RoleGateway, Namespace: "app", Name: "gw"}
	binds := &ports{t: t}
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, other.pem, 0o600); err != nil {
		t.Fatal(err)
	}
	in := Input{Proxy: proxy, Result: result("east", append(parts, gw)...), Options: Options{SystemRoots: roots}}
	r := w.start(in, binds)
	front, _ := binds.Gateway(proxy, TransportTCP, 80)
	for name, want := range map[string]string{
		"good": "200 svc.example.com gateway-client", "sans": "200 ignored.example.com gateway-client",
		"wrong": "503 ", "alien": "503 ", "bad": "503 ", "root": "503 ", "plain": "400 ",
	} {
		x := ask(t, front, "GET", "h", "/"+name)
		if got := fmt.Sprintf("%d %s", x.status, x.header.Get("x-seen")); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	// Without its certificate the Gateway shows none.
	bare := *gw
	bare.ClientCertificate = nil
	in.Result = result("east", append(parts, &bare)...)
	in.Bindings, in.Cache, in.Identity, in.Bundles = binds, w.cache, r.state.in.Identity, r.state.in.Bundles
	next, _ := r.state.Update(in, resolve.Delta{Gateways: []string{"app/gw"}})
	r.feed.set(next)
	await(t, func() error {
		// Connections that are open stay: this one is new.
		if x := ask(t, front, "GET", "h", "/good"); x.header.Get("x-seen") != "svc.example.com nobody" {
			return fmt.Errorf("the backend saw %q", x.header.Get("x-seen"))
		}
		return nil
	})
	r.accepted(t)
}

// datagrams answers with its name and what it hears.
func datagrams(t *testing.T, name string) netip.AddrPort {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo([]byte(name+" "+string(buf[:n])), from)
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

var errOther = errors.New("another answer")

// ping sends a datagram from a new port, and gives the answer.
func ping(at netip.AddrPort) (string, error) {
	c, err := net.Dial("udp", at.String())
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "hello"); err != nil {
		return "", err
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 1500)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

// Datagrams reach endpoints of the cluster, of another cluster of its network, and
// of another network through its crossing gateway; and Gateways split them.
func TestUDPInEnvoy(t *testing.T) {
	w := newWorld(t, "east", "west")
	here, there := datagrams(t, "east"), datagrams(t, "west")
	udp := func(kind resolve.BackendKind, name string) resolve.BackendKey {
		return resolve.BackendKey{Kind: kind, Namespace: "app", Name: name, Port: 53, Protocol: "UDP"}
	}
	binds := &ports{t: t}
	gate := Proxy{Cluster: "west", Role: RoleCrossing, Namespace: "causeway-system", Name: "crossing"}
	gateAt, _ := binds.Crossing(gate)
	imp := &resolve.Import{Namespace: "app", Name: "dns", Ports: []resolve.ImportPort{{Port: 53, Protocol: "UDP", Clusters: []cluster.ID{"east", "west"}}}}
	own := &resolve.Backend{Key: udp(resolve.BackendService, "dns"), Config: resolve.BackendConfig{Protocol: "UDP"},
		Groups: []resolve.EndpointGroup{{Cluster: "west", Endpoints: []resolve.Endpoint{{Addr: there, Weight: 1, Healthy: true}}}}}
	w.start(Input{Proxy: gate, Result: result("west", imp, own)}, binds)

	backend := func(healthy bool) *resolve.Backend {
		return &resolve.Backend{Key: udp(resolve.BackendImport, "dns"), Config: resolve.BackendConfig{Protocol: "UDP", Crossings: []resolve.Crossing{{Cluster: "west", TrustDomain: domainOf("west")}}},
			Groups: []resolve.EndpointGroup{
				{Cluster: "east", Endpoints: []resolve.Endpoint{{Addr: here, Weight: 1000, Healthy: healthy}}},
				{Cluster: "west", Priority: 1, Crossing: true, Endpoints: []resolve.Endpoint{{Addr: gateAt, Weight: 1000, Healthy: true, Behind: 1}}},
			}}
	}
	front := &resolve.Frontend{Key: resolve.FrontendKey{Kind: cluster.KindServiceImport, Namespace: "app", Name: "dns"},
		Ports: []resolve.FrontendPort{{Port: 53, Protocol: "UDP", Backend: udp(resolve.BackendImport, "dns")}}}
	local := &resolve.Backend{Key: udp(resolve.BackendService, "local"), Config: resolve.BackendConfig{Protocol: "UDP"},
		Groups: []resolve.EndpointGroup{{Cluster: "east", Endpoints: []resolve.Endpoint{{Addr: here, Weight: 1, Healthy: true}}}}}
	plain := &resolve.Frontend{Key: resolve.FrontendKey{Kind: cluster.KindService, Namespace: "app", Name: "local"},
		Ports: []resolve.FrontendPort{{Port: 53, Protocol: "UDP", Backend: udp(resolve.BackendService, "local")}}}
	split := &resolve.Frontend{Key: resolve.FrontendKey{Kind: cluster.KindService, Namespace: "app", Name: "split"},
		Ports: []resolve.FrontendPort{{Port: 53, Protocol: "UDP", Backend: udp(resolve.BackendService, "local"), Producer: forwardTable(forwardTo(
			resolve.WeightedBackend{Weight: 1, Backend: udp(resolve.BackendService, "local")},
			resolve.WeightedBackend{Weight: 1, Backend: udp(resolve.BackendShare, "far")}))}}}
	far := &resolve.Backend{Key: udp(resolve.BackendShare, "far"), Config: resolve.BackendConfig{Protocol: "UDP"},
		Groups: []resolve.EndpointGroup{{Cluster: "near", Endpoints: []resolve.Endpoint{{Addr: there, Weight: 1, Healthy: true}}}}}
	side := Proxy{Cluster: "east", Role: RoleSidecar, Namespace: "dev", Name: "w"}
	in := Input{Proxy: side, Result: result("east", front, plain, split, local, far, backend(true))}
	s := w.start(in, binds)
	expect := func(f *resolve.Frontend, want string) {
		t.Helper()
		at, _ := binds.Frontend(side, f.Key, TransportUDP, 53)
		await(t, func() error {
			if got, err := ping(at); err != nil || got != want+" hello" {
				return fmt.Errorf("%s: %q, want %s: %w", f.Key, got, want, cmp.Or(err, errOther))
			}
			return nil
		})
	}
	expect(plain, "east")
	expect(front, "east")
	counts := map[string]int{}
	at, _ := binds.Frontend(side, split.Key, TransportUDP, 53)
	for range 100 {
		got, err := ping(at)
		if err != nil {
			t.Fatal(err)
		}
		counts[got]++
	}
	if counts["east hello"] < 25 || counts["west hello"] < 25 {
		t.Errorf("of 100 sessions for two backends of equal weight: %v", counts)
	}
	// The endpoint here is not ready any more: sessions go to the other network.
	in.Bindings, in.Cache, in.Identity, in.Bundles = binds, w.cache, s.state.in.Identity, s.state.in.Bundles
	in.Result = result("east", front, plain, split, local, far, backend(false))
	next, changes := s.state.Update(in, resolve.Delta{BackendEndpoints: []string{udp(resolve.BackendImport, "dns").String()}})
	if len(changes.Changed[TypeListener])+len(changes.Changed[TypeCluster])+len(changes.Removed) != 0 {
		t.Errorf("endpoints changed, and the changes are %v", changes)
	}
	s.feed.set(next)
	expect(front, "west")
	s.accepted(t)
}
