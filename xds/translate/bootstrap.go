package translate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"time"
	"unicode/utf8"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	internalv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/bootstrap/internal_listener/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// The files that Bootstrap makes, in BootstrapConfig.Dir.
const (
	FileBootstrap   = "envoy.json"
	FileIdentity    = "sds-identity.json"
	FileAuthorities = "sds-authorities.json"
)

// The files of a proxy's credential, as cluster/identity.Files names them and
// Kubernetes names those of a TLS Secret.
const (
	credentialCert   = "tls.crt"
	credentialKey    = "tls.key"
	credentialBundle = "ca.crt"
)

const (
	clusterXDS       = "xds"
	maxConnections   = 50000
	xdsKeepalive     = 10 * time.Second
	xdsKeepaliveWait = 5 * time.Second
	xdsRetryMin      = 200 * time.Millisecond
	xdsRetryMax      = 3 * time.Second
	flushStats       = 10 * time.Second
)

// BootstrapConfig says how an Envoy starts.
type BootstrapConfig struct {
	Proxy Proxy
	// Instance tells the Envoys of a proxy apart, if it has several: see Proxy.NodeID.
	Instance string
	// Region and Zone of the proxy's cluster; may be empty.
	Region, Zone string
	// XDSAddress is the agent's host:port.
	XDSAddress string
	// ServerID is the SPIFFE id of the agent: the proxy talks to no one else.
	ServerID string
	// Dir is the absolute path of the directory where the caller puts the files
	// that Bootstrap makes.
	Dir string
	// Credential is the absolute path of the directory of tls.crt, tls.key and
	// ca.crt: the proxy's SVID and the authorities of the agent's trust domain.
	// When a rename replaces what is in there, Envoy reads it again.
	Credential string
	// ReadAuthoritiesOnce makes Envoy read ca.crt when it starts and never again,
	// which spares two of the four inotify instances that it takes otherwise
	// (machines grant 128 to a user as a rule). For Envoys that live much shorter
	// than the agent's root.
	ReadAuthoritiesOnce bool
	// AdminSocket is the path of a Unix socket for Envoy's administration, at
	// most 100 bytes. Empty: there is none.
	AdminSocket string
}

func (c BootstrapConfig) validate() error {
	for _, s := range []string{c.Proxy.NodeID(c.Instance), c.Region, c.Zone, c.XDSAddress, c.ServerID, c.Dir, c.Credential, c.AdminSocket} {
		if !utf8.ValidString(s) {
			return fmt.Errorf("%q is not UTF-8", s)
		}
	}
	_, port, err := net.SplitHostPort(c.XDSAddress)
	if n, nerr := strconv.ParseUint(port, 10, 16); err != nil || nerr != nil || n == 0 {
		return fmt.Errorf("the xDS address %q is not host:port", clip(c.XDSAddress))
	}
	switch c.Proxy.Role {
	case RoleSidecar, RoleGateway, RoleCrossing:
	default:
		return fmt.Errorf("role %q is not sidecar, gateway or crossing", c.Proxy.Role)
	}
	switch {
	case c.Proxy.Cluster == "":
		return errors.New("the proxy has no cluster")
	case c.ServerID == "":
		return errors.New("the SPIFFE id of the xDS server is missing")
	case !filepath.IsAbs(c.Dir), !filepath.IsAbs(c.Credential):
		return errors.New("the directories Dir and Credential must be absolute paths")
	case c.AdminSocket != "" && (!filepath.IsAbs(c.AdminSocket) || len(c.AdminSocket) > 100):
		return fmt.Errorf("the admin socket %q is not an absolute path of at most 100 bytes", clip(c.AdminSocket))
	}
	return nil
}

