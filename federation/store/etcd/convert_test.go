package etcd

import (
	"context"
	"errors"
	"io"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/causeway-mesh/causeway/federation/store"
)

func TestConvert(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ err, want error }{
		{rpctypes.ErrGRPCCompacted, store.ErrCompacted},
		{rpctypes.ErrCompacted, store.ErrCompacted}, // as clientv3 returns it
		{rpctypes.ErrGRPCFutureRev, store.ErrFutureRevision},
		{rpctypes.ErrGRPCRequestTooLarge, store.ErrTooLarge},
		{rpctypes.ErrGRPCTooManyOps, store.ErrTooLarge},
		{status.Error(codes.ResourceExhausted, "grpc: received message larger than max (9 vs. 8)"), store.ErrTooLarge},
		{rpctypes.ErrGRPCRequestTooManyRequests, store.ErrUnavailable},
		{rpctypes.ErrGRPCNoSpace, store.ErrUnavailable},
		{rpctypes.ErrGRPCPermissionDenied, store.ErrDenied},
		{rpctypes.ErrGRPCUserEmpty, store.ErrDenied},
		{rpctypes.ErrGRPCNoLeader, store.ErrUnavailable},
		{rpctypes.ErrGRPCNotLeader, store.ErrUnavailable},
		{rpctypes.ErrGRPCAuthOldRevision, store.ErrUnavailable},
		{rpctypes.ErrGRPCDuplicateKey, store.ErrInvalid},
		{rpctypes.ErrGRPCLeaseNotFound, rpctypes.ErrLeaseNotFound},
		{rpctypes.ErrUserNotFound, rpctypes.ErrUserNotFound},
		{status.Error(codes.DeadlineExceeded, "late"), store.ErrUnavailable},
		{status.Error(codes.Internal, "odd"), store.ErrUnavailable},
		{context.Canceled, context.Canceled},
		{io.EOF, io.EOF},
		{&store.ConflictError{Key: "a"}, store.ErrConflict},
		{nil, nil},
	} {
		if got := convert(c.err); !errors.Is(got, c.want) {
			t.Errorf("%v becomes %v, want %v", c.err, got, c.want)
		}
	}
}

// However etcd cuts its messages, and whatever it repeats: each event comes out
// once, in order, in whole revisions.
func TestFragments(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		after := rapid.Int64Range(0, 3).Draw(t, "after")
		var all []*mvccpb.Event
		var want []int64 // of each event that must come out
		for rev := int64(1); rev <= 8; rev++ {
			for range rapid.IntRange(0, 4).Draw(t, "events") {
				all = append(all, &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte{byte(len(all))}, ModRevision: rev}})
				if rev > after {
					want = append(want, rev)
				}
			}
		}
		last, n := after, 0
		var f fragments
		for len(all) > 0 {
			cut := rapid.IntRange(1, len(all)).Draw(t, "cut")
			// etcd may end a message for good only between revisions.
			whole := cut == len(all) || all[cut].Kv.ModRevision != all[cut-1].Kv.ModRevision && rapid.Bool().Draw(t, "whole")
			events, upto, err := f.add(all[:cut], whole, last)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				if n == len(want) || e.ModRevision != want[n] || e.ModRevision <= last || e.ModRevision > upto {
					t.Fatalf("event %d has revision %d, in a batch after %d up to %d", n, e.ModRevision, last, upto)
				}
				n++
			}
			if len(events) > 0 {
				if n < len(want) && want[n] <= upto {
					t.Fatalf("revision %d was delivered in part", upto)
				}
				last = upto
			}
			if whole && f.open() {
				t.Fatal("events were held back after a whole message")
			}
			all = all[cut:]
		}
		if n != len(want) {
			t.Fatalf("%d events of %d", n, len(want))
		}
	})
	var f fragments
	if _, _, err := f.add([]*mvccpb.Event{{Kv: &mvccpb.KeyValue{ModRevision: 5}}, {Kv: &mvccpb.KeyValue{ModRevision: 4}}}, true, 1); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("events out of order: %v", err)
	}
	if _, _, err := f.add([]*mvccpb.Event{nil, {}}, true, 1); err != nil {
		t.Errorf("events without content: %v", err)
	}
}
