package server

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/causeway-mesh/causeway/xds/translate"
)

// StreamAggregatedResources refuses the state-of-the-world form.
func (s *Server) StreamAggregatedResources(discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return status.Error(codes.Unimplemented,
		"state-of-the-world discovery is not served: set api_type DELTA_GRPC in ads_config of the bootstrap")
}

// stream is one delta ADS stream.
type stream struct {
	*Server
	grpc  discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	log   *slog.Logger
	p     *proxy
	n     *node
	begun time.Time
	timer *time.Timer // for what the ledger waits for

	// Of steps: one at a time.
	mu     sync.Mutex
	l      *ledger
	warned bool // about a type that is not served
	lag    time.Duration
}

// DeltaAggregatedResources serves one stream until it ends.
func (s *Server) DeltaAggregatedResources(g discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	ctx := g.Context()
	requests, opened, gone := make(chan *discoveryv3.DeltaDiscoveryRequest, 1), make(chan *stream, 1), make(chan error, 1)
	// A step may wait for a slow node, and must not keep the stream from being replaced:
	// steps are made by goroutines that end when this one returns, for that ends Recv,
	// Send and the context.
	done := make(chan error, 2)
	go func() {
		req, err := g.Recv()
		if err != nil {
			gone <- err
			return
		}
		requests <- req
		var st *stream
		select {
		case st = <-opened:
		case <-ctx.Done():
			return
		}
		for first := true; ; first = false {
			if err := st.step(req); err != nil {
				done <- err
				return
			}
			if first {
				go func() { done <- st.follow(ctx) }()
			}
			if req, err = g.Recv(); err != nil {
				gone <- err
				return
			}
		}
	}()

	silent := time.NewTimer(s.cfg.Limits.FirstRequest)
	defer silent.Stop()
	var first *discoveryv3.DeltaDiscoveryRequest
	select {
	case first = <-requests:
	case err := <-gone:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-silent.C:
		return s.refuse("silent", status.Newf(codes.DeadlineExceeded, "no request came within %v", s.cfg.Limits.FirstRequest))
	}
	st, err := s.open(ctx, g, first)
	if err != nil {
		return err
	}
	defer s.detach(st.p, st.n)
	s.metrics.streams.Inc()
	defer s.metrics.streams.Dec()
	defer st.timer.Stop()

	opened <- st
	select {
	case err = <-done:
	case gone := <-gone:
		st.log.Debug("the node went away", "error", gone)
	case <-st.n.ended:
		st.p.mu.Lock()
		err = st.n.why.Err()
		st.p.mu.Unlock()
	case <-ctx.Done():
		err = ctx.Err()
	}
	st.log.Info("discovery stream ended", "error", err, "after", time.Since(st.begun).Round(time.Millisecond))
	return err
}

func (s *Server) refuse(reason string, st *status.Status) error {
	s.metrics.refused.WithLabelValues(reason).Inc()
	s.log.Warn("discovery stream refused", "reason", reason, "error", st.Message())
	return st.Err()
}

// open authorises a stream.
func (s *Server) open(ctx context.Context, g discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer,
	first *discoveryv3.DeltaDiscoveryRequest) (*stream, error) {
	id := first.GetNode().GetId()
	switch {
	case id == "":
		return nil, s.refuse("node", status.New(codes.InvalidArgument, "the first request names no node: set node.id in the bootstrap"))
	case len(id) > maxName:
		return nil, s.refuse("node", status.Newf(codes.InvalidArgument, "the node id has %d bytes: more than the limit of %d", len(id), maxName))
	}
	proxyID, err := s.cfg.Authorize(ctx, first.GetNode())
	if err != nil {
		return nil, s.refuse("unauthorised", status.Newf(codes.PermissionDenied,
			"node %q may not have a configuration: %v; present a certificate whose SPIFFE ID belongs to that node", id, err))
	}
	p, n, err := s.attach(proxyID, id, envoyVersion(first.GetNode()))
	if err != nil {
		return nil, s.refuse("limit", status.New(codes.ResourceExhausted, err.Error()))
	}
	st := &stream{
		Server: s, grpc: g, p: p, n: n, l: newLedger(s.cfg.Limits), begun: time.Now(), timer: time.NewTimer(time.Hour),
		log: s.log.With("proxy", proxyID, "node", id),
	}
	st.log.Info("discovery stream opened", "envoy", envoyVersion(first.GetNode()))
	s.changed.Ring()
	return st, nil
}

func envoyVersion(n *corev3.Node) string {
	if v := n.GetUserAgentBuildVersion().GetVersion(); v != nil {
		return fmt.Sprintf("%d.%d.%d", v.GetMajorNumber(), v.GetMinorNumber(), v.GetPatch())
	}
	return n.GetUserAgentVersion()
}

