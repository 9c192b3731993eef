package differential

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/explain"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/test/traffic"
	"github.com/causeway-mesh/causeway/xds/server"
	"github.com/causeway-mesh/causeway/xds/translate"
)

var (
	changesWanted = flag.Int("changes", 200, "how many changes under load")
	rate          = flag.Int("rate", 500, "requests a second under load")
)

// overlapping is how many changes may be under way when the next one is made.
const overlapping = 1

// TestChangesUnderLoad changes routes, backends, weights, endpoints and certificates one
// after the other, without waiting, while requests go on: every answer must be one that a
// configuration gives which an Envoy may have had meanwhile, from the newest that
// all had acknowledged when the request began to the newest that there was when it
// ended. None of the configurations gives 503.
//
// A chained request may meet one configuration at the Gateway and another behind it, which
// none of them gives alone: the more changes overlap, the likelier.
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
	var h traffic.History[*resolve.Result]
	res := resolve.Resolve(east, b.Snapshot())
	h.Add(res)
	r.follow(1, views{east: res})

	load := traffic.Send(t, seed, *rate, func(chance *rand.Rand) error {
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
			return err
		}
		if err := r.during(x, &h, source, req); err != nil {
			return fmt.Errorf("%s: %s: %w", from, show(req), err)
		}
		return nil
	})
	kinds, settled := map[string]int{}, int64(1)
	for range *changesWanted {
		w.edit = b.Edit()
		kinds[w.change(t)]++
		snap, changed := w.edit.Commit()
		next, delta := res.Update(snap, changed)
		res = next
		revision := h.Add(res)
		for id, x := range r.proxies {
			state, changes := x.state.Load().Update(r.input(x, res), delta)
			x.state.Store(state)
			r.server.Set(id, state.Resources, changes, server.Stamp{Revision: revision, At: time.Now()})
		}
		// The next change comes at an arbitrary moment: while this one is under way, or
		// once it is there. A slow machine does not gather more of them than a fast one.
		pause, deadline := time.After(time.Duration(w.IntN(100))*time.Millisecond), time.After(time.Minute)
		for waiting := true; ; {
			changed := r.server.Changed()
			if r.settled(revision) {
				h.Settle(revision)
				settled = revision
			}
			if !waiting && revision-settled <= overlapping {
				break
			}
			select {
			case <-changed:
			case <-pause:
				waiting = false
			case <-deadline:
				t.Fatalf("revision %d is not there within a minute: %+v", revision, r.server.Proxies())
			}
		}
		if t.Failed() {
			break
		}
	}
	sent, perSecond := load.Stop()
	t.Logf("%d requests, %.0f/s, during %v", sent, perSecond, kinds)
	if !t.Failed() && sent < int64(*changesWanted) {
		t.Errorf("only %d requests were sent", sent)
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

// widen adds the endpoints that the leaf's backend had in any of the configurations:
// endpoints and routes of changes that overlap arrive by themselves.
func (l *leaf) widen(during []*resolve.Result) {
	for _, res := range during {
		b, ok := res.Backends.Get([]byte(l.backend))
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
func (r *rig) during(p *proxy, h *traffic.History[*resolve.Result], from explain.Source, q request) error {
	span := h.Begin()
	at, ok := p.listens(from, q.Request)
	if !ok {
		span.End()
		return nil
	}
	got := r.send(at, q, false)
	may := span.End()
	var why []string
	for i, res := range may {
		x := explain.Explain(res, from, q.Request)
		if x.Problem != "" {
			continue
		}
		for _, l := range (views{east: res}).leaves(x.Hop, leaf{request: x.Request}) {
			// Nothing lacks endpoints; a GRPCRoute that can't serve answers so as well.
			if l.status == 503 && !strings.HasPrefix(strings.Join(l.rules[len(l.rules)-1:], ""), "GRPCRoute/") {
				continue
			}
			l.widen(may)
			reason := l.differs(got)
			if reason == "" {
				return nil
			}
			why = append(why, fmt.Sprintf("not %d %s: %s", span.First+int64(i), l.name(), reason))
		}
	}
	return fmt.Errorf("got %s, which none of %d configurations from %d on gives:\n  %s", got, len(may), span.First, strings.Join(why, "\n  "))
}
