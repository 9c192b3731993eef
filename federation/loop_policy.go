package federation

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/policy"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/store"
)

// usage is what quotas bound.
type usage struct{ objects, bytes int64 }

// judgement is what the policy says of a cluster, and what that was judged by.
type judgement struct {
	set   *policy.Set
	meta  *cluster.Meta
	rules *policy.Rules
}

// takePolicy reads what administrators say, and tells whether it is about what
// clusters may. What can't be read counts as not said, in every process alike.
func (m *merger) takePolicy(k store.Key, kv store.KV, exists bool) (rules bool) {
	name, rules := record.RulesOf(k)
	if rules {
		delete(m.policies, name)
	} else if id, err := record.DrainOf(k); err == nil {
		delete(m.drains, id)
	}
	if !exists {
		return rules
	}
	p, err := record.DecodePolicy(kv)
	var e *record.Error
	switch {
	case errors.As(err, &e):
		m.problems.set(kv.Key, e.Problem()) // the policy is nobody's own: all report it
	case err == nil && p.Rules != nil:
		m.policies[name] = *p.Rules
	case err == nil:
		m.drains[p.Cluster] = *p.Drain
	}
	return rules
}

// compile makes one Set of all policies.
func (m *merger) compile() {
	m.set = nil
	if len(m.policies) == 0 {
		return
	}
	set, err := policy.Compile(slices.Collect(maps.Values(m.policies)))
	if err != nil { // a bug: record checks what it decodes
		m.problems.set("policies", cluster.Problem{Where: store.RulesPrefix, Message: err.Error()})
		return
	}
	m.set = set
}

// count notes that a record came (by 1) or went (by -1). The cluster's own state,
// its liveness and its roots are what it is a member with, and free.
func (m *merger) count(kv store.KV, exists bool, by int64) {
	tail, ok := strings.CutPrefix(kv.Key, store.ClustersPrefix)
	if !exists || !ok {
		return
	}
	id, tail, _ := strings.Cut(tail, "/")
	section, _, _ := strings.Cut(tail, "/")
	if free(store.Section(section)) {
		return
	}
	u := m.used[cluster.ID(id)]
	u.objects += by
	u.bytes += by * size(kv)
	if u == (usage{}) {
		delete(m.used, cluster.ID(id))
		return
	}
	m.used[cluster.ID(id)] = u
}

func free(s store.Section) bool {
	return s == store.SectionMeta || s == store.SectionAlive || s == store.SectionTrust
}

func size(kv store.KV) int64 { return int64(len(kv.Key) + len(kv.Value)) }

// settleQuotas finds out which records are over their cluster's quota, where that
// may have changed, and adds those for which it did to what is to be taken. It
// costs something only where a cluster is over its quota.
func (m *merger) settleQuotas(objects map[cluster.ID]map[string]store.Key) {
	for id, p := range m.peers {
		meta := p.meta
		if id == m.local {
			local := m.localMeta
			meta = &local
		}
		same := p.judged.set == m.set && (p.judged.meta == nil) == (meta == nil) && (meta == nil || p.judged.meta.Equal(*meta))
		if !same {
			p.judged = judgement{set: m.set, meta: meta}
			if meta != nil {
				p.judged.rules = m.set.For(Cluster{ID: id, Meta: *meta}.Labels())
			}
		} else if len(objects[id]) == 0 {
			continue
		}
		over := m.overQuota(id, p.judged.rules)
		mark := func(key string) {
			k, err := store.ParseKey(key)
			if err != nil || free(k.Section) {
				return
			}
			if objects[id] == nil {
				objects[id] = map[string]store.Key{}
			}
			objects[id][key] = k
		}
		for key, why := range p.over {
			if over[key] != why {
				mark(key)
			}
		}
		for key := range over {
			if p.over[key] == "" {
				mark(key)
			}
		}
		p.over = over
	}
}

// overQuota gives the records of a cluster that are over its quota, and why. In the
// order of seniority each record is used that still fits; those of one revision in
// the order of subjectOf. How the cluster runs others' Gateways comes after all else:
// who writes a Gateway for all takes nothing away from what another exports.
func (m *merger) overQuota(id cluster.ID, rules *policy.Rules) map[string]string {
	u := m.used[id]
	if rules == nil || (rules.Objects == nil || u.objects <= rules.Objects.Most) && (rules.Bytes == nil || u.bytes <= rules.Bytes.Most) {
		return nil
	}
	type item struct {
		key, subject string
		turn         int // a run's comes after all others'
		created      int64
		bytes        int64
	}
	items := make([]item, 0, u.objects)
	m.records.Root().WalkPrefix([]byte(store.ClustersPrefix+string(id)+"/"), func(key []byte, kv store.KV) bool {
		tail := key[len(store.ClustersPrefix)+len(id)+1:]
		section, _, _ := strings.Cut(string(tail), "/")
		if free(store.Section(section)) {
			return false
		}
		i := item{key: kv.Key, subject: subjectOf(kv.Key), created: kv.CreateRevision, bytes: size(kv)}
		if store.Section(section) == store.SectionRuns {
			i.turn = 1
		}
		items = append(items, i)
		return false
	})
	slices.SortFunc(items, func(a, b item) int {
		return cmp.Or(cmp.Compare(a.turn, b.turn), cmp.Compare(a.created, b.created), cmp.Compare(a.subject, b.subject), cmp.Compare(a.key, b.key))
	})
	over := map[string]string{}
	var have usage
	for _, i := range items {
		switch {
		case rules.Objects != nil && have.objects+1 > rules.Objects.Most:
			over[i.key] = rules.Quota(true)
		case rules.Bytes != nil && have.bytes+i.bytes > rules.Bytes.Most:
			over[i.key] = rules.Quota(false)
		default:
			have.objects++
			have.bytes += i.bytes
		}
	}
	return over
}

// subjectOf orders the records of one revision: by namespace and name, a Service
// before its EndpointSlices, so that what is used of them is whole.
func subjectOf(key string) string {
	k, err := store.ParseKey(key)
	if err != nil {
		return "~" // nobody uses it: after all names
	}
	switch n := k.Names; {
	case k.Section == store.SectionEndpoints && len(n) == 3:
		return n[0] + "/" + n[1] + "/~" + n[2]
	case len(n) == 3: // the kind comes first
		return n[1] + "/" + n[2]
	default:
		return strings.Join(n, "/")
	}
}

// refuse notes whether a record is over the quota: why is empty if not.
func (m *merger) refuse(id cluster.ID, key string, refs []cluster.Ref, why string, e *Edit) {
	for _, ref := range refs {
		if ref.Kind != cluster.KindEndpointSlice {
			e.Refuse(id, ref, why)
		}
	}
	if why != "" && len(refs) > 0 {
		m.problems.set(key, cluster.Problem{Cluster: id, Where: key, Object: refs[len(refs)-1].String(), Message: "is not used in other clusters: " + why})
	}
}