// Bootstrap makes the files with which an Envoy starts, by their names, none of
// which holds a secret: run it with `envoy -c Dir/envoy.json`. Everything but the
// way to the agent comes over incremental ADS.
func Bootstrap(c BootstrapConfig) (map[string][]byte, error) {
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("bootstrap of proxy %s: %w", c.Proxy.ID(), err)
	}
	b := &bootstrapv3.Bootstrap{
		Node: &corev3.Node{
			Id:       c.Proxy.NodeID(c.Instance),
			Cluster:  string(c.Proxy.Cluster),
			Locality: &corev3.Locality{Region: c.Region, Zone: c.Zone, SubZone: string(c.Proxy.Cluster)},
		},
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{
			AdsConfig: &corev3.ApiConfigSource{
				ApiType:                   corev3.ApiConfigSource_DELTA_GRPC,
				TransportApiVersion:       corev3.ApiVersion_V3,
				SetNodeOnFirstMessageOnly: true,
				GrpcServices: []*corev3.GrpcService{{
					TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{
						ClusterName: clusterXDS,
						// Envoy's default grows to 30 s: too long for an agent that is back.
						RetryPolicy: &corev3.RetryPolicy{RetryBackOff: &corev3.BackoffStrategy{BaseInterval: dur(xdsRetryMin), MaxInterval: dur(xdsRetryMax)}},
					}},
				}},
			},
			CdsConfig: ads(),
			LdsConfig: ads(),
		},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{Clusters: []*clusterv3.Cluster{c.xdsCluster()}},
		BootstrapExtensions: []*corev3.TypedExtensionConfig{{
			Name:        "envoy.bootstrap.internal_listener",
			TypedConfig: pack(&internalv3.InternalListener{}),
		}},
		OverloadManager: &overloadv3.OverloadManager{
			ResourceMonitors: []*overloadv3.ResourceMonitor{{
				Name: "envoy.resource_monitors.global_downstream_max_connections",
				ConfigType: &overloadv3.ResourceMonitor_TypedConfig{TypedConfig: pack(&connectionsv3.DownstreamConnectionsConfig{
					MaxActiveDownstreamConnections: maxConnections,
				})},
			}},
		},
		LayeredRuntime:     runtimeLayers(),
		StatsConfig:        statsConfig(),
		StatsFlushInterval: dur(flushStats),
		// Statistics of clusters and routes that no request has met cost nothing.
		DeferredStatOptions: &bootstrapv3.Bootstrap_DeferredStatOptions{EnableDeferredCreationStats: true},
	}
	if c.AdminSocket != "" {
		b.Admin = &bootstrapv3.Admin{Address: &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: c.AdminSocket, Mode: 0o600}}}}
	}
	cert, key, ca := filepath.Join(c.Credential, credentialCert), filepath.Join(c.Credential, credentialKey), filepath.Join(c.Credential, credentialBundle)
	watch := &corev3.WatchedDirectory{Path: c.Credential}
	authorities := c.authorities(fromFile(ca))
	out := map[string][]byte{}
	for name, m := range map[string]proto.Message{
		FileBootstrap: b,
		FileIdentity: &tlsv3.Secret{Name: nameIdentity, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: fromFile(cert), PrivateKey: fromFile(key), WatchedDirectory: watch,
		}}},
		FileAuthorities: &tlsv3.Secret{Name: nameBundles, Type: &tlsv3.Secret_ValidationContext{ValidationContext: authorities}},
	} {
		if name == FileAuthorities {
			if c.ReadAuthoritiesOnce {
				continue
			}
			authorities.WatchedDirectory = watch
		}
		data, err := toJSON(m, name != FileBootstrap)
		if err != nil {
			return nil, fmt.Errorf("bootstrap of proxy %s: %w", c.Proxy.ID(), err)
		}
		out[name] = data
	}
	return out, nil
}

// runtimeLayers lifts Envoy's bound on the size of a regular expression's program,
// which is as low as 100 and makes it refuse all routes of a port for the sake of
// one. Our own bound (maxRegexProgram) stands in its place, and that of RE2's memory.
func runtimeLayers() *bootstrapv3.LayeredRuntime {
	return &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
		Name: "causeway",
		LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: &structpb.Struct{Fields: map[string]*structpb.Value{
			"re2.max_program_size.error_level": structpb.NewNumberValue(math.MaxUint32),
		}}},
	}}}
}

