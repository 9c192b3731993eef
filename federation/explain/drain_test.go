package explain

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/federation/resolve/resolvetest"
)

// member is one cluster of a world in which all may export one service.
type member struct {
	region, network string
	health          string
	drained         int
	ready, notReady int // no endpoints: no export
	weight          string
}

type members map[string]member

// shares resolves the world as cluster from, and gives the percentage of its
// requests to the service that each cluster gets. served is false where they fail.
func (m members) shares(t testing.TB, from string, even bool) (shares map[string]float64, served bool) {
	var meta, health, drain strings.Builder
	files := map[string][]byte{}
	for id, x := range m {
		fmt.Fprintf(&meta, "%s: {region: %q, network: %q, crossing: [\"192.0.2.1:15443\"]}\n", id, x.region, x.network)
		if x.health != "" {
			fmt.Fprintf(&health, "%s: %s\n", id, x.health)
		}
		fmt.Fprintf(&drain, "%s: %d\n", id, x.drained)
		if x.ready+x.notReady == 0 {
			files[id+".yaml"] = []byte("kind: Namespace\nmetadata: {name: app}\n")
			continue
		}
		a := ""
		if x.weight != "" {
			a = fmt.Sprintf("causeway.dev/weight: %q", x.weight)
		}
		if even {
			a = strings.TrimPrefix(a+", causeway.dev/distribution: even", ", ")
		}
		files[id+".yaml"] = fmt.Appendf(nil, `kind: Service
metadata: {namespace: app, name: a}
spec: {ports: [{port: 80}]}
---
kind: ServiceExport
metadata: {namespace: app, name: a, annotations: {%s}}
---
kind: Pods
metadata: {namespace: app, name: a}
ready: %d
notReady: %d
`, a, x.ready, x.notReady)
	}
	files["meta.yaml"], files["health.yaml"], files["drain.yaml"] = []byte(meta.String()), []byte(health.String()), []byte(drain.String())
	e := newExplainer(resolve.Resolve(cluster.ID(from), resolvetest.Files(t, files)))
	key := resolve.BackendKey{Kind: resolve.BackendImport, Namespace: "app", Name: "a", Port: 80}
	if _, ok := e.res.Backends.Get([]byte(key.String())); !ok {
		return nil, false
	}
	d := e.destination(key)
	shares = map[string]float64{}
	for _, g := range d.Groups {
		shares[string(g.Cluster)] += 100 * g.Share
	}
	return shares, !d.Unhealthy && len(d.Groups) > 0
}

