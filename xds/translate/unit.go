package translate

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sort"
	"strconv"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// unit is a part of a proxy's configuration that is made at once, from one
// object. Immutable once it is part of a State.
type unit struct {
	key       unitKey
	resources map[string][]*Resource // by type
	needs     []unitKey              // sorted, each once
	problems  []Problem
}

type unitKind string

// The kinds of units. Those from chains on are there because others need them, all
// else for its own sake.
const (
	unitSecrets  unitKind = "secrets"
	unitFrontend unitKind = "frontend" // sidecar: a frontend, by its key
	unitRoutes   unitKind = "routes"   // all sidecars: what they share of a frontend, by its key
	unitGateway  unitKind = "gateway"  // gateway: its Gateway, by namespace/name
	unitCrossing unitKind = "crossing" // crossing: the listener for other networks
	unitEntry    unitKind = "entry"    // crossing: a frontend, by its key, for clients without a sidecar
	unitImport   unitKind = "import"   // crossing: an import, by namespace/name
	unitChain    unitKind = "chain"    // gateway: a frontend's port that is chained through
	unitBackend  unitKind = "backend"  // what speaks HTTP to it, or UDP
	unitRaw      unitKind = "raw"      // what passes bytes to it
	unitTunnel   unitKind = "tunnel"   // what tunnels UDP to it
	unitSecure   unitKind = "secure"   // crossing: how other networks' bytes reach it by TLS
	unitEndpoint unitKind = "endpoint"
)

// unitKey names a unit.
type unitKey struct {
	kind unitKind
	name string
	// frontend, port and raw are set for chains, whose name is that of the frontend.
	frontend resolve.FrontendKey
	port     int32
	raw      bool
}

func backendUnit(k resolve.BackendKey) unitKey { return unitKey{kind: unitBackend, name: k.String()} }

func rawUnit(k resolve.BackendKey) unitKey { return unitKey{kind: unitRaw, name: k.String()} }

func secureUnit(k resolve.BackendKey) unitKey { return unitKey{kind: unitSecure, name: k.String()} }

func tunnelUnit(k resolve.BackendKey) unitKey { return unitKey{kind: unitTunnel, name: k.String()} }

// chainUnit is what a share goes on through that has a chain.
func chainUnit(b *resolve.WeightedBackend) unitKey {
	return unitKey{kind: unitChain, name: b.Chain.String(), frontend: *b.Chain, port: b.Backend.Port, raw: b.ChainRaw}
}

func (k unitKey) isRoot() bool {
	switch k.kind {
	case unitChain, unitBackend, unitRaw, unitTunnel, unitSecure, unitEndpoint:
		return false
	}
	return true
}

func (k unitKey) prefix() string { return string(k.kind) + "/" + k.name + "/" }

// compare orders units, in no order that means anything.
func (k unitKey) compare(o unitKey) int {
	if c := cmp.Or(cmp.Compare(k.kind, o.kind), cmp.Compare(k.name, o.name), cmp.Compare(k.port, o.port)); c != 0 || k.raw == o.raw {
		return c
	}
	if k.raw {
		return 1
	}
	return -1
}

func (k unitKey) String() string {
	if k.kind == unitChain {
		s := k.prefix() + strconv.Itoa(int(k.port))
		if k.raw {
			s += "/" + infixRaw
		}
		return s
	}
	return string(k.kind) + "/" + k.name
}

// roots lists the units that a proxy has for their own sake.
func roots(in Input) []unitKey {
	var out []unitKey
	frontends := func(kind unitKind) {
		in.Result.Frontends.Root().Walk(func(k []byte, _ *resolve.Frontend) bool {
			out = append(out, unitKey{kind: kind, name: string(k)})
			return false
		})
	}
	if in.Proxy.Role == roleShared {
		frontends(unitRoutes)
		return out
	}
	out = append(out, unitKey{kind: unitSecrets})
	switch in.Proxy.Role {
	case RoleSidecar:
		frontends(unitFrontend)
	case RoleGateway:
		out = append(out, unitKey{kind: unitGateway, name: in.Proxy.Namespace + "/" + in.Proxy.Name})
	case RoleCrossing:
		out = append(out, unitKey{kind: unitCrossing})
		frontends(unitEntry)
		in.Result.Imports.Root().Walk(func(k []byte, _ *resolve.Import) bool {
			out = append(out, unitKey{kind: unitImport, name: string(k)})
			return false
		})
	}
	return out
}

