package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// proxy speaks delta ADS as Envoy does: one stream over mTLS, wildcards for
// clusters and listeners, names for what those refer to, an ACK for each response.
// What it is given it only looks at as far as that takes, so that the 100 proxies
// of a run leave the machine to what is measured.
type proxy struct {
	translate.Proxy
	run     *arrivals
	learned *references
	conn    *grpc.ClientConn
	stream  grpc.ClientStream
	ended   chan struct{}

	responses atomic.Int64 // with something in them
	wire      atomic.Int64 // bytes that came over the connection, TLS and HTTP/2 included
	payload   atomic.Int64 // bytes of responses
	last      atomic.Int64 // ns: when the last response came

	mu     sync.Mutex
	have   map[string]map[string]string // version by type and name
	refs   map[string]map[string][]reference
	wanted map[reference]int // how many resources refer to it
	err    error
}

// dial connects a proxy and starts its stream.
func dial(ctx context.Context, p translate.Proxy, address string, ca *identity.Authority, run *arrivals, learned *references) (*proxy, error) {
	x := &proxy{Proxy: p, run: run, learned: learned, ended: make(chan struct{}),
		have: map[string]map[string]string{}, refs: map[string]map[string][]reference{}, wanted: map[reference]int{}}
	for _, t := range translate.Types {
		x.have[t], x.refs[t] = map[string]string{}, map[string][]reference{}
	}
	id, err := identity.ProxyID(ca.TrustDomain(), identity.Role(p.Role), p.Namespace, p.Name)
	if err != nil {
		return nil, err
	}
	svid, err := ca.Issue(identity.SVIDRequest{ID: id})
	if err != nil {
		return nil, err
	}
	server, err := identity.AgentID(ca.TrustDomain())
	if err != nil {
		return nil, err
	}
	x.conn, err = grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(identity.ClientConfig(svid, ca, identity.Exactly(server)))),
		// As large as Envoy's; fixed, so that gRPC's own pings are not counted.
		grpc.WithInitialWindowSize(1<<20), grpc.WithInitialConnWindowSize(1<<20),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
			if err != nil {
				return nil, err
			}
			return &counted{c, &x.wire}, nil
		}))
	if err != nil {
		return nil, err
	}
	const method = discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName
	x.stream, err = x.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method,
		grpc.ForceCodecV2(plain{}), grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(64<<20))
	if err != nil {
		return nil, errors.Join(err, x.conn.Close())
	}
	node := &corev3.Node{Id: p.ID(), Cluster: string(p.Cluster)}
	for _, t := range []string{translate.TypeCluster, translate.TypeListener} {
		if err := x.stream.SendMsg(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: t}); err != nil {
			return nil, errors.Join(err, x.conn.Close())
		}
		node = nil
	}
	go x.receive()
	return x, nil
}

// close ends the stream and waits for that.
func (x *proxy) close() {
	_ = x.conn.Close()
	<-x.ended
}

func (x *proxy) receive() {
	defer close(x.ended)
	for {
		var raw []byte
		if err := x.stream.RecvMsg(&raw); err != nil {
			x.mu.Lock()
			x.err = fmt.Errorf("%s: %w", x.ID(), err)
			x.mu.Unlock()
			return
		}
		now := time.Now().UnixNano()
		resp, err := parseDiscovery(raw)
		if err == nil {
			x.payload.Add(int64(len(raw)))
			if len(resp.resources)+len(resp.removed) > 0 {
				x.responses.Add(1)
				x.last.Store(now)
			}
			for _, r := range resp.resources {
				x.run.arrived(x, backendOf(r.name), now)
			}
			err = x.take(resp)
		}
		if err != nil {
			x.mu.Lock()
			x.err = fmt.Errorf("%s: %w", x.ID(), err)
			x.mu.Unlock()
			_ = x.conn.Close()
			return
		}
	}
}

