package incluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/causeway-mesh/causeway/api/query"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/attest"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/cluster/kubernetes"
	"github.com/causeway-mesh/causeway/cluster/provision"
	"github.com/causeway-mesh/causeway/cluster/status"
	"github.com/causeway-mesh/causeway/cmd/causeway/agent"
	"github.com/causeway-mesh/causeway/cmd/causeway/hub"
	"github.com/causeway-mesh/causeway/cmd/causeway/mounted"
	"github.com/causeway-mesh/causeway/cmd/causeway/serve"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/federation/store/etcd"
	"github.com/causeway-mesh/causeway/xds/envoy"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// Times of a service.
const (
	// reloadEvery is how soon a replica knows a root that the leader has made. It is
	// far less than identity.DefaultAhead, after which the root signs.
	reloadEvery = 30 * time.Second
	// trustEvery is how often the leader looks at the ConfigMap of the roots.
	trustEvery = time.Minute
	// openEvery is the pause between attempts to get at the authority.
	openEvery = 2 * time.Second
)

// service is an agent of a Kubernetes cluster with its listeners.
type service struct {
	o         *options
	log       *slog.Logger
	metrics   *prometheus.Registry
	dir       mounted.Dir
	client    *kubernetes.Client
	store     *etcd.Store
	authority *identity.Authority
	set       spiffeid.TrustDomain // of the clusterset itself
	source    *kubernetes.Source
	agent     *agent.Agent
	feed      *feed
	runs      *runs
	imports   *agent.Imports
	gateways  *agent.Gateways
	writer    *status.Writer
	attest    *attest.Server
	query     *query.Server
	election  *election
	listeners map[string]net.Listener // by flag

	leading context.Context // ends when the agent is told to stop; set by run

	began    time.Time
	first    sync.Once // that it is ready
	stopping atomic.Bool
	mu       sync.Mutex
	wanted   []translate.Proxy
	changed  cluster.Bell  // rings when anything that is shown changes
	proxies  chan struct{} // 1 deep: wanted has changed
}

// quiet guards client-go's logger, which is the process's: the first agent's is taken.
var quiet sync.Once

// build puts everything together. It waits for the authority alone, without which
// there is nobody to be.
func (o *options) build(ctx context.Context) (_ *service, err error) {
	s := &service{o: o, began: time.Now(), log: o.logger(), metrics: prometheus.NewRegistry(), dir: mounted.Dir(o.credentials), proxies: make(chan struct{}, 1), listeners: map[string]net.Listener{}}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	quiet.Do(func() { klog.SetSlogLogger(slog.New(kubernetes.Details(s.log))) })
	s.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	id := cluster.ID(o.cluster)
	td, err := identity.TrustDomain(id, o.clusterset)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.data, 0o700); err != nil {
		return nil, fmt.Errorf("--data: %w", err)
	}
	for flag, address := range map[string]string{"--xds": o.xds, "--identity": o.identity, "--listen": o.listen, "--metrics": o.metrics, "--probe": o.probe} {
		if address == "" {
			continue
		}
		if s.listeners[flag], err = (&net.ListenConfig{}).Listen(ctx, "tcp", address); err != nil {
			return nil, fmt.Errorf("%s: %w", flag, err)
		}
	}
	cfg, err := kubernetes.LoadConfig(o.kubeconfig, "causeway-agent")
	if err != nil {
		return nil, err
	}
	if s.client, err = kubernetes.NewClient(cfg); err != nil {
		return nil, err
	}
	storeTLS, err := s.storeTLS()
	if err != nil {
		return nil, err
	}
	if s.store, err = etcd.New(etcd.Config{Endpoints: o.store, TLS: storeTLS, Logger: s.log.With("part", "store"), Registerer: s.metrics, RequestTimeout: 5 * time.Second}); err != nil {
		return nil, err
	}
	if s.authority, err = s.openAuthority(ctx, td); err != nil {
		return nil, err
	}
	if err := s.assemble(id); err != nil {
		return nil, err
	}
	return s, nil
}

