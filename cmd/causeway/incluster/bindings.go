package incluster

import (
	"net/netip"

	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// bindings say where Envoys listen in their pods: on all addresses, which are the
// pod's own. It implements translate.Bindings.
type bindings struct {
	addr     netip.Addr
	crossing uint16
	// entry gives the port of a crossing gateway for clients without a sidecar.
	entry func(key resolve.FrontendKey, t translate.Transport, port int32) (uint16, bool)
}

// Frontend implements translate.Bindings: there are no sidecars in pods yet.
func (b *bindings) Frontend(translate.Proxy, resolve.FrontendKey, translate.Transport, int32) (netip.AddrPort, bool) {
	return netip.AddrPort{}, false
}

// Gateway implements translate.Bindings.
func (b *bindings) Gateway(_ translate.Proxy, _ translate.Transport, port int32) (netip.AddrPort, bool) {
	if port < 1 || port > 65535 {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(b.addr, uint16(port)), true
}

// Crossing implements translate.Bindings.
func (b *bindings) Crossing(translate.Proxy) (netip.AddrPort, bool) {
	return netip.AddrPortFrom(b.addr, b.crossing), true
}

// Entry implements translate.Bindings.
func (b *bindings) Entry(_ translate.Proxy, key resolve.FrontendKey, t translate.Transport, port int32) (netip.AddrPort, bool) {
	p, ok := b.entry(key, t, port)
	return netip.AddrPortFrom(b.addr, p), ok
}
