// Package traffic is for tests that change something while requests go on: it sends
// requests at a rate, and knows which configurations may have answered each.
//
// Whoever changes adds the next configuration to a History before it is written, and
// settles it once it is what answers. A request may have been answered by any configuration
// from the newest that was settled when it began to the newest that there was when it ended.
package traffic

import "sync"

// History is every configuration that there was, by revision from 1. Its methods may be
// called from any goroutine.
type History[C any] struct {
	mu      sync.Mutex
	all     []C
	settled int64

	flight Flight
}

// Add makes a configuration the newest, and gives its revision. The first is settled.
func (h *History[C]) Add(c C) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, c)
	h.settled = max(h.settled, 1)
	return int64(len(h.all))
}

// Settle says that nothing before a revision answers any more what begins from now on. It
// waits for the spans under way: what holds one of them up may hold up the configuration too.
func (h *History[C]) Settle(revision int64) {
	h.flight.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.settled = max(h.settled, revision)
}

// Newest gives the configuration that was added last.
func (h *History[C]) Newest() C {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all[len(h.all)-1]
}

// Begin begins a span, with a request; End has to end it.
func (h *History[C]) Begin() Span[C] {
	n, _ := h.flight.Begin()
	h.mu.Lock()
	defer h.mu.Unlock()
	return Span[C]{history: h, n: n, First: h.settled}
}

// Span is the time of a request.
type Span[C any] struct {
	history *History[C]
	n       int64
	First   int64 // the oldest revision that may have answered
}

// End ends the span, and gives the configurations that may have answered, the oldest first.
func (s Span[C]) End() []C {
	defer s.history.flight.End(s.n)
	s.history.mu.Lock()
	defer s.history.mu.Unlock()
	return s.history.all[s.First-1 : len(s.history.all) : len(s.history.all)]
}
