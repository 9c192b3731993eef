package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/store"
)

// DefaultTTL is how long an agent's liveness key outlives it.
const DefaultTTL = 10 * time.Second

// Config of a Publisher.
type Config struct {
	// Cluster is the agent's own. Required.
	Cluster cluster.ID
	// Agent names this process among the cluster's agents, a DNS subdomain such as
	// a pod's name. Required.
	Agent string
	// Store is where to publish; it must be allowed to write the cluster's prefix.
	// Required.
	Store store.Store
	// TTL of the liveness key; DefaultTTL if zero.
	TTL time.Duration
	// Logger gets outages, conflicts and objects that can't be published. Required.
	Logger *slog.Logger
	// Registerer gets the causeway_publish_* metrics. Required.
	Registerer prometheus.Registerer
}

// Publisher keeps the store equal to what its cluster exports. See the package
// documentation. Its methods may be called from any goroutine.
type Publisher struct {
	cfg     Config
	prefix  string
	alive   record.Record
	metrics *metrics
	wake    chan struct{} // 1 deep: something is dirty

	mu      sync.Mutex
	exports *exports
	synced  bool
	running bool
	seq     uint64 // counts what was delivered
	settled uint64 // the store has all up to here, as of State.Revision
	changed chan struct{}
	state   State

	followMu sync.Mutex // before mu
	followed []federation.Cluster
}

// State is how the publishing goes.
type State struct {
	// Waiting says what nothing is written before of, empty once it is.
	Waiting string
	// Current is true when the store has everything that was delivered.
	Current bool
	// Pending counts keys to look at, those being written included.
	Pending int
	// Records counts what the store holds below the cluster's prefix, liveness
	// keys left out.
	Records int
	// Revision includes all that was written.
	Revision int64
	// LastError is why the last attempt failed, nil after one that succeeded.
	LastError   error
	LastErrorAt time.Time
	// Conflicts counts what someone else wrote below the prefix since the start.
	Conflicts int
	// Sharing is a cluster that shares this one's network, so that endpoints are
	// published with their addresses; empty: there is none, and counts are published.
	Sharing cluster.ID
}

// New makes a Publisher. It starts nothing and writes nothing.
func New(cfg Config) (*Publisher, error) {
	if err := cfg.Cluster.Validate(); err != nil {
		return nil, fmt.Errorf("publisher: %w", err)
	}
	if cfg.Store == nil || cfg.Logger == nil || cfg.Registerer == nil {
		return nil, errors.New("publisher: Store, Logger and Registerer are required")
	}
	if cfg.TTL < 0 {
		return nil, fmt.Errorf("publisher: negative TTL %v", cfg.TTL)
	}
	if cfg.TTL == 0 {
		cfg.TTL = DefaultTTL
	}
	prefix, err := store.ClusterPrefix(string(cfg.Cluster))
	if err != nil {
		return nil, fmt.Errorf("publisher: %w", err)
	}
	alive, err := record.EncodeAlive(cfg.Cluster, cfg.Agent)
	if err != nil {
		return nil, fmt.Errorf("publisher: agent name: %w", err)
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("publisher: %w", err)
	}
	return &Publisher{
		cfg: cfg, prefix: prefix, alive: alive, metrics: m,
		wake: make(chan struct{}, 1), changed: make(chan struct{}),
		exports: newExports(cfg.Cluster),
	}, nil
}

// Deliver implements cluster.Sink. It never blocks: what isn't written yet is
// replaced by what is newer. Synced counts from the first batch that has it, so
// an agent may add batches of its own, a Meta say, without it.
func (p *Publisher) Deliver(ctx context.Context, b cluster.Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p.mu.Lock()
	for _, e := range b.Events {
		p.exports.apply(e)
	}
	if b.Meta != nil {
		p.exports.setMeta(*b.Meta)
	}
	p.synced = p.synced || b.Synced
	p.delivered()
	p.mu.Unlock()
	return nil
}

