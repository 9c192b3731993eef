package resolve

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
)

// gatewayView is a Gateway as this cluster follows it.
type gatewayView struct {
	obj       *cluster.Object
	spec      *gatewayv1.Gateway
	listeners []listenerView
	runs      bool  // selected for this cluster
	selectErr error // the selector can't be read
}

type listenerView struct {
	spec      *gatewayv1.Listener
	hostname  string // lower case, empty: any
	kinds     []gatewayv1.RouteGroupKind
	badKinds  bool
	conflict  string // reason, or empty
	supported bool   // the protocol
	selector  labels.Selector
	selectErr error
}

// works tells whether the listener takes traffic.
func (l *listenerView) works() bool { return l.supported && l.conflict == "" && l.selectErr == nil }

var kindHTTPRoute = gatewayv1.RouteGroupKind{Group: ptr(gatewayv1.Group(gatewayv1.GroupName)), Kind: "HTTPRoute"}

func ptr[T any](v T) *T { return &v }

// viewGateway judges a Gateway without its routes. nil: there is none of ours.
func (r *reader) viewGateway(ns, name string) *gatewayView {
	o := r.followedGateway(r.local, ns, name)
	if o == nil {
		return nil
	}
	g := &gatewayView{obj: o, spec: o.Value.(*gatewayv1.Gateway)}
	g.runs, g.selectErr = r.runsHere(o)
	for i := range g.spec.Spec.Listeners {
		spec := &g.spec.Spec.Listeners[i]
		l := listenerView{spec: spec, hostname: strings.ToLower(string(deref(spec.Hostname, ""))), supported: spec.Protocol == gatewayv1.HTTPProtocolType}
		if l.supported {
			l.kinds, l.badKinds = supportedKinds(spec.AllowedRoutes)
		}
		if a := spec.AllowedRoutes; a != nil && a.Namespaces != nil && deref(a.Namespaces.From, gatewayv1.NamespacesFromSame) == gatewayv1.NamespacesFromSelector {
			l.selector, l.selectErr = metav1.LabelSelectorAsSelector(a.Namespaces.Selector)
		}
		g.listeners = append(g.listeners, l)
	}
	// Of listeners that can't be told apart none works: no winner is picked.
	for i := range g.listeners {
		for j := range g.listeners {
			a, b := &g.listeners[i], &g.listeners[j]
			if i != j && a.supported && b.supported && a.spec.Port == b.spec.Port && a.hostname == b.hostname {
				a.conflict = string(gatewayv1.ListenerReasonHostnameConflict)
			}
		}
	}
	return g
}

// supportedKinds intersects what a listener asks for with what we serve.
func supportedKinds(a *gatewayv1.AllowedRoutes) (kinds []gatewayv1.RouteGroupKind, bad bool) {
	if a == nil || len(a.Kinds) == 0 {
		return []gatewayv1.RouteGroupKind{kindHTTPRoute}, false
	}
	for _, k := range a.Kinds {
		if deref(k.Group, gatewayv1.GroupName) == gatewayv1.GroupName && k.Kind == kindHTTPRoute.Kind {
			if len(kinds) == 0 {
				kinds = append(kinds, kindHTTPRoute)
			}
		} else {
			bad = true
		}
	}
	return kinds, bad
}

// concerns tells whether a route's parentRefs to a Gateway count in this
// cluster: its own routes', and those of other clusters where both follow a
// clusterset Gateway.
func (r *reader) concerns(o *cluster.Object, g *gatewayView) bool {
	if o.Cluster == r.local {
		return true
	}
	if staysHome(o) || !r.crosses(g.obj) {
		return false
	}
	theirs := r.followedGateway(o.Cluster, g.obj.Namespace, g.obj.Name)
	return theirs != nil && r.crosses(theirs)
}