// makeUnit translates a unit; nil if its object is gone.
func makeUnit(in Input, trust []string, k unitKey) (u *unit) {
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(packError)
			if !ok {
				panic(r)
			}
			u = &unit{key: k, problems: []Problem{{Subject: valid(k.name), Message: "is left out: " + e.err.Error()}}}
		}
	}()
	u = &unit{key: k, resources: map[string][]*Resource{}}
	ok := true
	switch k.kind {
	case unitSecrets:
		u.resources[TypeSecret], u.problems = secrets(in.Proxy.Role, in.Identity, in.Bundles, trust)
	case unitFrontend:
		ok = u.makeFrontend(in)
	case unitRoutes:
		ok = u.makeRoutes(in)
	case unitGateway:
		ok = u.makeGateway(in)
	case unitCrossing:
		u.makeCrossing(in)
	case unitImport:
		ok = u.makeImport(in)
	case unitEntry:
		ok = u.makeEntry(in)
	case unitChain:
		u.makeChain(in)
	case unitBackend, unitRaw:
		u.makeBackend(in)
	case unitTunnel:
		u.makeTunnel(in)
	case unitSecure:
		u.makeSecure(in)
	case unitEndpoint:
		u.makeEndpoint(in)
	}
	if !ok {
		return nil
	}
	slices.SortFunc(u.needs, unitKey.compare)
	u.needs = slices.Compact(u.needs)
	return u
}

// same reports whether nothing differs; then the old one may stay.
func (u *unit) same(o *unit) bool {
	return slices.Equal(u.needs, o.needs) && slices.Equal(u.problems, o.problems) &&
		maps.EqualFunc(u.resources, o.resources, func(a, b []*Resource) bool {
			return slices.EqualFunc(a, b, func(x, y *Resource) bool { return x == y || x.same(y) })
		})
}

func (u *unit) add(typeURL string, r *Resource) {
	u.resources[typeURL] = append(u.resources[typeURL], r)
}

func (u *unit) fail(subject, format string, a ...any) {
	u.problems = append(u.problems, Problem{Subject: subject, Message: fmt.Sprintf(format, a...)})
}

// routes are the shared part of a port: its RouteConfiguration, and what that needs.
type routes struct {
	resource *Resource
	needs    []unitKey
	problems []Problem
}

func (u *unit) addRoutes(r routes) {
	u.add(TypeRoute, r.resource)
	u.needs = append(u.needs, r.needs...)
	u.problems = append(u.problems, r.problems...)
}

// The purposes for which the Cache keeps what was made of a frontend or Gateway.
type (
	purposeRoutes struct {
		protocol string
		port     int32
		consumer string
		opts     Options
	}
	purposeListener struct {
		protocol string
		port     int32
		at       netip.AddrPort
		consumer string
		opts     Options
	}
	purposeFilter struct {
		hop    hop
		routes string
		opts   Options
	}
)

// governing finds the table that governs a namespace's requests to a port, and
// the namespace in whose name it does (empty: everybody's). An empty namespace
// has no consumer routes.
func governing(p *resolve.FrontendPort, namespace string) (*resolve.RouteTable, string) {
	i := sort.Search(len(p.Consumers), func(i int) bool { return p.Consumers[i].Namespace >= namespace })
	if namespace != "" && i < len(p.Consumers) && p.Consumers[i].Namespace == namespace {
		return p.Consumers[i].Table, namespace
	}
	return p.Producer, ""
}

