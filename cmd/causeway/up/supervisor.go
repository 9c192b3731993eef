package up

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/file"
	"github.com/causeway-mesh/causeway/cluster/provision/loopback"
	"github.com/causeway-mesh/causeway/federation/gossip"
	"github.com/causeway-mesh/causeway/federation/store/etcd"
	"github.com/causeway-mesh/causeway/federation/store/etcd/embedded"
)

// supervisor runs the parts of one `causeway up` and knows what exists.
type supervisor struct {
	o       options
	envoy   string
	dir     *stateDir
	log     *slog.Logger
	quiet   *slog.Logger // for parts that warn too easily
	out     io.Writer
	pool    *loopback.Pool
	low     uint16
	trust   *trust
	metrics *gatherer
	schemas *file.Schemas
	trial   *trial
	key     gossip.Key
	api     net.Listener

	ctx    context.Context  // of the parts
	server *embedded.Server // nil with an external store
	admin  *etcd.Store      // nil with an external store
	hub    *hub
	// metricsAddr is where metrics are served, nil as long as they are not.
	metricsAddr atomic.Pointer[string]

	following sync.Mutex // held while clusters join and leave

	mu      sync.Mutex
	members map[cluster.ID]*member
	changed cluster.Bell // rings when anything that is shown changes
	peers   []string     // gossip addresses
}

func newSupervisor(o options, envoyPath string, dir *stateDir, log, quiet *slog.Logger, out io.Writer) (*supervisor, error) {
	s := &supervisor{
		o: o, envoy: envoyPath, dir: dir, log: log, quiet: quiet, out: out,
		pool: loopback.NewPool(), low: loopback.LowestPort(), metrics: newGatherer(), schemas: file.NewSchemas(),
		trial: newTrial(), key: gossip.NewKey(), members: map[cluster.ID]*member{},
	}
	var err error
	if s.trust, err = newTrust(o.clusterset, o.store != "embedded", dir, s.metrics.part("process"), log); err != nil {
		return nil, err
	}
	return s, nil
}

