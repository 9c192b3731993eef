package gossip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// Gossip is this process as a member. New makes it, Run does the work; all other
// methods may be called from any goroutine, before, while and after Run runs.
type Gossip struct {
	cfg     Config
	name    string
	metrics *metrics
	log     *limitedLog

	published atomic.Pointer[published]

	mu       sync.Mutex
	report   Report        // what this member says of itself
	reported chan struct{} // 1 buffered: report has changed

	bound    chan struct{} // closed when addr or bindErr is set
	bindOnce sync.Once
	addr     netip.AddrPort
	bindErr  error

	// For tests: cut becomes the transport's; crash ends Run without a farewell.
	cut   func(addr string) bool
	crash bool
}

type published struct {
	members []Member
	others  map[netip.AddrPort]bool
	changed chan struct{} // closed when there is a newer one
}

// New validates cfg and starts nothing.
func New(cfg Config) (*Gossip, error) {
	name, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	g := &Gossip{cfg: cfg, name: name, metrics: m, log: &limitedLog{slog: cfg.Logger}, reported: make(chan struct{}, 1), bound: make(chan struct{})}
	g.published.Store(&published{changed: make(chan struct{})})
	return g, nil
}

// Name is this member's MemberName.
func (g *Gossip) Name() string { return g.name }

// Members gives all members as they are known now, this one and the dead among
// them, sorted by name; before Run none. The result is shared: don't modify it.
func (g *Gossip) Members() []Member { return g.published.Load().members }

// Watch gives Members and a channel that is closed when they have changed in
// anything but LastSeen. However much changes meanwhile, it is one wake-up.
func (g *Gossip) Watch() ([]Member, <-chan struct{}) {
	p := g.published.Load()
	return p.members, p.changed
}

// Report replaces what this member tells the others of itself; they hear of it
// within about a quarter of Timing.ReportEvery. It doesn't block.
func (g *Gossip) Report(r Report) {
	r.Votes = slices.Clone(r.Votes)
	slices.SortFunc(r.Votes, func(a, b Vote) int { return strings.Compare(string(a.Cluster), string(b.Cluster)) })
	r.Votes = slices.CompactFunc(r.Votes, func(a, b Vote) bool { return a.Cluster == b.Cluster })
	r.Votes = slices.DeleteFunc(r.Votes, func(v Vote) bool { return v.Cluster.Validate() != nil })
	g.mu.Lock()
	g.report = r
	g.mu.Unlock()
	select {
	case g.reported <- struct{}{}:
	default:
	}
}

// Addr waits until Run listens and gives the address bound to.
func (g *Gossip) Addr(ctx context.Context) (netip.AddrPort, error) {
	select {
	case <-g.bound:
		return g.addr, g.bindErr
	case <-ctx.Done():
		return netip.AddrPort{}, fmt.Errorf("wait for gossip to listen: %w", ctx.Err())
	}
}

func (g *Gossip) setBound(addr netip.AddrPort, err error) {
	g.bindOnce.Do(func() {
		g.addr, g.bindErr = addr, err
		close(g.bound)
	})
}

// Run takes part until ctx ends, then says farewell and returns nil. It fails at
// once if it can't listen. Once.
func (g *Gossip) Run(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			g.setBound(netip.AddrPort{}, err)
		}
	}()
	tr, err := listen(ctx, g.cfg.Bind, g.log)
	if err != nil {
		return err
	}
	tr.cut = g.cut
	mc := g.cfg.memberlistConfig(g.name, tr, g.log)
	box := newMailbox(g.name, g.metrics, g.log, mc.RetransmitMult)
	mc.Delegate, mc.Events, mc.Alive, mc.Conflict = box, box, box, box
	ml, err := memberlist.Create(mc)
	if err != nil {
		return errors.Join(fmt.Errorf("start gossip: %w", err), tr.Shutdown())
	}
	g.setBound(netip.AddrPortFrom(g.cfg.Bind.Addr(), uint16(tr.port())), nil)

	var work sync.WaitGroup
	work.Go(func() { g.own(ctx, box) })
	work.Go(func() { g.join(ctx, ml) })
	work.Wait()
	if !g.crash {
		if err := ml.Leave(g.cfg.Timing.Leave); err != nil {
			g.cfg.Logger.Debug("gossip: no one heard the farewell", "error", err)
		}
	}
	if err := ml.Shutdown(); err != nil {
		return fmt.Errorf("stop gossip: %w", err)
	}
	return nil
}

// own is the goroutine that owns the table: it takes events and states from the
// mailbox, sends this member's reports, and publishes.
func (g *Gossip) own(ctx context.Context, box *mailbox) {
	t := newTable(g.name, g.cfg.Timing)
	// The wall clock makes the epoch of a restarted member greater than that of
	// its former self; if it went back, the first echo of the old state mends it.
	mine := &state{name: g.name, epoch: uint64(max(1, time.Now().UnixNano()))}
	var sentAt, next time.Time
	dirty := true // the report has changed since it was sent
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-box.wake:
		case <-g.reported:
			dirty = true
		case <-timer.C:
		}
		now := time.Now()
		changed := !now.Before(next) // silence changes states
		if late := now.Sub(next); !next.IsZero() && late > g.cfg.Timing.ReportEvery/2 {
			t.excuse(late)
		}
		events, states := box.take()
		for name, e := range events {
			t.event(name, e, now)
			changed = true
		}
		for name, s := range states {
			if name == g.name {
				dirty = g.refute(mine, s) || dirty
				continue
			}
			if raw := t.state(s, now); raw != nil {
				box.broadcast(name, raw) // pass it on: memberlist doesn't relay user messages
				changed = true
			}
		}
		if now.Sub(sentAt) >= g.reportGap(dirty) {
			g.mu.Lock()
			mine.report = g.report
			g.mu.Unlock()
			mine.seq++
			sent := *mine // the table keeps it
			if raw := t.state(&sent, now); raw != nil {
				box.broadcast(g.name, raw)
				_, cut := sent.encode()
				g.metrics.votesCut.Add(float64(cut))
			}
			sentAt, dirty, changed = now, false, true
		}
		if changed {
			t.forget(now)
			full := encodeFull(t.states())
			box.full.Store(&full)
			g.publish(t, now)
		}

		next = sentAt.Add(g.reportGap(dirty))
		if at := t.nextChange(now); !at.IsZero() && at.Before(next) {
			next = at
		}
		timer.Reset(max(time.Millisecond, time.Until(next)))
	}
}

func (g *Gossip) reportGap(dirty bool) time.Duration {
	if dirty {
		return g.cfg.Timing.ReportEvery / 4
	}
	return g.cfg.Timing.ReportEvery
}

// refute makes this member's states newer than one that came under its name and
// that it did not send: one of its former self, or of someone else who claims
// the name. It reports whether that was so.
func (g *Gossip) refute(mine, claimed *state) bool {
	if !claimed.newer(mine) {
		return false
	}
	g.metrics.conflict()
	mine.epoch, mine.seq = min(claimed.epoch, maxEpoch-1)+1, 0
	return true
}

func (g *Gossip) publish(t *table, now time.Time) {
	old := g.published.Load()
	next := &published{members: t.members(now), others: t.others(), changed: old.changed}
	if sameMembers(old.members, next.members) {
		g.published.Store(next)
		return
	}
	next.changed = make(chan struct{})
	g.published.Store(next)
	g.metrics.count(next.members)
	close(old.changed)
}
