package agent

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/xds/server"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// pipeline turns each Snapshot into what the proxies get: resolve, translate,
// serve. One lock keeps its steps in order; what it publishes is immutable.
type pipeline struct {
	local     cluster.ID
	bindings  translate.Bindings
	options   translate.Options
	server    *server.Server
	log       *slog.Logger
	metrics   *metrics
	onProxies func([]translate.Proxy) // told, under the lock, when the set changes
	onChange  func()
	onResult  func(*resolve.Result, resolve.Delta)
	bundleSet *identity.BundleSet // kept as the Snapshot has it, for the agent's own TLS

	result atomic.Pointer[resolve.Result] // published last

	mu      sync.Mutex
	cache   *translate.Cache
	shared  *translate.Shared // of the result; what the sidecars have in common
	bundles *translate.Bundles
	proxies map[string]*proxy // by id
	wanted  []translate.Proxy
}

// proxy is one Envoy that is served.
type proxy struct {
	translate.Proxy
	identity *translate.Identity // nil until it is issued
	state    *translate.State
}

// snapshot takes the next Snapshot through all stages, and tells what that changed. The
// Loop calls it.
func (p *pipeline) snapshot(_ context.Context, snap *federation.Snapshot, changed federation.ChangeSet) resolve.Delta {
	start := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	var (
		res   *resolve.Result
		delta resolve.Delta
	)
	if old := p.result.Load(); old != nil {
		res, delta = old.Update(snap, changed)
	} else {
		res = resolve.Resolve(p.local, snap)
	}
	p.metrics.resolve.Observe(time.Since(start).Seconds())
	if changed.Has(federation.KeyTrust) || p.bundles == nil {
		p.trust(snap)
	}
	if in := (translate.Input{Result: res, Options: p.options, Cache: p.cache}); p.shared == nil {
		p.shared = translate.NewShared(in)
	} else {
		p.shared = p.shared.Update(in, delta)
	}
	for _, x := range p.proxies {
		p.translate(x, res, delta, start)
	}
	p.result.Store(res)
	if p.wanted == nil || len(delta.Gateways) > 0 || changed.Has(federation.KeyNamespace(cluster.KindNamespace, "")) {
		p.want(res)
	}
	p.onResult(res, delta)
	p.onChange()
	p.metrics.push.Observe(time.Since(start).Seconds())
	return delta
}

// translate brings one proxy's resources up to date and hands them to the server.
func (p *pipeline) translate(x *proxy, res *resolve.Result, delta resolve.Delta, at time.Time) {
	if x.identity == nil {
		return // no Envoy can be connected yet
	}
	in := translate.Input{Proxy: x.Proxy, Result: res, Bindings: p.bindings, Identity: x.identity, Bundles: p.bundles, Options: p.options, Shared: p.shared, Cache: p.cache}
	stamp := server.Stamp{Revision: res.Snapshot.Revision, At: at}
	var changes translate.Changes
	if x.state == nil {
		x.state = translate.Build(in)
	} else {
		x.state, changes = x.state.Update(in, delta)
	}
	p.server.Set(x.ID(), x.state.Resources, changes, stamp)
}

// want works out which proxies the cluster needs, and tells if that changed.
func (p *pipeline) want(res *resolve.Result) {
	var list []translate.Proxy
	list = append(list, Crossing(p.local))
	for _, o := range res.Snapshot.OfKind(cluster.KindNamespace) {
		if o.Cluster == p.local {
			list = append(list, translate.Proxy{Cluster: p.local, Role: translate.RoleSidecar, Namespace: o.Name, Name: "sidecar"})
		}
	}
	res.Gateways.Root().Walk(func(_ []byte, g *resolve.Gateway) bool {
		list = append(list, translate.Proxy{Cluster: p.local, Role: translate.RoleGateway, Namespace: g.Namespace, Name: g.Name})
		return false
	})
	slices.SortFunc(list, func(a, b translate.Proxy) int { return cmp.Compare(a.ID(), b.ID()) })
	if slices.Equal(list, p.wanted) {
		return
	}
	p.wanted = list
	p.onProxies(list)
}

// identify gives a proxy its identity, and its first or renewed resources with it.
func (p *pipeline) identify(t translate.Proxy, id *translate.Identity) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x, ok := p.proxies[t.ID()]
	if !ok {
		x = &proxy{Proxy: t}
		p.proxies[t.ID()] = x
	}
	x.identity = id
	if res := p.result.Load(); res != nil {
		p.translate(x, res, resolve.Delta{}, time.Now())
	}
}

// serves reports whether a proxy's resources are there.
func (p *pipeline) serves(t translate.Proxy) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.proxies[t.ID()]
	return x != nil && x.state != nil
}

// rebind translates frontends anew for all proxies.
func (p *pipeline) rebind(frontends []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if res := p.result.Load(); res != nil {
		for _, x := range p.proxies {
			p.translate(x, res, resolve.Delta{Frontends: frontends}, time.Now())
		}
	}
}

// drop forgets a proxy.
func (p *pipeline) drop(t translate.Proxy) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.proxies, t.ID())
	p.server.Remove(t.ID())
}

// trust takes over the trust bundles of a Snapshot. A bundle that is none is left
// out: its cluster can't be reached, the others can.
func (p *pipeline) trust(snap *federation.Snapshot) {
	var list []*x509bundle.Bundle
	for name, roots := range snap.Trust() {
		td, err := spiffeid.TrustDomainFromString(name)
		if err != nil {
			p.log.Warn("trust domain of another cluster is unusable", "trustDomain", name, "error", err)
			continue
		}
		b, err := identity.BundleOf(td, roots)
		if err != nil {
			p.log.Warn("trust bundle of another cluster is unusable", "trustDomain", name, "error", err)
			continue
		}
		list = append(list, b)
	}
	p.bundleSet.Replace(list)
	p.bundles = translate.NewBundles(snap.Trust())
}

// problems lists what of the cluster's state could not be translated for Envoy.
func (p *pipeline) problems() []cluster.Problem {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := map[translate.Problem]bool{}
	var out []cluster.Problem
	for _, x := range p.proxies {
		if x.state == nil {
			continue
		}
		for _, t := range x.state.Problems() {
			if !seen[t] {
				seen[t] = true
				out = append(out, cluster.Problem{Cluster: p.local, Where: "Envoy configuration", Object: t.Subject, Message: t.Message})
			}
		}
	}
	slices.SortFunc(out, func(a, b cluster.Problem) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Message, b.Message))
	})
	return out
}
