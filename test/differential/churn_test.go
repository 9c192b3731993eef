package differential

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/explain"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/xds/server"
	"github.com/causeway-mesh/causeway/xds/translate"
)

var (
	changesWanted = flag.Int("changes", 200, "how many changes under load")
	rate          = flag.Int("rate", 500, "requests a second under load")
)

// history is every configuration that there was, by revision from 1.
type history struct {
	mu      sync.Mutex
	results []*resolve.Result
	settled atomic.Int64 // the newest that every Envoy has acknowledged
}

func (h *history) add(r *resolve.Result) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.results = append(h.results, r)
	return int64(len(h.results))
}

func (h *history) newest() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return int64(len(h.results))
}

func (h *history) at(revision int64) *resolve.Result {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.results[revision-1]
}

// TestChangesUnderLoad changes routes, backends, weights, endpoints and certificates one
// after the other, without waiting, while requests go on: every answer must be one that a
// configuration gives which an Envoy may have had meanwhile, from the newest that
// all had acknowledged when the request began to the newest that there was when it
// ended. None of the configurations gives 503.
func TestChangesUnderLoad(t *testing.T) {
	r := newRig(t)
	p := newPods(t, r.own, 6, east, west)
	gateway := translate.Proxy{Cluster: east, Role: translate.RoleGateway, Namespace: "app", Name: "gw"}
	sidecar := translate.Proxy{Cluster: east, Role: translate.RoleSidecar, Namespace: "dev", Name: "sidecar"}
	r.start(gateway)
	r.start(sidecar)

	seed := *firstSeed
	b := federation.NewBuilder()
	w := newWorld(t, seed, p, b, nil, "")
	var h history
	res := resolve.Resolve(east, b.Snapshot())
	h.add(res)
	r.follow(1, views{east: res})
	h.settled.Store(1)

	stop := make(chan struct{})
	var load sync.WaitGroup
	var sent atomic.Int64
	const clients = 10
	for i := range clients {
		load.Go(func() {
			chance := rand.New(rand.NewPCG(seed, uint64(i+1)))
			tick := time.NewTicker(time.Second * clients / time.Duration(*rate))
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				from, req := drawRequest(chance, true)
				if strings.HasPrefix(from, "east/app") {
					from = "east/dev"
				}
				x := r.proxies[sidecar.ID()]
				if strings.Contains(from, "/gateway/") {
					x = r.proxies[gateway.ID()]
				}
				source, err := explain.ParseSource(from)
				if err != nil {
					t.Error(err)
					return
				}
				if err := r.during(x, &h, source, req); err != nil {
					t.Errorf("seed %d: %s: %s: %v", *firstSeed, from, show(req), err)
					return
				}
				sent.Add(1)
			}
		})
	}
	kinds := map[string]int{}
	for range *changesWanted {
		w.edit = b.Edit()
		kinds[w.change(t)]++
		snap, changed := w.edit.Commit()
		next, delta := res.Update(snap, changed)
		res = next
		revision := h.add(res)
		for id, x := range r.proxies {
			state, changes := x.state.Load().Update(r.input(x, res), delta)
			x.state.Store(state)
			r.server.Set(id, state.Resources, changes, server.Stamp{Revision: revision, At: time.Now()})
		}
		// The next change comes at an arbitrary moment: while this one is under way, or
		// once it is there.
		pause := time.After(time.Duration(w.IntN(100)) * time.Millisecond)
		for waiting := true; waiting; {
			changed := r.server.Changed()
			if r.settled(revision) {
				h.settled.Store(revision)
			}
			select {
			case <-changed:
			case <-pause:
				waiting = false
			}
		}
		if t.Failed() {
			break
		}
	}
	close(stop)
	load.Wait()
	t.Logf("%d requests during %v", sent.Load(), kinds)
	if !t.Failed() && sent.Load() < int64(*changesWanted) {
		t.Errorf("only %d requests were sent", sent.Load())
	}
}

// change makes one change of those that people make, and names it.
func (w *world) change(t *testing.T) string {
	c, s := east, pick(w.Rand, services)
	if s.name == "d" || s.name != "b" && w.chance(2) {
		c = west
	}
	switch w.IntN(5) {
	case 0:
		w.endpoints(t, c, s)
		return "endpoints"
	case 4:
		w.certificate(t)
		return "certificate"
	case 1:
		i := w.IntN(8)
		ref := cluster.Ref{Kind: pick(w.Rand, []cluster.Kind{cluster.KindHTTPRoute, cluster.KindGRPCRoute}), Namespace: namespaces[i%3], Name: fmt.Sprintf("mesh-%d", i)}
		if _, ok := w.edit.Get(east, ref); ok && w.chance(2) {
			if err := w.edit.Apply(federation.Change{Cluster: east, Ref: ref}); err != nil {
				t.Fatal(err)
			}
			return "route removed"
		}
		w.routeIn(t, east, ref.Name, ref.Namespace, w.meshParent())
		return "mesh route"
	default:
		i := w.IntN(5)
		w.routeIn(t, east, fmt.Sprintf("edge-%d", i), namespaces[i%3], w.gatewayParent())
		return "gateway route"
	}
}

// widen adds the endpoints that the leaf's backend had in any configuration of a
// span: endpoints and routes of changes that overlap arrive by themselves.
func (h *history) widen(l *leaf, first, last int64) {
	for revision := first; revision <= last; revision++ {
		b, ok := h.at(revision).Backends.Get([]byte(l.backend))
		if !ok {
			continue
		}
		for _, g := range b.Groups {
			for _, e := range g.Endpoints {
				if e.Healthy {
					l.endpoints[e.Addr.String()] = reached{}
				}
			}
		}
	}
}

// during sends one request and holds the answer against every configuration that
// there may have been.
func (r *rig) during(p *proxy, h *history, from explain.Source, q request) error {
	first := h.settled.Load()
	at, ok := p.listens(from, q.Request)
	if !ok {
		return nil
	}
	got := r.send(at, q, false)
	last := h.newest()
	var why []string
	for revision := first; revision <= last; revision++ {
		x := explain.Explain(h.at(revision), from, q.Request)
		if x.Problem != "" {
			continue
		}
		for _, l := range (views{east: h.at(revision)}).leaves(x.Hop, leaf{request: x.Request}) {
			// Nothing lacks endpoints; a GRPCRoute that can't serve answers so as well.
			if l.status == 503 && !strings.HasPrefix(strings.Join(l.rules[len(l.rules)-1:], ""), "GRPCRoute/") {
				continue
			}
			h.widen(&l, first, last)
			reason := l.differs(got)
			if reason == "" {
				return nil
			}
			why = append(why, fmt.Sprintf("not %d %s: %s", revision, l.name(), reason))
		}
	}
	return fmt.Errorf("got %s, which no configuration from %d to %d gives:\n  %s", got, first, last, strings.Join(why, "\n  "))
}
