package up

import (
	"log/slog"
	"net"
	"net/netip"
	"sync"

	"github.com/causeway-mesh/causeway/cluster/provision/loopback"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// bindings gives every proxy addresses of its own on loopback: each frontend
// that a sidecar offers gets one, as it has a ClusterIP in a real cluster, and
// each gateway one. Ports that may not be bound, or that somebody else holds,
// are moved. What was bound stays bound for the life of the process, so
// translation gets the same answer each time. It implements translate.Bindings
// and may be used from any goroutine.
type bindings struct {
	pool *loopback.Pool
	low  uint16 // first port that may be bound
	log  *slog.Logger

	mu    sync.Mutex
	bound map[bindKey]netip.AddrPort
	used  map[boundSocket]bool
}

// socket is one of an address.
type socket struct {
	transport translate.Transport
	port      int32
}

type bindKey struct {
	proxy string
	key   resolve.FrontendKey // zero for gateways
	socket
}

// boundSocket is a socket at its address.
type boundSocket struct {
	transport translate.Transport
	at        netip.AddrPort
}

// owner is the key of the address in the pool: one for each frontend of a
// sidecar, one for each gateway.
func (k bindKey) owner() string { return k.proxy + " " + k.key.String() }

func newBindings(pool *loopback.Pool, low uint16, log *slog.Logger) *bindings {
	return &bindings{pool: pool, low: low, log: log, bound: map[bindKey]netip.AddrPort{}, used: map[boundSocket]bool{}}
}

// Frontend implements translate.Bindings.
func (b *bindings) Frontend(p translate.Proxy, key resolve.FrontendKey, t translate.Transport, port int32) (netip.AddrPort, bool) {
	return b.bind(bindKey{p.ID(), key, socket{t, port}})
}

// Gateway implements translate.Bindings.
func (b *bindings) Gateway(p translate.Proxy, t translate.Transport, port int32) (netip.AddrPort, bool) {
	return b.bind(bindKey{proxy: p.ID(), socket: socket{t, port}})
}

// crossingPort is the one port that all crossing gateways listen on, as a
// Service of type LoadBalancer would give them.
const crossingPort = 15443

// Crossing implements translate.Bindings.
func (b *bindings) Crossing(p translate.Proxy) (netip.AddrPort, bool) {
	return b.bind(bindKey{proxy: p.ID(), socket: socket{translate.TransportTCP, crossingPort}})
}

// Entry implements translate.Bindings: every client has a sidecar.
func (b *bindings) Entry(translate.Proxy, resolve.FrontendKey, translate.Transport, int32) (netip.AddrPort, bool) {
	return netip.AddrPort{}, false
}

func (b *bindings) bind(k bindKey) (netip.AddrPort, bool) {
	if k.port < 1 || k.port > 65535 {
		return netip.AddrPort{}, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if a, ok := b.bound[k]; ok {
		return a, true
	}
	addr, err := b.pool.Addr(k.owner())
	if err != nil {
		b.log.Error("no address for a listener", "owner", k.owner(), "transport", k.transport, "port", k.port, "error", err)
		return netip.AddrPort{}, false
	}
	port, ok := b.place(addr, k.transport, uint16(k.port))
	if !ok {
		b.log.Error("no port for a listener: the wanted one and its stand-ins are taken", "owner", k.owner(), "transport", k.transport, "port", k.port, "address", addr)
		return netip.AddrPort{}, false
	}
	switch {
	case uint16(k.port) >= b.low && port != uint16(k.port):
		b.log.Warn("a listener's port is taken by somebody else; it is moved", "owner", k.owner(), "transport", k.transport, "port", k.port, "to", port)
	case port != uint16(k.port):
		b.log.Info("listener port moved", "owner", k.owner(), "transport", k.transport, "port", k.port, "to", port)
	}
	at := netip.AddrPortFrom(addr, port)
	b.bound[k], b.used[boundSocket{k.transport, at}] = at, true
	return at, true
}

// place finds the port to bind: the wanted one, or the next that is 10000 higher
// if the wanted one may not be bound or is taken.
func (b *bindings) place(addr netip.Addr, t translate.Transport, want uint16) (uint16, bool) {
	port := int(want)
	if want < b.low {
		port = int(loopback.MovedPort(want))
	}
	for ; port <= 65535; port += 10000 {
		at := netip.AddrPortFrom(addr, uint16(port))
		if !b.used[boundSocket{t, at}] && bindable(t, at) {
			return uint16(port), true
		}
	}
	return 0, false
}

// bindable reports whether nobody listens there, on the address itself or on all.
func bindable(t translate.Transport, at netip.AddrPort) bool {
	if t == translate.TransportUDP {
		c, err := net.ListenPacket("udp4", at.String())
		if err != nil {
			return false
		}
		_ = c.Close()
		return true
	}
	l, err := net.Listen("tcp4", at.String())
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}

// release gives all addresses back. Nothing may listen there any more.
func (b *bindings) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k := range b.bound {
		b.pool.Release(k.owner())
	}
	b.bound, b.used = map[bindKey]netip.AddrPort{}, map[boundSocket]bool{}
}
