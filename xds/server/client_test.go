package server

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"

	"github.com/causeway-mesh/causeway/xds/translate"
)

// client behaves as Envoy does on a delta ADS stream, as far as the server can
// see, and checks the order of what it gets.
type client struct {
	have   [kinds]map[string]*taken
	named  [kinds]map[string]bool
	asked  [kinds]bool
	refuse func(k kind, name, version string) bool
	// refused names clusters, and what chains lead through, that it could not use because
	// it refused them.
	refused map[string]bool
	// draining counts the former listeners that keep routes.
	draining map[string]int
	// paused holds back answers about clusters while one of them warms, as Envoy does.
	pausing bool
	paused  []*discoveryv3.DeltaDiscoveryRequest
	faults  []string
	nacks   int
	out     []*discoveryv3.DeltaDiscoveryRequest // requests on their way
}

// taken is a resource that the client has.
type taken struct {
	version string
	refs    []key
	// reported: the version would stand in initial_resource_versions.
	reported bool
	// warming: a cluster that has not had its endpoints since it changed.
	warming, active bool
}

func newClient() *client {
	c := &client{refuse: func(kind, string, string) bool { return false }, refused: map[string]bool{}, draining: map[string]int{}}
	for k := range kinds {
		c.have[k], c.named[k] = map[string]*taken{}, map[string]bool{}
	}
	return c
}

// connect opens a stream: it tells what it wants and what it has.
func (c *client) connect() {
	c.out, c.paused = nil, nil
	c.asked = [kinds]bool{}
	for k := range kinds {
		for name, t := range c.have[k] {
			if !t.reported { // the model does not follow what a server can't know
				delete(c.have[k], name)
			}
		}
	}
	warming := c.warming() // Envoy asks for clusters once they are warm
	for _, k := range []kind{kindCluster, kindEndpoint, kindListener, kindRoute} {
		if k == kindCluster && warming {
			continue
		}
		c.open(k)
	}
}

func (c *client) open(k kind) {
	names := slices.Sorted(maps.Keys(c.named[k]))
	if k.OnDemand() && len(names) == 0 {
		return
	}
	c.asked[k] = true
	req := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: k.URL(), ResourceNamesSubscribe: names, InitialResourceVersions: map[string]string{}}
	for name, t := range c.have[k] {
		req.InitialResourceVersions[name] = t.version
	}
	c.out = append(c.out, req)
}

func (c *client) fault(parts ...string) { c.faults = append(c.faults, strings.Join(parts, " ")) }

func (c *client) warming() bool {
	for _, t := range c.have[kindCluster] {
		if t.warming {
			return true
		}
	}
	return false
}

// receive takes a response and answers it.
func (c *client) receive(resp *discoveryv3.DeltaDiscoveryResponse) {
	k, _ := translate.KindOf(resp.GetTypeUrl())
	bad := ""
	for _, r := range resp.GetResources() {
		if c.refuse(k, r.GetName(), r.GetVersion()) {
			bad = r.GetName()
		}
	}
	for _, r := range resp.GetResources() {
		if c.refuse(k, r.GetName(), r.GetVersion()) {
			if have := c.have[k][r.GetName()]; k == kindCluster && (have == nil || !have.active) || k == kindListener || k == kindRoute {
				c.refused[r.GetName()] = true
			}
			if k == kindEndpoint {
				c.warmed(r.GetName()) // a refusal ends warming too
			}
			continue
		}
		// Of a rejected response, Envoy keeps the good clusters and listeners alone.
		if k.OnDemand() && !c.named[k][r.GetName()] {
			continue // it was on its way when the client lost interest
		}
		if bad == "" || !k.OnDemand() {
			m, err := r.GetResource().UnmarshalNew()
			if err != nil {
				panic(err)
			}
			c.take(k, r.GetName(), &taken{version: r.GetVersion(), refs: translate.FactsOf(m).Refs, reported: bad == ""})
		}
	}
	for _, name := range resp.GetRemovedResources() {
		if bad == "" || !k.OnDemand() {
			c.lose(k, name)
		}
	}
	ack := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: k.URL(), ResponseNonce: resp.GetNonce()}
	if bad != "" {
		c.nacks++
		ack.ErrorDetail = &statuspb.Status{Code: 13, Message: "bad: " + bad}
	}
	c.resubscribe()
	if k == kindCluster && c.pausing && c.warming() {
		c.paused = append(c.paused, ack)
		return
	}
	c.out = append(c.out, ack)
	if !c.warming() {
		if !c.asked[kindCluster] {
			c.open(kindCluster)
		}
		c.out = append(c.out, c.paused...)
		c.paused = nil
	}
}

