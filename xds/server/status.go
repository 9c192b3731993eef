package server

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// ProxyStatus is how far one node has come. It is a value: nobody changes it.
type ProxyStatus struct {
	Proxy string // as Authorize named it
	Node  string // the node's id; "": no node of this proxy has ever connected
	Envoy string // version of the node's Envoy; "": it did not say
	// Connected says whether a stream is open, Since when it began; else when the last
	// one ended.
	Connected bool
	Since     time.Time
	// Revision is that of the newest Set for this proxy; Acked is the newest revision
	// such that the node has acknowledged everything that it and those before call for.
	Revision, Acked int64
	// Lag is how long the newest acknowledgement of a revision took, from its Stamp.
	Lag   time.Duration
	Types []TypeStatus // in the order of translate.Types
	// Rejected lists what the node rejected, or what was held back because it would;
	// in order of type and name, at most 100. RejectedTotal is how many there are.
	Rejected      []Rejection
	RejectedTotal int
	BytesSent     uint64
	// Overflows is how often the backlog of changes for the node was given up for a
	// comparison of everything.
	Overflows uint64
}

// InSync reports whether the node has acknowledged all that it is to have.
func (p ProxyStatus) InSync() bool {
	return p.Connected && p.Revision == p.Acked && p.RejectedTotal == 0
}

// Behind counts the connected nodes of a proxy that have still to answer for something that
// was Set for it last. One that rejects has answered.
func (s *Server) Behind(proxyID string) (nodes int) {
	s.mu.Lock()
	p := s.proxies[proxyID]
	s.mu.Unlock()
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.nodes {
		pending := 0
		for _, t := range n.status.types {
			pending += t.Pending
		}
		// What changes nothing for the node waits in its mailbox.
		current := n.applied == p.seq || n.box.idle && n.applied == n.taken
		if n.status.Connected && (!current || pending > 0) {
			nodes++
		}
	}
	return nodes
}

// TypeStatus is the part of a ProxyStatus about one type of resource.
type TypeStatus struct {
	TypeURL string
	// Sent and Acked are the versions of the set of resources that the node was sent
	// and that it acknowledged: hashes over names and contents, the same in every process.
	Sent, Acked string
	Resources   int  // acknowledged and held
	Subscribed  int  // by name
	Wildcard    bool // all are subscribed to
	InFlight    int  // resources of the response that is not acknowledged
	Pending     int  // resources still to be acknowledged, those in flight included
	Deferred    int  // removals that wait until nothing refers to the resource
	// Counts of the present stream.
	Responses, Acks, Nacks, Bytes uint64
}

// Rejection is a resource that a node does not take. It keeps the last good version.
type Rejection struct {
	TypeURL, Name string
	Subject       string // the object that it comes from
	Version       string // "": its removal was rejected
	Message       string // Envoy's, or that of the check before sending
	HeldBack      bool   // it was not sent, since it breaks Envoy's rules
	Attempts      int
	At            time.Time // of the last attempt
	RetryAt       time.Time // zero: when its content changes
}

func (r *Rejection) String() string {
	return fmt.Sprintf("%s %s (%s): %s", r.TypeURL[strings.LastIndexByte(r.TypeURL, '.')+1:], r.Name, r.Subject, r.Message)
}

const maxRejected = 100

func setVersion(sum uint64) string { return fmt.Sprintf("%016x", sum) }

// published is a ProxyStatus that nobody has asked for yet: a stream publishes
// after each step, so what takes writing out is left as numbers.
type published struct {
	ProxyStatus // without Types
	told        bool
	types       [kinds]struct {
		TypeStatus           // without the versions,
		held, offered uint64 // whose sums these are
	}
}

// written is the status as it is shown.
func (p *published) written() ProxyStatus {
	out := p.ProxyStatus
	if !p.told {
		return out
	}
	out.Types = make([]TypeStatus, 0, kinds)
	for k, t := range p.types {
		t.TypeURL, t.Sent, t.Acked = kind(k).URL(), setVersion(t.held+t.offered), setVersion(t.held)
		out.Types = append(out.Types, t.TypeStatus)
	}
	return out
}

// status writes the ledger's part of the status.
func (l *ledger) status(out *published) {
	out.told = true
	out.Revision, out.Acked = l.marks.newest.Revision, l.marks.acked()
	out.RejectedTotal, out.BytesSent = len(l.rejected), 0
	if l.res == nil {
		out.Acked = 0
	}
	if l.rejectedChanged {
		out.Rejected, l.rejectedChanged = l.rejections(), false
	}
	for k, t := range l.types {
		s := TypeStatus{
			Subscribed: t.named, Wildcard: t.wildcard, Resources: t.holds,
			Pending: len(t.fresh), Responses: t.responses, Acks: t.acks, Nacks: t.nacks, Bytes: t.bytes,
		}
		if t.flight != nil {
			s.InFlight = len(t.flight.entries)
			s.Pending += s.InFlight
		}
		for _, group := range t.suspects {
			s.Pending += len(group)
		}
		for _, e := range t.parked {
			if e.deferred {
				s.Deferred++
			} else {
				s.Pending++
			}
		}
		out.BytesSent += t.bytes
		to := &out.types[k]
		to.TypeStatus, to.held, to.offered = s, t.heldSum, t.offerSum
	}
}

func (l *ledger) rejections() []Rejection {
	entries := make([]*entry, 0, len(l.rejected))
	for e := range l.rejected {
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b *entry) int { return a.Compare(b.key) })
	out := make([]Rejection, 0, min(len(entries), maxRejected))
	for _, e := range entries[:min(len(entries), maxRejected)] {
		out = append(out, *e.rejection)
	}
	return out
}
