package translate

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	iradix "github.com/hashicorp/go-immutable-radix/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// envoyBinary finds the real Envoy, or skips the test.
func envoyBinary(t *testing.T) string {
	t.Helper()
	candidates := []string{os.Getenv("CAUSEWAY_ENVOY")}
	if p, err := exec.LookPath("envoy"); err == nil {
		candidates = append(candidates, p)
	}
	if home, err := os.UserHomeDir(); err == nil {
		candidates = append(candidates, filepath.Join(home, ".cache/causeway/envoy-1.40.0/envoy"))
	}
	for _, c := range candidates {
		if info, err := os.Stat(c); err == nil && !info.IsDir() {
			return c
		}
	}
	t.Skip("no Envoy: set CAUSEWAY_ENVOY or run `make envoy`")
	return ""
}

// feed is the smallest thing that speaks incremental ADS: it gives one proxy what
// its State holds, and remembers what it refused.
type feed struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	mu      sync.Mutex
	state   *State
	changed chan struct{}
	refused []string
}

func (f *feed) set(s *State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = s
	if f.changed != nil {
		close(f.changed)
	}
	f.changed = make(chan struct{})
}

func (f *feed) get() (*State, chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state, f.changed
}

func (f *feed) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	reqs := make(chan *discoveryv3.DeltaDiscoveryRequest)
	go func() {
		defer close(reqs)
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case reqs <- r:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	wanted := map[string]map[string]bool{} // type -> name; empty map: all
	sent := map[string]map[string]string{}
	nonce := 0
	push := func(t string, again []string) error {
		state, _ := f.get()
		names, ok := wanted[t]
		if !ok {
			return nil
		}
		if sent[t] == nil {
			sent[t] = map[string]string{}
		}
		out := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: t}
		state.Resources.All(t).Root().Walk(func(_ []byte, r *Resource) bool {
			if (len(names) == 0 || names[r.Name]) && (sent[t][r.Name] != r.Version || slices.Contains(again, r.Name)) {
				sent[t][r.Name] = r.Version
				out.Resources = append(out.Resources, &discoveryv3.Resource{Name: r.Name, Version: r.Version, Resource: r.Body})
			}
			return false
		})
		for name := range sent[t] {
			if _, ok := state.Resources.Get(t, name); !ok {
				delete(sent[t], name)
				out.RemovedResources = append(out.RemovedResources, name)
			}
		}
		for _, name := range again {
			if _, ok := state.Resources.Get(t, name); !ok {
				out.RemovedResources = append(out.RemovedResources, name)
			}
		}
		if len(out.Resources)+len(out.RemovedResources) == 0 {
			return nil
		}
		nonce++
		out.Nonce = fmt.Sprint(nonce)
		return stream.Send(out)
	}
	for {
		_, changed := f.get()
		select {
		case r, ok := <-reqs:
			if !ok {
				return nil
			}
			if r.ErrorDetail != nil {
				f.mu.Lock()
				f.refused = append(f.refused, r.ErrorDetail.Message)
				f.mu.Unlock()
			}
			t := r.TypeUrl
			first := wanted[t] == nil
			if first {
				wanted[t] = map[string]bool{}
			}
			for _, n := range r.ResourceNamesSubscribe {
				if n != "*" {
					wanted[t][n] = true
				}
			}
			for _, n := range r.ResourceNamesUnsubscribe {
				delete(wanted[t], n)
			}
			if first || len(r.ResourceNamesSubscribe) > 0 {
				if err := push(t, r.ResourceNamesSubscribe); err != nil {
					return err
				}
			}
		case <-changed:
			for _, t := range Types {
				if err := push(t, nil); err != nil {
					return err
				}
			}
		}
	}
}

// world is what the tests with a real Envoy share: authorities and backends.
type world struct {
	t           *testing.T
	binary      string
	authorities map[cluster.ID]*identity.Authority
	cache       *Cache
}

const testSet = "test.example"

