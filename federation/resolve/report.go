package resolve

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
)

// Conditions and reasons of our own, beside Gateway API's and KEP-1645's.
const (
	// ConditionFederated is on routes that other clusters follow too.
	ConditionFederated = "Federated"
	ReasonFederated    = "Federated"
	// ReasonConflicted is GEP-1294's name; Gateway API has no constant for it.
	ReasonConflicted = "Conflicted"
	// ReasonNotSelected: causeway.dev/clusters leaves this cluster out.
	ReasonNotSelected = "NotSelected"
)

// routeUnit reports on the copy of a route that this cluster obeys.
func routeUnit(r *reader, kind cluster.Kind, ns, name string) output {
	copies := r.named(kind, ns, name)
	o := r.follow(r.local, copies)
	if o == nil {
		return output{gone: len(copies) == 0}
	}
	rep := &ObjectReport{Ref: o.Ref, Cluster: o.Cluster}
	var byVia [2]*compiled
	compile := func(v via) *compiled {
		i := 0
		if v.gateway {
			i = 1
		}
		if byVia[i] == nil {
			c := r.compile(o, v)
			byVia[i] = &c
		}
		return byVia[i]
	}
	for _, ref := range federation.ParentRefs(o) {
		var refused *problem
		var c *compiled
		switch kind := federation.ParentKind(ref); kind {
		case cluster.KindService, cluster.KindServiceImport:
			here, p := r.judgeMesh(o, ref)
			if !here {
				continue
			}
			refused, c = p, compile(via{})
		case cluster.KindGateway:
			gns, gname := parentNamespace(o, ref), string(ref.Name)
			g := r.viewGateway(gns, gname)
			switch {
			case g == nil && o.Cluster != r.local:
				continue
			case g == nil && len(r.ownGateway(gns, gname)) > 0:
				continue // somebody else's Gateway: not ours to judge
			case g == nil:
				refused = &problem{string(gatewayv1.RouteReasonNoMatchingParent), fmt.Sprintf("there is no Gateway %s/%s of our controller in cluster %s", gns, gname, o.Cluster)}
			case !r.concerns(o, g):
				continue
			default:
				_, refused = r.attach(g, o, ref)
			}
			// The chain makes no difference to what is reported.
			c = compile(via{gateway: true})
		default:
			continue
		}
		rep.Parents = append(rep.Parents, ParentReport{ParentRef: ref, Conditions: parentConditions(refused, c)})
	}
	if f := r.federatedCondition(o); f != nil {
		rep.Conditions = append(rep.Conditions, *f)
	}
	if len(rep.Parents) == 0 && o.Cluster != r.local {
		return output{}
	}
	return output{reports: []*ObjectReport{rep}}
}

// ownGateway lists this cluster's Gateway of a name, whoever's class it has.
func (r *reader) ownGateway(ns, name string) []*cluster.Object {
	if o := r.get(r.local, cluster.KindGateway, ns, name); o != nil {
		return []*cluster.Object{o}
	}
	return nil
}

// parentConditions says what became of a route at one parent: refused is why the
// parent does not take it, c what is wrong with the route itself.
func parentConditions(refused *problem, c *compiled) []metav1.Condition {
	invalid, partial := c.verdict()
	if refused == nil {
		refused = invalid
	}
	var out []metav1.Condition
	if refused != nil {
		out = append(out, condition(string(gatewayv1.RouteConditionAccepted), false, refused.reason, refused.message))
	} else {
		out = append(out, condition(string(gatewayv1.RouteConditionAccepted), true, string(gatewayv1.RouteReasonAccepted), ""))
		// It is only ever there when it is True, and never on a route that is not
		// accepted.
		if partial != nil {
			out = append(out, condition(string(gatewayv1.RouteConditionPartiallyInvalid), true, partial.reason, partial.message))
		}
	}
	if c.unresolved != nil {
		return append(out, condition(string(gatewayv1.RouteConditionResolvedRefs), false, c.unresolved.reason, c.unresolved.message))
	}
	return append(out, condition(string(gatewayv1.RouteConditionResolvedRefs), true, string(gatewayv1.RouteReasonResolvedRefs), ""))
}

