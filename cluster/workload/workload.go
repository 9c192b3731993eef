// Package workload runs the Deployments of a cluster that is a folder of
// manifests: each replica is an echo server on a loopback address of its own,
// listening where the Services that select it point, and the EndpointSlices
// that Kubernetes would write are made up. So YAML from a tutorial runs as it
// stands, whatever its images are.
//
// What runs is decided by a pure function from Services and Deployments to
// listeners and slices, with Kubernetes' own matching of selectors and named
// ports; Manager makes it so. It guarantees that
//
//   - an endpoint is listed as ready only while all its listeners are open;
//   - a listener closes only after the slice without it has been delivered, a
//     grace period has passed and its running requests have been answered;
//   - a port that can't be bound is reported, tried again and hurts no other.
//
// The annotation causeway.dev/ready: "N" on a Deployment or its pod template
// makes all but the first N replicas not ready, although they run: that shows
// what failover does without a failure.
//
// cluster/file is the only caller.
package workload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/provision/loopback"
)

// Addresses hands out addresses on which pods listen.
type Addresses interface {
	// Addr gives the address of a key, the same one until it is released.
	Addr(key string) (netip.Addr, error)
	// Release gives the address of a key back.
	Release(key string)
}

// Config of a Manager. Cluster, Addresses and Logger are required.
type Config struct {
	Cluster   cluster.ID
	Addresses Addresses
	Logger    *slog.Logger
	// Grace is the time from the delivery of a slice without a pod to the
	// closing of that pod; 2 s if zero.
	Grace time.Duration
	// Retry is the time after which a port that was taken is tried again; 1 s
	// if zero.
	Retry time.Duration
	// MaxReplicas bounds the pods of the cluster; 200 if zero. Listeners are
	// bounded by eight times that.
	MaxReplicas int
	// LowestPort is the first port that the process may bind; found out if
	// zero. Lower ones are served 10000 higher.
	LowestPort uint16
}

// Result is what the current plan amounts to.
type Result struct {
	// Slices are sorted by namespace and name.
	Slices   []*cluster.Object
	Problems []cluster.Problem
}

// Manager runs the pods. Its methods must be called from one goroutine at a
// time; the servers have their own.
type Manager struct {
	cfg    Config
	log    *slog.Logger
	plan   plan
	pods   map[podKey]*pod
	logged map[move]bool
	retry  time.Time
	// closing ends when those that drain must make haste.
	closing context.Context
	hasten  context.CancelFunc
	wg      sync.WaitGroup
}

type podKey struct{ namespace, name string }

func (k podKey) String() string { return "pod/" + k.namespace + "/" + k.name }

// pod lives as long as it has a listener or the plan wants it.
type pod struct {
	addr      netip.Addr
	err       error // no address
	listeners map[listener]*socket
}

// New validates the configuration. It opens nothing.
func New(cfg Config) (*Manager, error) {
	if err := cfg.Cluster.Validate(); err != nil {
		return nil, fmt.Errorf("workloads: %w", err)
	}
	if cfg.Addresses == nil || cfg.Logger == nil {
		return nil, errors.New("workloads: Addresses and Logger are required")
	}
	if cfg.Grace < 0 || cfg.Retry < 0 || cfg.MaxReplicas < 0 {
		return nil, errors.New("workloads: Grace, Retry and MaxReplicas can't be negative")
	}
	if cfg.Grace == 0 {
		cfg.Grace = 2 * time.Second
	}
	if cfg.Retry == 0 {
		cfg.Retry = time.Second
	}
	if cfg.MaxReplicas == 0 {
		cfg.MaxReplicas = 200
	}
	m := &Manager{cfg: cfg, log: cfg.Logger, pods: map[podKey]*pod{}, logged: map[move]bool{}}
	m.closing, m.hasten = context.WithCancel(context.Background())
	return m, nil
}

// Apply makes in the cluster's workload: new listeners are open when it
// returns, those that have gone stay open until after Delivered.
func (m *Manager) Apply(in Input) Result {
	if m.cfg.LowestPort == 0 {
		m.cfg.LowestPort = loopback.LowestPort()
	}
	m.plan = makePlan(in, limits{m.cfg.Cluster, m.cfg.MaxReplicas, 8 * m.cfg.MaxReplicas, m.cfg.LowestPort})
	for _, mv := range m.plan.moved {
		if !m.logged[mv] {
			m.log.Info("port moved: this process may not bind it", "deployment", mv.deployment, "port", mv.from, "served_on", mv.to)
		}
	}
	clear(m.logged)
	for _, mv := range m.plan.moved {
		m.logged[mv] = true
	}
	for l, want := range m.plan.servers {
		m.open(l, want)
	}
	for _, s := range m.plan.slices {
		for _, e := range s.endpoints {
			m.pod(podKey{e.namespace, e.pod})
		}
	}
	m.schedule()
	return m.Result()
}

// pod gives a pod its address, if it hasn't got one.
func (m *Manager) pod(k podKey) *pod {
	p := m.pods[k]
	if p == nil {
		p = &pod{listeners: map[listener]*socket{}}
		m.pods[k] = p
	}
	if !p.addr.IsValid() {
		p.addr, p.err = m.cfg.Addresses.Addr(k.String())
	}
	return p
}

