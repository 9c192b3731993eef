package resolve

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
)

// FrontendKey names a frontend: a Service (this cluster's endpoints) or a
// ServiceImport (all exporting clusters).
type FrontendKey struct {
	Kind      cluster.Kind // KindService or KindServiceImport
	Namespace string
	Name      string
	// Cluster is empty for the frontends of this cluster's clients. In
	// WeightedBackend.Chain and Result.Remotes it names another cluster, whose
	// Service's producer routes a Gateway chains through.
	Cluster cluster.ID
}

// String gives Kind/namespace/name, with @cluster if there is one.
func (k FrontendKey) String() string {
	s := string(k.Kind) + "/" + k.Namespace + "/" + k.Name
	if k.Cluster != "" {
		s += "@" + string(k.Cluster)
	}
	return s
}

// Host is the DNS name that clients of the frontend use.
func (k FrontendKey) Host() string {
	if k.Kind == cluster.KindServiceImport {
		return k.Name + "." + k.Namespace + "." + cluster.DomainClusterset
	}
	return k.Name + "." + k.Namespace + "." + cluster.DomainCluster
}

// Frontend is what clients in one cluster call, with the routes that govern it.
type Frontend struct {
	Key      FrontendKey
	Headless bool           // no address, no routes: GEP-1294 leaves headless parents out
	Ports    []FrontendPort // sorted by protocol, then port
}

// AppProtocol is what a port speaks, as far as it was said.
type AppProtocol string

// The application protocols that matter to Envoy.
const (
	AppTCP   AppProtocol = ""      // not said, or nothing that we know: opaque
	AppHTTP  AppProtocol = "http"  // HTTP/1.1, WebSocket included
	AppH2C   AppProtocol = "h2c"   // HTTP/2 with prior knowledge; gRPC
	AppWS    AppProtocol = "ws"    // HTTP/1.1 for WebSocket
	AppHTTPS AppProtocol = "https" // TLS, WebSocket over TLS included: opaque, but for routes with a BackendTLSPolicy
	// AppReserved is a name of KEP-3726's prefix kubernetes.io/ that we don't
	// know: opaque, and no HTTPRoute or GRPCRoute can use it as a backend.
	AppReserved AppProtocol = "reserved"
)

// HTTP reports whether requests can be told apart on the port without TLS.
func (a AppProtocol) HTTP() bool { return a == AppHTTP || a == AppH2C || a == AppWS }

// FrontendPort is one port of a frontend. In each group of routes (the producers;
// the consumers of one namespace) one kind governs the port: of GRPCRoute,
// HTTPRoute, TLSRoute and TCPRoute the first that is there, UDPRoute on UDP ports
// (DESIGN section 3). Groups may differ in it: look at each RouteTable.
type FrontendPort struct {
	Port        int32
	Name        string
	Protocol    string // TCP, UDP, SCTP
	AppProtocol AppProtocol
	// Producer governs all clients that have no consumer table; nil if there is none.
	Producer *RouteTable
	// Consumers are sorted by Namespace.
	Consumers []ConsumerTable
	// Backend is where plain delivery goes, when no table governs.
	Backend BackendKey
}

// ConsumerTable governs the clients of one namespace, in place of the producer's.
type ConsumerTable struct {
	Namespace string
	Table     *RouteTable
}

// RouteTable is a merged group of routes. What none of it takes is refused: 404
// for HTTP (GEP-1294, route presence), a closed connection otherwise.
//
// Which field is used depends on what governs: HTTPRoutes and GRPCRoutes give
// Rules (perhaps none), TLSRoutes and TCPRoutes and UDPRoutes give Forward. In the
// mesh, Forward is never nil for these; in a VirtualHost of a TLS listener it is
// nil where no route takes the server name.
type RouteTable struct {
	// Rules of HTTPRoutes or GRPCRoutes, in the order in which they are tried.
	Rules []*Rule
	// Forward, if not nil, takes every connection (TCPRoute, TLSRoute) or
	// session (UDPRoute): it is the rule of the senior route.
	Forward *ForwardRule
}

// ForwardRule sends connections or UDP sessions on, by weights.
type ForwardRule struct {
	Route     RouteID
	RuleIndex int
	RuleName  string
	// Backends have no Filters.
	Backends []WeightedBackend
	// Invalid, if not empty, says why every connection is closed.
	Invalid string
}

