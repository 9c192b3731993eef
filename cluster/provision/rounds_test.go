package provision

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// What fails or waits is looked at ever later, up to a bound; being touched, and success,
// begin anew.
func TestRoundsBackOff(t *testing.T) {
	for what, c := range map[string]struct {
		err            error
		first, longest time.Duration
	}{"waits": {errWaits, firstWait, longestWait}, "fails": {errors.New("no"), firstRetry, longestRetry}} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var looked []time.Time
				answer := c.err
				r := &rounds{what: "thing", log: slog.New(slog.DiscardHandler)}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					r.run(ctx, func() []Name { return []Name{catalog} }, func(context.Context, Name) (time.Duration, bool, error) {
						mu.Lock()
						defer mu.Unlock()
						looked = append(looked, time.Now())
						return 0, false, answer
					})
				}()
				seen := func() []time.Time {
					mu.Lock()
					defer mu.Unlock()
					return append([]time.Time(nil), looked...)
				}
				const long = 10 * time.Minute
				time.Sleep(long)
				all := seen()
				for i := 1; i < len(all); i++ {
					least := min(c.first<<min(i-1, 20), c.longest)
					if gap := all[i].Sub(all[i-1]); gap < least || gap > least+least/4 {
						t.Fatalf("look %d came %s after the one before; want %s and up to a quarter more", i, gap, least)
					}
				}
				if n := len(all); n < int(long/c.longest)/2 {
					t.Fatalf("it was looked at %d times in %s", n, long)
				}
				if what == "waits" { // what fails goes on as slowly: being touched says nothing of why
					r.touch(catalog)
					time.Sleep(2 * c.first)
					if more := len(seen()) - len(all); more < 2 {
						t.Errorf("touched, it was looked at %d times within %s", more, 2*c.first)
					}
				}
				mu.Lock()
				answer = nil
				mu.Unlock()
				time.Sleep(2 * c.longest)
				quiet := len(seen())
				time.Sleep(long)
				if n := len(seen()); n != quiet {
					t.Errorf("done, and looked at %d times more", n-quiet)
				}
				mu.Lock()
				answer = c.err
				mu.Unlock()
				r.touch(catalog)
				time.Sleep(2 * c.first)
				if n := len(seen()); n < quiet+2 {
					t.Errorf("after success it did not begin anew: %d looks", n-quiet)
				}
				cancel()
				<-ended
			})
		})
	}
}
