package federation

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sort"
	"strings"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/policy"
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
		targets: iradix.New[*cluster.Object](),
		slices:  iradix.New[*cluster.Object](), refusals: iradix.New[Refusal](),
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
	targets  *iradix.Txn[*cluster.Object]
	slices   *iradix.Txn[*cluster.Object]
	trust    map[string][][]byte
	sealing  map[cluster.ID][]byte
	policies *policy.Set
	refusals *iradix.Txn[Refusal]
	changed  ChangeSet
	reasons  bool // a Health's Reason or a DrainTarget differs
}

// Edit begins a new Snapshot. Nothing is visible before Commit.
func (b *Builder) Edit() *Edit {
	return &Edit{b: b, revision: b.cur.Revision, clusters: b.cur.clusters, trust: b.cur.trust, sealing: b.cur.sealing, changed: ChangeSet{},
		objects: b.cur.objects.Txn(), targets: b.cur.targets.Txn(), slices: b.cur.slices.Txn(), policies: b.cur.policies, refusals: b.cur.refusals.Txn()}
}

// Apply puts or removes one object. An object equal to the one that is there
// (value, seniority and origin) changes nothing. The error says why the object
// can't be held; then nothing was changed.
func (e *Edit) Apply(c Change) error {
	if !storable(c.Ref, c.Cluster) {
		return fmt.Errorf("%s of cluster %q has an unusable name", c.Ref, c.Cluster)
	}
	key := refKey(c.Cluster, c.Ref)
	old, had := e.objects.Get(key)
	if c.Object == nil {
		if !had {
			return nil
		}
		e.objects.Delete(key)
		e.unindex(old)
		e.touch(old)
		return nil
	}
	if c.Object.Ref != c.Ref || c.Object.Cluster != c.Cluster {
		return fmt.Errorf("%s of cluster %q was delivered under the name %s of %q", c.Object.Ref, c.Object.Cluster, c.Ref, c.Cluster)
	}
	if err := fits(c.Object); err != nil {
		return err
	}
	if had {
		if same(old, c.Object) {
			return nil
		}
		e.unindex(old)
		e.touch(old)
	}
	e.objects.Insert(key, c.Object)
	e.index(c.Object)
	e.touch(c.Object)
	return nil
}

// Get reads an object as the Edit has it so far.
func (e *Edit) Get(id cluster.ID, ref cluster.Ref) (*cluster.Object, bool) {
	return e.objects.Get(refKey(id, ref))
}

// SetCluster adds a cluster or replaces what is known of it. A cluster that
// differs in its Health's Reason or its DrainTarget alone is taken without a Key
// in the ChangeSet.
func (e *Edit) SetCluster(c Cluster) {
	i := sort.Search(len(e.clusters), func(i int) bool { return e.clusters[i].ID >= c.ID })
	if i == len(e.clusters) || e.clusters[i].ID != c.ID {
		e.clusters = slices.Insert(slices.Clone(e.clusters), i, c)
		e.changed[KeyClusters] = struct{}{}
		if c.Drained != 0 {
			e.changed[KeyDrained(c.ID)] = struct{}{}
		}
		return
	}
	old := e.clusters[i]
	known := !old.Meta.Equal(c.Meta) || old.Health.Liveness != c.Health.Liveness
	drained := old.Drained != c.Drained
	reasons := old.Health.Reason != c.Health.Reason || old.DrainTarget != c.DrainTarget
	if !known && !drained && !reasons {
		return
	}
	if known {
		e.changed[KeyClusters] = struct{}{}
	}
	if drained {
		e.changed[KeyDrained(c.ID)] = struct{}{}
	}
	e.reasons = e.reasons || reasons
	e.clusters = slices.Clone(e.clusters)
	e.clusters[i] = c
}

// RemoveCluster forgets a cluster. Its objects must have been removed.
func (e *Edit) RemoveCluster(id cluster.ID) {
	for i, c := range e.clusters {
		if c.ID == id {
			e.clusters = slices.Delete(slices.Clone(e.clusters), i, i+1)
			e.changed[KeyClusters] = struct{}{}
			if c.Drained != 0 {
				e.changed[KeyDrained(id)] = struct{}{}
			}
			return
		}
	}
}

// SetTrust replaces the authorities by trust domain. The Edit owns the map from
// now on.
func (e *Edit) SetTrust(trust map[string][][]byte) {
	equal := maps.EqualFunc(e.trust, trust, func(a, b [][]byte) bool { return slices.EqualFunc(a, b, bytes.Equal) })
	if !equal {
		e.trust = trust
		e.changed[KeyTrust] = struct{}{}
	}
}

