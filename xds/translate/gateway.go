package translate

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	inspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

// gatewayPort is where a Gateway listens, with the listeners that share it.
type gatewayPort struct {
	transport Transport
	port      int32
	listeners []*resolve.Listener
}

// gatewayPorts groups a Gateway's listeners, sorted by port, then transport.
func gatewayPorts(g *resolve.Gateway) (out []gatewayPort) {
	for i := range g.Listeners {
		l := &g.Listeners[i]
		t, ok := ListenerTransport(l)
		if !ok {
			continue
		}
		at := slices.IndexFunc(out, func(p gatewayPort) bool { return p.transport == t && p.port == l.Port })
		if at < 0 {
			at = len(out)
			out = append(out, gatewayPort{transport: t, port: l.Port})
		}
		out[at].listeners = append(out[at].listeners, l)
	}
	slices.SortFunc(out, func(a, b gatewayPort) int {
		return cmp.Or(cmp.Compare(a.port, b.port), cmp.Compare(a.transport, b.transport))
	})
	return out
}

func (u *unit) makeGateway(in Input) bool {
	g, ok := in.Result.Gateways.Get([]byte(u.key.name))
	if !ok {
		return false
	}
	subject := "Gateway/" + g.Key()
	if format, on := g.Infrastructure.Parameters.LogFormat(); on {
		in.Options.AccessLog, in.Options.AccessLogFormat = StandardOutput, format
	}
	for i := range g.Listeners {
		if l := &g.Listeners[i]; !offered(l) {
			u.fail(subject, "listener %s: protocol %s is not supported", l.Key(), clip(l.Protocol))
		}
	}
	for _, p := range gatewayPorts(g) {
		at, ok := in.Bindings.Gateway(in.Proxy, p.transport, p.port)
		if !ok || !at.IsValid() {
			u.fail(subject, "port %d has no address to listen on yet", p.port)
			continue
		}
		out := &listenerv3.Listener{
			Name:             GatewayListenerName(p.transport, p.port),
			Address:          socketAddress(at),
			TrafficDirection: corev3.TrafficDirection_INBOUND,
		}
		switch p.listeners[0].Protocol {
		case protocolHTTP:
			r := gatewayRoutes(in, g, p.port)
			u.addRoutes(r)
			out.FilterChains = []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{gatewayFilter(in, g, r.resource.Name)}}}
		case protocolHTTPS, protocolTLS:
			u.tlsChains(in, g, p, out)
		case protocolTCP:
			if len(p.listeners) > 1 {
				u.fail(subject, "port %d has %d listeners of protocol TCP: the first gets all", p.port, len(p.listeners))
			}
			u.forwardTCP(out, nil, p.listeners[0].Forward, false, in.Options)
		case protocolUDP:
			f, needs := udpFilter(udpTargets(in, p.listeners[0].Forward), in.Options)
			u.needs = append(u.needs, needs...)
			listenForUDP(out, at, f)
		}
		if p.transport == TransportTCP && len(out.FilterChains) == 0 {
			continue // nothing is left of it; said above
		}
		u.add(TypeListener, newResource(out.Name, subject, out))
	}
	if g.ClientCertificate != nil {
		u.addSecret(certificateSecret(subject, g.ClientCertificate))
	}
	return true
}

// addSecret adds a secret that several listeners may share.
func (u *unit) addSecret(r *Resource) {
	if !slices.ContainsFunc(u.resources[TypeSecret], func(o *Resource) bool { return o.Name == r.Name }) {
		u.add(TypeSecret, r)
	}
}

func gatewayFilter(in Input, g *resolve.Gateway, routes string) *listenerv3.Filter {
	return networkFilter(filterHTTP, get(&in.Cache.gateways, g, purposeFilter{hopGateway, routes, in.Options}, func() *anypb.Any {
		return connectionManager(hopGateway, routes, in.Options)
	}))
}

// forwardTCP adds a filter chain that sends connections on.
func (u *unit) forwardTCP(out *listenerv3.Listener, chain *listenerv3.FilterChain, f *resolve.ForwardRule, tls bool, opts Options) {
	if chain == nil {
		chain = &listenerv3.FilterChain{}
	}
	targets, needs := tcpTargets(f, tls)
	u.needs = append(u.needs, needs...)
	chain.Filters = []*listenerv3.Filter{tcpFilter(targets, hopGateway.stats(), opts)}
	out.FilterChains = append(out.FilterChains, chain)
}

