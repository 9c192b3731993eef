package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/causeway-mesh/causeway/federation/store"
)

// maxTTL is etcd's bound of a lease.
const maxTTL = 9_000_000_000 * time.Second

// revokeTimeout bounds the farewell of Hold.
const revokeTimeout = 2 * time.Second

var (
	errOverwritten = errors.New("key was deleted or overwritten by someone else")
	errExpired     = errors.New("lease expired")
)

// hold is one run of Hold. Each key has a lease of its own: etcd renews a lease at
// a cost that grows with the keys on it.
type hold struct {
	s       *Store
	key     string
	value   []byte
	ttl     time.Duration
	lease   int64 // 0: none
	held    bool
	renewed time.Time // when the lease was last known to live
}

// Hold implements store.Store.
func (s *Store) Hold(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := (store.Txn{Ops: []store.Op{store.Put(key, value)}}).Validate(); err != nil {
		return fmt.Errorf("hold: %w", err)
	}
	if ttl <= 0 || ttl > maxTTL {
		return fmt.Errorf("hold of key %q: ttl %v is not between 1 s and %v: %w", key, ttl, maxTTL, store.ErrInvalid)
	}
	h := &hold{s: s, key: key, value: value, ttl: (ttl + time.Second - 1).Truncate(time.Second)}
	defer h.release(ctx)
	var wait delays
	for {
		err := h.renew(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch {
		case err == nil:
			wait.reset()
			select {
			case <-time.After(h.ttl / 3):
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			h.lease = 0
			h.report(false, errExpired)
		case errors.Is(err, store.ErrDenied), errors.Is(err, store.ErrInvalid), errors.Is(err, store.ErrTooLarge):
			h.report(false, err)
			return fmt.Errorf("hold of key %q: %w", key, err)
		case time.Since(h.renewed) > h.ttl:
			h.report(false, err)
		}
		s.pause(ctx, wait.next())
	}
}

// report tells of a change of held.
func (h *hold) report(held bool, err error) {
	if h.held == held {
		return
	}
	h.held = held
	if !held {
		h.s.meters.holds.Inc()
		h.s.cfg.Logger.Warn("lost a held key of the store; holding it again as soon as possible", "key", h.key, "error", err)
	}
	if h.s.cfg.OnHold != nil {
		h.s.cfg.OnHold(h.key, held, err)
	}
}

// renew makes sure, once, that the lease lives and that the key is under it.
func (h *hold) renew(ctx context.Context) error {
	begin := time.Now()
	if h.lease == 0 {
		if err := h.call(ctx, "grant", func(ctx context.Context) error {
			resp, err := h.s.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: int64(h.ttl / time.Second)})
			h.lease = resp.GetID()
			return err
		}); err != nil {
			return err
		}
	} else if err := h.call(ctx, "renew", h.keepAlive); err != nil {
		return err
	}
	present := false
	if err := h.call(ctx, "hold", func(ctx context.Context) error {
		resp, err := h.s.kv.Txn(ctx, &pb.TxnRequest{
			Compare: []*pb.Compare{{
				Target: pb.Compare_LEASE, Result: pb.Compare_EQUAL, Key: []byte(h.key),
				TargetUnion: &pb.Compare_Lease{Lease: h.lease},
			}},
			Failure: []*pb.RequestOp{requestOp(store.Put(h.key, h.value), h.lease)},
		})
		present = resp.GetSucceeded()
		return err
	}); err != nil {
		return err
	}
	h.renewed = begin
	if !present {
		h.report(false, errOverwritten)
	}
	h.report(true, nil)
	return nil
}

func (h *hold) keepAlive(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream
	stream, err := h.s.lease.LeaseKeepAlive(ctx)
	if err != nil {
		return err
	}
	// An error of Send is told by Recv.
	_ = stream.Send(&pb.LeaseKeepAliveRequest{ID: h.lease})
	resp, err := stream.Recv()
	if err == nil && resp.GetTTL() <= 0 {
		err = rpctypes.ErrLeaseNotFound
	}
	return err
}

// call bounds a request so that there is time for another before the lease ends.
func (h *hold) call(ctx context.Context, operation string, f func(context.Context) error) error {
	return h.s.callWithin(ctx, operation, min(h.ttl/3, probeTimeout), f)
}

// release gives the lease, and with it the key, back. Should that fail, the lease
// expires by itself.
func (h *hold) release(ctx context.Context) {
	if h.lease == 0 {
		return
	}
	err := h.s.callWithin(context.WithoutCancel(ctx), "revoke", revokeTimeout, func(ctx context.Context) error {
		_, err := h.s.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: h.lease})
		return err
	})
	if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		h.s.cfg.Logger.Info("could not give a held key back; it vanishes with its lease", "key", h.key, "ttl", h.ttl, "error", err)
	}
}
