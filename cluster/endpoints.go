package cluster

import "net/netip"

// EndpointSlice is a discoveryv1.EndpointSlice packed for memory: what
// resolution needs and no more. Immutable.
type EndpointSlice struct {
	Service   string // name of the Service it belongs to, same namespace
	Ports     []EndpointPort
	Endpoints []Endpoint
	// Counts, if not nil, stands in the place of Endpoints, which are empty then:
	// the slice of a cluster whose endpoints nobody who reads this can reach by
	// their addresses. A Source never sets it.
	Counts *EndpointCounts
}

// EndpointCounts says how many endpoints are in which State. One that is in two
// slices, as happens while it moves from one to the other, counts in both.
type EndpointCounts struct{ Ready, NotReady, Leaving uint32 }

// Count tells how many endpoints the slice has, by its Endpoints or its Counts.
func (s *EndpointSlice) Count() EndpointCounts {
	if s.Counts != nil {
		return *s.Counts
	}
	var c EndpointCounts
	for i := range s.Endpoints {
		switch s.Endpoints[i].State() {
		case EndpointReady:
			c.Ready++
		case EndpointNotReady:
			c.NotReady++
		case EndpointLeaving:
			c.Leaving++
		}
	}
	return c
}

// Counted is the slice with Counts alone: no address, pod or hostname.
func (s *EndpointSlice) Counted() *EndpointSlice {
	c := s.Count()
	return &EndpointSlice{Service: s.Service, Ports: s.Ports, Counts: &c}
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
	// Node is where it runs. It never leaves its cluster: nobody else needs it.
	Node  string
	Ready bool // unset in the API means true
	// Serving and Terminating as in the API; a terminating endpoint is never Ready.
	Serving     bool
	Terminating bool
}

// EndpointState is what an endpoint can do.
type EndpointState int

// The states of an endpoint, the more useful the higher.
const (
	EndpointGone     EndpointState = iota // terminating, and serves no more
	EndpointLeaving                       // terminating, but still serving
	EndpointNotReady                      // expected to be ready some time
	EndpointReady
)

// State sums up the conditions.
func (e *Endpoint) State() EndpointState {
	switch {
	case e.Terminating && e.Serving:
		return EndpointLeaving
	case e.Terminating:
		return EndpointGone
	case e.Ready:
		return EndpointReady
	}
	return EndpointNotReady
}
