package resolve

import (
	"cmp"
	"hash/fnv"
	"net/netip"
	"slices"
	"sort"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
)

// Weights within a tier. Without causeway.dev/weight every endpoint counts
// unitWeight; with it, a tier's weights add up to about tierWeight. Either way a
// cluster's weight is spread over all its endpoints, ready or not, so that what
// is not ready is missing from its share and overflows (Envoy's priority health
// goes by weight), and a crossing gateway weighs as much as the ready endpoints
// behind it. The sum stays far below Envoy's limit of 2^32.
const (
	unitWeight = 1000
	tierWeight = 1 << 24
	maxSum     = 1 << 31
	// Envoy reckons the health of a priority in whole percent of 1.4 times its
	// share of healthy weight: below 1/140 it is nothing at all.
	leastHealth      = 100
	overprovisioning = 140
)

// share is one cluster's part of a backend before tiers and weights.
type share struct {
	cluster  federation.Cluster
	weight   uint32 // causeway.dev/weight, 1 without
	crossing bool
	drained  uint64 // parts of whole of its requests that others are to take
	// ready, waiting and leaving are the endpoints that are ready, not ready,
	// and terminating but still serving.
	ready, waiting, leaving crowd
}

// crowd is a number of endpoints, and those among them that are reached by their
// own addresses. Behind crossing gateways that is none.
type crowd struct {
	n    uint64
	list []Endpoint
}

func (c *crowd) add(e Endpoint) { c.n, c.list = c.n+1, append(c.list, e) }

func (s *share) empty() bool { return s.count() == 0 }

func (s *share) count() uint64 { return s.ready.n + s.waiting.n }

// backendUnit computes a backend: its configuration and its endpoints.
func backendUnit(r *reader, key BackendKey) output {
	b := &Backend{Key: key, Config: BackendConfig{Protocol: protocolOf(corev1.Protocol(key.Protocol))}}
	var shares []share
	var even, weighted bool
	add := func(id cluster.ID, w *uint32) {
		c, known := r.cluster(id)
		if !known {
			return
		}
		s := r.service(id, key.Namespace, key.Name)
		if s == nil {
			return
		}
		x := share{cluster: c, weight: deref(w, 1), crossing: !r.direct(c)}
		// Crossing gateways carry TCP and, in CONNECT-UDP, UDP.
		crosses := (b.Config.Protocol == tcp || b.Config.Protocol == udp) && len(c.Meta.Crossing) > 0
		if x.crossing && !crosses {
			return
		}
		list := r.portSlices(id, s, key, b.Config.Protocol)
		// A cluster of the same network that has yet to publish addresses, or not to
		// any more, is entered as if it were of another.
		if !x.crossing && crosses && id != r.local && anyCounted(list) {
			x.crossing = true
		}
		var tls *BackendTLS
		if b.Config.Protocol == tcp {
			tls = r.backendTLS(id, s, key.Namespace, key.Name, key.Port)
		}
		if x.crossing {
			b.Config.Crossings = append(b.Config.Crossings, Crossing{Cluster: id, TrustDomain: c.Meta.TrustDomain, TLS: tls != nil})
			x.tally(list)
		} else {
			x.collect(list, id == r.local)
			if tls != nil {
				b.Config.TLS = append(b.Config.TLS, *tls)
			}
		}
		if id != r.local {
			x.drained = uint64(r.drained(id)) * whole / 100
		}
		shares = append(shares, x)
	}
	switch key.Kind {
	case BackendImport:
		m := r.merge(key.Namespace, key.Name)
		if m.imp == nil {
			return output{backend: b}
		}
		even = m.imp.Even
		b.Config.ClientIP, b.Config.AffinityTimeout = m.imp.ClientIP, m.imp.AffinityTimeout
		weights := map[cluster.ID]*uint32{}
		for _, e := range m.imp.Exporters {
			weights[e.Cluster] = e.Weight
			weighted = weighted || e.Weight != nil
		}
		for _, p := range m.imp.Ports {
			if p.Port == key.Port && p.Protocol == b.Config.Protocol {
				b.Config.AppProtocol = p.AppProtocol
				for _, id := range p.Clusters {
					if id == r.local || !m.imp.StaysLocal() {
						add(id, weights[id])
					}
				}
			}
		}
	default:
		id := r.local
		if key.Kind == BackendShare {
			id = key.Cluster
		}
		if s := r.service(id, key.Namespace, key.Name); s != nil {
			b.Config.ClientIP, b.Config.AffinityTimeout = affinity(s)
			for _, p := range s.Spec.Ports {
				if p.Port == key.Port && protocolOf(p.Protocol) == b.Config.Protocol {
					b.Config.AppProtocol = appProtocol(p)
				}
			}
		}
		add(id, nil)
	}
	if key.HTTP2 {
		b.Config.AppProtocol = AppH2C
	}
	b.Groups = r.group(shares, even, weighted)
	return output{backend: b}
}

