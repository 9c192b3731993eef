package server

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"pgregory.net/rapid"

	"github.com/causeway-mesh/causeway/xds/translate"
)

// driver joins a ledger and a client by two queues, under a clock of its own.
type driver struct {
	t     *rapid.T
	c     *client
	l     *ledger
	wire  []*discoveryv3.DeltaDiscoveryResponse
	now   time.Time
	world world
	rev   int64
	bad   map[string]bool // versions that the client refuses
	lives map[string]int  // how many times routes of a name were gone
}

func (d *driver) pump() {
	for {
		k, resp := d.l.next(d.now)
		if resp == nil {
			break
		}
		if d.l.types[k].flight == nil {
			d.t.Fatalf("a response of %s is not in flight", k)
		}
		d.wire = append(d.wire, resp)
	}
	d.l.takeEvents()
	var p published
	d.l.status(&p)
	st := p.written()
	if st.Acked > st.Revision {
		d.t.Fatalf("acknowledged %d of %d", st.Acked, st.Revision)
	}
}

func (d *driver) connect(limits Limits) {
	d.t.Log("connect")
	d.l, d.wire = newLedger(limits), nil
	if len(d.c.have[kindCluster])+len(d.c.have[kindListener]) == 0 {
		d.c.drained() // nobody can tell it from a new one
	}
	d.c.connect()
	if d.rev > 0 {
		d.l.apply(batch{seq: uint64(d.rev), res: d.world.resources(), stamp: Stamp{d.rev, d.now}, full: true}, d.now)
	}
	d.pump()
}

func (d *driver) set(w world) {
	ch := w.since(d.world)
	d.world = w
	d.rev++
	d.t.Logf("set %v", ch)
	b := batch{seq: uint64(d.rev), res: w.resources(), stamp: Stamp{d.rev, d.now}, full: rapid.IntRange(0, 9).Draw(d.t, "full") == 0}
	for _, m := range []map[string][]string{ch.Changed, ch.Removed} {
		for typeURL, names := range m {
			k, _ := translate.KindOf(typeURL)
			if b.names[k] == nil {
				b.names[k] = map[string]struct{}{}
			}
			for _, n := range names {
				b.names[k][n] = struct{}{}
			}
		}
	}
	d.l.apply(b, d.now)
	d.pump()
}

func (d *driver) deliver() bool {
	if len(d.wire) == 0 {
		return false
	}
	resp := d.wire[0]
	d.t.Logf("response %v", resp)
	d.wire = d.wire[1:]
	d.c.receive(resp)
	if len(d.c.faults) > 0 {
		d.t.Fatal(strings.Join(d.c.faults, "\n"))
	}
	return true
}

func (d *driver) serve() bool {
	if len(d.c.out) == 0 {
		return false
	}
	req := d.c.out[0]
	d.t.Logf("request %v", req)
	d.c.out = d.c.out[1:]
	k, _ := translate.KindOf(req.GetTypeUrl())
	if err := d.l.request(k, req, d.now); err != nil {
		d.t.Fatal(err)
	}
	d.pump()
	return true
}

func (d *driver) settle() {
	for d.deliver() || d.serve() {
	}
}

// mutate draws a world in which everything that is referred to exists.
func (d *driver) mutate() world {
	t := d.t
	w := d.world.clone()
	version := func(what string) string {
		ver := v(what, rapid.IntRange(0, 3).Draw(t, "version"))
		if rapid.IntRange(0, 7).Draw(t, "bad") == 0 {
			ver += "-bad"
			d.bad[ver] = true
		}
		return ver
	}
	used := map[string]bool{}
	pick := func() string {
		c := v("c", rapid.IntRange(0, 4).Draw(t, "cluster"))
		used[c] = true
		return c
	}
	// What governs "chain", of which there are some at times, and what leads there.
	target := func() string {
		if rapid.IntRange(0, 2).Draw(t, "chains") > 0 {
			return pick()
		}
		used["chain"] = true
		return "chain"
	}
	gone := func(route string) {
		if w[kindRoute.URL()][route] != nil {
			w.drop(kindRoute, route)
			d.lives[route]++
		}
	}
	of := func(route string) string { return v("@", d.lives[route], ".") }
	// Listeners and routes first; then the clusters that they need.
	for i := range 3 {
		l, r := v("l", i), v("r", i)
		switch rapid.IntRange(0, 4).Draw(t, "listener") {
		case 0:
			w.drop(kindListener, l)
			gone(r)
		case 1:
			c := target()
			w.put(kindListener, version("tcp-"+c+"-"+of("chained")), tcpListener(l, 1000+i, c))
			gone(r)
		case 2:
			a, b := pick(), target()
			w.put(kindListener, version("http"+of(r)), httpListener(l, 1000+i, r))
			w.put(kindRoute, version("r-"+a+"-"+b+"-"+of(r)+"-"+of("chained")), routes(r, a, b))
		}
	}
	for _, k := range []kind{kindListener, kindRoute} {
		for _, r := range w[k.URL()] {
			for _, ref := range r.Facts.Refs {
				if ref.Kind == kindCluster {
					used[ref.Name] = true
				}
			}
		}
	}
	if !used["chain"] && rapid.Bool().Draw(t, "unchain") {
		w.drop(kindCluster, "chain").drop(kindListener, "chaining")
		gone("chained")
	} else if have := w[kindListener.URL()]["chaining"] != nil; used["chain"] && !have || have && rapid.IntRange(0, 3).Draw(t, "chained") == 0 {
		c := pick()
		w.put(kindCluster, "chain", chainCluster("chain", "chaining"))
		w.put(kindListener, version("chaining"+of("chained")), httpListener("chaining", 999, "chained"))
		w.put(kindRoute, version("chained"+c+of("chained")), routes("chained", c))
	}
	for i := range 5 {
		c := v("c", i)
		have := w[kindCluster.URL()][c] != nil
		switch {
		case !used[c] && rapid.Bool().Draw(t, "remove"):
			w.drop(kindCluster, c).drop(kindEndpoint, "eds/"+c)
			continue
		case used[c] && !have, rapid.IntRange(0, 3).Draw(t, "cluster") == 0:
			w.put(kindCluster, version("c"), edsCluster(c, time.Second))
			have = true
		}
		if e := w[kindEndpoint.URL()]["eds/"+c]; have && (e == nil || rapid.Bool().Draw(t, "endpoints")) {
			w.put(kindEndpoint, version("e"), endpoints(c, 1, 2))
		}
	}
	return w
}

