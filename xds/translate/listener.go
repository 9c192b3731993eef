package translate

import (
	"net/netip"
	"strings"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	streamlogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	inspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	echov3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/echo/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	sniclusterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/sni_cluster/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/causeway-mesh/causeway/cluster"
)

const (
	filterHTTP = "envoy.filters.network.http_connection_manager"
	filterTCP  = "envoy.filters.network.tcp_proxy"
	filterSNI  = "envoy.filters.network.sni_cluster"
	inspectTLS = "envoy.filters.listener.tls_inspector"
	logFile    = "envoy.access_loggers.file"
	logOutput  = "envoy.access_loggers.stdout"

	// tcpIdle is how long a quiet TCP connection lasts, as long as Linux tracks
	// one: opaque protocols may be quiet for hours.
	tcpIdle = 24 * time.Hour
	// connectAttempts counts tries to reach an endpoint for an opaque connection. Each goes
	// to whichever is next, the same one by chance: so there are more than it takes to put
	// that out, with pauses in which it is.
	connectAttempts     = outlierFailures + 2
	connectPause        = 5 * time.Millisecond
	longestConnectPause = 50 * time.Millisecond

	// Bounds on what strangers may hold open at a gateway.
	gatewayStreamIdle     = time.Hour
	gatewayHeadersTimeout = 10 * time.Second
	handshakeTimeout      = 10 * time.Second
	inspectTimeout        = 10 * time.Second
)

// StandardOutput as Options.AccessLog is that of Envoy's process.
const StandardOutput = "/dev/stdout"

// hop says which of the HTTP connection managers one is.
type hop int

const (
	hopSidecar hop = iota
	hopGateway
	hopChain // behind hopGateway in the same process
	hopEntry // a crossing gateway's, for clients without a sidecar
)

func (h hop) stats() string { return [...]string{"frontend", "gateway", "chain", "entry"}[h] }

// connectionManager is the HTTP filter of a listener with its routes over RDS.
//
// Path and Host reach the backend as they were sent, save that "." and ".."
// segments and needless escapes are resolved (RFC 3986, section 6.2.2), as
// Envoy's guide for edges asks: a path must not match one rule and mean another
// to the backend. Repeated and escaped slashes mean something to many backends
// and are left alone.
func connectionManager(h hop, routes string, opts Options) *anypb.Any {
	m := &hcmv3.HttpConnectionManager{
		StatPrefix: h.stats(),
		CodecType:  hcmv3.HttpConnectionManager_AUTO,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
			RouteConfigName: routes,
			ConfigSource:    ads(),
		}},
		HttpFilters: httpFilters(h),
		// Nobody is internal: x-envoy-* headers that a client sends must not
		// change retries and timeouts.
		InternalAddressConfig:        &hcmv3.HttpConnectionManager_InternalAddressConfig{},
		UseRemoteAddress:             no(),
		NormalizePath:                yes(),
		MergeSlashes:                 false,
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_KEEP_UNCHANGED,
		ServerHeaderTransformation:   hcmv3.HttpConnectionManager_PASS_THROUGH,
		// Rules say how long a request may take; nothing else does.
		StreamIdleTimeout:    dur(0),
		UpgradeConfigs:       []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},
		Http2ProtocolOptions: &corev3.Http2ProtocolOptions{AllowConnect: true},
		AccessLog:            accessLog(opts, true),
	}
	switch h {
	case hopGateway:
		// What comes from outside is not believed: the client's address is the
		// connection's, and goes into X-Forwarded-For.
		m.UseRemoteAddress = yes()
		m.StreamIdleTimeout = dur(gatewayStreamIdle)
		m.RequestHeadersTimeout = dur(gatewayHeadersTimeout)
	case hopEntry:
		m.RequestHeadersTimeout = dur(gatewayHeadersTimeout)
	case hopChain:
		// The first hop has done all that is done once.
		m.SkipXffAppend = true
		m.GenerateRequestId = no()
		m.NormalizePath = no()
	}
	return pack(m)
}

func tcpProxy(cluster, stats string, opts Options) *tcpproxyv3.TcpProxy {
	return &tcpproxyv3.TcpProxy{
		StatPrefix:         stats,
		ClusterSpecifier:   &tcpproxyv3.TcpProxy_Cluster{Cluster: cluster},
		IdleTimeout:        dur(tcpIdle),
		MaxConnectAttempts: u32(connectAttempts),
		BackoffOptions:     connectPauses(),
		AccessLog:          accessLog(opts, false),
	}
}

func connectPauses() *corev3.BackoffStrategy {
	return &corev3.BackoffStrategy{BaseInterval: dur(connectPause), MaxInterval: dur(longestConnectPause)}
}