// SetSealing replaces the clusters' sealing keys. The Edit owns the map from now on.
func (e *Edit) SetSealing(keys map[cluster.ID][]byte) {
	if !maps.EqualFunc(e.sealing, keys, bytes.Equal) {
		e.sealing = keys
		e.changed[KeyTrust] = struct{}{}
	}
}

// SetRevision notes the store revision that the Snapshot will include in full.
// It never goes back.
func (e *Edit) SetRevision(r int64) {
	if r > e.revision {
		e.revision = r
	}
}

// RestartRevision notes the revision of a store that was replaced, by one that
// was restored from a backup say: there revisions begin anew.
func (e *Edit) RestartRevision(r int64) { e.revision = r }

// Changed reports whether Commit would give a Snapshot that differs from the
// one before.
func (e *Edit) Changed() bool {
	return len(e.changed) > 0 || e.reasons || e.revision != e.b.cur.Revision || e.policies != e.b.cur.policies
}

// Commit publishes the Edit as the Builder's newest Snapshot and tells what
// differs from the one before. The Edit is spent.
func (e *Edit) Commit() (*Snapshot, ChangeSet) {
	rules := e.settleRules()
	e.b.cur = &Snapshot{Revision: e.revision, clusters: e.clusters, trust: e.trust, sealing: e.sealing, policies: e.policies, rules: rules,
		objects: e.objects.Commit(), targets: e.targets.Commit(), slices: e.slices.Commit(), refusals: e.refusals.Commit()}
	return e.b.cur, e.changed
}

func (e *Edit) index(o *cluster.Object) {
	for _, k := range targetKeys(o) {
		e.targets.Insert([]byte(string(k)+primaryKey(o)), o)
	}
	if s, ok := o.Value.(*cluster.EndpointSlice); ok {
		e.slices.Insert([]byte(string(KeySlices(o.Namespace, s.Service, o.Cluster))+o.Name), o)
	}
}