// RouteID names one copy of a route.
type RouteID struct {
	Kind      cluster.Kind
	Namespace string
	Name      string
	Cluster   cluster.ID // the home of the copy that is obeyed
}

// String gives Kind/namespace/name@cluster.
func (r RouteID) String() string {
	return string(r.Kind) + "/" + r.Namespace + "/" + r.Name + "@" + string(r.Cluster)
}

// Rule is one match of one rule of one route.
type Rule struct {
	Route     RouteID
	RuleIndex int    // within the route's spec.rules
	RuleName  string // spec.rules[].name
	// MatchIndex counts within the rule's matches.
	MatchIndex int
	Match      Match
	Filters    Filters
	Redirect   *Redirect // answers the request itself; Backends is empty then
	Backends   []WeightedBackend
	// Invalid, if not empty, says why every request of the rule gets 500, or for
	// a GRPCRoute the gRPC status UNAVAILABLE.
	Invalid string
	// Retry, if not nil, repeats requests that the backend failed, beside those
	// that no backend has seen, which are always repeated.
	Retry *Retry
	// Session, if not nil, keeps a client's requests at one endpoint (GEP-1619).
	Session *Session
	// RequestTimeout bounds the whole request, BackendTimeout each try. Zero
	// means none; Gateway API's explicit "0s" is zero too.
	RequestTimeout time.Duration
	BackendTimeout time.Duration
}

// PathType is how a path is compared.
type PathType string

// The path types of Gateway API.
const (
	PathExact  PathType = "Exact"
	PathPrefix PathType = "PathPrefix" // by whole path elements
	PathRegex  PathType = "RegularExpression"
)

// Match is a conjunction.
type Match struct {
	PathType PathType
	Path     string
	Method   string // empty: any
	Headers  []ValueMatch
	Query    []ValueMatch
	// GRPC, if not nil, is what a GRPCRoute says of services and methods.
	// PathType and Path say the same and are enough to match requests.
	GRPC *GRPCMethod
}

// GRPCMethod is a GRPCRoute's match of service and method. At least one of them
// is there; the empty one is any.
type GRPCMethod struct {
	Service, Method string
	Regex           bool
}

// ValueMatch compares a header or query parameter. Header names are lower case.
type ValueMatch struct {
	Name  string
	Value string
	Regex bool
}

// Header is a name and a value.
type Header struct{ Name, Value string }

// HeaderMods are changes to a set of headers, applied in the order remove, set, add.
type HeaderMods struct {
	Set    []Header
	Add    []Header
	Remove []string
}

// Empty reports whether nothing changes.
func (m HeaderMods) Empty() bool { return len(m.Set)+len(m.Add)+len(m.Remove) == 0 }

// Filters are what a rule or a backend does to requests and responses. A rule's
// come before those of the backend that is chosen. Where both have one that
// can be there once, the backend's replaces the rule's.
type Filters struct {
	Request  HeaderMods
	Response HeaderMods
	Rewrite  *Rewrite
	Mirrors  []Mirror
	CORS     *CORS
	Auth     *ExternalAuth
}

// Mirror sends a copy of some requests to another backend, whose answers are
// dropped. Copies don't go through producer routes. A mirror whose backend can't
// be used, or that takes no request, is not in the list.
type Mirror struct {
	Backend BackendKey
	// Numerator of Denominator requests are copied: at least 1, at most all.
	Numerator, Denominator uint32
}

// CORS answers preflight requests and marks responses for browsers (GEP-1767).
// Lists are in the order of the route and hold each entry once; "*" stands alone
// but in ExposeHeaders.
type CORS struct {
	// AllowOrigins are "*", "scheme://host[:port]", or the same with "*." or "*"
	// at the beginning of the host, in lower case and without a port that is the
	// scheme's own, as browsers send them. Empty: nobody.
	AllowOrigins     []string
	AllowCredentials bool
	AllowMethods     []string // "*" is all; GET, HEAD and POST are always allowed
	AllowHeaders     []string // "*" is all
	ExposeHeaders    []string // "*" is all
	MaxAge           time.Duration
}

