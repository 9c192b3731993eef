package kubernetes_test

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/client-go/rest"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/kubernetes"
	"github.com/causeway-mesh/causeway/test/lab"
)

// asAgent gives the connection of somebody who has the rights of Rules alone.
func asAgent(t *testing.T, cp *lab.ControlPlane) *kubernetes.Client {
	t.Helper()
	var rules []rbacv1.PolicyRule
	for _, r := range kubernetes.Rules() {
		rules = append(rules, r.PolicyRule)
	}
	cfg, err := lab.Restrict(t.Context(), cp.Config, "causeway-system", "causeway-agent", rules)
	if err != nil {
		t.Fatal(err)
	}
	return client(t, cfg)
}

func client(t *testing.T, cfg *rest.Config) *kubernetes.Client {
	t.Helper()
	c, err := kubernetes.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// world is a running source with all that it has delivered.
type world struct {
	*kubernetes.Source
	stop func()

	mu       sync.Mutex
	objects  map[cluster.Ref]*cluster.Object
	meta     cluster.Meta
	problems []cluster.Problem
	synced   bool
	batches  int
	full     int                       // how many batches the first full set came in
	live     map[cluster.Ref]int       // how often OnLive named it
	when     map[cluster.Ref]time.Time // of the last event
	changed  chan struct{}
}

func run(t *testing.T, cfg kubernetes.Config) *world {
	t.Helper()
	w := &world{objects: map[cluster.Ref]*cluster.Object{}, live: map[cluster.Ref]int{}, when: map[cluster.Ref]time.Time{}, changed: make(chan struct{})}
	cfg.Cluster = "west"
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	cfg.Registerer = prometheus.NewPedanticRegistry()
	cfg.OnLive = func(refs []cluster.Ref) {
		w.edit(func() {
			for _, r := range refs {
				w.live[r]++
			}
		})
	}
	var err error
	if w.Source, err = kubernetes.New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := w.Run(ctx, w); err != nil {
			t.Error(err)
		}
	}()
	w.stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(w.stop)
	return w
}

func (w *world) edit(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
	close(w.changed)
	w.changed = make(chan struct{})
}

// Deliver implements cluster.Sink.
func (w *world) Deliver(_ context.Context, b cluster.Batch) error {
	w.edit(func() {
		w.batches++
		for _, e := range b.Events {
			w.when[e.Ref] = time.Now()
			if e.Object == nil {
				delete(w.objects, e.Ref)
			} else {
				w.objects[e.Ref] = e.Object
			}
		}
		if b.Meta != nil {
			w.meta = *b.Meta
		}
		if b.Problems != nil {
			w.problems = *b.Problems
		}
		if b.Synced && !w.synced {
			w.synced, w.full = true, w.batches
		}
	})
	return nil
}

// patience is how long anything may take on a busy machine.
const patience = time.Minute

// await waits until ok holds of what was delivered, and tells how long that took.
func (w *world) await(t *testing.T, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	deadline := time.After(patience)
	for {
		w.mu.Lock()
		good, changed := ok(), w.changed
		w.mu.Unlock()
		if good {
			return time.Since(began)
		}
		select {
		case <-changed:
		case <-deadline:
			w.mu.Lock()
			defer w.mu.Unlock()
			t.Fatalf("%s: not within %s; missing %v, problems %v, objects %v", what, patience, w.Missing(), w.problems, maps.Keys(w.objects))
		}
	}
}

func (w *world) has(ref cluster.Ref) bool { return w.objects[ref] != nil }

// awaitOwn waits for what an API server makes by itself in its first seconds.
func (w *world) awaitOwn(t *testing.T) {
	t.Helper()
	own := []cluster.Ref{ref(cluster.KindService, "default", "kubernetes")}
	for _, ns := range []string{"default", "kube-node-lease", "kube-public", "kube-system"} {
		own = append(own, ref(cluster.KindNamespace, "", ns))
	}
	w.await(t, "the API server's own objects", func() bool { return !slices.ContainsFunc(own, func(r cluster.Ref) bool { return !w.has(r) }) })
}

// current is all that was delivered, after Sync.
func (w *world) current(t *testing.T) map[cluster.Ref]*cluster.Object {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := w.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	return w.known()
}

// known is all that was delivered by now; delivered, in how many batches that came.
func (w *world) known() map[cluster.Ref]*cluster.Object {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.objects)
}

func (w *world) delivered() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.batches
}

func ref(kind cluster.Kind, ns, name string) cluster.Ref {
	return cluster.Ref{Kind: kind, Namespace: ns, Name: name}
}

func apply(t *testing.T, cp *lab.ControlPlane, manifests string) {
	t.Helper()
	if err := lab.Apply(t.Context(), cp.Config, []byte(manifests)); err != nil {
		t.Fatal(err)
	}
}
