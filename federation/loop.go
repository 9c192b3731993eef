package federation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/store"
)

// Reader is the part of the store that a Loop uses.
type Reader interface {
	List(ctx context.Context, prefix string, revision int64) ([]store.KV, int64, error)
	Watch(ctx context.Context, prefix string, after int64, deliver func(store.Batch) error) error
}

// Times of a Loop.
const (
	// DefaultStoreGrace is how long a start waits for the store.
	DefaultStoreGrace = 2 * time.Second
	// DefaultStoreTimeout is how long the store may be silent before it counts as
	// lost; it reports progress about once a second.
	DefaultStoreTimeout = 5 * time.Second
)

// LoopConfig says what a Loop works on.
type LoopConfig struct {
	// Local is the agent's own cluster; empty in a hub.
	Local cluster.ID
	// Store is followed. Required.
	Store Reader
	// OnSnapshot, if set, is called for each Snapshot with what changed since the
	// one before, one call at a time, from the goroutine of Run. What arrives while
	// it runs goes into the next Snapshot together. In the first call everything
	// has changed, whatever the ChangeSet says.
	OnSnapshot func(context.Context, *Snapshot, ChangeSet)
	// Unseal opens a certificate that another cluster has sealed for this one. It must not
	// block. Nil: what is sealed stays so.
	Unseal func(from cluster.ID, namespace, name string, s *cluster.SealedSecret) (*corev1.Secret, error)
	// CopyPath is a file for the copy of the store; its folder must exist. Empty:
	// none is kept, and a start without the store knows no other cluster.
	CopyPath string
	// StoreGrace is how long a start waits for the store before it goes on with the
	// copy on disk, or without one; DefaultStoreGrace if zero.
	StoreGrace time.Duration
	// StoreTimeout: DefaultStoreTimeout if zero.
	StoreTimeout time.Duration
	// Logger gets outages and records that can't be used. Required.
	Logger *slog.Logger
	// Registerer gets the causeway_snapshot_* metrics. Required.
	Registerer prometheus.Registerer
}

// Loop owns the Builder of a running agent or hub: it follows the local source
// and the store, and publishes a Snapshot for what they say together.
//
//   - The first change goes out at once; no timer delays it. Changes are batched
//     only while OnSnapshot runs.
//   - A drain of a cluster is a record of how its percentage goes. Where it is now
//     is worked out here, step by step, by this process's clock: whoever wrote the
//     record need not live on, nor the store be reached.
//   - The local cluster's objects are those of its source; the store's records of
//     that cluster only give them their seniority. Other clusters are what they
//     published. A cluster is part of the clusterset while it has a Meta record;
//     its other records wait for that. A Meta that can't be read counts as an empty
//     one, so that a bad value doesn't withdraw a cluster.
//   - A Snapshot at a revision holds exactly what the store held at that revision,
//     however the Loop got there: no set in between is empty or partial, after an
//     outage or a compaction neither.
//   - The first Snapshot waits until the source has delivered its full set and the
//     store was listed, or was away for StoreGrace. Later, losing the store changes
//     nothing but Connected.
//
// Methods may be called from any goroutine, save Run.
type Loop struct {
	cfg     LoopConfig
	metrics *loopMetrics
	inbox   *inbox
	merger  *merger // Run's alone
	conn    connection
	saver   *saver // nil without CopyPath

	snapshot atomic.Pointer[Snapshot]
	problems atomic.Pointer[[]cluster.Problem]

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when what follows changes
	done    progress
	waiting string
	copied  bool

	leasesMu      sync.Mutex
	leasesChanged chan struct{} // closed and replaced when leases or the connection change
	leases        map[cluster.ID]bool
}

// progress is what has gone through OnSnapshot.
type progress struct {
	any      bool
	revision int64
	seq      uint64
}

// NewLoop makes a Loop. It starts nothing.
func NewLoop(cfg LoopConfig) (*Loop, error) {
	if cfg.Local != "" {
		if err := cfg.Local.Validate(); err != nil {
			return nil, fmt.Errorf("federation loop: %w", err)
		}
	}
	if cfg.Store == nil || cfg.Logger == nil || cfg.Registerer == nil {
		return nil, errors.New("federation loop: Store, Logger and Registerer are required")
	}
	if cfg.StoreGrace < 0 || cfg.StoreTimeout < 0 {
		return nil, errors.New("federation loop: negative StoreGrace or StoreTimeout")
	}
	if cfg.StoreGrace == 0 {
		cfg.StoreGrace = DefaultStoreGrace
	}
	if cfg.StoreTimeout == 0 {
		cfg.StoreTimeout = DefaultStoreTimeout
	}
	l := &Loop{cfg: cfg, inbox: newInbox(), merger: newMerger(cfg.Local), changed: make(chan struct{}),
		leases: map[cluster.ID]bool{}, leasesChanged: make(chan struct{})}
	l.merger.unseal = cfg.Unseal
	l.conn.notify = func() { l.setLeases(nil) }
	if cfg.CopyPath != "" {
		l.saver = newSaver(cfg.CopyPath)
	}
	var err error
	if l.metrics, err = newLoopMetrics(cfg.Registerer, l); err != nil {
		return nil, fmt.Errorf("federation loop: %w", err)
	}
	return l, nil
}

