package hub_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cmd/causeway/mounted"
	"github.com/causeway-mesh/causeway/cmd/causeway/root/roottest"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/store"
	"github.com/causeway-mesh/causeway/federation/store/etcd"
	"github.com/causeway-mesh/causeway/federation/store/etcd/embedded"
)

// From the administrator's folder to an answer: a hub that is run with what
// `clusterset init` wrote tells of a cluster whose agent has what `cluster add` printed,
// and lets the administrator drain it.
func TestHub(t *testing.T) {
	t.Parallel()
	at := roottest.Addresses(t, 4)
	endpoint, api := "https://"+at[0], at[1]
	dir, values := filepath.Join(t.TempDir(), "prod"), filepath.Join(t.TempDir(), "hub.yaml")
	init := []string{"clusterset", "init", "prod", "--dir", dir, "--etcd", endpoint, "--api", api, "--values", values}
	if err := roottest.Run(t.Context(), io.Discard, io.Discard, append(init, "--wait", "1ms")...); err == nil {
		t.Fatal("there is no etcd yet")
	}
	file := func(name string) []byte {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	addr, err := net.ResolveTCPAddr("tcp", at[0])
	if err != nil {
		t.Fatal(err)
	}
	etcdDir := filepath.Join(dir, "etcd")
	server, err := embedded.New(embedded.Config{
		Dir: t.TempDir(), CA: file(filepath.Join(etcdDir, "ca.crt")), Cert: file(filepath.Join(etcdDir, "tls.crt")), Key: file(filepath.Join(etcdDir, "tls.key")),
		Port: addr.Port, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	if err := roottest.Run(t.Context(), io.Discard, io.Discard, init...); err != nil {
		t.Fatal(err)
	}

	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- roottest.Run(ctx, io.Discard, io.Discard, "hub", "--clusterset", "prod", "--credentials", roottest.Mount(t, file(values)), "--store", endpoint,
			"--replica", "0", "--listen", api, "--gossip", "127.0.0.1:0", "--metrics", at[2], "--probe", at[3])
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("hub: %v", err)
		}
	})
	eventually(t, "ready", func() bool {
		r, err := http.Get("http://" + at[3] + "/readyz")
		if err != nil {
			return false
		}
		defer r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
	if _, err := http.Get("https://" + at[2] + "/metrics"); err == nil {
		t.Error("metrics for nobody in particular")
	}

	var west bytes.Buffer
	if err := roottest.Run(t.Context(), &west, io.Discard, "cluster", "add", "west", "--dir", dir, "--region", "eu"); err != nil {
		t.Fatal(err)
	}
	cfg, err := mounted.Dir(roottest.Mount(t, west.Bytes())).Store(mounted.StoreCert, mounted.StoreKey)
	if err != nil {
		t.Fatal(err)
	}
	agent, err := etcd.New(etcd.Config{Endpoints: []string{endpoint}, TLS: cfg, Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	defer agent.Close()
	meta, err := record.EncodeMeta("west", cluster.Meta{Region: "eu", TrustDomain: "west.prod"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := agent.Commit(t.Context(), store.Txn{Ops: []store.Op{store.Put(meta.Key, meta.Value)}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "west among the clusters", func() bool {
		var out bytes.Buffer
		err := roottest.Run(t.Context(), &out, io.Discard, "get", "clusters", "--state", dir)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(out.String(), "west") && strings.Contains(out.String(), "eu")
	})
	if err := roottest.Run(t.Context(), io.Discard, io.Discard, "cluster", "drain", "west", "--over=0s", "--state", dir); err != nil {
		t.Errorf("drain: %v", err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("%s: not within 20 s", what)
}