// ExternalAuth asks a service whether a request may go on (GEP-1494). Where its
// backend can't be used, the rule is Invalid instead.
type ExternalAuth struct {
	GRPC    bool // Envoy's ext_authz protocol; else HTTP
	Backend BackendKey
	// Path is put before the path that is asked (HTTP): empty, or "/x" without a
	// slash at its end.
	Path string
	// RequestHeaders are sent to the service. For HTTP they come beside Host,
	// method, path, Content-Length and Authorization, which always are; for gRPC
	// empty means all. ResponseHeaders are copied from its answer to the request
	// (HTTP; empty: all but Host). Lower case, sorted.
	RequestHeaders  []string
	ResponseHeaders []string
	MaxBody         uint32 // bytes of the body that are sent along, 0 for none
}

// Retry says which requests are repeated, and how often (GEP-1731). Connection
// errors, resets and timeouts of a try count as well.
type Retry struct {
	Codes []int // sorted; empty: none
	// Attempts is how often a request is repeated at most. 0: never, not even
	// one that no backend has seen (Gateway API v1.7).
	Attempts int
	Backoff  time.Duration // before the first repetition, more than 0
}

// Session keeps a client at one endpoint, by a cookie or a header.
type Session struct {
	Header bool   // else a cookie
	Name   string // of the cookie or header: the route's, or one made from the route's and rule's names
	// AbsoluteTimeout ends the session, 0 for never; Permanent makes the cookie
	// outlive the browser's session for that long.
	AbsoluteTimeout time.Duration
	Permanent       bool
}

// Rewrite changes host and path on the way to the backend. At most one of
// FullPath and PrefixPath is set.
type Rewrite struct {
	Hostname   string
	FullPath   *string
	PrefixPath *string // replaces the match's prefix
}

// ChangesPath reports whether more than the host changes.
func (w *Rewrite) ChangesPath() bool { return w.FullPath != nil || w.PrefixPath != nil }

// Redirect answers with a Location. Empty fields keep the request's part.
type Redirect struct {
	Scheme     string
	Hostname   string
	FullPath   *string
	PrefixPath *string
	// Port is the one that the Location names, worked out by the rules of
	// Gateway API (HTTPRequestRedirectFilter.port) for the port and protocol of
	// the listener or frontend that the rule is reached by; 0 where it names
	// none, because it is the scheme's own.
	Port       int32
	StatusCode int
}

// WeightedBackend takes Weight parts of the rule's requests.
type WeightedBackend struct {
	Weight  uint32
	Backend BackendKey
	Filters Filters
	// Chain, if not nil, sends the request on through the producer routes of
	// this frontend (port Backend.Port) instead of to Backend's endpoints. Only
	// in Gateways: gateways chain once. Find it with Result.Frontend: it has a
	// Cluster where Backend is another cluster's share.
	Chain *FrontendKey
	// ChainRaw is true where those are no HTTPRoutes or GRPCRoutes, so that bytes or
	// datagrams go through the chain.
	ChainRaw bool
	// Redirect, if not nil, answers this share's requests itself.
	Redirect *Redirect
	// Invalid, if not empty, says why this share gets 500 (connections: is closed).
	Invalid string
	// distrusted: it is Invalid for its BackendTLSPolicy, which is told who is there.
	distrusted bool
}

// BackendKind tells what a backend's endpoints are.
type BackendKind string

// The kinds of backends.
const (
	BackendService BackendKind = "Service"       // this cluster's endpoints of a Service
	BackendImport  BackendKind = "ServiceImport" // all exporting clusters
	BackendShare   BackendKind = "Share"         // one other cluster's share of an export
)

// BackendKey names a set of endpoints as one cluster sees it.
type BackendKey struct {
	Kind      BackendKind
	Namespace string
	Name      string
	Port      int32      // of the Service or ServiceImport, not the target port
	Cluster   cluster.ID // BackendShare only
	Protocol  string     // empty for TCP; UDP, SCTP
	// HTTP2 is true for what is called by gRPC though its port does not say that
	// it speaks HTTP/2: the same endpoints, with BackendConfig.AppProtocol AppH2C.
	HTTP2 bool
}

// String gives a unique name, fit for messages and resource names:
// "ServiceImport/ns/name/80", "Share/ns/name/80/west", "Service/ns/dns/53+udp",
// "Service/ns/name/80+http2".
func (b BackendKey) String() string {
	s := fmt.Sprintf("%s/%s/%s/%d", b.Kind, b.Namespace, b.Name, b.Port)
	if b.Protocol != "" {
		s += "+" + strings.ToLower(b.Protocol)
	}
	if b.HTTP2 {
		s += "+http2"
	}
	if b.Cluster != "" {
		s += "/" + string(b.Cluster)
	}
	return s
}

