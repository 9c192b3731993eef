package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// changeTimeout is how long a change may take until it counts as lost.
const changeTimeout = 10 * time.Second

// sample is how long one change took to the first and to the last proxy.
type sample struct{ first, last time.Duration }

type samples []sample

func (s samples) quantile(q float64, of func(sample) time.Duration) time.Duration {
	if len(s) == 0 {
		return 0
	}
	list := make([]time.Duration, 0, len(s))
	for _, x := range s {
		list = append(list, of(x))
	}
	return quantile(list, q)
}

func quantile(list []time.Duration, q float64) time.Duration {
	list = slices.Sorted(slices.Values(list))
	return list[min(len(list)-1, int(q*float64(len(list))))]
}

func (s samples) firsts(q float64) time.Duration {
	return s.quantile(q, func(x sample) time.Duration { return x.first })
}

func (s samples) lasts(q float64) time.Duration {
	return s.quantile(q, func(x sample) time.Duration { return x.last })
}

// change is a kind of change that is measured: the edit of cluster c that is the
// n-th, the resource by which proxies see it, and those that it concerns.
type change struct {
	name string
	of   func(s *set, n int) (c int, e edit, resource string, concerned []*proxy)
}

// scattered spreads consecutive numbers over what there is.
func scattered(n, of int) int { return (n * 37) % of }

// The changes.
var (
	endpointChange = change{"endpoint", func(s *set, n int) (int, edit, string, []*proxy) {
		c, k := n%s.w.Clusters, scattered(n, s.w.Services)
		return c, edit{editReady, k}, s.w.backend(c, k), s.of(translate.RoleSidecar, -1)
	}}
	podChange = change{"pod", func(s *set, n int) (int, edit, string, []*proxy) {
		c, k := n%s.w.Clusters, scattered(n, s.w.Services)
		var concerned []*proxy
		for o := range s.w.Clusters {
			if s.w.network(o) == s.w.network(c) {
				concerned = append(concerned, s.of(translate.RoleSidecar, o)...)
			}
		}
		return c, edit{editPod, k}, s.w.backend(c, k), concerned
	}}
	privateChange = change{"private", func(s *set, n int) (int, edit, string, []*proxy) {
		c, k := n%s.w.Clusters, scattered(n, s.w.Private)
		return c, edit{editPrivate, k}, s.w.private(k), s.of(translate.RoleSidecar, c)
	}}
	producerChange = change{"producer route", func(s *set, n int) (int, edit, string, []*proxy) {
		// No service has both a producer and a consumer route (world.kindOf).
		i := s.w.nthRoute(producer, n)
		return s.w.home(i), edit{editRoute, i}, s.w.routeResource(i), s.of(translate.RoleSidecar, -1)
	}}
	consumerChange = change{"consumer route", func(s *set, n int) (int, edit, string, []*proxy) {
		i := s.w.nthRoute(consumer, n)
		var concerned []*proxy
		for _, p := range s.of(translate.RoleSidecar, -1) {
			if p.Namespace == s.w.consumerOf(i) {
				concerned = append(concerned, p)
			}
		}
		return s.w.home(i), edit{editRoute, i}, s.w.routeResource(i), concerned
	}}
	gatewayChange = change{"gateway route", func(s *set, n int) (int, edit, string, []*proxy) {
		i := s.w.nthRoute(edge, n)
		var concerned []*proxy
		for _, p := range s.of(translate.RoleGateway, -1) {
			if p.Name == gatewayName(s.w.gatewayOf(i)) {
				concerned = append(concerned, p)
			}
		}
		return s.w.home(i), edit{editRoute, i}, s.w.routeResource(i), concerned
	}}
)

// nthRoute finds a route of a kind.
func (w world) nthRoute(kind routeKind, n int) int {
	per := map[routeKind][]int{producer: {0, 1, 2}, consumer: {3}, edge: {4}}[kind]
	n = scattered(n, w.Routes/5*len(per))
	return n/len(per)*5 + per[n%len(per)]
}

