package storetest

import (
	"context"
	"testing"

	"github.com/causeway-mesh/causeway/federation/store"
)

// follower replays a watch, ending and resuming it on demand, and notes the state
// at each revision that a batch ended with.
type follower struct {
	*watcher
	t      testing.TB
	s      store.Store
	state  map[string]store.KV
	last   int64
	states map[int64]string
	cancel context.CancelFunc
	done   chan struct{}
}

func follow(t testing.TB, s store.Store, state map[string]store.KV, after int64) *follower {
	f := &follower{
		watcher: &watcher{changed: make(chan struct{})},
		t:       t, s: s, state: state, last: after,
		states: map[int64]string{},
	}
	f.start()
	return f
}

func (f *follower) start() {
	ctx, cancel := context.WithCancel(f.t.Context())
	done := make(chan struct{})
	f.cancel, f.done = cancel, done
	go func() {
		defer close(done)
		err := f.s.Watch(ctx, Own, f.last, func(b store.Batch) error {
			if err := checkBatch(Own, b, f.last); err != nil {
				f.t.Error(err)
			}
			f.update(func() {
				replay(f.state, b.Events)
				f.last = b.Revision
				f.states[b.Revision] = show(sorted(f.state))
				f.batches = append(f.batches, b)
			})
			return nil
		})
		if ctx.Err() == nil {
			f.t.Errorf("watch ended: %v", err)
		}
	}()
}

// restart ends the watch and begins a new one after the last batch, as a reader
// does that was itself restarted.
func (f *follower) restart() {
	f.stop()
	f.start()
}

func (f *follower) stop() {
	f.cancel()
	<-f.done
}

func (f *follower) seen() map[int64]string {
	f.stop()
	return f.states
}
