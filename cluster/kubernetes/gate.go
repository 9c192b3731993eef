package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/causeway-mesh/causeway/cluster"
)

// Times of the gate.
const (
	probeEvery   = 500 * time.Millisecond
	probeTimeout = time.Second
)

// gate stands before every request of a Client. A failure that may be the server's
// shuts it until a probe of /readyz succeeds; then all who wait go at once. So an
// outage costs two small requests a second, however many kinds are watched, and its
// end is noticed within probeEvery, however long it was. Whoever else uses the Client
// (informers, the leader election) profits: its requests wait instead of failing, and
// its own pauses do not grow.
//
// Nobody is held up while run does not run.
type gate struct {
	probe func(context.Context) error

	doubts chan struct{} // 1 deep
	mu     sync.Mutex
	opened chan struct{} // closed while the gate is open
}

func newGate(probe func(context.Context) error) *gate {
	g := &gate{probe: probe, doubts: make(chan struct{}, 1), opened: make(chan struct{})}
	close(g.opened)
	return g
}

// run opens and shuts the gate until ctx ends. It is shut at first. changed is told
// when the server is lost and found.
func (g *gate) run(ctx context.Context, changed func(open bool)) {
	set := func(open bool) {
		g.mu.Lock()
		defer g.mu.Unlock()
		if open {
			close(g.opened)
		} else {
			g.opened = make(chan struct{})
		}
	}
	set(false)
	for {
		for told := false; !g.try(ctx); {
			if !told && ctx.Err() == nil {
				told = true
				changed(false)
			}
			if cluster.Pause(ctx, probeEvery) != nil {
				set(true)
				return
			}
		}
		set(true)
		changed(true)
		select {
		case <-ctx.Done():
			return
		case <-g.doubts:
		}
		set(false)
	}
}

// probing marks the context of the gate's own requests.
type probing struct{}

// RoundTripper lets requests through when the gate is open.
func (g *gate) roundTripper(next http.RoundTripper) http.RoundTripper {
	return tripper(func(r *http.Request) (*http.Response, error) {
		if r.Context().Value(probing{}) != nil {
			return next.RoundTrip(r)
		}
		if err := g.wait(r.Context()); err != nil {
			if r.Body != nil {
				_ = r.Body.Close()
			}
			return nil, fmt.Errorf("the API server does not answer: %w", err)
		}
		resp, err := next.RoundTrip(r)
		if err != nil && r.Context().Err() == nil || err == nil && serverFaultCode(resp.StatusCode) {
			g.doubt()
		}
		return resp, err
	})
}

type tripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (t tripper) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

func (g *gate) try(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return g.probe(context.WithValue(ctx, probing{}, true)) == nil
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
		return serverFaultCode(int(status.Status().Code))
	}
	return err != nil && !errors.Is(err, context.Canceled)
}

func serverFaultCode(code int) bool {
	return code >= 500 || code == http.StatusTooManyRequests || code == 0
}
