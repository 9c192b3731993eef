package attest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/singleflight"
)

// QueryAudience is what a token must have been made for that a person or program shows
// to the query API of a cluster's agents, or, with the clusterset's own trust domain,
// of its hubs. It is none by which an Envoy gets a certificate.
func QueryAudience(td spiffeid.TrustDomain) string { return Audience(td) + "/query" }

// What a ServiceAccount must be allowed, by RBAC, to be shown all namespaces: this verb
// on this resource, which no API server has.
const (
	AccessVerb     = "get"
	AccessGroup    = "causeway.dev"
	AccessResource = "federation"
)

// Access is what a token's bearer may see: its own namespace, or everything.
type Access struct {
	Account Account
	All     bool
}

// Bounds of an AccessCache.
const (
	// accessFor is how long an answer counts, and so how long a right that was taken
	// away may still be used; refusedFor the same for a refusal.
	accessFor, refusedFor = 30 * time.Second, 5 * time.Second
	maxAccesses           = 1024
	maxReviews            = 16 // at a time
)

// ErrBusy says that too many tokens are under review at a time.
var ErrBusy = errors.New("too many tokens are being reviewed: show it again")

// AccessCache asks the API server about tokens, and remembers for a short while what
// it says. It holds hashes of tokens, never tokens. Any goroutine may use it.
type AccessCache struct {
	review func(ctx context.Context, token string) (Access, error)
	flight singleflight.Group
	slots  chan struct{}

	mu    sync.Mutex
	known map[[sha256.Size]byte]judged
}

type judged struct {
	access Access
	err    error // an ErrRefused
	until  time.Time
}

// NewAccessCache makes one over a review, whose errors are ErrRefused or say that
// nothing is known.
func NewAccessCache(review func(ctx context.Context, token string) (Access, error)) *AccessCache {
	return &AccessCache{review: review, slots: make(chan struct{}, maxReviews), known: map[[sha256.Size]byte]judged{}}
}

// Access tells what a token's bearer may see. Its error is an ErrRefused if the token
// proves nothing.
func (c *AccessCache) Access(ctx context.Context, token string) (Access, error) {
	if token == "" || len(token) > maxToken {
		return Access{}, fmt.Errorf("%w: it is empty, or longer than %d bytes", ErrRefused, maxToken)
	}
	key := sha256.Sum256([]byte(token))
	if j, ok := c.remembered(key); ok {
		return j.access, j.err
	}
	// One review for all who show it now; it goes on if one of them leaves.
	done := c.flight.DoChan(string(key[:]), func() (any, error) {
		select {
		case c.slots <- struct{}{}:
			defer func() { <-c.slots }()
		default:
			return judged{}, ErrBusy
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reviewTimeout)
		defer cancel()
		access, err := c.review(ctx, token)
		j := judged{access: access, err: err, until: time.Now().Add(accessFor)}
		switch {
		case errors.Is(err, ErrRefused):
			j.until = time.Now().Add(refusedFor)
		case err != nil:
			return judged{}, err
		}
		c.remember(key, j)
		return j, nil
	})
	select {
	case r := <-done:
		if r.Err != nil {
			return Access{}, r.Err
		}
		j := r.Val.(judged)
		return j.access, j.err
	case <-ctx.Done():
		return Access{}, ctx.Err()
	}
}

func (c *AccessCache) remembered(key [sha256.Size]byte) (judged, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	j, ok := c.known[key]
	return j, ok && time.Now().Before(j.until)
}

// remember makes room first, if it must: what is over goes, or else anything.
func (c *AccessCache) remember(key [sha256.Size]byte, j judged) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) >= maxAccesses {
		now := time.Now()
		for k, old := range c.known {
			if !now.Before(old.until) {
				delete(c.known, k)
			}
		}
		for k := range c.known {
			if len(c.known) < maxAccesses {
				break
			}
			delete(c.known, k)
		}
	}
	c.known[key] = j
}