func accessLog(opts Options, http bool) []*accesslogv3.AccessLog {
	if opts.AccessLog == "" {
		return nil
	}
	fields := map[string]string{
		"time": "%START_TIME%", "duration_ms": "%DURATION%", "flags": "%RESPONSE_FLAGS%", "details": "%CONNECTION_TERMINATION_DETAILS%",
		"bytes_received": "%BYTES_RECEIVED%", "bytes_sent": "%BYTES_SENT%", "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
		"listener": "%DOWNSTREAM_LOCAL_ADDRESS%", "upstream": "%UPSTREAM_HOST%", "upstream_cluster": "%UPSTREAM_CLUSTER%",
		"upstream_failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
	}
	if http {
		for k, v := range map[string]string{
			"method": "%REQ(:METHOD)%", "path": "%REQ(:PATH)%", "host": "%REQ(:AUTHORITY)%", "protocol": "%PROTOCOL%", "status": "%RESPONSE_CODE%",
			"details": "%RESPONSE_CODE_DETAILS%", "route": "%ROUTE_NAME%", "request_id": "%REQ(X-REQUEST-ID)%", "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
		} {
			fields[k] = v
		}
	} else {
		fields["sni"] = "%REQUESTED_SERVER_NAME%"
	}
	object := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for k, v := range fields {
		object.Fields[k] = structpb.NewStringValue(v)
	}
	format := &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: object}, OmitEmptyValues: true}
	if opts.AccessLogFormat != "" {
		line := strings.TrimSuffix(opts.AccessLogFormat, "\n") + "\n"
		format = &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_TextFormatSource{
			TextFormatSource: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: line}},
		}}
	}
	name, logger := logFile, proto.Message(&filelogv3.FileAccessLog{Path: opts.AccessLog, AccessLogFormat: &filelogv3.FileAccessLog_LogFormat{LogFormat: format}})
	if opts.AccessLog == StandardOutput {
		// The file may not be Envoy's to open.
		name, logger = logOutput, &streamlogv3.StdoutAccessLog{AccessLogFormat: &streamlogv3.StdoutAccessLog_LogFormat{LogFormat: format}}
	}
	return []*accesslogv3.AccessLog{{Name: name, ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: pack(logger)}}}
}

func networkFilter(name string, config *anypb.Any) *listenerv3.Filter {
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: config}}
}

// frontendListener is a sidecar's or a crossing gateway's listener for one port of a
// frontend. One socket for all workers: there are many listeners, and a port that is
// taken shows at once instead of being shared.
func frontendListener(name string, at netip.AddrPort, h hop) *listenerv3.Listener {
	return &listenerv3.Listener{
		Name:             name,
		Address:          socketAddress(at),
		StatPrefix:       h.stats(),
		TrafficDirection: corev3.TrafficDirection_OUTBOUND,
		EnableReusePort:  no(),
	}
}

// chainListener is reached from within the process alone.
func chainListener(name string, filter *listenerv3.Filter) *listenerv3.Listener {
	return &listenerv3.Listener{
		Name:              name,
		StatPrefix:        hopChain.stats(),
		ListenerSpecifier: &listenerv3.Listener_InternalListener{InternalListener: &listenerv3.Listener_InternalListenerConfig{}},
		FilterChains:      []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{filter}}},
	}
}

// crossingListener lets other networks in. The server name is the name of the
// cluster, so only names of the clusterset's domain are accepted: an Envoy has
// other clusters too, the one of its own xDS server to begin with.
func crossingListener(at netip.AddrPort, opts Options) *listenerv3.Listener {
	tls := &corev3.TransportSocket{Name: transportTLS, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(&tlsv3.DownstreamTlsContext{
		RequireClientCertificate: yes(),
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams:                      tls13(),
			TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: nameIdentity, SdsConfig: ads()}},
			ValidationContextType: &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{
				ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: nameBundles, SdsConfig: ads()},
			},
		},
	})}}
	return &listenerv3.Listener{
		Name:             nameCrossing,
		Address:          socketAddress(at),
		TrafficDirection: corev3.TrafficDirection_INBOUND,
		ListenerFilters: []*listenerv3.ListenerFilter{{
			Name:       inspectTLS,
			ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: pack(&inspectorv3.TlsInspector{})},
		}},
		ListenerFiltersTimeout: dur(inspectTimeout),
		FilterChains: []*listenerv3.FilterChain{{
			FilterChainMatch:              &listenerv3.FilterChainMatch{ServerNames: []string{ProbeServerName}},
			Filters:                       []*listenerv3.Filter{networkFilter("envoy.filters.network.echo", pack(&echov3.Echo{}))},
			TransportSocketConnectTimeout: dur(handshakeTimeout),
			TransportSocket:               tls,
		}, {
			FilterChainMatch: &listenerv3.FilterChainMatch{ServerNames: []string{"*." + cluster.DomainClusterset}},
			Filters: []*listenerv3.Filter{
				networkFilter(filterSNI, pack(&sniclusterv3.SniCluster{})),
				networkFilter(filterTCP, pack(tcpProxy(nameNoCluster, nameCrossing, opts))),
			},
			TransportSocketConnectTimeout: dur(handshakeTimeout),
			TransportSocket:               tls,
		}},
	}
}

// ProbeServerName is the server name by which other clusters' agents find out
// whether a crossing gateway takes connections. It is no service's name, and a
// connection to it reaches nothing: the gateway echoes, which unlike a filter
// that answers by itself waits for the handshake.
const ProbeServerName = "probe." + cluster.DomainClusterset
