package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

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
	stream  *stream // receive's, but for close
	ended   chan struct{}

	responses atomic.Int64 // with something in them
	wire      atomic.Int64 // bytes that came over the connection, TLS and HTTP/2 included
	payload   atomic.Int64 // bytes of responses
	last      atomic.Int64 // ns: when the last response came

	mu     sync.Mutex
	have   map[string]map[string]string // version by type and name
	refs   map[string]map[string][]translate.Ref
	wanted map[translate.Ref]int // how many resources refer to it
	err    error
}

// dial connects a proxy and starts its stream.
func dial(ctx context.Context, p translate.Proxy, address string, ca *identity.Authority, run *arrivals, learned *references) (*proxy, error) {
	x := &proxy{Proxy: p, run: run, learned: learned, ended: make(chan struct{}),
		have: map[string]map[string]string{}, refs: map[string]map[string][]translate.Ref{}, wanted: map[translate.Ref]int{}}
	for _, t := range translate.Types {
		x.have[t], x.refs[t] = map[string]string{}, map[string][]translate.Ref{}
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
	x.stream, err = dialStream(ctx, address, discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName,
		identity.ClientConfig(svid, ca, identity.Exactly(server)), &x.wire)
	if err != nil {
		return nil, err
	}
	node := &corev3.Node{Id: p.ID(), Cluster: string(p.Cluster)}
	for _, t := range []string{translate.TypeCluster, translate.TypeListener} {
		if err := x.stream.send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: t}); err != nil {
			return nil, errors.Join(err, x.stream.close())
		}
		node = nil
	}
	go x.receive()
	return x, nil
}

// close ends the stream and waits for that.
func (x *proxy) close() {
	_ = x.stream.close()
	<-x.ended
}

func (x *proxy) receive() {
	defer close(x.ended)
	for {
		raw, err := x.stream.receive()
		if err != nil {
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
			_ = x.stream.close()
			return
		}
	}
}

// take notes a response, subscribes to what it refers to, and acknowledges it.
func (x *proxy) take(resp discovery) error {
	if err := x.note(resp); err != nil {
		return err
	}
	return x.stream.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resp.typeURL, ResponseNonce: resp.nonce})
}

func (x *proxy) note(resp discovery) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	have := x.have[resp.typeURL]
	for _, name := range resp.removed {
		delete(have, name)
	}
	for _, r := range resp.resources {
		have[r.name] = r.version
	}
	if k, _ := translate.KindOf(resp.typeURL); k.OnDemand() { // they make Envoy ask for nothing
		return nil
	}
	before := map[translate.Ref]bool{}
	count := func(r translate.Ref, by int) {
		if _, seen := before[r]; !seen {
			before[r] = x.wanted[r] > 0
		}
		if x.wanted[r] += by; x.wanted[r] == 0 {
			delete(x.wanted, r)
		}
	}
	replace := func(name string, refs []translate.Ref) {
		for _, r := range refs {
			count(r, 1)
		}
		for _, r := range x.refs[resp.typeURL][name] {
			count(r, -1)
		}
		if len(refs) > 0 {
			x.refs[resp.typeURL][name] = refs
		} else {
			delete(x.refs[resp.typeURL], name)
		}
	}
	for _, r := range resp.resources {
		refs, err := x.learned.of(resp.typeURL, r)
		if err != nil {
			return err
		}
		replace(r.name, refs)
	}
	for _, name := range resp.removed {
		replace(name, nil)
	}
	subscribe, unsubscribe := map[string][]string{}, map[string][]string{}
	for r, was := range before {
		switch is := x.wanted[r] > 0; {
		case is && !was:
			subscribe[r.Kind.URL()] = append(subscribe[r.Kind.URL()], r.Name)
		case was && !is:
			unsubscribe[r.Kind.URL()] = append(unsubscribe[r.Kind.URL()], r.Name)
			delete(x.have[r.Kind.URL()], r.Name)
		}
	}
	for _, t := range translate.Types {
		if len(subscribe[t])+len(unsubscribe[t]) == 0 {
			continue
		}
		slices.Sort(subscribe[t])
		slices.Sort(unsubscribe[t])
		if err := x.stream.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: t, ResourceNamesSubscribe: subscribe[t], ResourceNamesUnsubscribe: unsubscribe[t]}); err != nil {
			return err
		}
	}
	return nil
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