// traffic is what proxies have got.
type traffic struct{ wire, payload, responses int64 }

func (s *set) traffic() map[*proxy]traffic {
	out := map[*proxy]traffic{}
	for _, list := range s.proxies {
		for _, p := range list {
			out[p] = traffic{p.wire.Load(), p.payload.Load(), p.responses.Load()}
		}
	}
	return out
}

// measured is what a number of changes of one kind came to.
type measured struct {
	name    string
	samples samples
	// Bytes and responses per change and proxy that it concerned.
	wire, payload, responses float64
	bill                     // per change
}

// pause lies between changes, so that each begins with the set at rest.
const pause = 3 * time.Millisecond

// measure makes n changes, one after the other.
func (s *set) measure(ctx context.Context, ch change, n int) (m measured, err error) {
	if err := s.calm(ctx, 300*time.Millisecond); err != nil {
		return m, err
	}
	idle, err := s.idle(ctx)
	if err != nil {
		return m, err
	}
	m.name = ch.name
	before := s.traffic()
	concerned := map[*proxy]int{}
	began := time.Now()
	usedBefore, err := s.allUsage()
	if err != nil {
		return m, err
	}
	for range n {
		s.services++
		c, e, resource, list := ch.of(s, s.services)
		x, err := s.one(ctx, c, e, resource, list)
		if err != nil {
			return m, fmt.Errorf("%s: %w", ch.name, err)
		}
		m.samples = append(m.samples, x)
		for _, p := range list {
			concerned[p]++
		}
		time.Sleep(pause)
	}
	usedAfter, err := s.allUsage()
	if err != nil {
		return m, err
	}
	elapsed := time.Since(began)
	m.bill = usedAfter.of(usedBefore, usage.minus).of(idle, func(u, rest usage) usage { return u.less(rest, elapsed).per(n) })
	if err := s.calm(ctx, 300*time.Millisecond); err != nil {
		return m, err
	}
	after, times := s.traffic(), 0
	for p, t := range after {
		if k := concerned[p]; k > 0 {
			times += k
			m.wire += float64(t.wire - before[p].wire)
			m.payload += float64(t.payload - before[p].payload)
			m.responses += float64(t.responses - before[p].responses)
		}
	}
	m.wire, m.payload, m.responses = m.wire/float64(times), m.payload/float64(times), m.responses/float64(times)
	return m, nil
}

// strays makes n changes of one cluster and counts what sidecars got that they
// did not concern.
func (s *set) strays(ctx context.Context, ch change, n int) (bytes int64, proxies int, err error) {
	for range n {
		if err := s.calm(ctx, 100*time.Millisecond); err != nil {
			return 0, 0, err
		}
		before := s.traffic()
		s.services++
		c, e, resource, list := ch.of(s, s.services)
		if _, err := s.one(ctx, c, e, resource, list); err != nil {
			return 0, 0, fmt.Errorf("%s: %w", ch.name, err)
		}
		if err := s.calm(ctx, 100*time.Millisecond); err != nil {
			return 0, 0, err
		}
		after := s.traffic()
		proxies = 0
		for _, p := range s.of(translate.RoleSidecar, -1) {
			if !slices.Contains(list, p) {
				proxies++
				bytes += after[p].payload - before[p].payload
			}
		}
	}
	return bytes, proxies, nil
}

// one makes a change and waits until it has arrived everywhere.
func (s *set) one(ctx context.Context, c int, e edit, resource string, concerned []*proxy) (sample, error) {
	w := s.run.expect(resource, concerned)
	r, err := s.edit(c, e)
	if err != nil {
		return sample{}, err
	}
	select {
	case <-w.done:
	case <-ctx.Done():
		return sample{}, ctx.Err()
	case <-time.After(changeTimeout):
		missing := s.run.abandon(resource, w)
		return sample{}, fmt.Errorf("%s of cluster %d did not reach %d of %d proxies as %s: %s", e.What, c, len(missing), len(concerned), resource,
			strings.Join(missing[:min(3, len(missing))], ", "))
	}
	return sample{time.Duration(slices.Min(w.at) - r.At), time.Duration(slices.Max(w.at) - r.At)}, nil
}