// frontendRoutes translates what governs a port for a consumer namespace, which
// is empty for producer routes and for plain delivery.
func frontendRoutes(in Input, f *resolve.Frontend, p *resolve.FrontendPort, consumer string) routes {
	return get(&in.Cache.frontends, f, purposeRoutes{p.Protocol, p.Port, consumer, in.Options}, func() routes {
		set := &routeSet{opts: in.Options}
		name := FrontendRouteName(f.Key, p.Port)
		var host *routev3.VirtualHost
		if table, _ := governing(p, consumer); table != nil {
			host = set.virtualHost(f.Key.Host(), []string{"*"}, table, "")
		} else {
			host = set.plainHost(f.Key.Host(), f.Key, p.Backend)
		}
		config := routeConfiguration(name, []*routev3.VirtualHost{host})
		config.RequestHeadersToRemove = []string{headerPin} // the first hop's, where this is the second
		r := newResource(name, f.Key.String(), config)
		return routes{in.Cache.intern(TypeRoute, consumer, r), set.needs, set.problems}
	})
}

func frontendFilter(in Input, f *resolve.Frontend, h hop, routeName string) *listenerv3.Filter {
	config := get(&in.Cache.frontends, f, purposeFilter{h, routeName, in.Options}, func() *anypb.Any {
		return connectionManager(h, routeName, in.Options)
	})
	return networkFilter(filterHTTP, config)
}

func (u *unit) makeFrontend(in Input) bool {
	f, ok := in.Result.Frontends.Get([]byte(u.key.name))
	if !ok {
		return false
	}
	if f.Headless {
		return true
	}
	for i := range f.Ports {
		p := &f.Ports[i]
		transport, ok := FrontendTransport(p)
		if !ok {
			continue // SCTP
		}
		at, ok := in.Bindings.Frontend(in.Proxy, f.Key, transport, p.Port)
		if !ok || !at.IsValid() {
			u.fail(f.Key.String(), "port %d has no address to listen on yet", p.Port)
			continue
		}
		table, consumer := governing(p, in.Proxy.Namespace)
		if consumer != "" {
			u.take(wayTo(in, f, p, table, consumer, hopSidecar)) // all else is Shared
		}
		u.add(TypeListener, get(&in.Cache.frontends, f, purposeListener{p.Protocol, p.Port, at, consumer, in.Options}, func() *Resource {
			w := wayTo(in, f, p, table, consumer, hopSidecar)
			out := w.listener(FrontendListenerName(f.Key, transport, p.Port), at, hopSidecar)
			return in.Cache.intern(TypeListener, at.String()+infixFrom+consumer, newResource(out.Name, f.Key.String(), out))
		}))
	}
	return true
}

// makeEntry lets this cluster's clients without a sidecar into an import. Who they are
// is not known, so no consumer routes are theirs.
func (u *unit) makeEntry(in Input) bool {
	f, ok := in.Result.Frontends.Get([]byte(u.key.name))
	if !ok {
		return false
	}
	if f.Headless || f.Key.Kind != cluster.KindServiceImport {
		return true
	}
	for i := range f.Ports {
		p := &f.Ports[i]
		transport, ok := FrontendTransport(p)
		if !ok {
			continue // SCTP
		}
		at, ok := in.Bindings.Entry(in.Proxy, f.Key, transport, p.Port)
		if !ok || !at.IsValid() {
			continue
		}
		w := wayTo(in, f, p, p.Producer, "", hopEntry)
		u.take(w)
		out := w.listener(EntryListenerName(f.Key, transport, p.Port, at), at, hopEntry)
		u.add(TypeListener, newResource(out.Name, f.Key.String(), out))
	}
	return true
}

// way is how what comes to a frontend's port is delivered: by routes, or by
// passing connections or datagrams on.
type way struct {
	routes    *routes
	filter    *listenerv3.Filter         // of connections
	datagrams *listenerv3.ListenerFilter // of UDP
	needs     []unitKey
}

