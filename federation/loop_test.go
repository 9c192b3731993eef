package federation_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/record/recordtest"
	"github.com/causeway-mesh/causeway/federation/store"
	"github.com/causeway-mesh/causeway/federation/store/memory"
)

func newMemory(t *testing.T) *memory.Store {
	t.Helper()
	mem, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return mem
}

// seen is a Snapshot with its ChangeSet as OnSnapshot got it.
type seen struct {
	*federation.Snapshot
	changes federation.ChangeSet
}

// loopRig is a Loop at work.
type loopRig struct {
	*federation.Loop
	t    *testing.T
	stop func()
	log  *bytes.Buffer

	mu   sync.Mutex
	seen []seen
	hold atomic.Pointer[chan struct{}] // OnSnapshot waits for it
}

func startLoop(t *testing.T, cfg federation.LoopConfig) *loopRig {
	t.Helper()
	r := &loopRig{t: t, log: &bytes.Buffer{}}
	cfg.Logger = slog.New(slog.NewTextHandler(&lockedWriter{w: r.log}, nil))
	cfg.Registerer = prometheus.NewRegistry()
	cfg.OnSnapshot = func(_ context.Context, s *federation.Snapshot, c federation.ChangeSet) {
		r.mu.Lock()
		r.seen = append(r.seen, seen{s, c})
		r.mu.Unlock()
		if ch := r.hold.Load(); ch != nil {
			<-*ch
		}
	}
	var err error
	if r.Loop, err = federation.NewLoop(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

type lockedWriter struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func (r *loopRig) snapshots() []seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]seen(nil), r.seen...)
}

func (r *loopRig) deliver(synced bool, objects ...*cluster.Object) {
	r.t.Helper()
	b := cluster.Batch{Synced: synced, Meta: &cluster.Meta{Region: "eu"}}
	for _, o := range objects {
		b.Events = append(b.Events, cluster.Event{Ref: o.Ref, Object: o})
	}
	if err := r.Deliver(r.t.Context(), b); err != nil {
		r.t.Fatal(err)
	}
}

