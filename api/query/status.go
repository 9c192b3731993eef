package query

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
)

// GetStatus implements causeway.v1.Federation.
//
// A waiting call first lets the Barrier take in all inputs, then looks again at
// each change until nothing is missing. What a proxy has to acknowledge is
// always what is wanted now, so a change that arrives meanwhile is waited for too.
func (s service) GetStatus(ctx context.Context, req *causewayv1.GetStatusRequest) (*causewayv1.GetStatusResponse, error) {
	scope, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	wait := req.GetWait().AsDuration()
	if wait < 0 || wait > maxWait {
		return nil, invalidf("wait must be from 0s to %s", maxWait)
	}
	if wait == 0 {
		return s.answer(scope, s.missing(scope)), nil
	}
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if s.cfg.Barrier != nil {
		if _, err := s.cfg.Barrier(waiting); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			text := err.Error()
			if errors.Is(err, context.DeadlineExceeded) {
				text = fmt.Sprintf("not within %s: %s", wait.Round(time.Millisecond), text)
			}
			missing := []string{"the newest inputs have not reached every cluster: " + text}
			return s.answer(scope, append(missing, s.missing(scope)...)), nil
		}
	}
	for {
		changed := s.cfg.Changed()
		missing := s.missing(scope)
		if len(missing) == 0 {
			return s.answer(scope, nil), nil
		}
		select {
		case <-changed:
		case <-waiting.Done():
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return s.answer(scope, missing), nil
		case <-s.stopping:
			return nil, errStopping
		}
	}
}

// answer puts what else is to be known beside what is missing.
func (s *Server) answer(scope Scope, missing []string) *causewayv1.GetStatusResponse {
	out := &causewayv1.GetStatusResponse{Ready: len(missing) == 0, Missing: missing}
	r, err := newReading(scope, s.cfg.Views())
	if err != nil {
		r = nil
	}
	for p := range s.problemRows(r, scope, nil) {
		if len(out.Problems) == maxStatusRows {
			break
		}
		out.Problems = append(out.Problems, p.make())
	}
	if r != nil {
		out.Revision = r.revision
		for c := range s.clusterRows(r, nil, true) {
			out.Clusters = append(out.Clusters, c.make())
		}
	}
	return out
}

// missing says what is not in place now, in plain words, at most maxMissing of it.
func (s *Server) missing(scope Scope) (out []string) {
	miss := func(format string, args ...any) {
		if len(out) < maxMissing {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	list := s.cfg.Views()
	for _, v := range list {
		if v.Result == nil && scope.Sees(v.Cluster, "") {
			miss("%s has not resolved anything yet", viewName(v))
		}
	}
	r, err := newReading(scope, list)
	if err != nil {
		if len(out) == 0 {
			miss("no cluster is known yet")
		}
		return out
	}
	for _, id := range r.clusters {
		if scope.Sees(id, "") {
			r.missingLiveness(id, miss)
		}
	}
	for _, p := range s.cfg.Proxies() {
		if !p.inSync() && scope.Sees(p.Cluster, p.Namespace) {
			missingAcks(p, miss)
		}
	}
	return out
}

const (
	maxMissing = 1000
	maxReasons = 5 // of one proxy
)

// missingLiveness asks every view, since each routes by its own idea of health.
// One answer is enough.
func (r *reading) missingLiveness(id cluster.ID, miss func(string, ...any)) {
	for _, from := range sortedKeys(r.views) {
		v := r.views[from]
		c, ok := v.Result.Snapshot.Cluster(id)
		switch {
		case !ok:
			miss("cluster %s is not known to %s yet", id, viewName(v))
		case c.Health.Liveness == federation.Alive:
			continue
		case c.Health.Reason != "":
			miss("cluster %s is %s to %s: %s", id, livenessName(c.Health.Liveness), viewName(v), c.Health.Reason)
		default:
			miss("cluster %s is %s to %s", id, livenessName(c.Health.Liveness), viewName(v))
		}
		return
	}
}

// missingAcks says what a proxy has not acknowledged.
func missingAcks(p Proxy, miss func(string, ...any)) {
	if !p.Connected {
		miss("proxy %s is not connected", p.ID())
		return
	}
	shown := p.Rejected[:min(len(p.Rejected), maxReasons)]
	for _, x := range shown {
		what := x.Subject
		if what == "" {
			what = shortType(x.TypeURL) + " " + x.Resource
		}
		miss("proxy %s refuses %s: %s", p.ID(), what, x.Message)
	}
	if more := p.RejectedTotal - len(shown); more > 0 {
		miss("proxy %s refuses %d more resources", p.ID(), more)
	}
	pending := false
	for _, t := range p.Types {
		if t.Pending > 0 {
			pending = true
			miss("proxy %s has not acknowledged %d resources of type %s", p.ID(), t.Pending, shortType(t.TypeURL))
		}
	}
	switch {
	case pending || p.RejectedTotal > 0:
	case p.Revision == 0:
		miss("proxy %s has no configuration yet", p.ID())
	default:
		miss("proxy %s has acknowledged revision %d of %d", p.ID(), p.Acked, p.Revision)
	}
}

func viewName(v View) string {
	if v.Cluster == "" {
		return "the hub"
	}
	return "cluster " + string(v.Cluster)
}

func livenessName(l federation.Liveness) string {
	if l == "" {
		return "of unknown health"
	}
	return strings.ToLower(string(l))
}
