package resolve

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
)

const (
	groupMCS = "multicluster.x-k8s.io"
	tcp      = "TCP"
	udp      = "UDP"
)

// maxWeightOfBackend is Gateway API's (BackendRef.weight).
const maxWeightOfBackend = 1_000_000

func (r *reader) compileBackends(c *compiled, o *cluster.Object, in []gatewayv1.HTTPBackendRef, at filterPlace, fail failFunc) []WeightedBackend {
	var out []WeightedBackend
	for i := range in {
		ref := &in[i]
		here := at
		short := fmt.Sprintf("backendRefs[%d]", i)
		here.where = at.where + "." + short
		weight := deref(ref.Weight, 1)
		if weight < 0 || weight > maxWeightOfBackend {
			fail(gatewayv1.RouteReasonUnsupportedValue, "%s: weight %d is not from 0 to %d", short, weight, maxWeightOfBackend)
			weight = 0
		}
		b := WeightedBackend{Weight: uint32(weight)}
		f := r.compileFilters(c, o, ref.Filters, here, func(reason gatewayv1.RouteConditionReason, format string, a ...any) {
			fail(reason, "%s: %s", short, fmt.Sprintf(format, a...))
		})
		b.Filters, b.Redirect, b.Invalid = f.Filters, f.redirect, f.unresolved
		if p := r.resolveBackend(o, ref.BackendObjectReference, at.via, &b); p != nil {
			p.message = here.where + ": " + p.message
			c.unresolve(*p)
			b.Invalid, b.Chain, b.ChainRaw = p.message, nil, false
		}
		out = append(out, b)
	}
	return out
}

// resolveBackend finds what a backendRef of a route means in this cluster, or
// why it means nothing. Key and Chain of b are set even where the backend can't
// be used, as far as they are known.
func (r *reader) resolveBackend(o *cluster.Object, ref gatewayv1.BackendObjectReference, v via, b *WeightedBackend) *problem {
	return r.resolveBackendFor(o, ref, v, o.Kind == cluster.KindGRPCRoute, b)
}

// resolveBackendFor is resolveBackend for what may be called by gRPC whatever
// the kind of the route.
func (r *reader) resolveBackendFor(o *cluster.Object, ref gatewayv1.BackendObjectReference, v via, grpc bool, b *WeightedBackend) *problem {
	group, kind := string(deref(ref.Group, "")), string(deref(ref.Kind, "Service"))
	ns, name := o.Namespace, string(ref.Name)
	if ref.Namespace != nil {
		ns = string(*ref.Namespace)
	}
	isService := group == "" && kind == "Service"
	if !isService && (group != groupMCS || kind != string(cluster.KindServiceImport)) {
		if group != "" {
			kind = group + "/" + kind
		}
		return &problem{string(gatewayv1.RouteReasonInvalidKind), fmt.Sprintf("backends of kind %s are not supported: use Service or %s/ServiceImport", clip(kind), groupMCS)}
	}
	port, protocol := deref(ref.Port, 0), protocolOfKind(o.Kind)
	b.Backend = BackendKey{Kind: BackendImport, Namespace: ns, Name: name, Port: port, Protocol: keyProtocol(protocol)}
	if isService {
		b.Backend.Kind = BackendService
		if o.Cluster != r.local {
			b.Backend.Kind, b.Backend.Cluster = BackendShare, o.Cluster
		}
	}
	if v.gateway && ns != o.Namespace && !r.permitted(o, group, kind, ns, name) {
		return &problem{string(gatewayv1.RouteReasonRefNotPermitted), fmt.Sprintf("no ReferenceGrant in namespace %s of cluster %s lets %ss of namespace %s refer to %s %s", ns, o.Cluster, o.Kind, o.Namespace, kind, name)}
	}
	if port == 0 {
		return &problem{string(gatewayv1.RouteReasonBackendNotFound), fmt.Sprintf("%s %s/%s: the port is missing", kind, ns, name)}
	}
	chain := FrontendKey{Kind: cluster.KindService, Namespace: ns, Name: name}
	var speaks AppProtocol
	homes := []cluster.ID{o.Cluster}
	if isService {
		p, none := r.findService(o.Cluster, ns, name, protocol, port)
		if none != nil {
			return none
		}
		speaks = appProtocol(*p)
		if o.Cluster != r.local {
			chain.Cluster = o.Cluster
		}
	} else {
		chain.Kind = cluster.KindServiceImport
		m := r.merge(ns, name)
		if m.imp == nil {
			return &problem{string(gatewayv1.RouteReasonBackendNotFound), fmt.Sprintf("no cluster exports a Service %s/%s", ns, name)}
		}
		p := m.imp.portOf(protocol, port)
		if p == nil {
			return &problem{string(gatewayv1.RouteReasonBackendNotFound), fmt.Sprintf("ServiceImport %s/%s has no %s port %d", ns, name, protocol, port)}
		}
		speaks, homes = p.AppProtocol, p.Clusters
	}
	p := r.unusable(o.Kind, speaks, homes, ns, name, port)
	// What only the report counts for needs to know of a chain where it decides
	// whether the backend can be used: by a chain it is not called itself.
	if v.gateway && v.chain && (v.port != 0 || p != nil) {
		if by := r.chainedBy(o.Kind, v, chain, protocol, port); by != "" {
			b.Chain, p = &chain, nil
			b.ChainRaw = by != cluster.KindHTTPRoute && by != cluster.KindGRPCRoute
		}
	}
	if p != nil {
		p.message = fmt.Sprintf("%s %s/%s: %s", kind, ns, name, p.message)
		b.distrusted = p.reason == ReasonInvalidBackendTLSPolicy
		return p
	}
	b.Backend.HTTP2 = grpc && speaks != AppH2C
	return nil
}

