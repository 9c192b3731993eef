// Package memory is the global store of federation/store in the memory of one
// process: the same revisions, events and errors as etcd, without durability and
// without users. It serves tests, and their faults (Compact, Expire,
// SetAvailable) are part of it.
//
// It guarantees what federation/store says; the suite federation/store/storetest
// holds it to that together with etcd.
package memory

import (
	"context"
	"fmt"
	"sync"
	"time"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/causeway-mesh/causeway/federation/store"
)

// Config of a Store. The zero value is usable.
type Config struct {
	// ProgressInterval is how often an idle watch reports progress; 1 s if zero.
	ProgressInterval time.Duration
	// History is how many revisions are kept at least; about a quarter more, and
	// the oldest are compacted. 100,000 if zero.
	History int
	// OnState is called with what SetAvailable was given, as far as it changed.
	OnState func(connected bool, err error)
	// OnHold is called when a key given to Hold was established (held) or lost
	// (err says why). It must return fast.
	OnHold func(key string, held bool, err error)
}

// Store is a store.Store in memory. Make it with New.
type Store struct {
	cfg Config

	mu sync.Mutex // guards all below; never held while a callback runs
	// history[i] is what happened at revision first+i, and the state after it; the
	// last one is the current state. What was before first is compacted.
	history []revision
	first   int64
	leases  map[string]*lease
	down    bool
	changed chan struct{} // closed and replaced at each change of history or down
}

type revision struct {
	tree   *iradix.Tree[store.KV]
	events []store.Event
}

// lease is what a Hold has on its key. It is alive while leases[key] points to it.
type lease struct {
	expiry *time.Timer
	lost   chan struct{} // closed when the key was taken from the holder
}

// New returns an empty store, at revision 1.
func New(cfg Config) (*Store, error) {
	if cfg.ProgressInterval < 0 || cfg.History < 0 {
		return nil, fmt.Errorf("memory store: negative progress interval or history: %w", store.ErrInvalid)
	}
	if cfg.ProgressInterval == 0 {
		cfg.ProgressInterval = time.Second
	}
	if cfg.History == 0 {
		cfg.History = 100_000
	}
	return &Store{
		cfg:     cfg,
		history: []revision{{tree: iradix.New[store.KV]()}},
		first:   1,
		leases:  map[string]*lease{},
		changed: make(chan struct{}),
	}, nil
}

func (s *Store) current() int64 { return s.first + int64(len(s.history)) - 1 }

func (s *Store) tree() *iradix.Tree[store.KV] { return s.history[len(s.history)-1].tree }

func (s *Store) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, prefix string, rev int64) ([]store.KV, int64, error) {
	if err := checkRead(prefix, rev); err != nil {
		return nil, 0, err
	}
	if err := s.lockAvailable(ctx); err != nil {
		return nil, 0, fmt.Errorf("listing %q: %w", prefix, err)
	}
	cur := s.current()
	if rev == 0 {
		rev = cur
	}
	var err error
	var tree *iradix.Tree[store.KV]
	switch {
	case rev > cur:
		err = fmt.Errorf("listing %q at revision %d, newest is %d: %w", prefix, rev, cur, store.ErrFutureRevision)
	case rev < s.first:
		err = fmt.Errorf("listing %q at revision %d, oldest is %d: %w", prefix, rev, s.first, store.ErrCompacted)
	default:
		tree = s.history[rev-s.first].tree
	}
	s.mu.Unlock()
	if err != nil {
		return nil, 0, err
	}
	var out []store.KV
	tree.Root().WalkPrefix([]byte(prefix), func(_ []byte, kv store.KV) bool {
		out = append(out, kv)
		return false
	})
	return out, rev, nil
}

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	if err := txn.Validate(); err != nil {
		return 0, fmt.Errorf("commit: %w", err)
	}
	if err := s.lockAvailable(ctx); err != nil {
		return 0, fmt.Errorf("commit: %w", err)
	}
	defer s.mu.Unlock()
	for _, g := range txn.Guards {
		kv, _ := s.tree().Get([]byte(g.Key))
		if kv.ModRevision != g.ModRevision {
			return 0, &store.ConflictError{Key: g.Key, Want: g.ModRevision, Have: kv.ModRevision}
		}
	}
	for _, o := range txn.Ops {
		s.release(o.Key)
	}
	s.apply(txn.Ops, false)
	return s.current(), nil
}

