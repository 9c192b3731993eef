package publish

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/store"
)

type name struct{ namespace, name string }

// exports is what a cluster's source has delivered, arranged by what it means
// for the store. It is pure: one owner, no I/O. Keys of the store are the names
// of records throughout; dirty collects those whose record may have changed.
type exports struct {
	id    cluster.ID
	meta  *cluster.Meta
	trust *record.Trust // nil: not known yet; what the store has is kept

	services map[name]*cluster.Object
	exported map[name]*cluster.Object            // ServiceExports
	slices   map[name]map[string]*cluster.Object // by Service, then name
	sliceOf  map[name]string                     // the Service of a slice
	objects  map[cluster.Ref]*cluster.Object     // all other kinds that cross
	users    map[string]int                      // routes, Gateways and ListenerSets by namespace
	policies policies
	runs     derived
	secrets  derived

	// networks are those of the other clusters, each with one of them; nil: not
	// known yet. sharing is the cluster that shares ours; while there is none,
	// slices are published without addresses.
	networks map[string]cluster.ID
	sharing  cluster.ID

	dirty map[string]struct{}
	// bundles are keys of trust bundles in the store, seen before ours was known.
	bundles map[string]struct{}
	// refused are objects that have no key, by Ref; broken are records that can't
	// be encoded, by key.
	refused, broken map[string]cluster.Problem
}

func newExports(id cluster.ID) *exports {
	return &exports{
		id:       id,
		services: map[name]*cluster.Object{}, exported: map[name]*cluster.Object{},
		slices: map[name]map[string]*cluster.Object{}, sliceOf: map[name]string{},
		objects: map[cluster.Ref]*cluster.Object{}, users: map[string]int{}, policies: newPolicies(),
		dirty: map[string]struct{}{}, bundles: map[string]struct{}{}, refused: map[string]cluster.Problem{}, broken: map[string]cluster.Problem{},
	}
}

func (x *exports) setMeta(m cluster.Meta) {
	x.meta = &m
	x.touch(record.MetaKey(x.id))
	x.share()
}

func (x *exports) setNetworks(networks map[string]cluster.ID) {
	x.networks = networks
	x.share()
}

// share works out whether anybody could use the addresses of endpoints.
func (x *exports) share() {
	was := x.sharing != ""
	x.sharing = ""
	if x.meta != nil && x.meta.Network != "" {
		x.sharing = x.networks[x.meta.Network]
	}
	if was == (x.sharing != "") {
		return
	}
	for n, of := range x.sliceOf {
		x.touch(record.SliceKey(x.id, n.namespace, of, n.name))
	}
}

func (x *exports) setTrust(t record.Trust) {
	if x.trust != nil {
		x.touch(record.TrustKey(x.id, x.trust.TrustDomain))
	}
	for key := range x.bundles {
		x.dirty[key] = struct{}{}
	}
	clear(x.bundles)
	x.trust = &t
	x.touch(record.TrustKey(x.id, t.TrustDomain))
}

// touch marks a key. What can't be a key can't be a record either.
func (x *exports) touch(key string, err error) {
	if err == nil {
		x.dirty[key] = struct{}{}
	}
}

// touchObject marks the key of an object of a kind that crosses by itself.
func (x *exports) touchObject(ref cluster.Ref) {
	x.touch(record.ObjectKey(&cluster.Object{Ref: ref, Cluster: x.id}))
}

// apply takes one change of the source.
func (x *exports) apply(e cluster.Event) {
	n := name{e.Ref.Namespace, e.Ref.Name}
	if x.refuse(e) {
		e.Object = nil // what was there of it goes, as if the object were gone
	}
	switch e.Ref.Kind {
	case cluster.KindService:
		x.change(n, func() { put(x.services, n, e.Object) })
	case cluster.KindServiceExport:
		x.change(n, func() { put(x.exported, n, e.Object) })
	case cluster.KindEndpointSlice:
		if owner, ok := x.sliceOf[n]; ok {
			x.touch(record.SliceKey(x.id, n.namespace, owner, n.name))
			of := name{n.namespace, owner}
			delete(x.sliceOf, n)
			if delete(x.slices[of], n.name); len(x.slices[of]) == 0 {
				delete(x.slices, of)
			}
		}
		if e.Object != nil {
			of := name{n.namespace, e.Object.Value.(*cluster.EndpointSlice).Service}
			x.sliceOf[n] = of.name
			if x.slices[of] == nil {
				x.slices[of] = map[string]*cluster.Object{}
			}
			x.slices[of][n.name] = e.Object
			x.touch(record.SliceKey(x.id, n.namespace, of.name, n.name))
		}
	case cluster.KindHTTPRoute, cluster.KindGRPCRoute, cluster.KindTLSRoute, cluster.KindTCPRoute, cluster.KindUDPRoute, cluster.KindGateway, cluster.KindListenerSet:
		before := x.objects[e.Ref] != nil
		put(x.objects, e.Ref, e.Object)
		x.use(n.namespace, before, e.Object != nil)
		x.touchObject(e.Ref)
	case cluster.KindBackendTLSPolicy:
		// Both the CA certificates that it named and those that it names now.
		x.touchPolicy(e.Ref)
		put(x.objects, e.Ref, e.Object)
		x.policies.put(n, e.Object)
		x.touchPolicy(e.Ref)
	case cluster.KindReferenceGrant, cluster.KindNamespace, cluster.KindConfigMap:
		put(x.objects, e.Ref, e.Object)
		x.touchObject(e.Ref)
	}
}

