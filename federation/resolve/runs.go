package resolve

import (
	"cmp"
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
)

// GatewayRuns are the clusters that are to run a Gateway of class causeway-clusterset, and
// what each of them says of it.
type GatewayRuns struct {
	Namespace, Name string
	Home            cluster.ID // where it was written
	Generation      int64
	Clusters        []ClusterRun // sorted by cluster
}

// ClusterRun is one cluster that is to run a Gateway.
type ClusterRun struct {
	Cluster  cluster.ID
	Liveness federation.Liveness
	// Run is what the cluster said last, of this Gateway in whatever generation; nil: nothing.
	Run *cluster.GatewayRun
}

// RunsKey is the key of a Gateway in Result.Runs.
func RunsKey(namespace, name string, home cluster.ID) string {
	return reportKey(cluster.Ref{Kind: cluster.KindGateway, Namespace: namespace, Name: name}, home)
}

// Key is RunsKey's.
func (g *GatewayRuns) Key() string { return RunsKey(g.Namespace, g.Name, g.Home) }

// In finds a cluster among those that are to run the Gateway.
func (g *GatewayRuns) In(id cluster.ID) (ClusterRun, bool) {
	i, ok := slices.BinarySearchFunc(g.Clusters, id, func(c ClusterRun, id cluster.ID) int { return cmp.Compare(c.Cluster, id) })
	if !ok {
		return ClusterRun{}, false
	}
	return g.Clusters[i], true
}

// runsUnit finds out which clusters are to run the Gateways of a name that cross, each by
// the copy that it follows. It reads no more than the Gateways, the clusters and what
// these say: neither routes nor endpoints.
func runsUnit(r *reader, ns, name string) output {
	copies := r.named(cluster.KindGateway, ns, name)
	if len(copies) == 0 {
		return output{gone: true}
	}
	by := map[*cluster.Object]*GatewayRuns{}
	for _, o := range copies {
		if v, ok := o.Value.(*gatewayv1.Gateway); ok && r.crosses(o) {
			by[o] = &GatewayRuns{Namespace: ns, Name: name, Home: o.Cluster, Generation: v.Generation}
		}
	}
	if len(by) == 0 {
		return output{}
	}
	said := map[cluster.ID]*cluster.GatewayRun{}
	for _, o := range r.named(cluster.KindGatewayRun, ns, name) {
		said[o.Cluster], _ = o.Value.(*cluster.GatewayRun)
	}
	for _, c := range r.clusters() {
		o := r.follow(c.ID, copies)
		g := by[o]
		if g == nil {
			continue
		}
		if ok, err := r.runsIn(c.ID, o); err != nil || !ok {
			continue
		}
		x := ClusterRun{Cluster: c.ID, Liveness: c.Health.Liveness}
		if run := said[c.ID]; run != nil && run.Home == g.Home {
			x.Run = run
		}
		g.Clusters = append(g.Clusters, x)
	}
	var out output
	for _, o := range copies {
		if g := by[o]; g != nil {
			out.runs = append(out.runs, g)
		}
	}
	return out
}
