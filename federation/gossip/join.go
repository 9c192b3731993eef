package gossip

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/causeway-mesh/causeway/cluster"
)

const (
	maxJoin     = 256 // addresses taken from Config.Join
	maxResolved = 16  // addresses taken of one name
)

// join keeps this member connected. Alone, it tries the addresses that it was
// given, one by one, until one answers. In company it tries one of those that are
// no living member's: memberlist forgets the dead, so the halves of a partition
// would never look for each other again.
func (g *Gossip) join(ctx context.Context, ml *memberlist.Memberlist) {
	g.awaitStart(ctx)
	for ctx.Err() == nil {
		others := g.published.Load().others
		missing := g.missing(ctx, others)
		pause := g.cfg.Timing.Rejoin
		if len(others) == 0 {
			pause = g.cfg.Timing.RejoinAlone
		} else if len(missing) > 1 {
			missing = missing[:1]
		}
		for _, addr := range missing {
			_, err := ml.Join([]string{addr.String()})
			if ctx.Err() != nil {
				return
			}
			g.metrics.join(err)
			if err == nil {
				break // if it was this member itself, by another address, the next round tries on
			}
			g.cfg.Logger.Debug("gossip: can't join", "address", addr.String(), "error", err)
		}
		_ = cluster.Pause(ctx, jitter(pause))
	}
}

// awaitStart waits until this member itself is in the table.
func (g *Gossip) awaitStart(ctx context.Context) {
	for {
		members, changed := g.Watch()
		if len(members) > 0 {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// missing gives the addresses to join that are neither this member's nor those of living
// ones, in random order.
func (g *Gossip) missing(ctx context.Context, others map[netip.AddrPort]bool) []netip.AddrPort {
	own := map[netip.AddrPort]bool{g.addr: true}
	for _, m := range g.Members() {
		if m.Self {
			own[m.Addr] = true
		}
	}
	var out []netip.AddrPort
	seen := map[netip.AddrPort]bool{}
	join := g.cfg.Join()
	for _, s := range join[:min(len(join), maxJoin)] {
		addrs, err := resolve(ctx, s, g.cfg.Timing.StreamTimeout)
		if err != nil {
			g.metrics.join(err)
			g.cfg.Logger.Debug("gossip: can't join", "address", s, "error", err)
		}
		for _, a := range addrs {
			if !own[a] && !others[a] && !seen[a] {
				seen[a] = true
				out = append(out, a)
			}
		}
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func resolve(ctx context.Context, s string, timeout time.Duration) ([]netip.AddrPort, error) {
	host, port, err := checkJoin(s)
	if err != nil {
		return nil, err
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(addr.Unmap(), port)}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var out []netip.AddrPort
	for _, a := range addrs[:min(len(addrs), maxResolved)] {
		out = append(out, netip.AddrPortFrom(a.Unmap(), port))
	}
	return out, nil
}

// jitter keeps members that began together from acting together.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}
