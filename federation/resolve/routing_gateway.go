package resolve

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/parameters"
)

// Gateway is a Gateway as this cluster runs it.
type Gateway struct {
	Namespace string
	Name      string
	Home      cluster.ID // where the copy that is obeyed was written
	Class     string
	Listeners []Listener // those that work: the Gateway's in the order of the spec, then those of ListenerSets by precedence
	// ClientCertificate, if not nil, is what the Gateway shows to backends that
	// are reached by TLS (spec.tls.backend.clientCertificateRef).
	ClientCertificate *Certificate
	Infrastructure    Infrastructure
	// Refused: it can't be what it asks to be, and is not accepted. Nothing is made or
	// changed for it, and nothing that runs of it is taken away: its Envoys go on, with its
	// listeners and routes. Infrastructure has what could be read.
	Refused bool
}

// Infrastructure is what a Gateway asks of the pods and the Service that it is given.
type Infrastructure struct {
	Labels, Annotations map[string]string
	Parameters          parameters.Parameters
	// Addresses are those that it asks for, of type IPAddress or Hostname, in its order.
	Addresses []gatewayv1.GatewaySpecAddress
}

// Certificate is a certificate chain with its private key, as a Secret holds
// them. It never shows its key, however it is printed. Immutable.
type Certificate struct {
	Namespace, Name string // of the Secret
	cert            []byte
	// key is behind a pointer because fmt, where it can't call our methods (a
	// Certificate in an unexported field), shows what a struct holds, but not
	// what pointers in it point to.
	key *[]byte
}

// Key gives namespace/name.
func (g *Gateway) Key() string { return g.Namespace + "/" + g.Name }

// Listener is one listener of a Gateway, or of a ListenerSet of it, with the
// routes attached to it.
//
// Listeners of one port are all of protocol HTTP; or of HTTPS and TLS mixed,
// told apart by server name; or one of TCP; or one of UDP (which may share the
// port's number with others). No two of a port have the same Hostname.
//
// HTTP: The Hosts of all listeners of one port are distinct names, and the most
// specific of them that matches a request's host is the one that governs it,
// whichever listener it belongs to: the resolver has left out what a more
// specific listener claims (HTTP listener isolation). So listeners of one port
// may be served by the union of their Hosts.
//
// HTTPS: The listener is chosen by the connection's server name, the most
// specific Hostname first, among those of HTTPS and TLS; then its Hosts by the
// request's host. A request whose host is for a more specific one of the port's
// listeners, or is not for this one but for another, gets 421 (GEP-3567).
//
// TLS: Hosts are server names; each Table has a Forward or is empty. What matches
// none, or an empty one, is closed. Where TLS is set, it is ended, and backends
// whose BackendTLSPolicy asks for it are reached by TLS again.
type Listener struct {
	Name     string
	Set      string // "namespace/name" of the ListenerSet that it is of, empty for the Gateway's own
	Port     int32
	Protocol string // HTTP, HTTPS, TLS, TCP, UDP
	Hostname string // empty: any
	// TLS is set for HTTPS, and for TLS that is terminated; nil for TLS that is
	// passed through.
	TLS *ListenerTLS
	// Hosts are sorted from the most to the least specific hostname. A request
	// whose host matches none gets 404.
	Hosts []VirtualHost
	// Forward is where connections (TCP) or sessions (UDP) go, nil for nowhere.
	Forward *ForwardRule
}

// Key is unique among the listeners of a Gateway: the name, after the
// ListenerSet's if it is of one.
func (l *Listener) Key() string {
	if l.Set != "" {
		return l.Set + "/" + l.Name
	}
	return l.Name
}

// ListenerTLS is how a listener terminates TLS.
type ListenerTLS struct {
	// Certificates: at least one, each once; the first is for clients whose server
	// name fits none.
	Certificates []*Certificate
	// ClientCAs, if not empty, are the authorities (PEM) that clients' certificates
	// must be of; AllowInsecure lets clients in without one, or with another (GEP-91).
	ClientCAs     []byte
	AllowInsecure bool
}

// VirtualHost holds the rules for one hostname of a listener: an exact name,
// "*.suffix" or "*". Table is never nil; with no rules, all requests get 404.
type VirtualHost struct {
	Hostname string
	Table    *RouteTable
}

// ParentReport is what became of one parentRef of a route (RouteParentStatus).
// Conditions carry no time and no observedGeneration: status writers add them.
type ParentReport struct {
	ParentRef  gatewayv1.ParentReference
	Conditions []metav1.Condition // sorted by Type
}

// ListenerReport is what became of one listener.
type ListenerReport struct {
	Name           string
	AttachedRoutes int32
	SupportedKinds []gatewayv1.RouteGroupKind
	Conditions     []metav1.Condition
}

// ObjectReport is the status of one object as this cluster judges it.
type ObjectReport struct {
	Ref       cluster.Ref
	Cluster   cluster.ID // the home of the copy judged
	Parents   []ParentReport
	Listeners []ListenerReport // Gateways, ListenerSets
	// AttachedListenerSets counts those that a Gateway accepts; nil for other kinds.
	AttachedListenerSets *int32
	// Ancestors are what became of a BackendTLSPolicy for each Gateway that it
	// concerns (PolicyAncestorStatus), at most 16; for the target itself if there
	// is none.
	Ancestors  []ParentReport
	Conditions []metav1.Condition // Gateways, ListenerSets, GatewayClasses, ServiceExports, and Federated for routes and ListenerSets
}

// Key gives Kind/namespace/name@cluster.
func (o *ObjectReport) Key() string { return reportKey(o.Ref, o.Cluster) }

func reportKey(ref cluster.Ref, id cluster.ID) string { return ref.String() + "@" + string(id) }

// Report gives what is said of an object of a cluster, if anything is.
func (r *Result) Report(ref cluster.Ref, id cluster.ID) (*ObjectReport, bool) {
	return r.Reports.Get([]byte(reportKey(ref, id)))
}

// ParseKey reads ObjectReport.Key and RunsKey.
func ParseKey(key string) (cluster.Ref, cluster.ID, bool) {
	name, id, ok := strings.Cut(key, "@")
	if !ok {
		return cluster.Ref{}, "", false
	}
	switch parts := strings.Split(name, "/"); len(parts) {
	case 2:
		return cluster.Ref{Kind: cluster.Kind(parts[0]), Name: parts[1]}, cluster.ID(id), true
	case 3:
		return cluster.Ref{Kind: cluster.Kind(parts[0]), Namespace: parts[1], Name: parts[2]}, cluster.ID(id), true
	}
	return cluster.Ref{}, "", false
}
