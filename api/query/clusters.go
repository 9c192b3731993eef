package query

import (
	"context"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/cluster"
)

// ListClusters implements causeway.v1.Federation.
func (s service) ListClusters(ctx context.Context, req *causewayv1.ListClustersRequest) (*causewayv1.ListClustersResponse, error) {
	if err := checkFilter(req.GetFilter()); err != nil {
		return nil, err
	}
	r, err := s.read(ctx, req.GetRevision(), need{})
	if err != nil {
		return nil, err
	}
	out, next, err := paginate(req.GetPage(), sealOf("clusters", req.GetFilter(), req.GetRevision()),
		s.clusterRows(r, req.GetFilter(), req.GetRevision() == 0))
	if err != nil {
		return nil, err
	}
	return &causewayv1.ListClustersResponse{Clusters: out, Revision: r.revision, NextPageToken: next}, nil
}

// clusterRows lists the clusters. Proxies and problems are those of now, so the
// past has none.
func (s *Server) clusterRows(r *reading, f *causewayv1.Filter, now bool) rows[*causewayv1.Cluster] {
	counts := map[cluster.ID]*causewayv1.Cluster{}
	for _, id := range r.clusters {
		counts[id] = &causewayv1.Cluster{}
	}
	count := func(kind cluster.Kind, add func(*causewayv1.Cluster)) {
		r.objects(kind, func(_ View, o *cluster.Object) {
			if c := counts[o.Cluster]; c != nil && r.scope.Sees(o.Cluster, o.Namespace) {
				add(c)
			}
		})
	}
	count(cluster.KindServiceExport, func(c *causewayv1.Cluster) { c.Exports++ })
	for _, kind := range cluster.RouteKinds {
		count(kind, func(c *causewayv1.Cluster) { c.Routes++ })
	}
	if now {
		for _, p := range s.cfg.Proxies() {
			if c := counts[p.Cluster]; c != nil && r.scope.Sees(p.Cluster, p.Namespace) {
				c.Proxies++
				if p.Connected {
					c.ProxiesConnected++
				}
			}
		}
		for _, p := range s.problems(r) {
			if c := counts[p.Cluster]; c != nil && r.scope.Sees(p.Cluster, problemNamespace(p)) {
				c.Problems++
			}
		}
	}
	var list []row[*causewayv1.Cluster]
	for _, id := range r.clusters {
		if !matches(f.GetCluster(), string(id)) || !matches(f.GetName(), string(id)) || !r.scope.Sees(id, "") {
			continue
		}
		list = append(list, row[*causewayv1.Cluster]{string(id), func() *causewayv1.Cluster { return r.cluster(id, counts[id]) }})
	}
	return sorted(list)
}

// cluster completes a row that holds the counts.
func (r *reading) cluster(id cluster.ID, out *causewayv1.Cluster) *causewayv1.Cluster {
	out.Name = string(id)
	if v, ok := r.views[id]; ok {
		out.Revision = v.Result.Snapshot.Revision
	}
	c, ok := r.ref.Result.Snapshot.Cluster(id)
	if !ok {
		// Not published yet: what its own view says, if it has come so far.
		if c, ok = r.owner(id).Result.Snapshot.Cluster(id); !ok {
			return out
		}
	}
	out.Region, out.Zone, out.Network, out.TrustDomain = c.Meta.Region, c.Meta.Zone, c.Meta.Network, c.Meta.TrustDomain
	out.Crossing = c.Meta.Crossing
	out.Liveness, out.LivenessReason = liveness(c.Health.Liveness), c.Health.Reason
	out.Drained, out.DrainTarget = int32(c.Drained), int32(c.DrainTarget)
	return out
}
