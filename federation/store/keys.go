package store

import (
	"fmt"
	"strings"
)

// Layout of the store:
//
//	/causeway/v1/clusters/<cluster>/<section>/<name>[/<name>...]
//	/causeway/v1/policy/<name>[/<name>...]
//	/causeway/v1/policy/drain/<cluster>
//	/causeway/v1/policy/rules/<policy>
//
// A cluster's agents write below ClusterPrefix(cluster) alone; the policy is the
// administrators'. How many names a key of a section has, and what they mean, is
// fixed by the package that encodes the records (for most: namespace and name).
const (
	// Root is the prefix of all keys.
	Root = "/causeway/v1/"
	// ClustersPrefix is the prefix of the keys of all clusters.
	ClustersPrefix = Root + "clusters/"
	// PolicyPrefix is the prefix of the administrators' policy.
	PolicyPrefix = Root + "policy/"
	// MaxKeyNames bounds the names after a section, or after PolicyPrefix.
	MaxKeyNames = 5
)

// Section is a kind of content of a cluster's prefix.
type Section string

// The sections. Only keys of Alive carry a lease.
const (
	SectionMeta       Section = "meta"
	SectionAlive      Section = "alive"
	SectionNamespaces Section = "namespaces"
	SectionServices   Section = "services"
	SectionEndpoints  Section = "endpoints"
	SectionRoutes     Section = "routes"
	SectionGateways   Section = "gateways"
	SectionPolicies   Section = "policies" // of the cluster's users, unlike PolicyPrefix
	SectionGrants     Section = "grants"
	SectionTrust      Section = "trust"
	SectionRuns       Section = "runs"    // how the cluster runs Gateways that are for several
	SectionSecrets    Section = "secrets" // certificates that the cluster has sealed for others
)

// Sections returns all sections, in a fixed order.
func Sections() []Section {
	return []Section{
		SectionMeta, SectionAlive, SectionNamespaces, SectionServices, SectionEndpoints,
		SectionRoutes, SectionGateways, SectionPolicies, SectionGrants, SectionTrust, SectionRuns, SectionSecrets,
	}
}

func (s Section) valid() bool {
	switch s {
	case SectionMeta, SectionAlive, SectionNamespaces, SectionServices, SectionEndpoints,
		SectionRoutes, SectionGateways, SectionPolicies, SectionGrants, SectionTrust, SectionRuns, SectionSecrets:
		return true
	}
	return false
}

// Key is a parsed key: of a cluster if Cluster is set, else of the policy.
type Key struct {
	Cluster string
	Section Section
	Names   []string
}

// ClusterKey returns the key of a cluster's object. The cluster must be a DNS
// label, each name a DNS subdomain (RFC 1123, lower case); the error names the
// part that is not, and is an ErrInvalid.
func ClusterKey(cluster string, section Section, names ...string) (string, error) {
	return Key{Cluster: cluster, Section: section, Names: names}.Build()
}

// PolicyKey returns a key of the administrators' policy.
func PolicyKey(names ...string) (string, error) { return Key{Names: names}.Build() }

// PolicyDrain is the first name of the policy's keys about draining.
const PolicyDrain = "drain"

// DrainKey returns the key that says how far a cluster is drained.
func DrainKey(cluster string) (string, error) {
	if !isLabel(cluster) {
		return "", errLabel(cluster)
	}
	return PolicyKey(PolicyDrain, cluster)
}

// PolicyRules is the first name of the policy's keys that say what clusters may.
const PolicyRules = "rules"

// RulesPrefix is the prefix of those keys.
const RulesPrefix = PolicyPrefix + PolicyRules + "/"

// RulesKey returns the key of a policy about clusters.
func RulesKey(name string) (string, error) { return PolicyKey(PolicyRules, name) }

func errLabel(cluster string) error {
	return fmt.Errorf("cluster %.80q is not a DNS label (lower-case letters, digits and '-', at most 63): %w", cluster, ErrInvalid)
}

