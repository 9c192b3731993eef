package federation

import (
	"sync"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/store"
)

// listing is the store as it was at one revision.
type listing struct {
	records  []store.KV
	revision int64
	copied   bool // from disk
}

// input is all that happened since the last look: a listing, if not nil, then
// the newest state of each key and object that changed after it. Its size is
// bounded by the number of distinct keys and objects.
type input struct {
	now      time.Time // by which drains are judged
	seq      uint64    // counts the calls of put
	list     *listing
	events   map[string]store.Event
	revision int64 // of the store, 0: nothing new

	local     map[cluster.Ref]*cluster.Object // nil: gone
	meta      *cluster.Meta
	problems  *[]cluster.Problem
	synced    bool
	trust     *record.Trust
	health    map[cluster.ID]Health
	healthSet bool
}

func newInput(seq uint64) input {
	return input{seq: seq, events: map[string]store.Event{}, local: map[cluster.Ref]*cluster.Object{}}
}

// inbox collects inputs while the builder is at work.
type inbox struct {
	ready chan struct{} // 1 deep: there is something to take

	mu      sync.Mutex
	pending input
}

func newInbox() *inbox { return &inbox{ready: make(chan struct{}, 1), pending: newInput(0)} }

func (b *inbox) put(change func(*input)) {
	b.mu.Lock()
	change(&b.pending)
	b.pending.seq++
	b.mu.Unlock()
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

func (b *inbox) take() input {
	b.mu.Lock()
	defer b.mu.Unlock()
	in := b.pending
	b.pending = newInput(in.seq)
	return in
}

func (b *inbox) seq() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pending.seq
}

// putList replaces all that was known of the store.
func (b *inbox) putList(records []store.KV, revision int64) {
	b.put(func(in *input) {
		in.list = &listing{records: records, revision: revision}
		in.revision = revision
		clear(in.events)
	})
}

func (b *inbox) putBatch(batch store.Batch) {
	b.put(func(in *input) {
		for _, e := range batch.Events {
			in.events[e.Key] = e
		}
		in.revision = batch.Revision
	})
}
