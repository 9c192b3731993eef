package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/causeway-mesh/causeway/cluster"
)

// Times of discovery.
const (
	// lookEvery is for servers that don't let the agent watch definitions.
	lookEvery = 30 * time.Second
	// A kind is let go when two looks that are that far apart don't find it.
	lookAgain = time.Second
)

// followLooks is when to look again after a hint: discovery follows a definition
// after a while.
var followLooks = []time.Duration{200 * time.Millisecond, time.Second, 3 * time.Second}

// unauthorizedGrace is how long an API server that refuses to say how it is counts
// as one that is starting: its rules are not there yet. After that it counts as one
// that keeps the answer from us.
const unauthorizedGrace = 10 * time.Second

// prober asks whether the API server can serve. It belongs to the gate's goroutine.
func (c *Client) prober() func(context.Context) error {
	var since time.Time // it answers, and refuses
	return func(ctx context.Context) error {
		err := c.root.Get().AbsPath("/readyz").Do(ctx).Error()
		if !apierrors.IsForbidden(err) && !apierrors.IsUnauthorized(err) {
			since = time.Time{}
			return err
		}
		if since.IsZero() {
			since = time.Now()
		}
		if time.Since(since) > unauthorizedGrace {
			return nil
		}
		return err
	}
}

// get reads a discovery document; false: there is none.
func (c *Client) get(ctx context.Context, path string, into any) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	raw, err := c.root.Get().AbsPath(path).SetHeader("Accept", runtime.ContentTypeJSON).Do(ctx).Raw()
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("discovery at %s: %w", path, err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return false, fmt.Errorf("discovery at %s: %w", path, err)
	}
	return true, nil
}

// served gives the version in which each custom kind is best read. Kinds that are
// not served are missing; an error says that nothing is known.
func (c *Client) served(ctx context.Context) (map[cluster.Kind]string, error) {
	out := map[cluster.Kind]string{}
	for _, group := range []string{groupGateway, groupMultiCluster} {
		var g metav1.APIGroup
		if found, err := c.get(ctx, "/apis/"+group, &g); err != nil {
			return nil, err
		} else if !found {
			continue
		}
		has := map[string][]metav1.APIResource{}
		for _, v := range g.Versions {
			if !slices.ContainsFunc(resources, func(r *resource) bool { return r.group == group && slices.Contains(r.versions, v.Version) }) {
				continue
			}
			var l metav1.APIResourceList
			if _, err := c.get(ctx, "/apis/"+group+"/"+v.Version, &l); err != nil {
				return nil, err
			}
			has[v.Version] = l.APIResources
		}
		for _, r := range resources {
			if r.group != group {
				continue
			}
			for _, v := range r.versions {
				if slices.ContainsFunc(has[v], func(a metav1.APIResource) bool {
					return a.Name == r.plural && slices.Contains(a.Verbs, "list") && slices.Contains(a.Verbs, "watch")
				}) {
					out[r.kind] = v
					break
				}
			}
		}
	}
	return out, nil
}

// following is a running follower of a kind.
type following struct {
	version string
	stop    func()
	absent  time.Time // when a look first missed it
}

// discover keeps a follower for each kind that is served, until ctx ends.
func (s *Source) discover(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	running := map[cluster.Kind]*following{}
	follow := func(r *resource, version string) {
		ctx, cancel := context.WithCancel(ctx)
		ended := make(chan struct{})
		f := &follower{s: s, r: r, version: version, refused: func() {}}
		f.full = func() { s.state.arrived(&f.writer, r.kind) }
		wg.Go(func() {
			defer close(ended)
			f.run(ctx)
		})
		running[r.kind] = &following{version: version, stop: func() {
			s.state.shut(&f.writer)
			cancel()
			<-ended
		}}
	}
	for _, r := range resources {
		if !r.custom && !r.single {
			follow(r, r.versions[0])
		}
	}
	var due []time.Duration // looks that follow a hint
	for {
		if s.client.gate.wait(ctx) != nil {
			return
		}
		next := lookEvery
		served, err := s.client.served(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			// Nothing is known, so nothing changes.
			s.log.Debug("discovery failed", "error", err)
			next = lookAgain
		} else {
			for _, r := range resources {
				if r.custom && s.adopt(r, served[r.kind], running, follow) {
					next = lookAgain
				}
			}
			if s.looked.CompareAndSwap(false, true) {
				s.wake()
			}
		}
		if len(due) > 0 {
			next, due = min(next, due[0]), due[1:]
		}
		t := time.NewTimer(next)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		case <-s.looks:
			due = followLooks
		}
		t.Stop()
	}
}

