package provision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/kubernetes"
)

// Bounds of the writing.
const (
	workers      = 4
	writeTimeout = 10 * time.Second
	firstRetry   = 200 * time.Millisecond
	longestRetry = 30 * time.Second
	// firstWait and longestWait bound how long gateways that don't serve a port yet are
	// left alone.
	firstWait, longestWait = 100 * time.Millisecond, 10 * time.Second
	// foreignRetry is how often it is looked whether what stands in our way is gone.
	foreignRetry = 30 * time.Second
	// versionRetry is how often it is asked in which version ServiceImports are served.
	versionRetry = 15 * time.Second
	mostPasses   = 8
)

// Config makes a Provisioner. All but OnStanding, Rate, Burst and Registerer are
// required.
type Config struct {
	Local   cluster.ID
	Client  *kubernetes.Client
	Entries *Entries
	// Want gives an import as the resolver sees it, nil for none. It is false while
	// nothing is resolved yet.
	Want func(Name) (*Import, bool)
	// Names lists all imports that Want has.
	Names func() []Name
	// Namespace reports whether this cluster has a namespace.
	Namespace func(string) bool
	// Gateways lists this cluster's crossing gateways.
	Gateways func() []Crossing
	// OnStanding is told of ServiceImports whose Standing differs. It must not block.
	OnStanding func([]cluster.Ref)
	// Rate and Burst bound the writes a second; 200 and 400 if zero.
	Rate, Burst int
	Logger      *slog.Logger
	Registerer  prometheus.Registerer
}

// Provisioner keeps ServiceImports, derived Services and EndpointSlices as they should
// be. It runs in the leader alone. Its methods may be called from any goroutine and never
// block.
type Provisioner struct {
	cfg       Config
	writer    *writer
	served    *served
	rounds    *rounds
	standings *standings[Standing]
}

// New validates and starts nothing.
func New(cfg Config) (*Provisioner, error) {
	if err := cfg.Local.Validate(); err != nil {
		return nil, fmt.Errorf("provisioner: %w", err)
	}
	if cfg.Client == nil || cfg.Entries == nil || cfg.Want == nil || cfg.Names == nil || cfg.Namespace == nil || cfg.Gateways == nil || cfg.Logger == nil {
		return nil, errors.New("provisioner: the configuration is not complete")
	}
	if cfg.OnStanding == nil {
		cfg.OnStanding = func([]cluster.Ref) {}
	}
	writes := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "causeway_provision_writes_total", Help: "Objects created, changed and deleted for imports, by kind, verb and result."}, []string{"kind", "verb", "result"})
	problems := prometheus.NewGauge(prometheus.GaugeOpts{Name: "causeway_provision_problems", Help: "Imports in whose way objects of others stand, or that lack a free entry port."})
	if cfg.Registerer != nil {
		for _, x := range []prometheus.Collector{writes, problems} {
			if err := cfg.Registerer.Register(x); err != nil {
				return nil, fmt.Errorf("provisioner: register metrics: %w", err)
			}
		}
	}
	w, err := newWriter(cfg.Client, cfg.Rate, cfg.Burst, writes)
	if err != nil {
		return nil, fmt.Errorf("provisioner: %w", err)
	}
	return &Provisioner{
		cfg: cfg, writer: w, served: newServed(), rounds: &rounds{what: "import", log: cfg.Logger},
		standings: &standings[Standing]{
			local: cfg.Local, kind: cluster.KindServiceImport, equal: Standing.equal, count: problems,
			warn: func(n Name, problem string) {
				cfg.Logger.Warn("an import can't be provisioned", "import", n, "reason", problem)
			},
			changed: func(names []Name) {
				refs := make([]cluster.Ref, 0, len(names))
				for _, n := range names {
					refs = append(refs, n.Ref(cluster.KindServiceImport))
				}
				cfg.OnStanding(refs)
			},
		},
	}, nil
}

// Touch says that imports have to be looked at: what Want gives of them differs, or
// their namespace has come or gone.
func (p *Provisioner) Touch(names []Name) { p.rounds.touch(names...) }