// attach finds the listeners that take a route by one parentRef.
func (r *reader) attach(g *gatewayView, o *cluster.Object, ref gatewayv1.ParentReference) ([]int, *problem) {
	var fitting, allowed, out []int
	for i := range g.listeners {
		l := &g.listeners[i]
		if refSelects(ref, string(l.spec.Name), l.spec.Port) {
			fitting = append(fitting, i)
		}
	}
	if len(fitting) == 0 {
		return nil, &problem{string(gatewayv1.RouteReasonNoMatchingParent), fmt.Sprintf("Gateway %s/%s has no listener %s", g.obj.Namespace, g.obj.Name, refSection(ref))}
	}
	for _, i := range fitting {
		if r.allows(&g.listeners[i], g, o) {
			allowed = append(allowed, i)
		}
	}
	if len(allowed) == 0 {
		return nil, &problem{string(gatewayv1.RouteReasonNotAllowedByListeners), fmt.Sprintf("allowedRoutes of %s exclude %ss of namespace %s", listenerNames(g, fitting), o.Kind, o.Namespace)}
	}
	hosts := routeHostnames(o)
	for _, i := range allowed {
		if len(hosts) == 0 || slices.ContainsFunc(hosts, func(h string) bool { _, ok := intersect(g.listeners[i].hostname, h); return ok }) {
			out = append(out, i)
		}
	}
	if len(out) == 0 {
		return nil, &problem{string(gatewayv1.RouteReasonNoMatchingListenerHostname), fmt.Sprintf("no hostname of the route is one of %s", listenerNames(g, allowed))}
	}
	return out, nil
}

func listenerNames(g *gatewayView, idx []int) string {
	names := make([]string, len(idx))
	for i, k := range idx {
		names[i] = string(g.listeners[k].spec.Name)
	}
	word := "listener "
	if len(names) > 1 {
		word = "listeners "
	}
	return word + strings.Join(names, ", ")
}

func (r *reader) allows(l *listenerView, g *gatewayView, o *cluster.Object) bool {
	if !slices.ContainsFunc(l.kinds, func(k gatewayv1.RouteGroupKind) bool { return string(k.Kind) == string(o.Kind) }) {
		return false
	}
	from := gatewayv1.NamespacesFromSame
	if a := l.spec.AllowedRoutes; a != nil && a.Namespaces != nil {
		from = deref(a.Namespaces.From, gatewayv1.NamespacesFromSame)
	}
	switch from {
	case gatewayv1.NamespacesFromAll:
		return true
	case gatewayv1.NamespacesFromSame:
		return o.Namespace == g.obj.Namespace
	case gatewayv1.NamespacesFromSelector:
		return l.selectErr == nil && l.selector.Matches(labels.Set(r.namespaceLabels(o.Cluster, o.Namespace)))
	}
	return false
}

func routeHostnames(o *cluster.Object) []string {
	h, ok := o.Value.(*gatewayv1.HTTPRoute)
	if !ok {
		return nil
	}
	var out []string
	for _, n := range h.Spec.Hostnames {
		out = append(out, strings.ToLower(string(n)))
	}
	return out
}

// boundRoute is a route as a Gateway takes it.
type boundRoute struct {
	obj   *cluster.Object
	hosts []string          // the route's hostnames
	taken []int             // indices of listeners, sorted
	rules map[int32][]*Rule // by the listeners' ports
}

// bind finds out what a route is to a Gateway; nil if it does not attach. It
// depends on the route, on the Gateway's object and on what both refer to.
func (r *reader) bind(g *gatewayView, o *cluster.Object) *boundRoute {
	// The caller read the Gateway and the route: the outcome rests on both.
	r.note(federation.KeyNamed(cluster.KindGateway, g.obj.Namespace, g.obj.Name))
	r.note(federation.KeyNamed(o.Kind, o.Namespace, o.Name))
	if !r.concerns(o, g) || r.followedRoute(o.Kind, o.Namespace, o.Name) != o {
		return nil
	}
	b := &boundRoute{obj: o, hosts: routeHostnames(o), rules: map[int32][]*Rule{}}
	for _, ref := range federation.ParentRefs(o) {
		if federation.ParentKind(ref) == cluster.KindGateway && string(ref.Name) == g.obj.Name && parentNamespace(o, ref) == g.obj.Namespace {
			l, _ := r.attach(g, o, ref)
			b.taken = append(b.taken, l...)
		}
	}
	if len(b.taken) == 0 {
		return nil
	}
	slices.Sort(b.taken)
	b.taken = slices.Compact(b.taken)
	chain := g.spec.Annotations[cluster.AnnotationServiceRoutes] != cluster.ServiceRoutesIgnore
	for _, i := range b.taken {
		port := g.listeners[i].spec.Port
		if _, ok := b.rules[port]; !ok {
			b.rules[port] = r.compile(o, via{gateway: true, chain: chain, port: port}).rules
		}
	}
	return b
}