func TestAnyOrderOfEventsBringsTheNewestWorld(t *testing.T) {
	for i := range 8 { // rapid's default is 100 runs; the rare orders need more
		t.Run(v(i), testAnyOrder)
	}
}

func testAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits, _ := Limits{
			Warm: 1000 * time.Hour, Linger: 3 * time.Second, ResponseBytes: rapid.SampledFrom([]int{200, 1000, 1 << 20}).Draw(t, "size"),
		}.complete()
		d := &driver{
			t: t, c: newClient(), world: newWorld(), now: time.Unix(1e9, 0),
			bad: map[string]bool{}, lives: map[string]int{},
		}
		d.c.refuse = func(_ kind, _, version string) bool { return d.bad[version] }
		d.c.pausing = rapid.Bool().Draw(t, "pausing")
		d.connect(limits)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0, 1:
				d.set(d.mutate())
			case 2, 3, 4:
				d.deliver()
			case 5, 6, 7:
				d.serve()
			case 8:
				d.now = d.now.Add(time.Duration(rapid.IntRange(0, 5000).Draw(t, "ms")) * time.Millisecond)
				d.pump()
			case 9:
				switch rapid.IntRange(0, 6).Draw(t, "rare") {
				case 0:
					d.connect(limits)
				case 1: // the cause of a refusal goes away
					for _, ver := range slices.Sorted(maps.Keys(d.bad)) {
						if rapid.Bool().Draw(t, "heal") {
							delete(d.bad, ver)
						}
					}
				case 2:
					d.settle()
				case 3:
					d.c.drained()
				}
			}
		}
		d.check()
		// Once nothing is refused any more, everything heals by itself.
		clear(d.bad)
		d.check()
		if n := len(d.l.rejected); n > 0 {
			t.Fatalf("%d resources are still set aside", n)
		}
	})
}

// check lets everything come to rest and compares the client with the world.
func (d *driver) check() {
	t := d.t
	d.settle()
	// Retries, lingering clusters; the last retries may free some, and those of chains
	// keep others.
	pauses := slices.Repeat([]time.Duration{2 * time.Minute}, 8)
	for _, pause := range append(pauses, 2000*time.Hour, 2*time.Minute, 2*time.Minute, 2*time.Minute) {
		d.now = d.now.Add(pause)
		d.c.drained()
		d.pump()
		d.settle()
	}
	var p published
	d.l.status(&p)
	st := p.written()
	rejected := map[key]bool{}
	for e := range d.l.rejected {
		rejected[e.key] = true
		if !d.bad[d.l.wanted(e)] {
			t.Errorf("%s %s is set aside though nothing is wrong with it", e.Kind, e.Name)
		}
	}
	for k := range kinds {
		for name, r := range d.world[k.URL()] {
			if k.OnDemand() && !d.c.named[k][name] {
				continue
			}
			got := d.c.have[k][name]
			switch {
			case rejected[key{Kind: k, Name: name}]:
			case got == nil || got.version != r.Version:
				t.Errorf("%s %s: want %s, client has %+v", k, name, r.Version, got)
			}
		}
		for name, got := range d.c.have[k] {
			if d.world[k.URL()][name] != nil {
				continue
			}
			// What something refused may still need stays: after a reconnect the server
			// does not know what the old version refers to.
			if len(rejected) == 0 {
				t.Errorf("%s %s %s is gone but the client has it", k, name, got.version)
			}
		}
		if st.Types[k].Pending != 0 {
			t.Errorf("%d of %s are pending", st.Types[k].Pending, k)
		}
	}
	for name, cl := range d.c.have[kindCluster] {
		if cl.warming {
			t.Errorf("cluster %s %s warms for ever", name, cl.version)
		}
	}
	if complete := st.Acked == d.rev; d.rev > 0 && complete != (len(rejected) == 0) {
		t.Errorf("acknowledged %d of %d with %d set aside: %v", st.Acked, d.rev, len(rejected), fmt.Sprint(d.l.rejections()))
	}
}
