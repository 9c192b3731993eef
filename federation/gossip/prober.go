package gossip

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/causeway-mesh/causeway/cluster"
)

// Target is a cluster to probe.
type Target struct {
	Cluster cluster.ID
	// Addresses are its crossing gateways, host:port; up to 8 of them are tried in
	// a round. A target without any has no vote.
	Addresses []string
	// TLS is the client's side of a connection to them: it must accept the SPIFFE
	// id of that cluster's crossing gateways alone, so that nothing else at the
	// address passes for one. Required; the prober doesn't modify it.
	TLS *tls.Config
}

// ProberConfig makes a Prober.
type ProberConfig struct {
	// Targets gives the clusters to probe now: those under suspicion, see
	// UnderSuspicion. Called once a round; the result isn't modified.
	Targets func() []Target
	// OnVotes is told the votes when they change, sorted by cluster; it must not block.
	OnVotes func([]Vote)
	// Dial opens a connection; net.Dialer's DialContext by default.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Interval is the time between rounds, on average; default 2 s.
	Interval time.Duration
	// Timeout bounds one connection with its handshake; default 2 s.
	Timeout time.Duration
	// FailAfter is how many rounds must fail in succession before the vote is
	// against a cluster; one success is a vote for it. Default 2.
	FailAfter int
	// Concurrency bounds the clusters that are probed at once; default 16.
	Concurrency int
	Logger      *slog.Logger          // default slog.Default()
	Registerer  prometheus.Registerer // nil: no metrics
}

// Prober finds out whether clusters under suspicion can be reached, by a TLS
// handshake with a crossing gateway. A plain connection would not do: an address
// may have been given to something else, and a load balancer accepts for dead
// backends. Only agents run one, for their votes count.
type Prober struct {
	cfg    ProberConfig
	probes *prometheus.CounterVec

	mu    sync.Mutex
	votes []Vote // replaced, never mutated
}

// maxAddresses bounds the addresses of a cluster that are tried in one round.
const maxAddresses = 8

// NewProber validates and starts nothing.
func NewProber(cfg ProberConfig) (*Prober, error) {
	if cfg.Targets == nil || cfg.OnVotes == nil {
		return nil, errors.New("prober without Targets or OnVotes")
	}
	if cfg.Interval < 0 || cfg.Timeout < 0 || cfg.FailAfter < 0 || cfg.Concurrency < 0 {
		return nil, errors.New("prober with a negative interval, timeout or number")
	}
	setDefault(&cfg.Interval, 2*time.Second)
	setDefault(&cfg.Timeout, 2*time.Second)
	setDefault(&cfg.FailAfter, 2)
	setDefault(&cfg.Concurrency, 16)
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{}).DialContext
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	p := &Prober{cfg: cfg, probes: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "causeway_gossip_probes_total",
		Help: "Probes of the crossing gateways of clusters under suspicion, by cluster and result.",
	}, []string{"target", "result"})}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(p.probes); err != nil {
			return nil, fmt.Errorf("register metrics of the prober: %w", err)
		}
	}
	return p, nil
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Votes gives the votes as of the last round, sorted by cluster, on clusters
// that are still targets. Shared: don't modify it.
func (p *Prober) Votes() []Vote {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.votes
}

// Run probes until ctx ends, then returns nil. Once.
func (p *Prober) Run(ctx context.Context) error {
	failed := map[cluster.ID]int{} // rounds in succession; 0 after a success
	for {
		results := p.round(ctx, p.cfg.Targets())
		if stopped(ctx) {
			return nil // the round was cut off
		}
		next := make(map[cluster.ID]int, len(results))
		for id, err := range results {
			if err != nil {
				next[id] = min(failed[id]+1, p.cfg.FailAfter)
				if next[id] == p.cfg.FailAfter && failed[id] != next[id] {
					p.cfg.Logger.Warn("can't reach a cluster under suspicion", "cluster", id, "error", err)
				}
			} else {
				next[id] = 0
			}
		}
		failed = next
		p.publish(failed)
		_ = cluster.Pause(ctx, jitter(p.cfg.Interval))
	}
}

func (p *Prober) publish(failed map[cluster.ID]int) {
	var votes []Vote
	for id, n := range failed {
		if n == 0 || n >= p.cfg.FailAfter {
			votes = append(votes, Vote{Cluster: id, Reachable: n == 0})
		}
	}
	slices.SortFunc(votes, func(a, b Vote) int { return strings.Compare(string(a.Cluster), string(b.Cluster)) })
	p.mu.Lock()
	same := slices.Equal(p.votes, votes)
	if !same {
		p.votes = votes
	}
	p.mu.Unlock()
	if !same {
		p.cfg.OnVotes(votes)
	}
}

// round probes each target once and gives an error, or nil, for each that could be probed.
func (p *Prober) round(ctx context.Context, targets []Target) map[cluster.ID]error {
	results := make(map[cluster.ID]error, len(targets))
	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		slots = make(chan struct{}, p.cfg.Concurrency)
	)
	for _, t := range targets {
		if len(t.Addresses) == 0 || t.TLS == nil || t.Cluster.Validate() != nil {
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			err := p.reach(ctx, t)
			if stopped(ctx) {
				return // cut off, which says nothing of the target
			}
			result := "ok"
			if err != nil {
				result = "error"
			}
			p.probes.WithLabelValues(string(t.Cluster), result).Inc()
			mu.Lock()
			defer mu.Unlock()
			results[t.Cluster] = err
		})
	}
	wg.Wait()
	return results
}

func stopped(ctx context.Context) bool { return ctx.Err() != nil }

// reach tries up to maxAddresses of the target's gateways at once, until one
// answers, so that a round takes a Timeout however many are gone.
func (p *Prober) reach(ctx context.Context, t Target) error {
	addrs := slices.Clone(t.Addresses)
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	addrs = addrs[:min(len(addrs), maxAddresses)]
	ctx, cancel := context.WithCancel(ctx)
	errs := make([]error, len(addrs))
	var wg sync.WaitGroup
	for i, addr := range addrs {
		wg.Go(func() {
			if errs[i] = p.handshake(ctx, addr, t.TLS); errs[i] == nil {
				cancel()
			} else {
				errs[i] = fmt.Errorf("%s: %w", shorten(addr), errs[i])
			}
		})
	}
	wg.Wait()
	cancel()
	if slices.Contains(errs, nil) {
		return nil
	}
	return errors.Join(errs...)
}

func (p *Prober) handshake(ctx context.Context, addr string, cfg *tls.Config) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	conn, err := p.cfg.Dial(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return tls.Client(conn, cfg).HandshakeContext(ctx)
}
