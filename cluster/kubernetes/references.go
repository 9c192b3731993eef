package kubernetes

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
)

// refers are the kinds whose change may change what has to be read of Secrets and
// ConfigMaps.
var refers = map[cluster.Kind]bool{cluster.KindGatewayClass: true, cluster.KindGateway: true, cluster.KindListenerSet: true, cluster.KindBackendTLSPolicy: true}

// maxReferences bounds the Secrets and ConfigMaps that are read, each of which
// costs a watch.
const maxReferences = 5000

// single is one Secret or ConfigMap that is followed.
type single struct {
	stop     func()
	answered bool // it was read, or the server refused to
}

// References lists the Secrets and ConfigMaps that an object refers to, without
// asking whether it may: the resolver decides that.
func References(o *cluster.Object) []cluster.Ref {
	var out []cluster.Ref
	secret := func(ref gatewayv1.SecretObjectReference) {
		if (ref.Group == nil || *ref.Group == "") && (ref.Kind == nil || *ref.Kind == gatewayv1.Kind(cluster.KindSecret)) {
			r := cluster.Ref{Kind: cluster.KindSecret, Namespace: o.Namespace, Name: string(ref.Name)}
			if ref.Namespace != nil {
				r.Namespace = string(*ref.Namespace)
			}
			out = append(out, r)
		}
	}
	validation := func(v *gatewayv1.FrontendTLSValidation) {
		if v == nil {
			return
		}
		for _, ref := range v.CACertificateRefs {
			if ref.Group == "" && ref.Kind == gatewayv1.Kind(cluster.KindConfigMap) {
				r := cluster.Ref{Kind: cluster.KindConfigMap, Namespace: o.Namespace, Name: string(ref.Name)}
				if ref.Namespace != nil {
					r.Namespace = string(*ref.Namespace)
				}
				out = append(out, r)
			}
		}
	}
	switch v := o.Value.(type) {
	case *gatewayv1.GatewayClass:
		if p := v.Spec.ParametersRef; p != nil && p.Group == "" && p.Kind == gatewayv1.Kind(cluster.KindConfigMap) && p.Namespace != nil {
			out = append(out, cluster.Ref{Kind: cluster.KindConfigMap, Namespace: string(*p.Namespace), Name: p.Name})
		}
	case *gatewayv1.Gateway:
		for _, l := range v.Spec.Listeners {
			if l.TLS != nil {
				for _, ref := range l.TLS.CertificateRefs {
					secret(ref)
				}
			}
		}
		if i := v.Spec.Infrastructure; i != nil && i.ParametersRef != nil && i.ParametersRef.Group == "" && i.ParametersRef.Kind == gatewayv1.Kind(cluster.KindConfigMap) {
			out = append(out, cluster.Ref{Kind: cluster.KindConfigMap, Namespace: o.Namespace, Name: i.ParametersRef.Name})
		}
		if t := v.Spec.TLS; t != nil {
			if t.Backend != nil && t.Backend.ClientCertificateRef != nil {
				secret(*t.Backend.ClientCertificateRef)
			}
			if t.Frontend != nil {
				validation(t.Frontend.Default.Validation)
				for _, p := range t.Frontend.PerPort {
					validation(p.TLS.Validation)
				}
			}
		}
	case *gatewayv1.ListenerSet:
		for _, l := range v.Spec.Listeners {
			if l.TLS != nil {
				for _, ref := range l.TLS.CertificateRefs {
					secret(ref)
				}
			}
		}
	case *gatewayv1.BackendTLSPolicy:
		for _, ref := range v.Spec.Validation.CACertificateRefs {
			if ref.Group == "" && ref.Kind == gatewayv1.Kind(cluster.KindConfigMap) {
				out = append(out, cluster.Ref{Kind: cluster.KindConfigMap, Namespace: o.Namespace, Name: string(ref.Name)})
			}
		}
	}
	return out
}

// Need replaces the Secrets and ConfigMaps that are read beside those to which
// this cluster's own objects refer: those of Gateways that other clusters wrote
// for all. It never blocks.
func (s *Source) Need(refs []cluster.Ref) {
	next := map[cluster.Ref]bool{}
	for _, r := range refs {
		if k := byKind(r.Kind); k != nil && k.single {
			next[r] = true
		}
	}
	s.refMu.Lock()
	defer s.refMu.Unlock()
	if !maps.Equal(next, s.outside) {
		s.outside = next
		poke(s.resolve)
	}
}

