package incluster

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"

	"github.com/causeway-mesh/causeway/cluster/kubernetes"
)

// Times of the election: another agent leads within lease of the leader's death, and
// within retry of its farewell.
const (
	leaseDuration = 8 * time.Second
	renewDeadline = 5 * time.Second
	retryPeriod   = time.Second
)

// election decides by a Lease which of the cluster's agents leads.
type election struct {
	lock    resourcelock.Interface
	log     *slog.Logger
	leading atomic.Bool
}

func newElection(c *kubernetes.Client, namespace, replica string, log *slog.Logger) (*election, error) {
	api, err := coordinationclient.NewForConfigAndClient(c.Config(), c.HTTP())
	if err != nil {
		return nil, fmt.Errorf("leader election: %w", err)
	}
	return &election{log: log, lock: &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: namespace, Name: kubernetes.LeaderLease},
		Client:     api,
		LockConfig: resourcelock.ResourceLockConfig{Identity: replica},
	}}, nil
}

// run runs lead whenever this agent leads, until ctx ends. lead has returned before
// the Lease is given away: no two agents lead at a time, unless the API server was out
// of reach for longer than the Lease lasts and lead does not heed its context.
func (e *election) run(ctx context.Context, lead func(context.Context) error) error {
	for ctx.Err() == nil {
		if err := e.once(ctx, lead); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

func (e *election) once(ctx context.Context, lead func(context.Context) error) error {
	electing, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var (
		mu            sync.Mutex
		begun, closed bool
		result        error
		done          = make(chan struct{})
	)
	stop := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		if !begun {
			end() // nothing to finish
		}
	})
	defer stop()
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: e.lock, LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod, ReleaseOnCancel: true, Name: kubernetes.LeaderLease,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(term context.Context) {
				mu.Lock()
				if closed {
					mu.Unlock()
					return
				}
				begun = true
				mu.Unlock()
				defer close(done)
				defer end()
				term, cancel := context.WithCancel(term)
				defer cancel()
				defer context.AfterFunc(ctx, cancel)()
				e.leading.Store(true)
				e.log.Info("this agent leads")
				err := lead(term)
				e.leading.Store(false)
				e.log.Info("this agent leads no more")
				if term.Err() == nil {
					result = err
				}
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("leader election: %w", err)
	}
	elector.Run(klog.NewContext(electing, logr.FromSlogHandler(kubernetes.Details(e.log))))
	mu.Lock()
	closed = true
	wait := begun
	mu.Unlock()
	if wait {
		<-done
	}
	return result
}