// open sees to it that a listener is open, or that it is known why it isn't.
func (m *Manager) open(l listener, want server) {
	p := m.pod(podKey{l.namespace, l.pod})
	s := p.listeners[l]
	if s == nil {
		s = &socket{listener: l, cluster: m.cfg.Cluster}
		p.listeners[l] = s
	}
	s.stay(want, m.closing, &m.wg)
	if s.isOpen() || p.err != nil {
		return
	}
	before := s.err
	if s.err = s.bind(p.addr, &m.wg, m.log); s.err != nil && before == nil {
		m.log.Warn("can't listen; will try again", "object", want.object, "pod", l.pod, "error", s.err)
	} else if s.err == nil && before != nil {
		m.log.Info("listening at last", "object", want.object, "pod", l.pod, "port", l.port)
	}
}

// schedule sets the time of the next try.
func (m *Manager) schedule() {
	m.retry = time.Time{}
	for _, p := range m.pods {
		if p.err != nil {
			m.retry = time.Now().Add(m.cfg.Retry)
			return
		}
		for l, s := range p.listeners {
			if _, wanted := m.plan.servers[l]; wanted && !s.isOpen() {
				m.retry = time.Now().Add(m.cfg.Retry)
				return
			}
		}
	}
}

// Result tells what the plan amounts to now.
func (m *Manager) Result() Result {
	out := Result{Problems: slices.Clone(m.plan.problems)}
	fail := func(where, object, format string, args ...any) {
		out.Problems = append(out.Problems, cluster.Problem{Cluster: m.cfg.Cluster, Where: where, Object: object, Message: fmt.Sprintf(format, args...)})
	}
	for _, s := range m.plan.slices {
		packed := &cluster.EndpointSlice{Service: s.service, Ports: s.ports}
		for _, e := range s.endpoints {
			p := m.pods[podKey{e.namespace, e.pod}]
			if !p.addr.IsValid() {
				fail(s.origin, "Service/"+s.ref.Namespace+"/"+s.service, "pod %s has no address, so it is no endpoint; it tries again until it has: %v", e.pod, p.err)
				continue
			}
			up := e.ready
			for _, l := range e.needs {
				up = up && p.listeners[l].isOpen()
			}
			packed.Endpoints = append(packed.Endpoints, cluster.Endpoint{Addr: p.addr, Pod: e.pod, Ready: up, Serving: up})
		}
		out.Slices = append(out.Slices, &cluster.Object{Ref: s.ref, Cluster: m.cfg.Cluster, Value: packed, Origin: s.origin})
	}
	slices.SortFunc(out.Slices, func(a, b *cluster.Object) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	for l, want := range m.plan.servers {
		if s := m.pods[podKey{l.namespace, l.pod}].listeners[l]; s.err != nil {
			fail(want.origin, want.object, "pod %s can't listen on %s port %d, so it is not ready there; it tries again until it can: %v", l.pod, strings.ToUpper(l.network()), l.port, s.err)
		}
	}
	slices.SortFunc(out.Problems, func(a, b cluster.Problem) int {
		return strings.Compare(a.Where+"\x00"+a.Object+"\x00"+a.Message, b.Where+"\x00"+b.Object+"\x00"+b.Message)
	})
	return out
}

// Delivered tells that the last Result has reached all who choose endpoints:
// from now on what isn't in it is in its grace period.
func (m *Manager) Delivered() {
	for _, p := range m.pods {
		for l, s := range p.listeners {
			if _, wanted := m.plan.servers[l]; !wanted {
				s.leave(time.Now().Add(m.cfg.Grace))
			}
		}
	}
	m.sweep(time.Now())
}

// Tick closes what has had its grace period and tries again what couldn't be
// opened. It reports whether Result has changed.
func (m *Manager) Tick() (changed bool) {
	now := time.Now()
	m.sweep(now)
	if m.retry.IsZero() || now.Before(m.retry) {
		return false
	}
	for k, p := range m.pods {
		if p.err != nil && m.pod(k).err == nil {
			changed = true
		}
	}
	for l, want := range m.plan.servers {
		if s := m.pods[podKey{l.namespace, l.pod}].listeners[l]; !s.isOpen() {
			m.open(l, want)
			changed = changed || s.isOpen()
		}
	}
	m.schedule()
	return changed
}

// Next is the time at which Tick has something to do, zero if there is none.
func (m *Manager) Next() time.Time {
	next := m.retry
	for _, p := range m.pods {
		for _, s := range p.listeners {
			if !s.until.IsZero() && (next.IsZero() || s.until.Before(next)) {
				next = s.until
			}
		}
	}
	return next
}

// sweep closes listeners whose grace period has passed and frees the addresses
// of pods that have none left.
func (m *Manager) sweep(now time.Time) {
	wanted := map[podKey]bool{}
	for _, s := range m.plan.slices {
		for _, e := range s.endpoints {
			wanted[podKey{e.namespace, e.pod}] = true
		}
	}
	for k, p := range m.pods {
		for l, s := range p.listeners {
			if !s.until.IsZero() && !now.Before(s.until) {
				s.close(m.closing, &m.wg)
				delete(p.listeners, l)
			}
		}
		if len(p.listeners) == 0 && !wanted[k] {
			m.cfg.Addresses.Release(k.String())
			delete(m.pods, k)
		}
	}
}

// Close ends all servers, gracefully until ctx ends, and waits for them. The
// Manager is of no use afterwards.
func (m *Manager) Close(ctx context.Context) {
	var all sync.WaitGroup
	for k, p := range m.pods {
		for _, s := range p.listeners {
			all.Go(func() { s.shutdown(ctx) })
		}
		defer m.cfg.Addresses.Release(k.String())
	}
	all.Wait()
	m.hasten()
	clear(m.pods)
	m.plan, m.retry = plan{}, time.Time{}
	m.wg.Wait()
}
