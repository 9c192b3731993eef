package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/attest"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/cluster/kubernetes"
	"github.com/causeway-mesh/causeway/cluster/provision"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// GatewaysConfig makes Gateways. All but Registerer are required.
type GatewaysConfig struct {
	Cluster   cluster.ID
	Client    *kubernetes.Client
	Authority *identity.Authority
	Settings  provision.GatewaySettings // all but Audience
	// UID gives that of a Gateway of this cluster as it is now; false if there is none yet.
	UID func(cluster.Ref) (types.UID, bool)
	// OnStanding is told of Gateways and ListenerSets whose standing differs. It must not
	// block.
	OnStanding func([]cluster.Ref)
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Gateways joins the resolver and what it says of Gateways with what these need in the
// cluster: the leader keeps that. Its methods may be called from any goroutine.
type Gateways struct {
	cfg         GatewaysConfig
	provisioner *provision.Gateways
	result      atomic.Pointer[resolve.Result]
}

// NewGateways validates and starts nothing.
func NewGateways(cfg GatewaysConfig) (*Gateways, error) {
	if cfg.Authority == nil || cfg.UID == nil || cfg.OnStanding == nil {
		return nil, errors.New("gateways: the configuration is not complete")
	}
	cfg.Settings.Cluster = string(cfg.Cluster)
	cfg.Settings.Audience = attest.Audience(cfg.Authority.TrustDomain())
	g := &Gateways{cfg: cfg}
	var err error
	g.provisioner, err = provision.NewGateways(provision.GatewaysConfig{
		Local: cfg.Cluster, Client: cfg.Client, Settings: cfg.Settings, Want: g.want, Names: g.names,
		Roots:      func() string { return string(identity.BundlePEM(cfg.Authority.Bundle())) },
		OnStanding: g.stood, Logger: cfg.Logger, Registerer: cfg.Registerer,
	})
	return g, err
}

// OnResult takes the next Result with what differs from the one before. It never blocks.
func (g *Gateways) OnResult(res *resolve.Result, delta resolve.Delta) {
	g.result.Store(res)
	var list []provision.Name
	for _, key := range delta.Gateways {
		if n, ok := nameIn(key); ok {
			list = append(list, n)
		}
	}
	for _, key := range delta.Reports {
		if ref, home, ok := resolve.ParseKey(key); ok && home == g.cfg.Cluster && ref.Kind == cluster.KindGateway {
			list = append(list, provision.Name{Namespace: ref.Namespace, Name: ref.Name})
		}
	}
	g.provisioner.Touch(list)
}

// Touch says that objects of this cluster have to be looked at, of which Gateways count.
func (g *Gateways) Touch(refs []cluster.Ref) {
	for _, r := range refs {
		if r.Kind == cluster.KindGateway {
			g.provisioner.Touch([]provision.Name{{Namespace: r.Namespace, Name: r.Name}})
		}
	}
}

// Lead keeps what Gateways need until ctx ends. The leader runs it; it may be called
// again after it returned.
func (g *Gateways) Lead(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- g.provisioner.Run(ctx) }()
	for {
		_, changed := g.cfg.Authority.WatchBundle()
		select {
		case err := <-done:
			return err
		case <-changed:
			g.provisioner.TouchAll()
		}
	}
}

// Standing tells how a Gateway stands in this cluster (provision.Gateways.Standing).
func (g *Gateways) Standing(namespace, name string) (provision.GatewayStanding, bool) {
	return g.provisioner.Standing(provision.Name{Namespace: namespace, Name: name})
}

// Problems lists what of Gateways a person has to mend.
func (g *Gateways) Problems() []cluster.Problem { return g.provisioner.Problems() }

// Account is the ServiceAccount of a Gateway's pods.
func (g *Gateways) Account(namespace, name string) (attest.Account, error) {
	res := g.result.Load()
	if res == nil {
		return attest.Account{}, errors.New("nothing is resolved yet")
	}
	gw, ok := res.Gateways.Get([]byte(namespace + "/" + name))
	if !ok {
		return attest.Account{}, fmt.Errorf("there is no Gateway %s/%s that this cluster runs", namespace, name)
	}
	return attest.Account{Namespace: namespace, Name: provision.GatewayObjectName(name, gw.Class)}, nil
}

func (g *Gateways) names() (out []provision.Name) {
	if res := g.result.Load(); res != nil {
		res.Gateways.Root().Walk(func(_ []byte, gw *resolve.Gateway) bool {
			out = append(out, provision.Name{Namespace: gw.Namespace, Name: gw.Name})
			return false
		})
	}
	return out
}

func (g *Gateways) want(n provision.Name) (*provision.Gateway, bool) {
	res := g.result.Load()
	if res == nil {
		return nil, false
	}
	out, home := gatewayOf(res, n)
	if out == nil || out.Idle || home != res.Local {
		return out, true
	}
	var ok bool
	out.UID, ok = g.cfg.UID(n.Ref(cluster.KindGateway))
	return out, ok
}

// stood passes on that Gateways stand differently: their ListenerSets do too.
func (g *Gateways) stood(names []provision.Name) {
	res := g.result.Load()
	if res == nil {
		return
	}
	var refs []cluster.Ref
	for _, n := range names {
		refs = append(refs, n.Ref(cluster.KindGateway))
		for _, o := range res.Snapshot.ListenerSetsOf(n.Namespace, n.Name) {
			if o.Cluster == res.Local {
				refs = append(refs, o.Ref)
			}
		}
	}
	g.cfg.OnStanding(refs)
}

// gatewayOf is what a Gateway needs in this cluster, without its UID, and where it was
// written; nil if it is not run here. It is pure.
func gatewayOf(res *resolve.Result, n provision.Name) (*provision.Gateway, cluster.ID) {
	gw, ok := res.Gateways.Get([]byte(n.String()))
	if !ok {
		return nil, ""
	}
	if _, ok := res.Snapshot.Get(res.Local, cluster.KindNamespace, "", n.Namespace); !ok {
		return nil, "" // a Gateway for all clusters, in a namespace that this one lacks
	}
	in := gw.Infrastructure
	out := &provision.Gateway{Name: n, Class: gw.Class, Labels: in.Labels, Annotations: in.Annotations, Parameters: in.Parameters, Addresses: in.Addresses}
	for i := range gw.Listeners {
		l := &gw.Listeners[i]
		t, ok := translate.ListenerTransport(l)
		if _, possible := provision.TargetPort(l.Port); !ok || !possible {
			continue
		}
		out.Ports = append(out.Ports, provision.GatewayPort{Protocol: corev1.Protocol(t), Number: l.Port})
	}
	slices.SortFunc(out.Ports, func(a, b provision.GatewayPort) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Protocol, b.Protocol))
	})
	out.Ports = slices.Compact(out.Ports)
	if gw.Refused || len(out.Ports) == 0 {
		return &provision.Gateway{Name: n, Idle: true}, ""
	}
	return out, gw.Home
}
