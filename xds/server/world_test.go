package server

import (
	"fmt"
	"maps"
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/causeway-mesh/causeway/xds/translate"
)

// world is a configuration under construction, by type and name.
type world map[string]map[string]*translate.Resource

func newWorld() world {
	w := world{}
	for _, t := range translate.Types {
		w[t] = map[string]*translate.Resource{}
	}
	return w
}

func (w world) clone() world {
	out := world{}
	for t, m := range w {
		out[t] = maps.Clone(m)
	}
	return out
}

func (w world) resources() *translate.Resources {
	lists := map[string][]*translate.Resource{}
	for t, m := range w {
		lists[t] = slices.Collect(maps.Values(m))
	}
	return translate.NewResources(lists)
}

// since is what changed from before to w.
func (w world) since(before world) translate.Changes {
	c := translate.Changes{Changed: map[string][]string{}, Removed: map[string][]string{}}
	for t, m := range w {
		for name, r := range m {
			if b := before[t][name]; b == nil || b.Version != r.Version {
				c.Changed[t] = append(c.Changed[t], name)
			}
		}
		for name := range before[t] {
			if m[name] == nil {
				c.Removed[t] = append(c.Removed[t], name)
			}
		}
	}
	return c
}

func (w world) put(k kind, version string, m proto.Message) world {
	f := translate.FactsOf(m)
	w[k.URL()][f.Name] = &translate.Resource{
		Name: f.Name, Version: version, Body: pack(m), Facts: f, Subject: "Test/" + f.Name,
	}
	return w
}

func (w world) drop(k kind, name string) world {
	delete(w[k.URL()], name)
	return w
}

func pack(m proto.Message) *anypb.Any {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err)
	}
	return &anypb.Any{TypeUrl: "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()), Value: b}
}

func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}

// edsCluster takes its endpoints over EDS, under the name "eds/"+name.
func edsCluster(name string, timeout time.Duration) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 name,
		ConnectTimeout:       durationpb.New(timeout),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads(), ServiceName: "eds/" + name},
	}
}

// chainCluster leads to an internal listener.
func chainCluster(name, listener string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name: name,
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: name,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: &corev3.Address{
					Address: &corev3.Address_EnvoyInternalAddress{EnvoyInternalAddress: &corev3.EnvoyInternalAddress{
						AddressNameSpecifier: &corev3.EnvoyInternalAddress_ServerListenerName{ServerListenerName: listener},
					}},
				}}},
			}}}},
		},
	}
}

// endpoints is the assignment of a cluster made by edsCluster.
func endpoints(cluster string, ports ...int) *endpointv3.ClusterLoadAssignment {
	var list []*endpointv3.LbEndpoint
	for _, port := range ports {
		list = append(list, &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
			Endpoint: &endpointv3.Endpoint{Address: address(port)},
		}})
	}
	return &endpointv3.ClusterLoadAssignment{
		ClusterName: "eds/" + cluster,
		Endpoints:   []*endpointv3.LocalityLbEndpoints{{LbEndpoints: list}},
	}
}

func address(port int) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}

// routes sends "/<cluster>" to each cluster, and all else to the last.
func routes(name string, clusters ...string) *routev3.RouteConfiguration {
	vh := &routev3.VirtualHost{Name: "all", Domains: []string{"*"}}
	to := func(prefix, cluster string) *routev3.Route {
		return &routev3.Route{
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: prefix}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster},
			}},
		}
	}
	for _, c := range clusters {
		vh.Routes = append(vh.Routes, to("/"+c, c))
	}
	if len(clusters) > 0 {
		vh.Routes = append(vh.Routes, to("/", clusters[len(clusters)-1]))
	}
	return &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{vh}}
}

// httpListener takes its routes over RDS.
func httpListener(name string, port int, route string) *listenerv3.Listener {
	return &listenerv3.Listener{
		Name: name, Address: address(port),
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
			Name: "http",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(&hcmv3.HttpConnectionManager{
				StatPrefix: name,
				RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{
					Rds: &hcmv3.Rds{ConfigSource: ads(), RouteConfigName: route},
				},
				HttpFilters: []*hcmv3.HttpFilter{{
					Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(&routerv3.Router{})},
				}},
			})},
		}}}},
	}
}

func tcpListener(name string, port int, cluster string) *listenerv3.Listener {
	return &listenerv3.Listener{
		Name: name, Address: address(port),
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
			Name: "tcp",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(&tcpproxyv3.TcpProxy{
				StatPrefix: name, ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: cluster},
			})},
		}}}},
	}
}

// v makes a version out of anything.
func v(parts ...any) string { return fmt.Sprint(parts...) }
