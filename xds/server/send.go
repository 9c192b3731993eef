package server

import (
	"slices"
	"strconv"
	"strings"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/causeway-mesh/causeway/xds/translate"
)

// maxNames bounds the resources in one response.
const maxNames = 10_000

// step is what is to happen with an entry.
type step int

const (
	rest step = iota // nothing
	wait             // nothing until something else has happened
	put              // send the resource
	drop             // send its removal
)

// next is the response to send now, or nil. The caller sends it, and asks again.
// Responses are made in the order of translate.Types, so that what is referred to
// goes first.
func (l *ledger) next(now time.Time) (kind, *discoveryv3.DeltaDiscoveryResponse) {
	if l.res == nil {
		return 0, nil
	}
	l.fire(now)
	for {
		epoch := l.epoch
		for k := range kinds {
			if resp := l.nextOf(k, now); resp != nil {
				return k, resp
			}
		}
		if l.epoch == epoch {
			return 0, nil
		}
	}
}

// parcel is an entry with what is to be sent of it.
type parcel struct {
	e *entry
	r *translate.Resource // nil: a removal
	f *facts
}

func (l *ledger) nextOf(k kind, now time.Time) *discoveryv3.DeltaDiscoveryResponse {
	t := l.types[k]
	if !t.seen || t.flight != nil {
		return nil
	}
	if t.epoch != l.epoch {
		t.epoch = l.epoch
		for len(t.parked) > 0 {
			e := t.parked[len(t.parked)-1]
			t.parked.remove(e)
			t.fresh.add(e)
			e.fresh, e.parked = true, false
		}
	}
	var parcels []parcel
	// From the end, since the entry at hand may leave, and is replaced by the last.
	for i := len(t.fresh) - 1; i >= 0; i-- {
		e := t.fresh[i]
		s, p := l.decide(e, now)
		switch s {
		case rest:
			l.unqueue(e)
			if e.rejection == nil {
				l.release(&e.mark, now)
			}
			l.schedule(e)
			if !e.named && e.held == "" && !e.uncertain() && e.rejection == nil {
				l.forget(e, now)
			}
		case wait:
			t.fresh.remove(e)
			t.parked.add(e)
			e.fresh, e.parked = false, true
			if e.deferred {
				// What is left over when a revision is in force is not part of it.
				l.release(&e.mark, now)
			}
		case put, drop:
			parcels = append(parcels, p)
		}
	}
	if group := l.suspects(t, len(parcels) == 0); group != nil {
		parcels = group
	}
	if len(parcels) == 0 && (!t.greet || len(t.parked) > 0) {
		return nil
	}
	t.greet = false
	return l.send(k, parcels, now)
}

// suspects is the next group out of a rejected response, if it is its turn.
func (l *ledger) suspects(t *typeState, idle bool) []parcel {
	t.turn = !t.turn
	if !idle && !t.turn {
		return nil
	}
	for len(t.suspects) > 0 {
		var out []parcel
		for _, e := range t.suspects[0] {
			// What changed meanwhile goes its own way.
			if e.dead || e.fresh || e.parked || !e.offered || l.wanted(e) != e.offer {
				continue
			}
			p := parcel{e: e, f: e.offerFacts}
			p.r, _ = l.res.Get(e.Kind.URL(), e.Name)
			out = append(out, p)
		}
		t.suspects = t.suspects[1:]
		if len(out) > 0 {
			return out
		}
	}
	return nil
}

// wanted is the version that the proxy is to have; "": none.
func (l *ledger) wanted(e *entry) string {
	if r, ok := l.res.Get(e.Kind.URL(), e.Name); ok {
		return r.Version
	}
	return ""
}

// decide says what is to happen with a queued entry.
func (l *ledger) decide(e *entry, now time.Time) (step, parcel) {
	r, exists := l.res.Get(e.Kind.URL(), e.Name)
	want := ""
	if exists {
		want = r.Version
	}
	if e.rejection != nil && e.rejection.Version != want {
		l.setRejection(e, nil)
	}
	if j := e.rejection; j != nil && (j.RetryAt.IsZero() || now.Before(j.RetryAt)) {
		return rest, parcel{}
	}
	if !exists {
		return l.decideRemoval(e, now)
	}
	e.lingerTo, e.lingered, e.deferred = time.Time{}, false, false
	f := r.Facts
	if e.held == want && e.heldFacts == nil {
		l.setHeld(e, want, f)
		l.epoch++
	}
	if err := unfit(e.Kind, r, &l.limits); err != nil {
		l.setRejection(e, &Rejection{
			TypeURL: e.Kind.URL(), Name: e.Name, Subject: r.Subject, Version: want,
			Message: err.Error(), HeldBack: true, Attempts: 1, At: now,
		})
		l.note(event{what: eventRejected, key: e.key, rejection: e.rejection})
		return rest, parcel{}
	}
	if e.held == want && !e.uncertain() && !e.force && e.rejection == nil {
		return rest, parcel{}
	}
	if e.held != want && !gated(e.Kind) {
		return put, parcel{e, r, f}
	}
	for _, ref := range f.Refs {
		if e.held != want && (ref.Kind == kindCluster && !l.ready(ref.Name, e.wantSeq) || l.stale(ref, e.wantSeq)) {
			return wait, parcel{}
		}
	}
	return put, parcel{e, r, f}
}