// gatewayUnit computes a Gateway with its routes, and its report.
func gatewayUnit(r *reader, ns, name string) output {
	g := r.viewGateway(ns, name)
	if g == nil {
		return output{gone: len(r.named(cluster.KindGateway, ns, name)) == 0}
	}
	attached := make([][]*boundRoute, len(g.listeners))
	for _, o := range r.routesOf(cluster.KindGateway, ns, name) {
		part := o.String() + "@" + string(o.Cluster) + " by " + string(g.obj.Cluster)
		b := r.sub(part, func(r *reader) any { return r.bind(g, o) }).(*boundRoute)
		if b == nil {
			continue
		}
		for _, i := range b.taken {
			attached[i] = append(attached[i], b)
		}
	}
	out := output{reports: []*ObjectReport{r.reportGateway(g, attached)}}
	if !g.runs {
		return out
	}
	gw := &Gateway{Namespace: ns, Name: name, Home: g.obj.Cluster, Class: string(g.spec.Spec.GatewayClassName)}
	for i := range g.listeners {
		if g.listeners[i].works() {
			gw.Listeners = append(gw.Listeners, g.merge(i, attached[i]))
		}
	}
	out.gateway, out.needs = gw, needsOfGateway(gw)
	return out
}

// merge unites the routes of one listener.
func (g *gatewayView) merge(index int, routes []*boundRoute) Listener {
	l := &g.listeners[index]
	out := Listener{Name: string(l.spec.Name), Port: l.spec.Port, Protocol: string(l.spec.Protocol), Hostname: l.hostname}
	// The listener's own hostname is always there, with no rules if need be:
	// what it covers is not for a less specific listener of the port to answer.
	hosts := []string{hostOrAny(l.hostname)}
	byHost := map[string][]*boundRoute{}
	for _, b := range routes {
		names := b.hosts
		if len(names) == 0 {
			names = []string{"*"}
		}
		for _, h := range names {
			if x, ok := intersect(l.hostname, h); ok {
				hosts = append(hosts, x)
			}
			byHost[h] = append(byHost[h], b)
		}
	}
	sortHosts(hosts)
	for _, h := range slices.Compact(hosts) {
		if g.takenByMoreSpecific(index, h) {
			continue
		}
		var rules []ranked
		seen := map[*boundRoute]bool{}
		for _, name := range coveringNames(h) {
			for _, b := range byHost[name] {
				if seen[b] {
					continue // by a more specific one of its hostnames
				}
				seen[b] = true
				for _, rule := range b.rules[out.Port] {
					rules = append(rules, ranked{rule, b.obj, rankOf(name)})
				}
			}
		}
		out.Hosts = append(out.Hosts, VirtualHost{Hostname: h, Table: table(rules)})
	}
	return out
}

// takenByMoreSpecific tells whether another listener of the port claims a host
// (HTTP listener isolation): requests belong to the most specific listener.
func (g *gatewayView) takenByMoreSpecific(index int, host string) bool {
	mine := &g.listeners[index]
	for i := range g.listeners {
		l := &g.listeners[i]
		if i != index && l.works() && l.spec.Port == mine.spec.Port && covers(l.hostname, host) && rankOf(l.hostname).before(rankOf(mine.hostname)) {
			return true
		}
	}
	return false
}
