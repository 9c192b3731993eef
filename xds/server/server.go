package server

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// Server serves discovery. It runs no goroutine of its own: each stream has two,
// which end with it, and streams end with the gRPC server.
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer

	cfg     Config
	log     *slog.Logger
	metrics *metrics

	// Lock order: mu before proxy.mu. changed has its own lock, the innermost.
	mu      sync.Mutex
	proxies map[string]*proxy
	streams int

	changed cluster.Bell
}

// proxy is one configuration and the nodes that get it.
type proxy struct {
	id string

	mu    sync.Mutex
	res   *translate.Resources // nil: not known yet
	stamp Stamp
	seq   uint64           // of Set
	nodes map[string]*node // by node id
}

// node is one stream's place in the server: what the stream is to take in, and
// what it publishes. When the stream has ended it is what is remembered of it.
type node struct {
	id     string
	signal chan struct{} // capacity 1: there is something in the mailbox
	ended  chan struct{} // closed: the stream is to end, for the reason in why

	// Under proxy.mu.
	status    published
	why       *status.Status
	taken     uint64 // proxy.seq of what the stream has taken in
	applied   uint64 // proxy.seq of what the published status is about
	box       batch
	size      int // names in the box
	overflows uint64
	standing  [kinds]int // share in the gauge of rejected resources
}

// New makes a Server.
func New(cfg Config) (*Server, error) {
	if cfg.Authorize == nil {
		return nil, errors.New("discovery server without Authorize: nothing would say who may have which configuration")
	}
	var err error
	if cfg.Limits, err = cfg.Limits.complete(); err != nil {
		return nil, fmt.Errorf("discovery server: %w", err)
	}
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, log: log, metrics: m, proxies: map[string]*proxy{}}, nil
}

// Register adds the discovery service to a gRPC server, which ServerOptions and
// credentials were given to.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(r, s)
}

// Set says what a proxy is to have. changes is what differs from the last Set
// for that proxy; it may be empty, and is not looked at the first time. The
// stamp's revision never goes back.
func (s *Server) Set(proxyID string, r *translate.Resources, changes translate.Changes, stamp Stamp) {
	if r == nil {
		return // nothing known is not an empty configuration
	}
	s.mu.Lock()
	p := s.proxy(proxyID)
	p.mu.Lock()
	s.mu.Unlock()
	first := p.res == nil
	p.res, p.stamp = r, stamp
	p.seq++
	for _, n := range p.nodes {
		if n.over() {
			continue
		}
		if n.post(p, changes, first, s.cfg.Limits.Backlog) {
			s.metrics.overflows.Inc()
		}
	}
	p.mu.Unlock()
	s.changed.Ring()
}

// Remove forgets a proxy and ends its streams. A node that comes back is sent
// nothing until the proxy is Set again, and so keeps what it has.
func (s *Server) Remove(proxyID string) {
	s.mu.Lock()
	if p := s.proxies[proxyID]; p != nil {
		p.mu.Lock()
		for _, n := range p.nodes {
			n.end(status.Newf(codes.NotFound, "proxy %q is not configured by this server any more", proxyID))
		}
		p.mu.Unlock()
		delete(s.proxies, proxyID)
	}
	s.mu.Unlock()
	s.changed.Ring()
}

// Proxies is the state of every node, in order of proxy and node.
func (s *Server) Proxies() []ProxyStatus {
	s.mu.Lock()
	all := make([]*proxy, 0, len(s.proxies))
	for _, p := range s.proxies {
		all = append(all, p)
	}
	s.mu.Unlock()
	var out []ProxyStatus
	for _, p := range all {
		out = append(out, p.statuses(s.cfg.Limits.Forget)...)
	}
	slices.SortFunc(out, func(a, b ProxyStatus) int {
		if c := strings.Compare(a.Proxy, b.Proxy); c != 0 {
			return c
		}
		return strings.Compare(a.Node, b.Node)
	})
	return out
}

// Changed is closed at the next change of anything that Proxies tells. Take the
// channel first, then look at Proxies, then wait.
func (s *Server) Changed() <-chan struct{} { return s.changed.Next() }

// proxy finds or makes a proxy. The caller holds s.mu.
func (s *Server) proxy(id string) *proxy {
	p := s.proxies[id]
	if p == nil {
		p = &proxy{id: id, nodes: map[string]*node{}}
		s.proxies[id] = p
	}
	return p
}

// attach makes room for a stream. The newest stream of a node wins: an older one
// is that of a process or a connection that is gone.
func (s *Server) attach(proxyID, nodeID, envoy string) (*proxy, *node, error) {
	n := &node{id: nodeID, signal: make(chan struct{}, 1), ended: make(chan struct{}), why: status.New(codes.Canceled, "stream ended")}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams >= s.cfg.Limits.Streams {
		return nil, nil, fmt.Errorf("this server has %d streams, as many as it may: connect to another replica", s.streams)
	}
	p := s.proxy(proxyID)
	p.mu.Lock()
	defer p.mu.Unlock()
	if old := p.nodes[nodeID]; old != nil {
		if old.end(status.Newf(codes.Aborted, "node %q has opened a newer stream", nodeID)) {
			s.metrics.replaced.Inc()
		}
	} else {
		p.prune(s.cfg.Limits.Forget, s.cfg.Limits.Nodes-1)
		if len(p.nodes) >= s.cfg.Limits.Nodes {
			return nil, nil, fmt.Errorf("proxy %q has %d nodes, as many as it may", proxyID, len(p.nodes))
		}
	}
	s.streams++
	n.status.ProxyStatus = ProxyStatus{Proxy: proxyID, Node: nodeID, Envoy: envoy, Connected: true, Since: time.Now()}
	p.nodes[nodeID] = n
	if p.res != nil {
		n.post(p, translate.Changes{}, true, 0)
	}
	return p, n, nil
}