// gated reports whether resources of the kind wait for the clusters they name.
func gated(k kind) bool { return k == kindListener || k == kindRoute }

// ready reports whether a listener or route of a batch may name the cluster: the
// proxy has it and can use it, or will never have it.
func (l *ledger) ready(name string, seq uint64) bool {
	t := l.types[kindCluster]
	r, exists := l.res.Get(kindCluster.URL(), name)
	e := t.entries[name]
	switch {
	case !t.seen:
		return !exists || l.clustersBy.IsZero()
	case e == nil:
		return true // not one of ours, or the proxy does not take it from us
	case e.offered && e.offer == "":
		return !exists
	case e.held == "" || e.lost:
		return !exists || e.rejection != nil
	}
	refs := e.refs()
	if e.heldFacts == nil && exists { // from an earlier stream: it led to the same listener
		refs = r.Facts.Refs
	}
	return l.warmed(e) && !slices.ContainsFunc(refs, func(ref key) bool { return l.blind(ref, seq) })
}

// warmed reports whether the proxy has had what it asks for because of the entry, a
// cluster or internal listener, so that it uses it.
func (l *ledger) warmed(e *entry) bool {
	if e.warm {
		return true
	}
	for _, ref := range e.refs() {
		if !ref.Kind.OnDemand() {
			continue
		}
		if _, exists := l.res.Get(ref.Kind.URL(), ref.Name); !exists {
			continue
		}
		if r := l.types[ref.Kind].entries[ref.Name]; r == nil || (r.held == "" || r.owed) && r.rejection == nil {
			return false
		}
	}
	e.warm, e.warmBy = true, time.Time{}
	l.schedule(e)
	return true
}

// blind reports whether a cluster's reference leads to an internal listener that takes
// no connections yet, or would answer them by routes older than the batch.
func (l *ledger) blind(ref key, seq uint64) bool {
	if ref.Kind != kindListener {
		return false
	}
	_, exists := l.res.Get(ref.Kind.URL(), ref.Name)
	e := l.types[kindListener].entries[ref.Name]
	switch {
	case !exists || e == nil || e.aside():
		return false
	case e.held == "" || e.heldFacts == nil || e.lost || e.offered && e.offer == "":
		return true
	}
	return !l.warmed(e) || slices.ContainsFunc(e.refs(), func(ref key) bool { return l.stale(ref, seq) })
}

// stale reports whether a reference names routes of which the proxy has a version
// from before the batch. Envoy keeps routes for as long as a listener that refers to them
// drains, also when they are gone, and the next listener that does begins with them.
func (l *ledger) stale(ref key, seq uint64) bool {
	if ref.Kind != kindRoute {
		return false
	}
	t := l.types[kindRoute]
	if !t.seen {
		return !l.routesBy.IsZero()
	}
	r, exists := l.res.Get(ref.Kind.URL(), ref.Name)
	e := t.entries[ref.Name]
	return exists && e != nil && e.named && e.held != r.Version && e.heldSeq < seq && !e.aside()
}

// decideRemoval says what is to happen with an entry that is not to exist.
func (l *ledger) decideRemoval(e *entry, now time.Time) (step, parcel) {
	switch {
	case e.held == "" && !e.uncertain() && !e.force:
		return rest, parcel{}
	case e.held == "" && (e.Kind.OnDemand() || !e.uncertain()):
		// Nothing breaks, and the proxy waits for an answer.
		e.deferred = false
		return drop, parcel{e: e}
	case e.Kind == kindEndpoint && (e.force || e.uncertain()) && e.owed:
		// Envoy holds back its answer about a cluster until it has endpoints for it,
		// and all else here would wait for that answer. Until the cluster can go it
		// keeps the endpoints that it had.
		e.deferred = false
		if e.body == nil {
			return drop, parcel{e: e}
		}
		return put, parcel{e, e.body, e.body.Facts}
	}
	if l.needed(e.key) {
		e.lingerTo, e.lingered, e.deferred = time.Time{}, false, true
		return wait, parcel{}
	}
	if e.Kind == kindCluster && l.limits.Linger > 0 && !e.lingered {
		if e.lingerTo.IsZero() {
			e.lingerTo = now.Add(l.limits.Linger)
			l.schedule(e)
		}
		e.deferred = true
		return wait, parcel{}
	}
	e.deferred = false
	return drop, parcel{e: e}
}

// told reports whether the proxy has told which listeners and routes it has from
// an earlier stream. Envoy does so after it has told its clusters.
func (l *ledger) told() bool {
	if l.types[kindRoute].seen || !l.types[kindListener].seen {
		return l.types[kindListener].seen
	}
	for _, e := range l.types[kindListener].entries {
		if e.heldFacts == nil {
			continue
		}
		for _, ref := range e.heldFacts.Refs {
			if ref.Kind == kindRoute {
				return false
			}
		}
	}
	return true
}

