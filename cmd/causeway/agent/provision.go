package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/kubernetes"
	"github.com/causeway-mesh/causeway/cluster/provision"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// resync is how often all imports are looked at without a reason: EndpointSlices may
// change in what the resolver does not read (the last sign of a pod that is gone, say).
const resync = 30 * time.Second

// ImportsConfig makes Imports. All but OnStanding and Registerer are required.
type ImportsConfig struct {
	Cluster cluster.ID
	Client  *kubernetes.Client
	// CrossingPods is the headless Service of the crossing gateways, "namespace/name",
	// whose endpoints they are, of each family of addresses that pods have.
	CrossingPods string
	// IPv6 says that the crossing gateways' pods have IPv6 addresses too.
	IPv6 bool
	// Ports are the entry ports; provision.DefaultEntryPorts if zero.
	Ports provision.PortRange
	// Dir is for the copy of the entry ports, with which a start without the API server
	// begins. Empty: none.
	Dir string
	// Rebind is told of frontends (FrontendKey.String()) whose entries may differ.
	// Agent.Rebind does. It may block.
	Rebind func(frontends []string)
	// OnStanding is told of ServiceImports whose Standing differs. It must not block.
	OnStanding func([]cluster.Ref)
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Imports joins the resolver and what it says of imports with the cluster's objects: it
// keeps these (in the leader), and tells where the crossing gateways take clients without
// a sidecar (in every replica). Its methods may be called from any goroutine.
type Imports struct {
	cfg         ImportsConfig
	namespace   string // of the crossing gateways' Service
	service     string
	entries     *provision.Entries
	provisioner *provision.Provisioner
	result      atomic.Pointer[resolve.Result]
	wake        chan struct{} // 1 deep

	mu     sync.Mutex
	dirty  map[provision.Name]bool // what Want gives of them may differ
	rebind map[string]bool         // frontends
}

// NewImports validates and starts nothing.
func NewImports(cfg ImportsConfig) (*Imports, error) {
	ns, name, ok := strings.Cut(cfg.CrossingPods, "/")
	if !ok || ns == "" || name == "" {
		return nil, fmt.Errorf("imports: the Service of the crossing gateways' pods is %q, not namespace/name", cfg.CrossingPods)
	}
	if cfg.Client == nil || cfg.Rebind == nil || cfg.Logger == nil {
		return nil, errors.New("imports: Client, Rebind and Logger are required")
	}
	i := &Imports{cfg: cfg, namespace: ns, service: name, wake: make(chan struct{}, 1), dirty: map[provision.Name]bool{}, rebind: map[string]bool{}}
	var err error
	if i.entries, err = provision.NewEntries(provision.EntriesConfig{Client: cfg.Client, Ports: cfg.Ports, Dir: cfg.Dir, OnChange: i.moved, Logger: cfg.Logger}); err != nil {
		return nil, err
	}
	i.provisioner, err = provision.New(provision.Config{
		Local: cfg.Cluster, Client: cfg.Client, Entries: i.entries, OnStanding: cfg.OnStanding, Logger: cfg.Logger, Registerer: cfg.Registerer,
		Want: func(n provision.Name) (*provision.Import, bool) {
			res := i.result.Load()
			if res == nil {
				return nil, false
			}
			return importOf(res, n), true
		},
		Names: i.names,
		Namespace: func(ns string) bool {
			res := i.result.Load()
			if res == nil {
				return false
			}
			_, ok := res.Snapshot.Get(cfg.Cluster, cluster.KindNamespace, "", ns)
			return ok
		},
		Gateways: func() []provision.Crossing {
			if res := i.result.Load(); res != nil {
				return gatewaysOf(res, i.namespace, i.service)
			}
			return nil
		},
	})
	return i, err
}

func (i *Imports) names() (out []provision.Name) {
	if res := i.result.Load(); res != nil {
		res.Imports.Root().Walk(func(_ []byte, imp *resolve.Import) bool {
			out = append(out, provision.Name{Namespace: imp.Namespace, Name: imp.Name})
			return false
		})
	}
	return out
}

// OnResult takes the next Result with what differs from the one before. It never blocks.
func (i *Imports) OnResult(res *resolve.Result, delta resolve.Delta) {
	i.mu.Lock()
	i.result.Store(res)
	for _, list := range [][]string{delta.Imports, delta.Frontends, delta.BackendConfigs, delta.BackendEndpoints} {
		for _, key := range list {
			if n, ok := nameIn(key); ok {
				i.dirty[n] = true
			}
		}
	}
	i.mu.Unlock()
	i.poke()
}

// nameIn reads the import in a key of a Delta: "ns/name", "ServiceImport/ns/name" or
// "ServiceImport/ns/name/80".
func nameIn(key string) (provision.Name, bool) {
	parts := strings.Split(key, "/")
	switch {
	case len(parts) == 2:
		return provision.Name{Namespace: parts[0], Name: parts[1]}, true
	case len(parts) > 2 && parts[0] == string(cluster.KindServiceImport):
		return provision.Name{Namespace: parts[1], Name: parts[2]}, true
	}
	return provision.Name{}, false
}

// moved takes imports whose entry ports may differ.
func (i *Imports) moved(names []provision.Name) {
	i.mu.Lock()
	for _, n := range names {
		i.rebind[resolve.FrontendKey{Kind: cluster.KindServiceImport, Namespace: n.Namespace, Name: n.Name}.String()] = true
		i.dirty[n] = true
	}
	i.mu.Unlock()
	i.poke()
}

func (i *Imports) poke() {
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

// Watch follows the entry ports until ctx ends. Every replica runs it, once.
func (i *Imports) Watch(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { _ = i.entries.Run(ctx) }) // it gives no error
	var gateways []provision.Crossing
	namespaces := map[string]bool{}
	every := time.NewTicker(resync)
	defer every.Stop()
	for {
		all := false
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
			all = true
		case <-i.wake:
		}
		i.mu.Lock()
		dirty, rebind := i.dirty, i.rebind
		i.dirty, i.rebind = map[provision.Name]bool{}, map[string]bool{}
		i.mu.Unlock()
		if len(rebind) > 0 {
			i.cfg.Rebind(slices.Sorted(maps.Keys(rebind)))
		}
		res := i.result.Load()
		if res == nil {
			continue
		}
		if now := gatewaysOf(res, i.namespace, i.service); !slices.Equal(now, gateways) {
			gateways, all = now, true
		}
		now := map[string]bool{}
		for _, o := range res.Snapshot.OfKind(cluster.KindNamespace) {
			if o.Cluster == i.cfg.Cluster {
				now[o.Name] = true
				all = all || !namespaces[o.Name]
			}
		}
		all = all || len(now) != len(namespaces)
		namespaces = now
		if all {
			i.provisioner.TouchAll()
		}
		i.provisioner.Touch(slices.Collect(maps.Keys(dirty)))
	}
}

