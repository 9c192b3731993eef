package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/causeway-mesh/causeway/federation/store"
	"github.com/causeway-mesh/causeway/federation/store/etcd"
	"github.com/causeway-mesh/causeway/federation/store/etcd/embedded"
	"github.com/causeway-mesh/causeway/federation/store/etcd/etcdtest"
	"github.com/causeway-mesh/causeway/federation/store/storetest"
)

// states notes what OnState or OnHold reported.
type states struct {
	mu   sync.Mutex
	list []bool
	errs []error
	more chan struct{}
}

func newStates() *states { return &states{more: make(chan struct{}, 1000)} }

func (s *states) add(up bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list, s.errs = append(s.list, up), append(s.errs, err)
	s.more <- struct{}{}
}

func (s *states) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.list)
}

// wait waits for the n-th report.
func (s *states) wait(t *testing.T, n int) (bool, error) {
	t.Helper()
	limit := time.After(time.Minute)
	for {
		s.mu.Lock()
		got, errs := slices.Clone(s.list), slices.Clone(s.errs)
		s.mu.Unlock()
		if len(got) >= n {
			return got[n-1], errs[n-1]
		}
		select {
		case <-s.more:
		case <-limit:
			t.Fatalf("reports are %v, no %d-th came", got, n)
		}
	}
}

func observe(s *states) func(*etcd.Config) {
	return func(c *etcd.Config) { c.OnState = s.add }
}

// events runs a watch and passes on its events.
func events(t *testing.T, s store.Store, after int64) <-chan store.Event {
	t.Helper()
	out := make(chan store.Event, 1000)
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		err := s.Watch(ctx, store.Root, after, func(b store.Batch) error {
			for _, e := range b.Events {
				out <- e
			}
			return nil
		})
		if ctx.Err() == nil {
			t.Errorf("watch ended: %v", err)
		}
	}()
	return out
}

func next(t *testing.T, evs <-chan store.Event) store.Event {
	t.Helper()
	select {
	case e := <-evs:
		return e
	case <-time.After(time.Minute):
		t.Fatal("no event came")
		return store.Event{}
	}
}

func mustPut(t *testing.T, s store.Store, value string) int64 {
	t.Helper()
	rev, err := s.Commit(t.Context(), store.Txn{Ops: []store.Op{store.Put(storetest.Own+"a", []byte(value))}})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

// After an outage that was long enough for all back-off to grow, a watch goes on
// about as soon as the server is there.
func TestWatchResumesFast(t *testing.T) {
	t.Parallel()
	p := startProcess(t)
	up := newStates()
	c := etcdtest.Connect(t, p.Authority, p.endpoint, etcd.AdminUser, observe(up))
	evs := events(t, c, mustPut(t, c, "1"))
	mustPut(t, c, "2")
	next(t, evs)
	if ok, err := up.wait(t, 1); !ok || err != nil {
		t.Errorf("first report: %v, %v", ok, err)
	}
	p.kill(t)
	if ok, err := up.wait(t, 2); ok || !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("report of the outage: %v, %v", ok, err)
	}
	time.Sleep(10 * time.Second)
	p.start(t)
	begin := time.Now()
	other := etcdtest.Connect(t, p.Authority, p.endpoint, etcd.AdminUser)
	mustPut(t, other, "3")
	fresh := time.Since(begin)
	if e := next(t, evs); string(e.Value) != "3" {
		t.Errorf("event %s", e.Value)
	}
	d := time.Since(begin)
	// A client that starts now needs as long for its first write as this machine lets it.
	most := max(2*time.Second, 4*fresh)
	t.Logf("resumed %v after the return of the server, where a new client needed %v", d, fresh)
	if d > most {
		t.Errorf("the watch needed %v to resume; want %v", d, most)
	}
	if ok, _ := up.wait(t, 3); !ok {
		t.Error("no report of the return")
	}
}

