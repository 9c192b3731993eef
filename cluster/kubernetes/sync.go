package kubernetes

import (
	"context"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/causeway-mesh/causeway/cluster"
)

var errStopped = errors.New("the source has stopped")

// Sync implements cluster.Source: it asks the API server which objects there are
// now, in which versions, and returns once all of that has been delivered. It
// reads metadata alone, and waits for the first full set.
func (s *Source) Sync(ctx context.Context) error {
	if err := s.until(ctx, s.full.Load); err != nil {
		return err
	}
	for _, r := range resources {
		if r.single {
			continue // followed by what refers to them
		}
		s.client.mu.Lock()
		version := s.client.types[r.kind]
		s.client.mu.Unlock()
		if !r.custom {
			version = r.versions[0]
		}
		if version == "" {
			continue
		}
		gvr := schema.GroupVersionResource{Group: r.group, Version: version, Resource: r.plural}
		list, err := s.client.objects.Resource(gvr).List(ctx, metav1.ListOptions{LabelSelector: r.selector})
		if err != nil {
			return fmt.Errorf("ask the API server for the current %s: %w", r.plural, err)
		}
		if err := s.until(ctx, func() bool { return s.state.includes(r.kind, list) }); err != nil {
			return fmt.Errorf("wait for the current %s: %w", r.plural, err)
		}
	}
	return s.until(ctx, s.quiet)
}

// quiet reports whether everything that has arrived has been delivered.
func (s *Source) quiet() bool {
	if !s.referencesSettled() {
		return false
	}
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	return len(s.state.pending) == 0 && !s.state.taken
}

// until returns when ok holds; it is asked whenever something arrives or is
// delivered.
func (s *Source) until(ctx context.Context, ok func() bool) error {
	for {
		s.state.mu.Lock()
		advanced := s.state.advanced
		s.state.mu.Unlock()
		if ok() {
			return nil
		}
		select {
		case <-advanced:
		case <-s.done:
			return errStopped
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// includes reports whether the state is at least as new as a list of the kind.
func (s *state) includes(kind cluster.Kind, list *metav1.PartialObjectMetadataList) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kinds[kind]
	if !k.exists {
		return true
	}
	at := versionNumber(list.ResourceVersion)
	if k.upTo >= at {
		return true
	}
	there := make(map[cluster.Ref]bool, len(list.Items))
	for i := range list.Items {
		m := &list.Items[i]
		ref := cluster.Ref{Kind: kind, Namespace: m.Namespace, Name: m.Name}
		there[ref] = true
		e := k.entries[ref]
		if e == nil && k.upTo < versionNumber(m.ResourceVersion) || e != nil && e.rv < versionNumber(m.ResourceVersion) {
			return false
		}
	}
	for ref, e := range k.entries {
		if !there[ref] && e.rv <= at {
			return false // its deletion has not arrived
		}
	}
	return true
}
