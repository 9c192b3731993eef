package federation

import (
	"fmt"
	"reflect"
	"sort"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
)

// Change is one step from a Snapshot to the next. Object nil means that the
// object is gone.
type Change struct {
	Cluster cluster.ID
	Ref     cluster.Ref
	Object  *cluster.Object
}

// Builder derives Snapshots. It is not safe for concurrent use: one loop owns
// it. What it returns is immutable.
type Builder struct {
	cur *Snapshot
}

// NewBuilder starts from an empty clusterset.
func NewBuilder() *Builder {
	return &Builder{cur: &Snapshot{
		objects: iradix.New[*cluster.Object](),
		parents: iradix.New[*cluster.Object](),
		slices:  iradix.New[*cluster.Object](),
	}}
}

// Snapshot returns the newest Snapshot.
func (b *Builder) Snapshot() *Snapshot { return b.cur }

// Edit collects changes for one new Snapshot.
type Edit struct {
	b        *Builder
	revision int64
	clusters []Cluster
	objects  *iradix.Txn[*cluster.Object]
	parents  *iradix.Txn[*cluster.Object]
	slices   *iradix.Txn[*cluster.Object]
	changed  ChangeSet
}

// Edit begins a new Snapshot. Nothing is visible before Commit.
func (b *Builder) Edit() *Edit {
	return &Edit{b: b, revision: b.cur.Revision, clusters: b.cur.clusters, changed: ChangeSet{},
		objects: b.cur.objects.Txn(), parents: b.cur.parents.Txn(), slices: b.cur.slices.Txn()}
}

// Apply puts or removes one object. An object equal to the one that is there
// (value and seniority) changes nothing.
func (e *Edit) Apply(c Change) error {
	if !storable(c.Ref, c.Cluster) {
		return fmt.Errorf("%s of cluster %q has an unusable name", c.Ref, c.Cluster)
	}
	key := string(KeyNamed(c.Ref.Kind, c.Ref.Namespace, c.Ref.Name)) + string(c.Cluster)
	old, had := e.objects.Get([]byte(key))
	if c.Object == nil {
		if !had {
			return nil
		}
		e.objects.Delete([]byte(key))
		e.unindex(old)
		e.touch(old)
		return nil
	}
	if c.Object.Ref != c.Ref || c.Object.Cluster != c.Cluster {
		return fmt.Errorf("%s of cluster %q was delivered under the name %s of %q", c.Object.Ref, c.Object.Cluster, c.Ref, c.Cluster)
	}
	if had {
		if same(old, c.Object) {
			return nil
		}
		e.unindex(old)
		e.touch(old)
	}
	e.objects.Insert([]byte(key), c.Object)
	e.index(c.Object)
	e.touch(c.Object)
	return nil
}

// Get reads an object as the Edit has it so far.
func (e *Edit) Get(id cluster.ID, ref cluster.Ref) (*cluster.Object, bool) {
	return e.objects.Get([]byte(string(KeyNamed(ref.Kind, ref.Namespace, ref.Name)) + string(id)))
}

// SetCluster adds a cluster or replaces its Meta and Health.
func (e *Edit) SetCluster(c Cluster) {
	i := sort.Search(len(e.clusters), func(i int) bool { return e.clusters[i].ID >= c.ID })
	if i < len(e.clusters) && e.clusters[i].ID == c.ID {
		old := e.clusters[i]
		if old.Meta.Equal(c.Meta) && old.Health == c.Health {
			return
		}
		next := append([]Cluster(nil), e.clusters...)
		next[i] = c
		e.clusters = next
	} else {
		next := make([]Cluster, 0, len(e.clusters)+1)
		next = append(next, e.clusters[:i]...)
		next = append(next, c)
		e.clusters = append(next, e.clusters[i:]...)
	}
	e.changed[KeyClusters] = struct{}{}
}