// commit writes records and gives the revision.
func commit(t *testing.T, st store.Store, ops ...store.Op) int64 {
	t.Helper()
	rev, err := st.Commit(t.Context(), store.Txn{Ops: ops})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func put(t *testing.T, r record.Record, err error) store.Op {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return store.Put(r.Key, r.Value)
}

func putMeta(t *testing.T, id cluster.ID, region string) store.Op {
	t.Helper()
	r, err := record.EncodeMeta(id, cluster.Meta{Region: region})
	return put(t, r, err)
}

func putRoute(t *testing.T, id cluster.ID, name, path string) store.Op {
	t.Helper()
	r, err := record.EncodeObject(recordtest.Route(id, "app", name, 1, "a", "b", path))
	return put(t, r, err)
}

// has lists the clusters that have the route.
func has(s *federation.Snapshot, name string) (ids []cluster.ID) {
	for _, o := range s.Named(cluster.KindHTTPRoute, "app", name) {
		ids = append(ids, o.Cluster)
	}
	return ids
}

var ownRoute = recordtest.Route("east", "app", "own", 1, "a", "b", "/")

// The first Snapshot waits for source and store; then each change goes out at
// once, and only those that arrive while one is being served go together.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory(t)
		commit(t, mem, putMeta(t, "west", "r"), putRoute(t, "west", "r", "/"))
		r := startLoop(t, federation.LoopConfig{Local: "east", Store: mem})
		r.deliver(false, ownRoute)
		time.Sleep(time.Hour)
		if n := len(r.snapshots()); n != 0 || r.Snapshot() != nil || !strings.Contains(r.State().Waiting, "source") {
			t.Fatalf("%d snapshots before the source is synced, state %+v", n, r.State())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Sync(ctx); err == nil || !strings.Contains(err.Error(), "source") {
			t.Errorf("Sync: %v", err)
		}
		began := time.Now()
		r.deliver(true)
		synctest.Wait()
		if s := r.snapshots(); len(s) != 1 || fmt.Sprint(has(s[0].Snapshot, "own"), has(s[0].Snapshot, "r")) != "[east] [west]" {
			t.Fatalf("first snapshots %+v", s)
		}

		block := make(chan struct{})
		r.hold.Store(&block)
		_, leases := r.Leases()
		rev := commit(t, mem, putRoute(t, "west", "r", "/1"))
		synctest.Wait()
		select {
		case <-leases:
			t.Error("a route woke who waits for leases")
		default:
		}
		if s := r.snapshots(); len(s) != 2 || s[1].Revision != rev || !s[1].changes.Has(federation.KeyNamed(cluster.KindHTTPRoute, "app", "r")) {
			t.Fatalf("the change led to %d snapshots", len(s))
		}
		for i := range 20 {
			rev = commit(t, mem, putRoute(t, "west", fmt.Sprintf("q%d", i), "/"))
			r.deliver(true, recordtest.Route("east", "app", fmt.Sprintf("p%d", i), 1, "a", "b", "/"))
			synctest.Wait()
		}
		if n := len(r.snapshots()); n != 2 {
			t.Fatalf("%d snapshots while one is being served", n)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Nanosecond)
		defer cancel()
		if err := r.Await(ctx, rev); err == nil {
			t.Error("Await returned before the revision was served")
		}
		if time.Since(began) > time.Microsecond {
			t.Errorf("it took %v", time.Since(began))
		}
		r.hold.Store(nil)
		close(block)
		if err := r.Await(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
		if err := r.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := r.snapshots(); len(s) != 3 || s[2].Revision != rev || len(s[2].OfKind(cluster.KindHTTPRoute)) != 42 {
			t.Errorf("%d snapshots, the last with %d routes", len(s), s[len(s)-1].Len())
		}
		time.Sleep(time.Hour)
		if n := len(r.snapshots()); n != 3 {
			t.Errorf("%d snapshots without a change", n)
		}
	})
}

// The local cluster's objects get their rank when the store has them, and lose
// it when they are withdrawn.
func TestOwnRank(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory(t)
		r := startLoop(t, federation.LoopConfig{Local: "east", Store: mem})
		r.deliver(true, ownRoute)
		rank := func() int64 {
			synctest.Wait()
			o, ok := r.Snapshot().Get("east", cluster.KindHTTPRoute, "app", "own")
			if !ok {
				t.Fatal("the own route is gone")
			}
			return o.Seniority.Revision
		}
		if got := rank(); got != 0 {
			t.Errorf("rank %d before it is published", got)
		}
		op := putRoute(t, "east", "own", "/other") // an older state of it: the source counts
		rev := commit(t, mem, op, putRoute(t, "east", "left-over", "/"))
		if got := rank(); got != rev {
			t.Errorf("rank %d, published at %d", got, rev)
		}
		if got := has(r.Snapshot(), "left-over"); got != nil {
			t.Errorf("a record of the own cluster became an object in %v", got)
		}
		commit(t, mem, putRoute(t, "east", "own", "/"))
		r.deliver(true, recordtest.Route("east", "app", "own", 1, "a", "b", "/new"))
		if got := rank(); got != rev {
			t.Errorf("rank %d after changes, published at %d", got, rev)
		}
		commit(t, mem, store.Delete(op.Key))
		if got := rank(); got != 0 {
			t.Errorf("rank %d after it was withdrawn", got)
		}
	})
}

// switched is a store that a test can break and replace.
type switched struct {
	mu    sync.Mutex
	inner store.Store
	cut   chan struct{} // closed: watches end with err
	err   error
}

func (s *switched) current() (store.Store, chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inner, s.cut
}

func (s *switched) breakWith(err error, next store.Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.inner = err, next
	close(s.cut)
	s.cut = make(chan struct{})
}

