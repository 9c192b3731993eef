package provision

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster/kubernetes"
)

// view is what the API server has for imports, or for Gateways: what watches tell, and
// before they do what writes gave, so that nothing is written twice. Its methods may be
// called from any goroutine.
type view struct {
	version string // of ServiceImports, if it is of imports
	// of names that for which an object is there: without a name, nobody that we know.
	of func(metav1.Object) Name
	// watches are indexed by of. Those from own on are run by the view.
	watches []cache.SharedIndexInformer
	own     int
	touch   func(Name)

	mu   sync.Mutex
	told map[Name]map[objectKey]told
}

type objectKey struct{ kind, name string }

// told is what a write or a look gave: an object, or that the one with a UID is gone.
type told struct {
	object metav1.Object
	gone   types.UID
	when   time.Time
}

// toldLasts is how long the watches may take to tell the same. It bounds how long a
// mistaken told can stay.
const toldLasts = 10 * time.Second

// watched is a resource to watch, as far as a selector of labels has it.
type watched struct {
	resource schema.GroupVersionResource
	selector string
}

// newView watches resources, beside what somebody else does.
func newView(c *client, of func(metav1.Object) Name, touch func(Name), list []watched, beside ...cache.SharedIndexInformer) (*view, error) {
	v := &view{of: of, touch: touch, watches: beside, own: len(beside), told: map[Name]map[objectKey]told{}}
	for _, w := range list {
		i, err := c.informer(w.resource, w.selector, of)
		if err != nil {
			return nil, fmt.Errorf("watch %s: %w", w.resource.Resource, err)
		}
		v.watches = append(v.watches, i)
	}
	return v, nil
}

// importView is a view of what is there for imports.
func importView(c *client, e *Entries, version string, touch func(Name)) (*view, error) {
	v, err := newView(c, importFor, touch, []watched{{importsResource(version), ""}, {slicesResource, kubernetes.LabelDerived}}, e.informer)
	if err == nil {
		v.version = version
	}
	return v, err
}

// run watches until ctx ends.
func (v *view) run(ctx context.Context) {
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { v.changed(o) },
		UpdateFunc: func(_, o any) { v.changed(o) },
		DeleteFunc: func(o any) { v.changed(o) },
	}
	var wg sync.WaitGroup
	for _, i := range v.watches {
		r, err := i.AddEventHandler(handler)
		if err != nil {
			return // it has been stopped
		}
		defer func() { _ = i.RemoveEventHandler(r) }()
	}
	for _, i := range v.watches[v.own:] {
		wg.Go(func() { i.RunWithContext(ctx) })
	}
	wg.Wait()
}

func (v *view) synced(ctx context.Context) bool {
	var all []cache.InformerSynced
	for _, i := range v.watches {
		all = append(all, i.HasSynced)
	}
	return cache.WaitForCacheSync(ctx.Done(), all...)
}

func (v *view) changed(o any) {
	if d, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = d.Obj
	}
	m, ok := o.(metav1.Object)
	if !ok {
		return
	}
	if n := v.of(m); n.Name != "" {
		v.touch(n)
	}
}

// names lists all for which there is something of ours.
func (v *view) names() (out []Name) {
	for _, i := range v.watches {
		for _, o := range i.GetStore().List() {
			if m, ok := o.(metav1.Object); ok && ours(m) {
				out = append(out, v.of(m))
			}
		}
	}
	return out
}

func keyOf(o metav1.Object) objectKey { return objectKey{kindOf(o), o.GetName()} }

// learned notes what a write or a look gave.
func (v *view) learned(n Name, o metav1.Object) {
	v.note(n, keyOf(o), told{object: o, when: time.Now()})
}

// removed notes that an object is gone.
func (v *view) removed(n Name, o metav1.Object) {
	v.note(n, keyOf(o), told{gone: o.GetUID(), when: time.Now()})
}

func (v *view) note(n Name, k objectKey, t told) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.told[n] == nil {
		v.told[n] = map[objectKey]told{}
	}
	v.told[n][k] = t
}

// objects gives all that there is for a name, by kind and name.
func (v *view) objects(n Name) map[objectKey]metav1.Object {
	out := map[objectKey]metav1.Object{}
	for _, i := range v.watches {
		list, err := i.GetIndexer().ByIndex(byOwner, n.String())
		if err != nil {
			continue // there is such an index
		}
		for _, o := range list {
			if m, ok := o.(metav1.Object); ok {
				out[keyOf(m)] = m
			}
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for k, t := range v.told[n] {
		seen := out[k]
		switch {
		case time.Since(t.when) > toldLasts,
			t.object != nil && seen != nil && newer(seen, t.object),
			t.object == nil && (seen == nil || seen.GetUID() != t.gone):
			delete(v.told[n], k)
		case t.object != nil:
			out[k] = t.object
		default:
			delete(out, k)
		}
	}
	if len(v.told[n]) == 0 {
		delete(v.told, n)
	}
	return out
}

// find gives an object of the same kind and name, nil if there is none.
func (v *view) find(n Name, like metav1.Object) metav1.Object { return v.objects(n)[keyOf(like)] }

// have arranges what there is of an import for a plan.
func (v *view) have(n Name) Have {
	var h Have
	for k, o := range v.objects(n) {
		switch o := o.(type) {
		case *mcsv1beta1.ServiceImport:
			h.Import = o
		case *corev1.Service:
			if k.name == ServiceName(n) {
				h.Service = o
			}
		case *discoveryv1.EndpointSlice:
			h.Slices = append(h.Slices, o)
		}
	}
	return h
}