// take notes a response, subscribes to what it refers to, and acknowledges it.
func (x *proxy) take(resp discovery) error {
	x.mu.Lock()
	before := map[reference]bool{}
	count := func(r reference, by int) {
		if _, seen := before[r]; !seen {
			before[r] = x.wanted[r] > 0
		}
		if x.wanted[r] += by; x.wanted[r] == 0 {
			delete(x.wanted, r)
		}
	}
	replace := func(name, version string, refs []reference) {
		for _, r := range refs {
			count(r, 1)
		}
		for _, r := range x.refs[resp.typeURL][name] {
			count(r, -1)
		}
		if version == "" {
			delete(x.have[resp.typeURL], name)
			delete(x.refs[resp.typeURL], name)
			return
		}
		x.have[resp.typeURL][name] = version
		if len(refs) > 0 {
			x.refs[resp.typeURL][name] = refs
		} else {
			delete(x.refs[resp.typeURL], name)
		}
	}
	for _, r := range resp.resources {
		refs, err := x.learned.of(resp.typeURL, r)
		if err != nil {
			x.mu.Unlock()
			return err
		}
		replace(r.name, r.version, refs)
	}
	for _, name := range resp.removed {
		replace(name, "", nil)
	}
	subscribe, unsubscribe := map[string][]string{}, map[string][]string{}
	for r, was := range before {
		switch is := x.wanted[r] > 0; {
		case is && !was:
			subscribe[r.typeURL] = append(subscribe[r.typeURL], r.name)
		case was && !is:
			unsubscribe[r.typeURL] = append(unsubscribe[r.typeURL], r.name)
			delete(x.have[r.typeURL], r.name)
		}
	}
	x.mu.Unlock()

	for _, t := range translate.Types {
		if len(subscribe[t])+len(unsubscribe[t]) == 0 {
			continue
		}
		slices.Sort(subscribe[t])
		slices.Sort(unsubscribe[t])
		if err := x.stream.SendMsg(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: t, ResourceNamesSubscribe: subscribe[t], ResourceNamesUnsubscribe: unsubscribe[t]}); err != nil {
			return err
		}
	}
	return x.stream.SendMsg(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resp.typeURL, ResponseNonce: resp.nonce})
}

// state gives the versions that the proxy has, secrets left out, whose content is
// another for each start.
func (x *proxy) state() (map[string]map[string]string, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	out := map[string]map[string]string{}
	for t, m := range x.have {
		if t != translate.TypeSecret {
			out[t] = maps.Clone(m)
		}
	}
	return out, x.err
}

// has compares without a copy.
func (x *proxy) has(want map[string]map[string]string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	for t, m := range want {
		if !maps.Equal(m, x.have[t]) {
			return false
		}
	}
	return true
}

// counted counts what is read from a connection.
type counted struct {
	net.Conn
	n *atomic.Int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// plain sends protobuf messages and receives bytes.
type plain struct{}

func (plain) Name() string { return "proto" }

func (plain) Marshal(v any) (mem.BufferSlice, error) {
	b, err := proto.Marshal(v.(proto.Message))
	return mem.BufferSlice{mem.SliceBuffer(b)}, err
}

func (plain) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// arrivals tells who got what when.
type arrivals struct {
	mu      sync.Mutex
	waiting map[string]*arrival // by resource
}

// arrival is a resource on its way to proxies.
type arrival struct {
	pending map[*proxy]bool
	at      []int64 // ns, as they arrived
	done    chan struct{}
}

func newArrivals() *arrivals { return &arrivals{waiting: map[string]*arrival{}} }

// expect begins to wait for a resource to arrive at proxies.
func (a *arrivals) expect(resource string, at []*proxy) *arrival {
	w := &arrival{pending: make(map[*proxy]bool, len(at)), done: make(chan struct{})}
	for _, p := range at {
		w.pending[p] = true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting[resource] = w
	return w
}

func (a *arrivals) arrived(p *proxy, resource string, at int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w := a.waiting[resource]
	if w == nil || !w.pending[p] {
		return
	}
	delete(w.pending, p)
	w.at = append(w.at, at)
	if len(w.pending) == 0 {
		delete(a.waiting, resource)
		close(w.done)
	}
}

// abandon stops waiting and says for whom.
func (a *arrivals) abandon(resource string, w *arrival) (missing []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waiting, resource)
	for p := range w.pending {
		missing = append(missing, p.ID())
	}
	slices.Sort(missing)
	return missing
}
