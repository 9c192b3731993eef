package traffic

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	// senders is how many requests may be under way at a time.
	senders = 40
	// patience is how far a sender may be behind and still catch up.
	patience = time.Second
)

// Senders send requests until they are stopped.
type Senders struct {
	stop  chan struct{}
	once  sync.Once
	wg    sync.WaitGroup
	sent  atomic.Int64
	begun time.Time
}

// Send sends requests at a rate, in a second, until Stop or the end of the test. What each is
// comes from the chance that its sender is given, which depends on the seed alone. What slow
// answers hold up is sent at once afterwards, so that the rate holds as long as the machine
// can answer it. The first
// error of a sender fails the test and ends that sender.
func Send(t testing.TB, seed uint64, rate int, request func(chance *rand.Rand) error) *Senders {
	x := &Senders{stop: make(chan struct{}), begun: time.Now()}
	for i := range senders {
		x.wg.Go(func() {
			chance := rand.New(rand.NewPCG(seed, uint64(i+1)))
			every := time.Second * senders / time.Duration(rate)
			due := x.begun.Add(every * time.Duration(i) / senders)
			timer := time.NewTimer(0)
			defer timer.Stop()
			for {
				if late := time.Since(due); late > patience {
					due = due.Add(late)
				}
				timer.Reset(time.Until(due))
				select {
				case <-x.stop:
					return
				case <-timer.C:
				}
				due = due.Add(every)
				if err := request(chance); err != nil {
					t.Errorf("seed %d: %v", seed, err)
					return
				}
				x.sent.Add(1)
			}
		})
	}
	t.Cleanup(func() { x.Stop() })
	return x
}

// Stop waits for the requests under way. It gives how many were sent, and how many that
// was in a second.
func (x *Senders) Stop() (sent int64, rate float64) {
	x.once.Do(func() { close(x.stop) })
	x.wg.Wait()
	sent = x.sent.Load()
	return sent, float64(sent) / time.Since(x.begun).Seconds()
}
