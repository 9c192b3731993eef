package provision

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// A port counts once a connection was taken, and not before; a gateway that isn't ready is
// not asked; what was found out is forgotten with the gateway.
func TestServed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	held, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	number := uint16(l.Addr().(*net.TCPAddr).Port)
	open := socket{corev1.ProtocolTCP, number}
	closed := socket{corev1.ProtocolTCP, uint16(held.Addr().(*net.TCPAddr).Port)}
	_ = held.Close()
	s := newServed()
	here, unready := gateway("127.0.0.1"), Crossing{Addr: netip.MustParseAddr("127.0.0.3")}
	s.learn(t.Context(), catalog, []Crossing{here, unready}, []socket{open, closed})
	equal(t, "open", s.is(catalog, here, open), true)
	equal(t, "closed", s.is(catalog, here, closed), false)
	equal(t, "not ready", s.is(catalog, unready, open), false)
	equal(t, "another import's", s.is(Name{"shop", "other"}, here, open), false)
	_ = l.Close()
	s.learn(t.Context(), catalog, []Crossing{here}, []socket{open})
	equal(t, "it was open once", s.is(catalog, here, open), true)
	s.learn(t.Context(), catalog, nil, []socket{open})
	s.learn(t.Context(), catalog, []Crossing{here}, []socket{open})
	equal(t, "the gateway was gone meanwhile", s.is(catalog, here, open), false)
}

// Datagrams count as served a while after they were asked for.
func TestServedDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServed()
		s.dial = func(context.Context, netip.AddrPort) error { return errors.New("nobody dials for UDP") }
		g, dns := gateway("10.0.0.1"), socket{corev1.ProtocolUDP, 16000}
		for range 2 {
			s.learn(t.Context(), catalog, []Crossing{g}, []socket{dns})
			equal(t, "at first", s.is(catalog, g, dns), false)
			time.Sleep(udpSettles / 2)
		}
		s.learn(t.Context(), catalog, []Crossing{g}, []socket{dns})
		equal(t, "after a while", s.is(catalog, g, dns), true)
		s.forget(catalog)
		s.learn(t.Context(), catalog, []Crossing{g}, []socket{dns})
		equal(t, "anew", s.is(catalog, g, dns), false)
	})
}
