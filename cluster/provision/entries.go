package provision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/kubernetes"
)

// EntriesConfig makes Entries. Client and Logger are required.
type EntriesConfig struct {
	Client *kubernetes.Client
	// Ports are those of crossing gateways that may be entry ports; DefaultEntryPorts if zero.
	Ports PortRange
	// Dir is a folder for a copy of the entry ports, with which a start without the API
	// server begins. Empty: none.
	Dir string
	// OnChange is told of imports whose entry ports may have changed. It must not block.
	OnChange func([]Name)
	Logger   *slog.Logger
}

// Entries knows the entry ports: the ports of this cluster's crossing gateways at which
// clients without a sidecar call the ports of imports. The derived Services record them
// as their targetPorts, which every replica of the agent watches, so that what Envoys
// listen on and what EndpointSlices name is the same, without a store of its own and
// whoever leads. Its methods may be called from any goroutine.
type Entries struct {
	cfg      EntriesConfig
	client   *client
	informer cache.SharedIndexInformer

	mu    sync.Mutex
	alloc *allocation
	seen  map[Name]*corev1.Service // what alloc has taken over
	fresh bool                     // seen holds what the copy said, and perhaps nobody else does
	dirty chan struct{}            // 1 deep: the copy is behind
}

// NewEntries validates and starts nothing.
func NewEntries(cfg EntriesConfig) (*Entries, error) {
	if cfg.Client == nil || cfg.Logger == nil {
		return nil, errors.New("entries: Client and Logger are required")
	}
	if cfg.Ports == (PortRange{}) {
		cfg.Ports = DefaultEntryPorts
	}
	if err := cfg.Ports.validate(); err != nil {
		return nil, err
	}
	if cfg.OnChange == nil {
		cfg.OnChange = func([]Name) {}
	}
	c, err := newClient(cfg.Client)
	if err != nil {
		return nil, fmt.Errorf("entries: %w", err)
	}
	e := &Entries{cfg: cfg, client: c, alloc: newAllocation(cfg.Ports), seen: map[Name]*corev1.Service{}, dirty: make(chan struct{}, 1)}
	if e.informer, err = c.informer(servicesResource, kubernetes.LabelDerived, importFor); err != nil {
		return nil, fmt.Errorf("entries: %w", err)
	}
	_, err = e.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { e.observe(o, false) },
		UpdateFunc: func(_, o any) { e.observe(o, false) },
		DeleteFunc: func(o any) { e.observe(o, true) },
	})
	if err != nil {
		return nil, fmt.Errorf("entries: %w", err)
	}
	return e, e.load()
}

// Run watches until ctx ends. It may be called once.
func (e *Entries) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { e.informer.RunWithContext(ctx) })
	if cache.WaitForCacheSync(ctx.Done(), e.informer.HasSynced) {
		e.prune()
	}
	for {
		select {
		case <-ctx.Done():
		case <-e.dirty:
			_ = cluster.Pause(ctx, time.Second) // not at every change
		}
		last := ctx.Err() != nil // the copy that is left has all
		if err := e.save(); err != nil {
			e.cfg.Logger.Warn("the copy of the entry ports can't be written", "error", err)
		}
		if last {
			return nil
		}
	}
}

// Known reports whether all entry ports are: from the API server, or from the copy.
func (e *Entries) Known() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.fresh || e.informer.HasSynced()
}

// Port gives the entry port of a port of an import, if it has one.
func (e *Entries) Port(n Name, protocol corev1.Protocol, port int32) (uint16, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.alloc.get(entryKey{n, protocol, port})
}

// with runs do with the allocation, which it must not keep.
func (e *Entries) with(do func(*allocation)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	do(e.alloc)
}

// observe takes over what the API server says of a derived Service.
func (e *Entries) observe(o any, gone bool) {
	if d, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = d.Obj
	}
	s, ok := o.(*corev1.Service)
	if !ok || !oursDerived(s) {
		return
	}
	n := importFor(s)
	if s.Name != ServiceName(n) {
		return
	}
	e.mu.Lock()
	old := e.seen[n]
	if old != nil && !gone && newer(metav1.Object(old), s) || gone && old != nil && old.UID != s.UID {
		e.mu.Unlock()
		return
	}
	var touched []Name
	if gone {
		delete(e.seen, n)
		touched = e.alloc.set(n, nil)
	} else {
		e.seen[n] = s
		touched = e.alloc.set(n, s)
	}
	e.mu.Unlock()
	e.changed(touched)
}

func (e *Entries) changed(touched []Name) {
	select {
	case e.dirty <- struct{}{}:
	default:
	}
	slices.SortFunc(touched, compareNames)
	e.cfg.OnChange(touched)
}

// prune drops what only the copy knows, once the API server has told all.
func (e *Entries) prune() {
	e.mu.Lock()
	var touched []Name
	for n := range e.seen {
		if _, ok, err := e.informer.GetStore().GetByKey(n.Namespace + "/" + ServiceName(n)); err == nil && !ok {
			delete(e.seen, n)
			touched = append(touched, e.alloc.set(n, nil)...)
		}
	}
	e.mu.Unlock()
	e.changed(touched)
}
