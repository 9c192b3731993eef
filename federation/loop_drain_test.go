package federation_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/store"
)

func putDrain(t *testing.T, id cluster.ID, d record.Drain) store.Op {
	t.Helper()
	r, err := record.EncodeDrain(id, d)
	return put(t, r, err)
}

// drained gives a cluster's percentage and target, after all is at rest.
func drained(r *loopRig, id cluster.ID) string {
	synctest.Wait()
	c, ok := r.Snapshot().Cluster(id)
	if !ok {
		return "no cluster"
	}
	return fmt.Sprintf("%d to %d", c.Drained, c.DrainTarget)
}

// A drain goes on by the clock of whoever follows it, with nobody to drive it:
// not the writer, not the store. A restart resumes where it should be by then.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory(t)
		dir := t.TempDir()
		st := &switched{inner: mem, cut: make(chan struct{})}
		cfg := federation.LoopConfig{Local: "east", Store: st, CopyPath: filepath.Join(dir, "copy")}
		commit(t, mem, putMeta(t, "west", "r"))
		r := startLoop(t, cfg)
		r.deliver(true)
		if got := drained(r, "west"); got != "0 to 0" {
			t.Fatalf("before: %s", got)
		}

		began := time.Now()
		at := func(after time.Duration, id cluster.ID, want string) {
			t.Helper()
			time.Sleep(time.Until(began.Add(after)))
			if got := drained(r, id); got != want {
				t.Errorf("%s after %s: %s, want %s", id, after, got, want)
			}
		}
		revision := commit(t, mem, putDrain(t, "west", record.Drain{Target: 100, Started: began, Over: 20 * time.Second}),
			putDrain(t, "east", record.Drain{From: 100, Target: 50, Started: began, Over: 10 * time.Second}))
		at(0, "west", "0 to 100")
		at(0, "east", "100 to 50")
		n := len(r.snapshots())
		at(999*time.Millisecond, "west", "0 to 100")
		at(time.Second, "west", "5 to 100")
		at(1500*time.Millisecond, "east", "93 to 50")
		for _, s := range r.snapshots()[n:] {
			for k := range s.changes {
				if k != federation.KeyDrained("west") && k != federation.KeyDrained("east") {
					t.Errorf("a step changes %q", k)
				}
			}
			if s.Revision != revision {
				t.Errorf("a step is at revision %d", s.Revision)
			}
		}

		// Without the store, and in a new process without the store too.
		at(4*time.Second, "west", "20 to 100")
		st.breakWith(store.ErrUnavailable, failing{err: store.ErrUnavailable})
		at(8*time.Second, "west", "40 to 100")
		r.stop()
		time.Sleep(time.Until(began.Add(10*time.Second + federation.DefaultStoreGrace)))
		r = startLoop(t, cfg)
		r.deliver(true)
		at(15*time.Second, "west", "75 to 100")
		at(15*time.Second, "east", "50 to 50")
		at(20*time.Second, "west", "100 to 100")
		n = len(r.snapshots())
		at(time.Hour, "west", "100 to 100")
		if got := len(r.snapshots()) - n; got != 0 {
			t.Errorf("%d snapshots after the drain was over", got)
		}
		r.stop()

		// A new record takes its place, and none means not drained.
		r = startLoop(t, federation.LoopConfig{Store: mem}) // a hub
		began = time.Now()
		commit(t, mem, putDrain(t, "west", record.Drain{From: 100, Target: 0, Started: began, Over: time.Second}))
		at(500*time.Millisecond, "west", "50 to 0")
		commit(t, mem, putDrain(t, "west", record.Drain{From: 50, Target: 100, Started: time.Now(), Over: 0}))
		at(500*time.Millisecond, "west", "100 to 100")
		key, err := store.DrainKey("west")
		if err != nil {
			t.Fatal(err)
		}
		// One that can't be read is told, and counts as none.
		commit(t, mem, store.Put(key, []byte{0xff}), store.Put(store.PolicyPrefix+"later-version", nil))
		at(500*time.Millisecond, "west", "0 to 0")
		var told []string
		for _, p := range r.Problems() {
			told = append(told, fmt.Sprintf("%s %s: %s", p.Cluster, p.Where, p.Message))
		}
		if len(told) != 2 || !strings.Contains(told[0], "later-version: policy of this kind is unknown") || !strings.HasPrefix(told[1], "west "+key) {
			t.Errorf("problems %q", told)
		}
		commit(t, mem, store.Delete(key), store.Delete(store.PolicyPrefix+"later-version"))
		at(500*time.Millisecond, "west", "0 to 0")
		if p := r.Problems(); len(p) != 0 {
			t.Errorf("problems %v", p)
		}
	})
}
