// Package hub follows the store for people who look at the whole clusterset, and
// answers the query API. `causeway hub` runs it on its own; `causeway up` has it
// beside its agents.
//
// A hub keeps nothing: any number may run, and each works everything out for itself.
// Losing the store leaves it with what it knows, and it says how old that is.
package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/causeway-mesh/causeway/api/query"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cmd/causeway/agent"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/gossip"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/federation/store"
)

// Config makes a Hub. All fields are required unless they say otherwise.
type Config struct {
	Store store.Store
	// Gossip's Role and Registerer are filled in.
	Gossip     gossip.Config
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// OnChange, if set, is called whenever what the Hub shows has changed. It must
	// not block.
	OnChange func()
}

// Hub follows the store as an agent does, but as no cluster in particular.
type Hub struct {
	cfg    Config
	loop   *federation.Loop
	gossip *gossip.Gossip
	result atomic.Pointer[resolve.Result]

	changed cluster.Bell
}

// New checks the configuration and puts the parts together. It starts nothing.
func New(cfg Config) (*Hub, error) {
	if cfg.Store == nil || cfg.Logger == nil || cfg.Registerer == nil {
		return nil, errors.New("hub: the configuration is not complete")
	}
	h := &Hub{cfg: cfg}
	var err error
	if h.loop, err = federation.NewLoop(federation.LoopConfig{
		Store: cfg.Store, Logger: cfg.Logger, Registerer: cfg.Registerer, OnSnapshot: h.snapshot,
	}); err != nil {
		return nil, err
	}
	g := cfg.Gossip
	g.Role, g.Registerer = gossip.RoleHub, cfg.Registerer
	if h.gossip, err = gossip.New(g); err != nil {
		return nil, err
	}
	return h, nil
}

// Run follows the store until ctx ends.
func (h *Hub) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.loop.Run(ctx) })
	g.Go(func() error { return h.gossip.Run(ctx) })
	g.Go(func() error {
		return agent.JudgeLoop(ctx, "", h.loop, h.gossip, func(map[cluster.ID]gossip.Verdict) { h.notify() })
	})
	if err := g.Wait(); err != nil && (ctx.Err() == nil || !errors.Is(err, context.Canceled)) {
		return err
	}
	return nil
}

// GossipAddr waits for the address at which others can join this member.
func (h *Hub) GossipAddr(ctx context.Context) (string, error) {
	addr, err := h.gossip.Addr(ctx)
	if err != nil {
		return "", err
	}
	return addr.String(), nil
}

// Loop is the Hub's own.
func (h *Hub) Loop() *federation.Loop { return h.loop }

// snapshot keeps the hub's own view.
func (h *Hub) snapshot(_ context.Context, snap *federation.Snapshot, changed federation.ChangeSet) {
	if old := h.result.Load(); old != nil {
		next, _ := old.Update(snap, changed)
		h.result.Store(next)
	} else {
		h.result.Store(resolve.Resolve("", snap))
	}
	h.notify()
}

func (h *Hub) notify() {
	h.changed.Ring()
	if h.cfg.OnChange != nil {
		h.cfg.OnChange()
	}
}

// Changed gives a channel that is closed at the next change.
func (h *Hub) Changed() <-chan struct{} { return h.changed.Next() }

// View is the clusterset as no cluster in particular sees it; false until the
// first Snapshot.
func (h *Hub) View() (query.View, bool) {
	r := h.result.Load()
	if r == nil {
		return query.View{}, false
	}
	return query.View{Result: r, Confirmed: Confirmed(h.loop)}, true
}

// Confirmed is when the store last said that a Loop has all of it.
func Confirmed(l *federation.Loop) time.Time {
	if s := l.State(); !s.Connected {
		return s.LastHeard
	}
	return time.Now()
}

// Clusters are the members of the clusterset as the Hub knows them.
func (h *Hub) Clusters() []cluster.ID {
	var out []cluster.ID
	if snap := h.loop.Snapshot(); snap != nil {
		for _, c := range snap.Clusters() {
			out = append(out, c.ID)
		}
	}
	return out
}

// At implements query.History: it resolves what the store held at a revision.
func (h *Hub) At(ctx context.Context, revision int64, id cluster.ID) (query.View, error) {
	kvs, rev, err := h.cfg.Store.List(ctx, store.Root, revision)
	for _, known := range []error{store.ErrCompacted, store.ErrFutureRevision} {
		if errors.Is(err, known) { // etcd's own words say no more
			err = fmt.Errorf("revision %d: %w", revision, known)
		}
	}
	if err != nil {
		return query.View{}, err
	}
	snap := federation.Restore(rev, kvs, time.Now())
	return query.View{Cluster: id, Result: resolve.Resolve(id, snap), Confirmed: time.Now()}, nil
}