// statsConfig keeps the statistics that tell how traffic and configuration fare.
// Thousands of clusters would have a hundred each.
func statsConfig() *metricsv3.StatsConfig {
	keep := &matcherv3.ListStringMatcher{}
	for _, p := range []string{"server.", "cluster_manager.", "listener_manager.", "control_plane.", "http.", "listener.", "tcp.", "cluster." + clusterXDS + "."} {
		keep.Patterns = append(keep.Patterns, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: p}})
	}
	for _, p := range []string{".upstream_rq_total", ".upstream_rq_5xx", ".upstream_rq_retry", ".upstream_rq_timeout", ".upstream_cx_total", ".upstream_cx_connect_fail", ".upstream_cx_active", ".membership_healthy", ".membership_total"} {
		keep.Patterns = append(keep.Patterns, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: p}})
	}
	return &metricsv3.StatsConfig{StatsMatcher: &metricsv3.StatsMatcher{StatsMatcher: &metricsv3.StatsMatcher_InclusionList{InclusionList: keep}}}
}

func (c BootstrapConfig) xdsCluster() *clusterv3.Cluster {
	host, portText, _ := net.SplitHostPort(c.XDSAddress) // validated
	port, _ := strconv.ParseUint(portText, 10, 16)
	kind := clusterv3.Cluster_STRICT_DNS
	if _, err := netip.ParseAddr(host); err == nil {
		kind = clusterv3.Cluster_STATIC
	}
	return &clusterv3.Cluster{
		Name:                 clusterXDS,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: kind},
		ConnectTimeout:       dur(connectTimeout),
		LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: clusterXDS, Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: &corev3.Address{
				Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)}}},
			}}}}},
		}}},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{protocolOptions: pack(&httpv3.HttpProtocolOptions{
			UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
					// An agent that vanished without a word is noticed.
					ConnectionKeepalive: &corev3.KeepaliveSettings{Interval: dur(xdsKeepalive), Timeout: dur(xdsKeepaliveWait)},
				}},
			}},
		})},
		TransportSocket: &corev3.TransportSocket{Name: transportTLS, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(&tlsv3.UpstreamTlsContext{
			CommonTlsContext: c.tls(),
		})}},
	}
}

func (c BootstrapConfig) tls() *tlsv3.CommonTlsContext {
	out := &tlsv3.CommonTlsContext{
		TlsParams:                      tls13(),
		AlpnProtocols:                  []string{"h2"},
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: nameIdentity, SdsConfig: c.fromDir(FileIdentity)}},
		ValidationContextType: &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{
			ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: nameBundles, SdsConfig: c.fromDir(FileAuthorities)},
		},
	}
	if c.ReadAuthoritiesOnce {
		out.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{
			ValidationContext: c.authorities(fromFile(filepath.Join(c.Credential, credentialBundle))),
		}
	}
	return out
}

// authorities trusts the agent and nobody else that its authorities vouch for.
func (c BootstrapConfig) authorities(ca *corev3.DataSource) *tlsv3.CertificateValidationContext {
	return &tlsv3.CertificateValidationContext{
		TrustedCa:                 ca,
		MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{SanType: tlsv3.SubjectAltNameMatcher_URI, Matcher: exactly(c.ServerID)}},
	}
}

func (c BootstrapConfig) fromDir(name string) *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_PathConfigSource{PathConfigSource: &corev3.PathConfigSource{Path: filepath.Join(c.Dir, name)}},
	}
}

func fromFile(path string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: path}}
}

// toJSON prints a message the same way in every build, which protojson avoids.
// asResource wraps it as Envoy reads resources from files.
func toJSON(m proto.Message, asResource bool) ([]byte, error) {
	if asResource {
		m = pack(m)
	}
	raw, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	if asResource {
		raw = append(append([]byte(`{"resources":[`), raw...), "]}"...)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return nil, err
	}
	return append(out.Bytes(), '\n'), nil
}
