package translate

import (
	"fmt"
	"net/netip"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// assignment translates a backend's endpoints. A group becomes a locality of its
// own (sub_zone is the cluster), so that clusters of one zone stay apart. instead,
// if it is there and gives something, takes the place of a group's endpoints.
//
// Every change of an endpoint sends it again whole, to every sidecar, so it says
// no more than Envoy needs: weights are brought down as far as their ratios allow, 1
// is what no weight means and healthy what no status means, and who and where an
// endpoint is stands in it only where answers are to tell.
func assignment(name string, b *resolve.Backend, opts Options, instead func(*resolve.EndpointGroup) []*endpointv3.LbEndpoint) (*endpointv3.ClusterLoadAssignment, []Problem) {
	var problems []Problem
	known := map[string]bool{}
	for _, c := range b.Config.Crossings {
		known[string(c.Cluster)] = trustDomain(c.TrustDomain)
	}
	out := &endpointv3.ClusterLoadAssignment{
		ClusterName: name,
		// An endpoint of a crossing gateway stands for all behind it. What a group can
		// take before others help is Envoy's default, 1.4 times its healthy share.
		Policy: &endpointv3.ClusterLoadAssignment_Policy{WeightedPriorityHealth: true},
	}
	fail := func(format string, a ...any) {
		problems = append(problems, Problem{Subject: b.Key.String(), Message: fmt.Sprintf(format, a...)})
	}
	unit := uint32(1) // what comes instead bears the resolver's weights
	if instead == nil {
		unit = commonWeight(b)
	}
	// Priorities must have no gaps, also where a group is left out.
	priority, last := -1, uint32(0)
	for i := range b.Groups {
		g := &b.Groups[i]
		if g.Crossing && !known[string(g.Cluster)] {
			fail("cluster %s is behind crossing gateways and has no known trust domain: its endpoints are left out, for nothing goes there without TLS", g.Cluster)
			continue
		}
		l := &endpointv3.LocalityLbEndpoints{Locality: &corev3.Locality{SubZone: valid(string(g.Cluster))}}
		if opts.DebugHeaders {
			l.Locality.Region, l.Locality.Zone = valid(g.Region), valid(g.Zone)
		}
		var taken bool
		if instead != nil {
			l.LbEndpoints = instead(g)
			taken = len(l.LbEndpoints) > 0
		}
		for j := range g.Endpoints {
			if taken {
				break
			}
			e := &g.Endpoints[j]
			if !e.Addr.IsValid() || e.Addr.Port() == 0 {
				if e.Host != "" {
					fail("cluster %s gives its crossing gateway by name (%s): only IP addresses can be used yet; publish host:port with an IP address", g.Cluster, clip(e.Host))
				} else {
					fail("cluster %s has an endpoint without an address (pod %s)", g.Cluster, clip(e.Pod))
				}
				continue
			}
			l.LbEndpoints = append(l.LbEndpoints, lbEndpoint(&b.Config, g, e, weightOf(e)/unit, opts))
		}
		if len(l.LbEndpoints) == 0 {
			continue
		}
		if priority < 0 || g.Priority != last {
			priority, last = priority+1, g.Priority
		}
		l.Priority = uint32(priority)
		out.Endpoints = append(out.Endpoints, l)
	}
	return out, problems
}

func weightOf(e *resolve.Endpoint) uint32 { return max(e.Weight, 1) }

// commonWeight is the greatest common divisor of all weights.
func commonWeight(b *resolve.Backend) uint32 {
	out := uint32(0)
	for i := range b.Groups {
		for j := range b.Groups[i].Endpoints {
			for w := weightOf(&b.Groups[i].Endpoints[j]); w != 0; {
				out, w = w, out%w
			}
		}
	}
	return max(out, 1)
}

func lbEndpoint(c *resolve.BackendConfig, g *resolve.EndpointGroup, e *resolve.Endpoint, weight uint32, opts Options) *endpointv3.LbEndpoint {
	address := socketAddress(e.Addr)
	if e.Missing {
		address = nowhere(g.Cluster, e.Addr.Port())
	}
	out := &endpointv3.LbEndpoint{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address}},
	}
	if !e.Healthy {
		out.HealthStatus = corev3.HealthStatus_UNHEALTHY
	}
	if weight > 1 {
		out.LoadBalancingWeight = u32(weight)
	}
	meta := map[string]*structpb.Struct{}
	if opts.DebugHeaders {
		ours := map[string]*structpb.Value{"cluster": structpb.NewStringValue(string(g.Cluster))}
		if e.Pod != "" {
			ours["pod"] = structpb.NewStringValue(valid(e.Pod))
		}
		meta[metaCauseway] = &structpb.Struct{Fields: ours}
	}
	if g.Crossing && !e.Missing { // nobody connects to what is missing
		meta[metaSocketMatch] = &structpb.Struct{Fields: map[string]*structpb.Value{keyCrossing: structpb.NewStringValue(string(g.Cluster))}}
	}
	if tlsOf(c, g) != nil {
		meta[metaSocketMatch] = &structpb.Struct{Fields: map[string]*structpb.Value{keyTLS: structpb.NewStringValue(string(g.Cluster))}}
	}
	if len(meta) > 0 {
		out.Metadata = &corev3.Metadata{FilterMetadata: meta}
	}
	return out
}

// nowhere is the address of what stands for a cluster's missing endpoints. It is
// never called: unhealthy, in clusters without panic. A path is shorter than an IP
// address that nobody has.
func nowhere(c cluster.ID, port uint16) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: valid(string(c)) + ":" + strconv.Itoa(int(port))}}}
}

func socketAddress(a netip.AddrPort) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       a.Addr().Unmap().WithZone("").String(),
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port())},
		Ipv4Compat:    a.Addr() == netip.IPv6Unspecified(), // all addresses of both families
	}}}
}
