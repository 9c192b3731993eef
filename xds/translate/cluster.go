package translate

import (
	"math"
	"slices"
	"strconv"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
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
	// CrossingConnection is how long a connection to another network takes new requests.
	// Crossing gateways pass bytes on: they can't ask their clients to go elsewhere before
	// they stop, so the clients do by themselves. A gateway that is told to stop has to go
	// on for longer than this.
	CrossingConnection = 10 * time.Second
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

// backendCluster translates the part of a backend that endpoints don't change, for
// what speaks HTTP. client is the certificate that the proxy shows to backends,
// roots the file with the system's authorities.
func backendCluster(b *resolve.Backend, client *resolve.Certificate, roots string) (*clusterv3.Cluster, []Problem) {
	name := b.Key.String()
	if b.Config.Protocol == protocolUDP {
		return udpCluster(name, endpointsName(b), &b.Config), nil
	}
	c := edsCluster(name, endpointsName(b))
	c.OutlierDetection = outliers(len(b.Config.Crossings) > 0)
	// What is opaque to sidecars may still be the backend of an HTTPRoute.
	h2 := b.Config.AppProtocol == resolve.AppH2C
	c.TypedExtensionProtocolOptions = speaks(h2, len(b.Config.Crossings) > 0)
	affinity(c, &b.Config)
	matches, problems := crossingMatches(b, func(x resolve.Crossing) string {
		if x.TLS {
			return tlsSNI(b.Key)
		}
		return b.Key.SNI()
	})
	if roots == "" && slices.ContainsFunc(b.Config.TLS, func(t resolve.BackendTLS) bool { return t.System }) {
		problems = append(problems, Problem{Subject: name, Message: "a BackendTLSPolicy asks for the system's certificate authorities, and there is no file with them: nothing is trusted"})
	}
	c.TransportSocketMatches = append(matches, tlsMatches(b, h2, client, roots)...)
	return c, problems
}

// rawCluster passes bytes to a backend as they are.
func rawCluster(b *resolve.Backend) (*clusterv3.Cluster, []Problem) {
	c := edsCluster(RawName(b.Key), endpointsName(b))
	c.OutlierDetection = outliers(len(b.Config.Crossings) > 0)
	affinity(c, &b.Config)
	matches, problems := crossingMatches(b, func(resolve.Crossing) string { return b.Key.SNI() })
	c.TransportSocketMatches = matches
	return c, problems
}

// affinity keeps clients at one endpoint by their address, if they are to be kept.
func affinity(c *clusterv3.Cluster, cfg *resolve.BackendConfig) {
	if cfg.ClientIP {
		c.LbPolicy = clusterv3.Cluster_MAGLEV
	}
}

// tlsSNI is the server name by which a crossing gateway knows a port that it
// reaches by TLS (BackendTLSPolicy).
func tlsSNI(k resolve.BackendKey) string {
	port := strconv.Itoa(int(k.Port))
	return port + "-tls" + k.SNI()[len(port):]
}

// crossingMatches says how the crossing gateways of other networks are entered.
func crossingMatches(b *resolve.Backend, sni func(resolve.Crossing) string) (out []*clusterv3.Cluster_TransportSocketMatch, problems []Problem) {
	for _, x := range b.Config.Crossings {
		if !trustDomain(x.TrustDomain) {
			problems = append(problems, Problem{Subject: b.Key.String(), Message: "cluster " + string(x.Cluster) + " names no trust domain, so its crossing gateways can't be told from others"})
			continue
		}
		out = append(out, &clusterv3.Cluster_TransportSocketMatch{
			Name:            string(x.Cluster),
			Match:           &structpb.Struct{Fields: map[string]*structpb.Value{keyCrossing: structpb.NewStringValue(string(x.Cluster))}},
			TransportSocket: crossingTLS(x.TrustDomain, sni(x)),
		})
	}
	return out, problems
}

// tlsMatches says how endpoints are reached by TLS that are reached directly.
func tlsMatches(b *resolve.Backend, h2 bool, client *resolve.Certificate, roots string) (out []*clusterv3.Cluster_TransportSocketMatch) {
	for i := range b.Config.TLS {
		t := &b.Config.TLS[i]
		out = append(out, &clusterv3.Cluster_TransportSocketMatch{
			Name:            keyTLS + "/" + string(t.Cluster),
			Match:           &structpb.Struct{Fields: map[string]*structpb.Value{keyTLS: structpb.NewStringValue(string(t.Cluster))}},
			TransportSocket: backendTLS(t, h2, client, roots),
		})
	}
	return out
}

// speaks says how requests are sent: by HTTP/2 with prior knowledge, or by HTTP/1.1; and
// whether some of them to other networks.
func speaks(h2, crossing bool) map[string]*anypb.Any {
	how := &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
		ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{HttpProtocolOptions: &corev3.Http1ProtocolOptions{}},
	}
	if h2 {
		how.ProtocolConfig = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
			AllowConnect: true, // a WebSocket over HTTP/2 (RFC 8441)
		}}
	}
	connections := &corev3.HttpProtocolOptions{IdleTimeout: dur(upstreamIdle)}
	if crossing {
		connections.MaxConnectionDuration = dur(CrossingConnection)
	}
	return map[string]*anypb.Any{protocolOptions: pack(&httpv3.HttpProtocolOptions{
		CommonHttpProtocolOptions: connections,
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
	c := internalCluster(name)
	c.TypedExtensionProtocolOptions = map[string]*anypb.Any{protocolOptions: pack(&httpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_UseDownstreamProtocolConfig{UseDownstreamProtocolConfig: &httpv3.HttpProtocolOptions_UseDownstreamHttpConfig{
			HttpProtocolOptions:  &corev3.Http1ProtocolOptions{},
			Http2ProtocolOptions: &corev3.Http2ProtocolOptions{AllowConnect: true},
		}},
	})}
	return c
}
