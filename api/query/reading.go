package query

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// reading is what one call reads: the Views as they were at its beginning, so
// that all rows of an answer fit together.
type reading struct {
	scope Scope
	views map[cluster.ID]View // with a Result; the hub's is under ""
	// ref shows the clusterset as a whole: the hub's view, or else the one that
	// has come furthest.
	ref      View
	revision int64 // that all views include in full
	clusters []cluster.ID
}

// need says which Views a call reads. It matters in the past alone, where each
// has to be worked out.
type need struct {
	all bool       // the hub's and every cluster's
	one cluster.ID // the hub's and this cluster's
}

// read takes the newest Views, or those of an older revision.
func (s *Server) read(ctx context.Context, revision int64, n need) (*reading, error) {
	scope, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	if revision < 0 {
		return nil, invalidf("revision must not be negative; 0 is the newest")
	}
	if revision == 0 {
		return newReading(scope, s.cfg.Views())
	}
	if s.cfg.History == nil {
		return nil, errNoHistory
	}
	list, err := s.past.views(ctx, s.cfg.History, revision, n)
	if err != nil {
		return nil, err
	}
	r, err := newReading(scope, list)
	if err != nil {
		return nil, err
	}
	r.revision = revision
	return r, nil
}

func newReading(scope Scope, list []View) (*reading, error) {
	r := &reading{scope: scope, views: map[cluster.ID]View{}}
	known := map[cluster.ID]bool{}
	for _, v := range list {
		if v.Cluster != "" {
			known[v.Cluster] = true
		}
		if v.Result == nil {
			continue
		}
		r.views[v.Cluster] = v
		rev := v.Result.Snapshot.Revision
		if r.ref.Result == nil {
			r.ref, r.revision = v, rev
		}
		if r.ref.Cluster != "" && (v.Cluster == "" || rev > r.ref.Result.Snapshot.Revision) {
			r.ref = v
		}
		r.revision = min(r.revision, rev)
	}
	if r.ref.Result == nil {
		return nil, errNotYet
	}
	for _, c := range r.ref.Result.Snapshot.Clusters() {
		known[c.ID] = true
	}
	r.clusters = sortedKeys(known)
	return r, nil
}

// owner is the View that knows a cluster's own objects best: its own, where
// what was not published is known too, or else the reference.
func (r *reading) owner(id cluster.ID) View {
	if v, ok := r.views[id]; ok {
		return v
	}
	return r.ref
}

// served lists the Views of clusters, sorted, without the hub's.
func (r *reading) served() []View {
	var out []View
	for _, id := range sortedKeys(r.views) {
		if id != "" {
			out = append(out, r.views[id])
		}
	}
	return out
}

// view finds the View of a cluster that this server serves.
func (r *reading) view(id string) (View, error) {
	if v, ok := r.views[cluster.ID(id)]; ok && id != "" && r.scope.Sees(v.Cluster, "") {
		return v, nil
	}
	var names []string
	for _, v := range r.served() {
		if r.scope.Sees(v.Cluster, "") {
			names = append(names, string(v.Cluster))
		}
	}
	if len(names) == 0 {
		return View{}, notFoundf("this server runs no cluster: ask an agent of cluster %.100q", id)
	}
	return View{}, notFoundf("this server has no view from cluster %.100q: it has those of %s", id, strings.Join(names, ", "))
}

// objects calls f for every cluster's objects of a kind, each from the View of
// its owner.
func (r *reading) objects(kind cluster.Kind, f func(View, *cluster.Object)) {
	for _, id := range sortedKeys(r.views) {
		v := r.views[id]
		for _, o := range v.Result.Snapshot.OfKind(kind) {
			if r.owner(o.Cluster).Result == v.Result {
				f(v, o)
			}
		}
	}
}

// report is what a View says of one copy of an object.
func report(v View, ref cluster.Ref, home cluster.ID) (*resolve.ObjectReport, bool) {
	return v.Result.Report(ref, home)
}

func liveness(l federation.Liveness) causewayv1.Liveness {
	switch l {
	case federation.Alive:
		return causewayv1.Liveness_LIVENESS_ALIVE
	case federation.Suspect:
		return causewayv1.Liveness_LIVENESS_SUSPECT
	case federation.Dead:
		return causewayv1.Liveness_LIVENESS_DEAD
	}
	return causewayv1.Liveness_LIVENESS_UNSPECIFIED
}

func conditions(list []metav1.Condition) []*causewayv1.Condition {
	var out []*causewayv1.Condition
	for _, c := range list {
		out = append(out, &causewayv1.Condition{Type: c.Type, Status: string(c.Status), Reason: c.Reason, Message: c.Message})
	}
	slices.SortStableFunc(out, func(a, b *causewayv1.Condition) int { return strings.Compare(a.Type, b.Type) })
	return out
}

// timestamp gives nil for times that aren't known.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func objectRef(kind cluster.Kind, namespace, name string) *causewayv1.ObjectRef {
	return &causewayv1.ObjectRef{Kind: string(kind), Namespace: namespace, Name: name}
}
