package hub_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
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
)

// From the administrator's folder to an answer: a hub that is run with what
// `clusterset init` wrote tells of a cluster whose agent has what `cluster add` printed,
// and lets the administrator drain it.
func TestHub(t *testing.T) {
	t.Parallel()
	at := roottest.Addresses(t, 2)
	prod := roottest.Init(t, "prod")

	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- roottest.Run(ctx, io.Discard, io.Discard, "hub", "--clusterset", "prod", "--credentials", prod.Hub, "--store", prod.Store.Endpoint(),
			"--replica", "0", "--listen", prod.API, "--gossip", "127.0.0.1:0", "--metrics", at[0], "--probe", at[1])
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("hub: %v", err)
		}
	})
	eventually(t, "ready", func() bool {
		r, err := http.Get("http://" + at[1] + "/readyz")
		if err != nil {
			return false
		}
		defer r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
	if _, err := http.Get("https://" + at[0] + "/metrics"); err == nil {
		t.Error("metrics for nobody in particular")
	}

	cfg, err := mounted.Dir(prod.Add(t, "west", "eu")).Store(mounted.StoreCert, mounted.StoreKey)
	if err != nil {
		t.Fatal(err)
	}
	agent, err := etcd.New(etcd.Config{Endpoints: []string{prod.Store.Endpoint()}, TLS: cfg, Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
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
		err := roottest.Run(t.Context(), &out, io.Discard, "get", "clusters", "--state", prod.Dir)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(out.String(), "west") && strings.Contains(out.String(), "eu")
	})
	if err := roottest.Run(t.Context(), io.Discard, io.Discard, "cluster", "drain", "west", "--over=0s", "--state", prod.Dir); err != nil {
		t.Errorf("drain: %v", err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("%s: not within a minute", what)
}