func (s *switched) List(ctx context.Context, prefix string, revision int64) ([]store.KV, int64, error) {
	st, _ := s.current()
	return st.List(ctx, prefix, revision)
}

func (s *switched) Watch(ctx context.Context, prefix string, after int64, deliver func(store.Batch) error) error {
	st, cut := s.current()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-cut:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := st.Watch(ctx, prefix, after, deliver)
	select {
	case <-cut:
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.err
	default:
		return err
	}
}

// After a compaction, and after the store was replaced by an older one, what is
// new and what is gone is found by comparison; no Snapshot in between lacks
// anything that was there all the time.
func TestListingAfresh(t *testing.T) {
	for name, err := range map[string]error{"compacted": store.ErrCompacted, "replaced": store.ErrReplaced, "future": store.ErrFutureRevision, "broken": store.ErrUnavailable} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				old := newMemory(t)
				for i := range 30 {
					commit(t, old, putRoute(t, "west", "stays", fmt.Sprintf("/%d", i)))
				}
				commit(t, old, putMeta(t, "west", "r"), putRoute(t, "west", "goes", "/"), putRoute(t, "north", "r", "/"), putMeta(t, "north", "r"))
				st := &switched{inner: old, cut: make(chan struct{})}
				r := startLoop(t, federation.LoopConfig{Local: "east", Store: st})
				r.deliver(true, ownRoute)
				synctest.Wait()
				if got := fmt.Sprint(has(r.Snapshot(), "goes")); got != "[west]" {
					t.Fatalf("before: %s", got)
				}
				next := newMemory(t)
				commit(t, next, putMeta(t, "west", "r"), putRoute(t, "west", "stays", "/29"), putRoute(t, "west", "comes", "/"))
				want := commit(t, next, putMeta(t, "south", "r"))
				st.breakWith(err, next)
				time.Sleep(3 * time.Second)
				for i, s := range r.snapshots() {
					if fmt.Sprint(has(s.Snapshot, "stays"), has(s.Snapshot, "own")) != "[west] [east]" {
						t.Errorf("snapshot %d of revision %d is partial", i, s.Revision)
					}
				}
				s := r.Snapshot()
				if got := fmt.Sprint(has(s, "comes"), has(s, "goes"), has(s, "r")); got != "[west] [] []" {
					t.Errorf("after: %s", got)
				}
				if _, ok := s.Cluster("north"); ok || len(s.Clusters()) != 3 || s.Revision != want {
					t.Errorf("clusters %+v at revision %d", s.Clusters(), s.Revision)
				}
				rev := commit(t, next, putRoute(t, "west", "later", "/"))
				if err := r.Await(t.Context(), rev); err != nil || fmt.Sprint(has(r.Snapshot(), "later")) != "[west]" {
					t.Errorf("the new store isn't followed: %v", err)
				}
			})
		})
	}
}

