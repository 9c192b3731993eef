package provision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/kubernetes"
)

// GatewaysConfig makes Gateways. All but OnStanding, Rate, Burst and Registerer are
// required.
type GatewaysConfig struct {
	Local  cluster.ID
	Client *kubernetes.Client
	// Want gives a Gateway, nil for one that is none of ours or is not run here. It is
	// false while nothing is known yet.
	Want func(Name) (*Gateway, bool)
	// Names lists all Gateways for which Want has something.
	Names    func() []Name
	Settings GatewaySettings
	// Roots are those of the cluster's trust domain (PEM), empty while nobody knows them.
	Roots func() string
	// OnStanding is told of Gateways whose standing differs. It must not block.
	OnStanding func([]Name)
	// Rate and Burst bound the writes a second; 200 and 400 if zero.
	Rate, Burst int
	Logger      *slog.Logger
	Registerer  prometheus.Registerer
}

// Gateways keeps what the Envoys of Gateways run in: for each Gateway a ServiceAccount, a
// ConfigMap with the cluster's roots, a Service, a Deployment and a PodDisruptionBudget.
// It runs in the leader alone. Its methods may be called from any goroutine and never
// block.
type Gateways struct {
	cfg       GatewaysConfig
	writer    *writer
	rounds    *rounds
	standings *standings[GatewayStanding]
}

// NewGateways validates and starts nothing.
func NewGateways(cfg GatewaysConfig) (*Gateways, error) {
	if err := cfg.Local.Validate(); err != nil {
		return nil, fmt.Errorf("gateways: %w", err)
	}
	if cfg.Client == nil || cfg.Want == nil || cfg.Names == nil || cfg.Roots == nil || cfg.Logger == nil {
		return nil, errors.New("gateways: the configuration is not complete")
	}
	if cfg.Settings.Image == "" || cfg.Settings.Audience == "" {
		return nil, errors.New("gateways: the image of their pods and the audience of their tokens are required")
	}
	if cfg.OnStanding == nil {
		cfg.OnStanding = func([]Name) {}
	}
	writes := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "causeway_gateway_writes_total", Help: "Objects created, changed and deleted for Gateways, by kind, verb and result."}, []string{"kind", "verb", "result"})
	problems := prometheus.NewGauge(prometheus.GaugeOpts{Name: "causeway_gateway_problems", Help: "Gateways that can't be provided with pods and a Service."})
	if cfg.Registerer != nil {
		for _, c := range []prometheus.Collector{writes, problems} {
			if err := cfg.Registerer.Register(c); err != nil {
				return nil, fmt.Errorf("gateways: register metrics: %w", err)
			}
		}
	}
	w, err := newWriter(cfg.Client, cfg.Rate, cfg.Burst, writes)
	if err != nil {
		return nil, fmt.Errorf("gateways: %w", err)
	}
	return &Gateways{
		cfg: cfg, writer: w, rounds: &rounds{what: "Gateway", log: cfg.Logger},
		standings: &standings[GatewayStanding]{
			local: cfg.Local, kind: cluster.KindGateway, equal: GatewayStanding.equal, changed: cfg.OnStanding, count: problems,
			warn: func(n Name, problem string) {
				cfg.Logger.Warn("a Gateway can't be provided for", "gateway", n, "reason", problem)
			},
		},
	}, nil
}

// Touch says that Gateways have to be looked at: what Want gives of them differs.
func (g *Gateways) Touch(names []Name) { g.rounds.touch(names...) }

// TouchAll says that the roots differ.
func (g *Gateways) TouchAll() { g.Touch(g.cfg.Names()) }

// Standing tells how a Gateway stands in this cluster; false for one that is not run, or
// of which nothing is known yet.
func (g *Gateways) Standing(n Name) (GatewayStanding, bool) { return g.standings.of(n) }

// Problems lists what a person has to mend, sorted.
func (g *Gateways) Problems() []cluster.Problem { return g.standings.list() }

// Run writes until ctx ends, and waits for the writes under way. It may be called again
// after it returned.
func (g *Gateways) Run(ctx context.Context) error {
	ours := LabelManagedBy + "=" + Manager + "," + LabelGateway
	var list []watched
	for _, r := range gatewayResources {
		list = append(list, watched{r, ours})
	}
	v, err := newView(g.writer.client, gatewayFor, func(n Name) { g.rounds.touch(n) }, list)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { v.run(ctx) })
	if !v.synced(ctx) {
		return nil
	}
	g.rounds.run(ctx, func() []Name { return append(g.cfg.Names(), v.names()...) }, func(ctx context.Context, n Name) (time.Duration, bool, error) {
		return g.pass(ctx, v, n)
	})
	return nil
}

// pass plans once and writes that. again says that there may be more to write, next
// when to look without being told.
func (g *Gateways) pass(ctx context.Context, v *view, n Name) (next time.Duration, again bool, err error) {
	want, ok := g.cfg.Want(n)
	roots := g.cfg.Roots()
	if !ok || roots == "" {
		return time.Second, false, nil
	}
	in := gatewayInput{name: n, want: want, settings: g.cfg.Settings, roots: roots}
	name := ""
	if want != nil {
		name = GatewayObjectName(n.Name, want.Class)
	}
	in.have = gatewayHave(slices.Collect(maps.Values(v.objects(n))), name)
	out := planGateway(in)
	if want != nil && want.Idle {
		return 0, false, nil
	}
	// What could not be written the last time is told of until it is.
	if len(out.apply) == 0 || out.problem != "" || !g.standings.stuck(n) {
		g.standings.tell(n, out.standing, out.problem)
	}
	for _, o := range out.apply {
		if _, err := g.writer.write(ctx, v, n, o); err != nil {
			switch {
			case errors.Is(err, errFound):
				return 0, true, nil
			case ctx.Err() == nil && !apierrors.IsConflict(err):
				// The user may have to mend it: a quota, an admission webhook.
				why := fmt.Sprintf("%s %s/%s can't be written: %v", kindOf(o), o.GetNamespace(), o.GetName(), err)
				g.standings.tell(n, &GatewayStanding{Programmed: programmed(gatewayv1.GatewayReasonNoResources, why), Addresses: out.standing.Addresses}, why)
			}
			return 0, false, err
		}
	}
	for _, o := range out.remove {
		if err := g.writer.remove(ctx, v, n, o); err != nil {
			return 0, false, err
		}
	}
	switch {
	case out.problem != "":
		return foreignRetry, false, nil
	case len(out.apply)+len(out.remove) > 0:
		return 0, true, nil
	}
	return 0, false, nil
}
