package query

import (
	"context"
	"strings"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/cluster"
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
	out, next, err := paginate(req.GetPage(), sealOf("problems", req.GetFilter(), 0), s.problemRows(scope, req.GetFilter()))
	if err != nil {
		return nil, err
	}
	answer := &causewayv1.ListProblemsResponse{Problems: out, NextPageToken: next}
	// A cluster can have problems before anything is resolved.
	if r, err := newReading(scope, s.cfg.Views()); err == nil {
		answer.Revision = r.revision
	}
	return answer, nil
}

func (s *Server) problemRows(scope Scope, f *causewayv1.Filter) rows[*causewayv1.Problem] {
	var list []row[*causewayv1.Problem]
	seen := map[string]bool{}
	for _, p := range s.cfg.Problems() {
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
