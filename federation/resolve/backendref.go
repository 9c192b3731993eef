package resolve

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
)

const (
	groupMCS = "multicluster.x-k8s.io"
	tcp      = "TCP"
)

func (r *reader) compileBackends(c *compiled, o *cluster.Object, where string, in []gatewayv1.HTTPBackendRef, v via) []WeightedBackend {
	var out []WeightedBackend
	for i := range in {
		ref := &in[i]
		here := fmt.Sprintf("%s.backendRefs[%d]", where, i)
		b := WeightedBackend{Weight: uint32(max(deref(ref.Weight, 1), 0))}
		b.Filters, _ = compileFilters(ref.Filters, filterPlace{}, func(reason gatewayv1.RouteConditionReason, format string, a ...any) {
			msg := c.refuse(reason, "%s: %s", here, fmt.Sprintf(format, a...))
			if b.Invalid == "" {
				b.Invalid = msg
			}
		})
		if p := r.resolveBackend(o, ref.BackendObjectReference, v, &b); p != nil {
			p.message = here + ": " + p.message
			c.unresolve(*p)
			b.Invalid, b.Chain = p.message, nil
		}
		out = append(out, b)
	}
	return out
}

// resolveBackend finds what a backendRef of a route means in this cluster, or
// why it means nothing. Key and Chain of b are set even where the backend can't
// be used, as far as they are known.
func (r *reader) resolveBackend(o *cluster.Object, ref gatewayv1.BackendObjectReference, v via, b *WeightedBackend) *problem {
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
	port := deref(ref.Port, 0)
	b.Backend = BackendKey{Kind: BackendImport, Namespace: ns, Name: name, Port: port}
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
	if isService {
		if p := r.checkService(o.Cluster, ns, name, port); p != nil {
			return p
		}
		if o.Cluster != r.local {
			chain.Cluster = o.Cluster
		}
	} else {
		chain.Kind = cluster.KindServiceImport
		m := r.merge(ns, name)
		if m.imp == nil {
			return &problem{string(gatewayv1.RouteReasonBackendNotFound), fmt.Sprintf("no cluster exports a Service %s/%s", ns, name)}
		}
		if m.imp.port(port) == nil {
			return &problem{string(gatewayv1.RouteReasonBackendNotFound), fmt.Sprintf("ServiceImport %s/%s has no TCP port %d", ns, name, port)}
		}
	}
	if v.gateway && v.chain && r.hasProducer(chain, port) {
		b.Chain = &chain
	}
	return nil
}

// checkService tells why a Service of a cluster can't be a backend here.
func (r *reader) checkService(home cluster.ID, ns, name string, port int32) *problem {
	no := func(format string, a ...any) *problem {
		return &problem{string(gatewayv1.RouteReasonBackendNotFound), fmt.Sprintf(format, a...)}
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
	if servicePort(s, port) == nil {
		return no("Service %s/%s has no TCP port %d", ns, name, port)
	}
	return nil
}

// permitted judges ReferenceGrants in the route's home cluster.
func (r *reader) permitted(o *cluster.Object, group, kind, ns, name string) bool {
	for _, g := range r.grants(o.Cluster, ns) {
		from := slices.ContainsFunc(g.Spec.From, func(f gatewayv1.ReferenceGrantFrom) bool {
			return string(f.Group) == gatewayv1.GroupName && string(f.Kind) == string(o.Kind) && string(f.Namespace) == o.Namespace
		})
		if from && slices.ContainsFunc(g.Spec.To, func(t gatewayv1.ReferenceGrantTo) bool {
			return string(t.Group) == group && string(t.Kind) == kind && (t.Name == nil || *t.Name == "" || string(*t.Name) == name)
		}) {
			return true
		}
	}
	return false
}

// servicePort finds a TCP port of a Service by number.
func servicePort(s *corev1.Service, port int32) *corev1.ServicePort {
	for i := range s.Spec.Ports {
		if p := &s.Spec.Ports[i]; p.Port == port && protocolOf(p.Protocol) == tcp {
			return p
		}
	}
	return nil
}

// port finds a TCP port of an import by number.
func (i *Import) port(port int32) *ImportPort {
	for k := range i.Ports {
		if p := &i.Ports[k]; p.Port == port && p.Protocol == tcp {
			return p
		}
	}
	return nil
}