// affinity reads a Service's sessionAffinity.
func affinity(s *corev1.Service) (clientIP bool, timeout time.Duration) {
	if s.Spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return false, 0
	}
	seconds := corev1.DefaultClientIPServiceAffinitySeconds
	if c := s.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		seconds = *c.ClientIP.TimeoutSeconds
	}
	return true, time.Duration(max(seconds, 0)) * time.Second
}

// direct tells whether this cluster reaches another's pods.
func (r *reader) direct(c federation.Cluster) bool {
	if c.ID == r.local {
		return true
	}
	mine, ok := r.cluster(r.local)
	return ok && mine.Meta.Network != "" && mine.Meta.Network == c.Meta.Network
}

// portSlice is an EndpointSlice with the number of the one port that matters.
type portSlice struct {
	*cluster.EndpointSlice
	port uint16
}

// portSlices gives a cluster's slices that have a port of its Service.
func (r *reader) portSlices(id cluster.ID, s *corev1.Service, key BackendKey, protocol string) []portSlice {
	name, found := "", false
	for _, p := range s.Spec.Ports {
		if p.Port == key.Port && protocolOf(p.Protocol) == protocol {
			name, found = p.Name, true
		}
	}
	if !found {
		return nil
	}
	var out []portSlice
	for _, o := range r.slicesOf(id, key.Namespace, key.Name) {
		slice, ok := o.Value.(*cluster.EndpointSlice)
		if !ok {
			continue
		}
		for _, p := range slice.Ports {
			if p.Name == name && protocolOf(corev1.Protocol(p.Protocol)) == protocol {
				out = append(out, portSlice{slice, p.Port})
			}
		}
	}
	return out
}

func anyCounted(list []portSlice) bool {
	return slices.ContainsFunc(list, func(s portSlice) bool { return s.Counts != nil })
}

// tally counts the endpoints, for a cluster that is entered by crossing gateways.
func (s *share) tally(list []portSlice) {
	for _, slice := range list {
		s.number(slice.Count())
	}
}

func (s *share) number(c cluster.EndpointCounts) {
	s.ready.n += uint64(c.Ready)
	s.waiting.n += uint64(c.NotReady)
	s.leaving.n += uint64(c.Leaving)
}

// collect takes the endpoints themselves, each address once. Those that are only
// counted can't be reached so; of one's own cluster, which a hub knows by what it
// published alone, they are there all the same.
func (s *share) collect(list []portSlice, own bool) {
	type state struct {
		e    Endpoint
		rank cluster.EndpointState
	}
	best := map[netip.AddrPort]state{}
	for _, slice := range list {
		if slice.Counts != nil && own {
			s.number(*slice.Counts)
		}
		for i := range slice.Endpoints {
			e := &slice.Endpoints[i]
			st := state{e: Endpoint{Addr: netip.AddrPortFrom(e.Addr, slice.port), Pod: e.Pod}, rank: e.State()}
			if st.rank == cluster.EndpointGone {
				continue
			}
			if old, ok := best[st.e.Addr]; !ok || st.rank > old.rank || (st.rank == old.rank && st.e.Pod < old.e.Pod) {
				best[st.e.Addr] = st
			}
		}
	}
	for _, st := range best {
		switch st.rank {
		case cluster.EndpointReady:
			s.ready.add(st.e)
		case cluster.EndpointNotReady:
			s.waiting.add(st.e)
		default:
			s.leaving.add(st.e)
		}
	}
}

