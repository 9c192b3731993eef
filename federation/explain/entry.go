package explain

import (
	"fmt"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// workload finds what governs a request of a workload: its sidecar listens at the
// frontend's address and port.
func (e *explainer) workload(from Source, req Request) (*Hop, string) {
	k, ok := FrontendOf(req.Host, from.Namespace)
	if !ok {
		return nil, fmt.Sprintf("host %s is not the name of a Service or ServiceImport", req.Host)
	}
	f, ok := e.res.Frontend(k)
	if !ok {
		return nil, e.missing(k)
	}
	if f.Headless {
		return nil, fmt.Sprintf("%s is headless: its name leads straight to its pods, and routes do not apply", k)
	}
	p, ok := f.Port(req.transport(), req.Port)
	if !ok {
		return nil, fmt.Sprintf("%s has no %s port %d", k, req.transport(), req.Port)
	}
	if k.Kind == cluster.KindServiceImport {
		e.withhold(k.Namespace, k.Name)
	}
	hop := &Hop{Frontend: &f.Key, Port: p.Port, Chosen: -1, Request: req}
	for _, c := range p.Consumers {
		if c.Namespace == from.Namespace {
			hop.Group, hop.Why = GroupConsumer, fmt.Sprintf("namespace %s has consumer routes of its own for this frontend", from.Namespace)
			return hop, e.table(hop, c.Table, req, true)
		}
	}
	if p.Producer != nil {
		hop.Group, hop.Why = GroupProducer, fmt.Sprintf("the frontend has producer routes, and namespace %s has no consumer routes for it", from.Namespace)
		return hop, e.table(hop, p.Producer, req, true)
	}
	hop.Group, hop.Why = GroupPlain, "no routes govern this port of the frontend"
	opaque := !p.AppProtocol.HTTP()
	if !opaque && !req.plainHTTP() {
		return nil, fmt.Sprintf("port %d of %s speaks HTTP without TLS (its appProtocol says so): the sidecar takes nothing else there", p.Port, k)
	}
	hop.Branches = []Branch{e.plain(p.Backend, req, opaque)}
	return hop, ""
}

func (e *explainer) gateway(from Source, req Request) (*Hop, string) {
	g, ok := e.res.Gateways.Get([]byte(from.Namespace + "/" + from.Gateway))
	if !ok {
		return nil, fmt.Sprintf("cluster %s runs no Gateway %s/%s", e.res.Local, from.Namespace, from.Gateway)
	}
	var on []*resolve.Listener
	for i := range g.Listeners {
		if l := &g.Listeners[i]; l.Port == req.Port && (l.Protocol == "UDP") == (req.transport() == "UDP") {
			on = append(on, l)
		}
	}
	if len(on) == 0 {
		return nil, fmt.Sprintf("Gateway %s has no working listener on port %d", g.Key(), req.Port)
	}
	hop := &Hop{Port: req.Port, Group: GroupGateway, Chosen: -1, Request: req, Listener: &Listener{Namespace: g.Namespace, Gateway: g.Name}}
	switch on[0].Protocol {
	case "HTTP":
		if !req.plainHTTP() {
			return nil, fmt.Sprintf("port %d of Gateway %s speaks HTTP without TLS", req.Port, g.Key())
		}
		return hop, e.httpListeners(hop, on, req)
	case "HTTPS", "TLS":
		if !req.secure() {
			return nil, fmt.Sprintf("port %d of Gateway %s speaks TLS", req.Port, g.Key())
		}
		return hop, e.tlsListeners(hop, on, req)
	}
	hop.Listener.Name = on[0].Key()
	hop.Why = fmt.Sprintf("listener %s takes everything on its port", on[0].Key())
	e.forward(hop, on[0].Forward, req, false, true)
	return hop, ""
}

// httpListeners chooses by the host: the listeners of a port are one.
func (e *explainer) httpListeners(hop *Hop, on []*resolve.Listener, req Request) string {
	var best *resolve.VirtualHost
	var at *resolve.Listener
	for _, l := range on {
		if h := mostSpecific(l.Hosts, req.Host); h != nil && (best == nil || resolve.MoreSpecific(h.Hostname, best.Hostname)) {
			best, at = h, l
		}
	}
	if best == nil {
		hop.Status, hop.Reason = 404, fmt.Sprintf("no listener on port %d takes host %s", req.Port, req.Host)
		return ""
	}
	hop.Listener.Name, hop.Listener.Hostname = at.Key(), best.Hostname
	hop.Why = fmt.Sprintf("host %s belongs to listener %s", req.Host, at.Key())
	return e.table(hop, best.Table, req, false)
}

// tlsListeners chooses the listener by the server name, then, for HTTPS, the
// routes by the host.
func (e *explainer) tlsListeners(hop *Hop, on []*resolve.Listener, req Request) string {
	var at *resolve.Listener
	for _, l := range on {
		if resolve.HostCovers(l.Hostname, req.ServerName) && (at == nil || resolve.MoreSpecific(l.Hostname, at.Hostname)) {
			at = l
		}
	}
	if at == nil {
		hop.Closed, hop.Reason = true, fmt.Sprintf("no listener on port %d takes server name %s", req.Port, req.ServerName)
		return ""
	}
	hop.Listener.Name = at.Key()
	hop.Why = fmt.Sprintf("server name %s belongs to listener %s", req.ServerName, at.Key())
	if at.TLS != nil && len(at.TLS.ClientCAs) > 0 && !at.TLS.AllowInsecure {
		hop.Why += ", which asks clients for a certificate of its authorities"
	}
	if at.Protocol == "TLS" {
		h := mostSpecific(at.Hosts, req.ServerName)
		if h == nil {
			hop.Closed, hop.Reason = true, fmt.Sprintf("no route of listener %s takes server name %s", at.Key(), req.ServerName)
			return ""
		}
		hop.Listener.Hostname = h.Hostname
		raw := at.TLS == nil
		if !raw {
			req = req.inPlain()
		}
		e.forward(hop, h.Table.Forward, req, false, raw)
		return ""
	}
	if !req.http() {
		return fmt.Sprintf("listener %s speaks HTTP over TLS", at.Key())
	}
	req = req.inPlain()
	if h := mostSpecific(at.Hosts, req.Host); h != nil && !e.elsewhere(on, at, req.Host) {
		hop.Listener.Hostname = h.Hostname
		return e.table(hop, h.Table, req, false)
	}
	hop.Status, hop.Reason = 404, fmt.Sprintf("listener %s does not take host %s", at.Key(), req.Host)
	if e.elsewhere(on, at, req.Host) {
		hop.Status, hop.Reason = 421, fmt.Sprintf("host %s belongs to another listener than server name %s: the client has to connect for it", req.Host, req.ServerName)
	}
	return ""
}

// elsewhere tells whether a host belongs to another listener of the port, of HTTPS or TLS.
func (e *explainer) elsewhere(on []*resolve.Listener, at *resolve.Listener, host string) bool {
	best := at
	for _, l := range on {
		if resolve.HostCovers(l.Hostname, host) && (!resolve.HostCovers(best.Hostname, host) || resolve.MoreSpecific(l.Hostname, best.Hostname)) {
			best = l
		}
	}
	return best != at
}

// mostSpecific finds the virtual host that takes a host, nil for none.
func mostSpecific(hosts []resolve.VirtualHost, host string) (best *resolve.VirtualHost) {
	for i := range hosts {
		if h := &hosts[i]; resolve.HostCovers(h.Hostname, host) && (best == nil || resolve.MoreSpecific(h.Hostname, best.Hostname)) {
			best = h
		}
	}
	return best
}
