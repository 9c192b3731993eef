package embedded_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/causeway-mesh/causeway/federation/store"
	"github.com/causeway-mesh/causeway/federation/store/etcd"
	"github.com/causeway-mesh/causeway/federation/store/etcd/embedded"
	"github.com/causeway-mesh/causeway/federation/store/etcd/etcdtest"
)

func start(t *testing.T, cfg embedded.Config) *embedded.Server {
	t.Helper()
	s, err := embedded.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("started in %v", time.Since(begin))
	t.Cleanup(func() { s.Close() })
	return s
}

func TestRestartKeepsDataAndAddress(t *testing.T) {
	t.Parallel()
	a, dir := etcdtest.NewAuthority(t), t.TempDir()
	s := start(t, a.ServerConfig(t, dir))
	c := etcdtest.Connect(t, a, s.Endpoint(), etcd.AdminUser)
	key, err := store.PolicyKey("a")
	if err != nil {
		t.Fatal(err)
	}
	rev, err := c.Commit(t.Context(), store.Txn{Ops: []store.Op{store.Put(key, []byte("x"))}})
	if err != nil {
		t.Fatal(err)
	}
	ep := s.Endpoint()
	// A connection, an open watch, must not keep the server from stopping.
	watching := make(chan struct{})
	go c.Watch(t.Context(), store.Root, 0, func(store.Batch) error { //nolint:errcheck // ends with the test
		select {
		case <-watching:
		default:
			close(watching)
		}
		return nil
	})
	<-watching
	begin := time.Now()
	s.Stop()
	if d := time.Since(begin); d > 6*time.Second { // etcd by itself would wait 7 s for the watch
		t.Errorf("stopping took %v", d)
	} else {
		t.Logf("stopped in %v", d)
	}
	if conn, err := net.Dial("tcp", strings.TrimPrefix(ep, "https://")); err == nil {
		conn.Close()
		t.Error("a stopped server accepts connections")
	}
	for range 2 { // Start is idempotent
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if s.Endpoint() != ep {
		t.Errorf("endpoint changed from %s to %s", ep, s.Endpoint())
	}
	kvs, got, err := c.List(t.Context(), store.Root, 0)
	if err != nil || len(kvs) != 1 || got != rev {
		t.Errorf("after the restart: %v at %d, %v; want one key at %d", kvs, got, err, rev)
	}
	// Another process on the same directory finds the same address.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := embedded.New(a.ServerConfig(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- again.Run(ctx) }()
	// The client finds it without being told.
	if kvs, _, err := c.List(t.Context(), store.Root, 0); err != nil || len(kvs) != 1 {
		t.Errorf("after the move to another process: %v, %v", kvs, err)
	}
	if again.Endpoint() != ep {
		t.Errorf("a new server of the directory is at %s, not %s", again.Endpoint(), ep)
	}
	cancel()
	if err := <-done; err != nil || again.Running() {
		t.Errorf("end of the server: running %v, %v", again.Running(), err)
	}
}

func TestOnlyOwnClientsAndPrivateFiles(t *testing.T) {
	t.Parallel()
	a, dir := etcdtest.NewAuthority(t), t.TempDir()
	s := start(t, a.ServerConfig(t, dir))
	addr := strings.TrimPrefix(s.Endpoint(), "https://")

	dial := func(addr string, cfg *tls.Config) error {
		conn, err := tls.Dial("tcp", addr, cfg)
		if err != nil {
			return err
		}
		defer conn.Close()
		// With TLS 1.3 the server's verdict on the certificate comes with the first read:
		// HTTP/2's settings, in answer to ours.
		if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			return err
		}
		if _, err := conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")); err != nil {
			return err
		}
		_, err = conn.Read(make([]byte, 1))
		if os.IsTimeout(err) {
			t.Error("there is no verdict")
		}
		return err
	}
	own := a.ClientTLS(t, "somebody")
	own.NextProtos = []string{"h2"}
	if err := dial(addr, own); err != nil {
		t.Errorf("own client: %v", err)
	}
	foreign := etcdtest.NewAuthority(t).ClientTLS(t, "root")
	foreign.RootCAs, foreign.NextProtos = own.RootCAs, own.NextProtos
	if err := dial(addr, foreign); err == nil {
		t.Error("a client of another CA was let in")
	}
	bare := own.Clone()
	bare.Certificates = nil
	if err := dial(addr, bare); err == nil {
		t.Error("a client without certificate was let in")
	}

	err := filepath.Walk(dir, func(p string, fi os.FileInfo, err error) error {
		if err == nil && p != dir && fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", p, fi.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDirectoryInUse(t *testing.T) {
	t.Parallel()
	a, dir := etcdtest.NewAuthority(t), t.TempDir()
	cfg := a.ServerConfig(t, dir)
	start(t, cfg)
	// A second one must fail with an error, leaving this process and the first alone.
	second, err := embedded.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Start(t.Context()); err == nil {
		second.Close()
		t.Error("two servers run on one directory")
	} else {
		t.Log(err)
	}
}

func TestQuiet(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var out bytes.Buffer
	a := etcdtest.NewAuthority(t)
	cfg := a.ServerConfig(t, t.TempDir())
	cfg.Logger = slog.New(slog.NewTextHandler(writer(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return out.Write(p)
	}), nil))
	s := start(t, cfg)
	c := etcdtest.Connect(t, a, s.Endpoint(), etcd.AdminUser)
	if _, _, err := c.List(t.Context(), store.Root, 0); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	mu.Lock()
	defer mu.Unlock()
	for line := range strings.Lines(out.String()) {
		// Of the machine, which may be busy, etcd complains with reason.
		if !strings.Contains(line, "took too long") && !strings.Contains(line, "slow fdatasync") {
			t.Errorf("an undisturbed server logs: %s", line)
		}
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }
