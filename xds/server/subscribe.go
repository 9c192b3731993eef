package server

import (
	"fmt"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// request takes in what the proxy said: an answer, a change of subscription, or
// both. It fails when the proxy asks for more than the limits allow.
func (l *ledger) request(k kind, req *discoveryv3.DeltaDiscoveryRequest, now time.Time) error {
	t := l.types[k]
	if f := t.flight; f != nil && req.GetResponseNonce() == f.nonce {
		t.flight = nil
		if d := req.GetErrorDetail(); d != nil {
			l.nack(k, f, d.GetMessage(), now)
		} else {
			l.ack(k, f, now)
		}
	}
	subscribe, unsubscribe := req.GetResourceNamesSubscribe(), req.GetResourceNamesUnsubscribe()
	first := !t.seen
	if first {
		t.seen = true
		l.epoch++
		// Envoy that asks for endpoints before clusters has clusters warming (it holds
		// back cluster requests meanwhile). They wait for endpoints, whatever it has.
		if k != kindEndpoint || l.types[kindCluster].seen {
			if err := l.initial(t, k, req.GetInitialResourceVersions()); err != nil {
				return err
			}
		}
		if len(subscribe) == 0 && !k.OnDemand() {
			subscribe = []string{"*"}
		}
	}
	for _, name := range unsubscribe {
		l.unsubscribe(t, name, now)
	}
	all := false
	for _, name := range subscribe {
		if name == "*" {
			all = !t.wildcard
			t.wildcard = true
			continue
		}
		if err := l.subscribe(t, k, name, first); err != nil {
			return err
		}
	}
	if first && !t.wildcard {
		for _, e := range t.entries {
			if !e.named && !e.expected {
				l.forget(e, now)
			}
		}
	}
	if first || all {
		t.greet = t.wildcard && t.holds == 0
		l.sync(k, now)
	}
	if first && k == kindListener && t.wildcard && !l.types[kindCluster].seen {
		// Envoy with clusters that warm. Other clients, which take listeners by name,
		// ask for clusters after them.
		l.clustersBy = now.Add(l.limits.Warm)
		l.wakeBy(l.clustersBy)
	}
	l.resumed = l.resumed || len(req.GetInitialResourceVersions()) > 0
	if first && k == kindListener && l.resumed && !l.types[kindRoute].seen {
		l.routesBy = now.Add(l.limits.Warm)
		l.wakeBy(l.routesBy)
	}
	if first && l.types[kindListener].seen && (l.types[kindCluster].seen || !l.types[kindListener].wildcard) {
		l.release(&l.marks.held, now)
	}
	return nil
}

// initial takes in what a proxy has from an earlier stream.
func (l *ledger) initial(t *typeState, k kind, versions map[string]string) error {
	if len(versions) > l.limits.Subscriptions {
		return fmt.Errorf("%d %s resources are held: more than the limit of %d", len(versions), k, l.limits.Subscriptions)
	}
	for name, version := range versions {
		if len(name) > maxName || version == "" {
			continue
		}
		e := t.entries[name]
		if e == nil {
			e = l.enter(k, name)
		}
		e.warm = true
		l.setHeld(e, version, nil)
	}
	return nil
}

func (l *ledger) subscribe(t *typeState, k kind, name string, first bool) error {
	if len(name) > maxName {
		return fmt.Errorf("a subscription to a %s has a name of %d bytes: more than the limit of %d", k, len(name), maxName)
	}
	e := t.entries[name]
	if e == nil {
		e = l.enter(k, name)
	}
	if !e.named {
		if t.named++; t.named > l.limits.Subscriptions {
			return fmt.Errorf("more than %d subscriptions to a %s", l.limits.Subscriptions, k)
		}
		if e.expected {
			l.queue(e) // a revision may wait for it
		}
		e.named, e.expected, e.expectTo = true, false, time.Time{}
	}
	// Who subscribes wants an answer, also the second time: it may have dropped what
	// it had. In the first request, the versions beside the names say what it has;
	// but what refers to it may have been sent since, and wait for it.
	if !first || e.held == "" || l.awaited(e.key) {
		e.force, e.owed = true, true
		l.queue(e)
	}
	return nil
}

func (l *ledger) unsubscribe(t *typeState, name string, now time.Time) {
	if name == "*" {
		t.wildcard = false
		for _, e := range t.entries {
			if !e.named && !e.expected {
				l.forget(e, now)
			}
		}
		return
	}
	e := t.entries[name]
	if e == nil || !e.named {
		return
	}
	e.named = false
	t.named--
	if t.wildcard {
		// The proxy can't know whether the wildcard covers it: it waits for an answer.
		e.force = true
		l.queue(e)
		return
	}
	l.forget(e, now)
}

// awaited reports whether something that was sent over this stream, and may be
// warming, refers to the resource.
func (l *ledger) awaited(k key) bool {
	for by := range l.referrers[k] {
		if by.offered || by.Kind == kindCluster && !by.warm {
			return true
		}
	}
	return false
}

// expect notes that the proxy will ask for a resource, since it has something
// that refers to it. A revision is not in force before it has the answer.
func (l *ledger) expect(ref key, m *mark, now time.Time) {
	if m == nil || !ref.Kind.OnDemand() || l.types[ref.Kind].entries[ref.Name] != nil {
		return
	}
	if _, exists := l.res.Get(ref.Kind.URL(), ref.Name); !exists {
		return
	}
	e := l.enter(ref.Kind, ref.Name)
	e.expected, e.expectTo = true, now.Add(l.limits.Warm)
	l.follow(e, m)
	l.schedule(e)
}

// follow lets a revision wait for one more entry.
func (l *ledger) follow(e *entry, m *mark) {
	if e.mark == nil && m != nil {
		m.open++
		e.mark = m
	}
}
