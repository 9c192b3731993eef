package resolve

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
)

// judgement is what a Gateway's own listeners and references make of it.
type judgement struct {
	accepted   bool
	working    int // of the Gateway's own listeners
	unresolved int // of the Gateway's own listeners
	clientRef  *problem
}

// judge looks at the Gateway's own listeners: those of ListenerSets don't count
// for it (GEP-1713).
func (g *gatewayView) judge(all []*placed) judgement {
	var j judgement
	for _, l := range all[:len(g.listeners)] {
		if l.works() {
			j.working++
		}
		if l.unresolved != nil || len(l.badKinds) > 0 {
			j.unresolved++
		}
	}
	j.accepted = g.refused == nil && j.working > 0
	return j
}

func (r *reader) reportGateway(g *gatewayView, all []*placed, sets []*setView, j judgement) *ObjectReport {
	rep := &ObjectReport{Ref: g.obj.Ref, Cluster: g.obj.Cluster, AttachedListenerSets: new(int32)}
	for _, l := range all[:len(g.listeners)] {
		rep.Listeners = append(rep.Listeners, listenerReport(l, g.idle(true)))
	}
	for _, s := range sets {
		if s.refused == nil && j.accepted && workingIn(&s.parentView, all) > 0 {
			*rep.AttachedListenerSets++
		}
	}
	add := func(typ gatewayv1.GatewayConditionType, ok bool, reason gatewayv1.GatewayConditionReason, msg string) {
		rep.Conditions = append(rep.Conditions, condition(string(typ), ok, string(reason), msg))
	}
	switch {
	case g.refused != nil:
		add(gatewayv1.GatewayConditionAccepted, false, gatewayv1.GatewayConditionReason(g.refused.reason), g.refused.message)
	case j.working == 0:
		add(gatewayv1.GatewayConditionAccepted, false, gatewayv1.GatewayReasonListenersNotValid, "no listener can be used: see their conditions")
	case j.working < len(g.listeners):
		add(gatewayv1.GatewayConditionAccepted, true, gatewayv1.GatewayReasonListenersNotValid, "some listeners can't be used: see their conditions")
	default:
		add(gatewayv1.GatewayConditionAccepted, true, gatewayv1.GatewayReasonAccepted, "")
	}
	if insecureFrontend(g) {
		add(gatewayv1.GatewayConditionInsecureFrontendValidationMode, true, gatewayv1.GatewayReasonConfigurationChanged, "tls.frontend lets clients in without a valid certificate (AllowInsecureFallback)")
	}
	switch {
	case g.refused != nil:
		add(gatewayv1.GatewayConditionProgrammed, false, gatewayv1.GatewayReasonInvalid, "nothing is made or changed for the Gateway until it is accepted; what runs of it goes on")
	case !j.accepted:
		add(gatewayv1.GatewayConditionProgrammed, false, gatewayv1.GatewayReasonInvalid, "")
	case !g.runs:
		add(gatewayv1.GatewayConditionProgrammed, false, ReasonNotSelected, fmt.Sprintf("annotation %s leaves cluster %s out", cluster.AnnotationClusters, r.local))
	default:
		add(gatewayv1.GatewayConditionProgrammed, true, gatewayv1.GatewayReasonProgrammed, "")
	}
	switch {
	case j.clientRef != nil:
		add(gatewayv1.GatewayConditionResolvedRefs, false, gatewayv1.GatewayConditionReason(j.clientRef.reason), j.clientRef.message)
	case j.unresolved > 0:
		add(gatewayv1.GatewayConditionResolvedRefs, false, gatewayv1.GatewayReasonListenersNotResolved, "some listeners refer to what can't be used: see their conditions")
	default:
		add(gatewayv1.GatewayConditionResolvedRefs, true, gatewayv1.GatewayReasonResolvedRefs, "")
	}
	if why := r.refused(g.obj); why != "" && r.wouldCross(g.obj) {
		add(ConditionFederated, false, ReasonNotAllowedByPolicy, why)
		sortConditions(rep.Conditions)
	}
	return rep
}

// idle tells why the Gateway serves none of its listeners here, nil if it does.
func (g *gatewayView) idle(accepted bool) *problem {
	switch {
	case g.refused != nil || !accepted:
		return &problem{string(gatewayv1.ListenerReasonInvalid), "the Gateway is not accepted"}
	case !g.runs:
		return &problem{ReasonNotSelected, "the Gateway is not run in this cluster"}
	}
	return nil
}

func workingIn(p *parentView, all []*placed) int {
	n := 0
	for _, l := range all {
		if l.parent == p && l.works() {
			n++
		}
	}
	return n
}

