package provision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/workqueue"

	"github.com/causeway-mesh/causeway/cluster/kubernetes"
)

// writer writes what plans say, at a bounded rate.
type writer struct {
	client *client
	limit  *rate.Limiter
	writes *prometheus.CounterVec // by kind, verb and result
}

// newWriter bounds the writes a second; 200 and twice the rate if zero.
func newWriter(c *kubernetes.Client, each, burst int, writes *prometheus.CounterVec) (*writer, error) {
	if each < 0 || burst < 0 {
		return nil, errors.New("neither Rate nor Burst can be negative")
	}
	if each == 0 {
		each = 200
	}
	if burst == 0 {
		burst = 2 * each
	}
	own, err := newClient(c)
	if err != nil {
		return nil, err
	}
	return &writer{client: own, limit: rate.NewLimiter(rate.Limit(each), burst), writes: writes}, nil
}

// errFound says that an object is there which was not known.
var errFound = errors.New("an object of the name is there already")

// write applies an object that is there for n, and gives what the API server made of it.
func (w *writer) write(ctx context.Context, v *view, n Name, o metav1.Object) (metav1.Object, error) {
	if err := w.limit.Wait(ctx); err != nil {
		return nil, err
	}
	// What was begun is finished, though leadership may end meanwhile.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	have := v.find(n, o)
	verb := "change"
	if have == nil {
		// Server-side apply would write over what somebody else made.
		verb = "create"
		found, err := w.client.get(ctx, o, v.version)
		if err != nil {
			return nil, err
		}
		if found != nil {
			v.learned(n, found)
			return nil, errFound
		}
	}
	made, err := w.client.apply(ctx, o, have, v.version)
	w.count(o, verb, err)
	if err != nil {
		return nil, err
	}
	v.learned(n, made)
	return made, nil
}

// remove deletes an object, as it was seen.
func (w *writer) remove(ctx context.Context, v *view, n Name, o metav1.Object) error {
	if err := w.limit.Wait(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	err := w.client.remove(ctx, o, v.version)
	w.count(o, "delete", err)
	if err == nil {
		v.removed(n, o)
	}
	return err
}

func (w *writer) count(o metav1.Object, verb string, err error) {
	result := "done"
	switch {
	case apierrors.IsConflict(err):
		result = "conflict"
	case err != nil:
		result = "failed"
	}
	w.writes.WithLabelValues(kindOf(o), verb, result).Inc()
}

// rounds looks at names until there is nothing to do for any of them: each at once when
// it is touched, by one goroutine at a time, and again after what failed or what it has
// to wait for: ever later, until it succeeds or is touched.
type rounds struct {
	what string // of names, for the log
	log  *slog.Logger

	mu    sync.Mutex
	queue workqueue.TypedRateLimitingInterface[Name] // nil unless run runs
	waits jittered
}

// errWaits says that a name waits for something that nobody tells of: nothing failed.
var errWaits = errors.New("it has to be looked at again later")

// jittered is a limiter whose pauses differ by up to a quarter, so that what began at
// once does not go on at once.
type jittered struct {
	workqueue.TypedRateLimiter[Name]
}

func exponential(first, longest time.Duration) jittered {
	return jittered{workqueue.NewTypedItemExponentialFailureRateLimiter[Name](first, longest)}
}

// When implements workqueue.TypedRateLimiter.
func (j jittered) When(n Name) time.Duration { return wait.Jitter(j.TypedRateLimiter.When(n), 0.25) }

// touch says that names have to be looked at. It never blocks. Unless run runs it does
// nothing: run begins with all.
func (r *rounds) touch(names ...Name) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.queue == nil {
		return
	}
	for _, n := range names {
		r.waits.Forget(n)
		r.queue.Add(n)
	}
}

// run calls pass for those that all gives and those that are touched, until ctx ends.
// pass does one step; again says that there may be more to do, next when to look
// without being told. errWaits is no failure.
func (r *rounds) run(ctx context.Context, all func() []Name, pass func(context.Context, Name) (next time.Duration, again bool, err error)) {
	queue := workqueue.NewTypedRateLimitingQueue[Name](exponential(firstRetry, longestRetry))
	r.mu.Lock()
	r.queue, r.waits = queue, exponential(firstWait, longestWait)
	r.mu.Unlock()
	var wg sync.WaitGroup
	for _, n := range all() {
		queue.Add(n)
	}
	for range workers {
		wg.Go(func() {
			for {
				n, shut := queue.Get()
				if shut {
					return
				}
				r.see(ctx, queue, n, pass)
				queue.Done(n)
			}
		})
	}
	<-ctx.Done()
	r.mu.Lock()
	r.queue = nil
	r.mu.Unlock()
	queue.ShutDown()
	wg.Wait()
}

// see brings one name to where it should be.
func (r *rounds) see(ctx context.Context, queue workqueue.TypedRateLimitingInterface[Name], n Name, pass func(context.Context, Name) (time.Duration, bool, error)) {
	for range mostPasses {
		next, again, err := pass(ctx, n)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errWaits):
			queue.Forget(n)
			queue.AddAfter(n, r.waits.When(n))
			return
		case err != nil:
			if !apierrors.IsConflict(err) && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				r.log.Warn("what is needed can't be written; it is tried again", "for", fmt.Sprintf("%s %s", r.what, n), "error", err)
			}
			queue.AddRateLimited(n)
			return
		case again:
			continue
		}
		queue.Forget(n)
		r.waits.Forget(n)
		if next > 0 {
			queue.AddAfter(n, next)
		}
		return
	}
	r.log.Error("writing does not come to rest; somebody else may write the same objects", "for", fmt.Sprintf("%s %s", r.what, n))
	queue.AddAfter(n, foreignRetry)
}
