package server

import "time"

// schedule sets the entry's timer to the first thing that it waits for.
func (l *ledger) schedule(e *entry) {
	var at time.Time
	for _, t := range []time.Time{e.warmBy, e.lingerTo, e.expectTo, e.retryAt()} {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	if at.IsZero() {
		delete(l.timers, e)
		return
	}
	l.timers[e] = at
	l.wakeBy(at)
}

// wakeBy moves the next wake forward, if a time is before it.
func (l *ledger) wakeBy(at time.Time) {
	if !at.IsZero() && (l.wake.IsZero() || at.Before(l.wake)) {
		l.wake = at
	}
}

func (e *entry) retryAt() time.Time {
	if e.rejection == nil || e.offered || e.fresh {
		return time.Time{}
	}
	return e.rejection.RetryAt
}

// fire handles the timers that are due.
func (l *ledger) fire(now time.Time) {
	if l.wake.IsZero() || now.Before(l.wake) {
		return
	}
	l.wake = time.Time{}
	for _, by := range []*time.Time{&l.clustersBy, &l.routesBy} {
		if !by.IsZero() && !now.Before(*by) {
			*by = time.Time{}
			l.epoch++
		}
		l.wakeBy(*by)
	}
	for e, at := range l.timers {
		if now.Before(at) {
			l.wakeBy(at)
			continue
		}
		due := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
		if due(e.warmBy) {
			e.warmBy = time.Time{}
			if l.res != nil && !l.warmed(e) {
				l.note(event{what: eventCold, key: e.key})
				l.epoch++
			}
			e.warm = true
		}
		if due(e.lingerTo) {
			e.lingerTo, e.lingered = time.Time{}, true
			l.epoch++
		}
		if due(e.retryAt()) {
			l.queue(e)
		}
		if due(e.expectTo) {
			l.forget(e, now)
			continue
		}
		l.schedule(e)
	}
}
