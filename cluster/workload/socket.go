package workload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
)

// drain bounds the time that running requests have once a server closes.
const drain = 5 * time.Second

// socket is a listener with its server, open or not. The Manager's goroutine
// owns it; the server's goroutines share only the echo.
type socket struct {
	listener
	cluster cluster.ID
	err     error // why it isn't open
	until   time.Time

	echo   *echo
	http   *http.Server
	packet net.PacketConn
}

func (s *socket) isOpen() bool { return s != nil && (s.http != nil || s.packet != nil) }

// stay takes the socket back from leaving and says for whom it answers.
func (s *socket) stay(service string) {
	s.until = time.Time{}
	if s.echo == nil {
		s.echo = &echo{namespace: s.namespace, pod: s.pod, cluster: string(s.cluster)}
	}
	s.echo.service.Store(&service)
	s.echo.leaving.Store(false)
}

// leave starts the grace period, once.
func (s *socket) leave(until time.Time) {
	if s.until.IsZero() {
		s.until = until
		s.echo.leaving.Store(true)
	}
}

func (s *socket) bind(addr netip.Addr, wg *sync.WaitGroup, log *slog.Logger) error {
	at := netip.AddrPortFrom(addr, s.port).String()
	if s.udp {
		conn, err := net.ListenPacket("udp", at)
		if err != nil {
			return explain(err, at)
		}
		s.packet = conn
		wg.Go(func() {
			if err := echoPackets(conn); !errors.Is(err, net.ErrClosed) {
				log.Error("echo server ended", "address", at, "error", err)
			}
		})
		return nil
	}
	ln, err := net.Listen("tcp", at)
	if err != nil {
		return explain(err, at)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s.http = &http.Server{
		Handler:           s.echo,
		Protocols:         protocols,
		ReadHeaderTimeout: 30 * time.Second,
		// Proxies keep idle connections for an hour; whoever closes first
		// loses a request now and then, so it mustn't be the server.
		IdleTimeout:    2 * time.Hour,
		MaxHeaderBytes: maxHeaders,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	srv := s.http
	wg.Go(func() {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
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
	if s.http != nil {
		// An ended context makes Shutdown close the listener and return.
		ended, cancel := context.WithCancel(ctx)
		cancel()
		if s.http.Shutdown(ended) == nil {
			return
		}
	}
	wg.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, drain)
		defer cancel()
		s.shutdown(ctx)
	})
}

func (s *socket) shutdown(ctx context.Context) {
	if s.packet != nil {
		s.packet.Close()
	}
	if s.http != nil {
		if err := s.http.Shutdown(ctx); err != nil {
			s.http.Close()
		}
	}
}