// detach notes the end of a stream.
func (s *Server) detach(p *proxy, n *node) {
	s.mu.Lock()
	s.streams--
	p.mu.Lock()
	n.end(nil)
	n.share(s.metrics, [kinds]int{})
	n.status.Connected, n.status.Since = false, time.Now()
	if p.res == nil && p.nodes[n.id] == n {
		delete(p.nodes, n.id)
	}
	if p.res == nil && len(p.nodes) == 0 && s.proxies[p.id] == p {
		delete(s.proxies, p.id)
	}
	p.mu.Unlock()
	s.mu.Unlock()
	s.changed.Ring()
}

// prune forgets nodes that have been gone for long, and the ones gone longest
// while there are more than limit. The caller holds p.mu.
func (p *proxy) prune(forget time.Duration, limit int) {
	type gone struct {
		id string
		at time.Time
	}
	var list []gone
	for id, n := range p.nodes {
		if !n.status.Connected {
			list = append(list, gone{id, n.status.Since})
		}
	}
	slices.SortFunc(list, func(a, b gone) int { return a.at.Compare(b.at) })
	for _, g := range list {
		if len(p.nodes) > 1 && time.Since(g.at) > forget || len(p.nodes) > limit {
			delete(p.nodes, g.id)
		}
	}
}

func (p *proxy) statuses(forget time.Duration) []ProxyStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prune(forget, len(p.nodes))
	if len(p.nodes) == 0 {
		return []ProxyStatus{{Proxy: p.id, Revision: p.stamp.Revision}}
	}
	out := make([]ProxyStatus, 0, len(p.nodes))
	for _, n := range p.nodes {
		st := n.status.written()
		inSync := n.applied == n.taken && st.Acked == st.Revision
		st.Revision, st.Overflows = p.stamp.Revision, n.overflows
		switch {
		case n.applied == p.seq:
		case n.box.idle && inSync:
			st.Acked = st.Revision
		default:
			st.Acked = min(st.Acked, st.Revision-1)
		}
		out = append(out, st)
	}
	return out
}

// post puts what the proxy was last Set to, and what that changes, into the
// node's mailbox, and reports whether that overflowed. The caller holds proxy.mu.
func (n *node) post(p *proxy, c translate.Changes, full bool, backlog int) (overflow bool) {
	b, stamp := &n.box, p.stamp
	if b.res != nil && !b.idle {
		stamp.At = b.stamp.At // the lag counts from the oldest change that waits
	}
	// What changes nothing for the node waits until something does: most changes
	// of a clusterset concern few of its proxies.
	b.idle = !full && c.Empty() && (b.res == nil || b.idle)
	b.seq, b.res, b.stamp, b.full = p.seq, p.res, stamp, b.full || full
	if b.idle {
		return false
	}
	if !b.full {
		for _, byType := range []map[string][]string{c.Changed, c.Removed} {
			for typeURL, names := range byType {
				k, ok := translate.KindOf(typeURL)
				if !ok {
					continue
				}
				if b.names[k] == nil {
					b.names[k] = make(map[string]struct{}, len(names))
				}
				before := len(b.names[k])
				for _, name := range names {
					b.names[k][name] = struct{}{}
				}
				n.size += len(b.names[k]) - before
			}
		}
		if n.size > backlog {
			b.full, overflow = true, true
			n.overflows++
		}
	}
	if b.full {
		b.names, n.size = [kinds]map[string]struct{}{}, 0
	}
	select {
	case n.signal <- struct{}{}:
	default:
	}
	return overflow
}

// take empties the mailbox.
func (p *proxy) take(n *node) (batch, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := n.box
	n.box, n.size = batch{}, 0
	if b.res != nil {
		n.taken = b.seq
	}
	return b, b.res != nil
}

// end tells the stream to end, and reports whether nothing had told it before.
// The caller holds proxy.mu.
func (n *node) end(why *status.Status) bool {
	if n.over() {
		return false
	}
	if why != nil {
		n.why = why
	}
	close(n.ended)
	return true
}

func (n *node) over() bool {
	select {
	case <-n.ended:
		return true
	default:
		return false
	}
}

// share sets the node's share in the gauge of rejected resources. The caller
// holds proxy.mu.
func (n *node) share(m *metrics, now [kinds]int) {
	for k, v := range now {
		if d := v - n.standing[k]; d != 0 {
			m.standing.WithLabelValues(kind(k).String()).Add(float64(d))
		}
	}
	n.standing = now
}
