// Package agent runs one cluster's control plane: it takes the cluster's objects
// from a source, publishes the exports, follows the global store, judges the
// other clusters' health, resolves, translates, and serves xDS to the cluster's
// Envoys. `causeway up` runs several of them in one process.
//
// Nothing that fails outside (the store, gossip, another cluster) stops an
// agent or empties what it serves: stale beats partial.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/gossip"
	"github.com/causeway-mesh/causeway/federation/publish"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/federation/store"
	"github.com/causeway-mesh/causeway/xds/server"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// SystemNamespace is where our own parts live (DESIGN section 6).
const SystemNamespace = "causeway-system"

// CrossingName is the name of a cluster's crossing gateways, which all are one proxy.
const CrossingName = "crossing"

// Crossing is a cluster's crossing gateways.
func Crossing(id cluster.ID) translate.Proxy {
	return translate.Proxy{Cluster: id, Role: translate.RoleCrossing, Namespace: SystemNamespace, Name: CrossingName}
}

// Config makes an Agent. All fields are required unless they say otherwise.
type Config struct {
	Cluster   cluster.ID
	Replica   string // tells the agents of a cluster apart
	Dir       string // for the copy of the global state
	Store     store.Store
	Authority *identity.Authority
	Identity  *identity.Metrics // optional
	Gossip    gossip.Config     // Role, Cluster, Replica and Registerer are filled in; Logger if nil
	Bindings  translate.Bindings
	Options   translate.Options
	// Names and Addrs are where callers that know no SPIFFE reach the agent, for its
	// certificate; optional.
	Names []string
	Addrs []netip.Addr
	// XDS is where the agent serves its Envoys. The agent closes it.
	XDS net.Listener
	// Drain is how long Envoys' streams may go on after Run was told to end, so that
	// the Envoys connect to another agent of the cluster; 0: not at all.
	Drain time.Duration
	// Elect runs lead whenever this agent is the leader of its cluster's agents, with
	// a context that ends with that, until its own context ends. Nil: it always is.
	Elect func(ctx context.Context, lead func(context.Context) error) error
	// OnResult is given each Result with what differs from the one before, in order.
	// It must not block.
	OnResult func(*resolve.Result, resolve.Delta)
	// OnProxies is told which Envoys the cluster needs, sorted, whenever that
	// changes. It must not block and not call the agent.
	OnProxies func([]translate.Proxy)
	// OnChange is called, often, whenever something that the agent shows has
	// changed. It must not block.
	OnChange   func()
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Agent is one cluster's control plane. It is the cluster.Sink of its source.
type Agent struct {
	cfg       Config
	log       *slog.Logger
	loop      *federation.Loop
	publisher *publish.Publisher
	gossip    *gossip.Gossip
	prober    *gossip.Prober
	server    *server.Server
	pipeline  *pipeline
	travel    *travel
	svid      *identity.Rotator
	bundles   *identity.BundleSet
	verdicts  atomic.Pointer[map[cluster.ID]gossip.Verdict]
}

// leaseTTL is how long the store remembers an agent that it no longer hears of.
const leaseTTL = 5 * time.Second

// New checks the configuration and puts the parts together. It starts nothing.
func New(cfg Config) (*Agent, error) {
	if err := cfg.Cluster.Validate(); err != nil {
		return nil, err
	}
	if cfg.Store == nil || cfg.Authority == nil || cfg.Bindings == nil || cfg.XDS == nil || cfg.OnProxies == nil || cfg.OnChange == nil || cfg.Logger == nil || cfg.Registerer == nil {
		return nil, fmt.Errorf("agent of %s: the configuration is not complete", cfg.Cluster)
	}
	if cfg.OnResult == nil {
		cfg.OnResult = func(*resolve.Result, resolve.Delta) {}
	}
	if cfg.Elect == nil {
		cfg.Elect = func(ctx context.Context, lead func(context.Context) error) error { return lead(ctx) }
	}
	a := &Agent{cfg: cfg, log: cfg.Logger, bundles: &identity.BundleSet{}}
	a.verdicts.Store(&map[cluster.ID]gossip.Verdict{})
	id, err := identity.AgentID(cfg.Authority.TrustDomain())
	if err != nil {
		return nil, err
	}
	if a.svid, err = identity.NewRotator(identity.RotatorConfig{
		Name: "agent-" + string(cfg.Cluster),
		Issue: func(context.Context) (*identity.Credential, error) {
			return cfg.Authority.Issue(identity.SVIDRequest{ID: id, DNSNames: cfg.Names, IPs: cfg.Addrs})
		},
		Logger:  cfg.Logger,
		Metrics: cfg.Identity,
	}); err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	if a.server, err = server.New(server.Config{Logger: cfg.Logger, Registerer: cfg.Registerer, Authorize: a.authorize}); err != nil {
		return nil, err
	}
	a.pipeline = &pipeline{
		local: cfg.Cluster, bindings: cfg.Bindings, options: cfg.Options, server: a.server, log: cfg.Logger, metrics: m,
		onProxies: cfg.OnProxies, onChange: cfg.OnChange, onResult: cfg.OnResult, bundleSet: a.bundles,
		cache: translate.NewCache(), proxies: map[string]*proxy{},
	}
	a.travel = &travel{
		local: cfg.Cluster, authority: cfg.Authority, result: a.Result, log: cfg.Logger,
		publish: func(all []record.Record) { a.publisher.SetSecrets(all) }, forget: func() { a.publisher.ForgetSecrets() },
	}
	if a.loop, err = federation.NewLoop(federation.LoopConfig{
		Local: cfg.Cluster, Store: cfg.Store, CopyPath: filepath.Join(cfg.Dir, "store.copy"), Logger: cfg.Logger, Registerer: cfg.Registerer,
		OnSnapshot: func(ctx context.Context, s *federation.Snapshot, changed federation.ChangeSet) {
			a.publisher.Follow(s)
			a.travel.follow(s, a.pipeline.snapshot(ctx, s, changed), changed)
		},
		Unseal: a.travel.open,
	}); err != nil {
		return nil, err
	}
	if a.publisher, err = publish.New(publish.Config{
		Cluster: cfg.Cluster, Agent: cfg.Replica, Store: cfg.Store, TTL: leaseTTL, Logger: cfg.Logger, Registerer: cfg.Registerer,
	}); err != nil {
		return nil, err
	}
	g := cfg.Gossip
	g.Role, g.Cluster, g.Replica, g.Registerer = gossip.RoleAgent, cfg.Cluster, cfg.Replica, cfg.Registerer
	if g.Logger == nil {
		g.Logger = cfg.Logger
	}
	if a.gossip, err = gossip.New(g); err != nil {
		return nil, err
	}
	if a.prober, err = gossip.NewProber(gossip.ProberConfig{
		Targets: func() []gossip.Target {
			return targets(a.loop.Snapshot(), cfg.Cluster, *a.verdicts.Load(), a.svid, a.bundles)
		},
		OnVotes:  func([]gossip.Vote) { a.report() },
		Interval: time.Second, Timeout: time.Second,
		Logger: cfg.Logger, Registerer: cfg.Registerer,
	}); err != nil {
		return nil, err
	}
	return a, nil
}

// Run runs the agent until ctx ends.
func (a *Agent) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.svid.Run(ctx) })
	g.Go(func() error { return a.loop.Run(ctx) })
	g.Go(func() error { return a.publisher.Hold(ctx) })
	g.Go(func() error { return a.cfg.Elect(ctx, a.lead) })
	g.Go(func() error { return a.gossip.Run(ctx) })
	g.Go(func() error { return a.prober.Run(ctx) })
	g.Go(func() error {
		return JudgeLoop(ctx, a.cfg.Cluster, a.loop, a.gossip, func(v map[cluster.ID]gossip.Verdict) {
			a.verdicts.Store(&v)
			a.report()
		})
	})
	g.Go(func() error { return a.publishTrust(ctx) })
	g.Go(func() error {
		for { // what the Envoys acknowledge is shown too
			changed := a.server.Changed()
			a.cfg.OnChange()
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			}
		}
	})
	g.Go(func() error { return a.serve(ctx) })
	err := g.Wait()
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}

