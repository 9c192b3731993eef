package query

import (
	"context"
	"reflect"
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// ListRoutes implements causeway.v1.Federation.
func (s service) ListRoutes(ctx context.Context, req *causewayv1.ListRoutesRequest) (*causewayv1.ListRoutesResponse, error) {
	if err := checkFilter(req.GetFilter()); err != nil {
		return nil, err
	}
	r, err := s.read(ctx, req.GetRevision(), need{all: true})
	if err != nil {
		return nil, err
	}
	seal := sealOf("routes", req.GetFilter(), req.GetRevision(), map[bool]string{true: "all"}[req.GetAllJudgements()])
	out, next, err := paginate(req.GetPage(), seal, s.routeRows(r, req.GetFilter(), req.GetAllJudgements()))
	if err != nil {
		return nil, err
	}
	return &causewayv1.ListRoutesResponse{Routes: out, Revision: r.revision, NextPageToken: next}, nil
}

func (s *Server) routeRows(r *reading, f *causewayv1.Filter, all bool) rows[*causewayv1.Route] {
	var list []row[*causewayv1.Route]
	for _, kind := range cluster.RouteKinds {
		r.objects(kind, func(v View, o *cluster.Object) {
			if !matches(f.GetCluster(), string(o.Cluster)) || !matches(f.GetNamespace(), o.Namespace) || !matches(f.GetName(), o.Name) ||
				!r.scope.Sees(o.Cluster, o.Namespace) {
				return
			}
			list = append(list, row[*causewayv1.Route]{key(string(o.Kind), o.Namespace, o.Name, string(o.Cluster)),
				func() *causewayv1.Route { return s.route(r, v, o, all) }})
		})
	}
	return sorted(list)
}

func (s *Server) route(r *reading, home View, o *cluster.Object, all bool) *causewayv1.Route {
	out := &causewayv1.Route{
		Kind: string(o.Kind), Namespace: o.Namespace, Name: o.Name, Cluster: string(o.Cluster),
		CreatedRevision: o.Seniority.Revision, Created: timestamp(o.Seniority.Created), Origin: o.Origin,
	}
	for _, name := range federation.RouteHostnames(o) {
		out.Hostnames = append(out.Hostnames, string(name))
	}
	// The home cluster judges first; where it is not served here, the view that
	// stands in for it does.
	rep, judged := report(home, o.Ref, o.Cluster)
	if judged {
		out.Parents = parents(rep, home.Cluster, o.Namespace)
		out.Conditions = conditions(rep.Conditions)
	}
	// What nobody here judges, somebody else's Gateway say, is shown all the same.
	for _, p := range federation.ParentRefs(o) {
		if !judged || !slices.ContainsFunc(rep.Parents, func(r resolve.ParentReport) bool { return reflect.DeepEqual(r.ParentRef, p) }) {
			out.Parents = append(out.Parents, routeParent(p, o.Namespace))
		}
	}
	id := resolve.RouteID{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name, Cluster: o.Cluster}
	uses := map[use][]string{}
	for _, v := range r.served() {
		if !r.scope.Sees(v.Cluster, o.Namespace) {
			continue
		}
		if all && v.Result != home.Result {
			if rep, ok := report(v, o.Ref, o.Cluster); ok {
				out.Parents = append(out.Parents, parents(rep, v.Cluster, o.Namespace)...)
			}
		}
		for _, u := range s.uses.of(v.Result)[id] {
			uses[u] = append(uses[u], string(v.Cluster))
		}
	}
	for u, clusters := range uses {
		out.Uses = append(out.Uses, &causewayv1.RouteUse{
			Role: u.role, Target: objectRef(u.kind, u.namespace, u.name), Port: u.port, ConsumerNamespace: u.consumer, TargetCluster: string(u.target), Clusters: clusters,
		})
	}
	slices.SortFunc(out.Uses, compareUses)
	return out
}

func parents(rep *resolve.ObjectReport, judge cluster.ID, namespace string) []*causewayv1.RouteParent {
	var out []*causewayv1.RouteParent
	for _, p := range rep.Parents {
		parent := routeParent(p.ParentRef, namespace)
		parent.Conditions, parent.JudgedBy = conditions(p.Conditions), string(judge)
		out = append(out, parent)
	}
	return out
}

// routeParent shows a parentRef of a route of the namespace.
func routeParent(ref gatewayv1.ParentReference, namespace string) *causewayv1.RouteParent {
	kind := string(federation.ParentKind(ref))
	if kind == "" && ref.Kind != nil {
		kind = string(*ref.Kind) // none of ours; shown as it was written
	}
	if ref.Namespace != nil {
		namespace = string(*ref.Namespace)
	}
	out := &causewayv1.RouteParent{Parent: objectRef(cluster.Kind(kind), namespace, string(ref.Name))}
	if ref.SectionName != nil {
		out.SectionName = string(*ref.SectionName)
	}
	if ref.Port != nil {
		out.Port = *ref.Port
	}
	return out
}