// An answer of the store that events have overtaken names a revision below theirs.
// It is old, and no sign that the store was set back.
func TestEventsOvertakeAnAnswer(t *testing.T) {
	t.Parallel()
	srv := etcdtest.Start(t, "one")
	c := srv.Connect(t, etcd.AgentUser("one"), func(c *etcd.Config) { c.ProgressInterval = 10 * time.Millisecond })
	asked, release := make(chan struct{}, 1000), make(chan struct{})
	etcd.AfterRange(c, func() {
		asked <- struct{}{}
		<-release
	})
	writer := srv.Connect(t, etcd.AgentUser("one"))
	// Nothing is newer than where the watch begins, so it must ask.
	evs := events(t, c, mustPut(t, writer, "1"))
	select {
	case <-asked:
	case <-time.After(time.Minute):
		t.Fatal("a quiet watch never asked for the newest revision")
	}
	mustPut(t, writer, "2")
	next(t, evs)
	close(release)
	for i := range 5 {
		want := fmt.Sprint("later ", i)
		mustPut(t, writer, want)
		if e := next(t, evs); string(e.Value) != want {
			t.Fatalf("event %q, want %q", e.Value, want)
		}
	}
}

// A server that hangs, with its connections open, is noticed; when it goes on, so
// does the watch.
func TestServerHangs(t *testing.T) {
	t.Parallel()
	p := startProcess(t)
	up := newStates()
	c := etcdtest.Connect(t, p.Authority, p.endpoint, etcd.AdminUser, observe(up))
	evs := events(t, c, mustPut(t, c, "1"))
	mustPut(t, c, "2")
	next(t, evs)
	p.signal(t, syscall.SIGSTOP)
	ok, err := up.wait(t, 2)
	p.signal(t, syscall.SIGCONT)
	if ok || !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("report of the hanging server: %v, %v", ok, err)
	}
	mustPut(t, c, "3")
	if e := next(t, evs); string(e.Value) != "3" {
		t.Errorf("event %s", e.Value)
	}
}

// A store that was set up anew at the same address, or restored from a backup, is
// not taken for the one that was being watched.
func TestOtherStoreBehindTheAddress(t *testing.T) {
	t.Parallel()
	run := func(t *testing.T, exchange func(t *testing.T, a *etcdtest.Authority, s *embedded.Server, dir string), want error) {
		a, dir := etcdtest.NewAuthority(t), t.TempDir()
		s := serveIn(t, a, dir, 0)
		c := etcdtest.Connect(t, a, s.Endpoint(), etcd.AdminUser)
		mustPut(t, c, "1")
		s.Stop()
		if err := os.CopyFS(filepath.Join(dir, "backup"), os.DirFS(filepath.Join(dir, "etcd"))); err != nil {
			t.Fatal(err)
		}
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		var rev int64
		for i := range 5 {
			rev = mustPut(t, c, fmt.Sprint(i))
		}
		watching := make(chan struct{}, 100)
		done := make(chan error, 1)
		go func() {
			done <- c.Watch(t.Context(), store.Root, rev, func(store.Batch) error {
				watching <- struct{}{}
				return nil
			})
		}()
		<-watching
		exchange(t, a, s, dir)
		select {
		case err := <-done:
			if !errors.Is(err, want) || !store.Resync(err) {
				t.Errorf("watch ended with %v, want %v", err, want)
			}
		case <-time.After(time.Minute):
			t.Error("the watch goes on")
		}
		// A resync is all that is needed.
		if _, rev, err := c.List(t.Context(), store.Root, 0); err != nil {
			t.Error(err)
		} else {
			evs := events(t, c, rev)
			mustPut(t, c, "again")
			if e := next(t, evs); string(e.Value) != "again" {
				t.Errorf("event %s", e.Value)
			}
		}
	}
	t.Run("new", func(t *testing.T) {
		t.Parallel()
		run(t, func(t *testing.T, a *etcdtest.Authority, s *embedded.Server, _ string) {
			port := 0
			if _, err := fmt.Sscanf(s.Endpoint(), "https://127.0.0.1:%d", &port); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			serveIn(t, a, t.TempDir(), port)
		}, store.ErrReplaced)
	})
	t.Run("restored", func(t *testing.T) {
		t.Parallel()
		run(t, func(t *testing.T, _ *etcdtest.Authority, s *embedded.Server, dir string) {
			s.Stop()
			if err := errors.Join(os.RemoveAll(filepath.Join(dir, "etcd")), os.Rename(filepath.Join(dir, "backup"), filepath.Join(dir, "etcd"))); err != nil {
				t.Fatal(err)
			}
			if err := s.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		}, store.ErrFutureRevision)
	})
}