// Follow takes notice of the other clusters. Endpoints are published with their
// addresses while any of them, dead or alive, is of the same network, and as
// counts otherwise. Nothing at all is written before the first Snapshot that has
// seen the store, or a copy of it, so that a start doesn't take back for a moment
// what others use. It may be called for every Snapshot.
func (p *Publisher) Follow(s *federation.Snapshot) {
	if s.Revision == 0 { // nothing is known of anybody
		return
	}
	p.followMu.Lock()
	defer p.followMu.Unlock()
	clusters := s.Clusters()
	if len(clusters) > 0 && len(p.followed) == len(clusters) && &p.followed[0] == &clusters[0] {
		return // most Snapshots share them with the one before
	}
	p.followed = clusters
	networks := map[string]cluster.ID{}
	for _, c := range clusters {
		if _, ok := networks[c.Meta.Network]; !ok && c.ID != p.cfg.Cluster {
			networks[c.Meta.Network] = c.ID
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	first, before := p.exports.networks == nil, p.exports.sharing
	if p.exports.setNetworks(networks); first || before != p.exports.sharing {
		p.delivered()
	}
}

// SetTrust replaces the cluster's trust bundle: the X.509 authorities (DER) of
// its trust domain, which readers believe only if the cluster's Meta names it, and the
// key to which others seal what is for this cluster.
// The Publisher shares the slices from now on. An error says that the bundle is
// none; then the last one stays.
func (p *Publisher) SetTrust(t record.Trust) error {
	if _, err := record.EncodeTrust(p.cfg.Cluster, t); err != nil {
		return fmt.Errorf("publishing: %w", err)
	}
	p.mu.Lock()
	p.exports.setTrust(t)
	p.delivered()
	p.mu.Unlock()
	return nil
}

// delivered counts a delivery and wakes the writer. p.mu is held.
func (p *Publisher) delivered() {
	p.seq++
	if !p.running {
		clear(p.exports.dirty) // Run begins with all keys
	}
	if by := p.exports.sharing; by != p.state.Sharing {
		switch {
		case by == "":
			p.cfg.Logger.Info("no other cluster shares this one's network any more: the addresses of its endpoints are taken out of the store, their number stays")
		case p.state.Sharing == "":
			p.cfg.Logger.Info("another cluster shares this one's network: endpoints are published with their addresses", "network", p.exports.meta.Network, "cluster", string(by))
		}
		p.state.Sharing = by
	}
	p.report()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// report brings State up to date. p.mu is held.
func (p *Publisher) report() {
	p.state.Waiting = ""
	switch {
	case !p.synced:
		p.state.Waiting = "the first full set of the cluster's source"
	case p.exports.meta == nil:
		p.state.Waiting = "the cluster's Meta"
	case p.exports.networks == nil:
		p.state.Waiting = "what the store says of the other clusters"
	case !p.running:
		p.state.Waiting = "the lead among the cluster's agents"
	}
	p.state.Current = p.settled == p.seq
	p.state.Pending = len(p.exports.dirty)
	p.metrics.pending.Set(float64(p.state.Pending))
	p.metrics.addresses.Set(0)
	if p.exports.sharing != "" {
		p.metrics.addresses.Set(1)
	}
	p.metrics.refused.Set(float64(len(p.exports.refused) + len(p.exports.broken)))
}

// ready reports whether writing may begin. p.mu is held.
func (p *Publisher) ready() bool {
	return p.synced && p.exports.meta != nil && p.exports.networks != nil
}

// State tells how the publishing goes.
func (p *Publisher) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// Problems lists objects that can't be published, sorted: those of names that
// the store has no keys for, and those that other clusters would refuse.
func (p *Publisher) Problems() []cluster.Problem {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exports.problems()
}

// Flush returns once the store holds all that was delivered before the call, and
// a revision that includes it. It waits for the store, for the source's first
// full set and for Run; its error is ctx's, with the reason of the waiting.
func (p *Publisher) Flush(ctx context.Context) (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for target := p.seq; ; {
		if p.running && p.settled >= target && p.ready() {
			return p.state.Revision, nil
		}
		changed := p.changed
		p.mu.Unlock()
		var err error
		select {
		case <-changed:
		case <-ctx.Done():
			err = ctx.Err()
		}
		p.mu.Lock()
		switch {
		case err == nil:
		case p.state.Waiting != "":
			return 0, fmt.Errorf("publishing waits for %s: %w", p.state.Waiting, err)
		case p.state.LastError != nil:
			return 0, fmt.Errorf("publishing: %w (last attempt: %w)", err, p.state.LastError)
		default:
			return 0, fmt.Errorf("publishing: %w", err)
		}
	}
}

// notify wakes all that wait for a change of State. p.mu is held.
func (p *Publisher) notify() {
	close(p.changed)
	p.changed = make(chan struct{})
}
