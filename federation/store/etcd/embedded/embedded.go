// Package embedded runs a real etcd server, of one member, inside this process:
// the store of trials (`--store=embedded`, `causeway up`) and of tests.
//
// It guarantees that the server listens on loopback only, that every client must
// show a certificate of the given CA, that what was acknowledged is on disk
// (fsync), and that Stop followed by Start serves the same data at the same
// address. The port is kept in the data directory, and held while the server is
// stopped (on Linux), so that nobody else gets it meanwhile.
//
// Who may do what is decided by etcd's users; see Bootstrap in the parent package.
package embedded

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"

	"github.com/causeway-mesh/causeway/federation/store/etcd/embedded/port"
)

// Config of a Server. CA, Cert and Key are PEM, and required.
type Config struct {
	// Dir is the data directory. It is created; this server owns all of it.
	Dir string
	// CA signs the certificates of clients. Anyone with such a certificate is a
	// user named by its common name.
	CA []byte
	// Cert (with its chain) and Key are the server's; the certificate must be
	// valid for 127.0.0.1.
	Cert, Key []byte
	// Port for clients. 0: the one used before in Dir, else a free one.
	Port int
	// Retention is how long old revisions are kept; 1 h if zero.
	Retention time.Duration
	// Logger gets etcd's warnings and errors. Required.
	Logger *slog.Logger
}

// String hides the key.
func (c Config) String() string { return fmt.Sprintf("embedded etcd in %s", c.Dir) }

// GoString hides the key.
func (c Config) GoString() string { return c.String() }

// LogValue hides the key.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// Server is an etcd server that can be started and stopped repeatedly. Its
// methods may be called from any goroutine.
type Server struct {
	cfg Config

	mu      sync.Mutex // guards all below; held during Start and Stop
	ports   []*port.Reservation
	lock    *os.File // of the directory; held as long as the ports
	etcd    *embed.Etcd
	hangUp  context.CancelFunc // ends all streams of clients
	watched sync.WaitGroup     // the goroutine that reports an unexpected end

	failed chan error // gets the first unexpected end
}

// The listeners of a server, in the order of Server.ports. HTTP (health, metrics)
// has a port of its own, because etcd serves gRPC much better on one that
// speaks nothing else.
const (
	clientPort = iota
	peerPort
	httpPort
	numPorts
)

// startTimeout bounds the wait for a started server to become ready.
const startTimeout = time.Minute

// New checks the configuration; it touches neither disk nor network.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.Dir == "":
		return nil, errors.New("embedded etcd: no data directory given")
	case cfg.Logger == nil:
		return nil, errors.New("embedded etcd: no logger given")
	case cfg.Port < 0 || cfg.Port > 65535:
		return nil, fmt.Errorf("embedded etcd: port %d is not between 0 and 65535", cfg.Port)
	case cfg.Retention < 0:
		return nil, fmt.Errorf("embedded etcd: negative retention %v", cfg.Retention)
	case !x509.NewCertPool().AppendCertsFromPEM(cfg.CA):
		return nil, errors.New("embedded etcd: CA holds no PEM certificate")
	}
	pair, err := tls.X509KeyPair(cfg.Cert, cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("embedded etcd: server certificate: %w", err)
	}
	if err := pair.Leaf.VerifyHostname("127.0.0.1"); err != nil {
		return nil, fmt.Errorf("embedded etcd: server certificate must name the address it serves: %w", err)
	}
	if cfg.Retention == 0 {
		cfg.Retention = time.Hour
	}
	return &Server{cfg: cfg, failed: make(chan error, 1)}, nil
}

// Run starts the server, serves until ctx ends or the server fails, and closes it.
// Stop and Start may be used meanwhile.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Start(ctx); err != nil {
		return err
	}
	var err error
	select {
	case err = <-s.failed:
	case <-ctx.Done():
	}
	return errors.Join(err, s.Close())
}

// Endpoint returns the address for clients, https://127.0.0.1:PORT. It is known,
// and stays the same, from the first successful Start until Close.
func (s *Server) Endpoint() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ports == nil {
		return ""
	}
	return s.url(clientPort).String()
}

// Running says whether the server was started and not stopped.
func (s *Server) Running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.etcd != nil
}

func (s *Server) url(i int) *url.URL {
	return &url.URL{Scheme: "https", Host: "127.0.0.1:" + strconv.Itoa(s.ports[i].Port())}
}

// Start starts the server and returns when it serves. Starting a running server
// does nothing. After an error, or the end of ctx, it is not running.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.etcd != nil {
		return nil
	}
	if err := s.start(ctx); err != nil {
		return fmt.Errorf("starting embedded etcd in %s: %w", s.cfg.Dir, err)
	}
	return nil
}

func (s *Server) start(ctx context.Context) error {
	if err := s.reserve(); err != nil {
		return err
	}
	files, err := s.writeFiles()
	if err != nil {
		return err
	}
	streams, hangUp := context.WithCancel(context.Background())
	cfg, err := s.etcdConfig(files, streams)
	if err != nil {
		hangUp()
		return err
	}
	e, err := launch(cfg)
	if err != nil {
		hangUp()
		return err
	}
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	select {
	case <-e.Server.ReadyNotify():
		s.etcd, s.hangUp = e, hangUp
		s.watched.Add(1)
		go s.watch(e)
		return nil
	case err = <-e.Err():
	case <-e.Server.StopNotify():
		err = errors.New("it stopped at once; see the log")
	case <-ctx.Done():
		err = ctx.Err()
	case <-timeout.C:
		err = fmt.Errorf("not ready after %v", startTimeout)
	}
	hangUp()
	e.Close()
	return err
}

