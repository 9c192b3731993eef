package cluster

import "sync"

// Bell wakes all who wait for the next change of something. The zero value is ready; it
// may be used from any goroutine, and must not be copied.
type Bell struct {
	mu   sync.Mutex
	next chan struct{}
}

// Ring closes the channels that Next has given.
func (b *Bell) Ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next != nil {
		close(b.next)
		b.next = nil
	}
}

// Next gives a channel that is closed at the next Ring.
func (b *Bell) Next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		b.next = make(chan struct{})
	}
	return b.next
}