// TouchAll says that the crossing gateways differ.
func (p *Provisioner) TouchAll() { p.Touch(p.cfg.Names()) }

// Standing tells how an import stands in this cluster; false for what is not ours, or
// not known yet.
func (p *Provisioner) Standing(n Name) (Standing, bool) { return p.standings.of(n) }

// Problems lists what a person has to mend, sorted.
func (p *Provisioner) Problems() []cluster.Problem { return p.standings.list() }

// Run writes until ctx ends, and waits for the writes under way. It may be called again
// after it returned. Entries must run meanwhile.
func (p *Provisioner) Run(ctx context.Context) error {
	told := false
	for ctx.Err() == nil {
		version, err := p.writer.client.importVersion()
		switch {
		case err != nil:
			p.cfg.Logger.Warn("ServiceImports can't be written; it is tried again", "in", versionRetry/5, "error", err)
			_ = cluster.Pause(ctx, versionRetry/5)
		case version == "":
			if !told {
				p.cfg.Logger.Warn("the API server does not serve ServiceImports: install the CRDs of Multi-Cluster Services; they are picked up when they arrive")
			}
			told = true
			_ = cluster.Pause(ctx, versionRetry)
		default:
			told = false
			if err := p.work(ctx, version); err != nil {
				return err
			}
		}
	}
	return nil
}

// work writes for as long as ServiceImports are served in one version.
func (p *Provisioner) work(ctx context.Context, version string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	v, err := importView(p.writer.client, p.cfg.Entries, version, func(n Name) { p.rounds.touch(n) })
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { v.run(ctx) })
	if !v.synced(ctx) {
		return nil
	}
	wg.Go(func() {
		defer cancel()
		for cluster.Pause(ctx, versionRetry) == nil {
			if now, err := p.writer.client.importVersion(); err == nil && now != version {
				return // look again
			}
		}
	})
	p.rounds.run(ctx, func() []Name { return append(p.cfg.Names(), v.names()...) }, func(ctx context.Context, n Name) (time.Duration, bool, error) {
		return p.pass(ctx, v, n)
	})
	return nil
}

// pass plans once and writes that. again says that there may be more to write, next
// when to look without being told.
func (p *Provisioner) pass(ctx context.Context, v *view, n Name) (next time.Duration, again bool, err error) {
	want, ok := p.cfg.Want(n)
	if !ok {
		return time.Second, false, nil
	}
	in := input{
		name: n, want: want, have: v.have(n), local: p.cfg.Local, version: v.version, gateways: p.cfg.Gateways(),
		serves: func(g Crossing, s socket) bool { return p.served.is(n, g, s) },
	}
	in.have.Namespace = p.cfg.Namespace(n.Namespace)
	if want == nil || !want.Gateways {
		p.served.forget(n)
	} else {
		var socks []socket
		for _, x := range want.Ports {
			if number, ok := p.cfg.Entries.Port(n, x.Protocol, x.Number); ok {
				socks = append(socks, socket{x.Protocol, number})
			}
		}
		p.served.learn(ctx, n, in.gateways, socks)
	}
	var out plan
	p.cfg.Entries.with(func(a *allocation) {
		in.entries = a
		out = planFor(in)
	})
	p.standings.tell(n, out.standing, out.problem)
	for _, o := range out.apply {
		made, err := p.writer.write(ctx, v, n, o)
		if err != nil {
			if errors.Is(err, errFound) {
				return 0, true, nil
			}
			return 0, false, err
		}
		if s, ok := made.(*corev1.Service); ok {
			p.cfg.Entries.observe(s, false)
		}
	}
	for _, o := range out.remove {
		if err := p.writer.remove(ctx, v, n, o); err != nil {
			return 0, false, err
		}
		if s, ok := o.(*corev1.Service); ok {
			p.cfg.Entries.observe(s, true)
		}
	}
	switch {
	case len(out.apply)+len(out.remove) > 0 && out.problem == "":
		return 0, true, nil
	case out.waits:
		return 0, false, errWaits
	case out.problem != "":
		return foreignRetry, false, nil
	}
	return 0, false, nil
}