func (c *client) take(k kind, name string, t *taken) {
	old := c.have[k][name]
	switch k {
	case kindCluster:
		for _, ref := range t.refs {
			if ref.Kind == kindEndpoint && (old == nil || old.version != t.version) {
				t.warming = true
			}
		}
		t.active = !t.warming || old != nil && old.active
		if old != nil && old.version == t.version {
			t.warming, t.active = old.warming, old.active
		}
		if t.active {
			delete(c.refused, name)
		}
	case kindEndpoint:
		c.warmed(name)
	case kindListener, kindRoute:
		delete(c.refused, name)
		if k == kindListener {
			c.replace(old, t.version)
		}
		for _, ref := range t.refs {
			if c.refused[ref.Name] || ref.Kind != kindCluster {
				continue
			}
			cl := c.have[kindCluster][ref.Name]
			if cl == nil || !cl.active {
				c.fault(k.String(), name, t.version, "came before cluster", ref.Name)
				continue
			}
			for _, ref := range cl.refs {
				if ref.Kind == kindListener && !c.refused[ref.Name] && (old == nil || old.version != t.version) {
					_, life := lives(t.version)
					c.follow(ref.Name, k.String()+" "+name+" "+t.version, life)
				}
			}
		}
		for _, ref := range t.refs {
			if ref.Kind == kindRoute && k == kindListener && (old == nil || old.version != t.version) {
				life, _ := lives(t.version)
				c.begin(name+" "+t.version, ref.Name, life)
			}
		}
	}
	c.have[k][name] = t
}

// lives are which of the successive routes of a name a version goes with: "...@life."
// of its own routes, and once more of those of the chain that it leads to.
func lives(version string) (own, chain int) {
	parts := strings.Split(version, "@")
	life := func(s string) int {
		n, _, _ := strings.Cut(s, ".")
		i, _ := strconv.Atoi(n)
		return i
	}
	if len(parts) == 1 {
		return 0, 0
	}
	return life(parts[1]), life(parts[len(parts)-1])
}

// begin checks the routes with which something begins, if there are any yet.
func (c *client) begin(what, route string, least int) {
	have := c.have[kindRoute][route]
	if have == nil || c.refused[route] {
		return
	}
	if own, _ := lives(have.version); own < least {
		c.fault(what, "begins with routes", have.version)
	}
}

// follow checks that a chain is ready for what now leads there.
func (c *client) follow(listener, what string, life int) {
	l := c.have[kindListener][listener]
	if l == nil {
		c.fault(what, "came before listener", listener)
		return
	}
	for _, ref := range l.refs {
		if ref.Kind != kindRoute || c.refused[ref.Name] {
			continue
		}
		if c.have[kindRoute][ref.Name] == nil {
			c.fault(what, "came before routes", ref.Name)
		}
		c.begin(what, ref.Name, life)
	}
}

// replace lets a listener that is gone or replaced drain; it keeps its routes.
func (c *client) replace(old *taken, version string) {
	if old == nil || old.version == version {
		return
	}
	for _, ref := range old.refs {
		if ref.Kind == kindRoute {
			c.draining[ref.Name]++
		}
	}
}

// drained ends all draining.
func (c *client) drained() {
	clear(c.draining)
	c.resubscribe()
}

// live reports whether a listener that does not drain has the routes.
func (c *client) live(route string) bool {
	for _, l := range c.have[kindListener] {
		if slices.Contains(l.refs, key{Kind: kindRoute, Name: route}) {
			return true
		}
	}
	return false
}

func (c *client) warmed(endpoints string) {
	for name, cl := range c.have[kindCluster] {
		if slices.Contains(cl.refs, key{Kind: kindEndpoint, Name: endpoints}) {
			cl.warming, cl.active = false, true
			delete(c.refused, name)
		}
	}
}

func (c *client) lose(k kind, name string) {
	switch k {
	case kindRoute:
		return // Envoy ignores that; it drops routes when it unsubscribes
	case kindEndpoint:
		c.warmed(name)
		return
	case kindListener:
		c.replace(c.have[k][name], "")
	case kindCluster:
		for _, by := range []kind{kindListener, kindRoute} {
			for n, t := range c.have[by] {
				if slices.Contains(t.refs, key{Kind: k, Name: name}) && (by == kindListener || c.live(n) && !c.refused[n]) {
					c.fault("cluster", name, "went while", by.String(), n, "refers to it")
				}
			}
		}
	}
	delete(c.have[k], name)
}

// resubscribe asks for what the clusters and listeners refer to.
func (c *client) resubscribe() {
	for _, step := range [][2]kind{{kindCluster, kindEndpoint}, {kindListener, kindRoute}} {
		by, k := step[0], step[1]
		want := map[string]bool{}
		for _, t := range c.have[by] {
			for _, ref := range t.refs {
				if ref.Kind == k {
					want[ref.Name] = true
				}
			}
		}
		if k == kindRoute {
			for name := range c.draining {
				want[name] = true
			}
		}
		req := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: k.URL()}
		for _, name := range slices.Sorted(maps.Keys(want)) {
			if !c.named[k][name] {
				req.ResourceNamesSubscribe = append(req.ResourceNamesSubscribe, name)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(c.named[k])) {
			if !want[name] {
				req.ResourceNamesUnsubscribe = append(req.ResourceNamesUnsubscribe, name)
				delete(c.have[k], name)
			}
		}
		c.named[k] = want
		if len(req.GetResourceNamesSubscribe())+len(req.GetResourceNamesUnsubscribe()) == 0 {
			continue
		}
		if !c.asked[k] {
			c.open(k)
			continue
		}
		c.out = append(c.out, req)
	}
}