// serve runs the xDS server.
func (a *Agent) serve(ctx context.Context) error {
	if _, err := a.svid.Wait(ctx); err != nil {
		return nil // ctx has ended
	}
	td := a.cfg.Authority.TrustDomain()
	creds := credentials.NewTLS(identity.ServerConfig(a.svid, a.cfg.Authority, func(peer identity.Identity) error {
		if peer.Kind != identity.KindProxy || peer.TrustDomain != td {
			return fmt.Errorf("%s is not a proxy of cluster %s: xDS is for the cluster's own Envoys", peer, a.cfg.Cluster)
		}
		return nil
	}))
	s := grpc.NewServer(append(server.ServerOptions(), grpc.Creds(creds))...)
	a.server.Register(s)
	drained := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(drained)
		if a.cfg.Drain > 0 {
			// Streams of xDS end only by being ended.
			force := time.AfterFunc(a.cfg.Drain, s.Stop)
			defer force.Stop()
			s.GracefulStop()
		}
		s.Stop()
	})
	err := s.Serve(a.cfg.XDS)
	if ctx.Err() == nil {
		return fmt.Errorf("xDS server of %s: %w", a.cfg.Cluster, err)
	}
	<-drained
	return nil
}

// lead publishes, as long as this agent leads those of its cluster.
func (a *Agent) lead(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.travel.lead(ctx)
	}()
	err := a.publisher.Write(ctx)
	cancel()
	<-done
	return err
}

