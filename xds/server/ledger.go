package server

import (
	"slices"
	"time"

	"github.com/causeway-mesh/causeway/xds/translate"
)

// maxName bounds the length of a resource's name, in bytes.
const maxName = 4096

// ledger decides what one proxy is sent over one stream. It is plain data: the
// caller brings requests (request), configuration (apply) and the time, and takes
// responses (next) and events (takeEvents). Its owner is a stream, which
// takes one step at a time.
//
// Invariants:
//   - an entry exists for exactly the resources that the proxy subscribes to and
//     that exist, or that it holds, or that it asked for by name; and for those
//     that it is expected to ask for;
//   - every entry whose held version is not the wanted one is fresh, parked, in
//     flight, a suspect, or rejected;
//   - at most one response of a kind is in flight.
type ledger struct {
	limits Limits

	res   *translate.Resources // what the proxy is to have; nil: not known yet
	types [kinds]*typeState
	// referrers counts, for each resource, which entries refer to it with a
	// version that the proxy holds or may hold.
	referrers map[key]map[*entry]int
	rejected  map[*entry]struct{}
	// rejectedChanged says that the published list of rejections is out of date.
	rejectedChanged bool

	timers map[*entry]time.Time
	wake   time.Time // the earliest timer; zero: none
	// clustersBy is until when listeners wait for the proxy to ask for clusters.
	clustersBy time.Time
	// resumed: the proxy has something from an earlier stream.
	resumed bool
	// routesBy is until when its listeners wait for it to tell which routes it has: it
	// tells that last.
	routesBy time.Time
	// epoch moves whenever something may have happened that parked entries wait for.
	epoch  uint64
	nonce  uint64
	marks  marks
	seq    uint64 // of the last batch
	events []event
}

// typeState is what the ledger knows of one kind.
type typeState struct {
	seen     bool // the proxy has asked for this kind
	wildcard bool
	// greet is true while the proxy waits for the answer to its wildcard: it gets
	// one even if there is nothing, or it would wait until its patience ends (15 s).
	greet   bool
	entries map[string]*entry
	named   int
	fresh   line   // to be decided on
	parked  line   // decided: they wait for something else
	epoch   uint64 // ledger.epoch when the parked ones were last decided on
	// suspects are groups out of rejected responses, each to be sent by itself.
	suspects [][]*entry
	turn     bool // suspects go next; they take turns with fresh entries
	flight   *flight
	holds    int // entries with a held version
	unknown  int // entries with a held version whose content we don't know
	heldSum  uint64
	offerSum uint64

	responses, acks, nacks, bytes uint64
}

// flight is a response that the proxy has not answered yet.
type flight struct {
	nonce   string
	entries []*entry
}

// entry is what the ledger knows of one resource.
type entry struct {
	key
	named    bool // the proxy asked for it by name
	expected bool // the proxy was sent what makes it ask
	dead     bool // no longer in the ledger; a flight may still point here

	held      string // version that the proxy has; "": none
	heldFacts *facts // nil with a held version: content unknown
	// An offer was sent, and it is not known yet whether the proxy took it.
	offered    bool
	offer      string // "": a removal
	offerFacts *facts

	// body is the assignment of endpoints that was offered last.
	body *translate.Resource
	// The proxy rejected a response with an earlier offer in it, may have taken that
	// offer nevertheless, and has acknowledged nothing since.
	maybe []*facts // offers of content
	lost  bool     // the offer of a removal

	// The batches of which they are: what it is to have since the last change of that,
	// what it was offered, what it has.
	wantSeq, offerSeq, heldSeq uint64

	force     bool // to be sent even though the proxy has it
	owed      bool // it was to be sent like that, and has not been acknowledged since
	fresh     bool
	parked    bool
	place     int  // in the line of fresh or of parked entries
	deferred  bool // parked as a removal that waits for others
	warm      bool // cluster, internal listener: had what it refers to at least once
	warmBy    time.Time
	lingerTo  time.Time // removal of a cluster: when it may go
	lingered  bool
	expectTo  time.Time
	rejection *Rejection

	mark     *mark // the oldest revision that calls for what is queued
	sentMark *mark // the same for what is offered
}

