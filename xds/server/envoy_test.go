package server

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/causeway-mesh/causeway/federation/store/etcd/embedded/port"
	"github.com/causeway-mesh/causeway/xds/envoy/envoytest"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// mesh is a server and a real Envoy that it configures.
type mesh struct {
	*rig
	address string
	grpc    *grpc.Server
	world   world
	rev     int64
	clients http.Client
}

// newMesh runs an Envoy, or skips the test where there is none.
func newMesh(t *testing.T) *mesh {
	t.Helper()
	path := envoytest.Binary(t)
	m := &mesh{world: newWorld()}
	m.clients.Transport = &http.Transport{DisableKeepAlives: true}
	m.clients.Timeout = 10 * time.Second
	n := freePort(t)
	m.serve(t, fmt.Sprintf("127.0.0.1:%d", n))
	t.Cleanup(func() { m.grpc.Stop() })
	envoytest.Follow(t, path, "p", n)
	return m
}

// serve starts a server, as after a restart of the agent: it knows nothing yet.
func (m *mesh) serve(t *testing.T, address string) {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	s, err := New(Config{Registerer: reg, Authorize: anyone, Limits: Limits{
		Linger: 100 * time.Millisecond, RetryMin: 200 * time.Millisecond, RetryMax: 400 * time.Millisecond,
	}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	m.rig = &rig{Server: s, t: t, reg: reg}
	m.address, m.grpc = l.Addr().String(), grpc.NewServer(ServerOptions()...)
	s.Register(m.grpc)
	g := m.grpc
	go func() { _ = g.Serve(l) }()
}

// change makes the next world.
func (m *mesh) change(f func(world)) {
	next := m.world.clone()
	f(next)
	m.rev++
	m.put(next, m.world, m.rev)
	m.world = next
}

func (m *mesh) get(port int, path string) (string, error) {
	resp, err := m.clients.Get(fmt.Sprintf("http://127.0.0.1:%d%s", port, path))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%d: %s", resp.StatusCode, b)
	}
	return string(b), err
}

func (m *mesh) want(port int, path, answer string) {
	m.t.Helper()
	if got, err := m.get(port, path); err != nil || got != answer {
		m.t.Fatalf("port %d: want %q, got %q, %v", port, answer, got, err)
	}
}

// load sends requests until the returned function is called, which checks that
// none failed.
func (m *mesh) load(t *testing.T, port int) (stop func()) {
	var wg sync.WaitGroup
	var sent atomic.Int64
	quit, failed := make(chan struct{}), make(chan error, 1)
	wg.Go(func() {
		for {
			select {
			case <-quit:
				return
			default:
			}
			if _, err := m.get(port, "/"); err != nil {
				select {
				case failed <- err:
				default:
				}
			}
			sent.Add(1)
		}
	})
	return func() {
		t.Helper()
		for n := sent.Load(); sent.Load() < n+20; { // some after the last change, too
			time.Sleep(time.Millisecond)
		}
		close(quit)
		wg.Wait()
		select {
		case err := <-failed:
			t.Fatalf("of %d requests at least one failed: %v", sent.Load(), err)
		default:
		}
	}
}

// backend answers with its name.
func backend(t *testing.T, name string) int {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) }))
	t.Cleanup(s.Close)
	return s.Listener.Addr().(*net.TCPAddr).Port
}

// takenPort is one of the test's own at which somebody listens until release is called.
func takenPort(t *testing.T) (number int, release func()) {
	t.Helper()
	number = freePort(t)
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", number))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return number, func() { _ = l.Close() }
}