// listener makes the listener on which the way begins.
func (w *way) listener(name string, at netip.AddrPort, h hop) *listenerv3.Listener {
	out := frontendListener(name, at, h)
	if w.datagrams != nil {
		listenForUDP(out, at, w.datagrams)
	} else {
		out.FilterChains = []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{w.filter}}}
	}
	return out
}

// wayTo finds the way for those whom a table governs, nil for plain delivery.
func wayTo(in Input, f *resolve.Frontend, p *resolve.FrontendPort, table *resolve.RouteTable, consumer string, h hop) (w way) {
	switch {
	case p.Protocol == protocolUDP:
		targets := []udpTarget{{key: p.Backend, weight: 1}}
		if table != nil {
			targets = udpTargets(in, table.Forward)
		}
		w.datagrams, w.needs = udpFilter(targets, in.Options)
	case table != nil && table.Forward != nil:
		var targets []target
		targets, w.needs = tcpTargets(table.Forward, false)
		w.filter = tcpFilter(targets, h.stats(), in.Options)
	case table != nil || p.AppProtocol.HTTP():
		r := frontendRoutes(in, f, p, consumer)
		w.routes, w.filter = &r, frontendFilter(in, f, h, r.resource.Name)
	default:
		w.needs = []unitKey{rawUnit(p.Backend)}
		w.filter = tcpFilter([]target{{RawName(p.Backend), 1}}, h.stats(), in.Options)
	}
	return w
}

// take adds what a way needs besides the listener.
func (u *unit) take(w way) {
	if w.routes != nil {
		u.addRoutes(*w.routes)
	}
	u.needs = append(u.needs, w.needs...)
}

func (u *unit) makeChain(in Input) {
	subject := u.key.frontend.String()
	f, ok := in.Result.Frontend(u.key.frontend)
	if !ok {
		u.fail(subject, "a Gateway chains through it, and there is no such frontend: the share gets 500")
		return
	}
	p, ok := f.Port(protocolTCP, u.key.port)
	if !ok {
		u.fail(subject, "a Gateway chains through its port %d, which it does not have: the share gets 500", u.key.port)
		return
	}
	name := ChainName(f.Key, p.Port, u.key.raw)
	var filter *listenerv3.Filter
	if p.Producer != nil && p.Producer.Forward != nil {
		targets, needs := tcpTargets(p.Producer.Forward, false)
		u.needs = append(u.needs, needs...)
		filter = tcpFilter(targets, hopChain.stats(), in.Options)
	} else {
		r := frontendRoutes(in, f, p, "")
		u.addRoutes(r)
		filter = frontendFilter(in, f, hopChain, r.resource.Name)
	}
	u.add(TypeListener, newResource(name, subject, chainListener(name, filter)))
	u.add(TypeCluster, newResource(name, subject, chainCluster(name)))
}

func (u *unit) makeCrossing(in Input) {
	at, ok := in.Bindings.Crossing(in.Proxy)
	if !ok || !at.IsValid() {
		u.fail(nameCrossing, "there is no address to listen on yet")
		return
	}
	u.add(TypeListener, newResource(nameCrossing, nameCrossing, crossingListener(at, in.Options)))
}

// makeImport serves this cluster's own share of an export to other networks.
func (u *unit) makeImport(in Input) bool {
	m, ok := in.Result.Imports.Get([]byte(u.key.name))
	if !ok {
		return false
	}
	for i := range m.Ports {
		p := &m.Ports[i]
		if !slices.Contains(p.Clusters, in.Result.Local) {
			continue
		}
		own := resolve.BackendKey{Kind: resolve.BackendService, Namespace: m.Namespace, Name: m.Name, Port: p.Port}
		switch p.Protocol {
		case protocolTCP:
			name := own.SNI()
			u.needs = append(u.needs, endpointUnit(own))
			u.add(TypeCluster, in.Cache.intern(TypeCluster, "", newResource(name, "ServiceImport/"+u.key.name, edsCluster(name, EndpointsName(own)))))
			// Whoever enters by this name speaks plain text, and the port TLS. There is
			// none where no policy asks for it: nobody enters by it then.
			u.needs = append(u.needs, secureUnit(own))
		case protocolUDP:
			own.Protocol = protocolUDP
			u.makeTunnelEnd(in, own)
		}
	}
	return true
}

