package up

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/causeway-mesh/causeway/api/admin"
	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/api/query"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/cmd/causeway/agent"
	sethub "github.com/causeway-mesh/causeway/cmd/causeway/hub"
	"github.com/causeway-mesh/causeway/cmd/causeway/serve"
	"github.com/causeway-mesh/causeway/federation/gossip"
	"github.com/causeway-mesh/causeway/federation/store/etcd"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// hub answers questions: about the whole set from the view that any hub has, and
// about each cluster from that cluster's agent, which runs in the same process.
type hub struct {
	s      *supervisor
	store  *etcd.Store
	set    *sethub.Hub
	svid   *identity.Rotator
	person *identity.Rotator
	query  *query.Server
	policy *etcd.Store // by which administrators' commands are carried out
	admin  *admin.Server
}

func newHub(ctx context.Context, s *supervisor, g *errgroup.Group) (*hub, error) {
	h := &hub{s: s}
	reg := s.metrics.part("hub")
	log := s.log.With("part", "hub")
	var err error
	if h.store, err = s.storeClient(ctx, g, "hub", etcd.HubUser, reg); err != nil {
		return nil, err
	}
	if h.set, err = sethub.New(sethub.Config{
		Store: h.store, Logger: log, Registerer: reg, OnChange: s.notify,
		Gossip: gossip.Config{
			Replica: "0", Bind: netip.MustParseAddrPort("127.0.0.1:0"), Key: s.key, Join: s.peerList,
			Timing: gossip.Local(), Logger: s.quiet.With("part", "hub"),
		},
	}); err != nil {
		return nil, err
	}
	if h.svid, err = s.trust.hub(); err != nil {
		return nil, err
	}
	if h.person, err = s.trust.person(); err != nil {
		return nil, err
	}
	h.query, err = query.New(query.Config{
		Views: h.views, Changed: s.waiting, Proxies: h.proxies, Problems: h.problems, Bindings: h.bindings,
		Barrier: h.barrier, History: h.set, SVID: h.svid, Bundles: s.trust.domain, Authorize: query.AuthorizeMembers(s.o.clusterset),
		Logger: log, Registerer: reg,
	})
	if err != nil {
		return nil, err
	}
	if h.policy, err = s.storeClient(ctx, g, "policy", etcd.PolicyUser, nil); err != nil {
		return nil, err
	}
	h.admin, err = admin.New(admin.Config{
		Store: h.policy, Clusters: h.set.Clusters, Authorize: admin.Users(s.o.clusterset, personName), Logger: log,
	})
	return h, err
}

// serve runs the hub until ctx ends.
func (h *hub) serve(ctx context.Context) error {
	defer h.store.Close()
	defer h.policy.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.svid.Run(ctx) })
	g.Go(func() error { return h.person.Run(ctx) })
	g.Go(func() error { return h.set.Run(ctx) })
	g.Go(func() error {
		if addr, err := h.set.GossipAddr(ctx); err == nil {
			h.s.addPeer(addr)
		}
		return nil
	})
	g.Go(func() error {
		if _, err := h.svid.Wait(ctx); err != nil {
			return nil
		}
		return h.serveQuery(ctx)
	})
	g.Go(func() error { return h.serveMetrics(ctx) })
	return ignoreCanceled(g.Wait())
}

// serveQuery serves the query API, and beside it administration and the faults of
// the trial.
func (h *hub) serveQuery(ctx context.Context) error {
	g := grpc.NewServer(append(h.query.Options(),
		grpc.Creds(credentials.NewTLS(identity.ServerConfig(h.svid, h.s.trust.domain, h.people))))...)
	h.query.Register(g)
	h.admin.Register(g)
	causewayv1.RegisterTrialServer(g, h.s.trial)
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	if err := g.Serve(h.s.api); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve the query API: %w", err)
	}
	return nil
}

// people admits the person who started `causeway up`, who may see and break
// everything. Nobody else has business with its API.
func (h *hub) people(peer identity.Identity) error {
	if peer.Kind != identity.KindUser || peer.TrustDomain != h.s.trust.domain.TrustDomain() {
		return fmt.Errorf("%s is not a person: use the client certificate that `causeway up` wrote", peer)
	}
	return nil
}

// serveMetrics serves Prometheus' metrics over mTLS.
func (h *hub) serveMetrics(ctx context.Context) error {
	if h.s.o.metrics == "" {
		return nil
	}
	if _, err := h.svid.Wait(ctx); err != nil {
		return nil
	}
	l, err := net.Listen("tcp", h.s.o.metrics)
	if err != nil {
		return fmt.Errorf("listen for metrics: %w; choose another address with --metrics", err)
	}
	at := l.Addr().String()
	h.s.metricsAddr.Store(&at)
	if err := serve.HTTP(ctx, l, serve.Metrics(h.s.metrics), identity.ServerConfig(h.svid, h.s.trust.domain, h.people)); err != nil {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}

// views implements query.Config.Views.
func (h *hub) views() []query.View {
	var out []query.View
	if v, ok := h.set.View(); ok {
		out = append(out, v)
	}
	for _, m := range h.s.list() {
		v := query.View{Cluster: m.id}
		if a := m.current(); a != nil {
			v.Result, v.Confirmed = a.Result(), sethub.Confirmed(a.Loop())
		} else {
			v.Result = m.lastResult() // its Envoys still do that
		}
		out = append(out, v)
	}
	return out
}

// proxies implements query.Config.Proxies: what the agents serve, and what is
// expected but has never connected.
func (h *hub) proxies() []query.Proxy {
	var out []query.Proxy
	for _, m := range h.s.list() {
		out = append(out, agent.Proxies(m.current(), m.proxies())...)
	}
	return out
}

// problems implements query.Config.Problems: what is wrong with the folders, with
// what was published, and with what others published.
func (h *hub) problems() []cluster.Problem {
	var out []cluster.Problem
	for _, m := range h.s.list() {
		if a := m.current(); a != nil {
			out = append(out, a.Problems()...)
		}
	}
	return append(out, h.set.Loop().Problems()...)
}

// bindings implements query.Config.Bindings.
func (h *hub) bindings(p translate.Proxy) query.Bindings {
	for _, m := range h.s.list() {
		if m.id == p.Cluster {
			return m.bindings
		}
	}
	return nil
}

// barrier implements query.Config.Barrier.
func (h *hub) barrier(ctx context.Context) (int64, error) {
	// What starts here outlives the call.
	if err := h.s.folders(h.s.ctx); err != nil {
		return 0, err
	}
	var newest int64
	members := h.s.list()
	// What a cluster publishes depends on who shares its network: what it learns of
	// the others in the first round it may answer in the second.
	for range 2 {
		for _, m := range members {
			rev, err := m.barrier(ctx)
			if err != nil {
				return 0, err
			}
			newest = max(newest, rev)
		}
		for _, m := range members {
			if a := m.current(); a != nil {
				if err := a.Await(ctx, newest); err != nil {
					return 0, fmt.Errorf("cluster %s: wait for store revision %d: %w", m.id, newest, err)
				}
			}
		}
	}
	return newest, h.set.Loop().Await(ctx, newest)
}
