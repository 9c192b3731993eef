package etcd

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// AfterRange has answered called with each answer to a range, before s gets to see
// it. Call it before s is used.
func AfterRange(s *Store, answered func()) { s.kv = slowKV{s.kv, answered} }

type slowKV struct {
	pb.KVClient
	answered func()
}

func (k slowKV) Range(ctx context.Context, r *pb.RangeRequest, opts ...grpc.CallOption) (*pb.RangeResponse, error) {
	resp, err := k.KVClient.Range(ctx, r, opts...)
	if err == nil {
		k.answered()
	}
	return resp, err
}