// Losing the store changes nothing but what is said of the connection; its
// return needs seconds.
func TestStoreLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory(t)
		commit(t, mem, putMeta(t, "west", "r"), putRoute(t, "west", "r", "/"))
		ctx, release := context.WithCancel(t.Context())
		alive, _ := record.EncodeAlive("west", "agent-0")
		held := make(chan struct{})
		go func() { _ = mem.Hold(ctx, alive.Key, alive.Value, 3*time.Second); close(held) }()
		r := startLoop(t, federation.LoopConfig{Local: "east", Store: mem})
		r.deliver(true, ownRoute)
		synctest.Wait()
		leases, changed := r.Leases()
		if !leases.Connected || !leases.Held["west"] || leases.Held["east"] || len(leases.Held) != 2 {
			t.Errorf("leases %+v", leases)
		}
		n := len(r.snapshots())
		mem.SetAvailable(false)
		lost := time.Now()
		for r.Connected() {
			<-changed
			_, changed = r.Leases()
		}
		if d := time.Since(lost); d < 3*time.Second || d > 6*time.Second {
			t.Errorf("noticed after %v", d)
		}
		time.Sleep(time.Minute)
		r.deliver(true, recordtest.Route("east", "app", "new", 2, "a", "b", "/"))
		synctest.Wait()
		s := r.snapshots()
		if len(s) != n+1 || fmt.Sprint(has(s[n].Snapshot, "r"), has(s[n].Snapshot, "new")) != "[west] [east]" {
			t.Errorf("%d snapshots while the store is away", len(s)-n)
		}
		if leases, _ := r.Leases(); leases.Connected || !leases.Held["west"] {
			t.Errorf("leases while the store is away: %+v", leases)
		}
		mem.SetAvailable(true)
		time.Sleep(3 * time.Second)
		if !r.Connected() {
			t.Error("the store is back, and not heard")
		}
		release()
		<-held
		synctest.Wait()
		if leases, _ := r.Leases(); leases.Held["west"] {
			t.Error("the lease is gone, and not told")
		}
		if c, _ := r.Snapshot().Cluster("west"); c.Health.Liveness != federation.Suspect {
			t.Errorf("west is %+v", c.Health)
		}
	})
}

// A start while the store is away goes on after the grace, with the copy on disk;
// when the store is back, only what differs changes.
func TestCopyOnDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.copy")
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory(t)
		own := commit(t, mem, putRoute(t, "east", "own", "/"))
		commit(t, mem, putMeta(t, "west", "r"), putRoute(t, "west", "r", "/"), putRoute(t, "west", "goes", "/"))
		r := startLoop(t, federation.LoopConfig{Local: "east", Store: mem, CopyPath: path})
		r.deliver(true, ownRoute)
		synctest.Wait()
		rev := commit(t, mem, putRoute(t, "west", "late", "/"))
		if err := r.Await(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
		r.stop() // what is left is written at the end

		mem.SetAvailable(false)
		r = startLoop(t, federation.LoopConfig{Local: "east", Store: mem, CopyPath: path})
		r.deliver(true, ownRoute)
		time.Sleep(federation.DefaultStoreGrace - time.Millisecond)
		if r.Snapshot() != nil || r.State().Waiting != "the store" {
			t.Fatalf("within the grace: %+v", r.State())
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		s := r.Snapshot()
		if s == nil || s.Revision != rev || fmt.Sprint(has(s, "r"), has(s, "late"), has(s, "own")) != "[west] [west] [east]" {
			t.Fatalf("after the grace: %+v", s)
		}
		if o, _ := s.Get("east", cluster.KindHTTPRoute, "app", "own"); o.Seniority.Revision != own {
			t.Errorf("the own route's rank is %d, was %d", o.Seniority.Revision, own)
		}
		if st := r.State(); !st.Copied || st.Connected {
			t.Errorf("state %+v", st)
		}
		time.Sleep(time.Minute)

		mem.SetAvailable(true)
		commit(t, mem, store.Delete(store.ClustersPrefix+"west/routes/httproute/app/goes"))
		time.Sleep(3 * time.Second)
		if st := r.State(); st.Copied || !st.Connected {
			t.Errorf("state %+v", st)
		}
		if n := len(r.snapshots()); n != 2 || fmt.Sprint(has(r.Snapshot(), "goes"), has(r.Snapshot(), "r")) != "[] [west]" {
			t.Errorf("%d snapshots", n)
		}
		last := r.snapshots()[1]
		if last.changes.Has(federation.KeyNamed(cluster.KindHTTPRoute, "app", "r")) || !last.changes.Has(federation.KeyNamed(cluster.KindHTTPRoute, "app", "goes")) {
			t.Error("more or less than what differs was told to have changed")
		}
		r.stop()
		if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
			t.Errorf("files left: %v, %v", files, err)
		}
	})
}

