package echo

import "sync"

const (
	maxPaths = 1000 // paths that are counted; later ones are not
	maxPath  = 256  // bytes of such a path
)

// tally counts requests by path, without their queries.
type tally struct {
	mu sync.Mutex
	n  map[string]uint64
}

func (t *tally) add(path string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.n[path]; !known && (len(t.n) >= maxPaths || len(path) > maxPath) {
		return
	}
	if t.n == nil {
		t.n = map[string]uint64{}
	}
	t.n[path]++
}

func (t *tally) of(path string) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n[path]
}