// Build returns the key as a string; ParseKey is its inverse.
func (k Key) Build() (string, error) {
	if err := k.validate(); err != nil {
		return "", err
	}
	tail := strings.Join(k.Names, "/")
	if k.Cluster == "" {
		return PolicyPrefix + tail, nil
	}
	return ClustersPrefix + k.Cluster + "/" + string(k.Section) + "/" + tail, nil
}

func (k Key) validate() error {
	switch {
	case k.Cluster == "" && k.Section != "":
		return fmt.Errorf("key of section %q names no cluster: %w", k.Section, ErrInvalid)
	case k.Cluster != "" && !isLabel(k.Cluster):
		return errLabel(k.Cluster)
	case k.Cluster != "" && !k.Section.valid():
		return fmt.Errorf("key of cluster %q has unknown section %.80q: %w", k.Cluster, string(k.Section), ErrInvalid)
	case len(k.Names) == 0 || len(k.Names) > MaxKeyNames:
		return fmt.Errorf("key of cluster %q, section %q has %d names, not 1 to %d: %w", k.Cluster, k.Section, len(k.Names), MaxKeyNames, ErrInvalid)
	}
	for _, n := range k.Names {
		if !isSubdomain(n) {
			return fmt.Errorf("name %.80q in a key is not a DNS subdomain (lower-case letters, digits, '-' and '.', at most 253): %w", n, ErrInvalid)
		}
	}
	return nil
}

// ParseKey takes a key apart. Anything that Build would not return is an
// ErrInvalid: what other clusters wrote is untrusted.
func ParseKey(key string) (Key, error) {
	if len(key) > MaxKeyBytes {
		return Key{}, fmt.Errorf("key %.64q... has %d bytes, at most %d are possible: %w", key, len(key), MaxKeyBytes, ErrInvalid)
	}
	var k Key
	if tail, ok := strings.CutPrefix(key, PolicyPrefix); ok {
		k.Names = strings.Split(tail, "/")
	} else if tail, ok := strings.CutPrefix(key, ClustersPrefix); ok {
		parts := strings.SplitN(tail, "/", 3)
		if len(parts) < 3 || parts[0] == "" {
			return Key{}, fmt.Errorf("key %q is not of the form %s<cluster>/<section>/<name>: %w", key, ClustersPrefix, ErrInvalid)
		}
		k.Cluster, k.Section, k.Names = parts[0], Section(parts[1]), strings.Split(parts[2], "/")
	} else {
		return Key{}, fmt.Errorf("key %q is below neither %s nor %s: %w", key, ClustersPrefix, PolicyPrefix, ErrInvalid)
	}
	if err := k.validate(); err != nil {
		return Key{}, fmt.Errorf("key %q: %w", key, err)
	}
	return k, nil
}

// ClusterPrefix returns the prefix of all keys of a cluster: what its agents may
// write. It ends in a slash, so that no cluster's prefix begins another's.
func ClusterPrefix(cluster string) (string, error) {
	if !isLabel(cluster) {
		return "", errLabel(cluster)
	}
	return ClustersPrefix + cluster + "/", nil
}

// SectionPrefix returns the prefix of one section of a cluster.
func SectionPrefix(cluster string, section Section) (string, error) {
	p, err := ClusterPrefix(cluster)
	if err != nil {
		return "", err
	}
	if !section.valid() {
		return "", fmt.Errorf("unknown section %.80q: %w", string(section), ErrInvalid)
	}
	return p + string(section) + "/", nil
}

func isLabel(s string) bool {
	if len(s) == 0 || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// isSubdomain follows Kubernetes' reading of RFC 1123: the whole is bounded, its
// labels are not.
func isSubdomain(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	edge := true // at the first byte of a label
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			edge = false
		case c == '-' && !edge:
			if i+1 == len(s) || s[i+1] == '.' {
				return false
			}
		case c == '.' && !edge:
			edge = true
		default:
			return false
		}
	}
	return !edge
}
