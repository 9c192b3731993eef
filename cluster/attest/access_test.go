package attest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// The API server is asked once for each token and for all who show it at a time, again
// after a while, and sooner after a refusal; what it could not say is not kept.
func TestAccessCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		asked := map[string]int{}
		c := NewAccessCache(func(_ context.Context, token string) (Access, error) {
			mu.Lock()
			asked[token]++
			mu.Unlock()
			time.Sleep(time.Second)
			switch token {
			case "bad":
				return Access{}, fmt.Errorf("%w: no", ErrRefused)
			case "away":
				return Access{}, errors.New("no answer")
			}
			return Access{Account: Account{"app", token}, All: token == "admin"}, nil
		})
		ask := func(token string) (Access, error) { return c.Access(t.Context(), token) }
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if a, err := ask("admin"); err != nil || !a.All || a.Account.Name != "admin" {
					t.Errorf("%+v, %v", a, err)
				}
			})
		}
		wg.Wait()
		if a, err := ask("someone"); err != nil || a.All {
			t.Errorf("%+v, %v", a, err)
		}
		for range 2 {
			if _, err := ask("bad"); !errors.Is(err, ErrRefused) {
				t.Errorf("refused: %v", err)
			}
			if _, err := ask("away"); err == nil || errors.Is(err, ErrRefused) {
				t.Errorf("no answer: %v", err)
			}
			if _, err := ask(""); !errors.Is(err, ErrRefused) {
				t.Errorf("no token: %v", err)
			}
		}
		if asked["admin"] != 1 || asked["bad"] != 1 || asked["away"] != 2 || asked[""] != 0 {
			t.Errorf("asked %v", asked)
		}
		time.Sleep(refusedFor)
		_, _ = ask("bad")
		_, _ = ask("admin")
		if asked["bad"] != 2 || asked["admin"] != 1 {
			t.Errorf("after %s asked %v", refusedFor, asked)
		}
		time.Sleep(accessFor)
		if _, _ = ask("admin"); asked["admin"] != 2 {
			t.Errorf("after %s asked %v", accessFor, asked)
		}
		// One who leaves does not wait, and spoils nothing for the others.
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Access(ctx, "new"); !errors.Is(err, context.Canceled) {
			t.Errorf("left: %v", err)
		}
		time.Sleep(2 * time.Second)
		if _, err := ask("new"); err != nil || asked["new"] != 1 {
			t.Errorf("%v, asked %v", err, asked)
		}
	})
}

// Whoever shows many tokens makes it forget, not grow, and not ask without end.
func TestAccessCacheBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		c := NewAccessCache(func(ctx context.Context, _ string) (Access, error) {
			select {
			case <-hold:
			case <-ctx.Done():
			}
			return Access{}, ErrRefused
		})
		var wg sync.WaitGroup
		for i := range maxReviews {
			wg.Go(func() { _, _ = c.Access(t.Context(), fmt.Sprint("slow", i)) })
		}
		synctest.Wait()
		if _, err := c.Access(t.Context(), "one more"); !errors.Is(err, ErrBusy) {
			t.Errorf("one more: %v", err)
		}
		close(hold)
		wg.Wait()
		for i := range 2 * maxAccesses {
			_, _ = c.Access(t.Context(), fmt.Sprint(i))
		}
		if len(c.known) > maxAccesses {
			t.Errorf("%d are remembered", len(c.known))
		}
	})
}
