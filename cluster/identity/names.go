package identity

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Role says which of the three proxies an Envoy is.
type Role string

// The roles of DESIGN section 1.
const (
	RoleSidecar  Role = "sidecar"
	RoleGateway  Role = "gateway"
	RoleCrossing Role = "crossing"
)

// Kind says what bears an identity.
type Kind string

// The kinds of identity that exist.
const (
	KindProxy Kind = "proxy" // spiffe://<td>/ns/<namespace>/proxy/<role>/<name>
	KindAgent Kind = "agent" // spiffe://<td>/agent
	KindHub   Kind = "hub"   // spiffe://<td>/hub
	KindUser  Kind = "user"  // spiffe://<td>/user/<name>
)

const (
	maxTrustDomain = 255  // SPIFFE ID standard, section 2.1
	maxID          = 2048 // SPIFFE ID standard, section 2.3
)

var (
	dnsLabel      = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	dnsSubdomain  = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	storeUserName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9:._-]{0,127}$`)
	userName      = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
)

// Identity is a SPIFFE id taken apart. The zero value names nothing.
type Identity struct {
	TrustDomain spiffeid.TrustDomain
	Kind        Kind
	Role        Role   // KindProxy only
	Namespace   string // KindProxy only
	Name        string // KindProxy and KindUser only
}

// ClustersetDomain gives the trust domain of the clusterset itself, in which
// hubs and people live. It differs from every cluster's, which have one label
// more.
func ClustersetDomain(clusterset string) (spiffeid.TrustDomain, error) {
	if len(clusterset) > maxTrustDomain || !validDomain(clusterset) {
		return spiffeid.TrustDomain{}, fmt.Errorf("clusterset name %q is not a DNS name: use lower-case letters, digits, '-' and '.'", shorten(clusterset))
	}
	td, err := spiffeid.TrustDomainFromString(clusterset)
	if err != nil {
		return spiffeid.TrustDomain{}, fmt.Errorf("clusterset name %q: %w", clusterset, err)
	}
	return td, nil
}

// TrustDomain gives the trust domain of a cluster, <cluster>.<clusterset>.
func TrustDomain(id cluster.ID, clusterset string) (spiffeid.TrustDomain, error) {
	if err := id.Validate(); err != nil {
		return spiffeid.TrustDomain{}, err
	}
	if _, err := ClustersetDomain(clusterset); err != nil {
		return spiffeid.TrustDomain{}, err
	}
	name := string(id) + "." + clusterset
	if len(name) > maxTrustDomain {
		return spiffeid.TrustDomain{}, fmt.Errorf("trust domain %q is longer than %d bytes: shorten the name of the clusterset", shorten(name), maxTrustDomain)
	}
	td, err := spiffeid.TrustDomainFromString(name)
	if err != nil {
		return spiffeid.TrustDomain{}, fmt.Errorf("trust domain %q: %w", name, err)
	}
	return td, nil
}

// ClusterOf is the inverse of TrustDomain: it names the cluster of this
// clusterset whose trust domain td is.
func ClusterOf(td spiffeid.TrustDomain, clusterset string) (cluster.ID, error) {
	name, ok := strings.CutSuffix(td.Name(), "."+clusterset)
	if !ok {
		return "", fmt.Errorf("trust domain %q is not of clusterset %q", td.Name(), clusterset)
	}
	id := cluster.ID(name)
	if err := id.Validate(); err != nil {
		return "", fmt.Errorf("trust domain %q is no cluster's: %w", td.Name(), err)
	}
	return id, nil
}

// ProxyID names a proxy of role in namespace. Name is that of the workload (a
// sidecar's), of the Gateway, or of the crossing Deployment.
func ProxyID(td spiffeid.TrustDomain, role Role, namespace, name string) (spiffeid.ID, error) {
	return Identity{TrustDomain: td, Kind: KindProxy, Role: role, Namespace: namespace, Name: name}.ID()
}

// AgentID names the agents of a cluster; its replicas share it.
func AgentID(td spiffeid.TrustDomain) (spiffeid.ID, error) {
	return Identity{TrustDomain: td, Kind: KindAgent}.ID()
}

// HubID names the hubs.
func HubID(td spiffeid.TrustDomain) (spiffeid.ID, error) {
	return Identity{TrustDomain: td, Kind: KindHub}.ID()
}

// UserID names a person.
func UserID(td spiffeid.TrustDomain, name string) (spiffeid.ID, error) {
	return Identity{TrustDomain: td, Kind: KindUser, Name: name}.ID()
}

// ID puts the identity together again; it fails on what Parse would refuse.
func (i Identity) ID() (spiffeid.ID, error) {
	if i.TrustDomain.IsZero() {
		return spiffeid.ID{}, errors.New("identity without a trust domain")
	}
	if err := i.validate(); err != nil {
		return spiffeid.ID{}, err
	}
	var id spiffeid.ID
	var err error
	switch i.Kind {
	case KindProxy:
		id, err = spiffeid.FromSegments(i.TrustDomain, "ns", i.Namespace, "proxy", string(i.Role), i.Name)
	case KindUser:
		id, err = spiffeid.FromSegments(i.TrustDomain, "user", i.Name)
	default:
		id, err = spiffeid.FromSegments(i.TrustDomain, string(i.Kind))
	}
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf("identity of %s %q: %w", i.Kind, i.Name, err)
	}
	return id, nil
}

// Parse takes an id apart. It fails on ids that no builder here makes.
func Parse(id spiffeid.ID) (Identity, error) {
	i := Identity{TrustDomain: id.TrustDomain()}
	parts := strings.Split(strings.TrimPrefix(id.Path(), "/"), "/")
	switch {
	case len(parts) == 5 && parts[0] == "ns" && parts[2] == "proxy":
		i.Kind, i.Namespace, i.Role, i.Name = KindProxy, parts[1], Role(parts[3]), parts[4]
	case len(parts) == 2 && parts[0] == "user":
		i.Kind, i.Name = KindUser, parts[1]
	case len(parts) == 1 && (parts[0] == string(KindAgent) || parts[0] == string(KindHub)):
		i.Kind = Kind(parts[0])
	default:
		return Identity{}, fmt.Errorf("id %q names no proxy, agent, hub or user", shorten(id.String()))
	}
	if err := i.validate(); err != nil {
		return Identity{}, fmt.Errorf("id %q: %w", shorten(id.String()), err)
	}
	return i, nil
}

// ParseString is Parse for a URI that came from outside.
func ParseString(uri string) (Identity, error) {
	if len(uri) > maxID {
		return Identity{}, fmt.Errorf("id of %d bytes is longer than %d", len(uri), maxID)
	}
	id, err := spiffeid.FromString(uri)
	if err != nil {
		return Identity{}, fmt.Errorf("id %q: %w", shorten(uri), err)
	}
	return Parse(id)
}

func (i Identity) validate() error {
	switch i.Kind {
	case KindProxy:
		switch i.Role {
		case RoleSidecar, RoleGateway, RoleCrossing:
		default:
			return fmt.Errorf("proxy role %q is not sidecar, gateway or crossing", shorten(string(i.Role)))
		}
		if !dnsLabel.MatchString(i.Namespace) {
			return fmt.Errorf("namespace %q is not a DNS label", shorten(i.Namespace))
		}
		if len(i.Name) > 253 || !dnsSubdomain.MatchString(i.Name) {
			return fmt.Errorf("proxy name %q is not a DNS subdomain", shorten(i.Name))
		}
	case KindUser:
		if !userName.MatchString(i.Name) {
			return fmt.Errorf("user name %q: use 1 to 64 letters, digits, '.', '_' and '-', the first a letter or digit", shorten(i.Name))
		}
	case KindAgent, KindHub:
	default:
		return fmt.Errorf("identity of unknown kind %q", shorten(string(i.Kind)))
	}
	if i.Kind != KindProxy && (i.Role != "" || i.Namespace != "") || i.Kind != KindProxy && i.Kind != KindUser && i.Name != "" {
		return fmt.Errorf("identity of kind %q has parts that belong to other kinds", i.Kind)
	}
	return nil
}

func validDomain(name string) bool {
	if name == "" {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if !dnsLabel.MatchString(label) {
			return false
		}
	}
	return true
}

// shorten bounds what an error message repeats of its input.
func shorten(s string) string {
	if len(s) > 100 {
		return s[:100] + "..."
	}
	return s
}