// A copy that is damaged, and none at all, leave the local cluster alone.
func TestBadCopy(t *testing.T) {
	for name, content := range map[string]string{"none": "", "garbage": "garbage", "cut": "causeway store copy 1\n0123"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.copy")
			if content != "" {
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Test(t, func(t *testing.T) {
				mem := newMemory(t)
				mem.SetAvailable(false)
				r := startLoop(t, federation.LoopConfig{Local: "east", Store: mem, CopyPath: path})
				r.deliver(true, ownRoute)
				time.Sleep(time.Minute)
				s := r.Snapshot()
				if s == nil || s.Revision != 0 || len(s.Clusters()) != 1 || fmt.Sprint(has(s, "own")) != "[east]" {
					t.Fatalf("snapshot %+v", s)
				}
				r.stop()
				if warned := strings.Contains(r.log.String(), "of no use"); warned != (content != "") {
					t.Errorf("log:\n%s", r.log)
				}
			})
		})
	}
}

// Whatever other clusters write, the rest of their state stays in use, and it is
// told what is wrong; the source's own problems are told beside it.
func TestProblemsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory(t)
		bad := store.ClustersPrefix + "west/routes/httproute/app/bad"
		commit(t, mem, putMeta(t, "west", "r"), putRoute(t, "west", "r", "/"), store.Put(bad, []byte("\xff")))
		r := startLoop(t, federation.LoopConfig{Local: "east", Store: mem})
		own := cluster.Problem{Cluster: "east", Where: "a.yaml:1", Message: "is wrong"}
		if err := r.Deliver(t.Context(), cluster.Batch{Problems: &[]cluster.Problem{own}, Synced: true}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		ps := r.Problems()
		if len(ps) != 2 || ps[0] != own || ps[1].Cluster != "west" || ps[1].Where != bad || ps[1].Object != "HTTPRoute/app/bad" {
			t.Errorf("problems %+v", ps)
		}
		if got := fmt.Sprint(has(r.Snapshot(), "r")); got != "[west]" {
			t.Errorf("the sound route is in %s", got)
		}
		commit(t, mem, putRoute(t, "west", "bad", "/"), store.Put(store.ClustersPrefix+"west/meta/cluster", []byte("\xff")))
		synctest.Wait()
		if ps := r.Problems(); len(ps) != 2 || ps[1].Where != store.ClustersPrefix+"west/meta/cluster" {
			t.Errorf("problems %+v", ps)
		}
		if got := fmt.Sprint(has(r.Snapshot(), "bad"), len(r.Snapshot().Clusters())); got != "[west] 2" {
			t.Errorf("a Meta that can't be read took the cluster away: %s", got)
		}
		if err := r.Deliver(t.Context(), cluster.Batch{Problems: &[]cluster.Problem{}}); err != nil {
			t.Fatal(err)
		}
		commit(t, mem, putMeta(t, "west", "r"))
		synctest.Wait()
		if ps := r.Problems(); len(ps) != 0 {
			t.Errorf("problems %+v after all were mended", ps)
		}
	})
}

func TestLoopConfig(t *testing.T) {
	mem, lg := newMemory(t), slog.New(slog.DiscardHandler)
	for name, cfg := range map[string]federation.LoopConfig{
		"cluster":    {Local: "East", Store: mem, Logger: lg, Registerer: prometheus.NewRegistry()},
		"store":      {Logger: lg, Registerer: prometheus.NewRegistry()},
		"logger":     {Store: mem, Registerer: prometheus.NewRegistry()},
		"registerer": {Store: mem, Logger: lg},
		"grace":      {Store: mem, Logger: lg, Registerer: prometheus.NewRegistry(), StoreGrace: -1},
	} {
		if _, err := federation.NewLoop(cfg); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
	hub, err := federation.NewLoop(federation.LoopConfig{Store: mem, Logger: lg, Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	if err := hub.Deliver(t.Context(), cluster.Batch{}); err == nil {
		t.Error("a hub took a batch")
	}
}
