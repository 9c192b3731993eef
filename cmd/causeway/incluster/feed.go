package incluster

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/kubernetes"
	"github.com/causeway-mesh/causeway/cluster/provision"
	"github.com/causeway-mesh/causeway/cluster/status"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// feed hands what the resolver found out to who writes it to the API server, and to
// the source what the resolver needs.
type feed struct {
	local  cluster.ID
	judged func([]cluster.Ref)
	need   func([]cluster.Ref)
	// standing tells how an import stands; false: it is none of ours, or nobody knows yet.
	standing func(namespace, name string) (provision.Standing, bool)

	latest atomic.Pointer[resolve.Result]
	mu     sync.Mutex // one follow at a time
	needed []cluster.Ref
}

// follow takes the next Result. It never blocks.
func (f *feed) follow(res *resolve.Result, delta resolve.Delta) {
	f.mu.Lock()
	defer f.mu.Unlock()
	first := f.latest.Swap(res) == nil
	var refs []cluster.Ref
	if first {
		res.Reports.Root().Walk(func(_ []byte, rep *resolve.ObjectReport) bool {
			if rep.Cluster == f.local {
				refs = append(refs, rep.Ref)
			}
			return false
		})
	}
	for _, k := range delta.Reports {
		if ref, ok := parseReport(k, f.local); ok {
			refs = append(refs, ref)
		}
	}
	f.judged(refs)
	if first || len(delta.Gateways) > 0 {
		if needed := foreignReferences(res); !slices.Equal(needed, f.needed) {
			f.needed = needed
			f.need(needed)
		}
	}
}

// parseReport reads ObjectReport.Key; false for other clusters' objects.
func parseReport(key string, local cluster.ID) (cluster.Ref, bool) {
	name, id, ok := strings.Cut(key, "@")
	if !ok || cluster.ID(id) != local {
		return cluster.Ref{}, false
	}
	switch parts := strings.Split(name, "/"); len(parts) {
	case 2:
		return cluster.Ref{Kind: cluster.Kind(parts[0]), Name: parts[1]}, true
	case 3:
		return cluster.Ref{Kind: cluster.Kind(parts[0]), Namespace: parts[1], Name: parts[2]}, true
	}
	return cluster.Ref{}, false
}

// foreignReferences lists the Secrets and ConfigMaps of this cluster to which Gateways
// that other clusters wrote for all, and ListenerSets of others, refer.
func foreignReferences(res *resolve.Result) []cluster.Ref {
	seen := map[cluster.Ref]bool{}
	var out []cluster.Ref
	add := func(o *cluster.Object) {
		for _, r := range kubernetes.References(o) {
			if !seen[r] {
				seen[r] = true
				out = append(out, r)
			}
		}
	}
	res.Gateways.Root().Walk(func(_ []byte, g *resolve.Gateway) bool {
		if o, ok := res.Snapshot.Get(g.Home, cluster.KindGateway, g.Namespace, g.Name); ok && g.Home != res.Local {
			add(o)
		}
		for _, o := range res.Snapshot.ListenerSetsOf(g.Namespace, g.Name) {
			if o.Cluster != res.Local {
				add(o)
			}
		}
		return false
	})
	slices.SortFunc(out, func(a, b cluster.Ref) int { return strings.Compare(a.String(), b.String()) })
	return out
}

// judge implements status.Config.Judge.
func (f *feed) judge(ref cluster.Ref) (*status.Verdict, bool) {
	res := f.latest.Load()
	if res == nil {
		return nil, false
	}
	if ref.Kind == cluster.KindServiceImport {
		st, ok := f.standing(ref.Namespace, ref.Name)
		if !ok {
			return nil, true
		}
		return &status.Verdict{Conditions: []metav1.Condition{st.Ready}, Clusters: st.Clusters, EndpointSlices: st.EndpointSlices}, true
	}
	return verdict(res, ref), true
}

// verdict is what a Result says of an object of its own cluster; nil: nothing. It is pure.
func verdict(res *resolve.Result, ref cluster.Ref) *status.Verdict {
	rep, ok := res.Reports.Get([]byte(ref.String() + "@" + string(res.Local)))
	if !ok {
		return nil
	}
	o, ok := res.Snapshot.Get(res.Local, ref.Kind, ref.Namespace, ref.Name)
	if !ok {
		return nil
	}
	m, ok := o.Value.(metav1.Object)
	if !ok {
		return nil
	}
	v := &status.Verdict{Generation: m.GetGeneration(), Conditions: rep.Conditions, AttachedListenerSets: rep.AttachedListenerSets}
	for _, p := range slices.Concat(rep.Parents, rep.Ancestors) {
		v.Parents = append(v.Parents, status.Parent{Ref: p.ParentRef, Conditions: p.Conditions})
	}
	for _, l := range rep.Listeners {
		v.Listeners = append(v.Listeners, status.Listener{Name: l.Name, AttachedRoutes: l.AttachedRoutes, SupportedKinds: slices.Clone[[]gatewayv1.RouteGroupKind](l.SupportedKinds), Conditions: l.Conditions})
	}
	return v
}
