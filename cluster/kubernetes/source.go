package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/causeway-mesh/causeway/cluster"
)

// Config of a Source. Cluster, Client and Logger are required.
type Config struct {
	Cluster cluster.ID
	Client  *Client
	// Meta is what the cluster says of itself, save what CrossingService adds.
	Meta cluster.Meta
	// CrossingService names the Service of the crossing gateways ("namespace/name"):
	// its load balancer's addresses, or else its externalIPs, with its first port
	// become Meta.Crossing. Empty: Meta.Crossing is what it is.
	CrossingService string
	// Dir is a folder for the copy of what was read last, with which a start without
	// the API server begins. It holds private keys, with mode 0600. Empty: none.
	Dir string
	// Grace is how long a start waits for the full set before it begins with the
	// copy; 3 s if zero.
	Grace time.Duration
	// OnLive is told of objects whose Live has changed, or is gone. It is called
	// after the batch in which the object itself changed was delivered, from Run's
	// goroutine, and must not block.
	OnLive func([]cluster.Ref)
	Logger *slog.Logger
	// Registerer takes the metrics, if not nil.
	Registerer prometheus.Registerer
}

// Times of a Source.
const (
	defaultGrace = 3 * time.Second
	// referenceWait is how long a change waits for the Secrets and ConfigMaps to
	// which it refers, so that nobody sees a reference as broken that is not.
	referenceWait = 250 * time.Millisecond
)

// Source is a cluster.Source. Its methods may be called from any goroutine.
type Source struct {
	cfg     Config
	client  *Client
	log     *slog.Logger
	state   *state
	metrics *metrics
	looks   chan struct{} // 1 deep: discover again
	resolve chan struct{} // 1 deep: Need has changed
	done    chan struct{}

	looked       atomic.Bool // discovery has succeeded once
	experimental atomic.Bool // see Experimental

	refMu   sync.Mutex
	outside map[cluster.Ref]bool // references that the agent adds
	singles map[cluster.Ref]*single
	settled bool   // references were worked out from full sets
	pursued uint64 // state.referred, when that was done last

	// The rest belongs to Run's goroutine.
	delivered bool // a batch with Synced is out
	full      atomic.Bool
	meta      *cluster.Meta
}

// New validates the configuration. It connects to nothing yet.
func New(cfg Config) (*Source, error) {
	if err := cfg.Cluster.Validate(); err != nil {
		return nil, fmt.Errorf("kubernetes source: %w", err)
	}
	if cfg.Client == nil || cfg.Logger == nil {
		return nil, errors.New("kubernetes source: Client and Logger are required")
	}
	if cfg.Grace < 0 {
		return nil, errors.New("kubernetes source: Grace can't be negative")
	}
	if cfg.Grace == 0 {
		cfg.Grace = defaultGrace
	}
	if cfg.OnLive == nil {
		cfg.OnLive = func([]cluster.Ref) {}
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("kubernetes source of cluster %s: %w", cfg.Cluster, err)
	}
	s := &Source{
		cfg: cfg, client: cfg.Client, log: cfg.Logger, state: newState(), metrics: m,
		looks: make(chan struct{}, 1), resolve: make(chan struct{}, 1), done: make(chan struct{}),
		outside: map[cluster.Ref]bool{}, singles: map[cluster.Ref]*single{},
	}
	return s, nil
}

// connected is told when the API server is lost and found.
func (s *Source) connected(open bool) {
	s.metrics.setConnected(open)
	if open {
		s.log.Info("the API server answers")
		s.look()
		return
	}
	s.log.Warn("the API server does not answer: what was read last stays in force; it is tried twice a second")
}

// Connected reports whether the API server answers.
func (s *Source) Connected() bool { return s.client.gate.open() }

// Full reports whether all kinds have been read in full from the API server, by
// this process: what was delivered is not the copy on disk alone.
func (s *Source) Full() bool { return s.full.Load() }

// Experimental reports whether the cluster has Gateway API's definitions of the experimental
// channel. It is false while that is not known, and where the agent may not read it. A change
// counts as one of the Live of all GatewayClasses.
func (s *Source) Experimental() bool { return s.experimental.Load() }

// Missing lists what the first full set still waits for, for people.
func (s *Source) Missing() []string {
	var out []string
	if !s.looked.Load() {
		out = append(out, "discovery")
	}
	for _, k := range s.state.missing() {
		out = append(out, string(k))
	}
	if !s.referencesSettled() {
		out = append(out, "references")
	}
	return out
}

// Live finds what the API server said last of an object whose status the agent
// writes.
func (s *Source) Live(ref cluster.Ref) (*Live, bool) { return s.state.live(ref) }

