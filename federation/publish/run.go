package publish

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/store"
)

// Times of the writing.
const (
	// writeTimeout and listTimeout bound a transaction and a listing. What became
	// of a transaction that ran into it is found out by listing.
	writeTimeout, listTimeout = 5 * time.Second, 20 * time.Second
	// The first wait after a failure and the longest; a store that is back is
	// used within the longest.
	firstBackoff, longestBackoff = 50 * time.Millisecond, time.Second
	// The same after someone else wrote below the prefix.
	firstContention, longestContention = 200 * time.Millisecond, 30 * time.Second
	// calm is how long all must go well until the next failure counts as the first.
	calm = time.Minute
)

// errForeign says that someone else writes below the prefix.
var errForeign = errors.New("someone else writes this cluster's records: see that one agent of the cluster leads, and that no other cluster uses its name and credentials")

// Run is Hold and Write together, for a cluster with one agent.
func (p *Publisher) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.Hold(ctx) })
	g.Go(func() error { return p.Write(ctx) })
	return g.Wait()
}

// Write publishes until ctx ends, and returns ctx's error. It may be called again
// after it returned, not before. Of several agents of a cluster one at a time
// writes, the leader.
func (p *Publisher) Write(ctx context.Context) error {
	if err := p.begin(true); err != nil {
		return err
	}
	defer func() { _ = p.begin(false) }()
	return p.write(ctx)
}

func (p *Publisher) begin(run bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if run && p.running {
		return errors.New("publisher runs already")
	}
	p.running, p.settled = run, 0
	p.report()
	p.notify()
	return nil
}

// Hold keeps this agent's liveness key until ctx ends, whatever becomes of the
// records: a cluster whose source is slow is alive. Each agent of a cluster holds
// its own, whoever leads.
func (p *Publisher) Hold(ctx context.Context) error {
	for {
		err := p.cfg.Store.Hold(ctx, p.alive.Key, p.alive.Value, p.cfg.TTL)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p.metrics.failed(err)
		p.cfg.Logger.Error("the store refuses this agent's liveness key, so other clusters will hold this one for dead: check the agent's rights in the store", "key", p.alive.Key, "error", err)
		if err := cluster.Pause(ctx, longestContention); err != nil {
			return err
		}
	}
}

func (p *Publisher) write(ctx context.Context) error {
	failures, conflicts := 0, 0
	for {
		began := time.Now()
		err := p.session(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(began) > calm {
			failures, conflicts = 0, 0
		}
		wait := backoff(firstBackoff, longestBackoff, failures)
		if foreign(err) {
			wait = backoff(firstContention, longestContention, conflicts)
			conflicts++
		} else {
			failures++
		}
		p.failed(err, wait)
		if err := cluster.Pause(ctx, wait); err != nil {
			return err
		}
	}
}

func foreign(err error) bool { return errors.Is(err, errForeign) || errors.Is(err, store.ErrConflict) }

func backoff(first, longest time.Duration, n int) time.Duration {
	d := min(first<<min(n, 20), longest)
	return d - d/5 + rand.N(2*d/5+1)
}

func (p *Publisher) failed(err error, wait time.Duration) {
	p.metrics.failed(err)
	p.mu.Lock()
	if foreign(err) {
		p.state.Conflicts++
	}
	p.settled = 0 // until the next session has looked
	p.state.LastError, p.state.LastErrorAt = err, time.Now()
	p.report()
	p.notify()
	p.mu.Unlock()
	p.cfg.Logger.Warn("publishing failed, will list what the store has and go on", "error", err, "retry", wait)
}

// session lists what the store has below the prefix, then follows both sides
// until something goes wrong; the error says what.
func (p *Publisher) session(ctx context.Context) error {
	own, revision, err := p.list(ctx)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.exports.touchAll()
	for key := range own.known {
		p.exports.dirty[key] = struct{}{}
	}
	p.state.Revision, p.state.LastError = revision, nil
	p.mu.Unlock()

	ctx, cancel := context.WithCancel(ctx)
	batches, ended, stopped := make(chan store.Batch), make(chan error, 1), make(chan struct{})
	go func() {
		defer close(stopped)
		ended <- p.cfg.Store.Watch(ctx, p.prefix, revision, func(b store.Batch) error {
			select {
			case batches <- b:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	err = p.follow(ctx, own, batches, ended)
	cancel()
	<-stopped
	return err
}

func (p *Publisher) follow(ctx context.Context, own *ledger, batches <-chan store.Batch, ended <-chan error) error {
	for {
		if err := p.flush(ctx, own); err != nil {
			return err
		}
		select {
		case <-p.wake:
		case b := <-batches:
			if p.observe(b, own) {
				return errForeign
			}
		case err := <-ended:
			return fmt.Errorf("watching own records: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *Publisher) list(ctx context.Context) (*ledger, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	kvs, revision, err := p.cfg.Store.List(ctx, p.prefix, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("listing own records: %w", err)
	}
	own := &ledger{known: make(map[string]held, len(kvs)), gone: map[string]int64{}}
	for _, kv := range kvs {
		if p.owns(kv.Key) {
			own.known[kv.Key] = held{sha256.Sum256(kv.Value), kv.ModRevision}
		}
	}
	return own, revision, nil
}

// owns leaves the liveness keys to those who hold them.
func (p *Publisher) owns(key string) bool {
	return !strings.HasPrefix(key, p.prefix+string(store.SectionAlive)+"/")
}

// flush writes what is dirty, transaction by transaction.
func (p *Publisher) flush(ctx context.Context, own *ledger) error {
	p.mu.Lock()
	if !p.ready() {
		p.mu.Unlock()
		return nil
	}
	target := p.seq
	ops := p.exports.plan(own.known)
	p.report()
	p.state.Pending = len(ops)
	p.mu.Unlock()

	revision := int64(0)
	for _, txn := range guarded(ops, own.known) {
		var err error
		if revision, err = p.commit(ctx, txn, own); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settled = target
	p.state.Revision = max(p.state.Revision, revision)
	p.state.Records, p.state.LastError = len(own.known), nil
	p.report()
	p.metrics.records.Set(float64(len(own.known)))
	p.metrics.revision.Set(float64(p.state.Revision))
	p.notify()
	return nil
}

func (p *Publisher) commit(ctx context.Context, txn store.Txn, own *ledger) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	began := time.Now()
	revision, err := p.cfg.Store.Commit(ctx, txn)
	if err != nil {
		return 0, fmt.Errorf("writing %d records, %s first: %w", len(txn.Ops), txn.Ops[0].Key, err)
	}
	p.metrics.wrote(txn, time.Since(began))
	for _, op := range txn.Ops {
		own.wrote(op, revision)
	}
	return revision, nil
}

// observe takes a batch of the watch and reports whether someone else undid
// what this Publisher wants.
func (p *Publisher) observe(b store.Batch, own *ledger) (undone bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range b.Events {
		if p.owns(e.Key) && own.saw(e) {
			p.exports.dirty[e.Key] = struct{}{}
			undone = undone || p.ready() && p.exports.differs(e.Key, own.known)
		}
	}
	return undone
}