// Deliver implements cluster.Sink for the local source. It never blocks: what
// hasn't been taken yet is replaced by what is newer. Synced counts from the
// first batch that has it, so an agent may add batches of its own, a Meta say.
func (l *Loop) Deliver(ctx context.Context, b cluster.Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if l.cfg.Local == "" {
		return errors.New("federation loop: a hub has no cluster of its own to deliver for")
	}
	l.inbox.put(func(in *input) {
		for _, e := range b.Events {
			in.local[e.Ref] = e.Object
		}
		if b.Meta != nil {
			in.meta = b.Meta
		}
		if b.Problems != nil {
			in.problems = b.Problems
		}
		in.synced = in.synced || b.Synced
	})
	return nil
}

// SetHealth replaces what is known of the other clusters' health. One that is
// missing is Alive while one of its agents holds a lease, else Suspect. The local
// cluster is always Alive: it can't be out of its own reach.
func (l *Loop) SetHealth(health map[cluster.ID]Health) {
	health = maps.Clone(health)
	l.inbox.put(func(in *input) { in.health, in.healthSet = health, true })
}

// SetTrust replaces the local cluster's trust bundle, X.509 authorities in DER,
// which then needs no store to be believed. The Loop shares the slices.
func (l *Loop) SetTrust(trustDomain string, authorities [][]byte) {
	l.inbox.put(func(in *input) { in.trust = &record.Trust{TrustDomain: trustDomain, Authorities: authorities} })
}

// Snapshot gives the newest Snapshot for which OnSnapshot was called, nil before
// the first.
func (l *Loop) Snapshot() *Snapshot { return l.snapshot.Load() }

// Problems lists what is wrong in the local source's input and in other
// clusters' records, sorted by cluster. The caller must not change it.
func (l *Loop) Problems() []cluster.Problem {
	if p := l.problems.Load(); p != nil {
		return *p
	}
	return nil
}

// Leases is which clusters' agents hold a lease.
type Leases struct {
	// Connected is false while the store is lost: Held is then the last that was known.
	Connected bool
	// Denied is true while the store answers that this cluster may not read it: its
	// administrator has removed the cluster, or the credentials are another's.
	Denied bool
	// Held has every cluster of the clusterset, the local one included.
	Held map[cluster.ID]bool
}

// Leases gives the leases and a channel that is closed when they, Connected or Denied
// change. The caller must not change the map.
func (l *Loop) Leases() (Leases, <-chan struct{}) {
	l.leasesMu.Lock()
	defer l.leasesMu.Unlock()
	return Leases{Connected: l.conn.connected(), Denied: l.conn.refused(), Held: l.leases}, l.leasesChanged
}

// setLeases replaces the leases, if not nil, and tells that something changed.
func (l *Loop) setLeases(leases map[cluster.ID]bool) {
	l.leasesMu.Lock()
	defer l.leasesMu.Unlock()
	if leases != nil {
		if maps.Equal(leases, l.leases) {
			return
		}
		l.leases = leases
	}
	close(l.leasesChanged)
	l.leasesChanged = make(chan struct{})
}

// LoopState is how a Loop fares.
type LoopState struct {
	// Waiting says what the first Snapshot waits for, empty since there was one.
	Waiting string
	// Connected is false while the store is lost. LastHeard is when it last spoke,
	// LastError what it last failed with.
	Connected bool
	LastHeard time.Time
	LastError error
	// Copied is true while what is known of the store is the copy on disk.
	Copied bool
	// Revision is that of the newest Snapshot.
	Revision int64
}

// State tells how the Loop fares.
func (l *Loop) State() LoopState {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := LoopState{Waiting: l.waiting, Copied: l.copied, Revision: l.done.revision}
	s.Connected, s.LastHeard, s.LastError = l.conn.state()
	return s
}

// Connected reports whether the store was heard within StoreTimeout.
func (l *Loop) Connected() bool { return l.conn.connected() }

// Await returns once a Snapshot that includes the store revision in full has
// gone through OnSnapshot. Its error is ctx's.
func (l *Loop) Await(ctx context.Context, revision int64) error {
	err := l.await(ctx, func(p progress) bool { return p.any && p.revision >= revision })
	if err != nil {
		return fmt.Errorf("waiting for store revision %d (now %d): %w", revision, l.State().Revision, err)
	}
	return nil
}

