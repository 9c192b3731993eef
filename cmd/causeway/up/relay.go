package up

import (
	"context"
	"sync"

	"github.com/causeway-mesh/causeway/cluster"
)

// relay stands between a cluster's source, which lives as long as the cluster's
// folder, and its agent, which may be stopped and started again. It remembers
// what the source delivered and gives a new agent the full set first.
type relay struct {
	mu       sync.Mutex
	objects  map[cluster.Ref]*cluster.Object
	meta     *cluster.Meta
	problems *[]cluster.Problem
	synced   bool
	to       cluster.Sink // nil while no agent runs
}

func newRelay() *relay { return &relay{objects: map[cluster.Ref]*cluster.Object{}} }

// Deliver implements cluster.Sink for the source.
func (r *relay) Deliver(ctx context.Context, b cluster.Batch) error {
	// The lock is held while the agent takes the batch: batches keep their order,
	// and attach can't slip in between.
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range b.Events {
		if e.Object == nil {
			delete(r.objects, e.Ref)
		} else {
			r.objects[e.Ref] = e.Object
		}
	}
	if b.Meta != nil {
		r.meta = b.Meta
	}
	if b.Problems != nil {
		r.problems = b.Problems
	}
	r.synced = r.synced || b.Synced
	if r.to == nil {
		return nil
	}
	return r.to.Deliver(ctx, b)
}

// attach makes to the receiver and gives it all that is known.
func (r *relay) attach(ctx context.Context, to cluster.Sink) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to = to
	if len(r.objects) == 0 && r.meta == nil && !r.synced {
		return nil
	}
	b := cluster.Batch{Meta: r.meta, Problems: r.problems, Synced: r.synced}
	for ref, o := range r.objects {
		b.Events = append(b.Events, cluster.Event{Ref: ref, Object: o})
	}
	return to.Deliver(ctx, b)
}

// detach ends delivery.
func (r *relay) detach() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to = nil
}
