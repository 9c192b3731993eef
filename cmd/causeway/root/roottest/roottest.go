// Package roottest is what tests share that use causeway's commands as a person does.
package roottest

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/causeway-mesh/causeway/cmd/causeway/root"
	"github.com/causeway-mesh/causeway/federation/store/etcd/embedded"
	"github.com/causeway-mesh/causeway/federation/store/etcd/embedded/port"
	"github.com/causeway-mesh/causeway/federation/store/etcd/etcdtest"
)

// Run runs `causeway args`, with nothing in its environment, until it or ctx ends.
func Run(ctx context.Context, out, errs io.Writer, args ...string) error {
	cmd, err := root.New(root.Config{Out: out, Err: errs, Getenv: func(string) string { return "" }, Version: "test"})
	if err != nil {
		return err
	}
	cmd.SetArgs(args)
	return cmd.ExecuteContext(ctx)
}

// Addresses are n of loopback that are the test's until it ends: nobody listens there.
func Addresses(t *testing.T, n int) (out []string) {
	t.Helper()
	for range n {
		r, err := port.Reserve(0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Close() })
		out = append(out, r.Address())
	}
	return out
}

// ClusterSet is a clusterset as its administrator has set it up, with a store that runs.
type ClusterSet struct {
	Dir   string // the administrator's folder
	Store *embedded.Server
	API   string // the address at which its hub is to answer
	Hub   string // a folder with a hub's credentials, as Mount makes it
}

// Init makes a clusterset, and stops its store when the test ends.
func Init(t *testing.T, name string) *ClusterSet {
	t.Helper()
	at := Addresses(t, 2)
	store, err := net.ResolveTCPAddr("tcp", at[0])
	if err != nil {
		t.Fatal(err)
	}
	c := &ClusterSet{Dir: filepath.Join(t.TempDir(), name), API: at[1]}
	values := filepath.Join(t.TempDir(), "hub.yaml")
	// Certificates first, then what runs with them, then its users.
	args := []string{"clusterset", "init", name, "--dir", c.Dir, "--etcd", "https://" + at[0], "--api", c.API, "--values", values}
	if err := Run(t.Context(), io.Discard, io.Discard, append(args, "--wait", "1ms")...); err == nil {
		t.Fatal("there is no etcd yet, and yet it is ready")
	}
	c.Store = etcdtest.Serve(t, filepath.Join(c.Dir, "etcd"), store.Port)
	if err := Run(t.Context(), io.Discard, io.Discard, args...); err != nil {
		t.Fatal(err)
	}
	hub, err := os.ReadFile(values)
	if err != nil {
		t.Fatal(err)
	}
	c.Hub = Mount(t, hub)
	return c
}

// Add adds a cluster, and gives the folder with its agents' credentials, as Mount makes it.
func (c *ClusterSet) Add(t *testing.T, cluster, region string) (dir string) {
	t.Helper()
	var values bytes.Buffer
	if err := Run(t.Context(), &values, io.Discard, "cluster", "add", cluster, "--dir", c.Dir, "--region", region); err != nil {
		t.Fatal(err)
	}
	return Mount(t, values.Bytes())
}

// Mount writes what a chart would mount of its values into a folder.
func Mount(t *testing.T, values []byte) (dir string) {
	t.Helper()
	var v struct {
		Secret struct{ Data map[string]string }
	}
	if err := yaml.Unmarshal(values, &v); err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	for name, data := range v.Secret.Data {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
