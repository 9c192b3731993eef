package resolve

import (
	"fmt"
	"slices"
	"sort"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
)

// binding is a route that governs ports of a frontend.
type binding struct {
	route *cluster.Object
	// consumer is the namespace whose clients it governs, empty for producers.
	consumer string
	ports    []int32 // sorted
}

// bindings lists the routes that govern a frontend in this cluster (DESIGN
// section 3, "What crosses clusters"), in no particular order.
func (r *reader) bindings(f FrontendKey) []binding {
	var out []binding
	add := func(o *cluster.Object, consumer string, ports []int32) {
		if len(ports) == 0 {
			return
		}
		for i := range out {
			if out[i].route == o && out[i].consumer == consumer {
				out[i].ports = unite(out[i].ports, ports)
				return
			}
		}
		out = append(out, binding{o, consumer, ports})
	}
	consumerOf := func(o *cluster.Object) string {
		if o.Namespace == f.Namespace {
			return ""
		}
		return o.Namespace
	}
	each := func(kind cluster.Kind, do func(o *cluster.Object, ref gatewayv1.ParentReference)) {
		for _, o := range r.routesOf(kind, f.Namespace, f.Name) {
			for _, ref := range federation.ParentRefs(o) {
				if federation.ParentKind(ref) == kind && string(ref.Name) == f.Name && parentNamespace(o, ref) == f.Namespace {
					do(o, ref)
				}
			}
		}
	}
	if f.Kind == cluster.KindService {
		home := f.Cluster
		if home == "" {
			home = r.local
		}
		s := r.service(home, f.Namespace, f.Name)
		if s == nil || !addressed(s) {
			return nil
		}
		each(cluster.KindService, func(o *cluster.Object, ref gatewayv1.ParentReference) {
			switch {
			case o.Cluster != home:
			case home != r.local && (consumerOf(o) != "" || staysHome(o)):
				// Another cluster's frontend is seen only through a chain: its
				// producers alone, as far as they leave their home.
			default:
				add(o, consumerOf(o), refPorts(ref, s.Spec.Ports))
			}
		})
		return out
	}
	m := r.merge(f.Namespace, f.Name)
	if m.imp == nil || m.imp.Headless {
		return nil
	}
	each(cluster.KindServiceImport, func(o *cluster.Object, ref gatewayv1.ParentReference) {
		if ports := refImportPorts(ref, m.imp); len(ports) > 0 && r.followedRoute(o.Kind, o.Namespace, o.Name) == o {
			add(o, consumerOf(o), ports)
		}
	})
	each(cluster.KindService, func(o *cluster.Object, ref gatewayv1.ParentReference) {
		if consumerOf(o) != "" {
			return
		}
		s := r.exportedService(o.Cluster, f.Namespace, f.Name)
		if s == nil || r.followedRoute(o.Kind, o.Namespace, o.Name) != o {
			return
		}
		// The route speaks of its home's Service: it governs the ports of the
		// import that its home serves.
		var ports []int32
		for _, n := range refPorts(ref, s.Spec.Ports) {
			if p := m.imp.portOf(tcp, n); p != nil && slices.Contains(p.Clusters, o.Cluster) {
				ports = append(ports, n)
			}
		}
		add(o, "", ports)
	})
	return out
}

// hasProducer tells whether producer routes govern a frontend's port.
func (r *reader) hasProducer(f FrontendKey, port int32) bool {
	for _, b := range r.bindings(f) {
		if b.consumer == "" && slices.Contains(b.ports, port) {
			return true
		}
	}
	return false
}

// refPorts lists the TCP ports of a Service that a parentRef selects, sorted.
func refPorts(ref gatewayv1.ParentReference, ports []corev1.ServicePort) []int32 {
	var out []int32
	for _, p := range ports {
		if protocolOf(p.Protocol) == tcp && refSelects(ref, p.Name, p.Port) {
			out = append(out, p.Port)
		}
	}
	slices.Sort(out)
	return out
}

func refImportPorts(ref gatewayv1.ParentReference, imp *Import) []int32 {
	var out []int32
	for _, p := range imp.Ports {
		if p.Protocol == tcp && refSelects(ref, p.Name, p.Port) {
			out = append(out, p.Port)
		}
	}
	return out
}

func refSelects(ref gatewayv1.ParentReference, name string, port int32) bool {
	return (ref.Port == nil || *ref.Port == port) && (ref.SectionName == nil || string(*ref.SectionName) == name)
}

// addressed tells whether clients reach a Service by an address of its own,
// which is what routes govern.
func addressed(s *corev1.Service) bool {
	return !headless(s) && s.Spec.Type != corev1.ServiceTypeExternalName
}

