package workload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/workload/echo"
)

// drain bounds the time that running requests have once a server closes.
const drain = 5 * time.Second

// socket is a listener with its server, open or not. The Manager's goroutine
// owns it.
type socket struct {
	listener
	cluster cluster.ID
	err     error // why it isn't open
	until   time.Time

	settings echo.Settings
	refuses  bool // it is closed on purpose
	server   *echo.Server
}

// isOpen reports whether the socket is as it should be.
func (s *socket) isOpen() bool { return s != nil && (s.refuses || s.server != nil) }

// stay takes the socket back from leaving and says how it answers, if it is open.
func (s *socket) stay(want server, ctx context.Context, wg *sync.WaitGroup) {
	s.until = time.Time{}
	s.settings, s.refuses = want.settings, want.refuse
	switch {
	case s.server == nil:
	case s.refuses: // as if it had crashed
		s.close(ctx, wg)
		s.server = nil
	default:
		s.server.Set(s.settings)
	}
}

// leave starts the grace period, once.
func (s *socket) leave(until time.Time) {
	if !s.until.IsZero() {
		return
	}
	s.until = until
	if s.server != nil {
		s.settings.Leaving = true
		s.server.Set(s.settings)
	}
}

func (s *socket) bind(addr netip.Addr, wg *sync.WaitGroup, log *slog.Logger) error {
	at := netip.AddrPortFrom(addr, s.port).String()
	server, err := echo.New(echo.Config{Namespace: s.namespace, Pod: s.pod, Cluster: string(s.cluster), Settings: s.settings, Logger: log})
	if err != nil {
		return err
	}
	var serve func() error
	if s.udp {
		conn, err := net.ListenPacket("udp", at)
		if err != nil {
			return explain(err, at)
		}
		serve = func() error { return server.ServePackets(conn) }
	} else {
		ln, err := net.Listen("tcp", at)
		if err != nil {
			return explain(err, at)
		}
		serve = func() error { return server.Serve(ln) }
	}
	s.server = server
	wg.Go(func() {
		if err := serve(); err != nil {
			log.Error("echo server ended", "address", at, "error", err)
		}
	})
	return nil
}

func explain(err error, at string) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s is taken by another process: end it, or choose another port", at)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s may not be bound by this user: choose a higher port", at)
	}
	return fmt.Errorf("listen on %s: %w", at, err)
}

// close frees the port and lets running requests end in the background, unless
// ctx ends.
func (s *socket) close(ctx context.Context, wg *sync.WaitGroup) {
	server := s.server
	if server == nil {
		return
	}
	server.Stop()
	wg.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, drain)
		defer cancel()
		server.Shutdown(ctx)
	})
}

func (s *socket) shutdown(ctx context.Context) {
	if s.server != nil {
		s.server.Shutdown(ctx)
	}
}