// run starts everything in order and stops it in the opposite one.
func (s *supervisor) run(ctx context.Context, names []cluster.ID) (err error) {
	defer func() { err = errors.Join(err, s.pool.Close()) }()
	// The parts outlive ctx a little, so that they can be stopped in order.
	parts, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, parts := errgroup.WithContext(parts)
	s.ctx = parts
	g.Go(func() error { return s.trust.run(parts) })

	fail := func(err error) error {
		stop()
		return errors.Join(err, ignoreCanceled(g.Wait()))
	}
	if err := s.startStore(parts, g, names); err != nil {
		return fail(err)
	}
	if s.server != nil {
		defer func() { err = errors.Join(err, s.server.Close()) }()
		defer func() { err = errors.Join(err, s.admin.Close()) }()
	}
	if s.api, err = listenAPI(s.o.listen); err != nil {
		return fail(err)
	}
	if s.hub, err = newHub(parts, s, g); err != nil {
		return fail(err)
	}
	for _, id := range names {
		if err := s.join(parts, id); err != nil {
			return fail(err)
		}
	}
	g.Go(func() error { return s.hub.serve(parts) })
	g.Go(func() error { return s.announce(parts) })
	g.Go(func() error { return s.watchFolders(parts) })

	select {
	case <-ctx.Done():
		fmt.Fprintln(s.out, "stopping")
	case <-parts.Done(): // a part ended on its own
	}
	s.leaveAll()
	stop()
	return ignoreCanceled(g.Wait())
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// startStore runs the embedded etcd and sets up its users, or checks what the
// user named.
func (s *supervisor) startStore(ctx context.Context, g *errgroup.Group, names []cluster.ID) error {
	if s.o.store != "embedded" {
		_, err := etcd.ParseURL(s.o.store)
		return err
	}
	cert, err := s.trust.storeServer()
	if err != nil {
		return err
	}
	ca, _ := s.trust.store.BundlePEM()
	if s.server, err = embedded.New(embedded.Config{
		Dir: s.dir.join("etcd"), CA: ca, Cert: cert.CertPEM(), Key: cert.KeyPEM(), Logger: s.quiet.With("part", "etcd"),
	}); err != nil {
		return err
	}
	if err := s.server.Start(ctx); err != nil {
		return fmt.Errorf("start the embedded etcd: %w", err)
	}
	if s.admin, err = s.storeClient(ctx, g, "admin", etcd.AdminUser, nil); err != nil {
		return err
	}
	var list []string
	for _, id := range names {
		list = append(list, string(id))
	}
	if err := etcd.Bootstrap(ctx, s.admin, list...); err != nil {
		return fmt.Errorf("set up the store's users: %w", err)
	}
	s.trial.add("store", &part{
		description: "stops the embedded etcd; no data plane may notice",
		set: func(_ context.Context, broken bool) error {
			if broken {
				s.server.Stop()
				return nil
			}
			// The server outlives the call that starts it.
			return s.server.Start(ctx)
		},
	})
	return nil
}

// storeClient connects one user to the store. The certificate is kept fresh as
// long as ctx lives.
func (s *supervisor) storeClient(ctx context.Context, g *errgroup.Group, part, user string, reg prometheus.Registerer) (*etcd.Store, error) {
	if reg == nil {
		reg = s.metrics.part(part)
	}
	cfg := etcd.Config{Logger: s.log.With("part", part), Registerer: reg, RequestTimeout: 5 * time.Second}
	if s.server == nil {
		var err error
		if cfg.Endpoints, err = etcd.ParseURL(s.o.store); err != nil {
			return nil, err
		}
		if cfg.TLS, err = fileTLS(s.o.storeCA, s.o.storeCert, s.o.storeKey); err != nil {
			return nil, err
		}
		return etcd.New(cfg)
	}
	tlsConfig, rotator, err := s.trust.storeClient(user)
	if err != nil {
		return nil, err
	}
	g.Go(func() error { return rotator.Run(ctx) })
	if _, err := rotator.Wait(ctx); err != nil {
		return nil, err
	}
	cfg.Endpoints, cfg.TLS = []string{hostPort(s.server.Endpoint())}, tlsConfig
	return etcd.New(cfg)
}

func hostPort(endpoint string) string {
	if u, err := url.Parse(endpoint); err == nil && u.Host != "" {
		return u.Host
	}
	return endpoint
}

// join starts a cluster.
func (s *supervisor) join(ctx context.Context, id cluster.ID) error {
	m, err := newMember(s, id)
	if err != nil {
		return fmt.Errorf("cluster %s: %w", id, err)
	}
	s.mu.Lock()
	s.members[id] = m
	s.mu.Unlock()
	m.start(ctx)
	s.notify()
	return nil
}

// leave stops a cluster whose folder is gone and removes what it published: the
// person who removed the folder said so.
func (s *supervisor) leave(ctx context.Context, id cluster.ID) error {
	s.mu.Lock()
	m := s.members[id]
	delete(s.members, id)
	s.mu.Unlock()
	m.stop()
	s.notify()
	if s.admin == nil {
		return nil
	}
	if _, err := etcd.RemoveCluster(ctx, s.admin, string(id)); err != nil {
		return fmt.Errorf("remove cluster %s from the store: %w", id, err)
	}
	return nil
}

func (s *supervisor) leaveAll() {
	var wg sync.WaitGroup
	for _, m := range s.list() {
		wg.Go(m.stop)
	}
	wg.Wait()
}

// list gives the members, sorted.
func (s *supervisor) list() []*member {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*member
	for _, id := range slices.Sorted(maps.Keys(s.members)) {
		out = append(out, s.members[id])
	}
	return out
}

// notify wakes whoever waits for a change of what is shown.
func (s *supervisor) notify() { s.changed.Ring() }

// waiting gives the channel that the next notify closes.
func (s *supervisor) waiting() <-chan struct{} { return s.changed.Next() }

// addPeer remembers a gossip address that others may join.
func (s *supervisor) addPeer(addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.peers, addr) {
		s.peers = append(s.peers, addr)
	}
}

// peerList gives the gossip addresses known so far.
func (s *supervisor) peerList() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.peers)
}

// watchFolders lets clusters join and leave as their folders come and go.
func (s *supervisor) watchFolders(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(2 * time.Second):
		}
		if err := s.folders(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("clusters can't follow their folders", "error", err)
		}
	}
}

// folders compares the folders with the members once.
func (s *supervisor) folders(ctx context.Context) error {
	s.following.Lock()
	defer s.following.Unlock()
	names, err := clusterFolders(s.o.dir)
	if err != nil {
		return err // an empty or unreadable folder removes nobody: stale beats partial
	}
	var errs []error
	for _, m := range s.list() {
		if !slices.Contains(names, m.id) {
			fmt.Fprintf(s.out, "cluster %s leaves: its folder is gone\n", m.id)
			errs = append(errs, s.leave(ctx, m.id))
		}
	}
	for _, id := range names {
		s.mu.Lock()
		_, known := s.members[id]
		s.mu.Unlock()
		if known {
			continue
		}
		fmt.Fprintf(s.out, "cluster %s joins\n", id)
		if s.admin != nil {
			if err := etcd.Bootstrap(ctx, s.admin, s.names(id)...); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		errs = append(errs, s.join(ctx, id))
	}
	return errors.Join(errs...)
}

func (s *supervisor) names(more ...cluster.ID) []string {
	var out []string
	for _, m := range s.list() {
		out = append(out, string(m.id))
	}
	for _, id := range more {
		out = append(out, string(id))
	}
	return out
}

// folder is where a cluster's manifests are.
func (s *supervisor) folder(id cluster.ID) string { return filepath.Join(s.o.dir, string(id)) }
