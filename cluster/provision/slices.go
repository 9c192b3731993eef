package provision

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/kubernetes"
)

var bothFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}

// slice begins an EndpointSlice. proxied: kube-proxy is to use it.
func (p *planner) slice(name string, source cluster.ID, family corev1.IPFamily, proxied bool) SliceObject {
	s := &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{Namespace: p.name.Namespace, Name: name, OwnerReferences: p.owner(), Labels: map[string]string{
			LabelManagedBy: Manager, kubernetes.LabelDerived: derived, discoveryv1.LabelManagedBy: Manager,
			mcsv1beta1.LabelServiceName: p.name.Name, mcsv1beta1.LabelSourceCluster: string(source),
		}},
		AddressType: discoveryv1.AddressType(family),
		Endpoints:   []discoveryv1.Endpoint{},
	}
	if proxied {
		s.Labels[discoveryv1.LabelServiceName] = ServiceName(p.name)
	} else {
		s.Labels[corev1.IsHeadlessService] = ""
	}
	return s
}

// sourceSlices mirror those of the exporting clusters, one for each and family, so
// that a change of one pod rewrites one small object here too.
func (p *planner) sourceSlices() (out []SliceObject) {
	for _, src := range p.want.Sources {
		if !src.Direct {
			continue
		}
		proxied := !p.want.Headless && src.Used
		for _, from := range src.Slices {
			for _, family := range bothFamilies {
				form := "named"
				if proxied {
					form = "proxied"
				}
				s := p.slice(ServiceName(p.name)+"-"+hash(10, string(src.Cluster), from.Name, string(family), form), src.Cluster, family, proxied)
				for _, e := range from.Endpoints {
					if e.Addr.IsValid() && familyOf(e.Addr) == family && e.State() != cluster.EndpointGone {
						s.Endpoints = append(s.Endpoints, p.endpoint(src, e))
					}
				}
				if len(s.Endpoints) == 0 {
					continue
				}
				for _, x := range from.Ports {
					s.Ports = append(s.Ports, slicePort(p.portName(x.Name), corev1.Protocol(x.Protocol), x.AppProtocol, int32(x.Port)))
				}
				out = append(out, s)
			}
		}
	}
	return out
}

// portName is the name that a port of the import has in its objects (see named).
func (p *planner) portName(name string) string {
	if name == "" {
		for i, x := range p.want.Ports {
			if x.Name == "" {
				return p.ports[i].Name
			}
		}
	}
	return name
}

func (p *planner) endpoint(src Source, e cluster.Endpoint) discoveryv1.Endpoint {
	serving := e.Serving || e.Ready
	out := discoveryv1.Endpoint{
		Addresses:  []string{e.Addr.Unmap().String()},
		Conditions: discoveryv1.EndpointConditions{Ready: &e.Ready, Serving: &serving, Terminating: &e.Terminating},
	}
	if e.Hostname != "" {
		out.Hostname = &e.Hostname
	}
	if e.Pod != "" && src.Own { // another cluster's pods are no objects here
		out.TargetRef = &corev1.ObjectReference{Kind: "Pod", Namespace: p.name.Namespace, Name: e.Pod}
	}
	if e.Node != "" && src.Own {
		out.NodeName = &e.Node
	}
	p.place(&out, e.Zone)
	return out
}

// place says in which zone an endpoint is, and, where clients prefer their own, for
// which zone it is, as kube-proxy wants to be told.
func (p *planner) place(e *discoveryv1.Endpoint, zone string) {
	if zone == "" {
		return
	}
	e.Zone = &zone
	if d := p.want.TrafficDistribution; d != nil && (*d == corev1.ServiceTrafficDistributionPreferClose || *d == corev1.ServiceTrafficDistributionPreferSameZone) {
		e.Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: zone}}}
	}
}

func slicePort(name string, protocol corev1.Protocol, app string, number int32) discoveryv1.EndpointPort {
	return discoveryv1.EndpointPort{Name: &name, Protocol: &protocol, Port: &number, AppProtocol: appProtocol(Port{AppProtocol: app})}
}

