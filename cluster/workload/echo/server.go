package echo

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

// Bounds of one server.
const (
	maxBody        = 10 << 20
	maxHeaders     = 256 << 10
	maxDelay       = time.Minute
	maxConnections = 4096
	maxMessage     = 1 << 20 // of WebSocket and gRPC

	handshakeTimeout = 10 * time.Second
	headerTimeout    = 30 * time.Second
	writeTimeout     = 30 * time.Second
	// idleTimeout: proxies keep idle connections for an hour; whoever closes
	// first loses a request now and then, so it mustn't be the server.
	idleTimeout = 2 * time.Hour
)

// Accepts is what a port takes.
type Accepts int

const (
	// AcceptAny lets the first bytes decide.
	AcceptAny Accepts = iota
	// AcceptTLS takes TLS alone.
	AcceptTLS
	// AcceptH2C takes, without TLS, HTTP/2 with prior knowledge alone.
	AcceptH2C
)

// Settings are what may change while a server runs. Immutable once handed over.
type Settings struct {
	Service string // for which it answers
	Accepts Accepts
	// Certificate is what clients by TLS see; nil: a self-signed one for Names.
	Certificate *tls.Certificate
	Names       []string
	// Fail is the status that HTTP requests are answered with, 0 for what they
	// ask for. RPCs get the code that gRPC gives such a status; other connections
	// are closed, and datagrams not answered.
	Fail int
	// Reset breaks connections instead of answering.
	Reset bool
	// Slow comes before each answer.
	Slow time.Duration
	// Leaving makes clients of HTTP give up their connections, each with the
	// next answer.
	Leaving bool
}

// Config makes a Server. Logger is required.
type Config struct {
	Namespace, Pod, Cluster string
	Settings                Settings
	Logger                  *slog.Logger
}

// Server answers on one port of one pod, TCP or UDP. Serve or ServePackets is
// called once; all other methods may be called from anywhere.
type Server struct {
	cfg      Config
	log      *slog.Logger
	settings atomic.Pointer[Settings]
	http     *http.Server
	grpc     *grpc.Server
	inbox    *inbox
	received tally
	own      struct {
		sync.Mutex
		cert  *tls.Certificate
		names []string
	}

	// closing ends what waits on purpose.
	closing context.Context
	close   context.CancelFunc

	mu       sync.Mutex
	down     bool
	listener io.Closer
	conns    map[io.Closer]bool // those that http does not know (any more)
	wg       sync.WaitGroup
}

// New makes a server. It starts nothing.
func New(cfg Config) (*Server, error) {
	if cfg.Logger == nil {
		return nil, errors.New("echo server: Logger is required")
	}
	s := &Server{cfg: cfg, log: cfg.Logger, inbox: newInbox(), conns: map[io.Closer]bool{}}
	s.closing, s.close = context.WithCancel(context.Background())
	s.Set(cfg.Settings)
	s.grpc = s.newGRPC()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	s.http = &http.Server{
		Handler: s, Protocols: protocols, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaders,
		ErrorLog:    slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
		ConnContext: withState,
	}
	return s, nil
}

// Set changes the settings for what comes from now on.
func (s *Server) Set(settings Settings) { s.settings.Store(&settings) }

func (s *Server) identity() Identity {
	return Identity{Namespace: s.cfg.Namespace, Service: s.settings.Load().Service, Pod: s.cfg.Pod, Cluster: s.cfg.Cluster}
}

// Serve takes connections until Shutdown, which it returns nil after. It closes
// the listener and waits for its goroutines, those of HTTP requests excepted,
// for which Shutdown waits.
func (s *Server) Serve(ln net.Listener) error {
	s.inbox.addr = ln.Addr()
	if !s.begin(ln) {
		return nil
	}
	defer s.wg.Wait()
	s.wg.Go(func() { _ = s.http.Serve(s.inbox) })
	var pause time.Duration
	for {
		c, err := ln.Accept()
		if err == nil {
			pause = 0
			if !s.track(c) {
				_ = c.Close()
				continue
			}
			go s.serve(c)
			continue
		}
		if s.closing.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			s.Shutdown(s.closing)
			return fmt.Errorf("take connections: %w", err)
		}
		// Such as too many open files: it passes.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.log.Debug("can't take a connection", "address", ln.Addr(), "error", err)
		select {
		case <-time.After(pause):
		case <-s.closing.Done():
			return nil
		}
	}
}

// begin makes Shutdown close c; false if there has been a Shutdown.
func (s *Server) begin(c io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		_ = c.Close()
		return false
	}
	s.listener = c
	return true
}

// track makes Shutdown close c and Serve wait until it is forgotten; false if
// there is no room.
func (s *Server) track(c io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down || len(s.conns) >= maxConnections {
		return false
	}
	s.conns[c] = true
	s.wg.Add(1) // not during Wait at zero: until down, Serve's own is there
	return true
}

func (s *Server) forget(c io.Closer) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.wg.Done()
}

// serve finds out what a connection speaks and hands it on.
func (s *Server) serve(raw net.Conn) {
	defer s.forget(raw)
	if !s.dispatch(raw, newConn(raw, nil)) { // else the HTTP server has it now
		_ = raw.Close()
	}
}

// dispatch reports whether the HTTP server has taken the connection over.
func (s *Server) dispatch(raw net.Conn, c *conn) bool {
	l, err := c.sniff(idleTimeout)
	if err != nil {
		return false
	}
	set := s.settings.Load()
	if set.Reset {
		reset(raw)
		return false
	}
	switch {
	case l == langTLS:
		return s.secure(c)
	case set.Accepts == AcceptTLS:
		if l == langHTTP1 {
			_ = c.SetWriteDeadline(time.Now().Add(writeTimeout))
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\nthis port takes TLS alone\n")
		}
		return false
	case l == langHTTP1, l == langHTTP2:
		return s.inbox.put(c)
	case set.Accepts == AcceptH2C:
		return false
	}
	s.lines(c, "TCP")
	return false
}

// secure does the handshake and finds out what is spoken inside.
func (s *Server) secure(c *conn) bool {
	secured := tls.Server(c, s.tlsConfig())
	ctx, cancel := context.WithTimeout(s.closing, handshakeTimeout)
	defer cancel()
	if err := secured.HandshakeContext(ctx); err != nil {
		s.log.Debug("handshake failed", "error", err)
		return false
	}
	state := secured.ConnectionState()
	if p := state.NegotiatedProtocol; p == "h2" || p == "http/1.1" {
		return s.inbox.put(secured)
	}
	inside := newConn(secured, &state)
	l, err := inside.sniff(idleTimeout)
	switch {
	case err != nil:
		return false
	case l == langHTTP1, l == langHTTP2:
		return s.inbox.put(inside)
	}
	s.lines(inside, "TLS")
	_ = secured.CloseWrite()
	return false
}

// reset makes the close of a connection look like a crash.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
}

// Stop frees the port at once. Running requests of HTTP go on; Shutdown is
// still to be called.
func (s *Server) Stop() {
	s.close() // first: Serve tells by it why its listener is closed
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = true
	if s.listener != nil {
		_ = s.listener.Close()
	}
}

// Shutdown frees the port, lets running requests end until ctx does, and closes
// everything.
func (s *Server) Shutdown(ctx context.Context) {
	s.Stop()
	s.mu.Lock()
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close()
	}
	s.inbox.Close()
	s.grpc.Stop()
}

// pause waits on purpose; false if ctx ended it.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(min(d, maxDelay))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
