package differential

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/causeway-mesh/causeway/federation/explain"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/xds/translate"
)

var (
	firstSeed = flag.Uint64("seed", 1, "the seed of the first world")
	worlds    = flag.Int("worlds", 40, "how many worlds")
	requests  = flag.Int("requests", 60, "requests to each world")
)

// repeats is how often a request is sent where the whole set of backends must be
// seen, and sure the share of requests above which one must be among them:
// (1-sure)^repeats is one in ten million.
const (
	repeats = 60
	sure    = 0.25
)

// TestExplainTellsWhatEnvoyDoes is the test that the package is for.
func TestExplainTellsWhatEnvoyDoes(t *testing.T) {
	r := newRig(t)
	p := newPods(t, r.own, 6, east, west, north)
	sources := map[string]translate.Proxy{
		"east/gateway/app/gw": {Cluster: east, Role: translate.RoleGateway, Namespace: "app", Name: "gw"},
		"east/app":            {Cluster: east, Role: translate.RoleSidecar, Namespace: "app", Name: "sidecar"},
		"east/dev":            {Cluster: east, Role: translate.RoleSidecar, Namespace: "dev", Name: "sidecar"},
	}
	for _, x := range sources {
		r.start(x)
	}
	crossing := translate.Proxy{Cluster: north, Role: translate.RoleCrossing, Namespace: "causeway-system", Name: "crossing"}
	r.start(crossing)
	entry, _ := r.proxies[crossing.ID()].binds.Crossing(crossing)
	var mu sync.Mutex // of outcomes
	outcomes := map[string]int{}
	sent := 0
	for i, seed := range seeds() {
		results := views{}
		for c, snapshot := range draw(t, seed, p, entry.String()) {
			results[c] = resolve.Resolve(c, snapshot)
		}
		p.hangUp()
		r.follow(int64(i+1), results)
		chance := rand.New(rand.NewPCG(seed, 1))
		var waiting sync.WaitGroup
		for range *requests {
			from, req := drawRequest(chance, false)
			source, err := explain.ParseSource(from)
			if err != nil {
				t.Fatal(err)
			}
			n := 1
			if chance.IntN(15) == 0 {
				n = repeats
			}
			sent += n
			compare := func() {
				outcome, err := r.compare(r.proxies[sources[from].ID()], results, source, req, n)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Errorf("seed %d: %s: %s: %v", seed, from, show(req), err)
				}
				outcomes[outcome]++
			}
			if req.Scheme == "udp" {
				waiting.Go(compare) // that there is no answer takes time to see
			} else {
				compare()
			}
		}
		waiting.Wait()
		if t.Failed() {
			break
		}
	}
	t.Logf("%d requests: %v", sent, outcomes)
	for _, want := range []string{"served", "closed", "200", "403", "421", "404", "500", "503", "redirected", "chained", "allowed", "refused", "silent",
		"passed on", "passed on to another network", "datagram", "datagram to another network", "unreachable", "not understood"} {
		if outcomes[want] == 0 && *worlds >= 40 {
			t.Errorf("not one request was %s: the test shows nothing about it", want)
		}
	}
}

// onceWrong are worlds in which explain and Envoy once differed, in the order in which
// they have to follow each other.
var onceWrong = []uint64{
	1188, 1189, // a chain whose producer routes are no HTTPRoutes any more
}

// seeds are those of the worlds to try.
func seeds() (out []uint64) {
	if *worlds >= 40 {
		out = slices.Clone(onceWrong)
	}
	for i := range *worlds {
		out = append(out, *firstSeed+uint64(i))
	}
	return out
}

// compare sends a request and holds what happens against the explanation.
func (r *rig) compare(p *proxy, results views, from explain.Source, q request, n int) (string, error) {
	x := explain.Explain(results[p.Cluster], from, q.Request)
	at, listening := p.listens(from, q.Request)
	switch {
	case x.Problem != "" && !listening:
		return "unreachable", nil
	case x.Problem != "":
		if got := r.send(at, q, true); got.seen != nil {
			return "", fmt.Errorf("explained as unreachable (%s), but it reached %+v", x.Problem, got.seen)
		}
		return "not understood", nil
	case !listening:
		return "", fmt.Errorf("explained as reachable, but nothing listens for it")
	}
	all := results.leaves(x.Hop, leaf{request: x.Request})
	var expected, met = map[string]float64{}, map[string]bool{}
	closes, raw := false, false
	for i := range all {
		closes, raw = closes || all[i].closed, raw || all[i].raw
		for mark, share := range all[i].expected() {
			expected[mark] += share
		}
	}
	if closes && len(all) == 1 {
		n = 1
	}
	var last string
	for _, got := range r.sendAll(at, q, n, closes, raw) {
		var whyNot []string
		found := ""
		for i := range all {
			if why := all[i].differs(got); why != "" {
				whyNot = append(whyNot, fmt.Sprintf("not %s: %s", all[i].name(), why))
			} else {
				found = all[i].kind()
				met[all[i].mark(got)] = true
			}
		}
		if found == "" {
			return "", fmt.Errorf("got %s, which is none of what was explained:\n  %s", got, strings.Join(append(whyNot, verdicts(x.Hop)...), "\n  "))
		}
		last = found
	}
	for mark, share := range expected {
		if n == repeats && share > sure && !met[mark] {
			return "", fmt.Errorf("of %d requests none had this outcome, which %.0f %% are to have: %s", n, 100*share, mark)
		}
	}
	return last, nil
}

// verdicts shows what was explained of each rule.
func verdicts(h *explain.Hop) (out []string) {
	for _, v := range h.Rules {
		out = append(out, fmt.Sprintf("%s %+v: %s", translate.RuleName(v.Rule), v.Rule.Match, v.Lost))
	}
	for _, b := range h.Branches {
		if b.Chain != nil {
			out = append(out, verdicts(b.Chain)...)
		}
	}
	return out
}

// listens tells where a request goes, as DNS and a Gateway's address would.
func (p *proxy) listens(from explain.Source, q explain.Request) (netip.AddrPort, bool) {
	transport := translate.TransportTCP
	if q.Scheme == "udp" {
		transport = translate.TransportUDP
	}
	name := translate.GatewayListenerName(transport, q.Port)
	if from.Gateway == "" {
		k, ok := explain.FrontendOf(q.Host, from.Namespace)
		if !ok {
			return netip.AddrPort{}, false
		}
		name = translate.FrontendListenerName(k, transport, q.Port)
	}
	if _, ok := p.state.Load().Resources.Get(translate.TypeListener, name); !ok {
		return netip.AddrPort{}, false
	}
	return p.binds.Of(name), true
}
