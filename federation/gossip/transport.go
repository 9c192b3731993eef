package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

// transport is memberlist's own over UDP and TCP, except that connections which
// this side opens end when done does: memberlist's know no context, and Run
// would wait for their timeouts.
type transport struct {
	*memberlist.NetTransport
	done context.Context
	// cut, in tests, loses what goes to an address, as a partition does. It is
	// set before the transport is in use.
	cut func(addr string) bool
}

// bindAttempts is how often a free port is looked for that is free for both TCP and UDP.
const bindAttempts = 10

func listen(done context.Context, bind netip.AddrPort, logger *limitedLog) (*transport, error) {
	cfg := &memberlist.NetTransportConfig{BindAddrs: []string{bind.Addr().String()}, BindPort: int(bind.Port()), Logger: logger.logger()}
	var err error
	for range bindAttempts {
		var t *memberlist.NetTransport
		if t, err = memberlist.NewNetTransport(cfg); err == nil {
			return &transport{NetTransport: t, done: done}, nil
		}
		if bind.Port() != 0 {
			break
		}
	}
	if bind.Port() != 0 && inUse(bind) {
		return nil, fmt.Errorf("gossip can't listen on %s: the port is taken; choose another, or 0 for a free one", bind)
	}
	return nil, fmt.Errorf("gossip can't listen on %s: %w", bind, err)
}

// inUse asks again, since memberlist's error keeps no cause.
func inUse(bind netip.AddrPort) bool {
	tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(bind))
	if err == nil {
		_ = tcp.Close()
		udp, udpErr := net.ListenUDP("udp", net.UDPAddrFromAddrPort(bind))
		if err = udpErr; err == nil {
			_ = udp.Close()
		}
	}
	return errors.Is(err, syscall.EADDRINUSE)
}

func (t *transport) port() int { return t.GetAutoBindPort() }

var errCutOff = errors.New("cut off")

// WriteToAddress is memberlist's, save for cut.
func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if t.cut != nil && t.cut(a.Addr) {
		return time.Now(), nil
	}
	return t.NetTransport.WriteToAddress(b, a)
}

// DialAddressTimeout opens a connection that ends with done.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if t.cut != nil && t.cut(a.Addr) {
		return nil, errCutOff
	}
	dialer := net.Dialer{Timeout: timeout}
	conn, err := dialer.DialContext(t.done, "tcp", a.Addr)
	if err != nil {
		return nil, err
	}
	c := &boundConn{Conn: conn}
	c.release = context.AfterFunc(t.done, func() { _ = conn.Close() })
	return c, nil
}

// boundConn is closed at the end of a context, or before by its user.
type boundConn struct {
	net.Conn
	once    sync.Once
	release func() bool
}

// Close closes the connection and lets go of the context.
func (c *boundConn) Close() error {
	c.once.Do(func() { c.release() })
	return c.Conn.Close()
}
