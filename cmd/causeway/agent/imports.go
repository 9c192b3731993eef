package agent

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/provision"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// importOf is what the cluster's objects are to show of an import; nil if there is none.
// It is pure.
func importOf(res *resolve.Result, name provision.Name) *provision.Import {
	imp, ok := res.Imports.Get([]byte(name.String()))
	if !ok {
		return nil
	}
	out := &provision.Import{
		Name: name, Headless: imp.Headless, SessionAffinity: corev1.ServiceAffinityNone,
		InternalTrafficPolicy: imp.InternalTrafficPolicy, TrafficDistribution: imp.TrafficDistribution, IPFamilies: imp.IPFamilies,
		Labels: imp.Labels, Annotations: imp.Annotations,
	}
	if imp.ClientIP {
		out.SessionAffinity, out.AffinityConfig = corev1.ServiceAffinityClientIP, imp.AffinityConfig
	}
	for _, p := range imp.Ports {
		out.Ports = append(out.Ports, provision.Port{Name: p.Name, Number: p.Port, Protocol: corev1.Protocol(p.Protocol), AppProtocol: p.Declared})
	}
	backends := backendsOf(res, imp)
	out.Gateways = !imp.Headless && throughGateways(res, imp, backends)
	for _, e := range imp.Exporters {
		s := provision.Source{Cluster: e.Cluster, Own: e.Cluster == res.Local, Direct: reached(res, backends, e.Cluster)}
		var stands bool
		if stands, s.Used = standsIn(backends, e.Cluster); stands && s.Direct {
			s.Slices = slicesOf(res, imp, e.Cluster)
		}
		out.Sources = append(out.Sources, s)
	}
	slices.SortFunc(out.Sources, func(a, b provision.Source) int { return cmp.Compare(a.Cluster, b.Cluster) })
	if !imp.Headless && !out.Gateways && !oneFamily(out.Sources) {
		out.Gateways = true
	}
	return out
}

// backendsOf finds the endpoints of an import's ports, as clients of it are given them.
func backendsOf(res *resolve.Result, imp *resolve.Import) (out []*resolve.Backend) {
	f, ok := res.Frontend(resolve.FrontendKey{Kind: cluster.KindServiceImport, Namespace: imp.Namespace, Name: imp.Name})
	if !ok {
		return nil
	}
	for _, p := range f.Ports {
		if b, ok := res.Backends.Get([]byte(p.Backend.String())); ok {
			out = append(out, b)
		}
	}
	return out
}

// throughGateways tells whether kube-proxy, which sends each connection to any of the
// endpoints it knows, would not do what this cluster's sidecars do.
func throughGateways(res *resolve.Result, imp *resolve.Import, backends []*resolve.Backend) bool {
	if f, ok := res.Frontend(resolve.FrontendKey{Kind: cluster.KindServiceImport, Namespace: imp.Namespace, Name: imp.Name}); ok {
		for _, p := range f.Ports {
			if p.Producer != nil {
				return true
			}
		}
	}
	for _, b := range backends {
		if len(b.Config.Crossings) > 0 || len(b.Config.TLS) > 0 {
			return true
		}
	}
	if imp.StaysLocal() {
		return false // others, their weights and drains, have no part in it
	}
	if imp.Even && len(imp.Exporters) > 1 {
		return true
	}
	for _, e := range imp.Exporters {
		if c, ok := res.Snapshot.Cluster(e.Cluster); e.Weight != nil || ok && c.Drained > 0 && e.Cluster != res.Local {
			return true
		}
	}
	return false
}

// reached tells whether this cluster's pods reach another's by their addresses: it is on
// the same network and has published them.
func reached(res *resolve.Result, backends []*resolve.Backend, id cluster.ID) bool {
	if id == res.Local {
		return true
	}
	mine, ok := res.Snapshot.Cluster(res.Local)
	theirs, known := res.Snapshot.Cluster(id)
	if !ok || !known || mine.Meta.Network == "" || mine.Meta.Network != theirs.Meta.Network {
		return false
	}
	for _, b := range backends {
		if slices.ContainsFunc(b.Config.Crossings, func(c resolve.Crossing) bool { return c.Cluster == id }) {
			return false
		}
	}
	return true
}

