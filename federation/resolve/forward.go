package resolve

import (
	"fmt"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
)

// protocolOfKind is the protocol of the ports that a kind of route governs, and of
// its backends' ports.
func protocolOfKind(k cluster.Kind) string {
	if k == cluster.KindUDPRoute {
		return udp
	}
	return tcp
}

// readableBy tells whether requests that came to a Gateway by a route of one kind
// can go on through producer routes of another, which has to understand what it is
// given: HTTP requests can be sent on as requests or as bytes; bytes stay bytes,
// whatever they may mean (GEP-2643); TLS that was not ended stays TLS.
func readableBy(from cluster.Kind, v via, producers cluster.Kind) bool {
	switch from {
	case cluster.KindHTTPRoute, cluster.KindGRPCRoute:
		return producers == cluster.KindHTTPRoute || producers == cluster.KindGRPCRoute || producers == cluster.KindTCPRoute
	case cluster.KindTLSRoute:
		return producers == cluster.KindTCPRoute || (producers == cluster.KindTLSRoute && !v.tls)
	}
	return producers == from // TCPRoute, UDPRoute
}

// compileForward turns a TCPRoute, TLSRoute or UDPRoute into the one rule that it
// has.
func (r *reader) compileForward(o *cluster.Object, v via) compiled {
	c := compiled{total: 1}
	rule := func(name *gatewayv1.SectionName, refs []gatewayv1.BackendRef, more int) {
		c.forward = &ForwardRule{Route: routeID(o), RuleName: string(deref(name, ""))}
		r.forwardBackends(&c, o, refs, v)
		if more > 0 {
			c.refuse(0, gatewayv1.RouteReasonUnsupportedValue, fmt.Sprintf("rules: only the first of a %s counts, and there are %d", o.Kind, more+1))
		}
	}
	none := func() {
		c.forward = &ForwardRule{Route: routeID(o), Invalid: "the route has no rules"}
		c.refuse(0, gatewayv1.RouteReasonUnsupportedValue, fmt.Sprintf("rules: a %s needs one", o.Kind))
	}
	switch route := o.Value.(type) {
	case *gatewayv1.TCPRoute:
		if len(route.Spec.Rules) == 0 {
			none()
			break
		}
		x := &route.Spec.Rules[0]
		rule(x.Name, x.BackendRefs, len(route.Spec.Rules)-1)
	case *gatewayv1.TLSRoute:
		if len(route.Spec.Rules) == 0 {
			none()
			break
		}
		x := &route.Spec.Rules[0]
		rule(x.Name, x.BackendRefs, len(route.Spec.Rules)-1)
	case *gatewayv1.UDPRoute:
		if len(route.Spec.Rules) == 0 {
			none()
			break
		}
		x := &route.Spec.Rules[0]
		rule(x.Name, x.BackendRefs, len(route.Spec.Rules)-1)
	}
	return c
}

func (r *reader) forwardBackends(c *compiled, o *cluster.Object, refs []gatewayv1.BackendRef, v via) {
	f := c.forward
	f.Invalid = "the rule has no backends"
	for i := range refs {
		if i == 0 {
			f.Invalid = "all weights are zero"
		}
		weight := deref(refs[i].Weight, 1)
		if weight < 0 || weight > maxWeightOfBackend {
			c.refuse(0, gatewayv1.RouteReasonUnsupportedValue, fmt.Sprintf("rules[0].backendRefs[%d]: weight %d is not from 0 to %d", i, weight, maxWeightOfBackend))
			weight = 0
		}
		b := WeightedBackend{Weight: uint32(weight)}
		if p := r.resolveBackend(o, refs[i].BackendObjectReference, v, &b); p != nil {
			p.message = fmt.Sprintf("rules[0].backendRefs[%d]: %s", i, p.message)
			c.unresolve(*p)
			b.Invalid, b.Chain, b.ChainRaw = p.message, nil, false
		}
		f.Backends = append(f.Backends, b)
	}
	for _, b := range f.Backends {
		if b.Weight > 0 {
			f.Invalid = ""
		}
	}
}

// routeID names a copy of a route.
func routeID(o *cluster.Object) RouteID {
	return RouteID{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name, Cluster: o.Cluster}
}
