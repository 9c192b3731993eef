package clusterset

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/causeway-mesh/causeway/cmd/causeway/mounted"
	"github.com/causeway-mesh/causeway/federation/store"
	"github.com/causeway-mesh/causeway/federation/store/etcd"
	"github.com/causeway-mesh/causeway/federation/store/etcd/etcdtest"
)

// run is one command line; it gives what the command printed.
func run(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	cfg := Config{Out: &out, Err: &errs, Getenv: func(string) string { return "" }}
	cluster := &cobra.Command{Use: "cluster"}
	cluster.AddCommand(ClusterCommands(cfg)...)
	root := &cobra.Command{Use: "causeway", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(Command(cfg), StoreCommand(cfg), cluster)
	root.SetArgs(args)
	err = root.ExecuteContext(t.Context())
	return out.String(), errs.String(), err
}

func must(t *testing.T, args ...string) string {
	t.Helper()
	out, errs, err := run(t, args...)
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, errs)
	}
	return out
}

// user connects to etcd with what a Secret of the charts holds.
func user(t *testing.T, endpoints []string, data map[string]string) *etcd.Store {
	t.Helper()
	dir := t.TempDir()
	for name, content := range data {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := mounted.Dir(dir).Store(mounted.StoreCert, mounted.StoreKey)
	if err != nil {
		t.Fatal(err)
	}
	s, err := etcd.New(etcd.Config{
		Endpoints: endpoints, TLS: cfg,
		Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func write(ctx context.Context, s store.Store, key string) error {
	_, err := s.Commit(ctx, store.Txn{Ops: []store.Op{store.Put(key, []byte("x"))}})
	return err
}

// A clusterset from nothing: certificates before there is an etcd, its users once
// it runs, a cluster that comes, comes again, and goes for good.
func TestLifeOfAClusterset(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "prod")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().(*net.TCPAddr)
	l.Close()
	endpoint := "https://" + at.String()
	hub := filepath.Join(t.TempDir(), "hub.yaml")
	first := []string{"clusterset", "init", "prod", "--dir", dir, "--etcd", endpoint, "--api", "hub.test:8443", "--values", hub, "--wait", "300ms"}
	if _, _, err := run(t, first...); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), filepath.Join(dir, "etcd")) {
		t.Fatalf("without an etcd: %v", err)
	}
	etcdtest.Serve(t, filepath.Join(dir, "etcd"), at.Port)

	// The folder remembers; --etcd needs to be said once.
	for range 2 {
		must(t, "clusterset", "init", "prod", "--dir", dir)
	}
	if _, _, err := run(t, "clusterset", "init", "other", "--dir", dir); err == nil {
		t.Error("another clusterset took over the folder")
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if i, err := d.Info(); err != nil || i.Mode().IsRegular() && i.Mode().Perm()&0o077 != 0 && strings.HasSuffix(path, ".key") {
			t.Errorf("%s has mode %v, %v", path, i.Mode(), err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}

	var west, again, east values
	for _, x := range []struct {
		into *values
		name string
	}{{&west, "west"}, {&again, "west"}, {&east, "east"}} {
		out := must(t, "cluster", "add", x.name, "--dir", dir, "--region", "eu", "--network", "n-"+x.name)
		if err := yaml.UnmarshalStrict([]byte(out), x.into); err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		if got := *x.into.Cluster; got != (place{x.name, "eu", "", "n-" + x.name}) || x.into.Store.Endpoints[0] != endpoint || x.into.Clusterset.Name != "prod" || x.into.Etcd != nil {
			t.Errorf("values of %s: %+v", x.name, x.into)
		}
	}
	var secret corev1.Secret
	if err := yaml.UnmarshalStrict([]byte(must(t, "cluster", "add", "west", "--dir", dir, "-o", "secret")), &secret); err != nil || len(secret.StringData) != len(west.Secret.Data) {
		t.Errorf("%v: %+v", err, secret)
	}
	if west.Secret.Data[mounted.Gossip] != east.Secret.Data[mounted.Gossip] || west.Secret.Data[mounted.StoreKey] == east.Secret.Data[mounted.StoreKey] {
		t.Error("clusters share the gossip key and nothing else that is secret")
	}
	for _, w := range []values{west, again} {
		s := user(t, w.Store.Endpoints, w.Secret.Data)
		if err := write(t.Context(), s, "/causeway/v1/clusters/west/x"); err != nil {
			t.Error(err)
		}
		for _, key := range []string{"/causeway/v1/clusters/east/x", "/causeway/v1/policy/x"} {
			if err := write(t.Context(), s, key); !errors.Is(err, store.ErrDenied) {
				t.Errorf("west writes %s: %v", key, err)
			}
		}
	}
	var hubs values
	data, err := os.ReadFile(hub)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(data, &hubs); err != nil {
		t.Fatal(err)
	}
	reader := user(t, hubs.Store.Endpoints, hubs.Secret.Data)
	if kvs, _, err := reader.List(t.Context(), "/causeway/v1/clusters/west/", 0); err != nil || len(kvs) != 1 {
		t.Errorf("hub sees %v, %v", kvs, err)
	}
	if err := write(t.Context(), reader, "/causeway/v1/policy/x"); !errors.Is(err, store.ErrDenied) {
		t.Errorf("hub writes the policy: %v", err)
	}

	// What keeps the store in order, by the chart's credentials, and by the folder.
	must(t, "store", "defragment", "--dir", dir)
	rootDir, backup := t.TempDir(), t.TempDir()
	for name, content := range hubs.Etcd.Root {
		if err := os.WriteFile(filepath.Join(rootDir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"causeway-20200101T000000Z.db", "causeway-20200102T000000Z.db", "mine.db"} {
		if err := os.WriteFile(filepath.Join(backup, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	must(t, "store", "snapshot", backup, "--keep", "2", "--credentials", rootDir, "--endpoints", endpoint)
	left, err := filepath.Glob(filepath.Join(backup, "*"))
	if err != nil || len(left) != 3 || filepath.Base(left[0]) != "causeway-20200102T000000Z.db" || filepath.Base(left[2]) != "mine.db" {
		t.Errorf("snapshots: %v, %v", left, err)
	}
	if i, err := os.Stat(left[1]); err != nil || i.Size() < 4096 {
		t.Errorf("snapshot: %v, %v", i, err)
	}

	if _, _, err := run(t, "cluster", "remove", "west", "--dir", dir); err == nil {
		t.Error("removed without --yes")
	}
	for range 2 { // also what is gone already
		must(t, "cluster", "remove", "west", "--dir", dir, "--yes")
	}
	if err := write(t.Context(), user(t, west.Store.Endpoints, west.Secret.Data), "/causeway/v1/clusters/west/x"); err == nil {
		t.Error("the removed cluster still writes")
	}
	if kvs, _, err := reader.List(t.Context(), "/causeway/v1/clusters/west/", 0); err != nil || len(kvs) != 0 {
		t.Errorf("left of west: %v, %v", kvs, err)
	}
	if err := write(t.Context(), user(t, east.Store.Endpoints, east.Secret.Data), "/causeway/v1/clusters/east/x"); err != nil {
		t.Errorf("the other cluster: %v", err)
	}
}

func TestWhatIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, c := range []struct {
		args, says string
	}{
		{"clusterset init prod", "--etcd"},
		{"clusterset init prod --etcd http://127.0.0.1:2379", "https://HOST:PORT"},
		{"clusterset init prod --etcd https://127.0.0.1", "https://HOST:PORT"},
		{"clusterset init prod --etcd https://127.0.0.1:1 --hub x", "HOST:PORT"},
		{"clusterset init Prod! --etcd https://127.0.0.1:1", "Prod!"},
		{"cluster add west", "clusterset init"},
		{"cluster add West", "DNS label"},
		{"cluster add west -o json", "values or secret"},
	} {
		_, _, err := run(t, append(strings.Fields(c.args), "--dir", filepath.Join(dir, strconv.Itoa(len(c.args))))...)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.args, err)
		}
	}
}
