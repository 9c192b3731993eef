package up

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/file"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/cluster/workload"
	"github.com/causeway-mesh/causeway/cmd/causeway/agent"
	"github.com/causeway-mesh/causeway/federation/gossip"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/federation/store/etcd/embedded/port"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// member is one cluster of a `causeway up`: its source and its Envoys, which live
// as long as its folder, and its agent, which a fault may stop and start.
type member struct {
	s         *supervisor
	id        cluster.ID
	log       *slog.Logger
	authority *identity.Authority
	bindings  *bindings
	source    *file.Source
	relay     *relay
	xds       *port.Reservation // the same for every incarnation of the agent
	crossing  translate.Proxy

	cancel context.CancelFunc
	done   chan struct{}

	// ctl is held while the agent is started or stopped; mu only guards what follows.
	ctl    sync.Mutex
	mu     sync.Mutex
	agent  *agent.Agent // nil while a fault has stopped it
	stopA  func()       // stops the agent and waits for it
	last   *resolve.Result
	wanted []translate.Proxy
	envoys map[string]*running // by proxy id
	broken bool                // the crossing gateway is stopped on purpose
	ctx    context.Context
	reeval chan struct{} // 1 deep: wanted, agent or broken changed
	asked  int           // counts the starts and stops of the agent that were asked for
}

func newMember(s *supervisor, id cluster.ID) (*member, error) {
	log := s.log.With("cluster", string(id))
	if err := os.MkdirAll(s.dir.cluster(id), 0o700); err != nil {
		return nil, err
	}
	m := &member{s: s, id: id, log: log, relay: newRelay(), done: make(chan struct{}), envoys: map[string]*running{}, reeval: make(chan struct{}, 1),
		crossing: agent.Crossing(id)}
	var err error
	if m.authority, err = s.trust.cluster(id); err != nil {
		return nil, err
	}
	m.bindings = newBindings(s.pool, s.low, log)
	at, ok := m.bindings.Crossing(m.crossing)
	if !ok {
		return nil, errors.New("no address for the crossing gateway")
	}
	cfg := file.Config{
		Cluster: id, Dir: s.folder(id), Prefix: string(id), Logger: log, Schemas: s.schemas, Registerer: s.metrics.part("source-" + string(id)),
		Meta: func(meta cluster.Meta) cluster.Meta {
			meta.TrustDomain = m.authority.TrustDomain().Name()
			meta.Crossing = []string{at.String()}
			return meta
		},
	}
	if s.o.workloads {
		if cfg.Workloads, err = workload.New(workload.Config{Cluster: id, Addresses: podAddresses{m}, Logger: log, LowestPort: s.low}); err != nil {
			return nil, err
		}
	}
	if m.source, err = file.New(cfg); err != nil {
		return nil, err
	}
	// The port stays with the member: its Envoys' bootstraps name it.
	if m.xds, err = port.Reserve(0); err != nil {
		return nil, fmt.Errorf("listen for xDS: %w", err)
	}
	return m, nil
}

// podAddresses gives pods of one cluster their addresses out of the common pool.
type podAddresses struct{ m *member }

func (p podAddresses) Addr(key string) (netip.Addr, error) {
	return p.m.s.pool.Addr(string(p.m.id) + " " + key)
}
func (p podAddresses) Release(key string) { p.m.s.pool.Release(string(p.m.id) + " " + key) }

// start runs the member until stop.
func (m *member) start(ctx context.Context) {
	ctx, m.cancel = context.WithCancel(ctx)
	m.ctx = ctx
	name := string(m.id)
	m.s.trial.add("agent/"+name, &part{
		description: "stops the cluster's control plane; its Envoys and workloads go on",
		set: func(ctx context.Context, broken bool) error {
			if broken {
				m.stopAgent()
				return nil
			}
			return m.startAgent()
		},
	})
	m.s.trial.add("crossing/"+name, &part{
		description: "stops the cluster's crossing gateway; with the agent stopped too, the others find the cluster dead",
		set: func(_ context.Context, broken bool) error {
			m.mu.Lock()
			m.broken = broken
			m.mu.Unlock()
			m.wake()
			return nil
		},
	})
	go func() {
		defer close(m.done)
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return m.authority.Run(ctx) })
		g.Go(func() error { return m.source.Run(ctx, m.relay) })
		g.Go(func() error { return m.supervise(ctx) })
		if err := m.startAgent(); err != nil && ctx.Err() == nil {
			m.log.Error("the agent does not start; it is tried again", "error", err)
			m.ctl.Lock()
			go m.revive(m.asked)
			m.ctl.Unlock()
		}
		if err := g.Wait(); err != nil && ctx.Err() == nil {
			m.log.Error("cluster stopped", "error", err)
		}
	}()
}

// stop ends the member and waits for it.
func (m *member) stop() {
	m.s.trial.remove("agent/"+string(m.id), "crossing/"+string(m.id))
	// First the context: a start that waits for something gives up.
	m.cancel()
	m.stopAgent()
	<-m.done
	m.bindings.release()
	_ = m.xds.Close()
}

