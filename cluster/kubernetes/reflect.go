package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/causeway-mesh/causeway/cluster"
)

// Pauses of a reflector whose requests fail though the gate is open.
const (
	firstPause, longestPause = 100 * time.Millisecond, 2 * time.Second
	// Requests that the server refuses pause longer: somebody has to grant a right
	// first, or the server has just started and has no rules yet.
	firstForbidden, longestForbidden = 500 * time.Millisecond, 15 * time.Second
)

// follower keeps the state equal to what the API server has of one kind, or of
// one object of it.
type follower struct {
	s       *Source
	r       *resource
	version string
	// only names the one object to follow; empty for the whole kind.
	only cluster.Ref
	// full is called after each full set, refused when the server refuses to give
	// one, before any full set has come.
	full, refused func()
	writer

	mu      sync.Mutex
	starts  int
	barred  time.Time // no request before: the last was forbidden
	refusal int       // how many were, one after the other
	failing string    // what was logged last
}

// about names what is followed in problems and logs.
func (f *follower) about() string {
	if f.only.Name != "" {
		return f.only.String()
	}
	return f.r.plural + "." + f.r.group + "/" + f.version
}

// run follows until ctx ends.
func (f *follower) run(ctx context.Context) {
	rc, err := f.s.client.of(f.r, f.version)
	if err != nil {
		f.s.log.Error("kind can't be read", "kind", f.r.kind, "error", err)
		return
	}
	options := func(o *metav1.ListOptions) {
		o.LabelSelector = f.r.selector
		if f.only.Name != "" {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, f.only.Name).String()
		}
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			if err := f.ready(ctx); err != nil {
				return nil, err
			}
			options(&o)
			out, err := rc.Get().NamespaceIfScoped(f.only.Namespace, f.only.Namespace != "").Resource(f.r.plural).VersionedParams(&o, f.s.client.params).Do(ctx).Get()
			f.note(err)
			return out, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			if err := f.ready(ctx); err != nil {
				return nil, err
			}
			options(&o)
			o.Watch = true
			out, err := rc.Get().NamespaceIfScoped(f.only.Namespace, f.only.Namespace != "").Resource(f.r.plural).VersionedParams(&o, f.s.client.params).Watch(ctx)
			f.note(err)
			return out, err
		},
	}
	f.s.reflect(ctx, f.about(), lw, f.r.example, f)
}

// reflect runs client-go's Reflector, which lists, watches and starts again.
func (s *Source) reflect(ctx context.Context, name string, lw cache.ListerWatcher, example runtime.Object, store cache.ReflectorStore) {
	logger := logr.FromSlogHandler(Details(s.log))
	cache.NewReflectorWithOptions(lw, example, store, cache.ReflectorOptions{
		Name: name, Logger: &logger,
		Backoff: &wait.Backoff{Duration: firstPause, Factor: 2, Steps: 10, Cap: longestPause, Jitter: 0.2},
	}).RunWithContext(klog.NewContext(ctx, logger))
}

// ready waits until a request makes sense.
func (f *follower) ready(ctx context.Context) error {
	f.mu.Lock()
	barred := time.Until(f.barred)
	f.starts++
	if f.starts > 1 {
		f.s.metrics.restarts.WithLabelValues(string(f.r.kind)).Inc()
	}
	f.mu.Unlock()
	if barred > 0 && cluster.Pause(ctx, barred) != nil {
		return ctx.Err()
	}
	return nil
}

// note takes the outcome of a request.
func (f *follower) note(err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	f.mu.Lock()
	said := f.failing
	if f.failing = ""; err != nil {
		f.failing = err.Error()
	}
	f.barred = time.Time{}
	if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
		f.barred = time.Now().Add(min(firstForbidden<<min(f.refusal, 10), longestForbidden))
		f.refusal++
	} else {
		f.refusal = 0
	}
	barred := !f.barred.IsZero()
	f.mu.Unlock()
	switch {
	case barred:
		name := ""
		if f.only.Name != "" {
			name = f.only.String()
		}
		f.s.state.problem(f.about(), &cluster.Problem{Cluster: f.s.cfg.Cluster, Where: "Kubernetes API", Object: name,
			Message: fmt.Sprintf("%v: bind the ClusterRole of the Helm chart to the agent's ServiceAccount, or grant get, list and watch", err)})
		f.refused()
	case apierrors.IsNotFound(err) && f.only.Name == "":
		f.s.look() // its definition may be gone
	case err == nil:
		f.s.state.problem(f.about(), nil)
	}
	if err != nil && err.Error() != said && !serverFault(err) {
		f.s.log.Warn("the API server refuses to list or watch", "what", f.about(), "error", err)
	}
}

// The rest is cache.ReflectorStore, called from the reflector's goroutine.

// Add implements cache.ReflectorStore.
func (f *follower) Add(obj any) error { return f.Update(obj) }

// Update implements cache.ReflectorStore.
func (f *follower) Update(obj any) error {
	it, err := convert(f.s.cfg.Cluster, f.r, obj)
	if err != nil {
		return err
	}
	f.s.metrics.arrived(f.r.kind, it.changedAt)
	f.s.state.set(&f.writer, f.r.kind, it)
	return nil
}

// Delete implements cache.ReflectorStore.
func (f *follower) Delete(obj any) error {
	it, err := convert(f.s.cfg.Cluster, f.r, obj)
	if err != nil {
		return err
	}
	f.s.metrics.heard(f.r.kind)
	f.s.state.remove(&f.writer, f.r.kind, it)
	return nil
}

// Replace implements cache.ReflectorStore.
func (f *follower) Replace(list []any, rv string) error {
	items := make([]*item, 0, len(list))
	for _, obj := range list {
		it, err := convert(f.s.cfg.Cluster, f.r, obj)
		if err != nil {
			return err
		}
		items = append(items, it)
	}
	f.s.metrics.heard(f.r.kind)
	f.s.state.replace(&f.writer, f.r.kind, items, versionNumber(rv), func(ref cluster.Ref) bool { return f.only.Name == "" || ref == f.only })
	f.full()
	return nil
}

// Resync implements cache.ReflectorStore.
func (f *follower) Resync() error { return nil }

// Bookmark implements cache.ReflectorBookmarkStore.
func (f *follower) Bookmark(rv string) error {
	f.s.metrics.heard(f.r.kind)
	return nil
}

// Transformer implements cache.TransformingStore: while a full set streams in,
// what is trimmed is kept, and not the whole.
func (f *follower) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) { return convert(f.s.cfg.Cluster, f.r, obj) }
}

var (
	_ cache.TransformingStore      = (*follower)(nil)
	_ cache.ReflectorBookmarkStore = (*follower)(nil)
	_ metav1.ObjectMetaAccessor    = (*item)(nil)
)

// Details gives a handler that logs all that it gets as details: for client-go, which
// calls much a warning that is nobody's business.
func Details(log *slog.Logger) slog.Handler { return demoted{log.Handler()} }

// demoted logs what client-go has to say as details: what a person should know is
// logged here.
type demoted struct{ slog.Handler }

func (d demoted) Enabled(ctx context.Context, _ slog.Level) bool {
	return d.Handler.Enabled(ctx, slog.LevelDebug)
}

func (d demoted) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	return d.Handler.Handle(ctx, r)
}

func (d demoted) WithAttrs(a []slog.Attr) slog.Handler { return demoted{d.Handler.WithAttrs(a)} }
func (d demoted) WithGroup(name string) slog.Handler   { return demoted{d.Handler.WithGroup(name)} }