// frontendUnit computes a frontend. For a Service of another cluster (Key.Cluster
// set) it is what Gateways chain through.
func frontendUnit(r *reader, key FrontendKey) output {
	f := &Frontend{Key: key}
	if key.Kind == cluster.KindService {
		id := r.local
		if key.Cluster != "" {
			id = key.Cluster
		}
		s := r.service(id, key.Namespace, key.Name)
		if s == nil || s.Spec.Type == corev1.ServiceTypeExternalName {
			return output{gone: s == nil}
		}
		f.Headless = headless(s)
		for _, p := range s.Spec.Ports {
			b := BackendKey{Kind: BackendService, Namespace: key.Namespace, Name: key.Name, Port: p.Port, Protocol: keyProtocol(protocolOf(p.Protocol))}
			if key.Cluster != "" {
				b.Kind, b.Cluster = BackendShare, key.Cluster
			}
			f.Ports = append(f.Ports, FrontendPort{Port: p.Port, Name: p.Name, Protocol: protocolOf(p.Protocol), AppProtocol: appProtocol(p), Backend: b})
		}
	} else {
		m := r.merge(key.Namespace, key.Name)
		if m.imp == nil {
			return output{gone: len(m.all) == 0}
		}
		f.Headless = m.imp.Headless
		for _, p := range m.imp.Ports {
			f.Ports = append(f.Ports, FrontendPort{Port: p.Port, Name: p.Name, Protocol: p.Protocol, AppProtocol: p.AppProtocol,
				Backend: BackendKey{Kind: BackendImport, Namespace: key.Namespace, Name: key.Name, Port: p.Port, Protocol: keyProtocol(p.Protocol)}})
		}
	}
	sort.Slice(f.Ports, func(i, j int) bool {
		a, b := f.Ports[i], f.Ports[j]
		if a.Protocol != b.Protocol {
			return a.Protocol < b.Protocol
		}
		return a.Port < b.Port
	})
	binds := r.bindings(key)
	for i := range f.Ports {
		if f.Ports[i].Protocol == tcp {
			r.govern(&f.Ports[i], binds)
		}
	}
	return output{frontend: f, needs: needsOfFrontend(f)}
}

// govern gives a port the tables of the routes that bind it.
func (r *reader) govern(p *FrontendPort, binds []binding) {
	groups := map[string][]ranked{}
	for _, b := range binds {
		if !slices.Contains(b.ports, p.Port) {
			continue
		}
		rules := groups[b.consumer]
		for _, rule := range r.compile(b.route, via{port: p.Port}).rules {
			rules = append(rules, ranked{rule: rule, route: b.route})
		}
		groups[b.consumer] = rules // also when no rule is left: the route is there
	}
	for ns, rules := range groups {
		if t := table(rules); ns == "" {
			p.Producer = t
		} else {
			p.Consumers = append(p.Consumers, ConsumerTable{ns, t})
		}
	}
	sort.Slice(p.Consumers, func(i, j int) bool { return p.Consumers[i].Namespace < p.Consumers[j].Namespace })
	if len(groups) > 0 && !p.AppProtocol.HTTP() {
		p.AppProtocol = AppHTTP
	}
}

// judgeMesh tells what became of a Service or ServiceImport parentRef. here is
// false where the parentRef of another cluster's route does not concern this one.
func (r *reader) judgeMesh(o *cluster.Object, ref gatewayv1.ParentReference) (here bool, p *problem) {
	ns, name := parentNamespace(o, ref), string(ref.Name)
	no := func(reason gatewayv1.RouteConditionReason, format string, a ...any) (bool, *problem) {
		return true, &problem{string(reason), fmt.Sprintf(format, a...)}
	}
	kind := federation.ParentKind(ref)
	var found []int32
	if kind == cluster.KindService {
		s := r.service(o.Cluster, ns, name)
		if o.Cluster != r.local && (ns != o.Namespace || staysHome(o) || r.exportedService(o.Cluster, ns, name) == nil) {
			return false, nil
		}
		switch {
		case s == nil:
			return no(gatewayv1.RouteReasonNoMatchingParent, "there is no Service %s/%s in cluster %s", ns, name, o.Cluster)
		case s.Spec.Type == corev1.ServiceTypeExternalName:
			return no(gatewayv1.RouteReasonUnsupportedValue, "Service %s/%s is of type ExternalName and can't be a parent: it has no address", ns, name)
		case headless(s):
			return no(gatewayv1.RouteReasonUnsupportedValue, "Service %s/%s is headless and can't be a parent (GEP-1294): it has no address", ns, name)
		}
		found = refPorts(ref, s.Spec.Ports)
	} else {
		m := r.merge(ns, name)
		switch {
		case m.imp == nil:
			return no(gatewayv1.RouteReasonNoMatchingParent, "no cluster exports a Service %s/%s, so there is no such ServiceImport", ns, name)
		case m.imp.Headless:
			return no(gatewayv1.RouteReasonUnsupportedValue, "ServiceImport %s/%s is headless and can't be a parent (GEP-1294): it has no address", ns, name)
		}
		found = refImportPorts(ref, m.imp)
	}
	if len(found) == 0 {
		return no(gatewayv1.RouteReasonNoMatchingParent, "%s %s/%s has no TCP port %s", kind, ns, name, refSection(ref))
	}
	return true, nil
}

func refSection(ref gatewayv1.ParentReference) string {
	switch {
	case ref.Port != nil && ref.SectionName != nil:
		return fmt.Sprintf("%d named %q", *ref.Port, *ref.SectionName)
	case ref.Port != nil:
		return fmt.Sprint(*ref.Port)
	case ref.SectionName != nil:
		return fmt.Sprintf("named %q", *ref.SectionName)
	}
	return "at all"
}

// keyProtocol is how BackendKey spells a protocol.
func keyProtocol(p string) string {
	if p == tcp {
		return ""
	}
	return p
}

func unite(a, b []int32) []int32 {
	out := append(slices.Clone(a), b...)
	slices.Sort(out)
	return slices.Compact(out)
}
