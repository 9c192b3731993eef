package federation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
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
	// takes long is followed by copyRatio times as long a pause.
	copyPause, copyRatio = 5 * time.Second, 50
	// copyAdded is how many bytes of changes are at least added to a copy before it is
	// written anew; of a larger copy, as many as it has itself. So what is written is
	// in proportion to what changes, and a start reads at most twice what it needs.
	copyAdded = 1 << 20
)

// saver keeps the newest state of the store for the goroutine that writes it to
// disk, and the keys that differ from what is there.
type saver struct {
	path  string
	ready chan struct{} // 1 deep

	mu      sync.Mutex
	pending *storeState
	changed map[string]struct{}
	whole   bool // more may differ than changed says

	// The writer's: the size of what it wrote whole, and of what it added. Zero: it has
	// to write whole.
	base, added int64
}

func newSaver(path string) *saver {
	return &saver{path: path, ready: make(chan struct{}, 1), changed: map[string]struct{}{}}
}

func (s *saver) offer(st storeState) {
	s.mu.Lock()
	s.pending = &st
	maps.Copy(s.changed, st.changed)
	s.mu.Unlock()
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// miss notes a change that is not to be written.
func (s *saver) miss() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.whole = true
}

// take returns what there is to write, nil if nothing. A nil map means all.
func (s *saver) take() (st *storeState, changed map[string]struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending == nil {
		return nil, nil
	}
	st, changed = s.pending, s.changed
	if s.whole || s.base == 0 || s.added > max(s.base, copyAdded) {
		changed = nil
	}
	s.pending, s.changed, s.whole = nil, map[string]struct{}{}, false
	return st, changed
}

// save writes the copy after changes, in the background, until ctx ends, and
// then once more if something is left.
func (l *Loop) save(ctx context.Context) error {
	for ctx.Err() == nil {
		select {
		case <-l.saver.ready:
		case <-ctx.Done():
		}
		took := l.writeCopy()
		_ = cluster.Pause(ctx, max(copyPause, copyRatio*took))
	}
	l.writeCopy()
	return ctx.Err()
}

func (l *Loop) writeCopy() (took time.Duration) {
	s := l.saver
	st, changed := s.take()
	if st == nil {
		return 0
	}
	began := time.Now()
	err := s.write(st, changed)
	if err != nil {
		s.base, s.added = 0, 0 // whatever is there now
		l.metrics.copyErrors.Inc()
		l.cfg.Logger.Error("the copy of the store could not be written: a restart while the store is away would start from an older one; free space, or check the folder's rights", "file", s.path, "error", err)
		return time.Since(began)
	}
	l.metrics.copyBytes.Set(float64(s.base + s.added))
	l.metrics.copyRevision.Set(float64(st.revision))
	return time.Since(began)
}

// write brings the file up to date: changed are the keys that may differ, nil: all.
func (s *saver) write(st *storeState, changed map[string]struct{}) error {
	if changed != nil {
		err := s.add(st, changed)
		if err == nil {
			return nil
		}
		// Somebody may have moved it away, or cut it.
	}
	var n int64
	err := replaceFile(s.path, func(w io.Writer) (err error) {
		n, err = record.WriteCopy(w, record.CopyChange{Revision: st.revision, Put: func(yield func(store.KV) bool) {
			st.records.Root().Walk(func(_ []byte, kv store.KV) bool { return !yield(kv) })
		}})
		if err == nil && n > maxCopyBytes {
			err = fmt.Errorf("it has %d bytes, more than %d", n, maxCopyBytes)
		}
		return err
	})
	if err != nil {
		return err
	}
	s.base, s.added = n, 0
	return nil
}

// add appends what changed to the file, if that is still as this process left it.
func (s *saver) add(st *storeState, changed map[string]struct{}) (err error) {
	f, err := os.OpenFile(s.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != s.base+s.added {
		return fmt.Errorf("%s has changed", s.path)
	}
	n, err := record.AppendCopy(f, st.change(changed))
	if err == nil {
		err = f.Sync()
	}
	s.added += n
	return err
}

// change is what there is of some keys.
func (st *storeState) change(keys map[string]struct{}) record.CopyChange {
	sorted := slices.Sorted(maps.Keys(keys))
	return record.CopyChange{
		Revision: st.revision,
		Put: func(yield func(store.KV) bool) {
			for _, key := range sorted {
				if kv, ok := st.records.Get([]byte(key)); ok && !yield(kv) {
					return
				}
			}
		},
		Removed: func(yield func(string) bool) {
			for _, key := range sorted {
				if _, ok := st.records.Get([]byte(key)); !ok && !yield(key) {
					return
				}
			}
		},
	}
}

// replaceFile makes what write writes the content of path, or leaves the old content,
// even if the machine stops half way.
func replaceFile(path string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if err = write(f); err == nil {
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
	f, err := os.Open(l.saver.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		defer func() { _ = f.Close() }()
		out := listing{copied: true}
		var cut error
		if out.revision, out.records, cut, err = record.ReadCopy(f, maxCopyBytes); err == nil {
			if cut != nil {
				l.cfg.Logger.Warn("the end of the copy of the store on disk is of no use: what it was at an earlier revision is", "file", l.saver.path, "revision", out.revision, "error", cut)
			}
			return &out
		}
	}
	l.cfg.Logger.Warn("the copy of the store on disk is of no use and will be replaced", "file", l.saver.path, "error", err)
	return nil
}
