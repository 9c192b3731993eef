package provision

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster/kubernetes"
)

// view is what the API server has of imports: what watches tell, and before they do what
// writes gave, so that nothing is written twice. Its methods may be called from any
// goroutine.
type view struct {
	version  string
	imports  cache.SharedIndexInformer
	services cache.SharedIndexInformer // the Entries'
	slices   cache.SharedIndexInformer
	touch    func(Name)

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

func newView(p *Provisioner, version string) (*view, error) {
	v := &view{version: version, services: p.cfg.Entries.informer, told: map[Name]map[objectKey]told{}}
	var err error
	if v.imports, err = p.client.informer(importsResource(version), ""); err != nil {
		return nil, fmt.Errorf("watch ServiceImports: %w", err)
	}
	if v.slices, err = p.client.informer(slicesResource, kubernetes.LabelDerived); err != nil {
		return nil, fmt.Errorf("watch EndpointSlices: %w", err)
	}
	return v, nil
}

// run watches until ctx ends.
func (v *view) run(ctx context.Context) {
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { v.changed(o) },
		UpdateFunc: func(_, o any) { v.changed(o) },
		DeleteFunc: func(o any) { v.changed(o) },
	}
	var wg sync.WaitGroup
	for _, i := range []cache.SharedIndexInformer{v.imports, v.services, v.slices} {
		r, err := i.AddEventHandler(handler)
		if err != nil {
			return // it has been stopped
		}
		defer func() { _ = i.RemoveEventHandler(r) }()
	}
	wg.Go(func() { v.imports.RunWithContext(ctx) })
	wg.Go(func() { v.slices.RunWithContext(ctx) })
	wg.Wait()
}

func (v *view) synced(ctx context.Context) bool {
	return cache.WaitForCacheSync(ctx.Done(), v.imports.HasSynced, v.services.HasSynced, v.slices.HasSynced)
}

func (v *view) changed(o any) {
	if d, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = d.Obj
	}
	m, ok := o.(metav1.Object)
	if !ok {
		return
	}
	if _, ok := o.(*mcsv1beta1.ServiceImport); !ok && m.GetLabels()[mcsv1beta1.LabelServiceName] == "" {
		return // nobody's, or nobody's we know
	}
	v.touch(importFor(m))
}

// names lists all imports of which there is something that is ours.
func (v *view) names() (out []Name) {
	for _, i := range []cache.SharedIndexInformer{v.imports, v.services, v.slices} {
		for _, o := range i.GetStore().List() {
			if m, ok := o.(metav1.Object); ok && ours(m) {
				out = append(out, importFor(m))
			}
		}
	}
	return out
}

func kindOf(o metav1.Object) string {
	switch o.(type) {
	case *mcsv1beta1.ServiceImport:
		return mcsv1beta1.ServiceImportKindName
	case *corev1.Service:
		return "Service"
	}
	return "EndpointSlice"
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

// objects gives all that there is of an import, by kind and name.
func (v *view) objects(n Name) map[objectKey]metav1.Object {
	out := map[objectKey]metav1.Object{}
	for _, i := range []cache.SharedIndexInformer{v.imports, v.services, v.slices} {
		list, err := i.GetIndexer().ByIndex(byImport, n.String())
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
