package translate

import (
	"math"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

const (
	connectTimeout = 2 * time.Second
	// upstreamIdle is how long an unused connection is kept: shorter than what
	// common servers allow (60 s and more), for a request sent while the server
	// closes can't be repeated safely.
	upstreamIdle = 50 * time.Second
	// maxRetries bounds the retries under way to one cluster. They repeat only
	// what no backend has seen, so the bound is against storms alone.
	maxRetries = 1024

	crossingIdentity = "/ns/causeway-system/proxy/crossing/"
	transportTLS     = "envoy.transport_sockets.tls"
	protocolOptions  = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
)

// edsCluster is what all clusters with discovered endpoints share.
func edsCluster(name, endpoints string) *clusterv3.Cluster {
	eds := &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads()}
	if endpoints != name {
		eds.ServiceName = endpoints
	}
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     eds,
		ConnectTimeout:       dur(connectTimeout),
		LbPolicy:             clusterv3.Cluster_ROUND_ROBIN,
		CircuitBreakers:      noBreakers(),
		OutlierDetection:     outliers(false),
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{
			// Weights and health move traffic between clusters: not a second later.
			UpdateMergeWindow: dur(0),
			// Never send to what is known not to be ready.
			HealthyPanicThreshold: &typev3.Percent{Value: 0},
		},
	}
}

// noBreakers lifts Envoy's default limits (1024 connections and requests), which
// nobody asked for: Gateway API has no such limits.
func noBreakers() *clusterv3.CircuitBreakers {
	var list []*clusterv3.CircuitBreakers_Thresholds
	for _, p := range []corev3.RoutingPriority{corev3.RoutingPriority_DEFAULT, corev3.RoutingPriority_HIGH} {
		list = append(list, &clusterv3.CircuitBreakers_Thresholds{
			Priority:           p,
			MaxConnections:     u32(math.MaxUint32),
			MaxPendingRequests: u32(math.MaxUint32),
			MaxRequests:        u32(math.MaxUint32),
			MaxRetries:         u32(maxRetries),
		})
	}
	return &clusterv3.CircuitBreakers{Thresholds: list}
}

// backendCluster translates the part of a backend that endpoints don't change.
func backendCluster(b *resolve.Backend) (*clusterv3.Cluster, []Problem) {
	name := b.Key.String()
	c := edsCluster(name, name)
	c.OutlierDetection = outliers(len(b.Config.Crossings) > 0)
	// What is opaque to sidecars may still be the backend of an HTTPRoute.
	c.TypedExtensionProtocolOptions = speaks(b.Config.AppProtocol == resolve.AppH2C)
	var problems []Problem
	for _, x := range b.Config.Crossings {
		if x.TrustDomain == "" {
			problems = append(problems, Problem{Subject: name, Message: "cluster " + string(x.Cluster) + " names no trust domain, so its crossing gateways can't be told from others"})
			continue
		}
		c.TransportSocketMatches = append(c.TransportSocketMatches, &clusterv3.Cluster_TransportSocketMatch{
			Name:            string(x.Cluster),
			Match:           &structpb.Struct{Fields: map[string]*structpb.Value{keyCrossing: structpb.NewStringValue(string(x.Cluster))}},
			TransportSocket: crossingTLS(x.TrustDomain, b.Key.SNI()),
		})
	}
	return c, problems
}

// speaks says how requests are sent: by HTTP/2 with prior knowledge, or by HTTP/1.1.
func speaks(h2 bool) map[string]*anypb.Any {
	how := &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
		ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{HttpProtocolOptions: &corev3.Http1ProtocolOptions{}},
	}
	if h2 {
		how.ProtocolConfig = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
			AllowConnect: true, // a WebSocket over HTTP/2 (RFC 8441)
		}}
	}
	return map[string]*anypb.Any{protocolOptions: pack(&httpv3.HttpProtocolOptions{
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{IdleTimeout: dur(upstreamIdle)},
		UpstreamProtocolOptions:   &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: how},
	})}
}

// crossingTLS enters another network: mTLS towards its crossing gateways, and to
// nobody else of its trust domain.
func crossingTLS(trustDomain, sni string) *corev3.TransportSocket {
	return &corev3.TransportSocket{Name: transportTLS, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(&tlsv3.UpstreamTlsContext{
		Sni: sni,
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams:                      tls13(),
			TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: nameIdentity, SdsConfig: ads()}},
			ValidationContextType: &tlsv3.CommonTlsContext_CombinedValidationContext{CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext: &tlsv3.CertificateValidationContext{
					MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{
						SanType: tlsv3.SubjectAltNameMatcher_URI,
						Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "spiffe://" + trustDomain + crossingIdentity}},
					}},
				},
				ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: prefixBundle + trustDomain, SdsConfig: ads()},
			}},
		},
	})}}
}

func tls13() *tlsv3.TlsParameters {
	return &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3}
}

// chainCluster leads to the internal listener of a chain. The second hop speaks
// what the client spoke, so that the first one changes nothing.
func chainCluster(name string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       dur(connectTimeout),
		CircuitBreakers:      noBreakers(),
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: name,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: &corev3.Address{
					Address: &corev3.Address_EnvoyInternalAddress{EnvoyInternalAddress: &corev3.EnvoyInternalAddress{
						AddressNameSpecifier: &corev3.EnvoyInternalAddress_ServerListenerName{ServerListenerName: name},
					}},
				}}},
			}}}},
		},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{protocolOptions: pack(&httpv3.HttpProtocolOptions{
			UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_UseDownstreamProtocolConfig{UseDownstreamProtocolConfig: &httpv3.HttpProtocolOptions_UseDownstreamHttpConfig{
				HttpProtocolOptions:  &corev3.Http1ProtocolOptions{},
				Http2ProtocolOptions: &corev3.Http2ProtocolOptions{AllowConnect: true},
			}},
		})},
	}
}
