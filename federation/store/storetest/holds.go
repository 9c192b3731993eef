package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/causeway-mesh/causeway/federation/store"
)

const (
	heldKey = Own + "alive/a"
	ttl     = 6 * time.Second // a busy machine may be late with a renewal
)

// holding runs Hold until stop is called, which waits for its end.
func holding(t testing.TB, b *Backend) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Store.Hold(ctx, heldKey, []byte("here"), ttl) }()
	return func() {
		t.Helper()
		cancel()
		select {
		case err := <-done:
			wantError(t, "hold whose context ended", err, context.Canceled)
		case <-time.After(patience):
			t.Errorf("hold still runs %v after the end of its context", patience)
		}
	}
}

// appearances counts all events. With w.mu held.
func appearances(w *watcher) (puts, deletions int) {
	for _, e := range w.all() {
		if e.Deleted {
			deletions++
		} else {
			puts++
		}
	}
	return puts, deletions
}

func testHold(t *testing.T, b *Backend) {
	w := watch(t, b.Foreign, Own, 1)
	stop := holding(t, b)
	w.wait(t, "held key", func() bool { p, _ := appearances(w); return p == 1 })
	put(t, b.Store, Own+"other", "x")
	kvs, _ := list(t, b.Foreign, Own, 0)
	if got, want := show(kvs), "one/alive/a=here@2/2+lease one/other=x@3/3"; got != want {
		t.Errorf("state %s\n want %s", got, want)
	}
	// Longer than the ttl: it is kept, without a new revision.
	time.Sleep(ttl + ttl/2)
	if kvs, rev := list(t, b.Foreign, Own, 0); len(kvs) != 2 || rev != 3 {
		t.Errorf("after %v: %s at revision %d", ttl+ttl/2, show(kvs), rev)
	}
	stop()
	kvs, _ = list(t, b.Foreign, Own, 0)
	if got, want := show(kvs), "one/other=x@3/3"; got != want {
		t.Errorf("state after the end %s\n want %s", got, want)
	}
}

func testHoldLost(t *testing.T, b *Backend) {
	w := watch(t, b.Foreign, Own, 1)
	stop := holding(t, b)
	defer stop()
	w.wait(t, "held key", func() bool { p, _ := appearances(w); return p == 1 })

	b.Expire(t, heldKey)
	w.wait(t, "held key after its lease expired", func() bool { p, d := appearances(w); return p == 2 && d == 1 })

	commit(t, b.Store, store.Delete(heldKey))
	w.wait(t, "held key after its deletion", func() bool { p, d := appearances(w); return p == 3 && d == 2 })

	put(t, b.Store, heldKey, "impostor")
	w.wait(t, "held key after it was overwritten", func() bool { p, _ := appearances(w); return p == 5 })
	kvs, _ := list(t, b.Store, heldKey, 0)
	if len(kvs) != 1 || string(kvs[0].Value) != "here" || !kvs[0].Leased {
		t.Errorf("held key is %s", show(kvs))
	}
}

func testHoldOutage(t *testing.T, b *Backend) {
	w := watch(t, b.Foreign, Own, 1)
	stop := holding(t, b)
	w.wait(t, "held key", func() bool { p, _ := appearances(w); return p == 1 })
	b.Stop(t)
	time.Sleep(ttl + ttl/2) // nobody can renew meanwhile
	b.Start(t)
	// Whether the lease survived is the backend's affair; the key is there, and stays.
	rev := put(t, b.Store, Own+"other", "x")
	w.reach(t, rev)
	w.wait(t, "held key after the outage", func() bool { return holds(w) })
	// An end during an outage is bounded in time, too; then the lease expires.
	b.Stop(t)
	begin := time.Now()
	stop()
	if d := time.Since(begin); d > patience {
		t.Errorf("hold took %v to end without the store", d)
	}
	b.Start(t)
	w.wait(t, "end of the key", func() bool { return !holds(w) })
	if kvs, _ := list(t, b.Store, Own, 0); len(kvs) != 1 || kvs[0].Key != Own+"other" {
		t.Errorf("in the end there is %s", show(kvs))
	}
}

// holds says whether the held key exists, as the watcher saw it. With w.mu held.
func holds(w *watcher) bool {
	state := map[string]store.KV{}
	replay(state, w.all())
	_, ok := state[heldKey]
	return ok
}