// publishTrust keeps the cluster's trust bundle in the store, with its sealing key.
func (a *Agent) publishTrust(ctx context.Context) error {
	for {
		b, changed := a.cfg.Authority.WatchBundle()
		roots := ders(b.X509Authorities())
		a.loop.SetTrust(b.TrustDomain().Name(), roots)
		sealing, err := a.cfg.Authority.SealingKey()
		if err != nil {
			return err
		}
		if err := a.publisher.SetTrust(record.Trust{TrustDomain: b.TrustDomain().Name(), Authorities: roots, Sealing: sealing}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// report tells the other members how far this one is.
func (a *Agent) report() {
	r := gossip.Report{Votes: a.prober.Votes()}
	if s := a.loop.Snapshot(); s != nil {
		r.Revision = s.Revision
	}
	a.gossip.Report(r)
	a.cfg.OnChange()
}

// Deliver implements cluster.Sink.
func (a *Agent) Deliver(ctx context.Context, b cluster.Batch) error {
	if err := a.loop.Deliver(ctx, b); err != nil {
		return err
	}
	return a.publisher.Deliver(ctx, b)
}

// Flush returns the store revision that includes all that was delivered before.
func (a *Agent) Flush(ctx context.Context) (int64, error) { return a.publisher.Flush(ctx) }

// Await returns when the proxies' wanted state includes the store revision and
// all that was delivered before the call.
func (a *Agent) Await(ctx context.Context, revision int64) error {
	if err := a.loop.Await(ctx, revision); err != nil {
		return err
	}
	return a.loop.Sync(ctx)
}

// Problems lists what is wrong with the cluster's input and with what it publishes.
func (a *Agent) Problems() []cluster.Problem {
	return slices.Concat(a.loop.Problems(), a.publisher.Problems(), a.pipeline.problems(), a.travel.list())
}

// Result is what the agent has resolved last, nil before the first time.
func (a *Agent) Result() *resolve.Result { return a.pipeline.result.Load() }

// SVID is what the agent shows to its Envoys and to the query API's callers.
func (a *Agent) SVID() *identity.Rotator { return a.svid }

// Bundles are the roots of all clusters, as they published them.
func (a *Agent) Bundles() identity.BundleSource { return a.bundles }

// Serves reports whether an Envoy that connects as a proxy gets its whole
// configuration now.
func (a *Agent) Serves(p translate.Proxy) bool { return a.pipeline.serves(p) }

// Rebind says that what Bindings gives for frontends (FrontendKey.String()) has
// changed: what the proxies listen on follows.
func (a *Agent) Rebind(frontends []string) { a.pipeline.rebind(frontends) }

// Loop gives access to the merged model's state: problems, leases, connection.
func (a *Agent) Loop() *federation.Loop { return a.loop }

// Publisher gives access to what the cluster publishes beside its source's objects.
func (a *Agent) Publisher() *publish.Publisher { return a.publisher }

// XDS gives access to the state of the Envoys.
func (a *Agent) XDS() *server.Server { return a.server }

// GossipAddr is where the agent gossips; it waits until that is known.
func (a *Agent) GossipAddr(ctx context.Context) (string, error) {
	addr, err := a.gossip.Addr(ctx)
	return addr.String(), err
}

// ServeProxy gives a proxy its workload identity and configuration until ctx
// ends; then it is forgotten.
func (a *Agent) ServeProxy(ctx context.Context, p translate.Proxy) error {
	id, err := ProxyID(a.cfg.Authority, p)
	if err != nil {
		return err
	}
	r, err := identity.NewRotator(identity.RotatorConfig{
		Name: "sds-" + p.ID(),
		Issue: func(context.Context) (*identity.Credential, error) {
			return a.cfg.Authority.Issue(identity.SVIDRequest{ID: id})
		},
		Logger:  a.log,
		Metrics: a.cfg.Identity,
	})
	if err != nil {
		return err
	}
	defer a.pipeline.drop(p)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.Run(ctx) })
	g.Go(func() error {
		for {
			c, changed := r.Watch()
			if c != nil {
				a.pipeline.identify(p, translate.NewIdentity(c.CertPEM(), c.KeyPEM()))
			}
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			}
		}
	})
	return g.Wait()
}

var _ cluster.Sink = (*Agent)(nil)
