package cluster

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// KindGatewayRun names how a cluster runs a Gateway that is for several, under the
// Gateway's name. Agents work it out and publish it; no source delivers it.
const KindGatewayRun Kind = "GatewayRun" // *GatewayRun

// GatewayRun is how one cluster runs a Gateway of class causeway-clusterset: what the
// cluster in which the Gateway was written can't know by itself, and shows in its status.
// Conditions carry neither a time nor a generation.
type GatewayRun struct {
	// Home is where the Gateway that is run was written, Generation which of its states
	// this is about.
	Home       ID    `json:"home"`
	Generation int64 `json:"generation,omitempty"`
	// Conditions are those of RunCondition of the Gateway in this cluster.
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Addresses are those of the Gateway in this cluster.
	Addresses []gatewayv1.GatewayStatusAddress `json:"addresses,omitempty"`
	// Listeners are those of which a condition is not as it should be.
	Listeners []ListenerRun `json:"listeners,omitempty"`
}

// ListenerRun is what is wrong with a listener of a Gateway in one cluster.
type ListenerRun struct {
	Name string `json:"name"`
	// Conditions are those of RunCondition that are not True.
	Conditions []metav1.Condition `json:"conditions"`
}

// RunCondition tells whether a GatewayRun says conditions of a type, of a Gateway or of its
// listeners: Accepted, Programmed and ResolvedRefs.
func RunCondition(kind string) bool {
	switch gatewayv1.GatewayConditionType(kind) {
	case gatewayv1.GatewayConditionAccepted, gatewayv1.GatewayConditionProgrammed, gatewayv1.GatewayConditionResolvedRefs:
		return true
	}
	return false
}

// Bounds of a GatewayRun.
const (
	MaxRunAddresses = 16 // as many as a Gateway's status may have
	MaxRunListeners = 64 // as many as a Gateway may have
	// MaxRunMessage bounds a condition's message, in bytes.
	MaxRunMessage = 512
)
