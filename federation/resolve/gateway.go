package resolve

import (
	"fmt"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
)

// gatewayView is a Gateway as this cluster follows it, without its ListenerSets.
type gatewayView struct {
	parentView
	spec           *gatewayv1.Gateway
	runs           bool // selected for this cluster
	infrastructure Infrastructure
	// refused, if not nil, is why the Gateway is not Accepted, whatever its
	// listeners are like.
	refused *problem
}

func ptr[T any](v T) *T { return &v }

// viewGateway judges a Gateway by its own object. nil: there is none of ours.
func (r *reader) viewGateway(ns, name string) *gatewayView {
	o := r.followedGateway(r.local, ns, name)
	if o == nil {
		return nil
	}
	g := &gatewayView{parentView: parentView{obj: o}, spec: o.Value.(*gatewayv1.Gateway)}
	var err error
	if g.runs, err = r.runsHere(o); err != nil {
		// Nobody knows which clusters are meant: those that run it keep it.
		g.runs, g.refused = true, &problem{string(gatewayv1.GatewayReasonInvalid), err.Error()}
	}
	if p := r.equip(g); p != nil && g.refused == nil {
		g.refused = p
	}
	for i := range g.spec.Spec.Listeners {
		g.listeners = append(g.listeners, newListener(&g.spec.Spec.Listeners[i]))
	}
	return g
}

// gatewayUnit computes a Gateway with its ListenerSets and its routes, and the
// reports on it and them.
func gatewayUnit(r *reader, ns, name string) output {
	g := r.viewGateway(ns, name)
	if g == nil {
		return output{gone: len(r.named(cluster.KindGateway, ns, name)) == 0}
	}
	sets := r.listenerSets(g)
	all := arrange(g, sets)
	findConflicts(all)
	overlap(all)
	client, unresolved := r.clientCertificate(g)
	for _, l := range all {
		r.secure(g, l)
	}
	out := output{}
	parents := []*parentView{&g.parentView}
	for _, s := range sets {
		if s.refused == nil {
			parents = append(parents, &s.parentView)
		}
	}
	at := 0
	for _, p := range parents {
		r.bindAll(g, p, all[at:at+len(p.listeners)])
		at += len(p.listeners)
	}
	out.facts = append(out.facts, g.settle(all)...)
	if refs := r.certificateRefs(g, all); len(refs) > 0 {
		out.facts = append(out.facts, fact{certificatesKey(ns, name), refs})
	}
	j := g.judge(all)
	j.clientRef = unresolved
	out.reports = []*ObjectReport{r.reportGateway(g, all, sets, j)}
	for _, s := range sets {
		out.facts = append(out.facts, fact{setKey(s.obj), r.reportListenerSet(g, s, all, j)})
	}
	if !g.runs {
		return out
	}
	gw := &Gateway{
		Namespace: ns, Name: name, Home: g.obj.Cluster, Class: string(g.spec.Spec.GatewayClassName),
		ClientCertificate: client, Infrastructure: g.infrastructure, Refused: g.refused != nil,
	}
	claimed := claimedHosts(all)
	for _, l := range all {
		if l.works() && (j.working > 0 || l.set() == "") {
			gw.Listeners = append(gw.Listeners, g.merge(l, claimed))
		}
	}
	out.gateway, out.needs = gw, needsOfGateway(gw)
	out.facts = append(out.facts, usesOfGateway(gw)...)
	return out
}

// arrange lists a Gateway's own listeners, then those of its ListenerSets by
// precedence.
func arrange(g *gatewayView, sets []*setView) []*placed {
	var all []*placed
	add := func(p *parentView) {
		for _, l := range p.listeners {
			all = append(all, &placed{listenerView: l, parent: p, tooMany: len(all) >= maxListeners})
		}
	}
	add(&g.parentView)
	for _, s := range sets {
		if s.refused == nil {
			add(&s.parentView)
		}
	}
	return all
}

// bindAll attaches the routes of one parent to its listeners.
func (r *reader) bindAll(g *gatewayView, p *parentView, listeners []*placed) {
	for _, o := range r.routesOf(p.obj.Kind, p.obj.Namespace, p.obj.Name) {
		part := "route " + o.String() + "@" + string(o.Cluster) + " by " + string(g.obj.Cluster)
		if p != &g.parentView {
			part += " at " + p.obj.String() + "@" + string(p.obj.Cluster)
		}
		b := r.sub(part, func(r *reader) any { return r.bind(g, p, o) }).(*boundRoute)
		if b == nil {
			continue
		}
		for _, i := range b.taken {
			listeners[i].attached = append(listeners[i].attached, b)
		}
	}
}

// settle takes away the routes that lost to one of the other HTTP kind (see
// contest), and tells of them: facts for the routes' reports.
func (g *gatewayView) settle(all []*placed) []fact {
	lost := map[RouteID][]rejection{}
	for _, l := range all {
		if !contested(l.attached) {
			continue
		}
		list := make([]claim, len(l.attached))
		for i, b := range l.attached {
			list[i] = claim{route: b.obj, hosts: narrow(l.hostname, b.hosts)}
		}
		var kept []*boundRoute
		for i, rival := range contest(list) {
			b := l.attached[i]
			if rival == nil {
				kept = append(kept, b)
				continue
			}
			id := routeID(b.obj)
			lost[id] = append(lost[id], rejection{l.parent.obj.Ref, l.name, fmt.Sprintf("listener %s has the senior %s with a hostname of the route: HTTPRoutes and GRPCRoutes can't share hostnames", l.name, rival.Ref)})
		}
		l.attached = kept
	}
	var out []fact
	for id, list := range lost {
		out = append(out, fact{rejectedKey(id), list})
	}
	return out
}