// adopt brings one kind's follower in line with what discovery says of it, and
// reports whether it has to be asked again soon.
func (s *Source) adopt(r *resource, version string, running map[cluster.Kind]*following, follow func(*resource, string)) (again bool) {
	now := running[r.kind]
	switch {
	case now == nil && version == "":
		// What the copy on disk has of it is not served any more.
		s.state.exist(r.kind, false)
	case now == nil:
		s.log.Info("kind is served", "kind", r.kind, "version", version)
		s.client.use(r.kind, version)
		s.state.exist(r.kind, true)
		follow(r, version)
	case version == "" && now.absent.IsZero():
		now.absent = time.Now()
		return true
	case version == "" && time.Since(now.absent) < lookAgain:
		return true
	case version == "":
		s.log.Info("kind is not served any more", "kind", r.kind)
		now.stop()
		delete(running, r.kind)
		s.client.use(r.kind, "")
		s.state.exist(r.kind, false)
		s.state.problem((&follower{r: r, version: now.version}).about(), nil)
	case version != now.version:
		// The objects stay until the new version has been read in full.
		s.log.Info("kind is served in another version", "kind", r.kind, "from", now.version, "to", version)
		now.stop()
		s.state.problem((&follower{r: r, version: now.version}).about(), nil)
		s.client.use(r.kind, version)
		follow(r, version)
	default:
		now.absent = time.Time{}
	}
	return false
}

// definitions is where CustomResourceDefinitions are.
var definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// watchDefinitions has discovery look whenever one of our definitions changes. Of
// definitions only the metadata is read.
func (s *Source) watchDefinitions(ctx context.Context) {
	ours := map[string]bool{}
	for _, r := range resources {
		if r.custom {
			ours[r.definition()] = true
		}
	}
	api := s.client.objects.Resource(definitions)
	pause := func(err error) error {
		if err != nil && !serverFault(err) {
			_ = cluster.Pause(ctx, lookEvery) // not allowed, as a rule: looking from time to time has to do
		}
		return err
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			out, err := api.List(ctx, o)
			return out, pause(err)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			out, err := api.Watch(ctx, o)
			return out, pause(err)
		},
	}
	s.reflect(ctx, "definitions", lw, &metav1.PartialObjectMetadata{}, hints{ours, s.look, s.channel})
}

// routesDefinition tells by its annotation of which channel the fields of routes are.
const routesDefinition = "httproutes." + groupGateway

// channel notes of which release channel of Gateway API the definition of HTTPRoutes is.
// What GatewayClasses say depends on it.
func (s *Source) channel(name string) {
	experimental := name == "experimental"
	if s.experimental.Swap(experimental) != experimental {
		s.state.touch(cluster.KindGatewayClass)
	}
}

// hints is a cache.ReflectorStore that keeps nothing.
type hints struct {
	names   map[string]bool
	look    func()
	channel func(name string)
}

func (h hints) hint(obj any) error {
	if m, ok := obj.(metav1.ObjectMetaAccessor); ok && h.names[m.GetObjectMeta().GetName()] {
		h.look()
		if m.GetObjectMeta().GetName() == routesDefinition {
			h.channel(m.GetObjectMeta().GetAnnotations()["gateway.networking.k8s.io/channel"])
		}
	}
	return nil
}

// Add implements cache.ReflectorStore.
func (h hints) Add(obj any) error { return h.hint(obj) }

// Update implements cache.ReflectorStore.
func (h hints) Update(obj any) error { return h.hint(obj) }

// Delete implements cache.ReflectorStore.
func (h hints) Delete(obj any) error { return h.hint(obj) }

// Replace implements cache.ReflectorStore.
func (h hints) Replace(list []any, _ string) error {
	for _, obj := range list {
		_ = h.hint(obj)
	}
	h.look()
	return nil
}

// Resync implements cache.ReflectorStore.
func (h hints) Resync() error { return nil }

// wake has Run look at whether it can deliver.
func (s *Source) wake() {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	s.state.notify()
}

// cutName splits "namespace/name".
func cutName(s string) (ns, name string, ok bool) {
	for i := range s {
		if s[i] == '/' {
			return s[:i], s[i+1:], true
		}
	}
	return "", s, false
}
