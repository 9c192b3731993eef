// Package storetest is the suite that every backend of federation/store passes.
// A backend's test gives Run a function that opens an empty store; see the tests of
// federation/store/memory and federation/store/etcd.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/causeway-mesh/causeway/federation/store"
)

// Own is the prefix that Backend.Store may write, Other one that it may not.
const (
	Own   = store.ClustersPrefix + "one/"
	Other = store.ClustersPrefix + "two/"
)

// Backend is one empty store under test, and what the suite does to it. Progress
// must be reported several times a second.
type Backend struct {
	// Store may write Own and Foreign may write Other; both read all below store.Root.
	Store, Foreign store.Store
	// Enforced says that the backend itself denies writes elsewhere.
	Enforced bool
	// Compact forgets what was before the revision.
	Compact func(t testing.TB, revision int64)
	// Expire ends the lease of a held key.
	Expire func(t testing.TB, key string)
	// Stop makes the store go away, Start return with all its data.
	Stop, Start func(t testing.TB)
	// Cut breaks the connections of Store, which it may re-open at once. Optional.
	Cut func()
}

// patience is how long anything may take on a busy machine.
const patience = 60 * time.Second

// Run runs the suite, or only the tests named; open is called once for each.
func Run(t *testing.T, open func(t *testing.T) *Backend, only ...string) {
	ran := 0
	for _, c := range []struct {
		name string
		test func(*testing.T, *Backend)
	}{
		{"Revisions", testRevisions},
		{"List", testList},
		{"ListPages", testListPages},
		{"Compaction", testCompaction},
		{"Conflict", testConflict},
		{"Limits", testLimits},
		{"Invalid", testInvalid},
		{"WatchOrder", testWatchOrder},
		{"WatchFuture", testWatchFuture},
		{"WatchEnds", testWatchEnds},
		{"WatchSlowReader", testWatchSlowReader},
		{"Progress", testProgress},
		{"Outage", testOutage},
		{"CompactedDuringOutage", testCompactedDuringOutage},
		{"Hold", testHold},
		{"HoldLost", testHoldLost},
		{"HoldOutage", testHoldOutage},
		{"Denied", testDenied},
		{"History", testHistory},
	} {
		if len(only) > 0 && !slices.Contains(only, c.name) {
			continue
		}
		ran++
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, open(t))
		})
	}
	if ran < len(only) {
		t.Errorf("the suite has not all of %q", only)
	}
}

func put(t testing.TB, s store.Store, key, value string) int64 {
	t.Helper()
	return commit(t, s, store.Put(key, []byte(value)))
}