func endpointUnit(k resolve.BackendKey) unitKey { return unitKey{kind: unitEndpoint, name: k.String()} }

// clientCertificate is what a proxy shows to backends that are reached by TLS.
func clientCertificate(in Input) *resolve.Certificate {
	if in.Proxy.Role == RoleGateway {
		if g, ok := in.Result.Gateways.Get([]byte(in.Proxy.Namespace + "/" + in.Proxy.Name)); ok {
			return g.ClientCertificate
		}
	}
	return nil
}

// shared are the resources of a backend.
type shared struct {
	resource *Resource
	problems []Problem
}

// The purposes for which the Cache keeps what was made of a backend.
type (
	purposeCluster struct {
		raw   bool
		roots string
	}
	purposeSecure struct{ roots string } // by the name for TLS, at a crossing gateway
	purposeSet    struct{ debug bool }
)

func (u *unit) makeBackend(in Input) {
	b, ok := in.Result.Backends.Get([]byte(u.key.name))
	if !ok {
		u.fail(u.key.name, "the resolver knows no such backend: what goes there gets 500")
		return
	}
	name, raw, roots := b.Key.String(), u.key.kind == unitRaw, in.Options.SystemRoots
	var s shared
	switch cert := clientCertificate(in); {
	case cert != nil && len(b.Config.TLS) > 0 && !raw:
		// The Gateway's alone.
		c, problems := backendCluster(b, cert, roots)
		s = shared{newResource(name, name, c), problems}
	default:
		s = get(&in.Cache.backends, b, purposeCluster{raw, roots}, func() shared {
			var c *clusterv3.Cluster
			var problems []Problem
			if raw {
				c, problems = rawCluster(b)
			} else {
				c, problems = backendCluster(b, nil, roots)
			}
			return shared{in.Cache.intern(TypeCluster, "", newResource(c.Name, name, c)), problems}
		})
	}
	u.add(TypeCluster, s.resource)
	u.problems = append(u.problems, s.problems...)
	u.needs = append(u.needs, endpointUnit(b.Key))
}

// makeSecure makes the cluster by which a crossing gateway reaches a port of this
// cluster by TLS, if a policy asks for that.
func (u *unit) makeSecure(in Input) {
	b, ok := in.Result.Backends.Get([]byte(u.key.name))
	if !ok || len(b.Config.TLS) == 0 {
		return
	}
	roots := in.Options.SystemRoots
	u.add(TypeCluster, get(&in.Cache.backends, b, purposeSecure{roots}, func() *Resource {
		name := tlsSNI(b.Key)
		c := edsCluster(name, endpointsName(b))
		c.TransportSocketMatches = tlsMatches(b, b.Config.AppProtocol == resolve.AppH2C, nil, roots)
		return in.Cache.intern(TypeCluster, "", newResource(name, b.Key.String(), c))
	}))
	u.needs = append(u.needs, endpointUnit(b.Key))
}

func (u *unit) makeEndpoint(in Input) {
	b, ok := in.Result.Backends.Get([]byte(u.key.name))
	if !ok {
		return // said by the unit that needs it
	}
	s := get(&in.Cache.backends, b, purposeSet{in.Options.DebugHeaders}, func() shared {
		e, problems := assignment(endpointsName(b), b, in.Options, nil)
		return shared{in.Cache.intern(TypeEndpoint, "", newResource(e.ClusterName, b.Key.String(), e)), problems}
	})
	u.add(TypeEndpoint, s.resource)
	u.problems = append(u.problems, s.problems...)
}

const (
	protocolTCP  = "TCP"
	protocolUDP  = "UDP"
	protocolHTTP = "HTTP"

	protocolHTTPS = "HTTPS"
	protocolTLS   = "TLS"
)
