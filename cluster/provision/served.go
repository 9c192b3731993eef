package provision

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	// dialTimeout bounds the try whether a gateway takes connections at an entry port. A
	// port that nobody listens on refuses at once.
	dialTimeout = 250 * time.Millisecond
	// udpSettles is how long after a UDP entry is recorded it counts as served: nothing
	// tells whether anybody listens for datagrams, and a datagram of ours would reach the
	// service.
	udpSettles = time.Second
	dialers    = 16
)

// place is an entry port of one gateway.
type place struct {
	at netip.Addr
	socket
}

// served remembers at which entry ports gateways take connections. A gateway that has
// ever taken one at a port goes on to, for as long as both are there: Envoy keeps its
// listeners while they are wanted. Its methods may be called from any goroutine.
type served struct {
	dial func(ctx context.Context, at netip.AddrPort) error

	mu sync.Mutex
	of map[Name]*tried
}

// tried is what is known of an import's entry ports.
type tried struct {
	known map[place]bool
	asked map[place]time.Time // since when, for UDP
}

func newServed() *served {
	return &served{of: map[Name]*tried{}, dial: func(ctx context.Context, at netip.AddrPort) error {
		d := net.Dialer{Timeout: dialTimeout}
		c, err := d.DialContext(ctx, "tcp", at.String())
		if err == nil {
			_ = c.Close()
		}
		return err
	}}
}

// is reports whether a gateway takes connections at a port, as far as learn found out.
func (s *served) is(of Name, g Crossing, sock socket) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.of[of]
	return t != nil && t.known[place{g.Addr, sock}]
}

// learn tries the entry ports of an import at the gateways that are ready, and forgets
// all others that it had.
func (s *served) learn(ctx context.Context, of Name, gateways []Crossing, socks []socket) {
	var todo []place
	s.mu.Lock()
	next := &tried{known: map[place]bool{}, asked: map[place]time.Time{}}
	old := s.of[of]
	if old == nil {
		old = next
	}
	for _, g := range gateways {
		for _, sock := range socks {
			p := place{g.Addr, sock}
			switch {
			case old.known[p]:
				next.known[p] = true
			case !g.Ready:
			case sock.protocol == corev1.ProtocolUDP:
				since, ok := old.asked[p]
				if !ok {
					since = time.Now()
				}
				next.asked[p] = since
				if time.Since(since) >= udpSettles {
					next.known[p] = true
				}
			default:
				todo = append(todo, p)
			}
		}
	}
	s.of[of] = next
	s.mu.Unlock()
	var wg sync.WaitGroup
	slots := make(chan struct{}, dialers)
	for _, p := range todo {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if s.dial(ctx, netip.AddrPortFrom(p.at, p.number)) == nil {
				s.mu.Lock()
				next.known[p] = true
				s.mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// forget drops what is known of an import that is gone.
func (s *served) forget(of Name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.of, of)
}