// listenForUDP makes a listener one of datagrams.
func listenForUDP(out *listenerv3.Listener, at netip.AddrPort, f *listenerv3.ListenerFilter) {
	out.Address = udpAddress(at)
	out.UdpListenerConfig = &listenerv3.UdpListenerConfig{}
	out.ListenerFilters = []*listenerv3.ListenerFilter{f}
	out.EnableReusePort = yes() // Envoy's workers can't share a socket of UDP
}

// tlsChains gives each listener of HTTPS a filter chain, and each server name of
// one of TLS. Envoy takes the most specific name that fits; a connection that none
// fits is closed. A chain that changes leaves the connections of others alone.
func (u *unit) tlsChains(in Input, g *resolve.Gateway, p gatewayPort, out *listenerv3.Listener) {
	subject := "Gateway/" + g.Key()
	out.ListenerFilters = []*listenerv3.ListenerFilter{{
		Name:       inspectTLS,
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: pack(&inspectorv3.TlsInspector{})},
	}}
	out.ListenerFiltersTimeout = dur(inspectTimeout)
	seen := map[string]bool{}
	chain := func(l *resolve.Listener, host string) *listenerv3.FilterChain {
		c := &listenerv3.FilterChain{Name: l.Key() + "/" + host, FilterChainMatch: &listenerv3.FilterChainMatch{TransportProtocol: "tls"}}
		switch _, ok := hostPattern(host); {
		case !ok:
			u.fail(subject, "listener %s: %q is no hostname: it is left out", l.Key(), clip(host))
			return nil
		case seen[host]:
			u.fail(subject, "listener %s: server name %s is another listener's: it is left out", l.Key(), host)
			return nil
		}
		seen[host] = true
		if host != "*" {
			c.FilterChainMatch.ServerNames = []string{host}
		}
		return c
	}
	for _, l := range p.listeners {
		if l.TLS != nil {
			for _, s := range listenerSecrets(subject, l) {
				u.addSecret(s)
			}
		}
		switch {
		case l.Protocol == protocolHTTPS && l.TLS == nil:
			u.fail(subject, "listener %s has no certificate: it is left out", l.Key())
		case l.Protocol == protocolHTTPS:
			c := chain(l, listenerDomain(l))
			if c == nil {
				continue
			}
			r := httpsRoutes(in, g, l)
			u.addRoutes(r)
			c.Filters = []*listenerv3.Filter{gatewayFilter(in, g, r.resource.Name)}
			c.TransportSocket, c.TransportSocketConnectTimeout = listenerTLS(l, []string{"h2", "http/1.1"}), dur(handshakeTimeout)
			out.FilterChains = append(out.FilterChains, c)
		default:
			for i := range l.Hosts {
				h := &l.Hosts[i]
				c := chain(l, h.Hostname)
				if c == nil {
					continue
				}
				if l.TLS != nil {
					c.TransportSocket, c.TransportSocketConnectTimeout = listenerTLS(l, nil), dur(handshakeTimeout)
				}
				u.forwardTCP(out, c, h.Table.Forward, l.TLS != nil, in.Options)
			}
		}
	}
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
		var hosts []*part
		seen := map[string]bool{}
		for i := range g.Listeners {
			l := &g.Listeners[i]
			if l.Port != port || l.Protocol != protocolHTTP {
				continue
			}
			for _, h := range l.Hosts {
				domain := strings.ToLower(h.Hostname)
				exact, ok := hostPattern(domain)
				switch {
				case !ok:
					set.fail("Gateway/"+g.Key(), "listener %s: %q is no hostname: it is left out", l.Key(), clip(h.Hostname))
					continue
				case seen[domain]:
					set.fail("Gateway/"+g.Key(), "listener %s: hostname %s is another listener's: it is left out", l.Key(), h.Hostname)
					continue
				}
				seen[domain] = true
				hosts = append(hosts, set.host(in.Cache, l.Key()+"/"+domain, domain, h.Table, exact))
			}
		}
		r := newRoutes(name, "Gateway/"+g.Key(), gatewayConfiguration(name, nil), hosts)
		return routes{in.Cache.intern(TypeRoute, "", r), set.needs, set.problems}
	})
}

// host is a virtual host, translated once for each of its tables.
func (s *routeSet) host(cache *Cache, name, domain string, table *resolve.RouteTable, exact string) *part {
	type purpose struct {
		name, domain, exact string
		opts                Options
	}
	type made struct {
		part *part
		set  routeSet
	}
	m := get(&cache.tables, table, purpose{name, domain, exact, s.opts}, func() made {
		own := routeSet{opts: s.opts}
		host := own.virtualHost(name, []string{domain}, table, exact)
		return made{newPart(host), own}
	})
	s.needs, s.problems = append(s.needs, m.set.needs...), append(s.problems, m.set.problems...)
	return m.part
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
