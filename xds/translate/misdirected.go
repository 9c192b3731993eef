package translate

import (
	"net/http"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

// nameMisdirected is the name of the Envoy routes that answer 421.
const nameMisdirected = "misdirected"

// httpsRoutes translates the hosts of one HTTPS listener. Its connections came by
// their server name, but a client may send requests for any host over them. One
// that belongs to another listener of the port gets 421, so that the client opens
// a connection by that name (GEP-3567): it must not go round the other's
// certificates and client validation. What belongs to no listener, or has no
// route, gets 404.
func httpsRoutes(in Input, g *resolve.Gateway, l *resolve.Listener) routes {
	type purpose struct {
		listener string
		opts     Options
	}
	return get(&in.Cache.gateways, g, purpose{l.Key(), in.Options}, func() routes {
		set := &routeSet{opts: in.Options}
		name := HTTPSRouteName(g.Namespace, g.Name, l)
		config := gatewayConfiguration(name, set.httpsHosts("Gateway/"+g.Key(), g, l))
		r := newResource(name, "Gateway/"+g.Key(), config)
		return routes{in.Cache.intern(TypeRoute, "", r), set.needs, set.problems}
	})
}

func (s *routeSet) httpsHosts(subject string, g *resolve.Gateway, l *resolve.Listener) []*routev3.VirtualHost {
	own := listenerDomain(l)
	var others []string
	for i := range g.Listeners {
		o := &g.Listeners[i]
		if d := listenerDomain(o); o.Port == l.Port && (o.Protocol == protocolHTTPS || o.Protocol == protocolTLS) && d != own {
			if _, ok := hostPattern(d); ok {
				others = append(others, d)
			}
		}
	}
	var out []*routev3.VirtualHost
	seen := map[string]bool{}
	for _, h := range l.Hosts {
		domain := strings.ToLower(h.Hostname)
		exact, ok := hostPattern(domain)
		switch {
		case !ok:
			s.fail(subject, "listener %s: %q is no hostname: it is left out", l.Key(), clip(h.Hostname))
			continue
		case seen[domain] || ownerOf(domain, own, others) != own:
			continue // as listeners of the port share them out
		}
		seen[domain] = true
		out = append(out, s.virtualHost(l.Key()+"/"+domain, []string{domain}, h.Table, exact))
	}
	if _, ok := hostPattern(own); ok && own != "*" && !seen[own] {
		// Hosts of the listener without a route are its own all the same.
		seen[own] = true
		out = append(out, &routev3.VirtualHost{Name: l.Key() + "/" + own, Domains: []string{own}})
	}
	for _, d := range others {
		if seen[d] {
			continue
		}
		seen[d] = true
		r := &routev3.Route{
			Name:   nameMisdirected,
			Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: ""}},
			Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: http.StatusMisdirectedRequest}},
		}
		s.debug(r)
		out = append(out, &routev3.VirtualHost{Name: nameMisdirected + "/" + d, Domains: []string{d}, Routes: []*routev3.Route{r}})
	}
	return out
}

func listenerDomain(l *resolve.Listener) string {
	return strings.ToLower(resolve.HostOrAny(l.Hostname))
}

// ownerOf is the listener, by its hostname, that governs a host or a pattern of
// hosts: the most specific that covers it; empty for none.
func ownerOf(host, own string, others []string) string {
	best := ""
	for _, d := range append([]string{own}, others...) {
		if resolve.HostCovers(d, host) && (best == "" || resolve.MoreSpecific(d, best)) {
			best = d
		}
	}
	return best
}
