package federation

import (
	"sort"
	"strings"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/policy"
)

// Liveness is how much of a cluster's traffic can be trusted to it (DESIGN
// section 3, "Health of a cluster").
type Liveness string

// The states of a cluster.
const (
	Alive   Liveness = "Alive"
	Suspect Liveness = "Suspect" // kept, at lower priority
	Dead    Liveness = "Dead"    // withdrawn; its State is kept and returns with it
)

// Health is what the members of the clusterset know of a cluster's state.
type Health struct {
	Liveness Liveness
	Reason   string // for people; does not take part in resolution
}

// Cluster is one cluster in a Snapshot.
type Cluster struct {
	ID     cluster.ID
	Meta   cluster.Meta
	Health Health
	// Drained is the percentage by which the cluster is taken out of the choice of
	// other clusters' clients: 0 to 100.
	Drained int
	// DrainTarget is where Drained is going; for people, takes no part in resolution.
	DrainTarget int
}

// Labels are what policies and causeway.dev/clusters select clusters by.
func (c Cluster) Labels() labels.Set {
	s := labels.Set{"name": string(c.ID)}
	for k, v := range map[string]string{"region": c.Meta.Region, "zone": c.Meta.Zone, "network": c.Meta.Network} {
		if v != "" {
			s[k] = v
		}
	}
	return s
}

// Snapshot is the state of the whole clusterset at one moment: every cluster's
// objects, its Meta and its Health. It is immutable and cheap to derive from
// its predecessor, with which it shares all that did not change. Read it from
// any goroutine.
//
// Objects of the agent's own cluster are those that its source delivered,
// published or not; those of other clusters are what they published.
type Snapshot struct {
	// Revision is the store revision that the Snapshot includes in full.
	Revision int64

	clusters []Cluster // sorted by ID
	objects  *iradix.Tree[*cluster.Object]
	targets  *iradix.Tree[*cluster.Object] // routes and ListenerSets by parentRef, policies by targetRef
	slices   *iradix.Tree[*cluster.Object] // EndpointSlices by Service
	trust    map[string][][]byte           // authorities by trust domain
	sealing  map[cluster.ID][]byte
	policies *policy.Set
	rules    map[cluster.ID]*policy.Rules // what policies says of each cluster; only of those of which it says something
	refusals *iradix.Tree[Refusal]        // by KeyNamed and cluster
}

// Refusal says of an object that a cluster published more than it may, and that
// this one is not used. Its own cluster has the object; others don't.
type Refusal struct {
	cluster.Ref
	Cluster cluster.ID
	Why     string
}

// sep separates the parts of keys; no name may contain it.
const sep = "\x00"

// Key names a set of objects that a reader depends on. Keys are compared, never
// parsed. A change of the Snapshot yields the Keys of all sets it touches
// (ChangeSet), so whoever remembers the Keys that it read knows when to read
// again.
type Key string

// KeyNamed is the set of all clusters' objects of one kind, namespace and name.
func KeyNamed(kind cluster.Kind, namespace, name string) Key {
	return Key(string(kind) + sep + namespace + sep + name + sep)
}

// KeyNamespace is the set of all objects of one kind in one namespace.
func KeyNamespace(kind cluster.Kind, namespace string) Key {
	return Key(string(kind) + sep + namespace + sep)
}

// KeyParent is the set of routes that name a parent of that kind and name
// (kind Service, ServiceImport, Gateway or ListenerSet).
func KeyParent(kind cluster.Kind, namespace, name string) Key {
	return Key("parent" + sep + string(kind) + sep + namespace + sep + name + sep)
}

// KeyListenerSets is the set of ListenerSets that name a Gateway as their parent.
func KeyListenerSets(namespace, gateway string) Key {
	return Key("listeners" + sep + namespace + sep + gateway + sep)
}

// KeyPolicies is the set of BackendTLSPolicies that name a target of that kind
// and name (kind Service or ServiceImport).
func KeyPolicies(kind cluster.Kind, namespace, name string) Key {
	return Key("policies" + sep + string(kind) + sep + namespace + sep + name + sep)
}

// KeySlices is the set of EndpointSlices of a Service in one cluster.
func KeySlices(namespace, service string, id cluster.ID) Key {
	return Key("slices" + sep + namespace + sep + service + sep + string(id) + sep)
}

// KeyClusters is the set of clusters with their Meta and Liveness.
const KeyClusters Key = "clusters" + sep

// KeyDrained is a cluster's Drained, which is not in KeyClusters: a drain takes
// many steps, and concerns only what the cluster serves.
func KeyDrained(id cluster.ID) Key { return Key("drained" + sep + string(id) + sep) }

// KeyTrust is what Trust and Sealing give.
const KeyTrust Key = "trust" + sep

// ChangeSet holds the Keys of every set that differs between two Snapshots.
type ChangeSet map[Key]struct{}

// Has reports whether the set behind k changed.
func (c ChangeSet) Has(k Key) bool { _, ok := c[k]; return ok }

// Clusters lists all clusters, sorted by ID. The caller must not change it.
func (s *Snapshot) Clusters() []Cluster { return s.clusters }