// freePort is the test's own until it ends.
func freePort(t *testing.T) int {
	t.Helper()
	r, err := port.Reserve(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r.Port()
}

func TestRealEnvoy(t *testing.T) {
	m := newMesh(t)
	a, b, c := backend(t, "a"), backend(t, "b"), backend(t, "c")
	front := freePort(t)

	m.change(func(w world) {
		w.put(kindListener, "1", httpListener("front", front, "rds")).put(kindRoute, "1", routes("rds", "one"))
		w.put(kindCluster, "1", edsCluster("one", time.Second)).put(kindEndpoint, "a", endpoints("one", a))
	})
	first := m.await("first", ProxyStatus.InSync)
	if first.Envoy == "" || first.Lag <= 0 {
		t.Errorf("%+v", first)
	}
	m.want(front, "/", "a")
	stop := m.load(t, front)

	// Endpoints alone.
	m.change(func(w world) { w.put(kindEndpoint, "b", endpoints("one", b)) })
	p := m.await("endpoints", ProxyStatus.InSync)
	for k := range kinds {
		want := first.Types[k].Responses
		if k == kindEndpoint {
			want++
		}
		if p.Types[k].Responses != want {
			t.Errorf("%s: want %d responses, got %d", k, want, p.Types[k].Responses)
		}
	}
	m.want(front, "/", "b")

	// A changed cluster with endpoints that have not changed comes into force at
	// once: Envoy gets them again, unasked.
	begun := time.Now()
	m.change(func(w world) { w.put(kindCluster, "2", edsCluster("one", 2*time.Second)) })
	m.await("cluster", ProxyStatus.InSync)
	if d := time.Since(begun); d > 10*time.Second {
		t.Errorf("the cluster warmed for %v", d)
	}
	m.want(front, "/", "b")

	// Another cluster takes over, and the old one goes.
	m.change(func(w world) {
		w.put(kindCluster, "1", edsCluster("two", time.Second)).put(kindEndpoint, "c", endpoints("two", c))
		w.put(kindRoute, "2", routes("rds", "two"))
		w.drop(kindCluster, "one").drop(kindEndpoint, "eds/one")
	})
	m.await("takeover", func(p ProxyStatus) bool {
		return p.InSync() && p.Types[kindCluster].Resources == 1 && p.Types[kindEndpoint].Resources == 1
	})
	m.want(front, "/", "c")

	// A listener whose port is taken stops no other, and heals.
	taken, release := takenPort(t)
	other := freePort(t)
	m.change(func(w world) {
		w.put(kindListener, "1", httpListener("taken", taken, "rds")).put(kindListener, "1", tcpListener("other", other, "two"))
	})
	p = m.await("taken", func(p ProxyStatus) bool { return p.RejectedTotal == 1 && p.Types[kindListener].Resources == 2 })
	if j := p.Rejected[0]; j.Name != "taken" || !strings.Contains(j.Message, "in use") || j.Subject != "Test/taken" {
		t.Errorf("%+v", j)
	}
	m.want(other, "/", "c")
	release()
	m.await("healed", ProxyStatus.InSync)
	m.want(taken, "/", "c")

	// Certificates come over SDS, and change without their listener.
	secure := freePort(t)
	m.change(func(w world) {
		w.put(kindSecret, "1", certificate(t, "cert", "old")).put(kindListener, "1", overTLS(tcpListener("secure", secure, "two"), "cert"))
	})
	p = m.await("secret", ProxyStatus.InSync)
	if name, err := presented(secure); err != nil || name != "old" {
		t.Errorf("the port presents %q, %v", name, err)
	}
	m.change(func(w world) { w.put(kindSecret, "2", certificate(t, "cert", "new")) })
	if q := m.await("renewed", ProxyStatus.InSync); q.Types[kindListener].Responses != p.Types[kindListener].Responses {
		t.Error("a renewed secret made a listener be sent")
	}
	if name, err := presented(secure); err != nil || name != "new" {
		t.Errorf("the port presents %q, %v", name, err)
	}

	// The agent restarts: first it knows nothing, then what was known. No traffic is
	// lost, and nothing is sent again.
	m.grpc.Stop()
	m.serve(t, m.address)
	m.await("reconnected", func(p ProxyStatus) bool {
		return p.Connected && len(p.Types) > 0 && p.Types[kindListener].Resources == 4
	})
	m.want(front, "/", "c")
	m.rev++
	m.put(m.world, newWorld(), m.rev)
	p = m.await("restarted", ProxyStatus.InSync)
	if p.BytesSent != 0 {
		t.Errorf("%d bytes were sent again: %+v", p.BytesSent, p.Types)
	}
	// It still follows.
	m.change(func(w world) { w.put(kindEndpoint, "a", endpoints("two", a)) })
	m.await("after the restart", ProxyStatus.InSync)
	m.want(front, "/", "a")
	stop()

	m.change(func(w world) { w.drop(kindListener, "other") })
	m.await("removed", ProxyStatus.InSync)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := m.get(other, "/"); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a removed listener still answers")
		}
	}
	if t := m.world[translate.TypeListener]; len(t) != 3 {
		panic("the test is wrong")
	}
}
