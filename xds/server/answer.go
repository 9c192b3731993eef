package server

import "time"

// ack notes that the proxy took a response.
func (l *ledger) ack(k kind, f *flight, now time.Time) {
	t := l.types[k]
	t.acks++
	for _, e := range f.entries {
		if e.dead {
			continue
		}
		version, facts := e.offer, e.offerFacts
		e.owed = e.force
		if (e.held == "") != (version == "") || k != kindEndpoint || l.parked() && l.awaited(e.key) {
			l.epoch++ // others may wait for that
		}
		l.withdraw(e)
		l.certain(e)
		if version == "" {
			e.warm, e.warmBy = false, time.Time{}
		} else if e.held == "" && (k == kindCluster || k == kindListener && len(l.referrers[e.key]) > 0) {
			e.warm, e.warmBy = false, now.Add(l.limits.Warm)
		}
		e.heldSeq = e.offerSeq
		l.setHeld(e, version, facts)
		if e.rejection != nil && e.rejection.Version == version {
			l.note(event{what: eventHealed, key: e.key, rejection: e.rejection})
			l.setRejection(e, nil)
		}
		l.release(&e.sentMark, now)
		if !e.fresh && version != l.wanted(e) {
			l.queue(e)
		}
		l.schedule(e)
		if version == "" && !e.named && !e.fresh {
			l.forget(e, now)
		}
	}
}

// nack notes that the proxy rejected a response. It may have taken parts of it:
// which, is found out by sending halves again, down to the single culprit.
func (l *ledger) nack(k kind, f *flight, message string, now time.Time) {
	t := l.types[k]
	t.nacks++
	l.note(event{what: eventNacked, key: key{Kind: k}, count: len(f.entries), message: clip(message)})
	if len(f.entries) > 1 {
		for _, e := range f.entries {
			if !e.dead && e.offer != l.wanted(e) {
				l.retract(e)
			}
		}
		half := len(f.entries) / 2
		t.suspects = append([][]*entry{f.entries[:half:half], f.entries[half:]}, t.suspects...)
		return
	}
	e := f.entries[0]
	if e.dead {
		return
	}
	version := e.offer
	l.withdraw(e)
	l.older(&e.mark, &e.sentMark, now)
	l.epoch++
	if version != l.wanted(e) {
		l.retract(e)
		return
	}
	attempts := 1
	if e.rejection != nil {
		attempts += e.rejection.Attempts
	}
	subject := ""
	if r, ok := l.res.Get(k.URL(), e.Name); ok {
		subject = r.Subject
	}
	l.unqueue(e)
	l.setRejection(e, &Rejection{
		TypeURL: k.URL(), Name: e.Name, Subject: subject, Version: version, Message: clip(message),
		Attempts: attempts, At: now, RetryAt: now.Add(l.backoff(attempts)),
	})
	l.note(event{what: eventRejected, key: e.key, rejection: e.rejection})
}

// retract queues an entry whose rejected offer is out of date: it is not tried
// again, but what the proxy is to have instead.
func (l *ledger) retract(e *entry) {
	e.body = nil
	if !e.fresh && !e.parked {
		l.queue(e)
	}
}

// backoff is how long to wait after so many refusals.
func (l *ledger) backoff(attempts int) time.Duration {
	d := l.limits.RetryMin
	for ; attempts > 1 && d < l.limits.RetryMax; attempts-- {
		d *= 2
	}
	return min(d, l.limits.RetryMax)
}

// maxMessage bounds a proxy's error message, in bytes.
const maxMessage = 2048

func clip(s string) string {
	if len(s) > maxMessage {
		return s[:maxMessage] + "..."
	}
	return s
}

// event is something that the stream logs or counts.
type event struct {
	what      eventKind
	key       // without a name: of all of its kind
	count     int
	message   string
	rejection *Rejection
	lag       time.Duration
}

type eventKind int

const (
	eventAcked    eventKind = iota // a revision is acknowledged in full
	eventNacked                    // a response was rejected
	eventRejected                  // a single resource is set aside
	eventHealed                    // a resource that was set aside was taken
	eventCold                      // a cluster's endpoints were not asked for in time
)

func (l *ledger) note(e event) { l.events = append(l.events, e) }

// takeEvents returns what happened since the last call.
func (l *ledger) takeEvents() []event {
	out := l.events
	l.events = nil
	return out
}