// needed reports whether something that the proxy holds, or may hold, refers to
// the resource and is itself going to change. What is not going to change and
// refers to it nevertheless will do so for ever, and is no reason to wait.
func (l *ledger) needed(k key) bool {
	unknown := 0
	switch k.Kind {
	case kindCluster:
		if !l.told() {
			return true
		}
		unknown = l.types[kindListener].unknown + l.types[kindRoute].unknown
		if unknown > 0 && l.leads(k) {
			// What is to go itself may wait for the cluster: it is what the chain leads
			// through. What leads to the chain goes before, since nothing holds it up.
			unknown = l.staying(kindListener) + l.staying(kindRoute)
		}
	case kindSecret:
		unknown = l.types[kindCluster].unknown + l.types[kindListener].unknown
	case kindEndpoint:
		unknown = l.types[kindCluster].unknown
	case kindRoute:
		unknown = l.types[kindListener].unknown
	}
	if unknown > 0 {
		return true
	}
	for by := range l.referrers[k] {
		if by.uncertain() || by.held != l.wanted(by) {
			return true
		}
	}
	return false
}

// leads reports whether a cluster leads to an internal listener, as far as is known.
func (l *ledger) leads(cluster key) bool {
	e := l.types[kindCluster].entries[cluster.Name]
	if e == nil {
		return false
	}
	for _, f := range append([]*facts{e.heldFacts, e.offerFacts}, e.maybe...) {
		if f != nil && slices.ContainsFunc(f.Refs, func(ref key) bool { return ref.Kind == kindListener }) {
			return true
		}
	}
	return false
}

// staying counts what is held with content that is not known, and is not to go.
func (l *ledger) staying(k kind) int {
	n := 0
	for _, e := range l.types[k].entries {
		if e.held != "" && e.heldFacts == nil && l.wanted(e) != "" {
			n++
		}
	}
	return n
}

// send makes a response of as many parcels as fit, and notes what it offers. The
// others stay where they are.
func (l *ledger) send(k kind, parcels []parcel, now time.Time) *discoveryv3.DeltaDiscoveryResponse {
	t := l.types[k]
	slices.SortFunc(parcels, func(a, b parcel) int { return strings.Compare(a.e.Name, b.e.Name) })
	l.nonce++
	f := &flight{nonce: strconv.FormatUint(l.nonce, 10)}
	resp := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: k.URL(), Nonce: f.nonce}
	size, sent := 0, 0
	for _, p := range parcels {
		n := len(p.e.Name) + 128
		if p.r != nil {
			n += len(p.r.Body.GetValue()) + len(p.r.Version) + len(p.e.Name)
		}
		if sent > 0 && (size+n > l.limits.ResponseBytes || sent == maxNames) {
			break
		}
		size += n
		sent++
		if p.r == nil {
			resp.RemovedResources = append(resp.RemovedResources, p.e.Name)
			l.offer(p.e, "", nil, now)
		} else {
			resp.Resources = append(resp.Resources, &discoveryv3.Resource{Name: p.e.Name, Version: p.r.Version, Resource: p.r.Body})
			if k == kindEndpoint {
				p.e.body = p.r
			}
			l.offer(p.e, p.r.Version, p.f, now)
		}
		f.entries = append(f.entries, p.e)
	}
	// Suspects that did not fit stay suspects.
	var rest []*entry
	for _, p := range parcels[sent:] {
		if !p.e.fresh {
			rest = append(rest, p.e)
		}
	}
	if len(rest) > 0 {
		t.suspects = append([][]*entry{rest}, t.suspects...)
	}
	// Envoy shows it beside clusters and listeners; of the types that change often it
	// shows it nowhere, and it would be bytes for nothing.
	if k.URL() == translate.TypeCluster || k.URL() == translate.TypeListener {
		resp.SystemVersionInfo = setVersion(t.heldSum + t.offerSum)
	}
	t.flight = f
	t.responses++
	return resp
}

// offer notes that a version was sent, and queues what has to be sent after it.
func (l *ledger) offer(e *entry, version string, f *facts, now time.Time) {
	if e.offer != version {
		l.supersede(e)
	}
	l.withdraw(e)
	l.unqueue(e)
	e.force, e.lingered = false, false
	e.offered, e.offer, e.offerFacts, e.offerSeq = true, version, f, l.seq
	l.types[e.Kind].offerSum += sum(e.Name, version) - sum(e.Name, e.held)
	l.refer(e, f, 1)
	l.older(&e.sentMark, &e.mark, now)
	l.schedule(e)
	if f == nil {
		return
	}
	for _, ref := range f.Refs {
		if !ref.Kind.OnDemand() {
			continue
		}
		r := l.types[ref.Kind].entries[ref.Name]
		_, exists := l.res.Get(ref.Kind.URL(), ref.Name)
		if r == nil {
			l.expect(ref, e.sentMark, now)
		} else if r.named && exists {
			// The proxy has subscribed already, so it won't ask, yet it waits.
			r.force, r.owed = true, true
			l.follow(r, e.sentMark)
			l.queue(r)
		}
	}
}