// names reports whether a slice of ours names a gateway with an entry port already. What
// a former leader found out needs not be found out again.
func (p *planner) names(g Crossing, s socket) bool {
	addr := g.Addr.Unmap().String()
	return slices.ContainsFunc(p.have.Slices, func(o SliceObject) bool {
		return oursDerived(o) && o.Labels[mcsv1beta1.LabelSourceCluster] == string(p.local) &&
			slices.ContainsFunc(o.Ports, func(x discoveryv1.EndpointPort) bool {
				return x.Port != nil && *x.Port == int32(s.number) && x.Protocol != nil && *x.Protocol == s.protocol
			}) &&
			slices.ContainsFunc(o.Endpoints, func(e discoveryv1.Endpoint) bool { return slices.Contains(e.Addresses, addr) })
	})
}

// gatewayPrefix begins the names of gatewaySlices.
func (p *planner) gatewayPrefix() string { return ServiceName(p.name) + "-gateways-" }

// gatewaysStand reports whether there are gatewaySlices yet, or still.
func (p *planner) gatewaysStand() bool {
	return slices.ContainsFunc(p.have.Slices, func(s SliceObject) bool { return strings.HasPrefix(s.Name, p.gatewayPrefix()) && oursDerived(s) })
}

// gatewaySlices have the crossing gateways for endpoints, those alone that take
// connections at the entry ports of the slice. Ports that the same gateways take share a
// slice: a new port has one of its own until all do. complete is false while there is a
// port that none takes; waits, while some gateway does not take a port that it should.
func (p *planner) gatewaySlices() (out []SliceObject, complete, waits bool) {
	gateways := slices.Clone(p.gateways)
	slices.SortFunc(gateways, func(a, b Crossing) int { return a.Addr.Compare(b.Addr) })
	gateways = slices.CompactFunc(gateways, func(a, b Crossing) bool { return a.Addr == b.Addr })
	complete = len(gateways) > 0
	for _, family := range p.families() {
		type group struct {
			ports []discoveryv1.EndpointPort
			ends  []discoveryv1.Endpoint
		}
		var groups []*group
		bySet := map[string]*group{}
		for _, x := range p.ports {
			if !plainPort(x) {
				continue
			}
			number, ok := p.entries.get(entryKey{p.name, x.Protocol, x.Number})
			if !ok {
				complete = false // it is recorded first
				continue
			}
			var set []string
			var ends []discoveryv1.Endpoint
			for _, g := range gateways {
				if familyOf(g.Addr) != family {
					continue
				}
				if s := (socket{x.Protocol, number}); !p.serves(g, s) && !p.names(g, s) {
					waits = waits || g.Ready
					continue
				}
				serving := g.Serving || g.Ready
				e := discoveryv1.Endpoint{Addresses: []string{g.Addr.Unmap().String()}, Conditions: discoveryv1.EndpointConditions{Ready: &g.Ready, Serving: &serving, Terminating: &g.Terminating}}
				p.place(&e, g.Zone)
				set, ends = append(set, g.Addr.String()), append(ends, e)
			}
			if len(ends) == 0 {
				complete = false
				continue
			}
			key := strings.Join(set, " ")
			if bySet[key] == nil {
				bySet[key] = &group{ends: ends}
				groups = append(groups, bySet[key])
			}
			bySet[key].ports = append(bySet[key].ports, slicePort(x.Name, x.Protocol, x.AppProtocol, int32(number)))
		}
		// The largest first, so that the one that stays keeps its name.
		slices.SortStableFunc(groups, func(a, b *group) int { return cmp.Compare(len(b.ends), len(a.ends)) })
		for i, g := range groups {
			s := p.slice(fmt.Sprintf("%s%s-%d", p.gatewayPrefix(), strings.ToLower(string(family)), i), p.local, family, true)
			s.Ports, s.Endpoints = g.ports, g.ends
			out = append(out, s)
		}
	}
	return out, complete, waits
}
