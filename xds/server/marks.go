package server

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"
)

// Stamp says which state of the world a set of resources comes from.
type Stamp struct {
	// Revision is the store's revision; greater is newer.
	Revision int64
	// At is when that state became known here. The lag of a proxy counts from it.
	At time.Time
}

// mark is a revision that the proxy has not acknowledged in full.
type mark struct {
	stamp  Stamp
	before int64 // the revision before it
	open   int   // entries that it waits for
	done   bool
}

// marks follows which revisions a proxy has acknowledged in full. Each open mark
// belongs to an entry at least, so they are bounded by the entries.
type marks struct {
	open   []*mark // by age
	cur    *mark   // of the newest revision
	newest Stamp
	// held keeps the first revision open until the proxy has asked for everything.
	held *mark
}

// begin notes a new revision.
func (m *marks) begin(s Stamp) {
	m.cur = &mark{stamp: s, before: m.newest.Revision}
	m.newest = s
}

// retain adds an entry to the newest revision. Once that is acknowledged it stays
// so, whatever the proxy asks for afterwards: then the answer is nil.
func (m *marks) retain() *mark {
	switch {
	case m.cur == nil:
		return nil
	case m.cur.done && m.held != nil:
		m.held.open++
		return m.held
	case m.cur.done:
		return nil
	}
	if m.cur.open++; m.cur.open == 1 {
		m.open = append(m.open, m.cur)
	}
	return m.cur
}

func (m *marks) hold(complete bool) {
	if !complete {
		m.held = m.retain()
	}
}

// acked is the newest revision such that it and all before are acknowledged.
func (m *marks) acked() int64 {
	if len(m.open) > 0 {
		// Two sets of resources may bear the same revision.
		return min(m.open[0].before, m.open[0].stamp.Revision-1)
	}
	return m.newest.Revision
}

// release takes an entry off its mark.
func (l *ledger) release(p **mark, now time.Time) {
	m := *p
	if *p = nil; m == nil {
		return
	}
	if m.open--; m.open > 0 {
		return
	}
	m.done = true
	l.marks.open = slices.DeleteFunc(l.marks.open, func(o *mark) bool { return o == m })
	l.note(event{what: eventAcked, lag: now.Sub(m.stamp.At)})
}

// older keeps the older of two marks and releases the other.
func (l *ledger) older(keep, other **mark, now time.Time) {
	if *keep == nil {
		*keep, *other = *other, nil
		return
	}
	if *other != nil && (*other).stamp.Revision < (*keep).stamp.Revision {
		*keep, *other = *other, *keep
	}
	l.release(other, now)
}

// sum is a resource's share in the version of a set. The version of a set is the
// sum over its resources: it does not depend on order and can be kept up to date
// resource by resource.
func sum(name, version string) uint64 {
	if version == "" {
		return 0
	}
	b := make([]byte, 0, 128)
	b = binary.AppendUvarint(b, uint64(len(name)))
	b = append(append(b, name...), version...)
	h := sha256.Sum256(b)
	return binary.BigEndian.Uint64(h[:])
}
