package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/causeway-mesh/causeway/api/admin"
	"github.com/causeway-mesh/causeway/api/query"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/cluster/kubernetes"
	"github.com/causeway-mesh/causeway/cmd/causeway/mounted"
	"github.com/causeway-mesh/causeway/cmd/causeway/serve"
	"github.com/causeway-mesh/causeway/federation/store/etcd"
)

// administrator is the person whose certificate `causeway clusterset init` writes.
const administrator = "admin"

type options struct {
	clusterset, credentials, replica          string
	store, join                               []string
	listen, gossip, advertise, metrics, probe string
	tokens                                    bool
	kubeconfig                                string
	verbose                                   bool
}

// Command is `causeway hub`.
func Command() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "hub",
		Short: "Serve the query API for a whole clusterset",
		Long: `Follow the store of a clusterset and serve the query API, for people and tools who
look at all of it. A hub keeps nothing; run as many as you like, anywhere. The Helm
chart causeway-hub does.

Callers show a client certificate: of the clusterset's own trust domain, as
"causeway clusterset init" writes one, or of a cluster's. With --tokens a ServiceAccount
token of the Kubernetes cluster that the hub runs in serves too, if it was made for the
audience causeway.dev/CLUSTERSET/query.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.StringVar(&o.clusterset, "clusterset", os.Getenv("CAUSEWAY_CLUSTERSET_NAME"), "name of the clusterset ($CAUSEWAY_CLUSTERSET_NAME)")
	f.StringVar(&o.credentials, "credentials", "/etc/causeway/clusterset", "folder with the credentials that `causeway clusterset init` made")
	f.StringSliceVar(&o.store, "store", nil, "members of the store, https://HOST:PORT; may be repeated")
	f.StringVar(&o.replica, "replica", os.Getenv("HOSTNAME"), "tells hubs apart ($HOSTNAME)")
	f.StringVar(&o.listen, "listen", ":8443", "address of the query API")
	f.StringVar(&o.gossip, "gossip", "0.0.0.0:7946", "address of the gossip, TCP and UDP")
	f.StringVar(&o.advertise, "advertise", "", "address at which the others reach the gossip, IP:PORT; the one bound to if empty")
	f.StringSliceVar(&o.join, "join", nil, "gossip addresses of other members, HOST:PORT; may be repeated")
	f.StringVar(&o.metrics, "metrics", ":9090", "address of the Prometheus metrics (mTLS, as the query API); empty: none")
	f.StringVar(&o.probe, "probe", ":8080", "address of /livez and /readyz, which say nothing else; empty: none")
	f.BoolVar(&o.tokens, "tokens", false, "take ServiceAccount tokens too, which the API server judges")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file for --tokens; empty: as a pod")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log what is done, not only what goes wrong")
	return cmd
}

func (o *options) run(ctx context.Context) error {
	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	td, err := identity.ClustersetDomain(o.clusterset)
	if err != nil {
		return fmt.Errorf("--clusterset: %w", err)
	}
	if len(o.store) == 0 {
		return errors.New("no store given: name its members with --store=https://HOST:2379")
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	dir := mounted.Dir(o.credentials)
	follow, err := o.connect(dir, mounted.StoreCert, mounted.StoreKey, "hub", reg, log)
	if err != nil {
		return err
	}
	defer follow.Close()
	policy, err := o.connect(dir, mounted.PolicyCert, mounted.PolicyKey, "policy", reg, log)
	if err != nil {
		return err
	}
	defer policy.Close()
	g, err := dir.GossipConfig(o.gossip, o.advertise, o.join, log)
	if err != nil {
		return err
	}
	g.Replica = o.replica
	h, err := New(Config{Store: follow, Gossip: g, Logger: log, Registerer: reg})
	if err != nil {
		return err
	}
	id, err := identity.HubID(td)
	if err != nil {
		return err
	}
	svid, err := dir.SVID(mounted.HubCert, mounted.HubKey, id)
	if err != nil {
		return err
	}
	var tokens func(context.Context, string) (query.Bearer, error)
	if o.tokens {
		cfg, err := kubernetes.LoadConfig(o.kubeconfig, "causeway-hub")
		if err != nil {
			return fmt.Errorf("--tokens: %w", err)
		}
		client, err := kubernetes.NewClient(cfg)
		if err != nil {
			return fmt.Errorf("--tokens: %w", err)
		}
		tokens = serve.Tokens(client, td)
	}
	s := &service{o: o, hub: h, svid: svid, bundles: roots{td, dir.Domain(td), h}, metrics: reg}
	if s.query, err = query.New(query.Config{
		Views: func() []query.View {
			if v, ok := h.View(); ok {
				return []query.View{v}
			}
			return nil
		},
		Changed: h.Changed, Problems: h.Loop().Problems, History: h,
		SVID: svid, Bundles: s.bundles, Authorize: query.AuthorizeMembers(o.clusterset), Tokens: tokens, Logger: log, Registerer: reg,
	}); err != nil {
		return err
	}
	if s.admin, err = admin.New(admin.Config{
		Store: policy, Clusters: h.Clusters, Authorize: admin.Users(o.clusterset, administrator), Logger: log,
	}); err != nil {
		return err
	}
	return s.run(ctx)
}

func (o *options) connect(dir mounted.Dir, cert, key, user string, reg prometheus.Registerer, log *slog.Logger) (*etcd.Store, error) {
	cfg, err := dir.Store(cert, key)
	if err != nil {
		return nil, err
	}
	return etcd.New(etcd.Config{
		Endpoints: o.store, TLS: cfg, Logger: log.With("user", user),
		Registerer: prometheus.WrapRegistererWith(prometheus.Labels{"user": user}, reg),
	})
}

// roots are the clusterset's own, and each cluster's as it published them.
type roots struct {
	td     spiffeid.TrustDomain
	domain identity.BundleSource
	hub    *Hub
}

// GetX509BundleForTrustDomain implements identity.BundleSource.
func (r roots) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	if td == r.td {
		return r.domain.GetX509BundleForTrustDomain(td)
	}
	snap := r.hub.Loop().Snapshot()
	if snap == nil {
		return nil, fmt.Errorf("no roots of trust domain %s: the store has not been read yet", td.Name())
	}
	return identity.BundleOf(td, snap.Trust()[td.Name()])
}

// service is a hub with its listeners.
type service struct {
	o       *options
	hub     *Hub
	svid    identity.SVIDSource
	bundles identity.BundleSource
	query   *query.Server
	admin   *admin.Server
	metrics *prometheus.Registry
}

func (s *service) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.hub.Run(ctx) })
	for _, l := range []struct {
		address, flag string
		serve         func(context.Context, net.Listener) error
	}{{s.o.listen, "--listen", s.serveQuery}, {s.o.metrics, "--metrics", s.serveMetrics}, {s.o.probe, "--probe", s.serveProbes}} {
		if l.address == "" {
			continue
		}
		g.Go(func() error {
			listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", l.address)
			if err != nil {
				return fmt.Errorf("%s: %w", l.flag, err)
			}
			return l.serve(ctx, listener)
		})
	}
	if err := g.Wait(); err != nil && (ctx.Err() == nil || !errors.Is(err, context.Canceled)) {
		return err
	}
	return nil
}

// drainTime is what running calls get when the hub ends.
const drainTime = 2 * time.Second

// serveQuery serves the query API, and administration beside it.
func (s *service) serveQuery(ctx context.Context, l net.Listener) error {
	g := grpc.NewServer(append(s.query.Options(), grpc.Creds(credentials.NewTLS(s.query.TLS())))...)
	s.query.Register(g)
	s.admin.Register(g)
	stop := context.AfterFunc(ctx, func() {
		force := time.AfterFunc(drainTime, g.Stop)
		defer force.Stop()
		g.GracefulStop()
	})
	defer stop()
	if err := g.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve the query API: %w", err)
	}
	return nil
}

// member admits the clusterset's own people and hubs.
func (s *service) member(peer identity.Identity) error {
	if peer.TrustDomain.Name() != s.o.clusterset {
		return fmt.Errorf("%s is not of the clusterset's own trust domain", peer)
	}
	return nil
}

func (s *service) serveMetrics(ctx context.Context, l net.Listener) error {
	return serve.HTTP(ctx, l, serve.Metrics(s.metrics), identity.ServerConfig(s.svid, s.bundles, s.member))
}

// serveProbes answers kubelet: ready once there is something to show, however old.
func (s *service) serveProbes(ctx context.Context, l net.Listener) error {
	return serve.HTTP(ctx, l, serve.Probes(serve.Alive, func(context.Context) error {
		if _, ok := s.hub.View(); !ok {
			return errors.New("the store has not been read yet")
		}
		return nil
	}), nil)
}