// Sync returns once all that was given to Deliver, SetHealth and SetTrust before
// the call has gone through OnSnapshot. Its error is ctx's.
func (l *Loop) Sync(ctx context.Context) error {
	target := l.inbox.seq()
	err := l.await(ctx, func(p progress) bool { return p.any && p.seq >= target })
	if err != nil {
		if w := l.State().Waiting; w != "" {
			return fmt.Errorf("the first snapshot waits for %s: %w", w, err)
		}
		return fmt.Errorf("waiting for a snapshot: %w", err)
	}
	return nil
}

func (l *Loop) await(ctx context.Context, reached func(progress) bool) error {
	for {
		l.mu.Lock()
		ok, changed := reached(l.done), l.changed
		l.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// update changes what waiters see, and wakes them.
func (l *Loop) update(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	close(l.changed)
	l.changed = make(chan struct{})
}

// Run follows the inputs until ctx ends, and returns ctx's error. Call it once.
func (l *Loop) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.follow(ctx) })
	g.Go(func() error { return l.build(ctx) })
	if l.saver != nil {
		g.Go(func() error { return l.save(ctx) })
	}
	defer l.conn.stop()
	return g.Wait()
}

// build is the one goroutine that makes Snapshots.
func (l *Loop) build(ctx context.Context) error {
	copied := l.readCopy()
	grace := time.NewTimer(l.cfg.StoreGrace)
	defer grace.Stop()
	var step <-chan time.Time // the next one of a drain
	synced, listed, patient, started := l.cfg.Local == "", false, true, false
	changes := ChangeSet{}
	l.wait(synced, listed)
	for {
		select {
		case <-l.inbox.ready:
		case <-grace.C:
			patient = false
			if !listed && copied != nil {
				l.inbox.put(func(in *input) {
					if in.list == nil {
						in.list = copied
					}
				})
			}
			if !listed {
				l.cfg.Logger.Warn("the store can't be reached: starting with what is known without it", "copy", copied != nil, "error", l.State().LastError)
			}
		case <-step:
		case <-ctx.Done():
			return ctx.Err()
		}
		in := l.inbox.take()
		synced = synced || in.synced
		if in.list != nil {
			listed = listed || !in.list.copied
			l.update(func() { l.copied = in.list.copied })
			copied = nil
		}
		began := time.Now()
		in.now = began
		out := l.merger.merge(in)
		step = nil
		if !out.step.IsZero() {
			step = time.After(time.Until(out.step)) // what nobody waits for any more is collected
		}
		maps.Copy(changes, out.changes)
		l.note(in, out)
		if !synced || !listed && patient {
			l.wait(synced, listed)
			continue
		}
		if out.snapshot != nil || !started {
			started = true
			l.publish(ctx, l.merger.builder.Snapshot(), changes, time.Since(began))
			changes = ChangeSet{}
		}
		l.update(func() {
			l.waiting = ""
			l.done = progress{any: true, revision: l.merger.builder.Snapshot().Revision, seq: in.seq}
		})
	}
}

func (l *Loop) publish(ctx context.Context, s *Snapshot, changes ChangeSet, built time.Duration) {
	l.metrics.build.Observe(built.Seconds())
	l.snapshot.Store(s)
	if l.cfg.OnSnapshot != nil {
		began := time.Now()
		l.cfg.OnSnapshot(ctx, s, changes)
		l.metrics.push.Observe(time.Since(began).Seconds())
	}
}

// maxLogged bounds what other clusters can make one step log.
const maxLogged = 10

// note publishes what merging yields beside the Snapshot.
func (l *Loop) note(in input, out merged) {
	if out.problems != nil {
		l.problems.Store(&out.problems)
	}
	if out.leases != nil {
		l.setLeases(out.leases)
	}
	if l.saver != nil && out.records != nil {
		if in.list != nil && in.list.copied || l.State().Copied {
			l.saver.miss()
		} else {
			l.saver.offer(*out.records)
		}
	}
	for i, p := range out.news {
		if i == maxLogged {
			l.cfg.Logger.Warn("and more inputs can't be used", "count", len(out.news)-i)
			break
		}
		l.cfg.Logger.Warn("input can't be used", "cluster", string(p.Cluster), "where", p.Where, "object", p.Object, "problem", p.Message)
	}
}

func (l *Loop) wait(synced, listed bool) {
	w := ""
	switch {
	case !synced:
		w = "the first full set of the cluster's source"
	case !listed:
		w = "the store"
	}
	l.update(func() { l.waiting = w })
}
