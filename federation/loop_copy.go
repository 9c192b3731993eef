package federation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/store"
)

const (
	// maxCopyBytes bounds the copy on disk.
	maxCopyBytes = 1 << 30
	// copyPause is the least time between two writings of the copy; a writing that
	// takes long is followed by copyRatio times as long a pause: the copy is written
	// whole, and must not become what changes cost.
	copyPause, copyRatio = 5 * time.Second, 50
)

// saver keeps the newest state of the store for the goroutine that writes it to
// disk.
type saver struct {
	path  string
	ready chan struct{} // 1 deep

	mu      sync.Mutex
	pending *storeState
}

func newSaver(path string) *saver { return &saver{path: path, ready: make(chan struct{}, 1)} }

func (s *saver) offer(st storeState) {
	s.mu.Lock()
	s.pending = &st
	s.mu.Unlock()
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

func (s *saver) take() *storeState {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.pending
	s.pending = nil
	return st
}

// save writes the copy after changes, in the background, until ctx ends, and
// then once more if something is left.
func (l *Loop) save(ctx context.Context) error {
	for ctx.Err() == nil {
		select {
		case <-l.saver.ready:
		case <-ctx.Done():
		}
		took := l.writeCopy(l.saver.take())
		_ = cluster.Pause(ctx, max(copyPause, copyRatio*took))
	}
	l.writeCopy(l.saver.take())
	return ctx.Err()
}

func (l *Loop) writeCopy(st *storeState) (took time.Duration) {
	if st == nil {
		return 0
	}
	began := time.Now()
	records := func(yield func(store.KV) bool) {
		st.records.Root().Walk(func(_ []byte, kv store.KV) bool { return !yield(kv) })
	}
	data, err := record.EncodeCopy(st.revision, records, maxCopyBytes)
	if err == nil {
		err = replaceFile(l.saver.path, data)
	}
	if err != nil {
		l.metrics.copyErrors.Inc()
		l.cfg.Logger.Error("the copy of the store could not be written: a restart while the store is away would start from an older one; free space, or check the folder's rights", "file", l.saver.path, "error", err)
		return time.Since(began)
	}
	l.metrics.copyBytes.Set(float64(len(data)))
	l.metrics.copyRevision.Set(float64(st.revision))
	return time.Since(began)
}

// replaceFile makes data the content of path, or leaves the old content, even if
// the machine stops half way.
func replaceFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	return dir.Sync()
}

// readCopy gives what is on disk, nil if there is nothing of use.
func (l *Loop) readCopy() *listing {
	if l.saver == nil {
		return nil
	}
	data, err := readFile(l.saver.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		var out listing
		if out.revision, out.records, err = record.DecodeCopy(data); err == nil {
			out.copied = true
			return &out
		}
	}
	l.cfg.Logger.Warn("the copy of the store on disk is of no use and will be replaced", "file", l.saver.path, "error", err)
	return nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxCopyBytes+1))
	if err == nil && len(data) > maxCopyBytes {
		err = fmt.Errorf("is larger than %d bytes", maxCopyBytes)
	}
	return data, err
}