// apply appends a revision, unless ops change nothing. s.mu is held.
func (s *Store) apply(ops []store.Op, leased bool) {
	rev := s.current() + 1
	txn := s.tree().Txn()
	var events []store.Event
	for _, o := range ops {
		old, exists := txn.Get([]byte(o.Key))
		if o.Remove {
			if exists {
				txn.Delete([]byte(o.Key))
				events = append(events, store.Event{KV: store.KV{Key: o.Key, ModRevision: rev}, Deleted: true})
			}
			continue
		}
		// The caller may reuse its buffer; never nil, as a present value is not.
		kv := store.KV{Key: o.Key, Value: append([]byte{}, o.Value...), CreateRevision: rev, ModRevision: rev, Leased: leased}
		if exists {
			kv.CreateRevision = old.CreateRevision
		}
		txn.Insert([]byte(o.Key), kv)
		events = append(events, store.Event{KV: kv})
	}
	if len(events) == 0 {
		return
	}
	s.history = append(s.history, revision{tree: txn.Commit(), events: events})
	// A quarter at a time, so that the copying is paid for by as many commits.
	if keep := int64(s.cfg.History); int64(len(s.history)) > keep+keep/4 {
		s.compact(s.current() - keep + 1)
	}
	s.wake()
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, prefix string, after int64, deliver func(store.Batch) error) error {
	if err := checkRead(prefix, after); err != nil {
		return err
	}
	tick := time.NewTicker(s.cfg.ProgressInterval)
	defer tick.Stop()
	last, progress := after, false
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, changed, err := s.next(prefix, last)
		if err != nil {
			return err
		}
		if len(b.Events) > 0 || progress && b.Revision > 0 {
			if err := deliver(b); err != nil {
				return err
			}
		}
		if b.Revision > 0 {
			last = b.Revision
		}
		progress = false
		select {
		case <-changed:
		case <-tick.C:
			progress = true
		case <-ctx.Done():
		}
	}
}

// next returns what happened after last, and a channel that closes when there is
// more. A batch of revision 0 says that the store is away.
func (s *Store) next(prefix string, last int64) (store.Batch, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return store.Batch{}, s.changed, nil
	}
	cur := s.current()
	if last > cur {
		return store.Batch{}, nil, fmt.Errorf("watching %q after revision %d, newest is %d: %w", prefix, last, cur, store.ErrFutureRevision)
	}
	if last+1 < s.first {
		return store.Batch{}, nil, fmt.Errorf("watching %q after revision %d, oldest is %d: %w", prefix, last, s.first, store.ErrCompacted)
	}
	b := store.Batch{Revision: cur}
	for r := last + 1; r <= cur; r++ {
		for _, e := range s.history[r-s.first].events {
			if len(e.Key) >= len(prefix) && e.Key[:len(prefix)] == prefix {
				b.Events = append(b.Events, e)
			}
		}
	}
	return b, s.changed, nil
}

// lockAvailable returns with s.mu held, or waits for the store until ctx ends.
func (s *Store) lockAvailable(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
		}
		s.mu.Lock()
		if !s.down {
			return nil
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func checkRead(prefix string, rev int64) error {
	if prefix == "" {
		return fmt.Errorf("empty prefix: %w", store.ErrInvalid)
	}
	if rev < 0 {
		return fmt.Errorf("negative revision %d: %w", rev, store.ErrInvalid)
	}
	return nil
}

// Compact forgets what was before revision rev: List at an older one, and Watch
// after an older one than rev-1, are ErrCompacted from now on.
func (s *Store) Compact(rev int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rev > s.current() {
		return fmt.Errorf("compacting at revision %d, newest is %d: %w", rev, s.current(), store.ErrFutureRevision)
	}
	if rev <= s.first {
		return fmt.Errorf("compacting at revision %d, oldest is %d: %w", rev, s.first, store.ErrCompacted)
	}
	s.compact(rev)
	s.wake()
	return nil
}

func (s *Store) compact(rev int64) {
	s.history = append([]revision(nil), s.history[rev-s.first:]...)
	s.first = rev
}

// SetAvailable makes the store reachable or not: while it is not, List and Commit
// wait (ErrUnavailable when their context ends), watches pause, and held keys are
// not renewed, so that they vanish after their ttl.
func (s *Store) SetAvailable(available bool) {
	s.mu.Lock()
	same := s.down != available
	s.down = !available
	if !same {
		s.wake()
	}
	s.mu.Unlock()
	if same || s.cfg.OnState == nil {
		return
	}
	if available {
		s.cfg.OnState(true, nil)
	} else {
		s.cfg.OnState(false, store.ErrUnavailable)
	}
}
