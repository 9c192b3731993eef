// Package loopback hands out addresses of 127.0.0.0/8 to things that would have
// an address of their own in a real cluster: pods, Services as a sidecar's
// client sees them, and Gateways. It lets clusters that are folders run on one
// machine without root.
//
// A Pool owns whole /16 blocks. It claims a block by listening on the block's
// last address, so two processes (or tests) never hand out the same address. The
// claims go with the process.
//
// An address stays with its key until it is released, and a released address
// is the last to be used again.
package loopback

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// claimPort is where a Pool listens to claim a block. No client ever calls it.
const claimPort = 15909

const (
	firstBlock = 16 // lower ones are left to people
	lastBlock  = 254
	perBlock   = 1<<16 - 512 // the first and the last 256 of a block stay unused
)

// Pool hands out loopback addresses. Use it from any goroutine.
type Pool struct {
	mu     sync.Mutex
	claims []net.Listener
	block  int // second octet of the block in use
	next   int // next unused address in it
	byKey  map[string]netip.Addr
	free   []netip.Addr
}

// NewPool returns an empty Pool; blocks are claimed when they are needed.
func NewPool() *Pool {
	return &Pool{block: firstBlock - 1, next: perBlock, byKey: map[string]netip.Addr{}}
}

// Close gives all blocks back. No address may be in use any more.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, l := range p.claims {
		errs = append(errs, l.Close())
	}
	p.claims, p.block, p.next, p.byKey, p.free = nil, lastBlock, perBlock, map[string]netip.Addr{}, nil
	return errors.Join(errs...)
}

// Addr gives the address of a key, the same one until it is released.
func (p *Pool) Addr(key string) (netip.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a, ok := p.byKey[key]; ok {
		return a, nil
	}
	a, err := p.take()
	if err != nil {
		return netip.Addr{}, err
	}
	p.byKey[key] = a
	return a, nil
}

// Release gives the address of a key back.
func (p *Pool) Release(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a, ok := p.byKey[key]; ok {
		delete(p.byKey, key)
		p.free = append(p.free, a)
	}
}

func (p *Pool) take() (netip.Addr, error) {
	// Addresses that were used lately come last: connections to their former
	// owner may still be on the way.
	if p.next == perBlock && len(p.free) > perBlock/2 {
		a := p.free[0]
		p.free = p.free[1:]
		return a, nil
	}
	for p.next == perBlock {
		p.block++
		if p.block > lastBlock {
			if len(p.free) > 0 {
				p.block--
				a := p.free[0]
				p.free = p.free[1:]
				return a, nil
			}
			return netip.Addr{}, errors.New("no free block of loopback addresses (127.16.0.0 to 127.254.255.255): other instances hold them all, stop one")
		}
		l, err := net.Listen("tcp4", fmt.Sprintf("127.%d.255.254:%d", p.block, claimPort))
		if err != nil {
			continue // another process's
		}
		p.claims = append(p.claims, l)
		p.next = 0
	}
	n := 256 + p.next
	p.next++
	return netip.AddrFrom4([4]byte{127, byte(p.block), byte(n >> 8), byte(n)}), nil
}

// LowestPort is the first port that this process may bind; lower ones have to be
// moved (MovedPort). A process may hold the capability to bind all without being
// root, or lack it although it is, so a low port is tried.
func LowestPort() uint16 {
	start := 1024
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			start = n
		}
	}
	for port := start - 1; port > 0 && port > start-20; port-- {
		l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			_ = l.Close()
			return 1
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return uint16(min(max(start, 1), 65535))
}

// MovedPort is the port that stands in for one that may not be bound.
func MovedPort(port uint16) uint16 { return port + 10000 }
