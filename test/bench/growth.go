package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"
)

// rounds is how often the worlds of growth take turns.
const rounds = 10

// grown is what changes of one kind cost in one world.
type grown struct {
	used       usage         // per change, with its share of collecting garbage
	collecting time.Duration // that share
	samples    samples
}

// growth compares what changes cost in a world with what they cost in one ten times as
// large, with as many sidecars; then, what a route of a Gateway costs that has ten times
// the routes. The worlds run side by side and take turns, so that what else the machine
// does befalls all of them. A collection of garbage costs as much as the world is large
// and comes as often as its size allows for, so that chance would say whether one falls
// into the seconds of a measurement: none does, and each change is charged with what it
// brings the next one nearer. With options.collect they come as they come, which agrees if
// there are thousands of changes.
func growth(ctx context.Context, o options, r *report, dir string, log *slog.Logger) (err error) {
	base := standard
	base.Namespaces = 5
	large := base
	large.Services, large.Routes, large.Private, large.Gateways = 10*base.Services, 10*base.Routes, 10*base.Private, 10*base.Gateways
	crowded := base
	crowded.Routes *= 10
	var sets []*set
	defer func() {
		for _, s := range sets {
			s.close()
		}
	}()
	for i, w := range []world{base, large, crowded} {
		s, err := open(ctx, w, filepath.Join(dir, fmt.Sprint(i)), log)
		if err != nil {
			return err
		}
		sets = append(sets, s)
		s.closely = o.profile != ""
		if _, err := s.bring(ctx); err != nil {
			return err
		}
		if _, err := s.measure(ctx, endpointChange, 20); err != nil {
			return err
		}
	}
	r.heading("growth: %d and %d services, %d and %d routes, %d sidecars", base.Services, large.Services, base.Routes, large.Routes, base.Clusters*base.Namespaces)
	for _, ch := range []change{endpointChange, producerChange, consumerChange, gatewayChange} {
		compared := sets[:2]
		if ch.name == gatewayChange.name {
			compared = sets
		}
		found, err := turns(ctx, o, compared, ch)
		if err != nil {
			return err
		}
		a, b := found[0], found[1]
		ratio := func(what string, x, y float64, unit string) {
			r.goal(fmt.Sprintf("%s change: %s", ch.name, what), fmt.Sprintf("%.2f and %.2f %s: %.2fx", x, y, unit, y/x), "< 1.3x", y < 1.3*x)
		}
		ratio("CPU of all agents at 1x and 10x", a.used.CPU.Seconds()*1e3, b.used.CPU.Seconds()*1e3, "ms")
		if !o.collect {
			r.figure(ch.name+" change: of which collecting garbage", ms(a.collecting)+" and "+ms(b.collecting))
		}
		ratio("allocations of all agents", float64(a.used.Allocs)/1e3, float64(b.used.Allocs)/1e3, "thousand")
		ratio("allocated bytes of all agents", float64(a.used.Bytes)/1e6, float64(b.used.Bytes)/1e6, "MB")
		r.figure(ch.name+" change to the last proxy, p50", ms(a.samples.lasts(.5))+" and "+ms(b.samples.lasts(.5)))
		if len(found) > 2 {
			r.figure("gateway route change, the Gateway itself with ten times the routes: CPU, allocated bytes", fmt.Sprintf("%.2fx, %.2fx",
				found[2].used.CPU.Seconds()/a.used.CPU.Seconds(), float64(found[2].used.Bytes)/float64(a.used.Bytes)))
		}
	}
	return nil
}

// turns measures a kind of change in several sets.
func turns(ctx context.Context, o options, sets []*set, ch change) (found []grown, err error) {
	each := max(1, o.changes/rounds)
	cycles := make([]cycle, len(sets))
	defer func() {
		for _, s := range sets {
			err = errors.Join(err, s.resume())
		}
	}()
	for i, s := range sets {
		if !o.collect {
			if cycles[i], err = s.hold(); err != nil {
				return nil, err
			}
		}
		s.resting = nil // it was taken before the collector stood still
		if o.profile != "" {
			if err := s.profile(filepath.Join(o.profile, fmt.Sprintf("growth-%d-%s", i, ch.name))); err != nil {
				return nil, err
			}
		}
	}
	found = make([]grown, len(sets))
	for range rounds {
		for i, s := range sets {
			m, err := s.measure(ctx, ch, each)
			if err != nil {
				return nil, err
			}
			found[i].used = found[i].used.plus(m.agents)
			found[i].samples = append(found[i].samples, m.samples...)
		}
	}
	for i, s := range sets {
		g := &found[i]
		g.used = g.used.per(rounds)
		g.collecting = cycles[i].share(g.used.Bytes)
		g.used.CPU += g.collecting
		if o.profile != "" {
			if err := s.profile("-"); err != nil {
				return nil, err
			}
		}
	}
	return found, nil
}