// standsIn tells whether a cluster's endpoints are among those of the backends (it isn't
// withdrawn), and whether they get connections: Envoy's reckoning of priorities, for
// kube-proxy, which has none.
func standsIn(backends []*resolve.Backend, id cluster.ID) (stands, used bool) {
	for _, b := range backends {
		taken := loads(b)
		for _, g := range b.Groups {
			if g.Cluster == id {
				stands, used = true, used || taken[g.Priority]
			}
		}
	}
	return stands, used
}

// loads tells which priorities get connections: each takes 1.4 times its share of healthy
// weight, and the next what is left. If nothing is healthy the first does.
func loads(b *resolve.Backend) map[uint32]bool {
	healthy, total := map[uint32]uint64{}, map[uint32]uint64{}
	for _, g := range b.Groups {
		for _, e := range g.Endpoints {
			total[g.Priority] += uint64(e.Weight)
			if e.Healthy {
				healthy[g.Priority] += uint64(e.Weight)
			}
		}
	}
	out := map[uint32]bool{}
	left := uint64(100)
	for p := uint32(0); left > 0 && total[p] > 0; p++ {
		if n := min(left, healthy[p]*140/total[p]); n > 0 {
			out[p] = true
			left -= n
		}
	}
	if len(out) == 0 {
		out[0] = true
	}
	return out
}

// slicesOf gives a cluster's EndpointSlices of a service, with the ports that it serves
// under the import's names.
func slicesOf(res *resolve.Result, imp *resolve.Import, id cluster.ID) (out []provision.Slice) {
	o, ok := res.Snapshot.Get(id, cluster.KindService, imp.Namespace, imp.Name)
	if !ok {
		return nil
	}
	svc, ok := o.Value.(*corev1.Service)
	if !ok {
		return nil
	}
	// The import's port behind a name of the cluster's own Service.
	behind := map[string]resolve.ImportPort{}
	for _, p := range svc.Spec.Ports {
		for _, q := range imp.Ports {
			if q.Port == p.Port && q.Protocol == string(cmp.Or(p.Protocol, corev1.ProtocolTCP)) && slices.Contains(q.Clusters, id) {
				behind[p.Name] = q
			}
		}
	}
	for _, o := range res.Snapshot.SlicesOf(id, imp.Namespace, imp.Name) {
		from, ok := o.Value.(*cluster.EndpointSlice)
		if !ok {
			continue
		}
		s := provision.Slice{Name: o.Name, Endpoints: from.Endpoints}
		for _, p := range from.Ports {
			if q, ok := behind[p.Name]; ok && q.Protocol == cmp.Or(p.Protocol, string(corev1.ProtocolTCP)) {
				s.Ports = append(s.Ports, cluster.EndpointPort{Name: q.Name, Port: p.Port, Protocol: q.Protocol, AppProtocol: q.Declared})
			}
		}
		if len(s.Ports) > 0 || len(imp.Ports) == 0 {
			out = append(out, s)
		}
	}
	return out
}

// oneFamily reports whether all sources have endpoints of the same IP families, so that a
// client of any of them reaches all. The crossing gateways reach all by any.
func oneFamily(sources []provision.Source) bool {
	const v4, v6 = 1, 2
	seen := 0
	for _, s := range sources {
		here := 0
		for _, sl := range s.Slices {
			for _, e := range sl.Endpoints {
				if e.Addr.Unmap().Is4() {
					here |= v4
				} else {
					here |= v6
				}
			}
		}
		if here == 0 {
			continue
		}
		if seen != 0 && seen != here {
			return false
		}
		seen = here
	}
	return true
}

// gatewaysOf lists this cluster's crossing gateways: the endpoints of their Service.
func gatewaysOf(res *resolve.Result, namespace, service string) (out []provision.Crossing) {
	for _, o := range res.Snapshot.SlicesOf(res.Local, namespace, service) {
		s, ok := o.Value.(*cluster.EndpointSlice)
		if !ok {
			continue
		}
		for _, e := range s.Endpoints {
			if e.State() != cluster.EndpointGone {
				out = append(out, provision.Crossing{Addr: e.Addr, Zone: e.Zone, Ready: e.Ready, Serving: e.Serving, Terminating: e.Terminating})
			}
		}
	}
	return out
}