func commit(t testing.TB, s store.Store, ops ...store.Op) int64 {
	t.Helper()
	rev, err := s.Commit(t.Context(), store.Txn{Ops: ops})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func list(t testing.TB, s store.Store, prefix string, rev int64) ([]store.KV, int64) {
	t.Helper()
	kvs, got, err := s.List(t.Context(), prefix, rev)
	if err != nil {
		t.Fatal(err)
	}
	return kvs, got
}

// show writes keys as "name=value@create/mod", without the prefix.
func show(kvs []store.KV) string {
	var out []string
	for _, kv := range kvs {
		s := fmt.Sprintf("%s=%s@%d/%d", strings.TrimPrefix(kv.Key, store.ClustersPrefix), kv.Value, kv.CreateRevision, kv.ModRevision)
		if kv.Leased {
			s += "+lease"
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func showEvents(evs []store.Event) string {
	var out []string
	for _, e := range evs {
		if e.Deleted {
			out = append(out, fmt.Sprintf("-%s@%d", strings.TrimPrefix(e.Key, store.ClustersPrefix), e.ModRevision))
		} else {
			out = append(out, show([]store.KV{e.KV}))
		}
	}
	return strings.Join(out, " ")
}

// watcher collects what a watch delivers and checks what holds for every batch.
type watcher struct {
	mu      sync.Mutex
	changed chan struct{}
	batches []store.Batch
	err     error
	ended   bool
	stop    context.CancelFunc
}

// watch starts a watch that ends with the test.
func watch(t testing.TB, s store.Store, prefix string, after int64) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watcher{changed: make(chan struct{}), stop: cancel}
	last := after
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		err := s.Watch(ctx, prefix, after, func(b store.Batch) error {
			if err := checkBatch(prefix, b, last); err != nil {
				t.Error(err)
			}
			last = b.Revision
			w.update(func() { w.batches = append(w.batches, b) })
			return nil
		})
		w.update(func() { w.err, w.ended = err, true })
	}()
	return w
}

// checkBatch checks a batch against the revision reached before it.
func checkBatch(prefix string, b store.Batch, last int64) error {
	if b.Revision < last {
		return fmt.Errorf("batch of revision %d after %d", b.Revision, last)
	}
	seen := map[string]int64{}
	rev := last
	for i, e := range b.Events {
		switch {
		case !strings.HasPrefix(e.Key, prefix):
			return fmt.Errorf("event of key %q for prefix %q", e.Key, prefix)
		case e.ModRevision <= last || e.ModRevision < rev || e.ModRevision > b.Revision:
			return fmt.Errorf("event %d of key %q has revision %d, in a batch of %d after %d", i, e.Key, e.ModRevision, b.Revision, last)
		case seen[e.Key] == e.ModRevision:
			return fmt.Errorf("two events of key %q at revision %d", e.Key, e.ModRevision)
		case e.Deleted && (e.Value != nil || e.CreateRevision != 0 || e.Leased):
			return fmt.Errorf("deletion of key %q carries %+v", e.Key, e.KV)
		}
		seen[e.Key], rev = e.ModRevision, e.ModRevision
	}
	return nil
}

func (w *watcher) update(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	close(w.changed)
	w.changed = make(chan struct{})
}

// wait waits until cond holds; cond may read the watcher's fields.
func (w *watcher) wait(t testing.TB, what string, cond func() bool) {
	t.Helper()
	limit := time.After(patience)
	for {
		w.mu.Lock()
		ok, changed := cond(), w.changed
		w.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-limit:
			w.mu.Lock()
			defer w.mu.Unlock()
			t.Fatalf("%s: not within %v; seen %s; ended %v, %v", what, patience, showEvents(w.all()), w.ended, w.err)
		}
	}
}

// reach waits until everything up to rev was delivered and returns all events.
func (w *watcher) reach(t testing.TB, rev int64) []store.Event {
	t.Helper()
	w.wait(t, fmt.Sprintf("watch up to revision %d", rev), func() bool { return w.revision() >= rev })
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all()
}

// end waits for the watch to end by itself.
func (w *watcher) end(t testing.TB) error {
	t.Helper()
	w.wait(t, "end of the watch", func() bool { return w.ended })
	return w.err
}

// With w.mu held.
func (w *watcher) revision() int64 {
	if len(w.batches) == 0 {
		return -1
	}
	return w.batches[len(w.batches)-1].Revision
}

// With w.mu held.
func (w *watcher) all() []store.Event {
	var out []store.Event
	for _, b := range w.batches {
		out = append(out, b.Events...)
	}
	return out
}

// replay applies events to a state, as a reader does.
func replay(state map[string]store.KV, events []store.Event) {
	for _, e := range events {
		if e.Deleted {
			delete(state, e.Key)
		} else {
			state[e.Key] = e.KV
		}
	}
}

func sorted(state map[string]store.KV) []store.KV {
	out := make([]store.KV, 0, len(state))
	for _, kv := range state {
		out = append(out, kv)
	}
	slices.SortFunc(out, func(a, b store.KV) int { return strings.Compare(a.Key, b.Key) })
	return out
}

func wantError(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func wantEvents(t testing.TB, what string, got []store.Event, want string) {
	t.Helper()
	if s := showEvents(got); s != want {
		t.Errorf("%s:\n got %s\nwant %s", what, s, want)
	}
}
