package query

import (
	"context"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// ListProblems implements causeway.v1.Federation.
func (s service) ListProblems(ctx context.Context, req *causewayv1.ListProblemsRequest) (*causewayv1.ListProblemsResponse, error) {
	if err := checkFilter(req.GetFilter()); err != nil {
		return nil, err
	}
	scope, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	r, err := newReading(scope, s.cfg.Views())
	if err != nil {
		r = nil // a cluster can have problems before anything is resolved
	}
	out, next, err := paginate(req.GetPage(), sealOf("problems", req.GetFilter(), 0), s.problemRows(r, scope, req.GetFilter()))
	if err != nil {
		return nil, err
	}
	answer := &causewayv1.ListProblemsResponse{Problems: out, NextPageToken: next}
	if r != nil {
		answer.Revision = r.revision
	}
	return answer, nil
}

// problems are those of the input and, where something is resolved, of what it
// means: what of the objects that have no list of their own can't be obeyed.
func (s *Server) problems(r *reading) []cluster.Problem {
	list := slices.Clone(s.cfg.Problems())
	if r == nil {
		return list
	}
	list = append(list, refusedByPolicy(r)...)
	said := map[string]bool{} // by the home
	for _, home := range []bool{true, false} {
		for _, v := range r.served() {
			for _, kind := range []cluster.Kind{cluster.KindGatewayClass, cluster.KindGateway, cluster.KindListenerSet, cluster.KindBackendTLSPolicy} {
				for _, o := range v.Result.Snapshot.OfKind(kind) {
					if (o.Cluster == v.Cluster) != home {
						continue
					}
					rep, ok := report(v, o.Ref, o.Cluster)
					if !ok {
						continue
					}
					for _, text := range objections(rep) {
						k := key(string(o.Cluster), o.Ref.String(), text)
						if home {
							said[k] = true
						} else if said[k] {
							continue
						}
						list = append(list, cluster.Problem{Cluster: v.Cluster, Where: o.Origin, Object: o.Ref.String(), Message: text})
					}
				}
			}
		}
	}
	return list
}

// refusedByPolicy tells what the administrators' policy keeps from other clusters;
// what is over a quota stands in the list of whoever follows the store.
func refusedByPolicy(r *reading) (list []cluster.Problem) {
	for _, kind := range federation.PermittedKinds {
		r.objects(kind, func(v View, o *cluster.Object) {
			snap := v.Result.Snapshot
			if !snap.Restricted() || slices.ContainsFunc(snap.Refusals(o.Kind, o.Namespace, o.Name), func(x federation.Refusal) bool { return x.Cluster == o.Cluster }) {
				return
			}
			if why := resolve.Refused(snap, o); why != "" {
				list = append(list, cluster.Problem{Cluster: o.Cluster, Where: o.Origin, Object: o.Ref.String(), Message: "is kept from other clusters: " + why})
			}
		})
	}
	return list
}

// objections are the conditions of a report that say that something is refused,
// each told once: what sums up the listeners is left out.
func objections(rep *resolve.ObjectReport) []string {
	var out []string
	add := func(of string, list []metav1.Condition) {
		for _, c := range list {
			if c.Status != metav1.ConditionFalse || (c.Type != string(gatewayv1.GatewayConditionAccepted) && c.Type != string(gatewayv1.ListenerConditionResolvedRefs)) ||
				c.Reason == string(gatewayv1.GatewayReasonListenersNotValid) || c.Reason == string(gatewayv1.GatewayReasonListenersNotResolved) {
				continue
			}
			text := of + c.Type + "=False, " + c.Reason
			if c.Message != "" {
				text += ": " + c.Message
			}
			if !slices.Contains(out, text) {
				out = append(out, text)
			}
		}
	}
	add("", rep.Conditions)
	for _, l := range rep.Listeners {
		add("listener "+l.Name+": ", l.Conditions)
	}
	for _, a := range rep.Ancestors {
		add("", a.Conditions)
	}
	return out
}

// problemRows are the problems that a caller may see; r is nil as long as nothing
// is resolved.
func (s *Server) problemRows(r *reading, scope Scope, f *causewayv1.Filter) rows[*causewayv1.Problem] {
	var list []row[*causewayv1.Problem]
	seen := map[string]bool{}
	for _, p := range s.problems(r) {
		_, namespace, name := problemObject(p)
		k := key(string(p.Cluster), p.Where, p.Object, p.Message)
		if !matches(f.GetCluster(), string(p.Cluster)) || !matches(f.GetNamespace(), namespace) || !matches(f.GetName(), name) ||
			!scope.Sees(p.Cluster, problemNamespace(p)) || seen[k] {
			continue
		}
		seen[k] = true
		list = append(list, row[*causewayv1.Problem]{k, func() *causewayv1.Problem {
			return &causewayv1.Problem{Cluster: string(p.Cluster), Where: p.Where, Object: p.Object, Message: p.Message}
		}})
	}
	return sorted(list)
}

// problemObject takes Ref.String() apart; what can't be read is empty.
func problemObject(p cluster.Problem) (kind, namespace, name string) {
	parts := strings.Split(p.Object, "/")
	switch len(parts) {
	case 2:
		return parts[0], "", parts[1]
	case 3:
		return parts[0], parts[1], parts[2]
	}
	return "", "", ""
}

// problemNamespace is the namespace that a caller must see to be shown the
// problem. What names no object may be about any, so it stands for all.
func problemNamespace(p cluster.Problem) string {
	if _, namespace, _ := problemObject(p); namespace != "" {
		return namespace
	}
	return "*"
}