// assemble makes the parts that depend on nothing but each other.
func (s *service) assemble(id cluster.ID) error {
	o, td := s.o, s.authority.TrustDomain()
	judged := func(refs []cluster.Ref) {
		s.writer.Judged(refs)
		for _, r := range refs {
			if r.Kind == cluster.KindGateway {
				s.runs.touch(provision.Name{Namespace: r.Namespace, Name: r.Name})
			}
		}
	}
	took := &taken{judged: judged, behind: func(n provision.Name) int {
		return s.agent.XDS().Behind(translate.Proxy{Cluster: id, Role: translate.RoleGateway, Namespace: n.Namespace, Name: n.Name}.ID())
	}}
	s.feed = &feed{taken: took, local: id, runs: func(names ...provision.Name) { s.runs.touch(names...) }, experimental: func() bool { return s.source.Experimental() }, standing: func(ns, name string) (provision.Standing, bool) { return s.imports.Standing(ns, name) }, gateway: func(ns, name string) (provision.GatewayStanding, bool) { return s.gateways.Standing(ns, name) }, judged: judged, need: func(refs []cluster.Ref) { s.source.Need(refs) }}
	g, err := s.dir.GossipConfig(o.gossip, o.advertise, o.join, s.log.With("part", "gossip"))
	if err != nil {
		return err
	}
	ids, err := identity.NewMetrics(s.metrics)
	if err != nil {
		return err
	}
	if s.election, err = newElection(s.client, o.namespace, o.replica, s.log); err != nil {
		return err
	}
	bind, err := o.bindTo()
	if err != nil {
		return err
	}
	if s.source, err = kubernetes.New(kubernetes.Config{
		Cluster: id, Client: s.client, CrossingService: o.crossingService, Dir: o.data, OnLive: s.touch, Logger: s.log.With("part", "source"), Registerer: s.metrics,
		Meta: cluster.Meta{Region: o.region, Zone: o.zone, Network: o.network, TrustDomain: td.Name()},
	}); err != nil {
		return err
	}
	if s.writer, err = status.NewWriter(status.Config{Live: s.source.Live, Judge: s.feed.judge, Patch: s.client.PatchStatus, Logger: s.log.With("part", "status"), Registerer: s.metrics}); err != nil {
		return err
	}
	if s.imports, err = agent.NewImports(agent.ImportsConfig{
		Cluster: id, Client: s.client, CrossingPods: o.crossingPods, IPv6: bind.Is6(), Dir: o.data,
		Rebind: func(frontends []string) { s.agent.Rebind(frontends) }, OnStanding: s.writer.Judged, Logger: s.log.With("part", "imports"), Registerer: s.metrics,
	}); err != nil {
		return err
	}
	if s.gateways, err = agent.NewGateways(agent.GatewaysConfig{
		Cluster: id, Client: s.client, Authority: s.authority, UID: s.uid, OnStanding: judged, Logger: s.log.With("part", "gateways"), Registerer: s.metrics,
		Settings: provision.GatewaySettings{Clusterset: o.clusterset, Region: o.region, Zone: o.zone, Image: o.gatewayImage, PullPolicy: corev1.PullPolicy(o.gatewayPull), Replicas: o.gatewayReplicas},
	}); err != nil {
		return err
	}
	if s.agent, err = agent.New(agent.Config{
		Cluster: id, Replica: o.replica, Dir: o.data, Store: s.store, Authority: s.authority, Identity: ids, Gossip: g,
		Bindings: &bindings{addr: bind, crossing: o.crossingPort, entries: s.imports}, Options: translate.Options{SystemRoots: envoy.SystemRoots()},
		XDS: s.listeners["--xds"], Drain: o.drain, OnProxies: s.want, OnChange: s.notify, OnResult: s.follow,
		Elect: s.elect,
		// The Service of the chart, and what kubectl port-forward listens on.
		Names:  []string{"causeway-agent." + o.namespace + ".svc", "causeway-agent." + o.namespace + ".svc.cluster.local", "localhost"},
		Addrs:  []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()},
		Logger: s.log, Registerer: s.metrics,
	}); err != nil {
		return err
	}
	s.runs = &runs{local: id, result: s.feed.latest.Load, to: s.agent.Publisher(), here: func(res *resolve.Result, home cluster.ID, n provision.Name) (*status.Verdict, bool) {
		return s.feed.here(res, home, n.Ref(cluster.KindGateway))
	}}
	audience := attest.Audience(td)
	if s.attest, err = attest.NewServer(attest.Config{
		Authority: s.authority, Server: s.agent.SVID(), Entitled: attest.Roles{Crossing: o.crossing(), Gateway: s.gateways.Account}.Entitled, Logger: s.log.With("part", "identity"), Registerer: s.metrics,
		Review: func(ctx context.Context, token string) (attest.Account, error) {
			return s.client.ReviewToken(ctx, token, audience)
		},
	}); err != nil {
		return err
	}
	set, err := identity.ClustersetDomain(o.clusterset)
	if err != nil {
		return err
	}
	s.set = set
	s.query, err = query.New(query.Config{
		Views: func() []query.View {
			return []query.View{{Cluster: id, Result: s.agent.Result(), Confirmed: hub.Confirmed(s.agent.Loop())}}
		},
		Changed: s.waiting, Problems: func() []cluster.Problem {
			return slices.Concat(s.agent.Problems(), s.imports.Problems(), s.gateways.Problems())
		},
		Proxies: func() []query.Proxy { return agent.Proxies(s.agent, s.served()) },
		SVID:    s.agent.SVID(), Bundles: callers{set, s.dir.Domain(set), s.agent.Bundles()}, Authorize: query.AuthorizeMembers(o.clusterset),
		Tokens: serve.Tokens(s.client, td),
		Logger: s.log.With("part", "query"), Registerer: s.metrics,
	})
	return err
}

