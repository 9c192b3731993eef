package resolve

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
)

// concerns tells whether a route's parentRefs to a Gateway, or to a ListenerSet of
// it, count in this cluster: its own routes', and those of other clusters where
// both follow a clusterset Gateway (and a ListenerSet that goes with it).
func (r *reader) concerns(o *cluster.Object, p *parentView, g *gatewayView) bool {
	if o.Cluster == r.local {
		return true
	}
	if staysHome(o) || r.refused(o) != "" || !r.crosses(p.obj) || !r.crosses(g.obj) {
		return false
	}
	theirs := r.followedGateway(o.Cluster, g.obj.Namespace, g.obj.Name)
	if theirs == nil || !r.crosses(theirs) {
		return false
	}
	if p.obj.Kind == cluster.KindGateway {
		return true
	}
	set := r.follow(o.Cluster, r.named(cluster.KindListenerSet, p.obj.Namespace, p.obj.Name))
	return set != nil && r.crosses(set) && gatewayOf(set) == gatewayOf(p.obj)
}

// attach finds the listeners that take a route by one parentRef, by their indices.
func (r *reader) attach(p *parentView, o *cluster.Object, ref gatewayv1.ParentReference) ([]int, *problem) {
	var fitting, allowed, out []int
	for i, l := range p.listeners {
		if refSelects(ref, l.name, l.port) {
			fitting = append(fitting, i)
		}
	}
	if len(fitting) == 0 {
		return nil, &problem{string(gatewayv1.RouteReasonNoMatchingParent), fmt.Sprintf("%s %s/%s has no listener %s", p.obj.Kind, p.obj.Namespace, p.obj.Name, refSection(ref))}
	}
	for _, i := range fitting {
		if r.allows(p.listeners[i], p, o) {
			allowed = append(allowed, i)
		}
	}
	if len(allowed) == 0 {
		if !slices.ContainsFunc(fitting, func(i int) bool { return p.listeners[i].takes(o.Kind) }) {
			return nil, &problem{string(gatewayv1.RouteReasonNotAllowedByListeners), fmt.Sprintf("%s can't take %ss, or allowedRoutes.kinds excludes them", listenerNames(p, fitting), o.Kind)}
		}
		return nil, &problem{string(gatewayv1.RouteReasonNotAllowedByListeners), fmt.Sprintf("allowedRoutes of %s exclude %ss of namespace %s", listenerNames(p, fitting), o.Kind, o.Namespace)}
	}
	hosts := routeHostnames(o)
	for _, i := range allowed {
		if len(hosts) == 0 || slices.ContainsFunc(hosts, func(h string) bool { _, ok := intersect(p.listeners[i].hostname, h); return ok }) {
			out = append(out, i)
		}
	}
	if len(out) == 0 {
		return nil, &problem{string(gatewayv1.RouteReasonNoMatchingListenerHostname), fmt.Sprintf("no hostname of the route is one of %s", listenerNames(p, allowed))}
	}
	return out, nil
}

func listenerNames(p *parentView, idx []int) string {
	names := make([]string, len(idx))
	for i, k := range idx {
		names[i] = p.listeners[k].name
	}
	word := "listener "
	if len(names) > 1 {
		word = "listeners "
	}
	return word + strings.Join(names, ", ")
}

func (r *reader) allows(l *listenerView, p *parentView, o *cluster.Object) bool {
	if !l.takes(o.Kind) {
		return false
	}
	from := gatewayv1.NamespacesFromSame
	if a := l.allowed; a != nil && a.Namespaces != nil {
		from = deref(a.Namespaces.From, gatewayv1.NamespacesFromSame)
	}
	switch from {
	case gatewayv1.NamespacesFromAll:
		return true
	case gatewayv1.NamespacesFromSame:
		return o.Namespace == p.obj.Namespace
	case gatewayv1.NamespacesFromSelector:
		return l.selector != nil && l.selector.Matches(labels.Set(r.namespaceLabels(o.Cluster, o.Namespace)))
	}
	return false
}

// routeHostnames gives a route's hostnames in lower case.
func routeHostnames(o *cluster.Object) (out []string) {
	for _, n := range federation.RouteHostnames(o) {
		out = append(out, strings.ToLower(string(n)))
	}
	return out
}

// boundRoute is a route as a Gateway or a ListenerSet of it takes it.
type boundRoute struct {
	obj      *cluster.Object
	hosts    []string // the route's hostnames
	taken    []int    // indices of the parent's listeners, sorted
	compiled map[via]*compiled
	accepted bool // as far as the route itself is concerned
}

// bind finds out what a route is to a Gateway or to a ListenerSet of it; nil if it
// does not attach. It depends on the route, on the parent's and the Gateway's
// objects and on what they refer to.
func (r *reader) bind(g *gatewayView, p *parentView, o *cluster.Object) *boundRoute {
	// The caller read these objects: the outcome rests on them too.
	for _, x := range []*cluster.Object{g.obj, p.obj, o} {
		r.note(federation.KeyNamed(x.Kind, x.Namespace, x.Name))
	}
	if !r.concerns(o, p, g) || r.followedRoute(o.Kind, o.Namespace, o.Name) != o {
		return nil
	}
	b := &boundRoute{obj: o, hosts: routeHostnames(o), compiled: map[via]*compiled{}, accepted: true}
	for _, ref := range federation.ParentRefs(o) {
		if federation.ParentKind(ref) == p.obj.Kind && string(ref.Name) == p.obj.Name && parentNamespace(o, ref) == p.obj.Namespace {
			l, _ := r.attach(p, o, ref)
			b.taken = append(b.taken, l...)
		}
	}
	if len(b.taken) == 0 {
		return nil
	}
	slices.Sort(b.taken)
	b.taken = slices.Compact(b.taken)
	for _, i := range b.taken {
		v := g.via(p.listeners[i])
		if b.compiled[v] == nil {
			c := r.compile(o, v)
			b.compiled[v] = &c
			invalid, _ := c.verdict()
			b.accepted = b.accepted && invalid == nil
		}
	}
	return b
}

// via is how requests come to a route through a listener.
func (g *gatewayView) via(l *listenerView) via {
	return via{gateway: true, chain: g.chains(), port: l.port, tls: l.terminates, https: l.protocol == gatewayv1.HTTPSProtocolType}
}

// chains tells whether requests go on through the producer routes of backends.
func (g *gatewayView) chains() bool {
	return g.spec.Annotations[cluster.AnnotationServiceRoutes] != cluster.ServiceRoutesIgnore
}
