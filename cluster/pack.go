package cluster

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// PackPort packs a port of an EndpointSlice. It is false where the number is
// missing or can't be one: the API reads a missing number as "any port", which
// nobody can route to.
func PackPort(p *discoveryv1.EndpointPort) (EndpointPort, bool) {
	e := EndpointPort{Protocol: string(corev1.ProtocolTCP)}
	if p.Name != nil {
		e.Name = *p.Name
	}
	if p.Protocol != nil {
		e.Protocol = string(*p.Protocol)
	}
	if p.AppProtocol != nil {
		e.AppProtocol = *p.AppProtocol
	}
	if p.Port == nil || *p.Port < 1 || *p.Port > 65535 {
		return e, false
	}
	e.Port = uint16(*p.Port)
	return e, true
}

// PackEndpoint packs an endpoint without its addresses, and gives conditions that
// aren't set the meaning that the API gives them.
func PackEndpoint(e *discoveryv1.Endpoint) Endpoint {
	out := Endpoint{Ready: e.Conditions.Ready == nil || *e.Conditions.Ready}
	out.Serving = out.Ready
	if e.Conditions.Serving != nil {
		out.Serving = *e.Conditions.Serving
	}
	if e.Conditions.Terminating != nil && *e.Conditions.Terminating {
		out.Terminating, out.Ready = true, false
	}
	if e.TargetRef != nil && e.TargetRef.Kind == "Pod" {
		out.Pod = e.TargetRef.Name
	}
	if e.Hostname != nil {
		out.Hostname = *e.Hostname
	}
	if e.Zone != nil {
		out.Zone = *e.Zone
	}
	if e.NodeName != nil {
		out.Node = *e.NodeName
	}
	return out
}

// ParseEndpointAddress reads an address of an EndpointSlice. Loopback addresses,
// which an API server refuses, are what a cluster on one machine is made of.
func ParseEndpointAddress(text string, family discoveryv1.AddressType) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	switch {
	case err != nil, addr.Zone() != "", addr.Is4In6():
		return netip.Addr{}, fmt.Errorf("must be an %s address", family)
	case addr.Is4() != (family == discoveryv1.AddressTypeIPv4):
		return netip.Addr{}, fmt.Errorf("must be an %s address, as addressType says", family)
	case addr.IsUnspecified(), addr.IsMulticast():
		return netip.Addr{}, fmt.Errorf("must be the address of one endpoint")
	}
	return addr, nil
}
