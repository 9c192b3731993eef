package translate

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

// flaky is a backend that does to the n-th try of a request (by its x-key) what
// the n-th word of x-do says: a status, "hang" or "reset"; after that it answers 200.
type flaky struct {
	mu    sync.Mutex
	tries map[string][]time.Time
}

func (f *flaky) count(key string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.tries[key])
}

func (f *flaky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("X-Key")
	f.mu.Lock()
	n := len(f.tries[key])
	f.tries[key] = append(f.tries[key], time.Now())
	f.mu.Unlock()
	todo := strings.Fields(r.Header.Get("X-Do"))
	if n >= len(todo) {
		w.Header().Set("X-From", "flaky")
		return
	}
	switch todo[n] {
	case "hang":
		<-r.Context().Done()
	case "reset":
		panic(http.ErrAbortHandler)
	default:
		var status int
		_, _ = fmt.Sscan(todo[n], &status)
		w.WriteHeader(status)
	}
}

// What is repeated, and what is not.
func TestRetriesInEnvoy(t *testing.T) {
	w := newWorld(t, "east")
	f := &flaky{tries: map[string][]time.Time{}}
	a := serve(t, f)
	var s ruleSet
	rule := func(path, backend string, r *resolve.Retry, request, try time.Duration) {
		s.add(path, func(x *resolve.Rule) { x.Retry, x.RequestTimeout, x.BackendTimeout = r, request, try }, to(backend, 1))
	}
	retry := func(attempts int, codes ...int) *resolve.Retry {
		return &resolve.Retry{Codes: codes, Attempts: attempts, Backoff: 20 * time.Millisecond}
	}
	rule("/none", "a", nil, 0, 0)
	rule("/codes", "a", retry(2, 500, 503), 0, 0)
	rule("/resets", "a", retry(2), 0, 0)
	rule("/try", "a", nil, 0, 200*time.Millisecond)
	rule("/tries", "a", retry(2), 0, 200*time.Millisecond)
	rule("/bounded", "a", retry(1000), 700*time.Millisecond, 200*time.Millisecond)
	rule("/half", "half", nil, 0, 0)
	rule("/never", "half", &resolve.Retry{Backoff: time.Millisecond}, 0, 0)
	rule("/dark", "dark", nil, 0, 0)
	rule("/slow", "slow", nil, 0, 50*time.Millisecond)
	r, at := w.sidecarFor(s.rules, service("a", resolve.AppHTTP, a), service("half", resolve.AppHTTP, a, closedPort(t)), service("dark", resolve.AppHTTP, a, blackHole(t)),
		service("slow", resolve.AppHTTP, a, serve(t, f), slowServer(t)))
	for i, c := range []struct {
		method, path, do string
		status, tries    int
	}{
		{"GET", "/none", "503", 503, 1},
		{"GET", "/none", "reset", 503, 1},
		{"GET", "/codes", "503 500", 200, 3},
		{"GET", "/codes", "503 503 500", 500, 3},
		{"GET", "/codes", "502", 502, 1},
		{"POST", "/codes", "503", 200, 2},
		{"GET", "/codes", "reset", 200, 2},
		{"GET", "/resets", "503", 503, 1},
		{"POST", "/resets", "reset reset", 200, 3},
		{"GET", "/resets", "reset reset reset", 503, 3},
		{"GET", "/try", "hang", 504, 1},
		{"GET", "/tries", "hang hang", 200, 3},
		{"GET", "/tries", "hang hang hang", 504, 3},
	} {
		key := fmt.Sprint(i)
		x := ask(t, at, c.method, "svc.app", c.path, "x-key", key, "x-do", c.do)
		if x.status != c.status || f.count(key) != c.tries {
			t.Errorf("%s %s, %s: %d after %d tries, want %d after %d", c.method, c.path, c.do, x.status, f.count(key), c.status, c.tries)
		}
		if x.header.Get(HeaderRoute) == "" {
			t.Errorf("%s %s, %s: no route header", c.method, c.path, c.do)
		}
	}
	began := time.Now()
	x := ask(t, at, "GET", "svc.app", "/bounded", "x-key", "bounded", "x-do", strings.Repeat("hang ", 100))
	if took := time.Since(began); x.status != 504 || took < 600*time.Millisecond || took > 2*time.Second {
		t.Errorf("%d after %v, want 504 after 700ms", x.status, took)
	}
	if n := f.count("bounded"); n < 2 || n > 4 {
		t.Errorf("%d tries of 200 ms in 700 ms", n)
	}
	t.Run("endpoints", func(t *testing.T) {
		failed := 0
		for range 20 {
			// Rules of Gateway API v1.7: never is never.
			if ask(t, at, "GET", "svc.app", "/never").status == 503 {
				failed++
			}
		}
		if failed == 0 {
			t.Error("connections that fail are repeated though the rule says never")
		}
		for _, path := range []string{"/half", "/dark"} {
			slow := 0
			for i := range 20 {
				began := time.Now()
				if x := ask(t, at, []string{"GET", "POST"}[i%2], "svc.app", path); x.status != 200 {
					t.Fatalf("%s: one of two endpoints takes no connections, and the answer is %d", path, x.status)
				}
				if time.Since(began) > time.Second {
					slow++
				}
			}
			// The endpoint is put out: only its first requests wait for it.
			if slow > outlierFailures {
				t.Errorf("%s: %d of 20 requests waited for the endpoint that takes no connections", path, slow)
			}
		}
	})
	t.Run("slow endpoint", func(t *testing.T) {
		for range 4 * outlierFailures {
			ask(t, at, "GET", "svc.app", "/slow")
		}
		for range 30 {
			if x := ask(t, at, "GET", "svc.app", "/slow"); x.status != 200 {
				t.Fatalf("one of three endpoints always times out, and is not put out: %d", x.status)
			}
		}
	})
	r.accepted(t)
}

// blackHole is an address that takes no connections and doesn't refuse them: a
// listener whose queue is full.
func blackHole(t *testing.T) netip.AddrPort {
	t.Helper()
	at := fullListener(t)
	for range 16 {
		conn, err := net.DialTimeout("tcp", at.String(), 200*time.Millisecond)
		if err != nil {
			return at
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Skip("this machine lets connections into a full queue")
	return at
}

// fullListener listens with the shortest queue and accepts nothing.
func fullListener(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*syscall.SockaddrInet4).Port))
}
