package federation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/store"
)

// Waits after a failure of the store, and the bound of one listing.
const (
	firstRetry, longestRetry = 50 * time.Millisecond, time.Second
	listTimeout              = 30 * time.Second
)

// follow lists the store and watches from there, again whenever it must, until
// ctx ends. A new listing is compared with what is known; nothing is forgotten
// in between.
func (l *Loop) follow(ctx context.Context) error {
	for failures := 0; ; {
		heard, err := l.listAndWatch(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if heard {
			failures = 0
		}
		l.conn.failed(err)
		if store.Resync(err) {
			l.metrics.relists.Inc()
			l.cfg.Logger.Info("listing the store afresh", "reason", err)
		} else {
			l.cfg.Logger.Warn("following the store failed; going on with what is known", "error", err)
		}
		if failures > 0 || !store.Resync(err) {
			wait := min(firstRetry<<min(failures, 10), longestRetry)
			if err := cluster.Pause(ctx, wait-wait/5+rand.N(2*wait/5)); err != nil {
				return err
			}
		}
		failures++
	}
}

func (l *Loop) listAndWatch(ctx context.Context) (heard bool, err error) {
	records, revision, err := l.list(ctx)
	if err != nil {
		return false, err
	}
	l.conn.heard(l.cfg.StoreTimeout)
	l.inbox.putList(records, revision)
	err = l.cfg.Store.Watch(ctx, store.Root, revision, func(b store.Batch) error {
		heard = true
		l.conn.heard(l.cfg.StoreTimeout)
		l.inbox.putBatch(b)
		return nil
	})
	if err == nil {
		err = errors.New("the watch ended without a reason")
	}
	return heard, fmt.Errorf("watching the store: %w", err)
}

func (l *Loop) list(ctx context.Context) ([]store.KV, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	records, revision, err := l.cfg.Store.List(ctx, store.Root, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("listing the store: %w", err)
	}
	return records, revision, nil
}

// connection judges by the store's signs of life whether it is there.
type connection struct {
	notify func() // called without mu held when up changed

	mu      sync.Mutex
	up      bool
	last    time.Time
	err     error
	denied  bool // the store's last word was that this cluster may not read it
	timer   *time.Timer
	stopped bool
}

func (c *connection) heard(timeout time.Duration) {
	c.mu.Lock()
	c.last, c.err = time.Now(), nil
	if c.timer != nil {
		c.timer.Stop()
	}
	changed := !c.up || c.denied
	c.denied = false
	if !c.stopped {
		c.up = true
		c.timer = time.AfterFunc(timeout, func() { c.silent(timeout) })
	}
	c.mu.Unlock()
	if changed {
		c.notify()
	}
}

func (c *connection) silent(timeout time.Duration) {
	c.mu.Lock()
	lost := c.up && time.Since(c.last) >= timeout
	if lost {
		c.up = false
	}
	c.mu.Unlock()
	if lost {
		c.notify()
	}
}

func (c *connection) failed(err error) {
	c.mu.Lock()
	c.err = err
	changed := !c.denied && errors.Is(err, store.ErrDenied)
	c.denied = c.denied || changed
	c.mu.Unlock()
	if changed {
		c.notify()
	}
}

func (c *connection) stop() {
	c.mu.Lock()
	c.stopped, c.up = true, false
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
}

func (c *connection) connected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.up
}

func (c *connection) refused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.denied
}

func (c *connection) state() (up bool, last time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.up, c.last, c.err
}