// follow takes in what the proxy is Set to, and minds the time, until the stream ends.
func (st *stream) follow(ctx context.Context) error {
	for {
		select {
		case <-st.n.signal:
		case <-st.timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := st.step(nil); err != nil {
			return err
		}
	}
}

// step takes in a request, or without one what the proxy was Set to, and sends what
// there is to send then.
func (st *stream) step(req *discoveryv3.DeltaDiscoveryRequest) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if req == nil {
		st.takeIn()
	} else if err := st.request(req); err != nil {
		return err
	}
	if err := st.send(); err != nil {
		return err
	}
	if w := st.l.wake; w.IsZero() {
		st.timer.Stop()
	} else {
		st.timer.Reset(time.Until(w))
	}
	return nil
}

// send sends what there is to send. Before each response it looks for newer
// content, so that a slow node skips what is out of date.
func (st *stream) send() error {
	for {
		k, resp := st.l.next(time.Now())
		if resp == nil {
			st.report()
			return nil
		}
		size := uint64(proto.Size(resp))
		st.l.types[k].bytes += size
		m := &st.metrics.kinds[k]
		m.responses.Inc()
		m.resources.Add(float64(len(resp.GetResources()) + len(resp.GetRemovedResources())))
		m.bytes.Add(float64(size))
		if err := st.grpc.Send(resp); err != nil {
			return err
		}
		select {
		case <-st.n.signal:
			st.takeIn()
		default:
		}
	}
}

func (st *stream) takeIn() {
	if b, ok := st.p.take(st.n); ok {
		// The lag of a node that has just come does not count what it missed.
		if b.stamp.At.Before(st.begun) {
			b.stamp.At = st.begun
		}
		st.l.apply(b, time.Now())
	}
}

func (st *stream) request(req *discoveryv3.DeltaDiscoveryRequest) error {
	if id := req.GetNode().GetId(); id != "" && id != st.n.id {
		return st.refuse("node", status.Newf(codes.PermissionDenied,
			"the node id changed from %q to %q within a stream: open a stream for each node", st.n.id, id))
	}
	k, ok := translate.KindOf(req.GetTypeUrl())
	if !ok {
		// A node that asks for something odd is still served all else.
		st.metrics.unknown.Inc()
		if !st.warned {
			st.warned = true
			st.log.Warn("a node asks for a type that is not served; take it out of its configuration", "type", clip(req.GetTypeUrl()))
		}
		return nil
	}
	t := st.l.types[k]
	acks, nacks := t.acks, t.nacks
	if err := st.l.request(k, req, time.Now()); err != nil {
		return st.refuse("limit", status.New(codes.ResourceExhausted, err.Error()))
	}
	m := &st.metrics.kinds[k]
	m.acks.Add(float64(t.acks - acks))
	m.nacks.Add(float64(t.nacks - nacks))
	return nil
}

// report logs and counts what happened, and publishes the status.
func (st *stream) report() {
	for _, e := range st.l.takeEvents() {
		st.observe(e)
	}
	var rejected [kinds]int
	for e := range st.l.rejected {
		rejected[e.Kind]++
	}
	st.p.mu.Lock()
	if !st.n.over() { // else what detach has published is the last word
		st.l.status(&st.n.status)
		st.n.status.Since, st.n.status.Lag = st.begun, st.lag
		st.n.applied = st.l.seq
		st.n.share(st.metrics, rejected)
	}
	st.p.mu.Unlock()
	st.changed.Ring()
}

func (st *stream) observe(e event) {
	label := e.Kind.String()
	switch e.what {
	case eventAcked:
		st.lag = e.lag
		st.metrics.lag.Observe(e.lag.Seconds())
	case eventNacked:
		// The culprit is reported when it is found.
		st.log.Info("proxy rejected a response", "type", label, "resources", e.count, "message", e.message)
	case eventRejected:
		by := "proxy"
		if e.rejection.HeldBack {
			by = "check"
		}
		st.metrics.rejected.WithLabelValues(label, by).Inc()
		if e.rejection.Attempts == 1 {
			st.log.Warn("resource set aside; the proxy keeps the last good one", "type", label, "name", e.Name, "subject", e.rejection.Subject,
				"by", by, "message", e.rejection.Message)
		}
	case eventHealed:
		st.metrics.healed.WithLabelValues(label).Inc()
		st.log.Info("proxy has taken a resource that it had rejected", "type", label, "name", e.Name, "subject", e.rejection.Subject)
	case eventCold:
		st.metrics.cold.Inc()
		st.log.Warn("proxy did not take a new cluster's endpoints or secrets in time; listeners and routes go ahead", "cluster", e.Name,
			"after", st.cfg.Limits.Warm)
	}
}