// TestDrainShares: who gets what of a client's requests, in percent.
func TestDrainShares(t *testing.T) {
	eu, us := member{region: "eu", network: "n", ready: 3}, member{region: "us", network: "us", ready: 3}
	none := member{region: "eu", network: "n"}
	with := func(m member, change func(*member)) member { change(&m); return m }
	drained := func(m member, percent int) member { return with(m, func(m *member) { m.drained = percent }) }
	weight := func(m member, w string) member { return with(m, func(m *member) { m.weight = w }) }
	health := func(m member, h string) member { return with(m, func(m *member) { m.health = h }) }
	pods := func(m member, ready, notReady int) member {
		return with(m, func(m *member) { m.ready, m.notReady = ready, notReady })
	}
	for _, c := range []struct {
		name string
		in   members
		even bool
		want map[string]float64 // those with more than nothing
	}{
		{"not drained", members{"west": eu, "east": eu, "south": us}, false, map[string]float64{"west": 50, "east": 50}},
		{"half, with a peer", members{"west": drained(eu, 50), "east": eu, "south": us}, false, map[string]float64{"west": 25, "east": 75}},
		{"two of three", members{"west": drained(eu, 50), "east": drained(eu, 80), "north": eu}, false, map[string]float64{"west": 16.7, "east": 6.7, "north": 76.7}},
		{"alone in its region", members{"west": drained(eu, 30), "south": us}, false, map[string]float64{"west": 70, "south": 30}},
		{"almost all", members{"west": drained(eu, 99), "south": us}, false, map[string]float64{"west": 1, "south": 99}},
		{"in full", members{"west": drained(eu, 100), "south": us}, false, map[string]float64{"south": 100}},
		{"alone, and not all ready", members{"west": drained(pods(eu, 3, 3), 50), "south": us}, false, map[string]float64{"west": 35, "south": 65}},
		{"one ready of many", members{"west": drained(pods(eu, 1, 200), 50), "south": us}, false, map[string]float64{"west": 1, "south": 99}},
		{"a whole region: the least counts", members{"west": drained(eu, 60), "east": drained(eu, 20), "south": us}, false, map[string]float64{"west": 20, "east": 60, "south": 20}},
		{"of another network", members{"west": eu, "east": with(drained(eu, 50), func(m *member) { m.network = "x" })}, false, map[string]float64{"west": 75, "east": 25}},
		{"only exporter", members{"west": drained(eu, 50), "south": none}, false, map[string]float64{"west": 100}},
		{"only exporter, in full", members{"west": drained(eu, 100), "south": none}, false, map[string]float64{"west": 100}},
		{"nobody else is ready", members{"west": drained(eu, 100), "east": pods(eu, 0, 3), "south": pods(us, 0, 3)}, false, map[string]float64{"west": 100}},
		{"all are drained in full: nearest first", members{"west": drained(eu, 100), "south": drained(us, 100)}, false, map[string]float64{"west": 100}},
		{"all are draining: the least counts", members{"west": drained(eu, 75), "south": drained(us, 50)}, false, map[string]float64{"west": 50, "south": 50}},
		{"to a suspect cluster", members{"west": drained(eu, 50), "south": health(us, "Suspect")}, false, map[string]float64{"west": 50, "south": 50}},
		{"never to a dead one", members{"west": drained(eu, 100), "south": health(us, "Dead")}, false, map[string]float64{"west": 100}},
		{"dead itself", members{"west": health(drained(eu, 50), "Dead"), "south": us}, false, map[string]float64{"south": 100}},
		{"to one of weight 0", members{"west": drained(eu, 50), "south": weight(us, "0")}, false, map[string]float64{"west": 50, "south": 50}},
		{"in full to one of weight 0", members{"west": drained(eu, 100), "south": weight(us, "0")}, false, map[string]float64{"south": 100}},
		{"by weight", members{"west": drained(weight(eu, "3"), 50), "east": weight(eu, "1")}, false, map[string]float64{"west": 37.5, "east": 62.5}},
		{"even", members{"west": drained(eu, 50), "south": us}, true, map[string]float64{"west": 25, "south": 75}},
		{"overflow into a tier that drains", members{"client": pods(eu, 1, 1), "west": drained(eu, 50), "south": us}, false, map[string]float64{"client": 70, "west": 15, "south": 15}},
		{"its own clients", members{"client": drained(eu, 100), "west": eu}, false, map[string]float64{"client": 100}},
		{"its own clients, even", members{"client": drained(eu, 100), "west": eu}, true, map[string]float64{"client": 50, "west": 50}},
		{"its own clients, with nothing left", members{"client": drained(pods(eu, 0, 3), 50), "west": eu}, false, map[string]float64{"west": 100}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, ok := c.in["client"]; !ok {
				c.in["client"] = none
			}
			got, served := c.in.shares(t, "client", c.even)
			maps.DeleteFunc(got, func(_ string, s float64) bool { return s == 0 })
			if !served || !maps.EqualFunc(got, c.want, func(a, b float64) bool { return math.Abs(a-b) < 0.6 }) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestDrainLaws: in any world, draining loses no request, never takes anything
// from a cluster's own clients, gives a drained cluster no more than before, and
// nothing once it is drained in full while somebody else is not.
func TestDrainLaws(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		pick := func(label string, of ...string) string { return rapid.SampledFrom(of).Draw(rt, label) }
		before, after := members{}, members{}
		ids := []string{"client", "east", "south", "west"}
		for _, id := range ids {
			x := member{region: pick("region", "eu", "us"), network: pick("network", "n", "x"), health: pick("health", "", "", "", "Suspect", "Dead"),
				ready: rapid.IntRange(0, 4).Draw(rt, "ready"), notReady: rapid.IntRange(0, 4).Draw(rt, "notReady"), weight: pick("weight", "", "", "0", "3", "40")}
			before[id] = x
			x.drained = rapid.SampledFrom([]int{0, 0, 1, 20, 50, 99, 100}).Draw(rt, "drained")
			after[id] = x
		}
		even := rapid.Bool().Draw(rt, "even")
		_, served := before.shares(t, "client", even)
		is, still := after.shares(t, "client", even)
		if served != still {
			rt.Fatalf("served: %t without drains, %t with them: %v", served, still, after)
		}
		if !served {
			return
		}
		sum := 0.0
		for _, s := range is {
			sum += s
		}
		if math.Abs(sum-100) > 0.01 {
			rt.Fatalf("%v%% of the requests are served: %v", sum, after)
		}
		undrained := slices.ContainsFunc(ids, func(id string) bool {
			x := after[id]
			return x.ready > 0 && (id == "client" || x.drained < 100 && x.health != "Dead")
		})
		for _, id := range ids[1:] {
			if undrained && after[id].drained == 100 && is[id] > 0 {
				rt.Fatalf("%s is drained and gets %v%%: %v", id, is[id], after)
			}
		}
		// Where all are ready, a client's own cluster has what it had, or more, and one
		// that drains alone has the part that is left to it. Envoy reckons in whole percent.
		for _, id := range ids {
			x, y := before[id], after[id]
			x.notReady, x.ready, x.health = 0, x.ready+x.notReady, ""
			y.notReady, y.ready, y.health = 0, x.ready, ""
			before[id], after[id] = x, y
		}
		was, _ := before.shares(t, "client", even)
		is, _ = after.shares(t, "client", even)
		if is["client"] < was["client"]-1.01 {
			rt.Fatalf("the client's own cluster had %v%% and has %v%%: %v", was["client"], is["client"], after)
		}
		if i := slices.IndexFunc(ids, func(id string) bool { return after[id].drained > 0 && id != "client" }); i > 0 {
			id, others := ids[i], slices.ContainsFunc(ids, func(id string) bool { return id != ids[i] && before[id].ready > 0 })
			before[id] = after[id]
			is, _ = before.shares(t, "client", even)
			if want := was[id] * float64(100-before[id].drained) / 100; others && math.Abs(is[id]-want) > 1.01 {
				rt.Fatalf("%s had %v%%, is drained by %d%% and has %v%%: %v", id, was[id], before[id].drained, is[id], before)
			}
		}
	})
}
