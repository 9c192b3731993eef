package translate

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sort"
	"strconv"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/anypb"

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

// The kinds of units. Chains and backends are there because others need them,
// all else for its own sake.
const (
	unitSecrets  unitKind = "secrets"
	unitFrontend unitKind = "frontend" // sidecar: a frontend, by its key
	unitRoutes   unitKind = "routes"   // all sidecars: what they share of a frontend, by its key
	unitGateway  unitKind = "gateway"  // gateway: its Gateway, by namespace/name
	unitCrossing unitKind = "crossing" // crossing: the listener
	unitImport   unitKind = "import"   // crossing: an import, by namespace/name
	unitChain    unitKind = "chain"    // gateway: a frontend's port that is chained through
	unitBackend  unitKind = "backend"
)

// unitKey names a unit.
type unitKey struct {
	kind unitKind
	name string
	// frontend and port are set for chains, whose name is that of the frontend.
	frontend resolve.FrontendKey
	port     int32
}

func backendUnit(k resolve.BackendKey) unitKey { return unitKey{kind: unitBackend, name: k.String()} }

func chainUnit(k resolve.FrontendKey, port int32) unitKey {
	return unitKey{kind: unitChain, name: k.String(), frontend: k, port: port}
}

func (k unitKey) isRoot() bool { return k.kind != unitChain && k.kind != unitBackend }

func (k unitKey) prefix() string { return string(k.kind) + "/" + k.name + "/" }

func (k unitKey) String() string {
	if k.kind == unitChain {
		return k.prefix() + strconv.Itoa(int(k.port))
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
	case unitChain:
		u.makeChain(in)
	case unitBackend:
		u.makeBackend(in)
	}
	if !ok {
		return nil
	}
	slices.SortFunc(u.needs, func(a, b unitKey) int {
		switch x, y := a.String(), b.String(); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
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
		http     bool
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
		r := newResource(name, f.Key.String(), routeConfiguration(name, []*routev3.VirtualHost{host}))
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
			continue // UDP and SCTP: not yet
		}
		at, ok := in.Bindings.Frontend(in.Proxy, f.Key, transport, p.Port)
		if !ok || !at.IsValid() {
			u.fail(f.Key.String(), "port %d has no address to listen on yet", p.Port)
			continue
		}
		name := FrontendListenerName(f.Key, p.Port)
		table, consumer := governing(p, in.Proxy.Namespace)
		http := table != nil || p.AppProtocol.HTTP()
		if consumer != "" {
			u.addRoutes(frontendRoutes(in, f, p, consumer)) // all else is Shared
		}
		u.add(TypeListener, get(&in.Cache.frontends, f, purposeListener{p.Protocol, p.Port, at, http, in.Options}, func() *Resource {
			var filter *listenerv3.Filter
			if http {
				filter = frontendFilter(in, f, hopSidecar, FrontendRouteName(f.Key, p.Port))
			} else {
				filter = networkFilter(filterTCP, pack(tcpProxy(p.Backend.String(), hopSidecar.stats(), in.Options)))
			}
			return in.Cache.intern(TypeListener, at.String(), newResource(name, f.Key.String(), frontendListener(name, at, filter)))
		}))
	}
	return true
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
	name := ChainName(f.Key, p.Port)
	r := frontendRoutes(in, f, p, "")
	u.addRoutes(r)
	filter := frontendFilter(in, f, hopChain, r.resource.Name)
	u.add(TypeListener, newResource(name, subject, chainListener(name, filter)))
	u.add(TypeCluster, newResource(name, subject, chainCluster(name)))
}

func (u *unit) makeGateway(in Input) bool {
	g, ok := in.Result.Gateways.Get([]byte(u.key.name))
	if !ok {
		return false
	}
	var ports []int32
	for i := range g.Listeners {
		if l := &g.Listeners[i]; !offered(l) {
			u.fail("Gateway/"+g.Key(), "listener %s: protocol %s is not supported", l.Name, clip(l.Protocol))
		} else if !slices.Contains(ports, l.Port) {
			ports = append(ports, l.Port)
		}
	}
	slices.Sort(ports)
	for _, port := range ports {
		at, ok := in.Bindings.Gateway(in.Proxy, TransportTCP, port)
		if !ok || !at.IsValid() {
			u.fail("Gateway/"+g.Key(), "port %d has no address to listen on yet", port)
			continue
		}
		r := gatewayRoutes(in, g, port)
		u.addRoutes(r)
		config := get(&in.Cache.gateways, g, purposeFilter{hopGateway, r.resource.Name, in.Options}, func() *anypb.Any {
			return connectionManager(hopGateway, r.resource.Name, in.Options)
		})
		name := GatewayListenerName(port)
		u.add(TypeListener, newResource(name, "Gateway/"+g.Key(), gatewayListener(name, at, networkFilter(filterHTTP, config))))
	}
	return true
}