// wanted lists what is referred to: by our classes and their Gateways, by ListenerSets
// of those, and by policies.
func (s *Source) wanted() map[cluster.Ref]bool {
	out := map[cluster.Ref]bool{}
	add := func(o *cluster.Object) {
		for _, r := range References(o) {
			out[r] = true
		}
	}
	classes := map[string]bool{cluster.ClassCauseway: true, cluster.ClassClusterset: true}
	for _, o := range s.state.all(cluster.KindGatewayClass) {
		if c, ok := o.Value.(*gatewayv1.GatewayClass); ok {
			if classes[o.Name] = string(c.Spec.ControllerName) == cluster.ControllerName; classes[o.Name] {
				add(o)
			}
		}
	}
	foreign := map[cluster.Ref]bool{} // Gateways of somebody else's
	for _, o := range s.state.all(cluster.KindGateway) {
		if g, ok := o.Value.(*gatewayv1.Gateway); ok && classes[string(g.Spec.GatewayClassName)] {
			add(o)
		} else {
			foreign[o.Ref] = true
		}
	}
	for _, o := range s.state.all(cluster.KindListenerSet) {
		if l, ok := o.Value.(*gatewayv1.ListenerSet); ok {
			parent := cluster.Ref{Kind: cluster.KindGateway, Namespace: o.Namespace, Name: string(l.Spec.ParentRef.Name)}
			if l.Spec.ParentRef.Namespace != nil {
				parent.Namespace = string(*l.Spec.ParentRef.Namespace)
			}
			if !foreign[parent] {
				add(o)
			}
		}
	}
	for _, o := range s.state.all(cluster.KindBackendTLSPolicy) {
		add(o)
	}
	return out
}

// followReferences keeps one follower for each Secret and ConfigMap that is
// wanted, until ctx ends.
func (s *Source) followReferences(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for first := true; ; {
		s.state.mu.Lock()
		advanced, referred := s.state.advanced, s.state.referred
		s.state.mu.Unlock()
		s.refMu.Lock()
		stale := first || referred != s.pursued
		s.refMu.Unlock()
		if stale && s.looked.Load() && len(s.state.missing()) == 0 {
			first = false
			s.pursue(ctx, &wg, referred)
			s.wake() // what waits for references may go on
		}
		select {
		case <-ctx.Done():
			return
		case <-advanced:
		case <-s.resolve:
			first = true
		}
	}
}

// pursue starts and stops followers as wanted says; referred is the count of
// changes of which it takes account.
func (s *Source) pursue(ctx context.Context, wg *sync.WaitGroup, referred uint64) {
	want := s.wanted()
	s.refMu.Lock()
	defer s.refMu.Unlock()
	s.pursued = referred
	for r := range s.outside {
		want[r] = true
	}
	for ref, x := range s.singles {
		if want[ref] {
			continue
		}
		delete(s.singles, ref)
		x.stop()
		s.forget(ref)
	}
	// The copy on disk may have brought what nothing refers to now.
	for _, kind := range []cluster.Kind{cluster.KindSecret, cluster.KindConfigMap} {
		for _, o := range s.state.all(kind) {
			if !want[o.Ref] {
				s.forget(o.Ref)
			}
		}
	}
	left := 0
	for _, ref := range slices.SortedFunc(maps.Keys(want), compareRefs) {
		if s.singles[ref] != nil {
			continue
		}
		if len(s.singles) >= maxReferences {
			left++
			continue
		}
		s.singles[ref] = s.pursueOne(ctx, wg, ref)
	}
	s.settled = true
	var p *cluster.Problem
	if left > 0 {
		p = &cluster.Problem{Cluster: s.cfg.Cluster, Where: "Kubernetes API", Message: fmt.Sprintf("Gateways and policies refer to more than %d Secrets and ConfigMaps: %d are left out", maxReferences, left)}
	}
	s.state.problem("references", p)
}

func (s *Source) pursueOne(ctx context.Context, wg *sync.WaitGroup, ref cluster.Ref) *single {
	ctx, cancel := context.WithCancel(ctx)
	r := byKind(ref.Kind)
	f := &follower{s: s, r: r, version: r.versions[0], only: ref}
	x := &single{stop: func() {
		s.state.shut(&f.writer)
		cancel()
	}}
	answered := func() {
		s.refMu.Lock()
		news := !x.answered
		x.answered = true
		s.refMu.Unlock()
		if news {
			s.wake()
		}
	}
	f.full, f.refused = answered, answered
	wg.Go(func() { f.run(ctx) })
	return x
}

// forget drops what was read of one object.
func (s *Source) forget(ref cluster.Ref) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	k := s.state.kinds[ref.Kind]
	if k.entries[ref] != nil {
		s.state.drop(k, ref)
		s.state.notify()
	}
	delete(s.state.problems, ref.String())
}

// referencesSettled reports whether all that is referred to now was answered.
func (s *Source) referencesSettled() bool {
	s.state.mu.Lock()
	referred := s.state.referred
	s.state.mu.Unlock()
	s.refMu.Lock()
	defer s.refMu.Unlock()
	if !s.settled || s.pursued != referred {
		return false
	}
	for _, x := range s.singles {
		if !x.answered {
			return false
		}
	}
	return true
}

func compareRefs(a, b cluster.Ref) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}
