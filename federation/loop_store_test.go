package federation_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/record/recordtest"
	"github.com/causeway-mesh/causeway/federation/store"
)

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

// failing is a store that gives no list.
type failing struct {
	store.Store
	err error
}

func (f failing) List(context.Context, string, int64) ([]store.KV, int64, error) {
	return nil, 0, f.err
}

// A store that refuses a cluster takes nothing away from it, and is told of until it
// lets the cluster in again.
func TestDenied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory(t)
		commit(t, mem, putMeta(t, "west", "r"), putRoute(t, "west", "r", "/"))
		s := &switched{inner: mem, cut: make(chan struct{})}
		r := startLoop(t, federation.LoopConfig{Local: "east", Store: s})
		r.deliver(true, ownRoute)
		synctest.Wait()
		for _, x := range []struct {
			next   store.Store
			denied bool
		}{{failing{mem, store.ErrDenied}, true}, {mem, false}} {
			l, changed := r.Leases()
			if l.Denied == x.denied {
				t.Fatalf("denied already: %v", l.Denied)
			}
			s.breakWith(store.ErrUnavailable, x.next)
			for l.Denied != x.denied {
				<-changed
				l, changed = r.Leases()
			}
			if fmt.Sprint(has(r.Snapshot(), "r")) != "[west]" {
				t.Errorf("denied %v: what was known is gone", x.denied)
			}
		}
	})
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

// Changes are added to the copy, which is written anew when more was added than it has,
// or when somebody else has changed it. A crash while it is written costs no more than that.
func TestCopyGrows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.copy")
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory(t)
		commit(t, mem, putMeta(t, "west", "r"), putRoute(t, "west", "first", "/"))
		r := startLoop(t, federation.LoopConfig{Local: "east", Store: mem, CopyPath: path})
		r.deliver(true, ownRoute)
		read := func() []byte {
			t.Helper()
			time.Sleep(time.Minute)
			synctest.Wait()
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			return data
		}
		whole := read()
		commit(t, mem, putRoute(t, "west", "second", "/"), store.Delete(store.ClustersPrefix+"west/routes/httproute/app/first"))
		added := read()
		if !bytes.HasPrefix(added, whole) || len(added) == len(whole) {
			t.Errorf("%d bytes, then %d that don't begin with them", len(whole), len(added))
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		commit(t, mem, putRoute(t, "west", "third", "/"))
		if anew := read(); bytes.HasPrefix(anew, whole) {
			t.Error("what somebody else wrote was added to")
		}
		size := len(read())
		for i := 0; ; i++ {
			commit(t, mem, putRoute(t, "west", "third", "/"+strings.Repeat("x", 500+i%7)), putRoute(t, "west", fmt.Sprint("n", i%100), "/"+strings.Repeat("y", 900)))
			now := len(read())
			if now < size {
				break
			}
			if size = now; size > 4<<20 {
				t.Fatalf("%d bytes, and it was not written anew", size)
			}
		}
		commit(t, mem, putRoute(t, "west", "last", "/"))
		tail := read()
		r.stop()
		if err := os.WriteFile(path, tail[:len(tail)-1], 0o600); err != nil {
			t.Fatal(err)
		}
		mem.SetAvailable(false)
		r = startLoop(t, federation.LoopConfig{Local: "east", Store: mem, CopyPath: path})
		r.deliver(true, ownRoute)
		time.Sleep(time.Minute)
		s := r.Snapshot()
		if got := fmt.Sprint(has(s, "first"), has(s, "second"), has(s, "third"), has(s, "last")); got != "[] [west] [west] []" {
			t.Errorf("from a copy without its end: %s", got)
		}
		r.stop()
	})
}

// A copy that is damaged, and none at all, leave the local cluster alone.
func TestBadCopy(t *testing.T) {
	for name, content := range map[string]string{"none": "", "garbage": "garbage", "cut": "causeway store copy 2\n0123"} {
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
