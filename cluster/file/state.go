package file

import (
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
)

// Times of the reading of changes.
const (
	// settleTime is how long a file must rest before an edit that loses objects
	// or breaks the file is believed: it may be half written, or about to be
	// replaced.
	settleTime = 50 * time.Millisecond
	// maxHold bounds the wait for a file that is written to all the time.
	maxHold = time.Second
	// racyTime is the coarsest clock of a file system: a file that changed so
	// shortly before it was read may have changed since without a trace.
	racyTime = 2 * time.Second
)

// effect is what a file contributes now.
type effect struct {
	objects []*parsed
	// kept are objects in their last good state, because the file is broken
	// where they stand or stood. They yield to any other object of their name.
	kept     []*parsed
	problems []problem
	meta     *cluster.Meta
}

// after gives the effect of a file whose content is new. What is broken keeps
// its last good state: stale beats partial.
func (e effect) after(c content) effect {
	out := effect{objects: c.objects, problems: c.problems, meta: c.meta}
	if len(c.problems) == 0 {
		return out
	}
	if c.meta == nil && c.lost {
		out.meta = e.meta
	}
	fresh := refs(c.objects)
	for _, o := range slices.Concat(e.objects, e.kept) {
		if !fresh[o.ref] && (c.lost || c.broken[o.ref]) {
			out.kept = append(out.kept, o)
			fresh[o.ref] = true
		}
	}
	return out
}

// loses reports whether the step to new content could be due to a file that is
// half written: it says less, or it is broken as it wasn't before.
func (e effect) loses(c content) bool {
	if e.meta != nil && c.meta == nil {
		return true
	}
	if len(c.problems) > 0 && !slices.Equal(e.problems, c.problems) {
		return true
	}
	fresh := refs(c.objects)
	return slices.ContainsFunc(slices.Concat(e.objects, e.kept), func(o *parsed) bool { return !fresh[o.ref] })
}

func refs(objects []*parsed) map[cluster.Ref]bool {
	m := make(map[cluster.Ref]bool, len(objects))
	for _, o := range objects {
		m[o.ref] = true
	}
	return m
}

// tracked is one file over time.
type tracked struct {
	effect
	info   fs.FileInfo
	readAt time.Time
	sum    [sha256.Size]byte
	failed string // why the last read failed, if it did

	gone bool // the last look didn't find it

	// held is set while newer content waits to settle.
	held  bool
	since time.Time // when the hold began
	moved time.Time // when the content last changed
	next  content
}

// current reports whether the file need not be read again.
func (t *tracked) current(info fs.FileInfo) bool {
	return !t.held && t.info != nil && t.failed == "" &&
		os.SameFile(t.info, info) && t.info.Size() == info.Size() && t.info.ModTime().Equal(info.ModTime()) &&
		t.readAt.Sub(t.info.ModTime()) > racyTime
}

// offer takes what was read and reports whether the effect has changed.
func (t *tracked) offer(c content, now time.Time) bool {
	t.next, t.moved = c, now
	return t.settle(now)
}

// forget drops what was read and hasn't taken effect, for a file that can't be
// looked at now: it is read anew when it can.
func (t *tracked) forget() {
	t.info, t.failed, t.sum, t.held, t.gone = nil, "", [sha256.Size]byte{}, false, false
}

// settle lets the newest content take effect, if it may.
func (t *tracked) settle(now time.Time) bool {
	if t.loses(t.next) && !t.rested(now) {
		if !t.held {
			t.held, t.since = true, now
		}
		return false
	}
	t.held = false
	t.effect = t.after(t.next)
	return true
}

func (t *tracked) rested(now time.Time) bool {
	if t.held && now.Sub(t.since) >= maxHold {
		return true
	}
	if t.info != nil && now.Sub(t.info.ModTime()) >= settleTime {
		return true
	}
	return t.held && now.Sub(t.moved) >= settleTime
}

// files is all that is known of the folder. One goroutine owns it.
type files struct {
	reader   *reader
	maxFiles int
	maxBytes int
	byPath   map[string]*tracked
	walk     []placed // problems of the walk itself
}

// scan looks at the folder once and reports whether anything took effect. An
// error means that the folder itself is out of reach; nothing changes then.
func (f *files) scan(dir string, now time.Time, visit func(string)) (changed bool, err error) {
	root, err := os.OpenRoot(dir)
	if err == nil {
		defer root.Close()
	}
	var l listing
	if err == nil {
		l, err = list(root, f.maxFiles, visit)
	}
	if err != nil {
		for _, t := range f.byPath {
			t.forget()
		}
		return false, err
	}
	changed = !slices.Equal(l.problems, f.walk)
	f.walk = l.problems
	for name, info := range l.files {
		t := f.byPath[name]
		if t == nil {
			t = &tracked{}
			f.byPath[name] = t
		}
		if !t.current(info) && f.read(root, name, t, now) {
			changed = true
		}
	}
	for name, t := range f.byPath {
		if _, here := l.files[name]; here {
			continue
		}
		if l.covers(name) {
			t.forget()
			continue
		}
		if !t.gone {
			t.forget()
			t.gone, t.next, t.moved = true, content{}, now
		}
		if t.settle(now) {
			delete(f.byPath, name)
			changed = true
		}
	}
	return changed, nil
}

// read reads a file and reports whether it took effect.
func (f *files) read(root *os.Root, name string, t *tracked, now time.Time) bool {
	data, info, err := read(root, name, f.maxBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return false // the next walk will tell
	}
	t.gone = false
	if err != nil {
		why := "can't be read, so its last good state is kept: " + reason(err)
		var tooLarge errTooLarge
		if errors.As(err, &tooLarge) {
			why = tooLarge.Error()
		}
		if t.failed == why && !t.held {
			return false
		}
		fresh := t.failed != why
		t.info, t.readAt, t.failed = info, now, why
		if fresh {
			return t.offer(content{problems: []problem{{line: 1, message: why}}, lost: true}, now)
		}
		return t.settle(now)
	}
	sum := sha256.Sum256(data)
	same := t.info != nil && t.failed == "" && sum == t.sum
	t.info, t.readAt, t.failed, t.sum = info, now, "", sum
	switch {
	case !same:
		return t.offer(f.reader.file(name, data), now)
	case t.held:
		return t.settle(now)
	}
	return false
}

// due is the time at which a held file may take effect; zero if none is held.
func (f *files) due() time.Time {
	var due time.Time
	for _, t := range f.byPath {
		if at := t.moved.Add(settleTime); t.held && (due.IsZero() || at.Before(due)) {
			due = at
		}
	}
	return due
}

// held lists the files that wait, with the time since which they do.
func (f *files) held() map[string]time.Time {
	m := map[string]time.Time{}
	for name, t := range f.byPath {
		if t.held {
			m[name] = t.since
		}
	}
	return m
}
