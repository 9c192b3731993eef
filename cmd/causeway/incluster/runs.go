package incluster

import (
	"context"
	"sync"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/provision"
	"github.com/causeway-mesh/causeway/cluster/status"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// publisher is the part of publish.Publisher that runs uses.
type publisher interface {
	SetRun(namespace, gateway string, run *cluster.GatewayRun)
	RunsKnown()
	ForgetRuns()
}

// runs tells the other clusters how this one runs Gateways that are for several. The
// leader does. Its methods may be called from any goroutine and never block, save Run.
type runs struct {
	local  cluster.ID
	result func() *resolve.Result // nil before the first
	// here is what this cluster makes of a Gateway; false while nothing can be said.
	here func(res *resolve.Result, home cluster.ID, n provision.Name) (*status.Verdict, bool)
	to   publisher

	mu    sync.Mutex
	dirty map[provision.Name]bool
	bell  cluster.Bell
}

// touch says that Gateways stand differently, whoever wrote them.
func (r *runs) touch(names ...provision.Name) {
	if len(names) == 0 {
		return
	}
	r.mu.Lock()
	if r.dirty == nil {
		r.dirty = map[provision.Name]bool{}
	}
	for _, n := range names {
		r.dirty[n] = true
	}
	r.mu.Unlock()
	r.bell.Ring()
}

// Run tells until ctx ends. It may be called again after it returned.
func (r *runs) Run(ctx context.Context) error {
	defer r.to.ForgetRuns()
	// What is to be known before what the store has of others may go; nil since it is.
	open := map[provision.Name]bool{}
	began := false
	for {
		next := r.bell.Next()
		r.mu.Lock()
		dirty := r.dirty
		r.dirty = nil
		r.mu.Unlock()
		if res := r.result(); res != nil {
			if !began {
				began = true
				dirty = r.all(res)
				for n := range dirty {
					open[n] = true
				}
			}
			for n := range dirty {
				if run, known := r.of(res, n); known {
					r.to.SetRun(n.Namespace, n.Name, run)
					delete(open, n)
				}
			}
			if open != nil && len(open) == 0 {
				r.to.RunsKnown()
				open = nil
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-next:
		}
	}
}

// all lists the Gateways that this cluster is to run for others, and for itself.
func (r *runs) all(res *resolve.Result) map[provision.Name]bool {
	out := map[provision.Name]bool{}
	res.Runs.Root().Walk(func(_ []byte, g *resolve.GatewayRuns) bool {
		if _, ok := g.In(r.local); ok {
			out[provision.Name{Namespace: g.Namespace, Name: g.Name}] = true
		}
		return false
	})
	return out
}

// of is how this cluster runs a Gateway, nil if it is none that is for several.
func (r *runs) of(res *resolve.Result, n provision.Name) (_ *cluster.GatewayRun, known bool) {
	var mine *resolve.GatewayRuns
	res.Runs.Root().WalkPrefix([]byte(resolve.RunsKey(n.Namespace, n.Name, "")), func(_ []byte, g *resolve.GatewayRuns) bool {
		if _, ok := g.In(r.local); ok {
			mine = g
		}
		return mine != nil
	})
	if mine == nil {
		return nil, true
	}
	v, known := r.here(res, mine.Home, n)
	if v == nil || !known {
		return nil, known
	}
	return runOf(v, mine.Home), true
}