// startAgent runs the agent, and a new incarnation of it whenever it ends by itself.
func (m *member) startAgent() error {
	m.ctl.Lock()
	defer m.ctl.Unlock()
	if m.current() != nil || m.ctx.Err() != nil {
		return nil
	}
	m.asked++
	return m.runAgent()
}

// runAgent starts one incarnation. m.ctl is held.
func (m *member) runAgent() error {
	ctx, cancel := context.WithCancel(m.ctx)
	g, ctx := errgroup.WithContext(ctx)
	part := "agent-" + string(m.id)
	reg := m.s.metrics.part(part)
	store, err := m.s.storeClient(ctx, g, part, agentUser(m.id), reg)
	if err != nil {
		cancel()
		return err
	}
	xds, err := net.Listen("tcp", m.xds.Address())
	if err != nil {
		cancel()
		return errors.Join(fmt.Errorf("listen for xDS: %w", err), store.Close())
	}
	a, err := agent.New(agent.Config{
		Cluster: m.id, Replica: "0", Dir: m.s.dir.cluster(m.id), Store: store, Authority: m.authority, Identity: m.s.trust.metrics,
		Gossip:   gossip.Config{Bind: netip.MustParseAddrPort("127.0.0.1:0"), Key: m.s.key, Join: m.s.peerList, Timing: gossip.Local(), Logger: m.s.quiet.With("part", part)},
		Bindings: m.bindings, Options: proxyOptions(), XDS: xds,
		OnProxies: m.want, OnChange: m.s.notify, Logger: m.log, Registerer: reg,
	})
	if err != nil {
		cancel()
		return errors.Join(err, xds.Close(), store.Close())
	}
	g.Go(func() error { return a.Run(ctx) })
	g.Go(func() error {
		addr, err := a.GossipAddr(ctx)
		if err == nil {
			m.s.addPeer(addr)
		}
		return nil
	})
	g.Go(func() error { return m.relay.attach(ctx, a) })
	ended, stopping, generation := make(chan struct{}), make(chan struct{}), m.asked
	go func() {
		defer close(ended)
		err := ignoreCanceled(g.Wait())
		m.relay.detach()
		err = errors.Join(err, store.Close())
		select {
		case <-stopping:
		case <-m.ctx.Done():
		default:
			m.log.Error("the agent ended by itself and is started again", "error", err)
			go m.revive(generation)
		}
		m.s.notify()
	}()
	m.mu.Lock()
	m.agent = a
	m.stopA = func() { close(stopping); cancel(); <-ended }
	m.mu.Unlock()
	m.wake()
	return nil
}

// revivePause is the time between an agent's end and its next start.
const revivePause = time.Second

// revive starts the agent again, until that works or somebody asks for something else.
func (m *member) revive(generation int) {
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-time.After(revivePause):
		}
		again := func() bool {
			m.ctl.Lock()
			defer m.ctl.Unlock()
			if m.asked != generation || m.ctx.Err() != nil {
				return false
			}
			m.forgetAgent()
			err := m.runAgent()
			if err != nil {
				m.log.Error("the agent does not start", "error", err)
			}
			return err != nil
		}()
		if !again {
			return
		}
	}
}

// forgetAgent drops the agent that has ended; what it resolved last is kept.
func (m *member) forgetAgent() (stop func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.agent != nil {
		m.last = m.agent.Result()
	}
	stop = m.stopA
	m.agent, m.stopA = nil, nil
	return stop
}

// stopAgent ends the agent, if one runs, and waits for it.
func (m *member) stopAgent() {
	m.ctl.Lock()
	defer m.ctl.Unlock()
	m.asked++
	stop := m.forgetAgent()
	if stop != nil {
		stop()
	}
	m.wake()
	m.s.notify()
}

// current is the running agent, nil if there is none.
func (m *member) current() *agent.Agent {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.agent
}

// lastResult is what the stopped agent had resolved last, nil if nothing.
func (m *member) lastResult() *resolve.Result {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

// want is told which Envoys the cluster needs. The agent calls it.
func (m *member) want(list []translate.Proxy) {
	m.mu.Lock()
	m.wanted = list
	m.mu.Unlock()
	m.wake()
}

// proxies lists the Envoys that the cluster needs.
func (m *member) proxies() []translate.Proxy {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.wanted)
}

func (m *member) wake() {
	select {
	case m.reeval <- struct{}{}:
	default:
	}
}

// barrier takes in all that can be seen in the folder now and returns the store
// revision that includes it.
func (m *member) barrier(ctx context.Context) (int64, error) {
	if err := m.source.Sync(ctx); err != nil {
		return 0, fmt.Errorf("cluster %s: read the folder: %w", m.id, err)
	}
	a := m.current()
	if a == nil {
		return 0, nil // stopped on purpose; status says so by the cluster's health
	}
	rev, err := a.Flush(ctx)
	if err != nil && !a.Loop().Connected() {
		return 0, fmt.Errorf("cluster %s: the store is away, what is new waits for it: %w", m.id, err)
	}
	if err != nil {
		return 0, fmt.Errorf("cluster %s: publish to the store: %w", m.id, err)
	}
	return rev, nil
}
