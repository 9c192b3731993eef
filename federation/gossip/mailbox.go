package gossip

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/memberlist"
)

// mailbox takes memberlist's callbacks, some of which come under memberlist's
// node lock: it copies, enqueues and returns, and calls nothing of memberlist's
// while it holds its own lock. For each name only the newest event and the
// newest state wait, so it is bounded by MaxMembers however slow its reader is.
type mailbox struct {
	self    string
	metrics *metrics
	log     *limitedLog
	queue   *memberlist.TransmitLimitedQueue

	mu     sync.Mutex
	living map[string]bool // the names that memberlist holds alive
	events map[string]event
	states map[string]*state
	wake   chan struct{} // 1 buffered: something waits

	// full is what LocalState gives, set by the table's owner.
	full atomic.Pointer[[]byte]
}

// event is the newest of memberlist about a name.
type event struct {
	alive bool
	addr  netip.AddrPort
}

func newMailbox(self string, m *metrics, l *limitedLog, retransmitMult int) *mailbox {
	b := &mailbox{self: self, metrics: m, log: l, living: map[string]bool{}, events: map[string]event{}, states: map[string]*state{}, wake: make(chan struct{}, 1)}
	b.queue = &memberlist.TransmitLimitedQueue{RetransmitMult: retransmitMult, NumNodes: func() int {
		b.mu.Lock()
		defer b.mu.Unlock()
		return max(1, len(b.living))
	}}
	return b
}

// take empties the mailbox.
func (b *mailbox) take() (map[string]event, map[string]*state) {
	b.mu.Lock()
	defer b.mu.Unlock()
	events, states := b.events, b.states
	b.events, b.states = map[string]event{}, map[string]*state{}
	return events, states
}

func (b *mailbox) ring() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// broadcast sends a member's state to all, in place of an older one that has not gone out.
func (b *mailbox) broadcast(name string, msg []byte) {
	b.queue.QueueBroadcast(&stateBroadcast{name: name, msg: msg})
}

type stateBroadcast struct {
	name string
	msg  []byte
}

// Name makes a newer broadcast replace an older one of the same member.
func (s *stateBroadcast) Name() string { return s.name }

// Invalidates isn't asked of a named broadcast.
func (s *stateBroadcast) Invalidates(memberlist.Broadcast) bool { return false }

// Message is what goes out.
func (s *stateBroadcast) Message() []byte { return s.msg }

// Finished is of no interest.
func (s *stateBroadcast) Finished() {}

// NotifyAlive admits members whose names can be read, up to MaxMembers. Under
// memberlist's lock.
func (b *mailbox) NotifyAlive(n *memberlist.Node) error {
	if _, _, err := parseName(n.Name); err != nil {
		b.metrics.reject("name")
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.living) >= MaxMembers && !b.living[n.Name] {
		b.metrics.reject("members")
		return fmt.Errorf("there are %d members already", MaxMembers)
	}
	return nil
}

// NotifyJoin is called under memberlist's lock.
func (b *mailbox) NotifyJoin(n *memberlist.Node) { b.put(n, true) }

// NotifyUpdate is called under memberlist's lock.
func (b *mailbox) NotifyUpdate(n *memberlist.Node) { b.put(n, true) }

// NotifyLeave is called under memberlist's lock, for the dead as for those who leave.
func (b *mailbox) NotifyLeave(n *memberlist.Node) { b.put(n, false) }

func (b *mailbox) put(n *memberlist.Node, alive bool) {
	addr, _ := netip.AddrFromSlice(n.Addr)
	e := event{alive: alive, addr: netip.AddrPortFrom(addr.Unmap(), n.Port)}
	b.mu.Lock()
	if alive {
		b.living[n.Name] = true
	} else {
		delete(b.living, n.Name)
	}
	// The living are at most MaxMembers; as many again may have died since the last take.
	if _, ok := b.events[n.Name]; ok || len(b.events) < 2*MaxMembers {
		b.events[n.Name] = e
	}
	b.mu.Unlock()
	b.ring()
}

// NotifyConflict is called under memberlist's lock when a name comes from two addresses.
func (b *mailbox) NotifyConflict(_, _ *memberlist.Node) { b.metrics.conflict() }

// NodeMeta is empty: the name says what a member is.
func (b *mailbox) NodeMeta(int) []byte { return nil }

// NotifyMsg takes a state that was broadcast.
func (b *mailbox) NotifyMsg(msg []byte) {
	s, err := decodeState(msg)
	if err != nil {
		b.malformed(err)
		return
	}
	b.putStates(s)
}

// GetBroadcasts gives what is to be sent with the next packet.
func (b *mailbox) GetBroadcasts(overhead, limit int) [][]byte {
	return b.queue.GetBroadcasts(overhead, limit)
}

// LocalState gives all that is known, for an exchange over TCP.
func (b *mailbox) LocalState(bool) []byte {
	if p := b.full.Load(); p != nil {
		return *p
	}
	return nil
}

// MergeRemoteState takes all that another knows.
func (b *mailbox) MergeRemoteState(buf []byte, _ bool) {
	if len(buf) == 0 {
		return
	}
	states, err := decodeFull(buf, MaxMembers)
	if err != nil {
		b.malformed(err)
	}
	b.putStates(states...)
}

func (b *mailbox) putStates(states ...*state) {
	b.mu.Lock()
	for _, s := range states {
		if old, ok := b.states[s.name]; ok && !s.newer(old) || !ok && len(b.states) >= MaxMembers {
			continue
		}
		b.states[s.name] = s
	}
	b.mu.Unlock()
	b.ring()
}

func (b *mailbox) malformed(err error) {
	b.metrics.reject("malformed")
	b.log.logger().Printf("[WARN] dropped a message: %v", err)
}
