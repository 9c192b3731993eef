// Package roottest is what tests share that use causeway's commands as a person does.
package roottest

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/causeway-mesh/causeway/cmd/causeway/root"
	"github.com/causeway-mesh/causeway/federation/store/etcd/embedded/port"
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