// launch runs etcd's start in a goroutine of its own: what etcd regards as fatal
// ends that goroutine (see newZap), and becomes an error here.
func launch(cfg *embed.Config) (e *embed.Etcd, err error) {
	err = errors.New("etcd gave up; see the log")
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("etcd panicked: %v", r)
			}
		}()
		e, err = embed.StartEtcd(cfg)
	}()
	<-done
	return e, err
}

// watch reports a server that ends by itself.
func (s *Server) watch(e *embed.Etcd) {
	defer s.watched.Done()
	select {
	case err, ok := <-e.Err():
		if ok {
			s.cfg.Logger.Error("embedded etcd failed; clients go on with what they know", "dir", s.cfg.Dir, "error", err)
			select {
			case s.failed <- fmt.Errorf("embedded etcd in %s failed: %w", s.cfg.Dir, err):
			default:
			}
		}
	case <-e.Server.StopNotify():
	}
}

// Stop ends all connections and stops the server; its data, address and port
// remain for the next Start. Stopping a stopped server does nothing.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop()
}

func (s *Server) stop() {
	if s.etcd == nil {
		return
	}
	// Watches never end by themselves, and etcd would wait for them for seconds.
	s.hangUp()
	s.etcd.Close()
	s.watched.Wait()
	s.etcd = nil
}

// Close stops the server and gives up its directory and ports.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop()
	return s.release()
}

func (s *Server) release() error {
	var errs []error
	for _, p := range s.ports {
		errs = append(errs, p.Close())
	}
	s.ports = nil
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
		s.lock = nil
	}
	return errors.Join(errs...)
}

// reserve takes the directory and the ports, at the first Start.
func (s *Server) reserve() (err error) {
	if s.ports != nil {
		return nil
	}
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return err
	}
	if s.lock, err = lockFile(filepath.Join(s.cfg.Dir, "lock")); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.release())
		}
	}()
	portFile := filepath.Join(s.cfg.Dir, "port")
	wish := s.cfg.Port
	if wish == 0 {
		if b, err := os.ReadFile(portFile); err == nil {
			// What is not a port is no wish.
			if p, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 16); err == nil {
				wish = int(p)
			}
		}
	}
	for i := range numPorts {
		number := 0
		if i == clientPort {
			number = wish
		}
		r, err := port.Reserve(number)
		if err != nil && number != 0 && s.cfg.Port == 0 {
			s.cfg.Logger.Warn("the embedded store's former port is taken, it moves to another", "port", number, "error", err)
			r, err = port.Reserve(0)
		}
		if err != nil {
			return fmt.Errorf("port %d of 127.0.0.1: %w", number, err)
		}
		s.ports = append(s.ports, r)
	}
	return os.WriteFile(portFile, []byte(strconv.Itoa(s.ports[clientPort].Port())+"\n"), 0o600)
}

func (s *Server) etcdConfig(f files, streams context.Context) (*embed.Config, error) {
	token := make([]byte, 16)
	if _, err := rand.Read(token); err != nil {
		return nil, err
	}
	cfg := embed.NewConfig()
	cfg.Name = "causeway"
	cfg.Dir = filepath.Join(s.cfg.Dir, "etcd")
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{*s.url(clientPort)}, []url.URL{*s.url(clientPort)}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{*s.url(peerPort)}, []url.URL{*s.url(peerPort)}
	cfg.ListenClientHttpUrls = []url.URL{*s.url(httpPort)}
	cfg.InitialCluster = cfg.Name + "=" + s.url(peerPort).String()
	// A new data directory is a new cluster id, by which clients notice that the
	// store they knew is gone. etcd ignores the token of an existing one.
	cfg.InitialClusterToken = hex.EncodeToString(token)
	cfg.ClientTLSInfo = transport.TLSInfo{CertFile: f.cert, KeyFile: f.key, TrustedCAFile: f.ca, ClientCertAuth: true}
	cfg.PeerTLSInfo = transport.TLSInfo{CertFile: f.peerCert, KeyFile: f.peerKey, TrustedCAFile: f.peerCert, ClientCertAuth: true}
	cfg.TlsMinVersion = "TLS1.3"
	// The gateway would act for its callers with the server's own certificate.
	cfg.EnableGRPCGateway = false
	cfg.AutoCompactionMode = embed.CompactorModePeriodic
	cfg.AutoCompactionRetention = s.cfg.Retention.String()
	// One member needs no patience with others.
	cfg.TickMs, cfg.ElectionMs = 20, 200
	cfg.GRPCAdditionalServerOptions = []grpc.ServerOption{grpc.ChainStreamInterceptor(endWith(streams))}
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(newZap(s.cfg.Logger))
	return cfg, nil
}

// endWith returns an interceptor that ends each stream when ctx ends.
func endWith(ctx context.Context) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		sctx, cancel := context.WithCancel(ss.Context())
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		return handler(srv, &endingStream{ServerStream: ss, ctx: sctx})
	}
}

type endingStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *endingStream) Context() context.Context { return s.ctx }
