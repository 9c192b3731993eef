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
	ports    []int32 // sorted; of the protocol that the route's kind governs
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
			case home != r.local && (consumerOf(o) != "" || staysHome(o) || r.refused(o) != ""):
				// Another cluster's frontend is seen only through a chain: its
				// producers alone, as far as they leave their home.
			default:
				add(o, consumerOf(o), refPorts(ref, s.Spec.Ports, protocolOfKind(o.Kind)))
			}
		})
		return out
	}
	m := r.merge(f.Namespace, f.Name)
	if m.imp == nil || m.imp.Headless {
		return nil
	}
	each(cluster.KindServiceImport, func(o *cluster.Object, ref gatewayv1.ParentReference) {
		if ports := refImportPorts(ref, m.imp, protocolOfKind(o.Kind)); len(ports) > 0 && r.followedRoute(o.Kind, o.Namespace, o.Name) == o {
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
		for _, n := range refPorts(ref, s.Spec.Ports, protocolOfKind(o.Kind)) {
			if p := m.imp.portOf(protocolOfKind(o.Kind), n); p != nil && slices.Contains(p.Clusters, o.Cluster) {
				ports = append(ports, n)
			}
		}
		add(o, "", ports)
	})
	return out
}

func (b binding) selects(protocol string, port int32) bool {
	return protocolOfKind(b.route.Kind) == protocol && slices.Contains(b.ports, port)
}

// chainedBy gives the kind of producer routes of a frontend's port through which
// requests go on that a Gateway took by a route of some kind; empty for none.
func (r *reader) chainedBy(from cluster.Kind, v via, f FrontendKey, protocol string, port int32) cluster.Kind {
	var kinds []cluster.Kind
	for _, b := range r.bindings(f) {
		if b.consumer == "" && b.selects(protocol, port) {
			kinds = append(kinds, b.route.Kind)
		}
	}
	governing := governingKind(protocol, kinds)
	if governing == "" || !readableBy(from, v, governing) {
		return ""
	}
	return governing
}

// refPorts lists the ports of a Service that a parentRef selects, sorted.
func refPorts(ref gatewayv1.ParentReference, ports []corev1.ServicePort, protocol string) []int32 {
	var out []int32
	for _, p := range ports {
		if protocolOf(p.Protocol) == protocol && refSelects(ref, p.Name, p.Port) {
			out = append(out, p.Port)
		}
	}
	slices.Sort(out)
	return out
}

