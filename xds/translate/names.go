package translate

import (
	"hash/fnv"
	"net/netip"
	"strconv"
	"strings"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// The names of resources. They are unique within a type and proxy, and the same
// in all proxies that get the same resource. The routes of a frontend have one
// name whoever's they are: a listener that had to name others when the first
// consumer route comes would be replaced, and clients that keep a connection open
// would go on by the old routes for as long as the old listener drains.
//
//	Listener   frontend/<Frontend>/<port>[+udp]       sidecar
//	           chain/<Frontend>/<port>[/raw]          gateway, internal
//	           gateway/<port>[+udp]                   gateway
//	           direct/<Backend>/<cluster>             internal: ends tunnels to endpoints that are reached directly
//	           <server name>                          crossing, internal: ends tunnels for UDP
//	           crossing                               crossing
//	           entry/<Frontend>/<port>[+udp]@<bound>  crossing, where it is bound
//	Route      frontend/<Frontend>/<port>             what governs the proxy's namespace
//	           gateway/<ns>/<name>/<port>             listeners of HTTP
//	           gateway/<ns>/<name>/<port>/<listener>  one listener of HTTPS
//	Cluster    <Backend>                              sidecar, gateway: HTTP, or UDP
//	           raw/<Backend>                          sidecar, gateway: bytes as they are
//	           tunnel/<Backend>                       sidecar, gateway: UDP by CONNECT-UDP
//	           direct/<Backend>/<cluster>             sidecar, gateway: where such a tunnel ends
//	           chain/<Frontend>/<port>[/raw]          gateway, leads to the internal listener
//	           <port>.<svc>.<ns>.svc.clusterset.local crossing: the server name; all those of
//	                                                  a sidecar too, for its entries
//	Endpoints  <Backend>[<crossings>]                 all roles; a ServiceImport's without its kind
//	           tunnel/<Backend>[<crossings>], direct/<Backend>/<cluster>
//	Secret     identity, bundles, bundle/<trust domain>
//	           certificate/<ns>/<name>                gateway: of a Secret
//	           clients/<listener>                     gateway: authorities of client certificates
//
// <Frontend> is FrontendKey.String(), <Backend> BackendKey.String(), <crossings>
// what crossings gives. Kinds contain no '/', so none of the name spaces overlap.
const (
	nameCrossing      = "crossing"
	nameIdentity      = "identity"
	nameBundles       = "bundles"
	prefixBundle      = "bundle/"
	prefixChain       = "chain/"
	prefixFrontend    = "frontend/"
	prefixGateway     = "gateway/"
	prefixEntry       = "entry/"
	infixFrom         = "/from/"
	prefixRaw         = "raw/"
	infixRaw          = "raw"
	prefixTunnel      = "tunnel/"
	prefixDirect      = "direct/"
	prefixCertificate = "certificate/"
	prefixClients     = "clients/"
	nameNoCluster     = "none" // the cluster that there never is
	namePlainRoute    = "plain"
	metaCauseway      = "causeway"
	metaSocketMatch   = "envoy.transport_socket_match"
	keyCrossing       = "x" // short: it stands in every change of endpoints
	keyTLS            = "tls"
)

// FrontendListenerName is the name of a sidecar's listener for a frontend's port.
func FrontendListenerName(key resolve.FrontendKey, t Transport, port int32) string {
	return prefixFrontend + key.String() + "/" + onTransport(t, port)
}

// EntryListenerName is the name of a crossing gateway's listener for a port of a
// ServiceImport. Where it is bound is part of it: another port is another listener,
// and the former one goes when this one is there.
func EntryListenerName(key resolve.FrontendKey, t Transport, port int32, at netip.AddrPort) string {
	return prefixEntry + key.String() + "/" + onTransport(t, port) + "@" + strconv.Itoa(int(at.Port()))
}

// FrontendRouteName is the name of the routes that govern a frontend's port. In
// proxies of a namespace with consumer routes it holds others than elsewhere.
func FrontendRouteName(key resolve.FrontendKey, port int32) string {
	return FrontendListenerName(key, TransportTCP, port)
}

// GatewayListenerName is the name of a gateway's listener for a port.
func GatewayListenerName(t Transport, port int32) string { return prefixGateway + onTransport(t, port) }

// GatewayRouteName is the name of a Gateway's routes for a port.
func GatewayRouteName(namespace, name string, port int32) string {
	return prefixGateway + namespace + "/" + name + "/" + strconv.Itoa(int(port))
}

// HTTPSRouteName is the name of the routes of one HTTPS listener of a Gateway.
func HTTPSRouteName(namespace, name string, l *resolve.Listener) string {
	return GatewayRouteName(namespace, name, l.Port) + "/" + l.Key()
}

// ChainName is the name of the internal listener, and of the cluster leading to
// it, by which a gateway chains through a frontend's producer routes; raw for those
// that read no requests. They have another name: a listener that changed from the one
// to the other would keep the connections that the first hop has open, and answer
// them by the old routes, for as long as it drains.
func ChainName(key resolve.FrontendKey, port int32, raw bool) string {
	name := prefixChain + key.String() + "/" + strconv.Itoa(int(port))
	if raw {
		name += "/" + infixRaw
	}
	return name
}

// RawName is the name of the cluster that passes bytes to a backend as they are.
func RawName(k resolve.BackendKey) string { return prefixRaw + k.String() }

// TunnelName is the name of the cluster that leads to a UDP backend by CONNECT-UDP.
func TunnelName(k resolve.BackendKey) string { return prefixTunnel + k.String() }

// directName is the name of the cluster, and of the internal listener leading to
// it, for the endpoints of one cluster that are reached directly.
func directName(k resolve.BackendKey, c cluster.ID) string {
	return prefixDirect + k.String() + "/" + string(c)
}

// certificateName is the name of the secret made of a Secret.
func certificateName(c *resolve.Certificate) string {
	return prefixCertificate + c.Namespace + "/" + c.Name
}

// clientsName is the name of the secret with a listener's client authorities.
func clientsName(l *resolve.Listener) string { return prefixClients + l.Key() }

// EndpointsName is the name of a backend's endpoints, up to the '#' after which it
// says in which networks they are, if there is one. It stands twice in what each
// change of them sends, so that of a ServiceImport, the most frequent kind, goes
// without the kind.
func EndpointsName(k resolve.BackendKey) string {
	return strings.TrimPrefix(k.String(), string(resolve.BackendImport)+"/")
}

func endpointsName(b *resolve.Backend) string { return EndpointsName(b.Key) + crossings(b) }

// crossings is what the name of endpoints says of the other networks in which
// they are: "#" and a hash, or nothing. While Envoy warms a changed cluster, the
// old one still takes endpoints of the name that it knows, and would send plain
// text to a crossing gateway for which it has no TLS. (A new name for the cluster
// itself would not do: until routes follow, it has no requests.)
func crossings(b *resolve.Backend) string {
	if len(b.Config.Crossings) == 0 {
		return ""
	}
	h := fnv.New32a()
	for _, c := range b.Config.Crossings {
		_, _ = h.Write([]byte(string(c.Cluster) + "\x00" + c.TrustDomain + "\x00"))
	}
	// Five digits: it has to differ from its predecessor, no more.
	return "#" + strconv.FormatUint(uint64(h.Sum32()%(36*36*36*36*36)), 36)
}

// RuleName is the name of an Envoy route: "HTTPRoute/ns/name@cluster/rule/match",
// the indices as in the route's spec. The access log and, with
// Options.DebugHeaders, responses show it.
func RuleName(r *resolve.Rule) string {
	return r.Route.String() + "/" + strconv.Itoa(r.RuleIndex) + "/" + strconv.Itoa(r.MatchIndex)
}

// PlainRouteName is the name of the one Envoy route of a frontend that no route
// governs: "plain/<Frontend>".
func PlainRouteName(key resolve.FrontendKey) string { return namePlainRoute + "/" + key.String() }