// refuse notes an object that the store has no key for, or that a source should
// not have delivered, and forgets the note when it is mended.
func (x *exports) refuse(e cluster.Event) bool {
	delete(x.refused, e.Ref.String())
	if e.Object == nil {
		return false
	}
	err := fmt.Errorf("was delivered as %s of cluster %q", e.Object.Ref, e.Object.Cluster)
	if e.Object.Ref == e.Ref && e.Object.Cluster == x.id {
		_, err = record.ObjectKey(e.Object)
	}
	if err == nil || errors.Is(err, record.ErrNotPublished) {
		return false
	}
	x.refused[e.Ref.String()] = cluster.Problem{Cluster: x.id, Where: e.Object.Origin, Object: e.Ref.String(), Message: "can't be published: " + err.Error()}
	return true
}

// change runs an edit of a Service or its export. Its slices and the policies
// that target it follow when it begins or ceases to be exported.
func (x *exports) change(n name, edit func()) {
	before := x.isExported(n)
	edit()
	x.touch(record.ServiceKey(x.id, n.namespace, n.name))
	if before != x.isExported(n) {
		for slice := range x.slices[n] {
			x.touch(record.SliceKey(x.id, n.namespace, n.name, slice))
		}
		for policy := range x.policies.byTarget[n] {
			x.touchPolicy(policyRef(policy))
		}
	}
}

func (x *exports) isExported(n name) bool {
	svc := x.services[n]
	if svc == nil || x.exported[n] == nil {
		return false
	}
	s, ok := svc.Value.(*corev1.Service)
	return ok && record.Exportable(s) == nil
}

func (x *exports) use(namespace string, before, after bool) {
	had := x.users[namespace] > 0
	if after && !before {
		x.users[namespace]++
	}
	if before && !after {
		if x.users[namespace]--; x.users[namespace] == 0 {
			delete(x.users, namespace)
		}
	}
	if had != (x.users[namespace] > 0) {
		x.touch(store.ClusterKey(string(x.id), store.SectionNamespaces, namespace))
	}
}

func put[K comparable](m map[K]*cluster.Object, k K, o *cluster.Object) {
	if o == nil {
		delete(m, k)
		return
	}
	m[k] = o
}

// touchAll marks every key that may have a record.
func (x *exports) touchAll() {
	if x.meta != nil {
		x.touch(record.MetaKey(x.id))
	}
	if x.trust != nil {
		x.touch(record.TrustKey(x.id, x.trust.TrustDomain))
	}
	for n := range x.exported {
		x.touch(record.ServiceKey(x.id, n.namespace, n.name))
	}
	for n, of := range x.sliceOf {
		x.touch(record.SliceKey(x.id, n.namespace, of, n.name))
	}
	for ref := range x.objects {
		x.touchObject(ref)
	}
	for _, d := range []derived{x.runs, x.secrets} {
		for key := range d.of {
			x.dirty[key] = struct{}{}
		}
	}
}

// rank is the place of a record in the order of writing: class, then the object
// whose age counts, then step.
type rank struct {
	class int
	by    *cluster.Object // nil: no age
	step  int
}

const (
	stepSlice = iota // a reader that sees the Service finds its endpoints
	stepObject
)

func (r rank) compare(o rank) int {
	if c := cmp.Compare(r.class, o.class); c != 0 {
		return c
	}
	if r.by != nil && o.by != nil && r.by != o.by {
		switch {
		case cluster.Older(r.by, o.by):
			return -1
		case cluster.Older(o.by, r.by):
			return 1
		}
	}
	return cmp.Compare(r.step, o.step)
}

// What all others depend on comes first.
const (
	classMeta = iota
	classTrust
	classNamespaces
	classAuthorities // before the policies that name them
	classPolicies    // before the Services that can only be reached by them
	classSecrets     // before the Gateways that name them
	classGrants
	classRanked
	classRuns // they say what became of others' objects
)

