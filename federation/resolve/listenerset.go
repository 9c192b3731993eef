package resolve

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
)

// setView is a ListenerSet as a Gateway sees it.
type setView struct {
	parentView
	refused *problem // why the Gateway does not take it
}

// gatewayOf names the Gateway of a ListenerSet; empty if its parent is none.
func gatewayOf(set *cluster.Object) cluster.Ref {
	for _, ref := range federation.ParentRefs(set) {
		if federation.ParentKind(ref) == cluster.KindGateway {
			return cluster.Ref{Kind: cluster.KindGateway, Namespace: parentNamespace(set, ref), Name: string(ref.Name)}
		}
	}
	return cluster.Ref{}
}

// viewSet reads a ListenerSet of a Gateway.
func (r *reader) viewSet(g *gatewayView, o *cluster.Object) *setView {
	s := &setView{parentView: parentView{obj: o}}
	v, _ := o.Value.(*gatewayv1.ListenerSet)
	for i := range v.Spec.Listeners {
		e := &v.Spec.Listeners[i]
		s.listeners = append(s.listeners, newListener(&gatewayv1.Listener{
			Name: e.Name, Hostname: e.Hostname, Port: e.Port, Protocol: e.Protocol, TLS: e.TLS, AllowedRoutes: e.AllowedRoutes,
		}))
	}
	if msg := r.barred(g, o); msg != "" {
		s.refused = &problem{string(gatewayv1.ListenerSetReasonNotAllowed), msg}
	}
	return s
}

// barred tells why a Gateway's allowedListeners exclude a ListenerSet, empty if
// they don't. Labels of namespaces are those in the ListenerSet's home.
func (r *reader) barred(g *gatewayView, set *cluster.Object) string {
	from, selector := gatewayv1.NamespacesFromNone, (*metav1.LabelSelector)(nil)
	if a := g.spec.Spec.AllowedListeners; a != nil && a.Namespaces != nil {
		from, selector = deref(a.Namespaces.From, from), a.Namespaces.Selector
	}
	ok := false
	switch from {
	case gatewayv1.NamespacesFromAll:
		ok = true
	case gatewayv1.NamespacesFromSame:
		ok = set.Namespace == g.obj.Namespace
	case gatewayv1.NamespacesFromSelector:
		sel, err := metav1.LabelSelectorAsSelector(selector)
		if err != nil {
			return fmt.Sprintf("allowedListeners.namespaces.selector of Gateway %s/%s can't be read: %v", g.obj.Namespace, g.obj.Name, err)
		}
		ok = sel.Matches(labels.Set(r.namespaceLabels(set.Cluster, set.Namespace)))
	}
	if ok {
		return ""
	}
	return fmt.Sprintf("allowedListeners of Gateway %s/%s exclude ListenerSets of namespace %s", g.obj.Namespace, g.obj.Name, set.Namespace)
}

// joins tells whether a ListenerSet counts for a Gateway in this cluster: a
// cluster's own, and those of others where both go with a clusterset Gateway.
func (r *reader) joins(g *gatewayView, set *cluster.Object) bool {
	if set.Cluster == r.local {
		return true
	}
	return r.crosses(g.obj) && r.crosses(set)
}

// listenerSets lists the ListenerSets that name a Gateway as their parent, by
// precedence: the senior first.
func (r *reader) listenerSets(g *gatewayView) []*setView {
	var out []*setView
	for _, o := range r.listenerSetsOf(g.obj.Namespace, g.obj.Name) {
		if r.follow(r.local, r.named(cluster.KindListenerSet, o.Namespace, o.Name)) == o && r.joins(g, o) {
			out = append(out, r.viewSet(g, o))
		}
	}
	slices.SortStableFunc(out, func(a, b *setView) int {
		switch {
		case cluster.Older(a.obj, b.obj):
			return -1
		case cluster.Older(b.obj, a.obj):
			return 1
		}
		return 0
	})
	return out
}

// parentSet finds the ListenerSet of a route's parentRef with its Gateway, as this
// cluster follows them. mine is false where it is not for us to judge.
func (r *reader) parentSet(o *cluster.Object, ns, name string) (s *setView, g *gatewayView, mine bool, p *problem) {
	no := func(format string, a ...any) (*setView, *gatewayView, bool, *problem) {
		return nil, nil, o.Cluster == r.local, &problem{string(gatewayv1.RouteReasonNoMatchingParent), fmt.Sprintf(format, a...)}
	}
	set := r.follow(r.local, r.named(cluster.KindListenerSet, ns, name))
	if set == nil {
		return no("there is no ListenerSet %s/%s in cluster %s", ns, name, o.Cluster)
	}
	of := gatewayOf(set)
	if g = r.viewGateway(of.Namespace, of.Name); g == nil || !r.joins(g, set) {
		if of.Name != "" && r.get(r.local, cluster.KindGateway, of.Namespace, of.Name) != nil {
			return nil, nil, false, nil // somebody else's Gateway
		}
		return no("ListenerSet %s/%s has no Gateway of our controller in cluster %s", ns, name, o.Cluster)
	}
	if s = r.viewSet(g, set); s.refused != nil {
		return s, g, r.concerns(o, &s.parentView, g), &problem{string(gatewayv1.RouteReasonNoMatchingParent), s.refused.message}
	}
	return s, g, r.concerns(o, &s.parentView, g), nil
}

// setKey is the Key of the fact with which a Gateway tells of a ListenerSet: its
// report.
func setKey(set *cluster.Object) federation.Key {
	return factKey("set", set.Namespace, set.Name)
}

// listenerSetUnit reports on the copy of a ListenerSet that this cluster obeys.
// What there is to say comes from its Gateway, if it has one.
func listenerSetUnit(r *reader, ns, name string) output {
	copies := r.named(cluster.KindListenerSet, ns, name)
	o := r.follow(r.local, copies)
	if o == nil {
		return output{gone: len(copies) == 0}
	}
	for _, v := range r.facts(setKey(o)) {
		if rep := v.(*ObjectReport); rep.Cluster == o.Cluster {
			out := *rep
			if f := r.federatedCondition(o); f != nil {
				out.Conditions = append(slices.Clone(rep.Conditions), *f)
				sortConditions(out.Conditions)
			}
			return output{reports: []*ObjectReport{&out}}
		}
	}
	of := gatewayOf(o)
	if o.Cluster != r.local || (of.Name != "" && r.get(r.local, cluster.KindGateway, of.Namespace, of.Name) != nil) {
		return output{} // nobody's here, or somebody else's Gateway's
	}
	msg := fmt.Sprintf("there is no Gateway %s/%s of our controller in cluster %s", of.Namespace, of.Name, r.local)
	if of.Name == "" {
		msg = "the parentRef is no Gateway"
	}
	return output{reports: []*ObjectReport{{Ref: o.Ref, Cluster: o.Cluster, Conditions: []metav1.Condition{
		condition(string(gatewayv1.ListenerSetConditionAccepted), false, string(gatewayv1.ListenerSetReasonParentNotAccepted), msg),
		condition(string(gatewayv1.ListenerSetConditionProgrammed), false, ReasonParentNotProgrammed, ""),
	}}}}
}
