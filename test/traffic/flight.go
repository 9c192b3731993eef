package traffic

import "sync"

// Flight knows which requests are under way. Those that were when something was first seen
// are a barrier: each of Envoy's threads takes over a configuration by itself, and one that
// the machine holds up does so late, but before it ends the requests that it has. Its methods
// may be called from any goroutine.
type Flight struct {
	mu    sync.Mutex
	ended sync.Cond // with mu
	begun int64
	open  map[int64]bool
}

// Begin numbers a request, from 1, and gives the oldest that is under way, itself if no other is.
func (f *Flight) Begin() (n, oldest int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == nil {
		f.open = map[int64]bool{}
	}
	f.begun++
	f.open[f.begun] = true
	return f.begun, f.oldest()
}

// End ends a request.
func (f *Flight) End(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.open, n)
	if f.ended.L != nil {
		f.ended.Broadcast()
	}
}

// Begun is how many have begun.
func (f *Flight) Begun() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.begun
}

// Wait waits until those have ended that have begun by now.
func (f *Flight) Wait() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended.L = &f.mu
	for last := f.begun; f.oldest() <= last; {
		f.ended.Wait()
	}
}

// oldest is the oldest under way, or the next to come. With f.mu held.
func (f *Flight) oldest() int64 {
	oldest := f.begun + 1
	for n := range f.open {
		oldest = min(oldest, n)
	}
	return oldest
}