// reportListenerSet is what a Gateway makes of one of its ListenerSets.
func (r *reader) reportListenerSet(g *gatewayView, s *setView, all []*placed, j judgement) *ObjectReport {
	rep := &ObjectReport{Ref: s.obj.Ref, Cluster: s.obj.Cluster}
	add := func(typ gatewayv1.ListenerSetConditionType, ok bool, reason gatewayv1.ListenerSetConditionReason, msg string) {
		rep.Conditions = append(rep.Conditions, condition(string(typ), ok, string(reason), msg))
	}
	no := func(accepted, programmed gatewayv1.ListenerSetConditionReason, msg string) {
		add(gatewayv1.ListenerSetConditionAccepted, false, accepted, msg)
		add(gatewayv1.ListenerSetConditionProgrammed, false, programmed, "")
	}
	if s.refused != nil {
		no(gatewayv1.ListenerSetConditionReason(s.refused.reason), gatewayv1.ListenerSetConditionReason(s.refused.reason), s.refused.message)
		return rep
	}
	for _, l := range all {
		if l.parent == &s.parentView {
			rep.Listeners = append(rep.Listeners, listenerReport(l, g.idle(j.accepted)))
		}
	}
	working := workingIn(&s.parentView, all)
	switch {
	case !j.accepted:
		no(gatewayv1.ListenerSetReasonParentNotAccepted, ReasonParentNotProgrammed, fmt.Sprintf("Gateway %s/%s is not accepted", g.obj.Namespace, g.obj.Name))
		return rep
	case working == 0:
		no(gatewayv1.ListenerSetReasonListenersNotValid, gatewayv1.ListenerSetReasonListenersNotValid, "no listener can be used: see their conditions")
		return rep
	case working < len(s.listeners):
		add(gatewayv1.ListenerSetConditionAccepted, true, gatewayv1.ListenerSetReasonListenersNotValid, "some listeners can't be used: see their conditions")
	default:
		add(gatewayv1.ListenerSetConditionAccepted, true, gatewayv1.ListenerSetReasonAccepted, "")
	}
	if g.runs {
		add(gatewayv1.ListenerSetConditionProgrammed, true, gatewayv1.ListenerSetReasonProgrammed, "")
	} else {
		add(gatewayv1.ListenerSetConditionProgrammed, false, ReasonNotSelected, "the Gateway is not run in this cluster")
	}
	return rep
}

func listenerReport(l *placed, idle *problem) ListenerReport {
	rep := ListenerReport{Name: l.name, SupportedKinds: l.kinds, Conditions: listenerConditions(l, idle)}
	for _, b := range l.attached {
		if b.accepted {
			rep.AttachedRoutes++
		}
	}
	return rep
}

func listenerConditions(l *placed, idle *problem) []metav1.Condition {
	var out []metav1.Condition
	add := func(typ gatewayv1.ListenerConditionType, ok bool, reason gatewayv1.ListenerConditionReason, msg string) {
		out = append(out, condition(string(typ), ok, string(reason), msg))
	}
	programmed := gatewayv1.ListenerReasonInvalid
	switch {
	case l.tooMany:
		add(gatewayv1.ListenerConditionAccepted, false, gatewayv1.ListenerConditionReason(gatewayv1.ListenerEntryReasonTooManyListeners), fmt.Sprintf("the Gateway has more than %d listeners with those of its ListenerSets", maxListeners))
	case l.conflict != "":
		add(gatewayv1.ListenerConditionAccepted, false, l.conflict, conflictText(l))
		programmed = l.conflict
	case l.refused != nil:
		add(gatewayv1.ListenerConditionAccepted, false, gatewayv1.ListenerConditionReason(l.refused.reason), l.refused.message)
	case l.noCA != nil:
		add(gatewayv1.ListenerConditionAccepted, false, gatewayv1.ListenerConditionReason(l.noCA.reason), l.noCA.message)
	default:
		add(gatewayv1.ListenerConditionAccepted, true, gatewayv1.ListenerReasonAccepted, "")
	}
	if l.conflict != "" {
		add(gatewayv1.ListenerConditionConflicted, true, l.conflict, conflictText(l))
	} else {
		add(gatewayv1.ListenerConditionConflicted, false, gatewayv1.ListenerReasonNoConflicts, "")
	}
	if l.overlaps {
		add(gatewayv1.ListenerConditionOverlappingTLSConfig, true, gatewayv1.ListenerReasonOverlappingHostnames, "another listener of the port terminates TLS for hostnames that overlap with this one's: a client that reuses a connection for them gets 421")
	}
	switch {
	case !l.works():
		add(gatewayv1.ListenerConditionProgrammed, false, programmed, "")
	case idle != nil:
		add(gatewayv1.ListenerConditionProgrammed, false, gatewayv1.ListenerConditionReason(idle.reason), idle.message)
	default:
		add(gatewayv1.ListenerConditionProgrammed, true, gatewayv1.ListenerReasonProgrammed, "")
	}
	switch {
	case len(l.badKinds) > 0:
		add(gatewayv1.ListenerConditionResolvedRefs, false, gatewayv1.ListenerReasonInvalidRouteKinds, fmt.Sprintf("allowedRoutes.kinds names %s, which a listener of protocol %s can't take", strings.Join(l.badKinds, ", "), l.protocol))
	case l.unresolved != nil:
		add(gatewayv1.ListenerConditionResolvedRefs, false, gatewayv1.ListenerConditionReason(l.unresolved.reason), l.unresolved.message)
	default:
		add(gatewayv1.ListenerConditionResolvedRefs, true, gatewayv1.ListenerReasonResolvedRefs, "")
	}
	sortConditions(out)
	return out
}