// contested tells whether there are both HTTPRoutes and GRPCRoutes.
func contested(routes []*boundRoute) bool {
	var http, grpc bool
	for _, b := range routes {
		http, grpc = http || b.obj.Kind == cluster.KindHTTPRoute, grpc || b.obj.Kind == cluster.KindGRPCRoute
	}
	return http && grpc
}

// rejection says that a listener does not take a route that attaches to it.
type rejection struct {
	parent   cluster.Ref
	listener string
	message  string
}

// claimedHosts finds the listeners that stand by port and hostname.
func claimedHosts(all []*placed) map[portKey]map[string]*placed {
	out := map[portKey]map[string]*placed{}
	for _, l := range all {
		if l.stands() && l.byHost() {
			at := portKey{l.transport(), l.port}
			if out[at] == nil {
				out[at] = map[string]*placed{}
			}
			out[at][HostOrAny(l.hostname)] = l
		}
	}
	return out
}

// narrow gives the hostnames of a route that a listener's hostname leaves.
func narrow(listener string, hosts []string) []string {
	if len(hosts) == 0 {
		return []string{HostOrAny(listener)}
	}
	var out []string
	for _, h := range hosts {
		if x, ok := intersect(listener, h); ok {
			out = append(out, x)
		}
	}
	return out
}

// merge unites the routes of one listener.
func (g *gatewayView) merge(l *placed, claimed map[portKey]map[string]*placed) Listener {
	out := Listener{Name: l.name, Set: l.set(), Port: l.port, Protocol: string(l.protocol), Hostname: l.hostname, TLS: l.tls}
	v := g.via(l.listenerView)
	if !l.byHost() {
		out.Forward = seniorForward(l.attached, v)
		return out
	}
	// The listener's own hostname is always there, with no rules if need be:
	// what it covers is not for a less specific listener of the port to answer.
	hosts := []string{HostOrAny(l.hostname)}
	byHost := map[string][]*boundRoute{}
	for _, b := range l.attached {
		if len(b.hosts) == 0 {
			byHost["*"] = append(byHost["*"], b)
			continue
		}
		hosts = append(hosts, narrow(l.hostname, b.hosts)...)
		for _, h := range b.hosts {
			byHost[h] = append(byHost[h], b)
		}
	}
	sortHosts(hosts)
	last := ""
	for _, h := range hosts {
		if h == last || takenByMoreSpecific(l, h, claimed) {
			continue
		}
		last = h
		t := &RouteTable{}
		if l.protocol == gatewayv1.TLSProtocolType {
			t.Forward = forwardOf(h, byHost, v)
		} else {
			t = table(rulesOf(h, byHost, v))
		}
		out.Hosts = append(out.Hosts, VirtualHost{Hostname: h, Table: t})
	}
	return out
}

// rulesOf collects the rules of the routes whose hostnames cover a host.
func rulesOf(host string, byHost map[string][]*boundRoute, v via) []ranked {
	var rules []ranked
	seen := map[*boundRoute]bool{}
	for _, name := range coveringNames(host) {
		for _, b := range byHost[name] {
			if seen[b] {
				continue // by a more specific one of its hostnames
			}
			seen[b] = true
			for _, rule := range b.compiled[v].rules {
				rules = append(rules, ranked{rule, b.obj, rankOf(name)})
			}
		}
	}
	return rules
}

// forwardOf picks the route that takes a server name: the one with the most
// specific hostname, TLSRoutes before TCPRoutes (which have none), then the senior.
func forwardOf(host string, byHost map[string][]*boundRoute, v via) *ForwardRule {
	for _, name := range coveringNames(host) {
		var tls, rest []*boundRoute
		for _, b := range byHost[name] {
			if b.obj.Kind == cluster.KindTLSRoute {
				tls = append(tls, b)
			} else {
				rest = append(rest, b)
			}
		}
		for _, list := range [][]*boundRoute{tls, rest} {
			if f := seniorForward(list, v); f != nil {
				return f
			}
		}
	}
	return nil
}

func seniorForward(list []*boundRoute, v via) *ForwardRule {
	var senior *boundRoute
	for _, b := range list {
		if senior == nil || cluster.Older(b.obj, senior.obj) {
			senior = b
		}
	}
	if senior == nil {
		return nil
	}
	return senior.compiled[v].forward
}

// takenByMoreSpecific tells whether another listener of the port claims a host
// (listener isolation): requests belong to the most specific listener.
func takenByMoreSpecific(l *placed, host string, claimed map[portKey]map[string]*placed) bool {
	mine, others := rankOf(l.hostname), claimed[portKey{l.transport(), l.port}]
	if len(others) == 1 && others[HostOrAny(l.hostname)] == l {
		return false
	}
	for _, name := range coveringNames(host) {
		if !rankOf(name).before(mine) {
			return false
		}
		if o := others[name]; o != nil && o != l {
			return true
		}
	}
	return false
}
