package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/causeway-mesh/causeway/federation/store"
)

// Pages of List grow and shrink so that each is about pageBytes, whatever the
// size of the values.
const (
	firstPage = 16
	maxPage   = 2000
	pageBytes = 1 << 20
)

// listAttempts is how often List at the newest revision begins anew when that was
// compacted under way.
const listAttempts = 3

// waitForReady lets a request wait for a connection, within its context.
var waitForReady = []grpc.CallOption{grpc.WaitForReady(true)}

// List implements store.Store.
func (s *Store) List(ctx context.Context, prefix string, revision int64) ([]store.KV, int64, error) {
	if err := checkRead(prefix, revision); err != nil {
		return nil, 0, err
	}
	for attempt := 1; ; attempt++ {
		kvs, rev, err := s.list(ctx, prefix, revision)
		if err == nil {
			return kvs, rev, nil
		}
		if revision != 0 || attempt == listAttempts || !errors.Is(err, store.ErrCompacted) {
			return nil, 0, fmt.Errorf("listing %q at revision %d: %w", prefix, revision, err)
		}
	}
}

func (s *Store) list(ctx context.Context, prefix string, revision int64) ([]store.KV, int64, error) {
	var out []store.KV
	end := []byte(clientv3.GetPrefixRangeEnd(prefix))
	from, limit := []byte(prefix), int64(firstPage)
	for {
		var resp *pb.RangeResponse
		err := s.retry(ctx, "list", func(ctx context.Context) (err error) {
			resp, err = s.kv.Range(ctx, &pb.RangeRequest{Key: from, RangeEnd: end, Limit: limit, Revision: revision}, waitForReady...)
			return err
		})
		if errors.Is(err, store.ErrTooLarge) && limit > 1 {
			limit = max(1, limit/8)
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		if revision == 0 {
			revision = resp.GetHeader().GetRevision()
		}
		s.clusterID.Store(resp.GetHeader().GetClusterId())
		bytes := 0
		for _, kv := range resp.GetKvs() {
			out = append(out, fromKV(kv))
			bytes += len(kv.GetKey()) + len(kv.GetValue())
		}
		n := len(resp.GetKvs())
		if !resp.GetMore() || n == 0 {
			return out, revision, nil
		}
		limit = min(max(1, pageBytes/int64(bytes/n+64)), 4*limit, maxPage)
		from = append([]byte(out[len(out)-1].Key), 0)
	}
}

func fromKV(kv *mvccpb.KeyValue) store.KV {
	out := store.KV{
		Key:            string(kv.GetKey()),
		Value:          kv.GetValue(),
		CreateRevision: kv.GetCreateRevision(),
		ModRevision:    kv.GetModRevision(),
		Leased:         kv.GetLease() != 0,
	}
	if out.Value == nil {
		out.Value = []byte{} // an empty value travels as none
	}
	return out
}

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	if err := txn.Validate(); err != nil {
		return 0, fmt.Errorf("commit: %w", err)
	}
	req := &pb.TxnRequest{}
	for _, g := range txn.Guards {
		key := []byte(g.Key)
		req.Compare = append(req.Compare, &pb.Compare{
			Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, Key: key,
			TargetUnion: &pb.Compare_ModRevision{ModRevision: g.ModRevision},
		})
		req.Failure = append(req.Failure, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{
			RequestRange: &pb.RangeRequest{Key: key, KeysOnly: true},
		}})
	}
	for _, o := range txn.Ops {
		req.Success = append(req.Success, requestOp(o, 0))
	}
	var rev int64
	err := s.call(ctx, "commit", func(ctx context.Context) error {
		resp, err := s.kv.Txn(ctx, req, waitForReady...)
		if err != nil {
			return err
		}
		rev = resp.GetHeader().GetRevision()
		if !resp.GetSucceeded() {
			return conflict(txn.Guards, resp)
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("commit of %s: %w", describe(txn), err)
	}
	return rev, nil
}

func requestOp(o store.Op, lease int64) *pb.RequestOp {
	if o.Remove {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
			RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(o.Key)},
		}}
	}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
		RequestPut: &pb.PutRequest{Key: []byte(o.Key), Value: o.Value, Lease: lease},
	}}
}

// conflict names the first guard that the answer of the failed transaction
// contradicts.
func conflict(guards []store.Guard, resp *pb.TxnResponse) error {
	for i, r := range resp.GetResponses() {
		if i >= len(guards) {
			break
		}
		var have int64
		if kvs := r.GetResponseRange().GetKvs(); len(kvs) > 0 {
			have = kvs[0].GetModRevision()
		}
		if have != guards[i].ModRevision {
			return &store.ConflictError{Key: guards[i].Key, Want: guards[i].ModRevision, Have: have}
		}
	}
	return store.ErrConflict
}

