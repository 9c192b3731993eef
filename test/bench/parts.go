package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/cmd/causeway/agent"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/gossip"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/federation/store/etcd"
	"github.com/causeway-mesh/causeway/federation/store/etcd/embedded"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// settleTimeout bounds how long a world may take to come to rest: the largest of them
// has 200,000 endpoints, and everything in it shares a machine's processors.
const settleTimeout = 10 * time.Minute

// storePart is etcd, on disk, with fsync, mTLS and users, as in a trial.
type storePart struct{}

func (p *storePart) begin(ctx context.Context, s setup, log *slog.Logger) (started, error) {
	e, err := embedded.New(embedded.Config{Dir: s.Dir, CA: s.Store.CA, Cert: s.Store.Cert, Key: s.Store.Key, Logger: log})
	if err != nil {
		return started{}, err
	}
	if err := e.Start(ctx); err != nil {
		return started{}, err
	}
	return started{Address: e.Endpoint()}, nil
}

func (p *storePart) answer(context.Context, request) (response, error) {
	return response{}, errors.New("the store takes no such request")
}

// connect makes a client of the store.
func connect(s storeSetup, log *slog.Logger) (*etcd.Store, error) {
	pair, err := tls.X509KeyPair(s.Cert, s.Key)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(s.CA) {
		return nil, errors.New("no CA of the store")
	}
	return etcd.New(etcd.Config{
		Endpoints: []string{s.Endpoint}, TLS: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}},
		Logger: log, Registerer: prometheus.NewRegistry(), RequestTimeout: 5 * time.Second,
	})
}

// authority opens the CA of a cluster, which the driver has made.
func authority(w world, c int, dir string, log *slog.Logger) (*identity.Authority, error) {
	td, err := identity.TrustDomain(w.cluster(c), clusterset)
	if err != nil {
		return nil, err
	}
	return identity.OpenAuthority(identity.AuthorityConfig{TrustDomain: td, RootConfig: identity.RootConfig{Dir: dir, Logger: log}})
}

// agentPart is a cluster's agent with its source.
type agentPart struct {
	source *source
	agent  *agent.Agent
	peers  atomic.Pointer[[]string]
	log    *slog.Logger

	mu     sync.Mutex
	served map[string]context.CancelFunc // by proxy id
	failed error                         // why the agent ended
}

func (p *agentPart) begin(ctx context.Context, s setup, log *slog.Logger) (started, error) {
	p.log, p.served = log, map[string]context.CancelFunc{}
	p.peers.Store(&[]string{})
	p.source = newSource(s.World, s.Index)
	for _, e := range s.Edits {
		if _, err := p.source.apply(e); err != nil {
			return started{}, err
		}
	}
	id := s.World.cluster(s.Index)
	ca, err := authority(s.World, s.Index, s.Dir+"/ca", log)
	if err != nil {
		return started{}, err
	}
	store, err := connect(s.Store, log)
	if err != nil {
		return started{}, err
	}
	key, err := gossip.ParseKey(s.Key)
	if err != nil {
		return started{}, err
	}
	xds, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return started{}, err
	}
	dir, err := subdir(s.Dir, "state")
	if err != nil {
		return started{}, err
	}
	p.agent, err = agent.New(agent.Config{
		Cluster: id, Replica: "0", Dir: dir, Store: store, Authority: ca,
		Gossip:   gossip.Config{Bind: netip.MustParseAddrPort("127.0.0.1:0"), Key: key, Join: func() []string { return *p.peers.Load() }, Logger: slog.New(slog.DiscardHandler)},
		Bindings: &bindings{at: map[resolve.FrontendKey]netip.Addr{}}, XDS: xds,
		OnProxies: func(list []translate.Proxy) { p.serve(ctx, list) }, OnChange: func() {},
		Logger: log, Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		return started{}, err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return ca.Run(gctx) })
	g.Go(func() error { return p.agent.Run(gctx) })
	go func() {
		err := g.Wait()
		p.mu.Lock()
		p.failed = fmt.Errorf("the agent ended: %w", err)
		p.mu.Unlock()
		log.Error("the agent ended", "error", err)
	}()
	addr, err := p.agent.GossipAddr(ctx)
	if err != nil {
		return started{}, err
	}
	if err := p.agent.Deliver(ctx, p.source.full(ca.TrustDomain().Name())); err != nil {
		return started{}, err
	}
	return started{Address: xds.Addr().String(), Gossip: addr}, nil
}

// serve gives the proxies that the agent asks for their identities.
func (p *agentPart) serve(ctx context.Context, list []translate.Proxy) {
	p.mu.Lock()
	defer p.mu.Unlock()
	wanted := map[string]bool{}
	for _, x := range list {
		wanted[x.ID()] = true
		if p.served[x.ID()] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		p.served[x.ID()] = cancel
		go func() {
			if err := p.agent.ServeProxy(ctx, x); err != nil && ctx.Err() == nil {
				p.log.Error("proxy is not served", "proxy", x.ID(), "error", err)
			}
		}()
	}
	for id, cancel := range p.served {
		if !wanted[id] {
			cancel()
			delete(p.served, id)
		}
	}
}