func newLedger(limits Limits) *ledger {
	l := &ledger{
		limits:    limits,
		referrers: map[key]map[*entry]int{}, rejected: map[*entry]struct{}{}, timers: map[*entry]time.Time{},
	}
	states := new([kinds]typeState) // side by side: each step looks at all of them
	for k := range l.types {
		states[k].entries = map[string]*entry{}
		l.types[k] = &states[k]
	}
	return l
}

// batch is what changed since the last one: names by kind, or everything.
type batch struct {
	seq   uint64 // how many times the proxy was Set
	res   *translate.Resources
	stamp Stamp
	full  bool
	idle  bool // changes nothing for the node
	names [kinds]map[string]struct{}
}

// apply makes the ledger aim at new Resources.
func (l *ledger) apply(b batch, now time.Time) {
	first := l.res == nil
	l.res, l.seq = b.res, b.seq
	l.marks.begin(b.stamp)
	if first || b.full {
		if first {
			// Before Envoy has asked for clusters and listeners, nothing is complete.
			l.marks.hold(l.types[kindListener].seen && l.types[kindCluster].seen)
		}
		l.epoch++
		for k := range kinds {
			l.sync(k, now)
		}
		return
	}
	for k := range kinds {
		t := l.types[k]
		for name := range b.names[k] {
			e := t.entries[name]
			if e == nil {
				if _, ok := l.res.Get(k.URL(), name); !ok || !t.wildcard {
					continue
				}
				e = l.enter(k, name)
			}
			e.wantSeq = l.seq
			if !e.expected {
				l.queue(e)
			}
		}
		if k != kindEndpoint && len(b.names[k]) > 0 {
			l.epoch++
		}
	}
}

// sync compares all of a kind that the proxy subscribes to.
func (l *ledger) sync(k kind, now time.Time) {
	t := l.types[k]
	if l.res == nil || !t.seen {
		return
	}
	if t.wildcard {
		for name := range l.res.All(k.URL()) {
			if t.entries[name] == nil {
				l.enter(k, name)
			}
		}
	}
	for _, e := range t.entries {
		r, ok := l.res.Get(k.URL(), e.Name)
		if ok && e.held == r.Version && e.heldFacts == nil {
			l.setHeld(e, r.Version, r.Facts)
			for _, ref := range e.heldFacts.Refs {
				l.expect(ref, l.marks.held, now)
			}
		}
		if e.expected || !e.uncertain() && (!ok && e.held == "" || ok && e.held == r.Version) {
			continue
		}
		e.wantSeq = l.seq
		l.queue(e)
	}
}

func (l *ledger) enter(k kind, name string) *entry {
	e := &entry{key: key{Kind: k, Name: name}, wantSeq: l.seq}
	l.types[k].entries[name] = e
	return e
}

// forget drops an entry: the proxy neither has nor wants it any more.
func (l *ledger) forget(e *entry, now time.Time) {
	t := l.types[e.Kind]
	l.withdraw(e)
	l.certain(e)
	l.setHeld(e, "", nil)
	l.setRejection(e, nil)
	l.unqueue(e)
	l.release(&e.mark, now)
	l.release(&e.sentMark, now)
	delete(l.timers, e)
	if e.named {
		t.named--
	}
	e.dead = true
	delete(t.entries, e.Name)
	l.epoch++
}

func (l *ledger) queue(e *entry) {
	l.unqueue(e)
	l.types[e.Kind].fresh.add(e)
	e.fresh = true
	if e.mark == nil {
		e.mark = l.marks.retain()
	}
}

