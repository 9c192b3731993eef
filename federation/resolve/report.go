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
	// ReasonNotAllowedByPolicy: the administrators' policy keeps it from other clusters.
	ReasonNotAllowedByPolicy = "NotAllowedByPolicy"
	// ReasonConflicted is GEP-1294's name; Gateway API has no constant for it.
	ReasonConflicted = "Conflicted"
	// ReasonInvalidBackendTLSPolicy is on routes (ResolvedRefs) whose backend has to be
	// called by TLS in a way that can't be: Gateway API asks for the condition, but
	// has no reason for it.
	ReasonInvalidBackendTLSPolicy = "InvalidBackendTLSPolicy"
	// ReasonNotSelected: causeway.dev/clusters leaves this cluster out.
	ReasonNotSelected = "NotSelected"
	// ReasonParentNotProgrammed is what Gateway API says of ListenerSets; it has
	// no constant for it.
	ReasonParentNotProgrammed = "ParentNotProgrammed"
)

// routeUnit reports on the copy of a route that this cluster obeys.
func routeUnit(r *reader, kind cluster.Kind, ns, name string) output {
	copies := r.named(kind, ns, name)
	o := r.follow(r.local, copies)
	if o == nil {
		return output{gone: len(copies) == 0}
	}
	rep := &ObjectReport{Ref: o.Ref, Cluster: o.Cluster}
	byVia := map[via]*compiled{}
	compile := func(v via) *compiled {
		if byVia[v] == nil {
			c := r.compile(o, v)
			byVia[v] = &c
		}
		return byVia[v]
	}
	for _, ref := range federation.ParentRefs(o) {
		j := r.judgeParent(o, ref)
		if !j.ours {
			continue
		}
		c := compile(via{gateway: !j.mesh, chain: j.chain})
		rep.Parents = append(rep.Parents, ParentReport{ParentRef: ref, Conditions: parentConditions(j, c)})
	}
	if f := r.federatedCondition(o); f != nil {
		rep.Conditions = append(rep.Conditions, *f)
	}
	if len(rep.Parents) == 0 && o.Cluster != r.local {
		return output{}
	}
	return output{reports: []*ObjectReport{rep}}
}

// judged is what became of one parentRef of a route, before its rules.
type judged struct {
	ours    bool // ours to judge
	mesh    bool
	chain   bool // a Gateway whose requests go on through producer routes
	refused *problem
	note    string // for an accepted route's message
}

func (r *reader) judgeParent(o *cluster.Object, ref gatewayv1.ParentReference) judged {
	ns, name := parentNamespace(o, ref), string(ref.Name)
	switch kind := federation.ParentKind(ref); kind {
	case cluster.KindService, cluster.KindServiceImport:
		return r.judgeMesh(o, ref)
	case cluster.KindGateway:
		g := r.viewGateway(ns, name)
		switch {
		case g == nil && (o.Cluster != r.local || r.get(r.local, cluster.KindGateway, ns, name) != nil):
			return judged{} // somebody else's Gateway, or none here
		case g == nil:
			return judged{ours: true, refused: &problem{string(gatewayv1.RouteReasonNoMatchingParent), fmt.Sprintf("there is no Gateway %s/%s of our controller in cluster %s", ns, name, o.Cluster)}}
		case !r.concerns(o, &g.parentView, g):
			return judged{}
		}
		j := r.judgeListeners(&g.parentView, o, ref)
		j.chain = g.chains()
		return j
	case cluster.KindListenerSet:
		s, g, ours, p := r.parentSet(o, ns, name)
		if !ours || p != nil {
			return judged{ours: ours, refused: p}
		}
		j := r.judgeListeners(&s.parentView, o, ref)
		j.chain = g.chains()
		return j
	}
	return judged{}
}

// judgeListeners tells what became of a parentRef to a Gateway or a ListenerSet.
func (r *reader) judgeListeners(p *parentView, o *cluster.Object, ref gatewayv1.ParentReference) judged {
	j := judged{ours: true}
	var taken []int
	if taken, j.refused = r.attach(p, o, ref); j.refused != nil {
		return j
	}
	if o.Kind != cluster.KindHTTPRoute && o.Kind != cluster.KindGRPCRoute {
		return j
	}
	left := len(taken)
	for _, v := range r.facts(rejectedKey(routeID(o))) {
		for _, x := range v.([]rejection) {
			for _, i := range taken {
				if x.parent == p.obj.Ref && x.listener == p.listeners[i].name {
					j.note = joinMessage(j.note, x.message)
					left--
				}
			}
		}
	}
	if left <= 0 {
		j.refused, j.note = &problem{ReasonConflicted, j.note}, ""
		return j
	}
	for _, i := range taken {
		for _, note := range circles(o, p.listeners[i]) {
			j.note = joinMessage(j.note, note)
		}
	}
	return j
}

// rejectedKey is the Key of the facts with which Gateways tell a route which of
// their listeners do not take it: []rejection.
func rejectedKey(id RouteID) federation.Key { return factKey("rejected", id.String()) }

// parentConditions says what became of a route at one parent: j is what the parent
// makes of it, c what is wrong with the route itself.
func parentConditions(j judged, c *compiled) []metav1.Condition {
	invalid, partial := c.verdict()
	refused := j.refused
	if refused == nil {
		refused = invalid
	}
	var out []metav1.Condition
	if refused != nil {
		out = append(out, condition(string(gatewayv1.RouteConditionAccepted), false, refused.reason, refused.message))
	} else {
		out = append(out, condition(string(gatewayv1.RouteConditionAccepted), true, string(gatewayv1.RouteReasonAccepted), j.note))
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

// classUnit accepts this cluster's GatewayClasses of our controller.
func classUnit(r *reader, name string) output {
	o := r.get(r.local, cluster.KindGatewayClass, "", name)
	if o == nil {
		return output{gone: true}
	}
	if !r.ourClass(r.local, name) {
		return output{}
	}
	accepted := condition(string(gatewayv1.GatewayClassConditionStatusAccepted), true, string(gatewayv1.GatewayClassReasonAccepted), "")
	if _, why := r.classOptions(name); why != "" {
		accepted = condition(string(gatewayv1.GatewayClassConditionStatusAccepted), false, string(gatewayv1.GatewayClassReasonInvalidParameters), "parametersRef: "+why)
	}
	return output{reports: []*ObjectReport{{Ref: o.Ref, Cluster: o.Cluster, Conditions: []metav1.Condition{accepted}}}}
}