func (p *agentPart) answer(ctx context.Context, r request) (out response, err error) {
	p.mu.Lock()
	failed := p.failed
	p.mu.Unlock()
	if failed != nil {
		return out, failed
	}
	switch {
	case r.Edit != nil:
		b, err := p.source.apply(*r.Edit)
		if err != nil {
			return out, err
		}
		out.At = time.Now().UnixNano()
		return out, p.agent.Deliver(ctx, b)
	case r.Burst != nil:
		return p.burst(ctx, *r.Burst)
	case r.Peers != nil:
		p.peers.Store(&r.Peers)
		return out, nil
	case r.Settle != nil:
		ctx, cancel := context.WithTimeout(ctx, settleTimeout)
		defer cancel()
		return p.settle(ctx, *r.Settle)
	}
	return out, errors.New("an agent takes no such request")
}

func (p *agentPart) burst(ctx context.Context, b burst) (out response, err error) {
	began := time.Now()
	out.At = began.UnixNano()
	for i := range b.Count {
		time.Sleep(time.Until(began.Add(b.Within * time.Duration(i) / time.Duration(b.Count))))
		batch, err := p.source.apply(b.edit(p.source.w, i))
		if err != nil {
			return out, err
		}
		out.Until = time.Now().UnixNano()
		if err := p.agent.Deliver(ctx, batch); err != nil {
			return out, err
		}
	}
	return out, nil
}

func (p *agentPart) settle(ctx context.Context, s settle) (out response, err error) {
	if s.Flush {
		if out.Revision, err = p.agent.Flush(ctx); err != nil {
			return out, err
		}
	}
	if s.Revision == 0 {
		return out, nil
	}
	if err := p.agent.Await(ctx, s.Revision); err != nil {
		return out, err
	}
	for {
		changed, synced := p.agent.XDS().Changed(), 0
		for _, x := range p.agent.XDS().Proxies() {
			if x.InSync() {
				synced++
			}
		}
		if synced >= s.Proxies {
			return out, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return out, fmt.Errorf("%d of %d proxies are in sync: %w", synced, s.Proxies, ctx.Err())
		}
	}
}

// bindings is a cluster whose every frontend has an address of its own, the same
// for all proxies, as ClusterIPs are.
type bindings struct {
	mu sync.Mutex
	at map[resolve.FrontendKey]netip.Addr
}

func (b *bindings) Frontend(_ translate.Proxy, key resolve.FrontendKey, _ translate.Transport, port int32) (netip.AddrPort, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a, ok := b.at[key]
	if !ok {
		n := len(b.at) + 1
		a = netip.AddrFrom4([4]byte{172, 16 + byte(n>>16), byte(n >> 8), byte(n)})
		b.at[key] = a
	}
	return netip.AddrPortFrom(a, uint16(port)), true
}

func (b *bindings) Gateway(_ translate.Proxy, _ translate.Transport, port int32) (netip.AddrPort, bool) {
	return netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(port)), true
}

func (b *bindings) Crossing(translate.Proxy) (netip.AddrPort, bool) {
	return netip.AddrPortFrom(netip.IPv4Unspecified(), 15443), true
}

func (b *bindings) Entry(translate.Proxy, resolve.FrontendKey, translate.Transport, int32) (netip.AddrPort, bool) {
	return netip.AddrPort{}, false // the clients have sidecars
}

// hubPart follows the store as a hub does, and resolves the whole set.
type hubPart struct {
	loop   *federation.Loop
	result atomic.Pointer[resolve.Result]
}

func (p *hubPart) begin(ctx context.Context, s setup, log *slog.Logger) (started, error) {
	store, err := connect(s.Store, log)
	if err != nil {
		return started{}, err
	}
	if p.loop, err = federation.NewLoop(federation.LoopConfig{
		Store: store, Logger: log, Registerer: prometheus.NewRegistry(),
		OnSnapshot: func(_ context.Context, snap *federation.Snapshot, changed federation.ChangeSet) {
			if old := p.result.Load(); old != nil {
				next, _ := old.Update(snap, changed)
				p.result.Store(next)
				return
			}
			p.result.Store(resolve.Resolve(cluster.ID(""), snap))
		},
	}); err != nil {
		return started{}, err
	}
	go func() { log.Error("the hub ended", "error", p.loop.Run(ctx)) }()
	return started{}, nil
}

func (p *hubPart) answer(ctx context.Context, r request) (response, error) {
	if r.Settle == nil {
		return response{}, errors.New("the hub takes no such request")
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	return response{}, p.loop.Await(ctx, r.Settle.Revision)
}