// bill is what the parts have used.
type bill struct{ agents, etcd, driver usage }

// of combines two bills part by part.
func (b bill) of(o bill, f func(a, b usage) usage) bill {
	return bill{f(b.agents, o.agents), f(b.etcd, o.etcd), f(b.driver, o.driver)}
}

// allUsage is what the parts have used since they began.
func (s *set) allUsage() (b bill, err error) {
	if b.agents, err = s.usage(); err != nil {
		return b, err
	}
	r, err := s.store.ask(request{Usage: true})
	if err != nil {
		return b, err
	}
	b.etcd = r.Usage
	b.driver, err = used()
	return b, err
}

// idle is what the parts use per second while nothing changes: leases, gossip,
// progress of watches. The answer of the first call is kept.
func (s *set) idle(ctx context.Context) (bill, error) {
	if s.resting != nil {
		return *s.resting, nil
	}
	before, err := s.allUsage()
	if err != nil {
		return before, err
	}
	const seconds = 4
	select {
	case <-ctx.Done():
		return before, ctx.Err()
	case <-time.After(seconds * time.Second):
	}
	after, err := s.allUsage()
	out := after.of(before, func(a, b usage) usage { return a.minus(b).per(seconds) })
	s.resting = &out
	return out, err
}

// less takes off what would have been used at rest, per second.
func (u usage) less(rest usage, d time.Duration) usage {
	f := func(a, b uint64) uint64 {
		if off := uint64(float64(b) * d.Seconds()); off < a {
			return a - off
		}
		return 0
	}
	return usage{max(0, u.CPU-time.Duration(float64(rest.CPU)*d.Seconds())), f(u.Allocs, rest.Allocs), f(u.Bytes, rest.Bytes), f(u.Written, rest.Written)}
}

func (u usage) per(n int) usage {
	k := uint64(n)
	return usage{u.CPU / time.Duration(n), u.Allocs / k, u.Bytes / k, u.Written / k}
}