func offered(l *resolve.Listener) bool {
	_, ok := ListenerTransport(l)
	return ok
}

// gatewayRoutes serves the listeners of a port by the union of their hosts, which
// are distinct (resolve.Listener).
func gatewayRoutes(in Input, g *resolve.Gateway, port int32) routes {
	return get(&in.Cache.gateways, g, purposeRoutes{protocolHTTP, port, "", in.Options}, func() routes {
		set := &routeSet{opts: in.Options}
		name := GatewayRouteName(g.Namespace, g.Name, port)
		var hosts []*routev3.VirtualHost
		seen := map[string]bool{}
		for i := range g.Listeners {
			l := &g.Listeners[i]
			if l.Port != port || l.Protocol != protocolHTTP {
				continue
			}
			for _, h := range l.Hosts {
				exact, ok := hostPattern(h.Hostname)
				switch {
				case !ok:
					set.fail("Gateway/"+g.Key(), "listener %s: %q is no hostname: it is left out", l.Name, clip(h.Hostname))
					continue
				case seen[h.Hostname]:
					set.fail("Gateway/"+g.Key(), "listener %s: hostname %s is another listener's: it is left out", l.Name, h.Hostname)
					continue
				}
				seen[h.Hostname] = true
				hosts = append(hosts, set.virtualHost(l.Name+"/"+h.Hostname, []string{h.Hostname}, h.Table, exact))
			}
		}
		config := gatewayConfiguration(name, hosts)
		r := newResource(name, "Gateway/"+g.Key(), config)
		return routes{in.Cache.intern(TypeRoute, "", r), set.needs, set.problems}
	})
}

func gatewayConfiguration(name string, hosts []*routev3.VirtualHost) *routev3.RouteConfiguration {
	out := routeConfiguration(name, hosts)
	// Envoy's edge adds it; X-Forwarded-For says the same.
	out.RequestHeadersToRemove = []string{"x-envoy-external-address"}
	return out
}

// hostPattern checks a virtual host's name: "*", "*.suffix", or one host, which
// exact then is.
func hostPattern(s string) (exact string, ok bool) {
	switch {
	case s == "*":
		return "", true
	case len(s) > 2 && s[:2] == "*.":
		return "", hostname(s[2:])
	}
	return s, hostname(s)
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
		if p.Protocol != protocolTCP || !slices.Contains(p.Clusters, in.Result.Local) {
			continue
		}
		own := resolve.BackendKey{Kind: resolve.BackendService, Namespace: m.Namespace, Name: m.Name, Port: p.Port}
		name := own.SNI()
		u.needs = append(u.needs, backendUnit(own))
		u.add(TypeCluster, in.Cache.intern(TypeCluster, "", newResource(name, "ServiceImport/"+u.key.name, edsCluster(name, own.String()))))
	}
	return true
}

// shared are the resources of a backend.
type shared struct {
	cluster, endpoints *Resource
	problems           []Problem
}

func (u *unit) makeBackend(in Input) {
	b, ok := in.Result.Backends.Get([]byte(u.key.name))
	if !ok {
		u.fail(u.key.name, "the resolver knows no such backend: what goes there gets 500")
		return
	}
	type purpose struct{}
	s := get(&in.Cache.backends, b, purpose{}, func() shared {
		name := b.Key.String()
		c, p := backendCluster(b)
		e, q := loadAssignment(b)
		return shared{
			cluster:   in.Cache.intern(TypeCluster, "", newResource(name, name, c)),
			endpoints: in.Cache.intern(TypeEndpoint, "", newResource(name, name, e)),
			problems:  append(p, q...),
		}
	})
	// A crossing gateway reaches endpoints by the cluster of their server name.
	if in.Proxy.Role != RoleCrossing {
		u.add(TypeCluster, s.cluster)
	}
	u.add(TypeEndpoint, s.endpoints)
	u.problems = append(u.problems, s.problems...)
}

const (
	protocolTCP  = "TCP"
	protocolHTTP = "HTTP"

	protocolHTTPS = "HTTPS"
	protocolTLS   = "TLS"
)
