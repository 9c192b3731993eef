package lab

import (
	"fmt"
	"net/netip"
)

// A machine has room for maxLabs labs of MaxClusters clusters, which know nothing of
// each other: each has a slot, from which all its names and addresses follow.
const (
	maxLabs = 16
	// MaxClusters is the most that a lab can have.
	MaxClusters = 9
)

// slot is a lab's place on the machine, from 0.
type slot int

// The machine has a leg in each lab: the link, with the address machine4. Its other end,
// and a leg of each node, are ports of a switch in the wire, a network namespace of its own.
func (s slot) link() string         { return fmt.Sprintf("cwlab%d", int(s)) }
func (s slot) wire() string         { return fmt.Sprintf("cwlab%d-wire", int(s)) }
func (s slot) address4() netip.Addr { return v4(s, 0, 1) }
func (s slot) address6() netip.Addr { return v6(s, 0, 1) }

// member is cluster n of a lab, from 1; 0 is the machine.
type member struct {
	slot slot
	n    int
}

// name is that of the network namespace, of the port of the switch, and of all else that
// the cluster needs a name for on the machine.
func (m member) name() string {
	if m.n == 0 {
		return m.slot.link() + "-0"
	}
	return fmt.Sprintf("cwlab%d-%d", int(m.slot), m.n)
}

func (m member) netns() string { return netnsPath(m.name()) }

func (m member) node4() netip.Addr { return v4(m.slot, 0, 10+m.n) }
func (m member) node6() netip.Addr { return v6(m.slot, 0, 10+m.n) }

// Of the addresses of a lab, 10.(192+slot).0.0/16 and fd43:ca05:slot::/48, the nodes
// have the first /24 and /64, and each cluster what begins with 16 times its number:
// a half for pods, and the first /24 and /112 of the other half for load balancers.
func (m member) pods4() netip.Prefix      { return netip.PrefixFrom(v4(m.slot, 16*m.n, 0), 21) }
func (m member) pods6() netip.Prefix      { return netip.PrefixFrom(v6(m.slot, 16*m.n, 0), 64) }
func (m member) balancers4() netip.Prefix { return netip.PrefixFrom(v4(m.slot, 16*m.n+8, 0), 24) }
func (m member) balancers6() netip.Prefix { return netip.PrefixFrom(v6(m.slot, 16*m.n+8, 0), 112) }

func v4(s slot, third, last int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(192 + s), byte(third), byte(last)})
}

func v6(s slot, fourth, last int) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfd, 0x43, 0xca, 0x05, 5: byte(s), 7: byte(fourth), 15: byte(last)})
}

func netnsPath(name string) string { return "/run/netns/" + name }