// Lead keeps the cluster's objects until ctx ends. The leader runs it, beside Watch; it
// may be called again after it returned.
func (i *Imports) Lead(ctx context.Context) error { return i.provisioner.Run(ctx) }

// Ready reports whether the entry ports that were recorded are known, from the API server
// or from the copy: before that, a crossing gateway must not be told that it has none.
func (i *Imports) Ready() bool { return i.entries.Known() }

// Entry implements its part of translate.Bindings.
func (i *Imports) Entry(_ translate.Proxy, key resolve.FrontendKey, t translate.Transport, port int32) (netip.AddrPort, bool) {
	number, ok := i.entries.Port(provision.Name{Namespace: key.Namespace, Name: key.Name}, corev1.Protocol(t), port)
	if !ok {
		return netip.AddrPort{}, false
	}
	at := netip.IPv4Unspecified()
	if i.cfg.IPv6 {
		at = netip.IPv6Unspecified()
	}
	return netip.AddrPortFrom(at, number), true
}

// Standing tells how an import stands in this cluster (provision.Provisioner.Standing).
func (i *Imports) Standing(namespace, name string) (provision.Standing, bool) {
	return i.provisioner.Standing(provision.Name{Namespace: namespace, Name: name})
}

// Problems lists what of imports a person has to mend.
func (i *Imports) Problems() []cluster.Problem { return i.provisioner.Problems() }