func describe(txn store.Txn) string {
	switch len(txn.Ops) {
	case 0:
		return "no operations"
	case 1:
		return fmt.Sprintf("key %q", txn.Ops[0].Key)
	}
	return fmt.Sprintf("%d keys, the first %q", len(txn.Ops), txn.Ops[0].Key)
}

// call makes one request, bounded in time, and converts, counts and times it.
func (s *Store) call(ctx context.Context, operation string, f func(context.Context) error) error {
	return s.callWithin(ctx, operation, s.cfg.RequestTimeout, f)
}

func (s *Store) callWithin(ctx context.Context, operation string, timeout time.Duration, f func(context.Context) error) error {
	rctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	start := time.Now()
	err := convert(f(rctx))
	s.meters.duration.WithLabelValues(operation).Observe(time.Since(start).Seconds())
	s.meters.requests.WithLabelValues(operation, result(err)).Inc()
	switch {
	case !errors.Is(err, store.ErrUnavailable):
		s.state.set(true, nil) // whatever the answer, it is one
	case ctx.Err() != nil:
		// The caller ran out of time or interest, which says nothing of the store.
		return fmt.Errorf("%w (%w)", err, ctx.Err())
	default:
		s.state.set(false, err)
	}
	return err
}

// retry repeats a request that changes nothing until it is answered, within the
// time for one request.
func (s *Store) retry(ctx context.Context, operation string, f func(context.Context) error) error {
	deadline := time.Now().Add(s.cfg.RequestTimeout)
	var wait delays
	for {
		err := s.callWithin(ctx, operation, time.Until(deadline), f)
		if !errors.Is(err, store.ErrUnavailable) || ctx.Err() != nil {
			return err
		}
		d := wait.next()
		if time.Until(deadline) <= d {
			return err
		}
		s.pause(ctx, d)
	}
}

// convert makes an error of the contract from one of gRPC or etcd. Errors that
// are already of the contract, and nil, stay as they are.
func convert(err error) error {
	if err == nil {
		return nil
	}
	// From gRPC itself it has a status; from clientv3, it may be an EtcdError.
	var code codes.Code
	e := rpctypes.Error(err)
	if ee := (rpctypes.EtcdError{}); errors.As(e, &ee) {
		code = ee.Code()
	} else if st, ok := status.FromError(err); ok {
		code = st.Code()
	} else {
		return err
	}
	desc := rpctypes.ErrorDesc(err)
	as := func(sentinel error) error { return fmt.Errorf("%w: %s", sentinel, desc) }
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(e, t) {
				return true
			}
		}
		return false
	}
	switch {
	case is(rpctypes.ErrCompacted):
		return as(store.ErrCompacted)
	case is(rpctypes.ErrFutureRev):
		return as(store.ErrFutureRevision)
	case is(rpctypes.ErrRequestTooLarge, rpctypes.ErrTooManyOps):
		return as(store.ErrTooLarge)
	case is(rpctypes.ErrPermissionDenied, rpctypes.ErrUserEmpty, rpctypes.ErrAuthFailed, rpctypes.ErrInvalidAuthToken):
		return fmt.Errorf("%w: %s (the etcd user is the common name of the client certificate)", store.ErrDenied, desc)
	case is(rpctypes.ErrNoSpace):
		return fmt.Errorf("%w: %s; compact and defragment etcd, or raise its quota", store.ErrUnavailable, desc)
	case is(rpctypes.ErrAuthOldRevision):
		return as(store.ErrUnavailable) // users were changed meanwhile: as good as never asked
	}
	switch code {
	case codes.FailedPrecondition, codes.NotFound:
		if !is(rpctypes.ErrNotLeader, rpctypes.ErrNotCapable, rpctypes.Error(rpctypes.ErrGRPCNotSupportedForLearner)) {
			return e // of leases and users: the callers in this package know what to do
		}
	case codes.ResourceExhausted:
		if strings.Contains(desc, "larger than max") {
			return as(store.ErrTooLarge)
		}
		return as(store.ErrUnavailable)
	case codes.PermissionDenied, codes.Unauthenticated:
		return as(store.ErrDenied)
	case codes.InvalidArgument:
		return as(store.ErrInvalid)
	case codes.Unimplemented:
		return fmt.Errorf("the server is not an etcd 3.5 or newer: %s", desc)
	}
	return as(store.ErrUnavailable)
}

func checkRead(prefix string, revision int64) error {
	if prefix == "" {
		return fmt.Errorf("empty prefix: %w", store.ErrInvalid)
	}
	if revision < 0 {
		return fmt.Errorf("negative revision %d: %w", revision, store.ErrInvalid)
	}
	return nil
}