// The tiers, before those without endpoints are closed up.
const (
	tierLocal = iota
	tierRegion
	tierRest
	tierSuspect
	tierParked // causeway.dev/weight: 0
	tierDead
	tierCount
)

// group ranks the clusters' shares, closes up the priorities and sets weights.
func (r *reader) group(shares []share, even, weighted bool) []EndpointGroup {
	var out []EndpointGroup
	priority := uint32(0)
	shares, draining := r.settleDrains(shares)
	left := uint64(100) // percent of the requests that come to a tier
	for _, tier := range r.tiers(shares, even) {
		if len(tier) == 0 {
			continue
		}
		first := len(out)
		weights := weigh(tier, weighted || even)
		shed := uint64(0)
		if draining {
			shed = drain(tier, weights)
		}
		for i, w := range weights {
			s := tier[i]
			g := EndpointGroup{Cluster: s.cluster.ID, Region: s.cluster.Meta.Region, Zone: s.cluster.Meta.Zone, Priority: priority, Crossing: s.crossing}
			if s.crossing {
				g.Endpoints = crossingEndpoints(s, w)
			} else {
				g.Endpoints = podEndpoints(s, w)
			}
			out = append(out, g)
		}
		keepVisible(out[first:])
		if draining {
			left -= withhold(out[first:], shed, left)
		}
		priority++
	}
	sort.SliceStable(out, func(i, j int) bool {
		if out[i].Priority != out[j].Priority {
			return out[i].Priority < out[j].Priority
		}
		return out[i].Cluster < out[j].Cluster
	})
	return out
}

// tiers sorts shares with endpoints into tiers. What was withdrawn (parked or
// dead clusters, terminating endpoints) comes back, below the rest, as soon as
// the rest has no endpoint that is ready: no failure ever leaves an empty set.
func (r *reader) tiers(shares []share, even bool) [tierCount][]*share {
	var tiers [tierCount][]*share
	mine, _ := r.cluster(r.local)
	for i := range shares {
		s := &shares[i]
		own := s.cluster.ID == r.local
		t := tierRest
		switch {
		case !own && s.cluster.Health.Liveness == federation.Dead:
			t = tierDead
		case s.weight == 0:
			t = tierParked
		case !own && s.cluster.Health.Liveness == federation.Suspect:
			t = tierSuspect
		case own || even:
			t = tierLocal
		case mine.Meta.Region != "" && mine.Meta.Region == s.cluster.Meta.Region:
			t = tierRegion
		}
		s.weight = max(s.weight, 1)
		tiers[t] = append(tiers[t], s)
	}
	usable := rally(tiers[tierLocal:tierParked])
	if usable && !allDraining(tiers[tierLocal:tierParked]) {
		tiers[tierParked] = nil
	} else {
		usable = rally(tiers[tierParked:tierDead]) || usable
	}
	if usable {
		tiers[tierDead] = nil
	} else {
		rally(tiers[tierDead:])
	}
	for t := range tiers {
		tiers[t] = slices.DeleteFunc(tiers[t], (*share).empty)
	}
	return tiers
}

// rally tells whether any of the shares can take requests; if none has a ready
// endpoint, those that are leaving count as ready.
func rally(tiers [][]*share) bool {
	all := slices.Concat(tiers...)
	isReady := func(s *share) bool { return s.ready.n > 0 }
	if slices.ContainsFunc(all, isReady) {
		return true
	}
	for _, s := range all {
		s.ready, s.leaving = s.leaving, crowd{}
	}
	return slices.ContainsFunc(all, isReady)
}

