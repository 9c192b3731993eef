package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/causeway-mesh/causeway/federation/store"
)

func testWatchOrder(t *testing.T, b *Backend) {
	start := put(t, b.Store, Own+"before", "1")
	w := watch(t, b.Store, Own, start)
	put(t, b.Store, Own+"z", "1")
	put(t, b.Foreign, Other+"z", "1")
	last := commit(t, b.Store, store.Put(Own+"z", []byte("2")), store.Put(Own+"a", []byte("2")), store.Delete(Own+"before"))
	wantEvents(t, "events", w.reach(t, last), "one/z=1@3/3 one/z=2@3/5 one/a=2@5/5 -one/before@5")
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, batch := range w.batches {
		if n := len(batch.Events); n > 0 && batch.Events[n-1].ModRevision == last && n < 3 {
			t.Errorf("revision %d was delivered in parts: %s", last, showEvents(batch.Events))
		}
	}
}

func testWatchFuture(t *testing.T, b *Backend) {
	put(t, b.Store, Own+"a", "1")
	wantError(t, "watch after a future revision", watch(t, b.Store, Own, 9).end(t), store.ErrFutureRevision)
}

func testWatchEnds(t *testing.T, b *Backend) {
	put(t, b.Store, Own+"a", "1")
	mine := errors.New("mine")
	calls := 0
	err := b.Store.Watch(t.Context(), Own, 0, func(store.Batch) error {
		calls++
		return mine
	})
	if err != mine || calls != 1 { //nolint:errorlint // as it is
		t.Errorf("%d calls, error %v; want one, and the reader's error", calls, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = b.Store.Watch(ctx, Own, 0, func(store.Batch) error {
		cancel()
		return nil
	})
	wantError(t, "watch whose context ended", err, context.Canceled)
}

// A reader that is slow gets everything, and in the meantime the store works.
func testWatchSlowReader(t *testing.T, b *Backend) {
	gate := make(chan struct{})
	got := make(chan store.Batch, 1000)
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		done <- b.Store.Watch(ctx, Own, 1, func(batch store.Batch) error {
			<-gate
			got <- batch
			return nil
		})
	}()
	const n = 60
	value := bytes.Repeat([]byte{'x'}, 200_000) // 12 MB in all: more than any buffer
	var last int64
	for i := range n {
		last = commit(t, b.Store, store.Put(fmt.Sprintf("%sk%d", Own, i%7), value), store.Put(Own+"n", fmt.Append(nil, i)))
	}
	close(gate)
	seen, rev := 0, int64(1)
	limit := time.After(patience)
	for rev < last {
		select {
		case batch := <-got:
			if err := checkBatch(Own, batch, rev); err != nil {
				t.Fatal(err)
			}
			seen, rev = seen+len(batch.Events), batch.Revision
		case <-limit:
			t.Fatalf("%d events up to revision %d of %d", seen, rev, last)
		}
	}
	if seen != 2*n {
		t.Errorf("%d events, want %d", seen, 2*n)
	}
	cancel()
	wantError(t, "end", <-done, context.Canceled)
}

func testProgress(t *testing.T, b *Backend) {
	// Of an idle store: the reader still learns that it is up to date.
	idle := watch(t, b.Store, Own, 1)
	idle.wait(t, "progress of an idle store", func() bool { return len(idle.batches) >= 3 })
	// Of a prefix in which nothing happens, while others change.
	for i := range 5 {
		rev := put(t, b.Foreign, Other+"a", fmt.Sprint(i))
		if evs := idle.reach(t, rev); len(evs) != 0 {
			t.Errorf("events of another prefix: %s", showEvents(evs))
		}
	}
}

func testOutage(t *testing.T, b *Backend) {
	start := put(t, b.Store, Own+"a", "1")
	w := watch(t, b.Store, Own, start)
	mid := put(t, b.Store, Own+"a", "2")
	w.reach(t, mid)
	b.Stop(t)

	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	begin := time.Now()
	away := func() error {
		_, err := b.Store.Commit(ctx, store.Txn{Ops: []store.Op{store.Put(Own+"b", []byte("1"))}})
		return err
	}
	err := away()
	if !errors.Is(err, context.DeadlineExceeded) {
		// The connection broke under the request, which may have been applied: that
		// must be said at once. The next one finds no connection and waits.
		wantError(t, "commit to a store that goes away", err, store.ErrUnavailable)
		err = away()
	}
	wantError(t, "commit to a store that is away", err, store.ErrUnavailable)
	wantError(t, "commit to a store that is away", err, context.DeadlineExceeded)
	_, _, err = b.Store.List(ctx, Own, 0)
	wantError(t, "list of a store that is away", err, store.ErrUnavailable)
	if d := time.Since(begin); d > patience {
		t.Errorf("refused after %v", d)
	}

	// A request without an urgent deadline waits for the store.
	waited := make(chan error, 1)
	go func() {
		_, err := b.Store.Commit(t.Context(), store.Txn{Ops: []store.Op{store.Put(Own+"c", []byte("1"))}})
		waited <- err
	}()
	b.Start(t)
	if err := <-waited; err != nil {
		t.Errorf("commit that waited for the store: %v", err)
	}
	last := commit(t, b.Store, store.Delete(Own+"a"))
	kvs, _ := list(t, b.Store, Own, 0)
	state := map[string]store.KV{Own + "a": {}}
	replay(state, w.reach(t, last))
	if got, want := show(sorted(state)), show(kvs); got != want {
		t.Errorf("after the outage the watch has %s, the store %s", got, want)
	}
}

// What was compacted before the watch could come back for it is an error, never a gap.
func testCompactedDuringOutage(t *testing.T, b *Backend) {
	start := put(t, b.Store, Own+"a", "1")
	hold := make(chan struct{})
	done := make(chan error, 1)
	begun := make(chan struct{}, 100)
	last := start
	go func() {
		done <- b.Store.Watch(t.Context(), Own, start, func(batch store.Batch) error {
			begun <- struct{}{}
			<-hold
			if err := checkBatch(Own, batch, last); err != nil {
				t.Error(err)
			}
			last = batch.Revision
			return nil
		})
	}()
	put(t, b.Store, Own+"a", "2")
	<-begun // the reader is busy with this one
	b.Stop(t)
	b.Start(t)
	for i := range 20 {
		put(t, b.Foreign, Other+"a", fmt.Sprint(i))
	}
	commit(t, b.Store, store.Delete(Own+"a"))
	rev := put(t, b.Foreign, Other+"a", "last")
	b.Compact(t, rev)
	close(hold)
	select {
	case err := <-done:
		wantError(t, "watch behind a compaction", err, store.ErrCompacted)
	case <-time.After(patience):
		t.Error("a watch behind a compaction goes on")
	}
}

// Whatever happens, and however the watch is interrupted, its events are the
// history: replayed, they give what List gives, at every revision.
func testHistory(t *testing.T, b *Backend) {
	rapid.Check(t, func(rt *rapid.T) {
		before, start := list(t, b.Store, Own, 0)
		state := map[string]store.KV{}
		for _, kv := range before {
			state[kv.Key] = kv
		}
		h := follow(t, b.Store, state, start)
		defer h.stop()
		steps := rapid.IntRange(5, 25).Draw(rt, "steps")
		last := start
		for range steps {
			switch rapid.IntRange(0, 9).Draw(rt, "action") {
			case 0:
				h.restart()
			case 1:
				if b.Cut != nil {
					b.Cut()
				}
			case 2:
				last = put(t, b.Foreign, Other+"x", "y")
			default:
				var ops []store.Op
				for _, k := range rapid.SliceOfNDistinct(rapid.IntRange(0, 5), 1, 4, rapid.ID).Draw(rt, "keys") {
					key := fmt.Sprintf("%sk%d", Own, k)
					if rapid.Bool().Draw(rt, "remove") {
						ops = append(ops, store.Delete(key))
					} else {
						ops = append(ops, store.Put(key, []byte(rapid.StringMatching(`[a-z]{0,3}`).Draw(rt, "value"))))
					}
				}
				last = commitThrough(t, b.Store, ops)
			}
		}
		h.reach(t, last)
		for rev, got := range h.seen() {
			kvs, _ := list(t, b.Store, Own, rev)
			if want := show(kvs); got != want {
				rt.Fatalf("at revision %d the watch has\n%s\nand the store\n%s", rev, got, want)
			}
		}
	})
}

// commitThrough commits operations that may be repeated, over cut connections.
func commitThrough(t testing.TB, s store.Store, ops []store.Op) int64 {
	t.Helper()
	for {
		rev, err := s.Commit(t.Context(), store.Txn{Ops: ops})
		if err == nil {
			return rev
		}
		if !errors.Is(err, store.ErrUnavailable) || t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
}
