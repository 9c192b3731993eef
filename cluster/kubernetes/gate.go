package kubernetes

import (
	"context"
	"errors"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Times of the gate.
const (
	probeEvery   = 500 * time.Millisecond
	probeTimeout = time.Second
)

// gate stands before every list and watch. A failure that may be the server's
// shuts it until a probe of /readyz succeeds; then all who wait go at once. So an
// outage costs two small requests a second, however many kinds are watched, and
// its end is noticed within probeEvery, however long it was.
type gate struct {
	probe   func(context.Context) error
	changed func(open bool) // called outside of the lock, in order

	doubts chan struct{} // 1 deep
	mu     sync.Mutex
	opened chan struct{} // closed while the gate is open
}

func newGate(probe func(context.Context) error, changed func(bool)) *gate {
	return &gate{probe: probe, changed: changed, doubts: make(chan struct{}, 1), opened: make(chan struct{})}
}

// run opens and shuts the gate until ctx ends. It is shut at first.
func (g *gate) run(ctx context.Context) {
	for {
		for told := false; !g.try(ctx); {
			if !told {
				told = true
				g.changed(false)
			}
			if !sleep(ctx, probeEvery) {
				return
			}
		}
		g.mu.Lock()
		close(g.opened)
		g.mu.Unlock()
		g.changed(true)
		select {
		case <-ctx.Done():
			return
		case <-g.doubts:
		}
		g.mu.Lock()
		g.opened = make(chan struct{})
		g.mu.Unlock()
	}
}

func (g *gate) try(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return g.probe(ctx) == nil
}

// doubt shuts the gate until the next successful probe.
func (g *gate) doubt() {
	select {
	case g.doubts <- struct{}{}:
	default:
	}
}

// wait returns when the gate is open, or with ctx's error.
func (g *gate) wait(ctx context.Context) error {
	g.mu.Lock()
	opened := g.opened
	g.mu.Unlock()
	select {
	case <-opened:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// open reports whether the gate is open now.
func (g *gate) open() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.opened:
		return true
	default:
		return false
	}
}

// serverFault tells errors that say something of the server, or of the way to
// it, from those that say something of the request.
func serverFault(err error) bool {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		code := status.Status().Code
		return code >= 500 || code == 429 || code == 0
	}
	return err != nil && !errors.Is(err, context.Canceled)
}

// sleep waits, or returns false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
