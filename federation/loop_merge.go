package federation

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/policy"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/store"
)

// merger turns inputs into Snapshots. One goroutine owns it; it does no I/O and
// has no clock but what the inputs say. What it has after a number of inputs
// depends only on what they say together, not on how they were cut.
type merger struct {
	local   cluster.ID // empty in a hub
	unseal  unsealer   // nil: nothing is opened
	builder *Builder

	records  *iradix.Tree[store.KV] // what the store holds, liveness keys included; immutable, shared with the saver
	revision int64
	peers    map[cluster.ID]*peer // every cluster with a record
	drains   map[cluster.ID]record.Drain
	policies map[string]policy.Policy
	set      *policy.Set // of policies; nil: there are none
	used     map[cluster.ID]usage

	localMeta  cluster.Meta
	localTrust *record.Trust
	health     map[cluster.ID]Health

	problems problems
	disputes map[string]struct{} // names of problems with trust bundles
}

// peer is what the merger knows of a cluster beside its objects.
type peer struct {
	meta   *cluster.Meta // nil: no record of it, so no part of the clusterset
	shown  bool          // its objects are in the Snapshot
	alive  map[string]struct{}
	trust  map[string]trustRecord
	slices map[cluster.Ref][]string // the keys that claim to be this slice

	judged judgement
	over   map[string]string // keys over the quota, and why
}

type trustRecord struct {
	*record.Trust
	created int64
}

// merged is what an input led to. Nil means unchanged.
type merged struct {
	snapshot *Snapshot
	changes  ChangeSet
	records  *storeState
	leases   map[cluster.ID]bool
	problems []cluster.Problem
	news     []cluster.Problem // those that were not there before
	step     time.Time         // when a drain goes on by itself; zero: never
}

// storeState is the store as it was at a revision.
type storeState struct {
	records  *iradix.Tree[store.KV]
	revision int64
	changed  map[string]struct{} // the keys that differ from those before; read-only
}

// unsealer is LoopConfig.Unseal.
type unsealer func(from cluster.ID, namespace, name string, s *cluster.SealedSecret) (*corev1.Secret, error)

func newMerger(local cluster.ID) *merger {
	return &merger{
		local: local, builder: NewBuilder(), records: iradix.New[store.KV](),
		peers: map[cluster.ID]*peer{}, drains: map[cluster.ID]record.Drain{}, policies: map[string]policy.Policy{}, used: map[cluster.ID]usage{}, problems: newProblems(local),
	}
}

func (m *merger) merge(in input) merged {
	e := m.builder.Edit()
	var out merged
	dirty := m.take(in)
	m.takeLocal(in, e)
	m.takeRecords(dirty, e)
	e.SetPolicies(m.set)
	out.step = m.settleClusters(e, in.now)
	m.settleTrust(e)
	e.RestartRevision(m.revision)
	if e.Changed() {
		out.snapshot, out.changes = e.Commit()
	}
	if len(dirty) > 0 || in.list != nil {
		out.records = &storeState{m.records, m.revision, dirty}
		out.leases = m.leases()
	}
	out.problems, out.news = m.problems.settle()
	return out
}

// take brings records and revision up to date and names the keys that differ.
func (m *merger) take(in input) map[string]struct{} {
	dirty := map[string]struct{}{}
	txn := m.records.Txn()
	set := func(kv store.KV) {
		old, ok := txn.Get([]byte(kv.Key))
		if ok && old.CreateRevision == kv.CreateRevision && old.ModRevision == kv.ModRevision && old.Leased == kv.Leased && bytes.Equal(old.Value, kv.Value) {
			return
		}
		txn.Insert([]byte(kv.Key), kv)
		dirty[kv.Key] = struct{}{}
		m.count(old, ok, -1)
		m.count(kv, true, 1)
	}
	remove := func(key []byte) {
		if old, ok := txn.Delete(key); ok {
			dirty[string(key)] = struct{}{}
			m.count(old, true, -1)
		}
	}
	if in.list != nil {
		listed := make(map[string]struct{}, len(in.list.records))
		for _, kv := range in.list.records {
			listed[kv.Key] = struct{}{}
			set(kv)
		}
		m.records.Root().Walk(func(k []byte, _ store.KV) bool {
			if _, ok := listed[string(k)]; !ok {
				remove(k)
			}
			return false
		})
		m.revision = in.list.revision // may go back: then the store was replaced
	}
	for key, ev := range in.events {
		if !ev.Deleted {
			set(ev.KV)
		} else {
			remove([]byte(key))
		}
	}
	m.records = txn.Commit()
	m.revision = max(m.revision, in.revision)
	return dirty
}