func newWorld(t *testing.T, clusters ...cluster.ID) *world {
	t.Helper()
	w := &world{t: t, binary: envoyBinary(t), authorities: map[cluster.ID]*identity.Authority{}, cache: NewCache()}
	for _, c := range clusters {
		td, err := identity.TrustDomain(c, testSet)
		if err != nil {
			t.Fatal(err)
		}
		a, err := identity.OpenAuthority(identity.AuthorityConfig{TrustDomain: td})
		if err != nil {
			t.Fatal(err)
		}
		w.authorities[c] = a
	}
	return w
}

func (w *world) bundles(clusters ...cluster.ID) *Bundles {
	trust := map[string][][]byte{}
	for _, c := range clusters {
		a := w.authorities[c]
		for _, cert := range a.Bundle().X509Authorities() {
			trust[a.TrustDomain().Name()] = append(trust[a.TrustDomain().Name()], cert.Raw)
		}
	}
	return NewBundles(trust)
}

func (w *world) credential(p Proxy) *identity.Credential {
	w.t.Helper()
	a := w.authorities[p.Cluster]
	name := p.Name
	if name == "" {
		name = "x"
	}
	id, err := identity.ProxyID(a.TrustDomain(), identity.Role(p.Role), p.Namespace, name)
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := a.Issue(identity.SVIDRequest{ID: id, TTL: time.Hour})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// ports binds everything to free ports of 127.0.0.1.
type ports struct {
	mu sync.Mutex
	t  *testing.T
	at map[string]netip.AddrPort
}

func (p *ports) of(key string) netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at == nil {
		p.at = map[string]netip.AddrPort{}
	}
	if _, ok := p.at[key]; !ok {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			p.t.Fatal(err)
		}
		p.at[key] = l.Addr().(*net.TCPAddr).AddrPort()
		_ = l.Close()
	}
	return p.at[key]
}

func (p *ports) Frontend(x Proxy, key resolve.FrontendKey, port int32) (netip.AddrPort, bool) {
	return p.of(x.ID() + FrontendListenerName(key, port)), true
}

func (p *ports) Gateway(x Proxy, port int32) (netip.AddrPort, bool) {
	return p.of(x.ID() + GatewayListenerName(port)), true
}

func (p *ports) Crossing(x Proxy) (netip.AddrPort, bool) { return p.of(x.ID() + nameCrossing), true }

// running is an Envoy with its feed.
type running struct {
	feed  *feed
	state *State
	ports *ports
	admin *http.Client
}

// start runs an Envoy with what Build makes of in, over Bootstrap's files and
// mTLS, and waits until it has started with all of it.
func (w *world) start(in Input, binds *ports) *running {
	t := w.t
	t.Helper()
	in.Bindings, in.Cache = binds, w.cache
	own := w.credential(in.Proxy)
	if in.Identity == nil {
		in.Identity = NewIdentity(own.CertPEM(), own.KeyPEM())
	}
	if in.Bundles == nil {
		var all []cluster.ID
		for c := range w.authorities {
			all = append(all, c)
		}
		in.Bundles = w.bundles(all...)
	}
	r := &running{feed: &feed{}, state: Build(in), ports: binds}
	r.feed.set(r.state)

	dir, err := os.MkdirTemp("", "cw") // short: a Unix socket goes there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	a := w.authorities[in.Proxy.Cluster]
	agentID, _ := identity.AgentID(a.TrustDomain())
	agent, err := a.Issue(identity.SVIDRequest{ID: agentID, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(identity.ServerConfig(agent, a, func(i identity.Identity) error {
		if i.Kind != identity.KindProxy || string(i.Role) != string(in.Proxy.Role) {
			return fmt.Errorf("%v is not the proxy", i)
		}
		return nil
	}))))
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, r.feed)
	go func() { _ = server.Serve(lis) }()
	t.Cleanup(server.Stop)

	files, err := Bootstrap(BootstrapConfig{
		Proxy: in.Proxy, Region: "r1", Zone: "z1", XDSAddress: lis.Addr().String(), ServerID: agentID.String(),
		Dir: dir, Credential: filepath.Join(dir, "svid"), AdminSocket: filepath.Join(dir, "admin"),
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := identity.WriteDir(filepath.Join(dir, "svid"), identity.Files(own, identity.BundlePEM(a.Bundle()))); err != nil {
		t.Fatal(err)
	}
	r.admin = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(dir, "admin"))
	}}, Timeout: 5 * time.Second}
	await(t, func() error { return w.launch(r, in.Proxy, dir) })
	r.accepted(t)
	return r
}

