// Package etcd is the global store of federation/store in an etcd cluster (3.5.18
// or newer: older ones may skip a deletion after a compaction, or report progress
// too early). It adds to the contract:
//
//   - Every connection is TLS with a client certificate, whose common name is
//     the etcd user; Bootstrap sets up users that may write their own cluster's
//     prefix only.
//   - A watch survives any outage of the store. It notices the store's return
//     within about half a second, and a dead connection within a few seconds, and
//     goes on after the last revision that was delivered.
//   - A slow reader of a watch is throttled by flow control: nothing piles up
//     here but the events of one revision and one message.
//
// Agents, hubs and `causeway clusterset init` call it; the server for trials is in
// the embedded package below.
package etcd

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/causeway-mesh/causeway/federation/store"
)

// Config of a Store.
type Config struct {
	// Endpoints are host:port or https://host:port of the members. Required.
	Endpoints []string
	// TLS holds the roots that sign the members' certificates, and the client
	// certificate whose common name is the etcd user. Required; it is cloned.
	TLS *tls.Config
	// Logger gets lost and restored connections, and lost holds. Required.
	Logger *slog.Logger
	// Registerer gets the causeway_store_* metrics. Required; wrap it with labels
	// if one process has several stores.
	Registerer prometheus.Registerer
	// RequestTimeout bounds each request, including the wait for a connection,
	// where ctx does not end sooner; 10 s if zero.
	RequestTimeout time.Duration
	// ProgressInterval is how often a watch asks for progress; 1 s if zero.
	ProgressInterval time.Duration
	// OnState, if set, is called when the store was reached (connected; first time
	// included) and when it was lost (err says why), each time this changes. Calls
	// do not overlap. It must return fast and not call the Store.
	OnState func(connected bool, err error)
	// OnHold, if set, is called when a key given to Hold was established (held),
	// and when it was, or must be assumed, lost (err says why). Same rules.
	OnHold func(key string, held bool, err error)
}

// Times that nobody needs to configure.
const (
	defaultRequestTimeout   = 10 * time.Second
	defaultProgressInterval = time.Second
	// maxBackoff bounds the wait between attempts to connect: the store's return
	// is noticed within that.
	maxBackoff = 500 * time.Millisecond
	// connectTimeout bounds one attempt. It must be some round trips around the
	// world, and short enough that one begun during an outage does not outlive it.
	connectTimeout = 2 * time.Second
	// keepAliveTime is gRPC's minimum, and within what etcd tolerates (5 s).
	keepAliveTime    = 10 * time.Second
	keepAliveTimeout = 3 * time.Second
	// probeTimeout bounds the requests that find out whether a quiet connection lives.
	probeTimeout = 3 * time.Second
	// stuckAfter is how long a watch may stay silent while the store moves on.
	stuckAfter = 30 * time.Second
)

// Bounds of one message from the server. List asks for less when it meets the
// first; a watch cannot, and etcd may put 1,000 revisions into its first message.
const (
	maxResponseBytes = 64 << 20
	maxWatchBytes    = 512 << 20
)

// Store is a store.Store over etcd. Make it with New, end it with Close.
type Store struct {
	cfg    Config
	client *clientv3.Client
	conn   *grpc.ClientConn
	kv     pb.KVClient
	watch  pb.WatchClient
	lease  pb.LeaseClient
	state  *state
	meters *meters
	// clusterID is that of the last List or Watch; 0 before.
	clusterID atomic.Uint64
}

var _ store.Store = (*Store)(nil)

// New checks the configuration and returns a Store that connects with its first
// use.
func New(cfg Config) (*Store, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	params := backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxBackoff}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            cfg.Endpoints,
		TLS:                  cfg.TLS,
		DialKeepAliveTime:    keepAliveTime,
		DialKeepAliveTimeout: keepAliveTimeout,
		DialOptions: []grpc.DialOption{
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: params, MinConnectTimeout: connectTimeout}),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponseBytes)),
		},
		Logger: zap.NewNop(), // each failure is returned, or logged here
	})
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", strings.Join(cfg.Endpoints, ","), err)
	}
	m, err := newMeters(cfg.Registerer)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("store: registering metrics: %w", err), client.Close())
	}
	conn := client.ActiveConnection()
	return &Store{
		cfg:    cfg,
		client: client,
		conn:   conn,
		kv:     pb.NewKVClient(conn),
		watch:  pb.NewWatchClient(conn),
		lease:  pb.NewLeaseClient(conn),
		state:  &state{lg: cfg.Logger, hook: cfg.OnState, gauge: m.connected},
		meters: m,
	}, nil
}

// Close ends the connection and unregisters the metrics; what is still running
// fails. End the contexts of Watch and Hold first, so that they can finish.
func (s *Store) Close() error {
	s.meters.unregister(s.cfg.Registerer)
	return s.client.Close()
}

func (c *Config) complete() error {
	if len(c.Endpoints) == 0 {
		return errors.New("no etcd endpoints given")
	}
	var eps []string
	for _, e := range c.Endpoints {
		ep, err := endpoint(strings.TrimPrefix(e, "https://"))
		if err != nil {
			return err
		}
		eps = append(eps, "https://"+ep)
	}
	c.Endpoints = eps
	switch {
	case c.TLS == nil:
		return errors.New("no TLS configuration given; etcd is spoken to over TLS only")
	case len(c.TLS.Certificates) == 0 && c.TLS.GetClientCertificate == nil:
		return errors.New("TLS configuration has no client certificate; its common name is the etcd user")
	case c.TLS.InsecureSkipVerify && c.TLS.VerifyConnection == nil:
		return errors.New("TLS configuration does not verify the server's certificate")
	case c.Logger == nil:
		return errors.New("no logger given")
	case c.Registerer == nil:
		return errors.New("no metrics registerer given")
	case c.RequestTimeout < 0 || c.ProgressInterval < 0:
		return errors.New("negative request timeout or progress interval")
	}
	c.TLS = c.TLS.Clone()
	c.TLS.MinVersion = max(c.TLS.MinVersion, tls.VersionTLS12)
	if c.RequestTimeout == 0 {
		c.RequestTimeout = defaultRequestTimeout
	}
	if c.ProgressInterval == 0 {
		c.ProgressInterval = defaultProgressInterval
	}
	return nil
}

// ParseURL takes apart what users give as --store=etcd://host[:port],host[:port]...
// and returns the endpoints as host:port. The default port is 2379.
func ParseURL(s string) ([]string, error) {
	rest, ok := strings.CutPrefix(s, "etcd://")
	if !ok {
		return nil, fmt.Errorf("store %q: not of the form etcd://host:port,host:port", s)
	}
	var out []string
	for _, e := range strings.Split(rest, ",") {
		ep, err := endpoint(e)
		if err != nil {
			return nil, fmt.Errorf("store %q: %w", s, err)
		}
		out = append(out, ep)
	}
	return out, nil
}

// endpoint returns e as host:port.
func endpoint(e string) (string, error) {
	u, err := url.Parse("https://" + e)
	if err != nil || u.Hostname() == "" || u.Host != e || strings.ContainsAny(e, " \t\n") {
		return "", fmt.Errorf("endpoint %q is not of the form host:port (IPv6 addresses in brackets)", e)
	}
	port := u.Port()
	if port == "" {
		port = "2379"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("endpoint %q: port is not between 1 and 65535", e)
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}