// look has discovery done soon.
func (s *Source) look() { poke(s.looks) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run implements cluster.Source. It may be called once.
func (s *Source) Run(ctx context.Context, sink cluster.Sink) error {
	defer close(s.done)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	began := time.Now()
	copied := s.readCopy()
	wg.Go(func() { s.client.gate.run(ctx, s.connected) })
	wg.Go(func() { s.discover(ctx) })
	wg.Go(func() { s.watchDefinitions(ctx) })
	wg.Go(func() { s.followReferences(ctx) })
	if s.cfg.Dir != "" {
		wg.Go(func() { s.saveCopies(ctx) })
	}
	for {
		wait := s.due(began, copied)
		if wait == 0 {
			if err := s.deliver(ctx, sink, copied != nil); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
			copied = nil
			wait = time.Hour
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-s.state.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// due tells how long delivery has to wait: for the first full set, or for the
// references of what has changed.
func (s *Source) due(began time.Time, copied *[]*cluster.Object) time.Duration {
	if !s.full.Load() && len(s.Missing()) == 0 {
		s.full.Store(true)
		s.log.Info("the cluster has been read in full", "after", time.Since(began).Round(time.Millisecond))
	}
	switch {
	case s.full.Load() && s.referencesSettled():
		return 0
	case s.full.Load():
		s.state.mu.Lock()
		since, any := s.state.since, len(s.state.pending) > 0
		s.state.mu.Unlock()
		if !any {
			return 0
		}
		return max(0, referenceWait-time.Since(since))
	case s.delivered:
		return 0
	case copied != nil:
		return max(0, s.cfg.Grace-time.Since(began))
	}
	s.state.mu.Lock()
	reworded := s.state.reworded
	s.state.mu.Unlock()
	if reworded {
		return 0 // what hinders the start has to be seen
	}
	return time.Hour
}

// deliver sends all that has changed in one batch.
func (s *Source) deliver(ctx context.Context, sink cluster.Sink, fromCopy bool) error {
	synced := s.delivered || s.full.Load() || fromCopy
	var c changes
	if synced {
		if fromCopy && !s.full.Load() {
			s.log.Warn("the API server could not be read in time: starting with the copy on disk")
		}
		c = s.state.take()
	} else {
		c = s.state.takeProblems()
	}
	b := cluster.Batch{Events: c.events, Problems: c.problems, Synced: synced}
	if meta := s.describe(); synced && (s.meta == nil || !meta.Equal(*s.meta)) {
		b.Meta = &meta
	}
	if synced && !s.delivered && b.Problems == nil {
		b.Problems = &[]cluster.Problem{}
	}
	if len(b.Events) > 0 || b.Meta != nil || b.Problems != nil || synced && !s.delivered {
		if err := sink.Deliver(ctx, b); err != nil {
			s.state.again(c)
			return fmt.Errorf("deliver the changes of cluster %s: %w", s.cfg.Cluster, err)
		}
	}
	s.state.sent()
	s.delivered = synced
	if b.Meta != nil {
		s.meta = b.Meta
	}
	if len(c.events) > 0 {
		s.metrics.delivered.Observe(time.Since(c.oldest).Seconds())
	}
	if synced {
		s.metrics.count(c.objects)
	}
	if len(c.touched) > 0 {
		s.cfg.OnLive(c.touched)
	}
	return nil
}

// describe gives the cluster's Meta as it is now.
func (s *Source) describe() cluster.Meta {
	m := s.cfg.Meta
	if s.cfg.CrossingService == "" {
		return m
	}
	ns, name, _ := cutName(s.cfg.CrossingService)
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	e := s.state.kinds[cluster.KindService].entries[cluster.Ref{Kind: cluster.KindService, Namespace: ns, Name: name}]
	if e == nil {
		return m
	}
	m.Crossing = addresses(e)
	return m
}

// addresses are where a Service can be reached from outside of its cluster. Of a
// dual-stack one's they are those of its first IP family: whether others have the second
// too, nobody knows.
func addresses(e *entry) []string {
	svc, _ := e.object.Value.(*corev1.Service)
	if svc == nil || len(svc.Spec.Ports) == 0 {
		return nil
	}
	var hosts []string
	if e.live != nil {
		if st, ok := e.live.Status.(*corev1.ServiceStatus); ok {
			for _, in := range st.LoadBalancer.Ingress {
				if in.IP != "" && ofFirstFamily(svc, in.IP) {
					hosts = append(hosts, in.IP)
				} else if in.IP == "" && in.Hostname != "" {
					hosts = append(hosts, in.Hostname)
				}
			}
		}
	}
	if len(hosts) == 0 {
		hosts = svc.Spec.ExternalIPs
	}
	var out []string
	for _, h := range hosts {
		out = append(out, net.JoinHostPort(h, strconv.Itoa(int(svc.Spec.Ports[0].Port))))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func ofFirstFamily(svc *corev1.Service, ip string) bool {
	a, err := netip.ParseAddr(ip)
	if err != nil || len(svc.Spec.IPFamilies) == 0 {
		return true
	}
	return a.Unmap().Is6() == (svc.Spec.IPFamilies[0] == corev1.IPv6Protocol)
}

// copyPath is the file of the copy.
func (s *Source) copyPath() string { return filepath.Join(s.cfg.Dir, "source.copy") }

var _ cluster.Source = (*Source)(nil)