// weigh gives each cluster of a tier its weight: by explicit weights, or by the
// number of its endpoints.
func weigh(tier []*share, byWeight bool) []uint64 {
	out := make([]uint64, len(tier))
	var sum, count uint64
	for _, s := range tier {
		sum += uint64(s.weight)
		count += s.count()
	}
	unit := uint64(unitWeight)
	if count*unit > maxSum {
		unit = max(1, maxSum/count)
	}
	for i, s := range tier {
		if byWeight && len(tier) > 1 {
			out[i] = uint64(s.weight) * tierWeight / sum
		} else {
			out[i] = s.count() * unit
		}
	}
	return out
}

func podEndpoints(s *share, weight uint64) []Endpoint {
	each := clamp32(weight / s.count())
	out := make([]Endpoint, 0, len(s.ready.list)+len(s.waiting.list))
	add := func(c crowd, healthy bool) {
		for _, e := range c.list {
			e.Weight, e.Healthy = each, healthy
			out = append(out, e)
		}
		if n := c.n - uint64(len(c.list)); n > 0 {
			out = append(out, Endpoint{Weight: clamp32(n * (weight / s.count())), Healthy: healthy, Behind: int(n)})
		}
	}
	add(s.ready, true)
	add(s.waiting, false)
	sortEndpoints(out)
	return out
}

// crossingEndpoints are the gateways of a cluster of another network. With
// nobody ready behind them they stand for what is missing.
func crossingEndpoints(s *share, weight uint64) []Endpoint {
	gates := slices.Clone(s.cluster.Meta.Crossing)
	slices.Sort(gates)
	gates = slices.Compact(gates)
	out := make([]Endpoint, 0, len(gates)+1)
	if s.ready.n > 0 && s.waiting.n > 0 {
		missing := weight * s.waiting.n / s.count()
		weight -= missing
		out = append(out, Endpoint{Addr: placeholder(s.cluster.ID, portNotReady), Weight: clamp32(missing), Behind: int(s.waiting.n), Missing: true})
	}
	for _, g := range gates {
		e := Endpoint{Weight: clamp32(weight / uint64(len(gates))), Healthy: s.ready.n > 0, Behind: int(s.ready.n)}
		if a, err := netip.ParseAddrPort(g); err == nil {
			e.Addr = a
		} else {
			e.Host = g
		}
		out = append(out, e)
	}
	sortEndpoints(out)
	return out
}

func sortEndpoints(list []Endpoint) {
	slices.SortFunc(list, func(a, b Endpoint) int {
		if c := cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Host, b.Host)); c != 0 || a.Healthy == b.Healthy {
			return c
		}
		if a.Healthy {
			return -1
		}
		return 1
	})
}

// What placeholders stand for tells them apart.
const portNotReady, portDrained = 9, 10

// placeholder is an address that no host has (RFC 1112, class E), one for each
// cluster and port.
func placeholder(id cluster.ID, port uint16) netip.AddrPort {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))
	n := h.Sum32()
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{240 | byte(n>>24)&7, byte(n >> 16), byte(n >> 8), byte(n)}), port)
}

// keepVisible makes unhealthy endpoints of a tier lighter where their weight
// would round the healthy ones' share down to nothing: one ready pod of three
// hundred still serves.
func keepVisible(tier []EndpointGroup) {
	var healthy, unhealthy, count uint64
	for _, g := range tier {
		for _, e := range g.Endpoints {
			if e.Healthy {
				healthy += uint64(e.Weight)
			} else {
				unhealthy += uint64(e.Weight)
				count++
			}
		}
	}
	limit := healthy * (leastHealth - 1)
	if healthy == 0 || unhealthy <= limit {
		return
	}
	each := uint32(max(1, limit/count))
	for _, g := range tier {
		for i := range g.Endpoints {
			if e := &g.Endpoints[i]; !e.Healthy {
				e.Weight = min(e.Weight, each)
			}
		}
	}
}
