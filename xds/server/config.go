package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// Config makes a Server.
type Config struct {
	Logger     *slog.Logger          // nil: silent
	Registerer prometheus.Registerer // nil: no metrics
	// Authorize says which proxy's configuration a node gets, or why it gets none; the
	// node sees the error. It binds the node's id to the caller's identity, which it
	// finds in ctx (credentials of the gRPC peer). Several nodes may be one proxy.
	Authorize func(ctx context.Context, node *corev3.Node) (proxyID string, err error)
	Limits    Limits
}

// Limits bounds what proxies may ask for and what they are given. A zero field
// stands for its default.
type Limits struct {
	// ResponseBytes is where a response is split. A single resource may exceed it.
	ResponseBytes int // 3 MiB
	// ResourceBytes is the size above which a resource is held back.
	ResourceBytes int // 16 MiB
	// Subscriptions bounds the names that a node may subscribe to or hold, per type.
	Subscriptions int // 100,000
	// Backlog bounds the names of changes that are kept for a stream. Beyond, it
	// forgets them and compares everything.
	Backlog int // 50,000
	// Streams bounds the streams of the whole server, Nodes the nodes of one proxy.
	Streams int // 10,000
	Nodes   int // 1,000
	// FirstRequest is how long a new stream may stay silent.
	FirstRequest time.Duration // 30 s
	// Warm is how long listeners and routes wait for a new cluster whose endpoints
	// or secrets the proxy does not ask for.
	Warm time.Duration // 5 s
	// Linger is how long a cluster stays after the last listener or route that
	// names it has gone, for requests under way. Negative: not at all.
	Linger time.Duration // 5 s
	// A resource that the proxy rejected is tried again after RetryMin, then after
	// twice as long each time up to RetryMax.
	RetryMin time.Duration // 1 s
	RetryMax time.Duration // 1 min
	// Forget is how long a node that has gone is still listed, unless it is the
	// last of its proxy.
	Forget time.Duration // 1 min
}

func orDefault[T int | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

func (l Limits) complete() (Limits, error) {
	orDefault(&l.ResponseBytes, 3<<20)
	orDefault(&l.ResourceBytes, 16<<20)
	orDefault(&l.Subscriptions, 100_000)
	orDefault(&l.Backlog, 50_000)
	orDefault(&l.Streams, 10_000)
	orDefault(&l.Nodes, 1_000)
	orDefault(&l.FirstRequest, 30*time.Second)
	orDefault(&l.Warm, 5*time.Second)
	orDefault(&l.Linger, 5*time.Second)
	orDefault(&l.RetryMin, time.Second)
	orDefault(&l.RetryMax, time.Minute)
	orDefault(&l.Forget, time.Minute)
	for name, v := range map[string]int64{
		"ResponseBytes": int64(l.ResponseBytes), "ResourceBytes": int64(l.ResourceBytes), "Subscriptions": int64(l.Subscriptions),
		"Backlog": int64(l.Backlog), "Streams": int64(l.Streams), "Nodes": int64(l.Nodes), "FirstRequest": int64(l.FirstRequest),
		"Warm": int64(l.Warm), "RetryMin": int64(l.RetryMin), "RetryMax": int64(l.RetryMax), "Forget": int64(l.Forget),
	} {
		if v < 0 {
			return l, fmt.Errorf("limit %s is negative", name)
		}
	}
	if l.RetryMax < l.RetryMin {
		return l, errors.New("limit RetryMax is less than RetryMin")
	}
	return l, nil
}

// maxRequest bounds a request, in bytes: after a reconnect it names all that the
// node holds.
const maxRequest = 16 << 20

// window is how much of a request may be on its way; the largest name all that a
// node holds, after a reconnect.
const window = 1 << 20

// ServerOptions are the options of a gRPC server that serves discovery: proxies
// that are gone without a word are noticed within a minute, requests are bounded.
// The caller adds its credentials.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxConcurrentStreams(100),
		grpc.ConnectionTimeout(20 * time.Second),
		// Fixed windows: gRPC would else ping the node at each of its requests, to find
		// out how much may be on its way.
		grpc.InitialWindowSize(window), grpc.InitialConnWindowSize(window),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
}
