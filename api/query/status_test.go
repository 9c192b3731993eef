package query_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/api/query"
	"github.com/causeway-mesh/causeway/api/query/querytest"
	"github.com/causeway-mesh/causeway/federation"
)

// makeReady puts everything of the world in place.
func makeReady(w *querytest.World) {
	clusters := w.Views()[0].Result.Snapshot.Clusters()
	w.Edit(func(e *federation.Edit) {
		for _, c := range clusters {
			c.Health = federation.Health{Liveness: federation.Alive}
			e.SetCluster(c)
		}
	})
}

// A waiting GetStatus passes the Barrier first, and answers at the change that
// puts the last thing in place.
func TestStatusWaits(t *testing.T) {
	t.Parallel()
	w := querytest.New(t)
	cfg := w.Config()
	// The Barrier takes in an edit: from then on a proxy has something to acknowledge.
	const id = "east/sidecar/dev/sidecar"
	passed := make(chan struct{})
	cfg.Barrier = func(context.Context) (int64, error) {
		w.Proxy(id, func(p *query.Proxy) { p.Revision = 21; p.Types[0].Pending = 2 })
		close(passed)
		return 21, nil
	}
	r := querytest.Run(t, cfg)
	c := ada(t, r)

	now, err := c.GetStatus(t.Context(), &causewayv1.GetStatusRequest{})
	if err != nil || now.GetReady() || len(now.GetMissing()) != 1 || !strings.Contains(now.GetMissing()[0], "cluster north is suspect") {
		t.Fatalf("at first: %v, %v; want north missing alone", now.GetMissing(), err)
	}
	type result struct {
		answer *causewayv1.GetStatusResponse
		err    error
	}
	done := make(chan result, 1)
	go func() {
		a, err := c.GetStatus(t.Context(), &causewayv1.GetStatusRequest{Wait: durationpb.New(time.Minute)})
		done <- result{a, err}
	}()
	<-passed
	makeReady(w)
	waiting, err := c.GetStatus(t.Context(), &causewayv1.GetStatusRequest{})
	if err != nil || waiting.GetReady() || len(waiting.GetMissing()) != 1 ||
		waiting.GetMissing()[0] != "proxy "+id+" has not acknowledged 2 resources of type Cluster" {
		t.Errorf("before the acknowledgement: %v, %v", waiting.GetMissing(), err)
	}
	select {
	case r := <-done:
		t.Fatalf("answered before the acknowledgement: %v, %v", r.answer, r.err)
	default:
	}
	w.Proxy(id, func(p *query.Proxy) { p.Acked = 21; p.Types[0].Pending = 0 })
	if r := <-done; r.err != nil || !r.answer.GetReady() || len(r.answer.GetProblems()) != 1 || len(r.answer.GetClusters()) != 3 {
		t.Errorf("at last: %v, %v", r.answer, r.err)
	}
}

// When the time is over, the answer says what is missing.
func TestStatusTimesOut(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		damage  func(*querytest.World)
		barrier func(context.Context) (int64, error)
		want    string
	}{
		"a proxy that is not there": {
			damage: func(w *querytest.World) {
				w.Proxy("east/gateway/infra/gw", func(p *query.Proxy) { p.Connected = false })
			},
			want: "proxy east/gateway/infra/gw is not connected",
		},
		"a refusal": {
			damage: func(w *querytest.World) {
				w.Proxy("east/gateway/infra/gw", func(p *query.Proxy) {
					p.RejectedTotal, p.Rejected = 1, []query.Rejection{{Subject: "HTTPRoute/infra/entry@east", Message: "bad regex"}}
				})
			},
			want: "proxy east/gateway/infra/gw refuses HTTPRoute/infra/entry@east: bad regex",
		},
		"a proxy without configuration": {
			damage: func(w *querytest.World) {
				w.Proxy("east/gateway/infra/gw", func(p *query.Proxy) { p.Revision, p.Acked = 0, 0 })
			},
			want: "proxy east/gateway/infra/gw has no configuration yet",
		},
		"a cluster without a result": {
			damage: func(w *querytest.World) { w.SetViews(append(w.Views()[:2:2], query.View{Cluster: "south"})...) },
			want:   "cluster south has not resolved anything yet",
		},
		"inputs that do not arrive": {
			damage:  func(*querytest.World) {},
			barrier: func(ctx context.Context) (int64, error) { <-ctx.Done(); return 0, ctx.Err() },
			want:    "the newest inputs have not reached every cluster: not within 50ms",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := querytest.New(t)
			makeReady(w)
			c.damage(w)
			cfg := w.Config()
			cfg.Barrier = c.barrier
			a, err := ada(t, querytest.Run(t, cfg)).GetStatus(t.Context(), &causewayv1.GetStatusRequest{Wait: durationpb.New(50 * time.Millisecond)})
			if err != nil || a.GetReady() || len(a.GetMissing()) == 0 || !strings.HasPrefix(a.GetMissing()[0], c.want) {
				t.Errorf("got %v, %v; want %q", a.GetMissing(), err, c.want)
			}
		})
	}
	_, err := ada(t, querytest.Run(t, querytest.New(t).Config())).GetStatus(t.Context(), &causewayv1.GetStatusRequest{Wait: durationpb.New(time.Hour)})
	wantCode(t, "a wait of an hour", err, codes.InvalidArgument)
}