// launch runs Envoy until the test ends, and returns when it is ready. The error
// is worth another try: the machine's inotify instances (128 for a user, and four
// for an Envoy) may be taken by other processes.
func (w *world) launch(r *running, p Proxy, dir string) error {
	t := w.t
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var log lockedBuffer
	cmd := exec.CommandContext(ctx, w.binary, "-c", filepath.Join(dir, FileBootstrap), "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning", "--drain-time-s", "1")
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait()
	}()
	deadline, tick := time.Now().Add(30*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		res, err := r.admin.Get("http://envoy/ready")
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				t.Cleanup(func() {
					cancel()
					<-exited
					if t.Failed() {
						t.Logf("envoy %s: %s", p.ID(), log.String())
					}
				})
				return nil
			}
		}
		select {
		case <-exited:
			cancel()
			if strings.Contains(log.String(), "inotify_fd_") {
				return errors.New("no inotify instance is free for Envoy: raise fs.inotify.max_user_instances")
			}
			t.Fatalf("envoy ended: %s", log.String())
		case <-tick.C:
			if time.Now().After(deadline) {
				cancel()
				<-exited
				t.Fatalf("envoy is not ready after 30 s: %s", log.String())
			}
		}
	}
}

// stat reads one of Envoy's counters.
func (r *running) stat(t *testing.T, name string) int {
	t.Helper()
	res, err := r.admin.Get("http://envoy/stats")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), name+": "); ok {
			n, err := strconv.Atoi(v)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	return 0
}

// accepted fails if Envoy refused anything.
func (r *running) accepted(t *testing.T) {
	t.Helper()
	r.feed.mu.Lock()
	defer r.feed.mu.Unlock()
	for _, m := range r.feed.refused {
		t.Errorf("Envoy refused: %s", m)
	}
}