func (l *ledger) unqueue(e *entry) {
	t := l.types[e.Kind]
	switch {
	case e.fresh:
		t.fresh.remove(e)
	case e.parked:
		t.parked.remove(e)
	}
	e.fresh, e.parked, e.deferred = false, false, false
}

// parked reports whether any entry waits for something else.
func (l *ledger) parked() bool {
	return slices.ContainsFunc(l.types[:], func(t *typeState) bool { return len(t.parked) > 0 })
}

// line is a set of entries in no order. A map would do, but walking one that was large
// once takes as long as if it still were, and a stream walks its lines at every step.
type line []*entry

// smallLine is how many places an empty line keeps.
const smallLine = 16

func (q *line) add(e *entry) {
	e.place = len(*q)
	*q = append(*q, e)
}

func (q *line) remove(e *entry) {
	n := len(*q) - 1
	last := (*q)[n]
	(*q)[e.place], last.place = last, e.place
	(*q)[n] = nil
	if *q = (*q)[:n]; n == 0 && cap(*q) > smallLine {
		*q = nil
	}
}

// setHeld records which version the proxy has.
func (l *ledger) setHeld(e *entry, version string, f *facts) {
	t := l.types[e.Kind]
	if e.held != "" {
		t.heldSum -= sum(e.Name, e.held)
		t.holds--
		if e.heldFacts == nil {
			t.unknown--
		}
	}
	if version != "" {
		t.heldSum += sum(e.Name, version)
		t.holds++
		if f == nil {
			t.unknown++
		}
	}
	old := e.heldFacts
	e.held, e.heldFacts = version, f
	l.refer(e, f, 1)
	l.refer(e, old, -1)
}

// withdraw forgets an offer: the proxy took it, refused it, or is gone.
func (l *ledger) withdraw(e *entry) {
	if !e.offered {
		return
	}
	l.types[e.Kind].offerSum -= sum(e.Name, e.offer) - sum(e.Name, e.held)
	l.refer(e, e.offerFacts, -1)
	e.offered, e.offer, e.offerFacts = false, "", nil
}

// supersede forgets an offer, of which it is not known whether the proxy took it.
func (l *ledger) supersede(e *entry) {
	switch {
	case !e.offered:
		return
	case e.offer == "":
		e.lost = true
	case !slices.Contains(e.maybe, e.offerFacts):
		e.maybe = append(e.maybe, e.offerFacts)
		l.refer(e, e.offerFacts, 1)
	}
	l.withdraw(e)
}

// certain notes that the proxy has acknowledged an offer: none before it counts.
func (l *ledger) certain(e *entry) {
	for _, f := range e.maybe {
		l.refer(e, f, -1)
	}
	e.maybe, e.lost = nil, false
}

// uncertain reports whether the proxy may have something else than e.held.
func (e *entry) uncertain() bool { return e.offered || e.maybe != nil || e.lost }

// aside reports whether the entry was rejected and is not being tried again.
func (e *entry) aside() bool { return e.rejection != nil && !e.offered && !e.fresh }

// refs is what the version that the proxy has refers to, as far as that is known.
func (e *entry) refs() []key {
	if e.heldFacts == nil {
		return nil
	}
	return e.heldFacts.Refs
}

func (l *ledger) refer(e *entry, f *facts, n int) {
	if f == nil {
		return
	}
	for _, ref := range f.Refs {
		by := l.referrers[ref]
		if by == nil {
			by = map[*entry]int{}
			l.referrers[ref] = by
		}
		if by[e] += n; by[e] == 0 {
			if delete(by, e); len(by) == 0 {
				delete(l.referrers, ref)
			}
		}
	}
}

func (l *ledger) setRejection(e *entry, r *Rejection) {
	if e.rejection == nil && r == nil {
		return
	}
	e.rejection = r
	l.rejectedChanged = true
	if r == nil {
		delete(l.rejected, e)
	} else {
		l.rejected[e] = struct{}{}
	}
	l.epoch++
	l.schedule(e)
}