// unusable tells why a route of a kind can't use a port of a Service that clusters
// serve, for what it speaks (GEP-1911) or for how it has to be spoken to (GEP-1897).
func (r *reader) unusable(kind cluster.Kind, speaks AppProtocol, homes []cluster.ID, ns, name string, port int32) *problem {
	if kind != cluster.KindHTTPRoute && kind != cluster.KindGRPCRoute {
		return nil // bytes are passed as they are
	}
	no := func(what string) *problem {
		return &problem{string(gatewayv1.RouteReasonUnsupportedProtocol), fmt.Sprintf("the appProtocol of port %d %s", port, what)}
	}
	switch {
	case speaks == AppReserved:
		return no("is not known")
	case speaks == AppWS && kind == cluster.KindGRPCRoute:
		return no("is WebSocket, which a GRPCRoute can't speak")
	}
	policies := 0
	invalid := ""
	if len(r.policiesOf(cluster.KindService, ns, name)) > 0 {
		for _, id := range homes {
			s := r.service(id, ns, name)
			if s == nil {
				continue
			}
			policy := r.policyFor(id, s, ns, name, port)
			if policy == nil {
				continue
			}
			why := r.disobeyed(policy)
			if why == "" {
				return nil // one cluster is enough; the others' share is theirs
			}
			if policies++; invalid == "" {
				invalid = why
			}
		}
	}
	switch {
	case policies == 0 && speaks == AppHTTPS:
		return no("is TLS, which takes a BackendTLSPolicy")
	case policies > 0 && policies == len(homes):
		return &problem{ReasonInvalidBackendTLSPolicy, invalid}
	}
	return nil
}

// findService gives a port of a Service of a cluster, or why it can't be a
// backend here.
func (r *reader) findService(home cluster.ID, ns, name, protocol string, port int32) (*corev1.ServicePort, *problem) {
	no := func(format string, a ...any) (*corev1.ServicePort, *problem) {
		return nil, &problem{string(gatewayv1.RouteReasonBackendNotFound), fmt.Sprintf(format, a...)}
	}
	s := r.service(home, ns, name)
	if home != r.local && (s == nil || r.exportedService(home, ns, name) == nil) {
		return no("cluster %s does not export a Service %s/%s", home, ns, name)
	}
	if s == nil {
		return no("there is no Service %s/%s in cluster %s", ns, name, home)
	}
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return no("Service %s/%s is of type ExternalName and has no endpoints", ns, name)
	}
	p := servicePort(s, protocol, port)
	if p == nil {
		return no("Service %s/%s has no %s port %d", ns, name, protocol, port)
	}
	return p, nil
}

// permitted judges ReferenceGrants in the route's home cluster.
func (r *reader) permitted(o *cluster.Object, group, kind, ns, name string) bool {
	return r.granted(o.Cluster, o.Kind, o.Namespace, group, kind, ns, name)
}

// servicePort finds a port of a Service by protocol and number.
func servicePort(s *corev1.Service, protocol string, port int32) *corev1.ServicePort {
	for i := range s.Spec.Ports {
		if p := &s.Spec.Ports[i]; p.Port == port && protocolOf(p.Protocol) == protocol {
			return p
		}
	}
	return nil
}
