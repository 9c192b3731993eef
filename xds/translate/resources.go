package translate

import (
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/netip"
	"strings"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// Role is what an Envoy is for.
type Role string

// The roles of DESIGN section 1.
const (
	RoleSidecar  Role = "sidecar"
	RoleGateway  Role = "gateway"
	RoleCrossing Role = "crossing"
)

// Proxy identifies one Envoy.
type Proxy struct {
	Cluster   cluster.ID
	Role      Role
	Namespace string // sidecar: its workloads' namespace; gateway: the Gateway's; crossing: causeway-system
	Name      string // gateway: the Gateway's name; else free
}

// ID names the proxy: "cluster/role/namespace/name".
func (p Proxy) ID() string {
	return string(p.Cluster) + "/" + string(p.Role) + "/" + p.Namespace + "/" + p.Name
}

// instanceMark parts a node id: no name of Kubernetes has it.
const instanceMark = "~"

// NodeID is the node id of one of the proxy's Envoys. instance tells it from the others: two
// with the same id would end each other's streams. Empty: there is but one.
func (p Proxy) NodeID(instance string) string {
	if instance == "" {
		return p.ID()
	}
	return p.ID() + instanceMark + instance
}

// ProxyOfNode is the ID of the proxy in a NodeID.
func ProxyOfNode(id string) string {
	id, _, _ = strings.Cut(id, instanceMark)
	return id
}

// Transport is what a listener's socket speaks. The same port of both transports
// is two listeners.
type Transport string

// The transports.
const (
	TransportTCP Transport = "TCP"
	TransportUDP Transport = "UDP"
)

// FrontendTransport is that of a frontend's port, and whether sidecars offer it.
func FrontendTransport(p *resolve.FrontendPort) (t Transport, offered bool) {
	if p.Protocol == protocolUDP {
		return TransportUDP, true
	}
	return TransportTCP, p.Protocol == protocolTCP
}

// ListenerTransport is that of a Gateway's listener, and whether gateways offer it.
func ListenerTransport(l *resolve.Listener) (t Transport, offered bool) {
	switch l.Protocol {
	case protocolHTTP, protocolHTTPS, protocolTLS, protocolTCP:
		return TransportTCP, true
	case protocolUDP:
		return TransportUDP, true
	}
	return "", false
}

// Bindings says where a proxy's listeners bind. The answers are facts of the
// machine or cluster that the agent knows; for one proxy and one key they never
// change while the proxy lives. A false second result means that the listener
// can't be offered now.
type Bindings interface {
	// Frontend is where a sidecar listens for a frontend's port.
	Frontend(p Proxy, key resolve.FrontendKey, t Transport, port int32) (netip.AddrPort, bool)
	// Gateway is where a gateway listens for a listener's port.
	Gateway(p Proxy, t Transport, port int32) (netip.AddrPort, bool)
	// Crossing is where a crossing gateway listens for other networks.
	Crossing(p Proxy) (netip.AddrPort, bool)
	// Entry is where a crossing gateway listens for a port of a ServiceImport, on
	// behalf of this cluster's clients that have no sidecar. A false second result
	// means that it does not, which is no fault.
	Entry(p Proxy, key resolve.FrontendKey, t Transport, port int32) (netip.AddrPort, bool)
}

// The xDS types that we serve, in make-before-break order: what comes first may
// be referred to by what comes later.
const (
	TypeSecret   = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
	TypeCluster  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	TypeEndpoint = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	TypeListener = "type.googleapis.com/envoy.config.listener.v3.Listener"
	TypeRoute    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
)

// Types lists the types above in that order.
var Types = []string{TypeSecret, TypeCluster, TypeEndpoint, TypeListener, TypeRoute}

// Resource is one xDS resource, marshalled once and shared by all proxies that
// get it. Immutable.
type Resource struct {
	Name string
	// Version is a hash of the content: equal content, equal version, in every process.
	Version string
	Body    *anypb.Any
	Facts   *Facts // of Body; never nil
	// Subject names, for people, the object that the resource comes from:
	// "HTTPRoute/app-ns/route-a@east", "ServiceImport/app-ns/svc-a".
	Subject string
}

// same reports whether both say the same of the same.
func (r *Resource) same(o *Resource) bool {
	return r.Name == o.Name && r.Version == o.Version && r.Subject == o.Subject && r.Body.GetTypeUrl() == o.Body.GetTypeUrl()
}

// String names the resource. Its content is not shown: secrets are among them.
func (r Resource) String() string {
	return r.Body.GetTypeUrl() + " " + r.Name + " version " + r.Version
}

// GoString is String.
func (r Resource) GoString() string { return r.String() }

// Format is String for every verb.
func (r Resource) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, r.String()) }

// LogValue is String.
func (r Resource) LogValue() slog.Value { return slog.StringValue(r.String()) }

// MarshalText is String.
func (r Resource) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Resources is the complete configuration of one proxy. Immutable; successive
// values share what did not change, and sidecars what they have in common.
type Resources struct {
	types  map[string]*iradix.Tree[*Resource]
	shared *Resources // what is not in types; nil: nothing
}

// Get finds a resource.
func (r *Resources) Get(typeURL, name string) (*Resource, bool) {
	for ; r != nil; r = r.shared {
		if t := r.types[typeURL]; t != nil {
			if x, ok := t.Get([]byte(name)); ok {
				return x, true
			}
		}
	}
	return nil, false
}

// All gives a type's resources with their names, in order of these.
func (r *Resources) All(typeURL string) iter.Seq2[string, *Resource] {
	return func(yield func(string, *Resource) bool) {
		if r == nil {
			return
		}
		if r.shared == nil {
			r.tree(typeURL).Root().Walk(func(k []byte, x *Resource) bool { return !yield(string(k), x) })
			return
		}
		// Both are in order; the own ones stand before the shared ones of the same name.
		own := r.tree(typeURL).Root().Iterator()
		k, mine, more := own.Next()
		for name, theirs := range r.shared.All(typeURL) {
			for ; more && string(k) < name; k, mine, more = own.Next() {
				if !yield(string(k), mine) {
					return
				}
			}
			if more && string(k) == name {
				theirs = mine
				k, mine, more = own.Next()
			}
			if !yield(name, theirs) {
				return
			}
		}
		for ; more; k, mine, more = own.Next() {
			if !yield(string(k), mine) {
				return
			}
		}
	}
}

// tree is what is not shared; never nil.
func (r *Resources) tree(typeURL string) *iradix.Tree[*Resource] {
	if t := r.types[typeURL]; t != nil {
		return t
	}
	return iradix.New[*Resource]()
}

// NewResources makes a set of resources from a list per type.
func NewResources(byType map[string][]*Resource) *Resources {
	out := &Resources{types: map[string]*iradix.Tree[*Resource]{}}
	for t, list := range byType {
		txn := iradix.New[*Resource]().Txn()
		for _, r := range list {
			txn.Insert([]byte(r.Name), r)
		}
		out.types[t] = txn.Commit()
	}
	return out
}

// Changes names what differs between two Resources of one proxy, by type.
// A name stands in Removed if the resource is gone, else in Changed.
type Changes struct {
	Changed map[string][]string
	Removed map[string][]string
}

// Empty reports whether nothing differs.
func (c Changes) Empty() bool { return len(c.Changed) == 0 && len(c.Removed) == 0 }
