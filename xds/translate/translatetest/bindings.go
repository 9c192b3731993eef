// Package translatetest helps tests of what Envoys are given.
package translatetest

import (
	"net/netip"
	"sync"

	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// Bindings gives every listener of one proxy an address of its own, whoever asks.
type Bindings struct {
	address func(n int) netip.AddrPort
	mu      sync.Mutex
	at      map[string]netip.AddrPort
}

// NewBindings takes what makes the nth address, from 1.
func NewBindings(address func(n int) netip.AddrPort) *Bindings {
	return &Bindings{address: address, at: map[string]netip.AddrPort{}}
}

// Of is the address of the listener of a name.
func (b *Bindings) Of(name string) netip.AddrPort {
	b.mu.Lock()
	defer b.mu.Unlock()
	a, ok := b.at[name]
	if !ok {
		a = b.address(len(b.at) + 1)
		b.at[name] = a
	}
	return a
}

// Frontend is as in translate.Bindings.
func (b *Bindings) Frontend(_ translate.Proxy, key resolve.FrontendKey, t translate.Transport, port int32) (netip.AddrPort, bool) {
	return b.Of(translate.FrontendListenerName(key, t, port)), true
}

// Gateway is as in translate.Bindings.
func (b *Bindings) Gateway(_ translate.Proxy, t translate.Transport, port int32) (netip.AddrPort, bool) {
	return b.Of(translate.GatewayListenerName(t, port)), true
}

// Crossing is as in translate.Bindings.
func (b *Bindings) Crossing(translate.Proxy) (netip.AddrPort, bool) { return b.Of("crossing"), true }

// Entry is as in translate.Bindings.
func (b *Bindings) Entry(_ translate.Proxy, key resolve.FrontendKey, t translate.Transport, port int32) (netip.AddrPort, bool) {
	return b.Of("entry/" + translate.FrontendListenerName(key, t, port)), true
}