// takeLocal takes what the source says. Its objects get the rank that the store
// gave them when they were published.
func (m *merger) takeLocal(in input, e *Edit) {
	for ref, o := range in.local {
		c := Change{Cluster: m.local, Ref: ref}
		if o != nil {
			c.Object = ranked(o, m.rank(o))
		}
		if err := e.Apply(c); err != nil {
			m.problems.set(ref.String(), cluster.Problem{Cluster: m.local, Object: ref.String(), Message: err.Error()})
		} else {
			m.problems.clear(ref.String())
		}
	}
	if in.meta != nil {
		m.localMeta = *in.meta
	}
	if in.problems != nil {
		m.problems.source(*in.problems)
	}
	if in.trust != nil {
		m.localTrust = in.trust
	}
	if in.healthSet {
		m.health = in.health
	}
}

// rank is the create revision of an object's record, 0 if there is none, or if
// the kind has no rank.
func (m *merger) rank(o *cluster.Object) int64 {
	if o.Kind == cluster.KindEndpointSlice {
		return 0
	}
	key, err := record.ObjectKey(o)
	if err != nil {
		return 0
	}
	kv, _ := m.records.Get([]byte(key))
	return kv.CreateRevision
}

func ranked(o *cluster.Object, revision int64) *cluster.Object {
	if o.Seniority.Revision == revision {
		return o
	}
	c := *o
	c.Seniority.Revision = revision
	return &c
}

// takeRecords takes the records that differ.
func (m *merger) takeRecords(dirty map[string]struct{}, e *Edit) {
	objects := map[cluster.ID]map[string]store.Key{}
	policies := false
	for key := range dirty {
		m.problems.clear(key)
		kv, exists := m.records.Get([]byte(key))
		k, err := store.ParseKey(key)
		if err != nil {
			m.unusable(kv, exists)
			continue
		}
		if k.Cluster == "" {
			policies = m.takePolicy(k, kv, exists) || policies
			continue
		}
		id := cluster.ID(k.Cluster)
		p := m.peers[id]
		if p == nil {
			p = &peer{alive: map[string]struct{}{}, trust: map[string]trustRecord{}, slices: map[cluster.Ref][]string{}}
			m.peers[id] = p
		}
		switch k.Section {
		case store.SectionAlive:
			delete(p.alive, key)
			if exists && kv.Leased { // one that stays for ever says nothing
				p.alive[key] = struct{}{}
			}
		case store.SectionMeta:
			m.takeMeta(p, k, kv, exists)
		case store.SectionTrust:
			delete(p.trust, key)
			if exists {
				if c, err := record.Decode(kv); err != nil {
					m.problems.failed(key, err)
				} else {
					p.trust[key] = trustRecord{c.Trust, kv.CreateRevision}
				}
			}
		default:
			if objects[id] == nil {
				objects[id] = map[string]store.Key{}
			}
			objects[id][key] = k
		}
	}
	if policies {
		m.compile()
	}
	m.settleQuotas(objects)
	for id, p := range m.peers {
		if id == m.local {
			m.rerank(p, objects[id], e)
			continue
		}
		m.takeObjects(id, p, objects[id], e)
	}
}

// unusable notes a record whose key alone is wrong.
func (m *merger) unusable(kv store.KV, exists bool) {
	if _, err := record.Decode(kv); exists && err != nil {
		m.problems.failed(kv.Key, err)
	}
}

// takeMeta reads a cluster's Meta. One that can't be read counts as empty, in
// every process alike: the cluster's routes and exports stay in use.
func (m *merger) takeMeta(p *peer, k store.Key, kv store.KV, exists bool) {
	if _, err := record.Refs(k); err != nil {
		m.unusable(kv, exists)
		return
	}
	p.meta = nil
	if !exists {
		return
	}
	p.meta = &cluster.Meta{}
	if c, err := record.Decode(kv); err != nil {
		m.problems.failed(kv.Key, err)
	} else {
		p.meta = c.Meta
	}
}

// rerank gives the local objects behind these keys the rank of their records, and
// notes which are over the quota. What no source delivers is taken from its record.
func (m *merger) rerank(p *peer, keys map[string]store.Key, e *Edit) {
	for key, k := range keys {
		m.problems.clear(key)
		refs, err := record.Refs(k)
		if err != nil {
			continue
		}
		m.refuse(m.local, key, refs, p.over[key], e)
		if k.Section == store.SectionRuns || k.Section == store.SectionSecrets {
			var objects []*cluster.Object
			if kv, exists := m.records.Get([]byte(key)); exists {
				objects = m.decode(kv)
			}
			m.apply(m.local, refs, objects, e)
			continue
		}
		for _, ref := range refs {
			if o, ok := e.Get(m.local, ref); ok {
				// An object that is there can be put back.
				_ = e.Apply(Change{Cluster: m.local, Ref: ref, Object: ranked(o, m.rank(o))})
			}
		}
	}
}

