package incluster

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/cluster/kubernetes"
)

// elect implements agent.Config.Elect: it ends when the agent is told to stop, which is
// before the agent itself ends.
func (s *service) elect(ctx context.Context, publish func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.leading, cancel)()
	return s.election.run(ctx, func(ctx context.Context) error { return s.lead(ctx, publish) })
}

// lead does what one agent of the cluster does for all, until ctx ends.
func (s *service) lead(ctx context.Context, publish func(context.Context) error) error {
	// Another leader may have rotated the authority a moment ago.
	if err := s.authority.Reload(); err != nil {
		s.log.Warn("the cluster's certificate authority can't be read again", "error", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, task := range []func(context.Context) error{publish, s.imports.Lead, s.gateways.Lead, s.writer.Run, s.runs.Run, s.authority.Run, s.keepTrust} {
		g.Go(func() error { return task(ctx) })
	}
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// keepTrust keeps the roots of the cluster's trust domain where its Envoys find them,
// until ctx ends.
func (s *service) keepTrust(ctx context.Context) error {
	for {
		b, changed := s.authority.WatchBundle()
		if err := s.client.KeepConfigMap(ctx, s.o.namespace, kubernetes.TrustConfigMap, identity.FileBundle, string(identity.BundlePEM(b))); err != nil && ctx.Err() == nil {
			s.log.Warn("the roots for this cluster's Envoys can't be kept; it is tried again", "in", openEvery, "error", err)
			if cluster.Pause(ctx, openEvery) != nil {
				return nil
			}
			continue
		}
		t := time.NewTimer(trustEvery)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-changed:
		case <-t.C:
		}
		t.Stop()
	}
}