// callers are the roots of who may call the query API: the clusterset's own, and each
// cluster's.
type callers struct {
	set      spiffeid.TrustDomain
	domain   identity.BundleSource
	clusters identity.BundleSource
}

// GetX509BundleForTrustDomain implements identity.BundleSource.
func (c callers) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	if td == c.set {
		return c.domain.GetX509BundleForTrustDomain(td)
	}
	return c.clusters.GetX509BundleForTrustDomain(td)
}

// storeTLS is the way into the store. A certificate for another cluster is refused
// here, with words that etcd hasn't got; one that has expired is told of.
func (s *service) storeTLS() (cfg *tls.Config, err error) {
	if cfg, err = s.dir.Store(mounted.StoreCert, mounted.StoreKey); err != nil {
		return nil, err
	}
	path := filepath.Join(s.o.credentials, mounted.StoreCert)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	expiry := prometheus.NewGauge(prometheus.GaugeOpts{Name: "causeway_agent_store_certificate_expiry_timestamp_seconds", Help: "When the certificate that lets the agent into the store expires, in seconds since the epoch."})
	if err := s.metrics.Register(expiry); err != nil {
		return nil, err
	}
	leaf, err := checkStoreCertificate(path, data, cluster.ID(s.o.cluster))
	if err != nil {
		return nil, err
	}
	expiry.Set(float64(leaf.NotAfter.Unix()))
	if time.Now().After(leaf.NotAfter) {
		// The store will refuse it. What is known of the other clusters is served on.
		s.log.Error("the certificate that lets this agent into the store has expired: call `causeway cluster add` for this cluster again and replace the Secret", "file", path, "expired", leaf.NotAfter)
	}
	return cfg, nil
}

// checkStoreCertificate tells whether a certificate is that of a cluster's agents.
func checkStoreCertificate(path string, data []byte, id cluster.ID) (*x509.Certificate, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s holds no certificate in PEM", path)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if want := etcd.AgentUser(string(id)); leaf.Subject.CommonName != want {
		return nil, fmt.Errorf("%s is the certificate of the store's user %q, and this cluster is called %q: install what `causeway cluster add %s` printed, or correct --cluster", path, leaf.Subject.CommonName, id, id)
	}
	return leaf, nil
}

// openAuthority gets at the cluster's certificate authority, or makes it; it tries
// until it is there.
func (s *service) openAuthority(ctx context.Context, td spiffeid.TrustDomain) (*identity.Authority, error) {
	storage, err := s.client.SecretStorage(s.o.namespace, kubernetes.AuthoritySecret, filepath.Join(s.o.data, "authority.pem"))
	if err != nil {
		return nil, err
	}
	for {
		a, err := identity.OpenAuthority(identity.AuthorityConfig{TrustDomain: td, RootConfig: identity.RootConfig{Storage: storage, Logger: s.log}})
		if err == nil {
			return a, nil
		}
		s.log.Error("the cluster's certificate authority can't be opened; it is tried again", "in", openEvery, "error", err)
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(openEvery):
		}
	}
}

// follow hands each Result to those who make something of it.
func (s *service) follow(res *resolve.Result, delta resolve.Delta) {
	s.feed.follow(res, delta)
	s.imports.OnResult(res, delta)
	s.gateways.OnResult(res, delta)
}

// touch passes on of which objects the API server has something new.
func (s *service) touch(refs []cluster.Ref) {
	kept := refs[:0:0]
	for _, r := range refs {
		if r.Kind != cluster.KindService { // whose status is another's
			kept = append(kept, r)
		}
	}
	s.writer.Touch(kept)
	s.gateways.Touch(kept)
}

