package translate

import (
	"fmt"
	"net/netip"
	"strconv"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

// Datagrams reach other networks inside HTTP/2 streams (CONNECT-UDP, RFC 9298) over
// the same mTLS to the same crossing gateways as everything else. There the
// server name leads to an internal listener that ends the tunnels. A backend may
// have endpoints that are reached directly as well: each cluster's are behind an
// internal listener of the proxy's own, which ends tunnels in the same way, so that
// one cluster of Envoy's holds them all and shares and priorities are as ever.

const upgradeUDP = "CONNECT-UDP"

// udpSNI is the server name by which crossing gateways know a UDP port.
func udpSNI(k resolve.BackendKey) string {
	return strconv.Itoa(int(k.Port)) + "-udp" + k.SNI()[len(strconv.Itoa(int(k.Port))):]
}

// makeTunnel makes the cluster that leads to a UDP backend by tunnels.
func (u *unit) makeTunnel(in Input) {
	b, ok := in.Result.Backends.Get([]byte(u.key.name))
	if !ok {
		u.fail(u.key.name, "the resolver knows no such backend: what goes there is dropped")
		return
	}
	name, endpoints := TunnelName(b.Key), TunnelName(b.Key)+crossings(b)
	c := edsCluster(name, endpoints)
	c.OutlierDetection = outliers(true)
	c.TypedExtensionProtocolOptions = speaks(true, false)
	matches, problems := crossingMatches(b, func(resolve.Crossing) string { return udpSNI(b.Key) })
	c.TransportSocketMatches = matches
	u.problems = append(u.problems, problems...)
	u.add(TypeCluster, newResource(name, b.Key.String(), c))

	e, problems := assignment(endpoints, b, in.Options, func(g *resolve.EndpointGroup) []*endpointv3.LbEndpoint {
		if g.Crossing {
			return nil
		}
		return u.direct(in, b, g)
	})
	u.problems = append(u.problems, problems...)
	u.add(TypeEndpoint, newResource(endpoints, b.Key.String(), e))
}

// direct puts a cluster's endpoints behind an internal listener, and gives what
// stands for them: that listener, with the weight of those that are healthy, and
// for the others an address that nobody has.
func (u *unit) direct(in Input, b *resolve.Backend, g *resolve.EndpointGroup) []*endpointv3.LbEndpoint {
	name := directName(b.Key, g.Cluster)
	var healthy, ill uint64
	own := *g
	own.Priority, own.Endpoints = 0, nil
	for _, e := range g.Endpoints {
		if e.Healthy {
			healthy += uint64(e.Weight)
			own.Endpoints = append(own.Endpoints, e)
		} else {
			ill += uint64(e.Weight)
		}
	}
	within := &resolve.Backend{Key: b.Key, Config: b.Config, Groups: []resolve.EndpointGroup{own}}
	e, problems := assignment(name, within, in.Options, nil)
	u.problems = append(u.problems, problems...)
	u.add(TypeEndpoint, newResource(name, b.Key.String(), e))
	u.add(TypeCluster, newResource(name, b.Key.String(), udpCluster(name, name, &b.Config)))
	u.add(TypeListener, newResource(name, b.Key.String(), tunnelEnd(name, name, in.Options)))
	meta := &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{metaCauseway: {Fields: map[string]*structpb.Value{
		"cluster": structpb.NewStringValue(string(g.Cluster)),
	}}}}
	var out []*endpointv3.LbEndpoint
	if healthy > 0 {
		out = append(out, &endpointv3.LbEndpoint{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: internalAddress(name)}},
			HealthStatus:   corev3.HealthStatus_HEALTHY, LoadBalancingWeight: u32(clampWeight(healthy)), Metadata: meta,
		})
	}
	if ill > 0 {
		out = append(out, &endpointv3.LbEndpoint{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: internalAddress(name + "/not-ready")}},
			HealthStatus:   corev3.HealthStatus_UNHEALTHY, LoadBalancingWeight: u32(clampWeight(ill)), Metadata: meta,
		})
	}
	return out
}

func clampWeight(w uint64) uint32 { return uint32(min(max(w, 1), 1<<31)) }

// tunnelEnd is an internal listener that ends tunnels and sends the datagrams to a
// cluster. Whoever reaches it has been let in before.
func tunnelEnd(name, cluster string, opts Options) *listenerv3.Listener {
	m := &hcmv3.HttpConnectionManager{
		StatPrefix: "tunnel",
		CodecType:  hcmv3.HttpConnectionManager_HTTP2,
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
			Name: name,
			VirtualHosts: []*routev3.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: []*routev3.Route{{
				Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_ConnectMatcher_{ConnectMatcher: &routev3.RouteMatch_ConnectMatcher{}}},
				Action: &routev3.Route_Route{Route: &routev3.RouteAction{
					ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster},
					Timeout:          dur(0),
					UpgradeConfigs: []*routev3.RouteAction_UpgradeConfig{{
						UpgradeType: upgradeUDP, ConnectConfig: &routev3.RouteAction_UpgradeConfig_ConnectConfig{},
					}},
				}},
			}}}},
			ValidateClusters: no(),
		}},
		HttpFilters:          []*hcmv3.HttpFilter{routerFilter()},
		UpgradeConfigs:       []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: upgradeUDP}},
		Http2ProtocolOptions: &corev3.Http2ProtocolOptions{AllowConnect: true},
		StreamIdleTimeout:    dur(2 * udpIdle), // whoever made the tunnel ends it before
		AccessLog:            accessLog(opts, true),
	}
	return chainListener(name, networkFilter(filterHTTP, pack(m)))
}

// udpCluster sends datagrams to endpoints. Nothing tells whether they arrive.
func udpCluster(name, endpoints string, cfg *resolve.BackendConfig) *clusterv3.Cluster {
	c := edsCluster(name, endpoints)
	c.OutlierDetection = nil
	affinity(c, cfg)
	return c
}

// makeTunnelEnd lets other networks into a UDP port of this cluster's own export.
func (u *unit) makeTunnelEnd(in Input, own resolve.BackendKey) {
	name := udpSNI(own)
	subject := fmt.Sprintf("ServiceImport/%s/%s", own.Namespace, own.Name)
	u.needs = append(u.needs, backendUnit(own))
	u.add(TypeListener, newResource(name, subject, tunnelEnd(name, own.String(), in.Options)))
	u.add(TypeCluster, newResource(name, subject, internalCluster(name)))
}

func internalAddress(listener string) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_EnvoyInternalAddress{EnvoyInternalAddress: &corev3.EnvoyInternalAddress{
		AddressNameSpecifier: &corev3.EnvoyInternalAddress_ServerListenerName{ServerListenerName: listener},
	}}}
}

// internalCluster leads to an internal listener of the same name.
func internalCluster(name string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       dur(connectTimeout),
		CircuitBreakers:      noBreakers(),
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: name,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: internalAddress(name)}},
			}}}},
		},
	}
}

func udpAddress(a netip.AddrPort) *corev3.Address {
	out := socketAddress(a)
	out.GetSocketAddress().Protocol = corev3.SocketAddress_UDP
	return out
}