// await repeats check until it holds.
func await(t *testing.T, check func() error) {
	t.Helper()
	deadline, tick := time.Now().Add(30*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-tick.C
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// echo is a backend that tells what it got: "name\nMETHOD path proto\nHost: ...\nheaders".
func echo(t *testing.T, name string) netip.AddrPort {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-From", name)
		w.Header().Set("Server", "echo")
		fmt.Fprintf(w, "%s\n%s %s %s\nHost: %s\n", name, r.Method, r.RequestURI, r.Proto, r.Host)
		var lines []string
		for k, v := range r.Header {
			lines = append(lines, k+": "+strings.Join(v, "|"))
		}
		slices.Sort(lines)
		_, _ = io.WriteString(w, strings.Join(lines, "\n")+"\n")
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().(*net.TCPAddr).AddrPort()
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// from is the backend that answered, or the empty string.
func (a answer) from() string { return a.header.Get("X-From") }

var client = &http.Client{
	Timeout:       10 * time.Second,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func ask(t *testing.T, at netip.AddrPort, method, host, path string, headers ...string) answer {
	t.Helper()
	return askBy(t, client, at, method, host, path, headers...)
}

func askBy(t *testing.T, client *http.Client, at netip.AddrPort, method, host, path string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+at.String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, string(body)}
}

// result makes a Result of parts. Keys are those that the resolver gives.
func result(local cluster.ID, parts ...any) *resolve.Result {
	r := &resolve.Result{
		Local:     local,
		Frontends: iradix.New[*resolve.Frontend](), Remotes: iradix.New[*resolve.Frontend](), Gateways: iradix.New[*resolve.Gateway](),
		Imports: iradix.New[*resolve.Import](), Backends: iradix.New[*resolve.Backend](), Reports: iradix.New[*resolve.ObjectReport](),
	}
	for _, p := range parts {
		switch p := p.(type) {
		case *resolve.Frontend:
			if p.Key.Cluster != "" {
				r.Remotes, _, _ = r.Remotes.Insert([]byte(p.Key.String()), p)
			} else {
				r.Frontends, _, _ = r.Frontends.Insert([]byte(p.Key.String()), p)
			}
		case *resolve.Gateway:
			r.Gateways, _, _ = r.Gateways.Insert([]byte(p.Key()), p)
		case *resolve.Import:
			r.Imports, _, _ = r.Imports.Insert([]byte(p.Namespace+"/"+p.Name), p)
		case *resolve.Backend:
			r.Backends, _, _ = r.Backends.Insert([]byte(p.Key.String()), p)
		default:
			panic(fmt.Sprintf("no part of a Result: %T", p))
		}
	}
	return r
}

// Short forms for the tests.

func serviceKey(name string) resolve.BackendKey {
	return resolve.BackendKey{Kind: resolve.BackendService, Namespace: "app", Name: name, Port: 80}
}

func service(name string, app resolve.AppProtocol, at ...netip.AddrPort) *resolve.Backend {
	g := resolve.EndpointGroup{Cluster: "east"}
	for i, a := range at {
		g.Endpoints = append(g.Endpoints, resolve.Endpoint{Addr: a, Weight: 1000, Healthy: true, Pod: fmt.Sprintf("%s-%d", name, i)})
	}
	return &resolve.Backend{Key: serviceKey(name), Config: resolve.BackendConfig{Protocol: "TCP", AppProtocol: app}, Groups: []resolve.EndpointGroup{g}}
}

func frontend(name string, producer *resolve.RouteTable) *resolve.Frontend {
	return &resolve.Frontend{
		Key:   resolve.FrontendKey{Kind: cluster.KindService, Namespace: "app", Name: name},
		Ports: []resolve.FrontendPort{{Port: 80, Protocol: "TCP", AppProtocol: resolve.AppHTTP, Producer: producer, Backend: serviceKey(name)}},
	}
}

func to(name string, weight uint32) resolve.WeightedBackend {
	return resolve.WeightedBackend{Weight: weight, Backend: serviceKey(name)}
}

func prefixRule(route string, index int, path string, backends ...resolve.WeightedBackend) *resolve.Rule {
	return &resolve.Rule{
		Route:     resolve.RouteID{Kind: cluster.KindHTTPRoute, Namespace: "app", Name: route, Cluster: "east"},
		RuleIndex: index,
		Match:     resolve.Match{PathType: resolve.PathPrefix, Path: path},
		Backends:  backends,
	}
}

func table(rules ...*resolve.Rule) *resolve.RouteTable { return &resolve.RouteTable{Rules: rules} }

// slowServer answers when the client has gone.
func slowServer(t *testing.T) netip.AddrPort {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(s.Close)
	return s.Listener.Addr().(*net.TCPAddr).AddrPort()
}

// closedPort is an address where nobody listens, held so that nobody will.
func closedPort(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().(*net.TCPAddr).AddrPort()
	_ = l.Close()
	return at
}

// upgrader is a server that takes an upgrade and then echoes lines.
func upgrader(t *testing.T) netip.AddrPort {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" {
			http.Error(w, "no upgrade", http.StatusBadRequest)
			return
		}
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		line, _ := rw.ReadString('\n')
		_, _ = io.WriteString(conn, "echo: "+line)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().(*net.TCPAddr).AddrPort()
}

// upgrade opens a connection to upgrader and gives what it answers to "hello".
func upgrade(t *testing.T, at netip.AddrPort, host, path string) string {
	t.Helper()
	conn, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", path, host)
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		return res.Status
	}
	fmt.Fprintf(conn, "hello\n")
	line, err := in.ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(line)
}

// addresses makes n addresses, other ones for another i.
func addresses(i, n int) []netip.AddrPort {
	var out []netip.AddrPort
	for j := range n {
		out = append(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(j)}), 8080))
	}
	return out
}