// coldStart kills the agent of a cluster and starts it with nothing on disk and
// with proxies that have nothing either, and measures until the last of them has
// all that it had before.
func (s *set) coldStart(ctx context.Context, c int) (time.Duration, error) {
	if err := s.settle(); err != nil {
		return 0, err
	}
	want := map[string]map[string]map[string]string{}
	for _, p := range s.proxies[c] {
		st, err := p.state()
		if err != nil {
			return 0, err
		}
		want[p.ID()] = st
	}
	s.stop(c)
	began := time.Now()
	if err := s.start(ctx, c); err != nil {
		return 0, err
	}
	for _, p := range s.proxies[c] {
		for !p.has(want[p.ID()]) {
			if time.Since(began) > time.Minute {
				st, err := p.state()
				return 0, fmt.Errorf("%s does not get what it had: %s (%w)", p.ID(), compare(want[p.ID()], st), err)
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
	last := int64(0)
	for _, p := range s.proxies[c] {
		last = max(last, p.last.Load())
	}
	return time.Duration(last - began.UnixNano()), nil
}

// compare says where two states differ.
func compare(want, got map[string]map[string]string) string {
	var out []string
	for _, t := range translate.Types {
		missing, other, more := 0, 0, 0
		example := ""
		for name, v := range want[t] {
			switch have, ok := got[t][name]; {
			case !ok:
				missing++
				example = name
			case have != v:
				other++
				example = name
			}
		}
		for name := range got[t] {
			if _, ok := want[t][name]; !ok {
				more++
			}
		}
		if missing+other+more > 0 {
			out = append(out, fmt.Sprintf("%s: %d missing, %d other, %d more (%s)", t[strings.LastIndexByte(t, '.')+1:], missing, other, more, example))
		}
	}
	return strings.Join(out, "; ")
}

// held measures what an agent holds for what others have: it takes that away and
// puts it back.
func (s *set) held(ctx context.Context, what string, at int, others []int) (with, without heap, err error) {
	read := func() (heap, error) {
		if err := s.settle(); err != nil {
			return heap{}, err
		}
		if err := s.calm(ctx, time.Second); err != nil {
			return heap{}, err
		}
		r, err := s.agents[at].ask(request{Heap: true})
		return r.Heap, err
	}
	if with, err = read(); err != nil {
		return with, without, err
	}
	for n, into := range []*heap{&without, &with} {
		for _, c := range others {
			if _, err := s.edit(c, edit{what, n}); err != nil {
				return with, without, err
			}
		}
		if *into, err = read(); err != nil {
			return with, without, err
		}
	}
	return with, without, nil
}

// bursted is what became of many changes within a second.
type bursted struct {
	sent  time.Duration // from the first change to the last
	whole time.Duration // from the first change until the last proxy was told the last
	after time.Duration // from the last change until then
	// pushes and wire are responses and bytes per sidecar.
	pushes, wire float64
}

func (s *set) burst(ctx context.Context, c, count int) (b bursted, err error) {
	if err := s.calm(ctx, 300*time.Millisecond); err != nil {
		return b, err
	}
	before := s.traffic()
	edits := burst{count, time.Second}
	r, err := s.agents[c].ask(request{Burst: &edits})
	if err != nil {
		return b, err
	}
	if err := s.settle(); err != nil {
		return b, err
	}
	for i := range count {
		s.edits[c] = append(s.edits[c], edits.edit(s.w, i))
	}
	last := int64(0)
	after := s.traffic()
	sidecars := s.of(translate.RoleSidecar, -1)
	for _, p := range sidecars {
		last = max(last, p.last.Load())
		b.pushes += float64(after[p].responses-before[p].responses) / float64(len(sidecars))
		b.wire += float64(after[p].wire-before[p].wire) / float64(len(sidecars))
	}
	b.sent, b.whole, b.after = time.Duration(r.Until-r.At), time.Duration(last-r.At), time.Duration(last-r.Until)
	return b, nil
}

// bring starts every agent and waits until all have everything.
func (s *set) bring(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	for c := range s.w.Clusters {
		if err := s.start(ctx, c); err != nil {
			return 0, err
		}
	}
	for _, a := range s.agents {
		if _, err := a.ask(request{Peers: s.peers}); err != nil {
			return 0, err
		}
	}
	if err := s.settle(); err != nil {
		return 0, err
	}
	if err := s.calm(ctx, 2*time.Second); err != nil {
		return 0, err
	}
	// Each sidecar must have what the world says, or the figures mean nothing.
	for c := range s.w.Clusters {
		for _, p := range s.of(translate.RoleSidecar, c) {
			st, err := p.state()
			if err != nil {
				return 0, err
			}
			want := s.frontends()
			if n := len(st[translate.TypeListener]); n != want {
				return 0, fmt.Errorf("%s has %d listeners instead of %d", p.ID(), n, want)
			}
			have := map[string]bool{}
			for name := range st[translate.TypeEndpoint] {
				have[backendOf(name)] = true
			}
			for k := range s.w.Services {
				if !have[s.w.backend(c, k)] {
					return 0, fmt.Errorf("%s has no endpoints of %s", p.ID(), s.w.backend(c, k))
				}
			}
		}
	}
	return time.Since(began), nil
}

// frontends counts what a sidecar listens for: the cluster's own Services and all imports.
func (s *set) frontends() int {
	imports := map[cluster.Ref]bool{}
	for c := range s.w.Clusters {
		for k := range s.w.Services {
			imports[cluster.Ref{Namespace: s.w.namespace(k), Name: s.w.service(c, k)}] = true
		}
	}
	return s.w.Services + s.w.Private + len(slices.Collect(maps.Keys(imports)))
}
