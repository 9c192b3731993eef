package up

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/cmd/causeway/agent"
	"github.com/causeway-mesh/causeway/xds/envoy"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// proxyOptions are those of a trial: answers say which route governed them.
func proxyOptions() translate.Options {
	return translate.Options{DebugHeaders: true, SystemRoots: envoy.SystemRoots()}
}

// running is one Envoy with what keeps it running.
type running struct {
	proxy translate.Proxy
	stop  context.CancelFunc
	done  chan struct{}
	// served is the agent that serves it, with what ends that.
	served  *agent.Agent
	unserve func()
}

// supervise keeps the Envoys as the agent wants them, until ctx ends. Envoys
// outlive an agent that a fault has stopped.
//
// One that is not wanted any more ends before another of its name starts: they
// would have one address, and what the agent serves goes by the name.
func (m *member) supervise(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer m.stopEnvoys()
	ending := map[string]<-chan struct{}{}
	for {
		m.mu.Lock()
		wanted, current, broken := m.wanted, m.agent, m.broken
		m.mu.Unlock()
		for id, gone := range ending {
			select {
			case <-gone:
				delete(ending, id)
			default:
			}
		}
		keep := map[string]bool{}
		for _, p := range wanted {
			if broken && p == m.crossing {
				continue
			}
			keep[p.ID()] = true
			r, ok := m.envoys[p.ID()]
			if !ok {
				if _, ok := ending[p.ID()]; ok {
					continue // its end wakes us
				}
				var err error
				if r, err = m.startEnvoy(ctx, p); err != nil {
					m.log.Error("Envoy does not start", "proxy", p.ID(), "error", err)
					continue
				}
				m.envoys[p.ID()] = r
			}
			m.serveEnvoy(ctx, r, current)
		}
		for id, r := range m.envoys {
			if !keep[id] {
				delete(m.envoys, id)
				gone := make(chan struct{})
				ending[id] = gone
				wg.Go(func() {
					r.end()
					close(gone)
					m.wake()
				})
			}
		}
		m.s.notify()
		select {
		case <-ctx.Done():
			return nil
		case <-m.reeval:
		}
	}
}

func (m *member) stopEnvoys() {
	var wg sync.WaitGroup
	for _, r := range m.envoys {
		wg.Go(r.end)
	}
	wg.Wait()
}

func (r *running) end() {
	r.stop()
	<-r.done
	if r.unserve != nil {
		r.unserve()
	}
}

// serveEnvoy lets the agent serve the Envoy, in place of an earlier one.
func (m *member) serveEnvoy(ctx context.Context, r *running, a *agent.Agent) {
	if r.served == a {
		return
	}
	if r.unserve != nil {
		r.unserve()
		r.unserve = nil
	}
	r.served = a
	if a == nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := a.ServeProxy(ctx, r.proxy); err != nil && ctx.Err() == nil {
			m.log.Error("Envoy is not served", "proxy", r.proxy.ID(), "error", err)
		}
	}()
	r.unserve = func() { cancel(); <-done }
}

// startEnvoy writes the bootstrap and runs the process with its certificates.
func (m *member) startEnvoy(ctx context.Context, p translate.Proxy) (*running, error) {
	dir := m.s.dir.proxy(p)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	id, err := agent.ProxyID(m.authority, p)
	if err != nil {
		return nil, err
	}
	certs := filepath.Join(dir, "certs")
	rotator, err := identity.NewRotator(identity.RotatorConfig{
		Name: "proxy-" + p.ID(),
		Issue: func(context.Context) (*identity.Credential, error) {
			return m.authority.Issue(identity.SVIDRequest{ID: id})
		},
		Dir: certs,
		Trust: func() ([]byte, <-chan struct{}) {
			b, changed := m.authority.WatchBundle()
			return identity.BundlePEM(b), changed
		},
		Logger: m.log, Metrics: m.s.trust.metrics,
	})
	if err != nil {
		return nil, err
	}
	server, err := identity.AgentID(m.authority.TrustDomain())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &running{proxy: p, stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		defer cancel()
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return rotator.Run(ctx) })
		g.Go(func() error {
			if _, err := rotator.Wait(ctx); err != nil {
				return nil
			}
			return m.runEnvoy(ctx, p, dir, certs, server.String())
		})
		if err := g.Wait(); err != nil && ctx.Err() == nil {
			m.log.Error("Envoy ended", "proxy", p.ID(), "error", err)
		}
	}()
	return r, nil
}

// runEnvoy writes the bootstrap and runs the process until ctx ends.
func (m *member) runEnvoy(ctx context.Context, p translate.Proxy, dir, certs, server string) error {
	// Names of unix sockets are short: a hash stands for the proxy.
	sum := sha256.Sum256([]byte(p.ID()))
	files, err := translate.Bootstrap(translate.BootstrapConfig{
		Proxy: p, XDSAddress: m.xds.Address(), ServerID: server, Dir: dir, Credential: certs, ReadAuthoritiesOnce: true,
		AdminSocket: filepath.Join(m.s.dir.sockets, fmt.Sprintf("%x", sum[:8])),
	})
	if err != nil {
		return err
	}
	for name, data := range files {
		if err := identity.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return envoy.Process{Path: m.s.envoy, Bootstrap: filepath.Join(dir, translate.FileBootstrap), LogPath: filepath.Join(dir, "envoy.log"), Logger: m.log}.Run(ctx)
}