func serveIn(t *testing.T, a *etcdtest.Authority, dir string, port int) *embedded.Server {
	t.Helper()
	cfg := a.ServerConfig(t, dir)
	cfg.Port = port
	s, err := embedded.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// A server that this client does not trust is an error that says so, at once for
// a watch's hook and at the latest with the deadline of a request.
func TestUntrustedServer(t *testing.T) {
	t.Parallel()
	a := etcdtest.NewAuthority(t)
	s := serveIn(t, a, t.TempDir(), 0)
	up := newStates()
	c := etcdtest.Connect(t, etcdtest.NewAuthority(t), s.Endpoint(), etcd.AdminUser, observe(up))
	done := make(chan error, 1)
	wctx, stop := context.WithCancel(t.Context())
	go func() {
		done <- c.Watch(wctx, store.Root, 0, func(store.Batch) error { return errors.New("delivered something") })
	}()
	if ok, err := up.wait(t, 1); ok || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("report: %v, %v", ok, err)
	}
	// The client has seen the certificate by now, however slow the machine is.
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, _, err := c.List(ctx, store.Root, 0); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("list: %v", err)
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("watch: %v", err)
	}
}

func TestHoldReports(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t, "one")
	held := newStates()
	key := storetest.Own + "alive/a"
	reg := prometheus.NewRegistry()
	c := s.Connect(t, etcd.AgentUser("one"), func(cfg *etcd.Config) {
		cfg.Registerer = reg
		cfg.OnHold = func(k string, ok bool, err error) {
			if k != key {
				t.Errorf("report of key %q", k)
			}
			held.add(ok, err)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Hold(ctx, key, []byte("x"), 6*time.Second) }() // a busy machine may be late with a renewal
	if ok, err := held.wait(t, 1); !ok || err != nil {
		t.Errorf("first report: %v, %v", ok, err)
	}
	// Renewals are no news.
	for limit := time.Now().Add(time.Minute); gather(t, reg)["causeway_store_requests_total{operation=renew,result=ok}"] < 3; {
		if time.Now().After(limit) {
			t.Fatal("the lease is not renewed")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := held.count(); n != 1 {
		t.Errorf("%d reports although nothing happened", n)
	}
	// Somebody deletes the key.
	if _, err := c.Commit(t.Context(), store.Txn{Ops: []store.Op{store.Delete(key)}}); err != nil {
		t.Fatal(err)
	}
	if ok, err := held.wait(t, 2); ok || err == nil || errors.Is(err, store.ErrUnavailable) {
		t.Errorf("report of the deletion: %v, %v", ok, err)
	}
	if ok, err := held.wait(t, 3); !ok || err != nil {
		t.Errorf("report of holding it again: %v, %v", ok, err)
	}
	// An outage longer than the ttl: the key must be assumed lost.
	s.Stop()
	if ok, err := held.wait(t, 4); ok || !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("report of the loss: %v, %v", ok, err)
	}
	if err := s.Server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ok, err := held.wait(t, 5); !ok || err != nil {
		t.Errorf("report of the return: %v, %v", ok, err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("hold: %v", err)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t, "one")
	reg := prometheus.NewRegistry()
	c := s.Connect(t, etcd.AgentUser("one"), func(cfg *etcd.Config) { cfg.Registerer = reg })
	rev := mustPut(t, c, "1")
	evs := events(t, c, rev-1)
	next(t, evs)
	if _, err := c.Commit(t.Context(), store.Txn{Guards: []store.Guard{{Key: storetest.Own + "a"}}}); !errors.Is(err, store.ErrConflict) {
		t.Fatal(err)
	}
	got := gather(t, reg)
	for name, want := range map[string]float64{
		"causeway_store_connected":                                           1,
		"causeway_store_requests_total{operation=commit,result=ok}":          1,
		"causeway_store_requests_total{operation=commit,result=conflict}":    1,
		"causeway_store_request_duration_seconds{operation=commit}":          2,
		"causeway_store_watch_events_total":                                  1,
		"causeway_store_watch_interruptions_total":                           0,
		"causeway_store_holds_lost_total":                                    0,
		"causeway_store_requests_total{operation=commit,result=unavailable}": 0,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	s.Stop()
	limit := time.Now().Add(time.Minute)
	for {
		got = gather(t, reg)
		if got["causeway_store_connected"] == 0 && got["causeway_store_watch_interruptions_total"] > 0 {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("after the server's end: %v", got)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// gather returns values of counters and gauges, and counts of histograms.
func gather(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			name := f.GetName()
			if len(labels) > 0 {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			out[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return out
}
