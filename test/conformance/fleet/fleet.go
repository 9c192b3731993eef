// Package fleet puts a clusterset of real clusters together, as its users do: a lab, an
// etcd, `causeway clusterset init`, `cluster add` and Helm. Suites that need one start it
// once and share it among their cases.
//
// Only what `make e2e` runs uses it.
package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/causeway-mesh/causeway/federation/store/etcd/etcdtest"
	"github.com/causeway-mesh/causeway/test/lab"
)

// Clusterset is the name of every fleet's.
const Clusterset = "e2e"

// Options say what a fleet is to be like.
type Options struct {
	// Networks names the network of each cluster: as many clusters as names. Clusters of
	// one network reach each other's pods.
	Networks []string
	CRDs     lab.CRDs
}

// Fleet is a running clusterset.
type Fleet struct {
	*lab.Lab
	// Dir is the administrator's folder.
	Dir    string
	binary string
	store  *relay
}

// Start starts a fleet for a test, and ends it with the test. It skips the test unless
// `make e2e` runs it.
func Start(t testing.TB, o Options) *Fleet {
	t.Helper()
	f := StartBare(t, lab.Options{Clusters: len(o.Networks), CRDs: o.CRDs})
	f.StartStore(t)
	for i, a := range o.Networks {
		for j, b := range o.Networks[:i] {
			if a == b {
				if err := f.Flat(t.Context(), i+1, j+1); errors.Is(err, lab.ErrForeign) {
					t.Skip("needs clusters whose pods reach each other:", err)
				} else if err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for i, c := range f.Clusters {
		f.Install(t, c, o.Networks[i])
	}
	return f
}

// StartBare starts clusters with nothing of Causeway in them: no store, no clusterset.
func StartBare(t testing.TB, o lab.Options) *Fleet {
	t.Helper()
	f := &Fleet{Lab: lab.StartTest(t, o), Dir: filepath.Join(t.TempDir(), "clusterset")}
	t.Cleanup(func() {
		if t.Failed() {
			f.logs(t)
		}
	})
	f.binary = filepath.Join(t.TempDir(), "causeway")
	f.Run(t, nil, "go", "build", "-o", f.binary, "./cmd/causeway")
	return f
}

// StartStore prepares a clusterset: it runs an etcd on this machine, where every cluster reaches it.
func (f *Fleet) StartStore(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(f.Machine, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	// Certificates first, then what runs with them, then its users.
	args := []string{"clusterset", "init", Clusterset, "--dir", f.Dir, "--etcd", "https://" + l.Addr().String()}
	if _, err := Output(t.Context(), nil, f.binary, append(args, "--wait", "1ms")...); err == nil {
		t.Fatal("there is no etcd yet, and yet it is ready")
	}
	s := etcdtest.Serve(t, filepath.Join(f.Dir, "etcd"), 0)
	f.store = &relay{to: strings.TrimPrefix(s.Endpoint(), "https://"), conns: map[net.Conn]bool{}}
	go f.store.serve(l)
	f.Run(t, nil, f.binary, args...)
}

// CutStore ends all connections to the store, and every new one, until HealStore.
func (f *Fleet) CutStore() { f.store.cut() }

// HealStore ends CutStore.
func (f *Fleet) HealStore() { f.store.heal() }

// Install adds a cluster to the clusterset and installs the chart in it, or again. set are
// further flags of helm.
func (f *Fleet) Install(t testing.TB, c *lab.Cluster, network string, set ...string) {
	t.Helper()
	f.Helm(t, c, f.Values(t, c, network), slices.Concat(InstallArgs(t), []string{"--wait", "--timeout", "300s"}, set)...)
}

// Values are what `causeway cluster add` prints for a cluster.
func (f *Fleet) Values(t testing.TB, c *lab.Cluster, network string) []byte {
	t.Helper()
	return f.Run(t, nil, f.binary, "cluster", "add", c.Name, "--dir", f.Dir, "--region", "lab", "--network", network)
}

// InstallArgs are helm's arguments that install the chart of a cluster, with Values as
// standard input.
func InstallArgs(t testing.TB) []string {
	t.Helper()
	args := []string{"upgrade", "--install", "causeway", "deploy/helm/causeway", "--namespace", "causeway-system", "--create-namespace", "--values", "-"}
	return append(args, ImageArgs(t)...)
}

// ImageArgs are helm's flags for the images of the chart causeway.
func ImageArgs(t testing.TB) []string {
	t.Helper()
	repository, tag := Image(t, "causeway")
	envoy, envoyTag := Image(t, "causeway-envoy")
	return []string{
		"--set-string", "image.repository=" + repository, "--set-string", "image.tag=" + tag,
		"--set-string", "crossing.image.repository=" + envoy, "--set-string", "crossing.image.tag=" + envoyTag,
	}
}

// Image parts the name of lab.TestImage.
func Image(t testing.TB, name string) (repository, tag string) {
	t.Helper()
	image := lab.TestImage(t, name)
	colon := strings.LastIndexByte(image, ':') // the registry may have a port
	return image[:colon], image[colon+1:]
}

// Helm runs helm for a cluster, from the root of the source.
func (f *Fleet) Helm(t testing.TB, c *lab.Cluster, stdin []byte, args ...string) string {
	t.Helper()
	return string(f.Run(t, stdin, "go", helm(append([]string{"--kubeconfig", c.Kubeconfig}, args...)...)...))
}

func helm(args ...string) []string {
	return append([]string{"tool", "-modfile=.ci/tools/helm.mod", "helm"}, args...)
}

// HelmAlone runs helm where no cluster is needed.
func HelmAlone(ctx context.Context, stdin []byte, args ...string) (string, error) {
	out, err := Output(ctx, stdin, "go", helm(args...)...)
	return string(out), err
}

// Causeway runs the causeway command as the administrator does.
func (f *Fleet) Causeway(ctx context.Context, args ...string) (string, error) {
	out, err := Output(ctx, nil, f.binary, append(args, "--dir", f.Dir)...)
	return string(out), err
}

// Ask runs the causeway command as somebody does who asks the hubs.
func (f *Fleet) Ask(ctx context.Context, args ...string) (string, error) {
	out, err := Output(ctx, nil, f.binary, append(args, "--state", f.Dir)...)
	return string(out), err
}

// Run runs a command from the root of the source, and gives what it has written to stdout.
func (f *Fleet) Run(t testing.TB, stdin []byte, name string, args ...string) []byte {
	t.Helper()
	out, err := Output(t.Context(), stdin, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Output runs a command as Run does. Its error has what the command wrote to stderr.
func Output(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error) {
	dir, err := lab.SourceRoot()
	if err != nil {
		return nil, err
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, bytes.NewReader(stdin), &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(name), strings.Join(args, " "), err, errs.Bytes(), out.Bytes())
	}
	return out.Bytes(), nil
}

// Patience bounds every wait for a state that is to come, on a machine that may be busy.
const Patience = 3 * time.Minute

// Eventually asks until there is no error, or fails the test with the last one.
func Eventually(t testing.TB, what string, ask func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if err = ask(); err == nil {
			return
		}
		if t.Context().Err() != nil {
			break
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// Stays fails the test unless there is no error for a while: for what must not come.
func Stays(t testing.TB, what string, ask func() error) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if err := ask(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}