// errKeep says that a key is to be left as the store has it.
var errKeep = errors.New("kept as it is")

// desired gives the value that a key should have, nil if there should be none.
// After an error the key is to be left alone; a record that can't be encoded
// keeps its last good state, and is noted in broken.
func (x *exports) desired(key string) ([]byte, rank, error) {
	delete(x.broken, key)
	rec, r, objects, err := x.encode(key)
	if err == nil || errors.Is(err, errKeep) {
		return rec.Value, r, err
	}
	p := cluster.Problem{Cluster: x.id, Where: key, Message: "can't be published: " + err.Error()}
	if len(objects) > 0 {
		p.Where, p.Object = objects[0].Origin, objects[0].String()
	}
	x.broken[key] = p
	return nil, r, err
}

func (x *exports) encode(key string) (rec record.Record, r rank, objects []*cluster.Object, err error) {
	k, err := store.ParseKey(key)
	if err != nil {
		return rec, r, nil, errKeep // no client could even delete it
	}
	refs, known := refsOf(k)
	if !known { // of another version: not ours, hence gone
		return rec, r, nil, nil
	}
	switch k.Section {
	case store.SectionMeta:
		if x.meta == nil {
			return rec, r, nil, errKeep
		}
		rec, err = record.EncodeMeta(x.id, *x.meta)
		return rec, rank{class: classMeta}, nil, err
	case store.SectionTrust:
		switch {
		case x.trust == nil:
			x.bundles[key] = struct{}{}
			err = errKeep
		case x.trust.TrustDomain == k.Names[0]:
			rec, err = record.EncodeTrust(x.id, *x.trust)
		}
		return rec, rank{class: classTrust}, nil, err
	case store.SectionAlive:
		return rec, r, nil, errKeep
	case store.SectionRuns:
		rec, err = x.runs.encode(key)
		return rec, rank{class: classRuns}, nil, err
	case store.SectionSecrets:
		rec, err = x.secrets.encode(key)
		return rec, rank{class: classSecrets}, nil, err
	case store.SectionServices:
		if n := (name{k.Names[0], k.Names[1]}); x.isExported(n) {
			svc, exp := x.services[n], x.exported[n]
			rec, err = record.EncodeService(svc, exp)
			return rec, rank{classRanked, exp, stepObject}, []*cluster.Object{svc}, err
		}
	case store.SectionEndpoints:
		if n := (name{k.Names[0], k.Names[1]}); x.isExported(n) && x.slices[n][k.Names[2]] != nil {
			o := x.slices[n][k.Names[2]]
			published := o
			if x.sharing == "" {
				c := *o
				c.Value, published = o.Value.(*cluster.EndpointSlice).Counted(), &c
			}
			rec, err = record.EncodeSlice(published)
			return rec, rank{classRanked, x.exported[n], stepSlice}, []*cluster.Object{o}, err
		}
	default:
		o := x.objects[refs[0]]
		if o == nil || !x.crosses(o) {
			return rec, r, nil, nil
		}
		rec, err = record.EncodeObject(o)
		return rec, rankOf(o), []*cluster.Object{o}, err
	}
	return rec, r, nil, nil
}

func refsOf(k store.Key) (refs []cluster.Ref, known bool) {
	refs, err := record.Refs(k)
	return refs, err == nil
}

// crosses tells whether an object that has a record of its own is published.
func (x *exports) crosses(o *cluster.Object) bool {
	switch o.Kind {
	case cluster.KindNamespace:
		return x.users[o.Name] > 0
	case cluster.KindBackendTLSPolicy:
		return x.policyCrosses(name{o.Namespace, o.Name})
	case cluster.KindConfigMap:
		return x.caCrosses(o)
	}
	return true
}

func rankOf(o *cluster.Object) rank {
	switch o.Kind {
	case cluster.KindNamespace:
		return rank{classNamespaces, o, stepObject}
	case cluster.KindConfigMap:
		return rank{classAuthorities, o, stepObject}
	case cluster.KindBackendTLSPolicy:
		return rank{classPolicies, o, stepObject}
	case cluster.KindReferenceGrant:
		return rank{classGrants, o, stepObject}
	}
	return rank{classRanked, o, stepObject}
}

// problems lists what can't be published, sorted.
func (x *exports) problems() []cluster.Problem {
	var out []cluster.Problem
	for _, p := range x.refused {
		out = append(out, p)
	}
	for _, p := range x.broken {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b cluster.Problem) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Where, b.Where), cmp.Compare(a.Message, b.Message))
	})
	return out
}
