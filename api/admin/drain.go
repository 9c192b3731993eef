package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/store"
)

// DefaultOver is how long a drain takes if the caller does not say.
const DefaultOver = 30 * time.Second

// attempts bounds how often a change is tried anew because of others.
const attempts = 5

// DrainCluster implements causeway.v1.Administration.
func (s *Server) DrainCluster(ctx context.Context, req *causewayv1.DrainClusterRequest) (*causewayv1.DrainClusterResponse, error) {
	d, revision, err := s.drain(ctx, req.GetCluster(), 100, req.GetOver())
	if err != nil {
		return nil, err
	}
	return &causewayv1.DrainClusterResponse{Drain: d, Revision: revision}, nil
}

// UndrainCluster implements causeway.v1.Administration.
func (s *Server) UndrainCluster(ctx context.Context, req *causewayv1.UndrainClusterRequest) (*causewayv1.UndrainClusterResponse, error) {
	d, revision, err := s.drain(ctx, req.GetCluster(), 0, req.GetOver())
	if err != nil {
		return nil, err
	}
	return &causewayv1.UndrainClusterResponse{Drain: d, Revision: revision}, nil
}

func (s *Server) drain(ctx context.Context, name string, target int, wants *durationpb.Duration) (*causewayv1.ClusterDrain, int64, error) {
	caller, err := s.admit(ctx)
	if err != nil {
		return nil, 0, err
	}
	over := DefaultOver
	if wants != nil {
		over = wants.AsDuration()
		if wants.CheckValid() != nil || over < 0 || over > record.MaxDrainOver {
			return nil, 0, status.Errorf(codes.InvalidArgument, "a drain takes from 0s to %s, not %s", record.MaxDrainOver, over)
		}
	}
	key, err := store.DrainKey(name)
	if err != nil {
		return nil, 0, status.Error(codes.InvalidArgument, err.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	for try := 1; ; try++ {
		c := change{id: cluster.ID(name), key: key, target: target, over: over.Truncate(time.Millisecond), now: time.Now().Truncate(time.Millisecond).UTC()}
		revision, err := s.apply(ctx, &c)
		if errors.Is(err, store.ErrConflict) && try < attempts {
			continue
		}
		if err != nil {
			s.cfg.Logger.Warn("drain of a cluster could not be set", "cluster", name, "target", target, "caller", caller, "error", err)
			return nil, 0, storeError(err, fmt.Sprintf("the drain of cluster %q", name))
		}
		s.cfg.Logger.Info("drain of a cluster was set", "cluster", name, "from", c.drain.From, "target", c.drain.Target, "over", c.drain.Over, "caller", caller, "revision", revision)
		return &causewayv1.ClusterDrain{
			Cluster: name, From: int32(c.drain.From), Target: int32(c.drain.Target),
			Started: timestamppb.New(c.drain.Started), Ends: timestamppb.New(c.drain.Started.Add(c.drain.Over)),
		}, revision, nil
	}
}

// change is one try to set a drain, and what came of it.
type change struct {
	id     cluster.ID
	key    string
	target int
	over   time.Duration
	now    time.Time
	drain  record.Drain
}

// apply starts from where the cluster is now.
func (s *Server) apply(ctx context.Context, c *change) (int64, error) {
	kvs, revision, err := s.cfg.Store.List(ctx, c.key, 0)
	if err != nil {
		return 0, err
	}
	txn := store.Txn{Guards: []store.Guard{{Key: c.key}}}
	c.drain = record.Drain{Target: c.target, Started: c.now, Over: c.over}
	exists := false
	for _, kv := range kvs {
		if kv.Key != c.key { // another cluster, whose name begins with this one's
			continue
		}
		exists, txn.Guards[0].ModRevision = true, kv.ModRevision
		p, err := record.DecodePolicy(kv)
		if err != nil {
			s.cfg.Logger.Warn("a record of the policy is replaced, since nobody can read it", "key", kv.Key, "error", err)
			continue
		}
		c.drain.From, _ = p.Drain.At(c.now)
		if c.drain.From == c.target && p.Drain.Target == c.target && c.target != 0 {
			c.drain = *p.Drain // done before: nothing to say
			return revision, nil
		}
	}
	if known := s.cfg.Clusters(); !exists && !slices.Contains(known, c.id) {
		return 0, unknown(c.id, known)
	}
	switch {
	case c.drain.From == c.target:
		c.drain.Over = 0
	case c.drain.Over == 0:
		c.drain.From = c.target
	}
	op := store.Delete(c.key)
	if c.drain.From != 0 || c.target != 0 {
		r, err := record.EncodeDrain(c.id, c.drain)
		if err != nil {
			return 0, err
		}
		op = store.Put(r.Key, r.Value)
	} else if !exists {
		return revision, nil
	}
	txn.Ops = []store.Op{op}
	return s.cfg.Store.Commit(ctx, txn)
}

func unknown(id cluster.ID, known []cluster.ID) error {
	if len(known) == 0 {
		return status.Error(codes.Unavailable, "this server has not seen any cluster yet: try again")
	}
	var names []string
	for _, k := range known {
		names = append(names, string(k))
	}
	slices.Sort(names)
	return status.Errorf(codes.NotFound, "no cluster %q; there are: %s", id, strings.Join(names, ", "))
}

// storeError words what the store said for the person who wanted something
// changed; how connections broke is for the log.
func storeError(err error, what string) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	switch {
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return status.Errorf(codes.Unavailable, "the store is away: what was said of %s may not have been taken; say it again once the store is back", what)
	case errors.Is(err, store.ErrConflict):
		return status.Errorf(codes.Aborted, "others keep changing %s: look what they want, and say it again (%v)", what, err)
	case errors.Is(err, store.ErrDenied):
		return status.Errorf(codes.FailedPrecondition, "this server may not write %s: give it a store certificate of the user \"policy\" (%v)", what, err)
	case errors.Is(err, context.Canceled):
		return status.FromContextError(err).Err()
	}
	return status.Errorf(codes.Internal, "%s: %v", what, err)
}
