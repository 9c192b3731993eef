package envoy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"
)

// Readiness tells whether an Envoy has its first configuration and serves. Its methods may
// be called from any goroutine.
type Readiness struct {
	admin *admin
	was   atomic.Bool // it has said so, and nothing else since
}

// NewReadiness asks the admin interface on a unix socket, which need not be there yet.
func NewReadiness(socket string) (*Readiness, error) {
	a, err := newAdmin(socket)
	if err != nil {
		return nil, err
	}
	return &Readiness{admin: a}, nil
}

// answerTime is how long a question waits for Envoy to become ready, and to say so: less than
// the second after which kubelet gives up, and near it, since it asks again a second later.
const answerTime = 800 * time.Millisecond

// Ready returns once Envoy is ready, or tells why it is not. One that was ready, and does not
// answer in time, still is: the thread that would answer takes a large configuration over,
// while others serve. Without this a Gateway of thousands of routes would lose all its traffic
// whenever they change.
func (r *Readiness) Ready(ctx context.Context) error {
	// Who asks may lose patience; that says nothing of Envoy.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	last := errors.New("not asked")
	for {
		code, state, err := r.admin.call(ctx, http.MethodGet, "/ready")
		switch {
		case err == nil && code == http.StatusOK:
			r.was.Store(true)
			return nil
		case err == nil:
			r.was.Store(false)
			last = errors.New(state)
		case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist): // it is gone
			r.was.Store(false)
			last = err
		case r.was.Load():
			return nil
		case ctx.Err() == nil:
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("envoy is not ready: %w", last)
		case <-ticker.C:
		}
	}
}
