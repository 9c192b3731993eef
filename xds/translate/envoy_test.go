package translate

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/xds/envoy/envoytest"
)

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
	w := &world{t: t, binary: envoytest.Binary(t), authorities: map[cluster.ID]*identity.Authority{}, cache: NewCache()}
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

// ports binds everything to addresses of 127.0.0.0/8 that are this process's own, so
// that nobody takes a port before Envoy does.
type ports struct {
	mu sync.Mutex
	t  *testing.T
	at map[string]netip.AddrPort
}

// given counts the addresses of this process.
var given atomic.Uint32

func (p *ports) of(key string) netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at == nil {
		p.at = map[string]netip.AddrPort{}
	}
	if _, ok := p.at[key]; !ok {
		n, pid := given.Add(1), os.Getpid()
		p.at[key] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, byte(128 + pid>>8&63), byte(pid), byte(1 + n%250)}), uint16(15000+n/250))
	}
	return p.at[key]
}

func (p *ports) Frontend(x Proxy, key resolve.FrontendKey, t Transport, port int32) (netip.AddrPort, bool) {
	return p.of(x.ID() + FrontendListenerName(key, t, port)), true
}

func (p *ports) Gateway(x Proxy, t Transport, port int32) (netip.AddrPort, bool) {
	return p.of(x.ID() + GatewayListenerName(t, port)), true
}

func (p *ports) Crossing(x Proxy) (netip.AddrPort, bool) { return p.of(x.ID() + nameCrossing), true }

func (p *ports) Entry(x Proxy, key resolve.FrontendKey, t Transport, port int32) (netip.AddrPort, bool) {
	return p.of(x.ID() + prefixEntry + FrontendListenerName(key, t, port)), true
}

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
	cmd := exec.CommandContext(ctx, w.binary, "-c", filepath.Join(dir, FileBootstrap), "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning", "--drain-time-s", "1", "--file-flush-interval-msec", "50")
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
	deadline, tick := time.Now().Add(time.Minute), time.NewTicker(20*time.Millisecond)
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
				t.Fatalf("envoy is not ready after a minute: %s", log.String())
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
	deadline, tick := time.Now().Add(time.Minute), time.NewTicker(20*time.Millisecond)
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
