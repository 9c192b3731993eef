package incluster

import (
	"net/netip"

	"github.com/causeway-mesh/causeway/cluster/provision"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// bindings say where Envoys listen in their pods: on all addresses, which are the
// pod's own. It implements translate.Bindings.
type bindings struct {
	addr     netip.Addr
	crossing uint16
	// entries are where crossing gateways take clients without a sidecar.
	entries interface {
		Entry(p translate.Proxy, key resolve.FrontendKey, t translate.Transport, port int32) (netip.AddrPort, bool)
	}
}

// Frontend implements translate.Bindings: there are no sidecars in pods yet.
func (b *bindings) Frontend(translate.Proxy, resolve.FrontendKey, translate.Transport, int32) (netip.AddrPort, bool) {
	return netip.AddrPort{}, false
}

// Gateway implements translate.Bindings.
func (b *bindings) Gateway(_ translate.Proxy, _ translate.Transport, port int32) (netip.AddrPort, bool) {
	target, ok := provision.TargetPort(port)
	if !ok {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(b.addr, uint16(target)), true
}

// Crossing implements translate.Bindings.
func (b *bindings) Crossing(translate.Proxy) (netip.AddrPort, bool) {
	return netip.AddrPortFrom(b.addr, b.crossing), true
}

// Entry implements translate.Bindings.
func (b *bindings) Entry(p translate.Proxy, key resolve.FrontendKey, t translate.Transport, port int32) (netip.AddrPort, bool) {
	at, ok := b.entries.Entry(p, key, t, port)
	return netip.AddrPortFrom(b.addr, at.Port()), ok
}