func (e *Edit) unindex(o *cluster.Object) {
	for _, k := range targetKeys(o) {
		e.targets.Delete([]byte(string(k) + primaryKey(o)))
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
	for _, k := range targetKeys(o) {
		e.changed[k] = struct{}{}
	}
}

// ParentRefs lists the parentRefs of a route, or the one of a ListenerSet, nil for
// other kinds.
func ParentRefs(o *cluster.Object) []gatewayv1.ParentReference {
	switch v := o.Value.(type) {
	case *gatewayv1.HTTPRoute:
		return v.Spec.ParentRefs
	case *gatewayv1.GRPCRoute:
		return v.Spec.ParentRefs
	case *gatewayv1.TLSRoute:
		return v.Spec.ParentRefs
	case *gatewayv1.TCPRoute:
		return v.Spec.ParentRefs
	case *gatewayv1.UDPRoute:
		return v.Spec.ParentRefs
	case *gatewayv1.ListenerSet:
		p := v.Spec.ParentRef
		return []gatewayv1.ParentReference{{Group: p.Group, Kind: p.Kind, Name: p.Name, Namespace: p.Namespace}}
	}
	return nil
}

// RouteHostnames lists the hostnames of the kinds of routes that have any, nil for
// others.
func RouteHostnames(o *cluster.Object) []gatewayv1.Hostname {
	switch v := o.Value.(type) {
	case *gatewayv1.HTTPRoute:
		return v.Spec.Hostnames
	case *gatewayv1.GRPCRoute:
		return v.Spec.Hostnames
	case *gatewayv1.TLSRoute:
		return v.Spec.Hostnames
	}
	return nil
}

// targetKeys lists the sets of other objects' users to which an object belongs.
func targetKeys(o *cluster.Object) []Key {
	var out []Key
	add := func(k Key, ns, name string) {
		// A name with a separator in it is nobody's: nothing could ask for it.
		if !strings.Contains(ns+name, sep) && !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	for _, r := range ParentRefs(o) {
		kind, ns := ParentKind(r), o.Namespace
		if r.Namespace != nil {
			ns = string(*r.Namespace)
		}
		switch {
		case o.Kind != cluster.KindListenerSet && kind != "":
			add(KeyParent(kind, ns, string(r.Name)), ns, string(r.Name))
		case kind == cluster.KindGateway:
			add(KeyListenerSets(ns, string(r.Name)), ns, string(r.Name))
		}
	}
	if p, ok := o.Value.(*gatewayv1.BackendTLSPolicy); ok {
		for _, t := range p.Spec.TargetRefs {
			if kind := TargetKind(t); kind != "" {
				add(KeyPolicies(kind, o.Namespace, string(t.Name)), o.Namespace, string(t.Name))
			}
		}
	}
	return out
}

// ParentKind tells which kind a parentRef means: Gateway, ListenerSet, Service,
// ServiceImport, or "" for a kind that is not ours.
func ParentKind(r gatewayv1.ParentReference) cluster.Kind {
	group, kind := gatewayv1.GroupName, string(cluster.KindGateway)
	if r.Group != nil {
		group = string(*r.Group)
	}
	if r.Kind != nil {
		kind = string(*r.Kind)
	}
	if group == gatewayv1.GroupName {
		switch k := cluster.Kind(kind); k {
		case cluster.KindGateway, cluster.KindListenerSet:
			return k
		}
		return ""
	}
	return backendKind(group, kind)
}

// TargetKind tells which kind a policy's targetRef means: Service, ServiceImport,
// or "" for a kind that is not ours.
func TargetKind(r gatewayv1.LocalPolicyTargetReferenceWithSectionName) cluster.Kind {
	return backendKind(string(r.Group), string(r.Kind))
}

func backendKind(group, kind string) cluster.Kind {
	switch {
	case group == "" && kind == string(cluster.KindService):
		return cluster.KindService
	case group == "multicluster.x-k8s.io" && kind == string(cluster.KindServiceImport):
		return cluster.KindServiceImport
	}
	return ""
}

// fits reports whether the value is of the type that the kind says, on which
// readers rely without looking.
func fits(o *cluster.Object) error {
	var ok bool
	switch o.Kind {
	case cluster.KindNamespace:
		_, ok = o.Value.(*corev1.Namespace)
	case cluster.KindService:
		_, ok = o.Value.(*corev1.Service)
	case cluster.KindServiceExport:
		_, ok = o.Value.(*mcsv1beta1.ServiceExport)
	case cluster.KindEndpointSlice:
		var s *cluster.EndpointSlice
		if s, ok = o.Value.(*cluster.EndpointSlice); ok && strings.Contains(s.Service, sep) {
			return fmt.Errorf("%s of cluster %q belongs to a Service with an unusable name", o.Ref, o.Cluster)
		}
	case cluster.KindSecret:
		_, ok = o.Value.(*corev1.Secret)
	case cluster.KindConfigMap:
		_, ok = o.Value.(*corev1.ConfigMap)
	case cluster.KindGatewayClass:
		_, ok = o.Value.(*gatewayv1.GatewayClass)
	case cluster.KindGateway:
		_, ok = o.Value.(*gatewayv1.Gateway)
	case cluster.KindHTTPRoute:
		_, ok = o.Value.(*gatewayv1.HTTPRoute)
	case cluster.KindGRPCRoute:
		_, ok = o.Value.(*gatewayv1.GRPCRoute)
	case cluster.KindTLSRoute:
		_, ok = o.Value.(*gatewayv1.TLSRoute)
	case cluster.KindTCPRoute:
		_, ok = o.Value.(*gatewayv1.TCPRoute)
	case cluster.KindUDPRoute:
		_, ok = o.Value.(*gatewayv1.UDPRoute)
	case cluster.KindListenerSet:
		_, ok = o.Value.(*gatewayv1.ListenerSet)
	case cluster.KindBackendTLSPolicy:
		_, ok = o.Value.(*gatewayv1.BackendTLSPolicy)
	case cluster.KindReferenceGrant:
		_, ok = o.Value.(*gatewayv1beta1.ReferenceGrant)
	case cluster.KindGatewayRun:
		_, ok = o.Value.(*cluster.GatewayRun)
	case cluster.KindSealedSecret:
		_, ok = o.Value.(*cluster.SealedSecret)
	}
	if !ok {
		return fmt.Errorf("%s of cluster %q holds a %T", o.Ref, o.Cluster, o.Value)
	}
	return nil
}

func same(a, b *cluster.Object) bool {
	return a == b || (a.Seniority.Revision == b.Seniority.Revision && a.Seniority.Created.Equal(b.Seniority.Created) &&
		a.Origin == b.Origin && (a.Value == b.Value || reflect.DeepEqual(a.Value, b.Value)))
}