// RemoveCluster forgets a cluster. Its objects must have been removed.
func (e *Edit) RemoveCluster(id cluster.ID) {
	for i, c := range e.clusters {
		if c.ID == id {
			next := append([]Cluster(nil), e.clusters[:i]...)
			e.clusters = append(next, e.clusters[i+1:]...)
			e.changed[KeyClusters] = struct{}{}
			return
		}
	}
}

// SetRevision notes the store revision that the Snapshot will include in full.
// It never goes back.
func (e *Edit) SetRevision(r int64) {
	if r > e.revision {
		e.revision = r
	}
}

// Commit publishes the Edit as the Builder's newest Snapshot and tells what
// differs from the one before.
func (e *Edit) Commit() (*Snapshot, ChangeSet) {
	e.b.cur = &Snapshot{Revision: e.revision, clusters: e.clusters,
		objects: e.objects.Commit(), parents: e.parents.Commit(), slices: e.slices.Commit()}
	return e.b.cur, e.changed
}

func (e *Edit) index(o *cluster.Object) {
	for _, k := range parentKeys(o) {
		e.parents.Insert([]byte(string(k)+primaryKey(o)), o)
	}
	if s, ok := o.Value.(*cluster.EndpointSlice); ok {
		e.slices.Insert([]byte(string(KeySlices(o.Namespace, s.Service, o.Cluster))+o.Name), o)
	}
}

func (e *Edit) unindex(o *cluster.Object) {
	for _, k := range parentKeys(o) {
		e.parents.Delete([]byte(string(k) + primaryKey(o)))
	}
	if s, ok := o.Value.(*cluster.EndpointSlice); ok {
		e.slices.Delete([]byte(string(KeySlices(o.Namespace, s.Service, o.Cluster)) + o.Name))
	}
}

func (e *Edit) touch(o *cluster.Object) {
	if s, ok := o.Value.(*cluster.EndpointSlice); ok {
		// Slices are read by Service alone: a churn of endpoints touches one set.
		e.changed[KeySlices(o.Namespace, s.Service, o.Cluster)] = struct{}{}
		return
	}
	e.changed[KeyNamed(o.Kind, o.Namespace, o.Name)] = struct{}{}
	e.changed[KeyNamespace(o.Kind, o.Namespace)] = struct{}{}
	for _, k := range parentKeys(o) {
		e.changed[k] = struct{}{}
	}
}

// ParentRefs lists the parentRefs of a route object, nil for other kinds.
func ParentRefs(o *cluster.Object) []gatewayv1.ParentReference {
	switch v := o.Value.(type) {
	case *gatewayv1.HTTPRoute:
		return v.Spec.ParentRefs
	}
	return nil
}

func parentKeys(o *cluster.Object) []Key {
	refs := ParentRefs(o)
	if len(refs) == 0 {
		return nil
	}
	seen := make(map[Key]bool, len(refs))
	var out []Key
	for _, r := range refs {
		kind, ns := ParentKind(r), o.Namespace
		if r.Namespace != nil {
			ns = string(*r.Namespace)
		}
		k := KeyParent(kind, ns, string(r.Name))
		if !seen[k] {
			seen[k] = true
			out = append(out, k)
		}
	}
	return out
}

// ParentKind tells which kind a parentRef means: Gateway, Service,
// ServiceImport, or "" for a kind that is not ours.
func ParentKind(r gatewayv1.ParentReference) cluster.Kind {
	group, kind := "gateway.networking.k8s.io", "Gateway"
	if r.Group != nil {
		group = string(*r.Group)
	}
	if r.Kind != nil {
		kind = string(*r.Kind)
	}
	switch {
	case group == "gateway.networking.k8s.io" && kind == "Gateway":
		return cluster.KindGateway
	case group == "" && kind == "Service":
		return cluster.KindService
	case group == "multicluster.x-k8s.io" && kind == "ServiceImport":
		return cluster.KindServiceImport
	}
	return ""
}

func same(a, b *cluster.Object) bool {
	return a == b || (a.Seniority == b.Seniority && a.Origin == b.Origin && reflect.DeepEqual(a.Value, b.Value))
}