// takeObjects brings the objects behind these keys up to date, or all of the
// cluster's when it joins or leaves.
func (m *merger) takeObjects(id cluster.ID, p *peer, keys map[string]store.Key, e *Edit) {
	if shown := p.meta != nil; shown != p.shown {
		p.shown = shown
		keys = m.allObjects(id, keys)
	}
	slices := map[cluster.Ref]struct{}{}
	for key, k := range keys {
		m.problems.clear(key)
		kv, exists := m.records.Get([]byte(key))
		refs, err := record.Refs(k)
		if err != nil {
			m.unusable(kv, exists)
			continue
		}
		sealed := k.Section == store.SectionSecrets
		if sealed && (k.Names[2] != string(m.local) || m.unseal == nil) {
			continue // for another cluster
		}
		over := ""
		if exists && p.shown {
			over = p.over[key]
		}
		m.refuse(id, key, refs, over, e)
		exists = exists && over == ""
		if k.Section == store.SectionEndpoints {
			p.claim(refs[0], key, exists)
			slices[refs[0]] = struct{}{}
			continue
		}
		var objects []*cluster.Object
		if exists && p.shown {
			objects = m.decode(kv)
		}
		if sealed {
			refs, objects = m.open(id, kv.Key, k, objects)
		}
		m.apply(id, refs, objects, e)
	}
	for ref := range slices {
		m.apply(id, []cluster.Ref{ref}, m.slice(p, ref), e)
	}
}

// open gives the Secret that a record holds, under its own name.
func (m *merger) open(id cluster.ID, key string, k store.Key, sealed []*cluster.Object) ([]cluster.Ref, []*cluster.Object) {
	ref := cluster.Ref{Kind: cluster.KindSecret, Namespace: k.Names[0], Name: k.Names[1]}
	refs := []cluster.Ref{ref}
	if len(sealed) == 0 {
		return refs, nil
	}
	s, err := m.unseal(id, ref.Namespace, ref.Name, sealed[0].Value.(*cluster.SealedSecret))
	if err != nil {
		m.problems.failed(key, &record.Error{Cluster: id, Key: key, Object: ref.String(), Err: err})
		return refs, nil
	}
	return refs, []*cluster.Object{{Ref: ref, Cluster: id, Value: s}}
}

func (m *merger) allObjects(id cluster.ID, keys map[string]store.Key) map[string]store.Key {
	if keys == nil {
		keys = map[string]store.Key{}
	}
	prefix, err := store.ClusterPrefix(string(id))
	if err != nil {
		return keys
	}
	m.records.Root().WalkPrefix([]byte(prefix), func(key []byte, _ store.KV) bool {
		if k, err := store.ParseKey(string(key)); err == nil && k.Section != store.SectionAlive && k.Section != store.SectionMeta && k.Section != store.SectionTrust {
			keys[string(key)] = k
		}
		return false
	})
	return keys
}

func (m *merger) decode(kv store.KV) []*cluster.Object {
	c, err := record.Decode(kv)
	if err != nil {
		m.problems.failed(kv.Key, err)
		return nil
	}
	return c.Objects
}

func (m *merger) apply(id cluster.ID, refs []cluster.Ref, objects []*cluster.Object, e *Edit) {
	for i, ref := range refs {
		c := Change{Cluster: id, Ref: ref}
		if i < len(objects) {
			c.Object = objects[i]
		}
		if err := e.Apply(c); err != nil { // a bug: record made what the Builder refuses
			m.problems.set(ref.String()+sep+string(id), cluster.Problem{Cluster: id, Object: ref.String(), Message: err.Error()})
		}
	}
}

// claim notes which keys stand for a slice. A slice that moves from one Service
// to another has two keys for a moment.
func (p *peer) claim(ref cluster.Ref, key string, exists bool) {
	claims := p.slices[ref]
	i, had := slices.BinarySearch(claims, key)
	switch {
	case exists && !had:
		claims = slices.Insert(claims, i, key)
	case !exists && had:
		claims = slices.Delete(claims, i, i+1)
	}
	if len(claims) == 0 {
		delete(p.slices, ref)
		return
	}
	p.slices[ref] = claims
}

// slice gives the newest of the records that claim to be the slice.
func (m *merger) slice(p *peer, ref cluster.Ref) (objects []*cluster.Object) {
	if !p.shown {
		return nil
	}
	newest := store.KV{}
	for _, key := range p.slices[ref] {
		if kv, ok := m.records.Get([]byte(key)); ok && kv.CreateRevision >= newest.CreateRevision {
			newest = kv
		}
	}
	for _, key := range p.slices[ref] {
		m.problems.clear(key)
		if key != newest.Key {
			m.problems.failed(key, &record.Error{Cluster: objectCluster(key), Key: key, Object: ref.String(),
				Err: fmt.Errorf("the same slice was published later as %s, which is used", newest.Key)})
		}
	}
	if newest.Key == "" {
		return nil
	}
	return m.decode(newest)
}

func objectCluster(key string) cluster.ID {
	k, _ := store.ParseKey(key)
	return cluster.ID(k.Cluster)
}
