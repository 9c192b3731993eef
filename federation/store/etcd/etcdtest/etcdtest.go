// Package etcdtest gives tests a real etcd, over TLS and with users, in a
// temporary directory and on a free port.
package etcdtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/causeway-mesh/causeway/federation/store/etcd"
	"github.com/causeway-mesh/causeway/federation/store/etcd/embedded"
)

// Authority is a certificate authority in memory.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes an authority.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := template("etcdtest CA")
	tmpl.IsCA, tmpl.BasicConstraintsValid = true, true
	tmpl.KeyUsage |= x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &Authority{cert: cert, key: key}
}

func template(cn string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: cn},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

// CA returns the authority's certificate as PEM.
func (a *Authority) CA() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// Issue returns a certificate and its key as PEM, for servers on 127.0.0.1 and
// for clients of that common name.
func (a *Authority) Issue(t testing.TB, cn string) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := template(cn)
	tmpl.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, k.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	kder, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kder})
}

// ClientTLS returns the TLS configuration of a user.
func (a *Authority) ClientTLS(t testing.TB, user string) *tls.Config {
	t.Helper()
	cert, key := a.Issue(t, user)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}
}

// ServerConfig returns the configuration of an embedded server in dir.
func (a *Authority) ServerConfig(t testing.TB, dir string) embedded.Config {
	t.Helper()
	cert, key := a.Issue(t, "etcd")
	return embedded.Config{Dir: dir, CA: a.CA(), Cert: cert, Key: key, Logger: Logger(t)}
}

// Server is a running etcd with users.
type Server struct {
	*embedded.Server
	*Authority
}

// Start starts an etcd with the users of the given clusters, and stops it when
// the test ends.
func Start(t testing.TB, clusters ...string) *Server {
	t.Helper()
	a := NewAuthority(t)
	s := &Server{Server: start(t, a.ServerConfig(t, t.TempDir())), Authority: a}
	if err := etcd.Bootstrap(t.Context(), s.Connect(t, etcd.AdminUser), clusters...); err != nil {
		t.Fatal(err)
	}
	return s
}

// Serve starts an etcd without users, with the ca.crt, tls.crt and tls.key of a folder, and
// stops it when the test ends. Port 0 is any that is free.
func Serve(t testing.TB, folder string, port int) *embedded.Server {
	t.Helper()
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	return start(t, embedded.Config{Dir: t.TempDir(), CA: read("ca.crt"), Cert: read("tls.crt"), Key: read("tls.key"), Port: port, Logger: slog.New(slog.DiscardHandler)})
}

func start(t testing.TB, cfg embedded.Config) *embedded.Server {
	t.Helper()
	e, err := embedded.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// Connect returns a client of the server for a user; change may alter its
// configuration.
func (s *Server) Connect(t testing.TB, user string, change ...func(*etcd.Config)) *etcd.Store {
	t.Helper()
	return Connect(t, s.Authority, s.Endpoint(), user, change...)
}

// Connect returns a client, closed when the test ends.
func Connect(t testing.TB, a *Authority, endpoint, user string, change ...func(*etcd.Config)) *etcd.Store {
	t.Helper()
	cfg := etcd.Config{
		Endpoints:        []string{endpoint},
		TLS:              a.ClientTLS(t, user),
		Logger:           Logger(t),
		Registerer:       prometheus.NewRegistry(),
		ProgressInterval: 100 * time.Millisecond,
	}
	for _, c := range change {
		c(&cfg)
	}
	c, err := etcd.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// Logger returns a logger into the test's output.
func Logger(t testing.TB) *slog.Logger {
	var w io.Writer = t.Output()
	return slog.New(slog.NewTextHandler(w, nil)).With("test", t.Name())
}
