package federation

import (
	"reflect"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/policy"
)

// SetPolicies replaces the administrators' policy; nil for none.
func (e *Edit) SetPolicies(p *policy.Set) { e.policies = p }

// Refuse notes that an object is over its cluster's quota, or no more if why is
// empty. It need not be there. Not for EndpointSlices, which are read by Service.
func (e *Edit) Refuse(id cluster.ID, ref cluster.Ref, why string) {
	key := refKey(id, ref)
	old, had := e.refusals.Get(key)
	switch {
	case old.Why == why || !storable(ref, id):
		return
	case why != "":
		e.refusals.Insert(key, Refusal{Ref: ref, Cluster: id, Why: why})
	case had:
		e.refusals.Delete(key)
	}
	e.changed[KeyNamed(ref.Kind, ref.Namespace, ref.Name)] = struct{}{}
}

// settleRules works out what the policy says of each cluster, where it or the
// clusters differ, and notes for which objects that makes a difference.
func (e *Edit) settleRules() map[cluster.ID]*policy.Rules {
	old := e.b.cur.rules
	if e.policies == e.b.cur.policies && (e.policies == nil || !e.changed.Has(KeyClusters)) {
		return old
	}
	rules, differ := map[cluster.ID]*policy.Rules{}, map[cluster.ID]bool{}
	for _, c := range e.clusters {
		r := e.policies.For(c.Labels())
		if r != nil {
			rules[c.ID] = r
		}
		if !reflect.DeepEqual(r, old[c.ID]) {
			differ[c.ID] = true
		}
	}
	if len(differ) == 0 {
		return rules
	}
	for _, kind := range PermittedKinds {
		verb := VerbOf(kind)
		e.objects.Root().WalkPrefix([]byte(string(kind)+sep), func(_ []byte, o *cluster.Object) bool {
			if differ[o.Cluster] && rules[o.Cluster].Refuses(verb, o.Namespace) != old[o.Cluster].Refuses(verb, o.Namespace) {
				e.changed[KeyNamed(kind, o.Namespace, o.Name)] = struct{}{}
			}
			return false
		})
	}
	return rules
}

// PermittedKinds are the kinds of objects for which Permits is asked.
var PermittedKinds = append([]cluster.Kind{cluster.KindServiceExport, cluster.KindGateway, cluster.KindListenerSet}, cluster.RouteKinds...)

// VerbOf is what an object of one of the PermittedKinds does.
func VerbOf(kind cluster.Kind) policy.Verb {
	if kind == cluster.KindServiceExport {
		return policy.Export
	}
	return policy.Route
}
