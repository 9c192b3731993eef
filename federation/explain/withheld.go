package explain

import (
	"cmp"
	"maps"
	"slices"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// Withheld is an object that the administrators' policy keeps from other clusters
// than its own, and that would have a part in the answer.
type Withheld struct {
	cluster.Ref
	Cluster cluster.ID
	Why     string
}

// withhold notes what policy keeps out of a service of the clusterset: exports, and
// other clusters' routes for it.
func (e *explainer) withhold(namespace, name string) {
	k := resolve.FrontendKey{Kind: cluster.KindServiceImport, Namespace: namespace, Name: name}
	if e.asked[k] {
		return
	}
	e.asked[k] = true
	snap := e.res.Snapshot
	for _, r := range snap.Refusals(cluster.KindServiceExport, namespace, name) {
		e.withheld[Withheld{r.Ref, r.Cluster, r.Why}] = true
	}
	note := func(list []*cluster.Object) {
		for _, o := range list {
			if why := resolve.Refused(snap, o); why != "" {
				e.withheld[Withheld{o.Ref, o.Cluster, why}] = true
			}
		}
	}
	note(snap.Named(cluster.KindServiceExport, namespace, name))
	for _, parent := range []cluster.Kind{cluster.KindService, cluster.KindServiceImport} {
		note(slices.DeleteFunc(snap.RoutesOf(parent, namespace, name), func(o *cluster.Object) bool { return o.Cluster == e.res.Local }))
	}
}

func (e *explainer) sortedWithheld() []Withheld {
	return slices.SortedFunc(maps.Keys(e.withheld), func(a, b Withheld) int {
		return cmp.Or(cmp.Compare(a.Ref.String(), b.Ref.String()), cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Why, b.Why))
	})
}