func (r *reader) reportGateway(g *gatewayView, attached [][]*boundRoute) *ObjectReport {
	rep := &ObjectReport{Ref: g.obj.Ref, Cluster: g.obj.Cluster}
	working := 0
	for i := range g.listeners {
		l := &g.listeners[i]
		if l.works() {
			working++
		}
		rep.Listeners = append(rep.Listeners, ListenerReport{Name: string(l.spec.Name), AttachedRoutes: int32(len(attached[i])), SupportedKinds: l.kinds, Conditions: listenerConditions(l, g.runs)})
	}
	add := func(typ gatewayv1.GatewayConditionType, ok bool, reason gatewayv1.GatewayConditionReason, msg string) {
		rep.Conditions = append(rep.Conditions, condition(string(typ), ok, string(reason), msg))
	}
	switch {
	case g.selectErr != nil:
		add(gatewayv1.GatewayConditionAccepted, false, gatewayv1.GatewayReasonInvalid, g.selectErr.Error())
	case working == 0:
		add(gatewayv1.GatewayConditionAccepted, false, gatewayv1.GatewayReasonListenersNotValid, "no listener can be used: see their conditions")
	case working < len(g.listeners):
		add(gatewayv1.GatewayConditionAccepted, true, gatewayv1.GatewayReasonListenersNotValid, "some listeners can't be used: see their conditions")
	default:
		add(gatewayv1.GatewayConditionAccepted, true, gatewayv1.GatewayReasonAccepted, "")
	}
	switch {
	case g.selectErr != nil || working == 0:
		add(gatewayv1.GatewayConditionProgrammed, false, gatewayv1.GatewayReasonInvalid, "")
	case !g.runs:
		add(gatewayv1.GatewayConditionProgrammed, false, ReasonNotSelected, fmt.Sprintf("annotation %s leaves cluster %s out", cluster.AnnotationClusters, r.local))
	default:
		add(gatewayv1.GatewayConditionProgrammed, true, gatewayv1.GatewayReasonProgrammed, "")
	}
	return rep
}

func listenerConditions(l *listenerView, runs bool) []metav1.Condition {
	var out []metav1.Condition
	add := func(typ gatewayv1.ListenerConditionType, ok bool, reason gatewayv1.ListenerConditionReason, msg string) {
		out = append(out, condition(string(typ), ok, string(reason), msg))
	}
	switch {
	case !l.supported:
		add(gatewayv1.ListenerConditionAccepted, false, gatewayv1.ListenerReasonUnsupportedProtocol, fmt.Sprintf("protocol %s is not supported: use HTTP", clip(string(l.spec.Protocol))))
	case l.conflict != "":
		add(gatewayv1.ListenerConditionAccepted, false, gatewayv1.ListenerConditionReason(l.conflict), "another listener has the same port and hostname")
	case l.selectErr != nil:
		add(gatewayv1.ListenerConditionAccepted, false, gatewayv1.ListenerReasonUnsupportedValue, fmt.Sprintf("allowedRoutes.namespaces.selector: %v", l.selectErr))
	default:
		add(gatewayv1.ListenerConditionAccepted, true, gatewayv1.ListenerReasonAccepted, "")
	}
	if l.conflict != "" {
		add(gatewayv1.ListenerConditionConflicted, true, gatewayv1.ListenerConditionReason(l.conflict), "another listener has the same port and hostname")
	} else {
		add(gatewayv1.ListenerConditionConflicted, false, gatewayv1.ListenerReasonNoConflicts, "")
	}
	switch {
	case !l.works():
		add(gatewayv1.ListenerConditionProgrammed, false, gatewayv1.ListenerReasonInvalid, "")
	case !runs:
		add(gatewayv1.ListenerConditionProgrammed, false, ReasonNotSelected, "the Gateway is not run in this cluster")
	default:
		add(gatewayv1.ListenerConditionProgrammed, true, gatewayv1.ListenerReasonProgrammed, "")
	}
	if l.badKinds {
		add(gatewayv1.ListenerConditionResolvedRefs, false, gatewayv1.ListenerReasonInvalidRouteKinds, "allowedRoutes.kinds names a kind that this listener can't take: only HTTPRoute is supported")
	} else {
		add(gatewayv1.ListenerConditionResolvedRefs, true, gatewayv1.ListenerReasonResolvedRefs, "")
	}
	sortConditions(out)
	return out
}

// classUnit accepts this cluster's GatewayClasses of our controller.
func classUnit(r *reader, name string) output {
	o := r.get(r.local, cluster.KindGatewayClass, "", name)
	if o == nil {
		return output{gone: true}
	}
	if !r.ourClass(r.local, name) {
		return output{}
	}
	return output{reports: []*ObjectReport{{Ref: o.Ref, Cluster: o.Cluster, Conditions: []metav1.Condition{
		condition(string(gatewayv1.GatewayClassConditionStatusAccepted), true, string(gatewayv1.GatewayClassReasonAccepted), ""),
	}}}}
}