// uid gives that of an object whose status the agent writes.
func (s *service) uid(ref cluster.Ref) (types.UID, bool) {
	live, ok := s.source.Live(ref)
	if !ok {
		return "", false
	}
	return live.UID, true
}

// want is told which Envoys the cluster needs. Sidecars have no pods yet.
func (s *service) want(list []translate.Proxy) {
	var kept []translate.Proxy
	for _, p := range list {
		if p.Role != translate.RoleSidecar {
			kept = append(kept, p)
		}
	}
	s.mu.Lock()
	s.wanted = kept
	s.mu.Unlock()
	select {
	case s.proxies <- struct{}{}:
	default:
	}
}

func (s *service) served() []translate.Proxy {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wanted
}

func (s *service) notify() { s.changed.Ring() }

func (s *service) waiting() <-chan struct{} { return s.changed.Next() }

// close gives back what build took, for a service that does not run.
func (s *service) close() {
	for _, l := range s.listeners {
		if l != nil {
			_ = l.Close()
		}
	}
	if s.store != nil {
		_ = s.store.Close()
	}
}

// run serves until ctx ends, and then hands over.
func (s *service) run(ctx context.Context) error {
	defer s.store.Close()
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, serving := errgroup.WithContext(serving)
	s.leading = ctx
	context.AfterFunc(ctx, func() {
		s.stopping.Store(true)
		s.log.Info("stopping: other agents take over", "served for", s.o.handover)
		select {
		case <-serving.Done():
		case <-time.After(s.o.handover):
		}
		stop()
	})
	// Envoys keep their configuration while their streams drain.
	draining, drained := context.WithCancel(context.WithoutCancel(serving))
	defer drained()
	g.Go(func() error {
		defer drained()
		return s.agent.Run(serving)
	})
	g.Go(func() error { return s.source.Run(serving, s.agent) })
	g.Go(func() error { return s.imports.Watch(serving) })
	g.Go(func() error { return s.serveProxies(draining) })
	g.Go(func() error { s.feed.taken.follow(serving, s.agent.XDS().Changed); return nil })
	g.Go(func() error { s.feed.admission(serving, s.agent.Loop().Leases); return nil })
	g.Go(func() error { return s.reload(serving) })
	g.Go(func() error { return s.attestation(serving) })
	g.Go(func() error { return s.query.Run(serving, s.listeners["--listen"]) })
	if l := s.listeners["--metrics"]; l != nil {
		g.Go(func() error { return serve.HTTP(serving, l, serve.Metrics(s.metrics), s.metricsTLS()) })
	}
	if l := s.listeners["--probe"]; l != nil {
		g.Go(func() error { return serve.HTTP(serving, l, serve.Probes(s.live, s.ready), nil) })
	}
	err := g.Wait()
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil
	}
	return err
}

func (s *service) attestation(ctx context.Context) error {
	if _, err := s.agent.SVID().Wait(ctx); err != nil {
		_ = s.listeners["--identity"].Close()
		return nil
	}
	return s.attest.Run(ctx, s.listeners["--identity"])
}

// serveProxies gives each wanted Envoy its configuration, until ctx ends. It waits for
// the entry ports: an Envoy that is told of none closes those that it has.
func (s *service) serveProxies(ctx context.Context) error {
	for !s.imports.Ready() {
		if cluster.Pause(ctx, 20*time.Millisecond) != nil {
			return nil
		}
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	running := map[translate.Proxy]context.CancelFunc{}
	for {
		want := map[translate.Proxy]bool{}
		for _, p := range s.served() {
			want[p] = true
			if running[p] != nil {
				continue
			}
			pctx, cancel := context.WithCancel(ctx)
			running[p] = cancel
			wg.Go(func() {
				defer cancel()
				if err := s.agent.ServeProxy(pctx, p); err != nil && pctx.Err() == nil {
					s.log.Error("Envoy is not served", "proxy", p.ID(), "error", err)
				}
			})
		}
		for p, cancel := range running {
			if !want[p] {
				cancel()
				delete(running, p)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.proxies:
		}
	}
}

// reload takes over what the leader makes of the authority, until ctx ends.
func (s *service) reload(ctx context.Context) error {
	ticker := time.NewTicker(reloadEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := s.authority.Reload(); err != nil {
			s.log.Warn("the cluster's certificate authority can't be read again; it stays as it was", "error", err)
		}
	}
}
