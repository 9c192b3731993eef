package gossip

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// table is what this process knows of all members. One goroutine owns it; it
// has no clock of its own.
type table struct {
	self    string
	timing  Timing
	entries map[string]*entry
}

type entry struct {
	member Member // State is worked out when it is read
	alive  bool   // memberlist's opinion
	diedAt time.Time
	heard  time.Time // member.LastSeen, save for excuses
	// last is the newest state of the member, as it came and encoded; nil before the first.
	last *state
	raw  []byte
}

func newTable(self string, t Timing) *table {
	return &table{self: self, timing: t, entries: map[string]*entry{}}
}

// event takes over what memberlist says of a name that parseName accepts.
func (t *table) event(name string, e event, now time.Time) {
	m, ok := t.entries[name]
	if !ok {
		role, id, err := parseName(name)
		if err != nil || !e.alive {
			return // of no use: never seen alive
		}
		t.makeRoom()
		m = &entry{member: Member{Name: name, Role: role, Cluster: id, Self: name == t.self}}
		t.entries[name] = m
	}
	switch {
	case e.alive:
		m.member.LastSeen, m.heard = now, now
	case m.alive:
		m.diedAt = now
	}
	m.alive = e.alive
	m.member.Addr = e.addr
}

// makeRoom forgets the member that has been dead longest if the table is full.
// The living are bounded before they come here.
func (t *table) makeRoom() {
	if len(t.entries) < MaxMembers {
		return
	}
	oldest := ""
	for name, e := range t.entries {
		if !e.alive && name != t.self && (oldest == "" || e.diedAt.Before(t.entries[oldest].diedAt)) {
			oldest = name
		}
	}
	if oldest != "" {
		delete(t.entries, oldest)
	}
}

// state takes over a report and gives its encoding to pass on, nil if it is no news.
func (t *table) state(s *state, now time.Time) []byte {
	e, ok := t.entries[s.name]
	if !ok || e.last != nil && !s.newer(e.last) {
		return nil // of a name that memberlist has not told of, the next report will do
	}
	raw, _ := s.encode()
	e.last, e.raw = s, raw
	e.member.Report = s.report
	e.member.LastSeen, e.heard = now, now
	return raw
}

// excuse doesn't count a time in which this process itself stood still against
// the others: their news waits behind it.
func (t *table) excuse(d time.Duration) {
	for _, e := range t.entries {
		e.heard = e.heard.Add(d)
	}
}

// members gives the table as of now, sorted by name. Votes are shared and never mutated.
func (t *table) members(now time.Time) []Member {
	out := make([]Member, 0, len(t.entries))
	for _, e := range t.entries {
		m := e.member
		m.State = t.stateOf(e, now)
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func (t *table) stateOf(e *entry, now time.Time) MemberState {
	switch {
	case e.member.Self:
		return MemberAlive
	case !e.alive:
		return MemberDead
	case now.Sub(e.heard) >= t.timing.SuspectAfter:
		return MemberSuspect
	}
	return MemberAlive
}

// forget drops members that have been dead for long.
func (t *table) forget(now time.Time) {
	for name, e := range t.entries {
		if !e.alive && name != t.self && now.Sub(e.diedAt) >= t.timing.ForgetDead {
			delete(t.entries, name)
		}
	}
}

// nextChange is when silence alone changes what members or forget do; zero if it won't.
func (t *table) nextChange(now time.Time) time.Time {
	var next time.Time
	for _, e := range t.entries {
		at := e.heard.Add(t.timing.SuspectAfter)
		if !e.alive {
			at = e.diedAt.Add(t.timing.ForgetDead)
		}
		if !e.member.Self && at.After(now) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

// states gives the encoded states of all members that are not dead, by name.
func (t *table) states() [][]byte {
	var out [][]byte
	for _, name := range slices.Sorted(maps.Keys(t.entries)) {
		if e := t.entries[name]; e.raw != nil && e.alive {
			out = append(out, e.raw)
		}
	}
	return out
}

// others gives the addresses of the living but this member.
func (t *table) others() map[netip.AddrPort]bool {
	out := map[netip.AddrPort]bool{}
	for _, e := range t.entries {
		if e.alive && !e.member.Self {
			out[e.member.Addr] = true
		}
	}
	return out
}

// sameMembers reports whether two snapshots differ in LastSeen at most.
func sameMembers(a, b []Member) bool {
	return slices.EqualFunc(a, b, func(x, y Member) bool {
		return x.Name == y.Name && x.Addr == y.Addr && x.State == y.State &&
			x.Revision == y.Revision && x.Lag == y.Lag && slices.Equal(x.Votes, y.Votes)
	})
}