// SNI is the server name by which crossing gateways know the backend.
func (b BackendKey) SNI() string {
	return fmt.Sprintf("%d.%s.%s.%s", b.Port, b.Name, b.Namespace, cluster.DomainClusterset)
}

// Backend is a set of endpoints with all that is needed to connect to it. The
// Config half changes seldom (Envoy's CDS), Groups with every endpoint (EDS).
type Backend struct {
	Key    BackendKey
	Config BackendConfig
	Groups []EndpointGroup // sorted by Priority, then Cluster
}

// BackendConfig is what does not change when endpoints do.
type BackendConfig struct {
	Protocol    string // TCP, UDP, SCTP
	AppProtocol AppProtocol
	// Crossings are the clusters of other networks that serve the backend,
	// sorted: each needs mTLS towards its crossing gateways. They originate TLS
	// towards their own endpoints where their BackendTLSPolicies ask for it.
	Crossings []Crossing
	// TLS says how to originate TLS to the endpoints of clusters that are
	// reached directly (BackendTLSPolicy, GEP-1897), sorted by cluster; clusters
	// without an entry take plain text. It holds for HTTPRoutes and GRPCRoutes,
	// for plain delivery of HTTP, for mirrors and external authorization, and for
	// the Forward of listeners that end TLS (Listener.TLS). All else, chains that
	// end in a Forward included, passes bytes as they are. UDP has none.
	TLS []BackendTLS
	// ClientIP keeps a client's requests at one endpoint by its address
	// (Service.spec.sessionAffinity), for at most AffinityTimeout.
	ClientIP        bool
	AffinityTimeout time.Duration
}

// BackendTLS is how the endpoints of one cluster are reached by TLS.
type BackendTLS struct {
	Cluster  cluster.ID
	Hostname string // SNI, and what the certificate must be for unless there are SANs
	// DNSNames and URIs: the certificate must have one of them. Both empty: Hostname.
	DNSNames, URIs []string
	// CAs are PEM; System means the system's own authorities instead.
	CAs    []byte
	System bool
	// Invalid, if not empty, says why the policy can't be obeyed: requests to
	// the cluster's endpoints get 503, never plain text. Only Cluster is set then.
	Invalid string
}

// Crossing is how another network's cluster is entered.
type Crossing struct {
	Cluster     cluster.ID
	TrustDomain string
	// TLS is true where the cluster's crossing gateways reach the backend by TLS,
	// because a BackendTLSPolicy of the cluster says so. It holds for what
	// BackendConfig.TLS holds for.
	TLS bool
}

// EndpointGroup holds the endpoints of one cluster. Groups of priority 0 are
// used first; a lower priority takes the share that the higher ones lack.
// Priorities start at 0 and have no gaps.
type EndpointGroup struct {
	Cluster   cluster.ID
	Region    string
	Zone      string
	Priority  uint32
	Endpoints []Endpoint // sorted by address; weights of a group's cluster add up to its share
	// Crossing is true where the Endpoints are the cluster's crossing gateways.
	Crossing bool
}

// Endpoint is one address. One with neither Addr nor Host, which no agent ever
// sees in its own Result, stands for as many endpoints as are Behind it, of which
// nothing else is known: those of a cluster that publishes counts alone
// (cluster.EndpointSlice.Counts), in the view that a hub works out for it.
type Endpoint struct {
	Addr    netip.AddrPort // invalid if Host is set
	Host    string         // a crossing gateway given by name, "host:port"
	Weight  uint32         // at least 1
	Healthy bool           // false: sent to Envoy as unhealthy, so that overflow sees the missing share
	Pod     string
	// Missing marks the entry that stands, in a group of crossing gateways, for
	// the endpoints behind them that are not ready: it is unhealthy and its
	// address is nobody's, so that it is never called, but its Weight lets
	// overflow see the share that is missing. One that has nothing Behind stands
	// for what clusters of its priority leave to the next while they are drained.
	Missing bool
	// Behind counts the healthy endpoints of the cluster behind a crossing
	// gateway; each of the cluster's gateways reaches them all. In a Missing
	// entry it counts those that are not ready, in one without an address what it
	// stands for.
	Behind int
}

// Counted tells whether the entry stands for a number of endpoints whose
// addresses are not known.
func (e *Endpoint) Counted() bool { return !e.Addr.IsValid() && e.Host == "" }