func refImportPorts(ref gatewayv1.ParentReference, imp *Import, protocol string) []int32 {
	var out []int32
	for _, p := range imp.Ports {
		if p.Protocol == protocol && refSelects(ref, p.Name, p.Port) {
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
	lost := map[RouteID][]defeat{}
	for i := range f.Ports {
		r.govern(&f.Ports[i], binds, func(b binding, by cluster.Kind) {
			id := routeID(b.route)
			lost[id] = append(lost[id], defeat{key, f.Ports[i].Port, by})
		})
	}
	out := output{frontend: f, needs: needsOfFrontend(f), facts: usesOfFrontend(f)}
	if key.Cluster == "" {
		for id, list := range lost {
			out.facts = append(out.facts, fact{defeatedKey(id), list})
		}
	}
	return out
}

// defeat says that another kind of routes governs a port that a route binds.
type defeat struct {
	frontend FrontendKey
	port     int32
	by       cluster.Kind
}

// defeatedKey is the Key of the facts with which frontends tell a route of its
// defeats: []defeat.
func defeatedKey(id RouteID) federation.Key { return factKey("defeated", id.String()) }

// govern gives a port the tables of the routes that bind it, one for each group:
// the producers, and the consumers of each namespace. In each group one kind of
// routes governs; the others lose.
func (r *reader) govern(p *FrontendPort, binds []binding, lost func(b binding, by cluster.Kind)) {
	groups := map[string][]binding{}
	for _, b := range binds {
		if b.selects(p.Protocol, p.Port) {
			groups[b.consumer] = append(groups[b.consumer], b)
		}
	}
	http := false
	for ns, group := range groups {
		kinds := make([]cluster.Kind, len(group))
		for i, b := range group {
			kinds[i] = b.route.Kind
		}
		governing := governingKind(p.Protocol, kinds)
		if governing == "" {
			continue
		}
		t := r.groupTable(p, group, governing, lost)
		http = http || t.Forward == nil
		if ns == "" {
			p.Producer = t
		} else {
			p.Consumers = append(p.Consumers, ConsumerTable{ns, t})
		}
	}
	sort.Slice(p.Consumers, func(i, j int) bool { return p.Consumers[i].Namespace < p.Consumers[j].Namespace })
	if http && !p.AppProtocol.HTTP() {
		p.AppProtocol = AppHTTP
	}
}

// groupTable merges the routes of one group that are of the governing kind.
func (r *reader) groupTable(p *FrontendPort, group []binding, governing cluster.Kind, lost func(b binding, by cluster.Kind)) *RouteTable {
	var rules []ranked
	var senior *cluster.Object
	for _, b := range group {
		if b.route.Kind != governing {
			lost(b, governing)
			continue
		}
		if senior == nil || cluster.Older(b.route, senior) {
			senior = b.route
		}
		if governing == cluster.KindHTTPRoute || governing == cluster.KindGRPCRoute {
			for _, rule := range r.compile(b.route, via{port: p.Port}).rules {
				rules = append(rules, ranked{rule: rule, route: b.route})
			}
		}
	}
	switch governing {
	case cluster.KindHTTPRoute, cluster.KindGRPCRoute:
		return table(rules) // also when no rule is left: the route is there
	}
	return &RouteTable{Forward: r.compile(senior, via{port: p.Port}).forward}
}

// judgeMesh tells what became of a Service or ServiceImport parentRef. It is not
// ours where the parentRef of another cluster's route does not concern this one.
func (r *reader) judgeMesh(o *cluster.Object, ref gatewayv1.ParentReference) judged {
	ns, name := parentNamespace(o, ref), string(ref.Name)
	no := func(reason gatewayv1.RouteConditionReason, format string, a ...any) judged {
		return judged{ours: true, mesh: true, refused: &problem{string(reason), fmt.Sprintf(format, a...)}}
	}
	protocol := protocolOfKind(o.Kind)
	kind := federation.ParentKind(ref)
	var found []int32
	if kind == cluster.KindService {
		s := r.service(o.Cluster, ns, name)
		if o.Cluster != r.local && (ns != o.Namespace || staysHome(o) || r.refused(o) != "" || r.exportedService(o.Cluster, ns, name) == nil) {
			return judged{}
		}
		switch {
		case s == nil:
			return no(gatewayv1.RouteReasonNoMatchingParent, "there is no Service %s/%s in cluster %s", ns, name, o.Cluster)
		case s.Spec.Type == corev1.ServiceTypeExternalName:
			return no(gatewayv1.RouteReasonUnsupportedValue, "Service %s/%s is of type ExternalName and can't be a parent: it has no address", ns, name)
		case headless(s):
			return no(gatewayv1.RouteReasonUnsupportedValue, "Service %s/%s is headless and can't be a parent (GEP-1294): it has no address", ns, name)
		}
		found = refPorts(ref, s.Spec.Ports, protocolOfKind(o.Kind))
	} else {
		m := r.merge(ns, name)
		switch {
		case m.imp == nil:
			return no(gatewayv1.RouteReasonNoMatchingParent, "no cluster exports a Service %s/%s, so there is no such ServiceImport", ns, name)
		case m.imp.Headless:
			return no(gatewayv1.RouteReasonUnsupportedValue, "ServiceImport %s/%s is headless and can't be a parent (GEP-1294): it has no address", ns, name)
		}
		found = refImportPorts(ref, m.imp, protocolOfKind(o.Kind))
	}
	if len(found) == 0 {
		return no(gatewayv1.RouteReasonNoMatchingParent, "%s %s/%s has no %s port %s", kind, ns, name, protocol, refSection(ref))
	}
	return r.judgeKinds(o, ref, found)
}

// judgeKinds tells whether other kinds of routes govern the ports that a mesh
// route binds.
func (r *reader) judgeKinds(o *cluster.Object, ref gatewayv1.ParentReference, ports []int32) judged {
	j := judged{ours: true, mesh: true}
	frontend := FrontendKey{Kind: federation.ParentKind(ref), Namespace: parentNamespace(o, ref), Name: string(ref.Name)}
	if o.Cluster != r.local {
		frontend.Kind = cluster.KindServiceImport // there is no other way in which it concerns us
	}
	left := len(ports)
	for _, v := range r.facts(defeatedKey(routeID(o))) {
		for _, d := range v.([]defeat) {
			if d.frontend == frontend && slices.Contains(ports, d.port) {
				j.note = joinMessage(j.note, fmt.Sprintf("%ss govern port %d", d.by, d.port))
				left--
			}
		}
	}
	if left <= 0 {
		j.refused, j.note = &problem{ReasonConflicted, j.note}, ""
	}
	return j
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
