package cluster

import "net/netip"

// EndpointSlice is a discoveryv1.EndpointSlice packed for memory: what
// resolution needs and no more. Immutable.
type EndpointSlice struct {
	Service   string // name of the Service it belongs to, same namespace
	Ports     []EndpointPort
	Endpoints []Endpoint
}

// EndpointPort is a port of every endpoint in the slice.
type EndpointPort struct {
	Name        string // joins with the Service's port name
	Port        uint16
	Protocol    string // TCP, UDP or SCTP
	AppProtocol string
}

// Endpoint is one address with its state.
type Endpoint struct {
	Addr     netip.Addr
	Pod      string // targetRef's name, if it is a Pod
	Hostname string
	Zone     string
	Ready    bool // unset in the API means true
	// Serving and Terminating as in the API; a terminating endpoint is never Ready.
	Serving     bool
	Terminating bool
}