// Cluster finds a cluster.
func (s *Snapshot) Cluster(id cluster.ID) (Cluster, bool) {
	i := sort.Search(len(s.clusters), func(i int) bool { return s.clusters[i].ID >= id })
	if i < len(s.clusters) && s.clusters[i].ID == id {
		return s.clusters[i], true
	}
	return Cluster{}, false
}

// Trust gives the X.509 authorities (DER) of every trust domain that a cluster of
// the clusterset rightfully speaks for. The caller must not change it.
func (s *Snapshot) Trust() map[string][][]byte { return s.trust }

// Sealing gives the public key to which others seal what is for a cluster alone, nil if
// it has published none. The caller must not change it.
func (s *Snapshot) Sealing(id cluster.ID) []byte { return s.sealing[id] }

// Refused tells why the administrators' policy keeps an object of one of the
// PermittedKinds from other clusters: its namespace, or its cluster's quota. It is
// empty if it doesn't. It changes with the object's KeyNamed.
func (s *Snapshot) Refused(o *cluster.Object) string {
	if why := s.rules[o.Cluster].Refuses(VerbOf(o.Kind), o.Namespace); why != "" {
		return why
	}
	r, _ := s.refusals.Get(refKey(o.Cluster, o.Ref))
	return r.Why
}

// Policies gives the administrators' policy, nil if there is none.
func (s *Snapshot) Policies() *policy.Set { return s.policies }

// Restricted reports whether any policy restricts any cluster.
func (s *Snapshot) Restricted() bool { return len(s.rules) > 0 }

// Refusals lists all clusters' objects of that kind and name that are over their
// quota, sorted by cluster.
func (s *Snapshot) Refusals(kind cluster.Kind, namespace, name string) (out []Refusal) {
	s.refusals.Root().WalkPrefix([]byte(string(KeyNamed(kind, namespace, name))), func(_ []byte, r Refusal) bool {
		out = append(out, r)
		return false
	})
	return out
}

// Get finds one cluster's object.
func (s *Snapshot) Get(id cluster.ID, kind cluster.Kind, namespace, name string) (*cluster.Object, bool) {
	return s.objects.Get(refKey(id, cluster.Ref{Kind: kind, Namespace: namespace, Name: name}))
}

// Named lists all clusters' objects of that kind and name, sorted by cluster.
func (s *Snapshot) Named(kind cluster.Kind, namespace, name string) []*cluster.Object {
	return collect(s.objects, string(KeyNamed(kind, namespace, name)))
}

// InNamespace lists all clusters' objects of a kind in a namespace, sorted by
// name, then cluster. EndpointSlices have no KeyNamed and no KeyNamespace in
// ChangeSets: read them by SlicesOf.
func (s *Snapshot) InNamespace(kind cluster.Kind, namespace string) []*cluster.Object {
	return collect(s.objects, string(KeyNamespace(kind, namespace)))
}

// OfKind lists all clusters' objects of a kind, sorted by namespace, name, cluster.
func (s *Snapshot) OfKind(kind cluster.Kind) []*cluster.Object {
	return collect(s.objects, string(kind)+sep)
}

// RoutesOf lists the routes of all clusters that name this parent, in a fixed
// order (kind, namespace, name, cluster). Whether the parentRef's section and
// port fit is for the caller to judge.
func (s *Snapshot) RoutesOf(parent cluster.Kind, namespace, name string) []*cluster.Object {
	return collect(s.targets, string(KeyParent(parent, namespace, name)))
}

// ListenerSetsOf lists the ListenerSets of all clusters that name this Gateway as
// their parent, sorted by namespace, name, cluster. Whether the Gateway takes
// them is for the caller to judge.
func (s *Snapshot) ListenerSetsOf(namespace, gateway string) []*cluster.Object {
	return collect(s.targets, string(KeyListenerSets(namespace, gateway)))
}

// PoliciesOf lists the BackendTLSPolicies of all clusters that name this Service or
// ServiceImport as a target, sorted by name, cluster: they are in the target's
// namespace. Whether the targetRef's section fits, and which of several counts, is
// for the caller to judge.
func (s *Snapshot) PoliciesOf(target cluster.Kind, namespace, name string) []*cluster.Object {
	return collect(s.targets, string(KeyPolicies(target, namespace, name)))
}

// SlicesOf lists the EndpointSlices of a Service in one cluster, sorted by name.
func (s *Snapshot) SlicesOf(id cluster.ID, namespace, service string) []*cluster.Object {
	return collect(s.slices, string(KeySlices(namespace, service, id)))
}

// Len counts the objects.
func (s *Snapshot) Len() int { return s.objects.Len() }

func collect(t *iradix.Tree[*cluster.Object], prefix string) []*cluster.Object {
	var out []*cluster.Object
	t.Root().WalkPrefix([]byte(prefix), func(_ []byte, o *cluster.Object) bool {
		out = append(out, o)
		return false
	})
	return out
}

func primaryKey(o *cluster.Object) string {
	return string(KeyNamed(o.Kind, o.Namespace, o.Name)) + string(o.Cluster)
}

func refKey(id cluster.ID, ref cluster.Ref) []byte {
	return []byte(string(KeyNamed(ref.Kind, ref.Namespace, ref.Name)) + string(id))
}

func storable(ref cluster.Ref, id cluster.ID) bool {
	return ref.Name != "" && id != "" && !strings.Contains(string(ref.Kind)+ref.Namespace+ref.Name+string(id), sep)
}
