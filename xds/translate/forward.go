package translate

import (
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	capsulev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/udp/udp_proxy/session/http_capsule/v3"
	udpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/udp/udp_proxy/v3"
	networkinputsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	fractionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/input_matchers/runtime_fraction/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

const (
	// udpIdle ends a session that has been quiet. A client that goes on gets
	// another, perhaps with another endpoint.
	udpIdle = time.Minute
	// tunnelDatagrams and tunnelBytes bound what a session holds while its tunnel
	// through a crossing gateway is being made.
	tunnelDatagrams, tunnelBytes = 256, 64 << 10

	filterUDP = "envoy.filters.udp_listener.udp_proxy"
)

// target is a cluster that takes a part of the connections or sessions.
type target struct {
	cluster string
	weight  uint32
}

// tcpTargets lists where a ForwardRule sends connections, and what that needs;
// none if every connection is to be closed. tls: backends with a BackendTLSPolicy
// are reached by TLS.
func tcpTargets(f *resolve.ForwardRule, tls bool) (out []target, needs []unitKey) {
	live, sum := liveForward(f)
	for _, b := range live {
		t := target{cluster: nameNoCluster, weight: scale(b.Weight, sum)}
		switch {
		case b.Invalid != "" || !utf8.ValidString(b.Backend.String()):
		case b.Chain != nil && utf8.ValidString(b.Chain.String()):
			needs = append(needs, chainUnit(b))
			t.cluster = ChainName(*b.Chain, b.Backend.Port, b.ChainRaw)
		case tls:
			needs = append(needs, backendUnit(b.Backend))
			t.cluster = b.Backend.String()
		default:
			needs = append(needs, rawUnit(b.Backend))
			t.cluster = RawName(b.Backend)
		}
		out = append(out, t)
	}
	return out, needs
}

// liveForward lists the backends that get connections, with the sum of weights.
func liveForward(f *resolve.ForwardRule) (live []*resolve.WeightedBackend, sum uint64) {
	if f == nil || f.Invalid != "" {
		return nil, 0
	}
	for i := range f.Backends {
		if b := &f.Backends[i]; b.Weight > 0 {
			live = append(live, b)
			sum += uint64(b.Weight)
		}
	}
	return live, sum
}

// tcpFilter splits connections by weight. Without a target it closes them.
func tcpFilter(targets []target, stats string, opts Options) *listenerv3.Filter {
	p := tcpProxy(nameNoCluster, stats, opts)
	switch len(targets) {
	case 0:
	case 1:
		p.ClusterSpecifier = &tcpproxyv3.TcpProxy_Cluster{Cluster: targets[0].cluster}
	default:
		list := &tcpproxyv3.TcpProxy_WeightedCluster{}
		for _, t := range targets {
			list.Clusters = append(list.Clusters, &tcpproxyv3.TcpProxy_WeightedCluster_ClusterWeight{Name: t.cluster, Weight: t.weight})
		}
		p.ClusterSpecifier = &tcpproxyv3.TcpProxy_WeightedClusters{WeightedClusters: list}
	}
	return networkFilter(filterTCP, pack(p))
}

// udpTarget is a backend that takes a part of the sessions; one without a name
// takes none of them anywhere.
type udpTarget struct {
	key    resolve.BackendKey
	weight uint32
}

// udpTargets lists where a ForwardRule sends sessions, chains followed: there is
// no second hop for datagrams within a process, so the weights are multiplied.
func udpTargets(in Input, f *resolve.ForwardRule) (out []udpTarget) {
	live, sum := liveForward(f)
	for _, b := range live {
		w := scale(b.Weight, sum)
		inner := []udpTarget{{key: b.Backend, weight: 1}}
		if b.Invalid != "" || !utf8.ValidString(b.Backend.String()) {
			inner = []udpTarget{{weight: 1}}
		} else if f := chainedForward(in, b); f != nil {
			if inner = udpTargets(in, unchained(f)); len(inner) == 0 {
				inner = []udpTarget{{weight: 1}}
			}
		}
		var part uint64
		for _, t := range inner {
			part += uint64(t.weight)
		}
		for _, t := range inner {
			t.weight = uint32(max(1, uint64(w)*uint64(t.weight)/part))
			out = append(out, t)
		}
	}
	return out
}

// chainedForward is the rule by which a backend's chain goes on, nil for none.
func chainedForward(in Input, b *resolve.WeightedBackend) *resolve.ForwardRule {
	if b.Chain == nil {
		return nil
	}
	next, ok := in.Result.Frontend(*b.Chain)
	if !ok {
		return nil
	}
	p, ok := next.Port(protocolUDP, b.Backend.Port)
	if !ok || p.Producer == nil {
		return nil
	}
	return p.Producer.Forward
}

// unchained is a rule without its chains: Gateways chain once.
func unchained(f *resolve.ForwardRule) *resolve.ForwardRule {
	out := *f
	out.Backends = make([]resolve.WeightedBackend, len(f.Backends))
	for i, b := range f.Backends {
		b.Chain = nil
		out.Backends[i] = b
	}
	return &out
}

// udpFilter splits sessions by weight, by a hash of the client's port: a client
// keeps its endpoint for as long as its session lasts. It gives what it needs too.
//
// What may be in another network is reached by a tunnel (CONNECT-UDP over HTTP/2,
// RFC 9298), this cluster's own endpoints directly; a filter does the one or the
// other for all, so that with a tunnel for one target all are tunnelled.
func udpFilter(list []udpTarget, opts Options) (*listenerv3.ListenerFilter, []unitKey) {
	p := &udpproxyv3.UdpProxyConfig{
		StatPrefix:  "udp",
		IdleTimeout: dur(udpIdle),
		AccessLog:   accessLog(opts, false),
	}
	tunnel := slices.ContainsFunc(list, func(t udpTarget) bool { return t.key.Name != "" && t.key.Kind != resolve.BackendService })
	var sum uint64
	var targets []target
	var needs []unitKey
	for _, t := range list {
		sum += uint64(t.weight)
		name := nameNoCluster
		switch {
		case t.key.Name == "":
		case tunnel:
			name = TunnelName(t.key)
			needs = append(needs, tunnelUnit(t.key))
		default:
			name = t.key.String()
			needs = append(needs, backendUnit(t.key))
		}
		targets = append(targets, target{name, t.weight})
	}
	if tunnel {
		// Datagrams travel in capsules (RFC 9297).
		p.SessionFilters = []*udpproxyv3.UdpProxyConfig_SessionFilter{{
			Name:       "envoy.filters.udp.session.http_capsule",
			ConfigType: &udpproxyv3.UdpProxyConfig_SessionFilter_TypedConfig{TypedConfig: pack(&capsulev3.FilterConfig{})},
		}}
		p.TunnelingConfig = &udpproxyv3.UdpProxyConfig_UdpTunnelingConfig{
			// Whoever ends the tunnel knows where it leads; the names are a form.
			ProxyHost: "crossing.invalid", TargetHost: "service.invalid", DefaultTargetPort: 1,
			RetryOptions: &udpproxyv3.UdpProxyConfig_UdpTunnelingConfig_RetryOptions{MaxConnectAttempts: u32(connectAttempts), BackoffOptions: connectPauses()},
			BufferOptions: &udpproxyv3.UdpProxyConfig_UdpTunnelingConfig_BufferOptions{
				MaxBufferedDatagrams: u32(tunnelDatagrams), MaxBufferedBytes: &wrapperspb.UInt64Value{Value: tunnelBytes},
			},
		}
	}
	action := func(cluster string) *xdsmatcherv3.Matcher_OnMatch {
		return &xdsmatcherv3.Matcher_OnMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Action{Action: &xdscorev3.TypedExtensionConfig{
			Name: "route", TypedConfig: pack(&udpproxyv3.Route{Cluster: cluster}),
		}}}
	}
	m := &xdsmatcherv3.Matcher{OnNoMatch: action(nameNoCluster)}
	if n := len(targets); n > 0 {
		m.OnNoMatch = action(targets[n-1].cluster)
	}
	if len(targets) > 1 {
		cases := &xdsmatcherv3.Matcher_MatcherList{}
		var seen uint64
		for _, t := range targets[:len(targets)-1] {
			seen += uint64(t.weight)
			cases.Matchers = append(cases.Matchers, &xdsmatcherv3.Matcher_MatcherList_FieldMatcher{
				Predicate: &xdsmatcherv3.Matcher_MatcherList_Predicate{MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_{
					SinglePredicate: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate{
						Input: &xdscorev3.TypedExtensionConfig{Name: "port", TypedConfig: pack(&networkinputsv3.SourcePortInput{})},
						Matcher: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_CustomMatch{CustomMatch: &xdscorev3.TypedExtensionConfig{
							Name: "fraction", TypedConfig: pack(&fractionv3.RuntimeFraction{RuntimeFraction: &corev3.RuntimeFractionalPercent{
								DefaultValue: &typev3.FractionalPercent{Numerator: uint32(seen * legParts / sum), Denominator: typev3.FractionalPercent_MILLION},
							}}),
						}},
					},
				}},
				OnMatch: action(t.cluster),
			})
		}
		m.MatcherType = &xdsmatcherv3.Matcher_MatcherList_{MatcherList: cases}
	}
	p.RouteSpecifier = &udpproxyv3.UdpProxyConfig_Matcher{Matcher: m}
	return &listenerv3.ListenerFilter{Name: filterUDP, ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: pack(p)}}, needs
}

// onTransport is the end of a listener's name.
func onTransport(t Transport, port int32) string {
	s := strconv.Itoa(int(port))
	if t == TransportUDP {
		s += "+udp"
	}
	return s
}
