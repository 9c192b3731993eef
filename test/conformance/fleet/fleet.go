// Package fleet puts a clusterset of real clusters together, as its users do: a lab, an
// etcd, `causeway clusterset init`, `cluster add` and Helm. Suites that need one start it
// once and share it among their cases.
//
// Only what `make e2e` runs uses it.
package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/causeway-mesh/causeway/federation/store/etcd/embedded"
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
	root   string // of the source
	binary string
	dir    string // the administrator's folder
}

// Start starts a fleet for a test, and ends it with the test. It skips the test unless
// `make e2e` runs it.
func Start(t testing.TB, o Options) *Fleet {
	t.Helper()
	l := lab.StartTest(t, lab.Options{Clusters: len(o.Networks), CRDs: o.CRDs})
	f := &Fleet{Lab: l, dir: filepath.Join(t.TempDir(), "clusterset")}
	t.Cleanup(func() {
		if t.Failed() {
			f.logs(t)
		}
	})
	var err error
	if f.root, err = lab.SourceRoot(); err != nil {
		t.Fatal(err)
	}
	f.binary = filepath.Join(t.TempDir(), "causeway")
	f.run(t, nil, "go", "build", "-o", f.binary, "./cmd/causeway")
	f.startStore(t)
	for i, a := range o.Networks {
		for j, b := range o.Networks[:i] {
			if a == b {
				if err := l.Flat(t.Context(), i+1, j+1); errors.Is(err, lab.ErrForeign) {
					t.Skip("needs clusters whose pods reach each other:", err)
				} else if err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for i, c := range l.Clusters {
		f.Install(t, c, o.Networks[i])
	}
	return f
}

// startStore runs an etcd on this machine, where every cluster reaches it.
func (f *Fleet) startStore(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(f.Machine, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	// Certificates first, then what runs with them, then its users.
	args := []string{"clusterset", "init", Clusterset, "--dir", f.dir, "--etcd", "https://" + l.Addr().String()}
	if _, err := f.output(t.Context(), nil, f.binary, append(args, "--wait", "1ms")...); err == nil {
		t.Fatal("there is no etcd yet, and yet it is ready")
	}
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(f.dir, "etcd", name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	s, err := embedded.New(embedded.Config{
		Dir: t.TempDir(), CA: read("ca.crt"), Cert: read("tls.crt"), Key: read("tls.key"), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	go forward(l, strings.TrimPrefix(s.Endpoint(), "https://"))
	f.run(t, nil, f.binary, args...)
}

// forward passes connections on until the listener is closed.
func forward(l net.Listener, to string) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer in.Close()
			out, err := net.Dial("tcp", to)
			if err != nil {
				return
			}
			defer out.Close()
			go func() {
				_, _ = io.Copy(out, in)
				out.Close()
			}()
			_, _ = io.Copy(in, out)
		}()
	}
}

// Install adds a cluster to the clusterset and installs the chart in it, or again.
func (f *Fleet) Install(t testing.TB, c *lab.Cluster, network string) {
	t.Helper()
	values := f.run(t, nil, f.binary, "cluster", "add", c.Name, "--dir", f.dir, "--region", "lab", "--network", network)
	image := func(name string) (repository, tag string) {
		image := lab.TestImage(t, name)
		colon := strings.LastIndexByte(image, ':') // the registry may have a port
		return image[:colon], image[colon+1:]
	}
	repository, tag := image("causeway")
	envoy, envoyTag := image("causeway-envoy")
	f.Helm(t, c, values, "upgrade", "--install", "causeway", "deploy/helm/causeway", "--namespace", "causeway-system", "--create-namespace", "--values", "-",
		"--set-string", "image.repository="+repository, "--set-string", "image.tag="+tag,
		"--set-string", "crossing.image.repository="+envoy, "--set-string", "crossing.image.tag="+envoyTag,
		"--wait", "--timeout", "120s")
}

// Helm runs helm for a cluster, from the root of the source.
func (f *Fleet) Helm(t testing.TB, c *lab.Cluster, stdin []byte, args ...string) string {
	t.Helper()
	return string(f.run(t, stdin, "go", append([]string{"tool", "-modfile=.ci/tools/helm.mod", "helm", "--kubeconfig", c.Kubeconfig}, args...)...))
}

// Causeway runs the causeway command as the administrator does.
func (f *Fleet) Causeway(ctx context.Context, args ...string) (string, error) {
	out, err := f.output(ctx, nil, f.binary, append(args, "--dir", f.dir)...)
	return string(out), err
}

func (f *Fleet) run(t testing.TB, stdin []byte, name string, args ...string) []byte {
	t.Helper()
	out, err := f.output(t.Context(), stdin, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (f *Fleet) output(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = f.root, bytes.NewReader(stdin), &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(name), strings.Join(args, " "), err, errs.Bytes(), out.Bytes())
	}
	return out.Bytes(), nil
}

// Patience bounds every wait for a state that is to come.
const Patience = 60 * time.Second

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

// Answers is what the client of the image causeway-test prints of requests.
type Answers struct {
	Answers []struct {
		Status                  int
		Cluster, Namespace, Pod string
		Body, Error             string
	}
	Clusters, Pods map[string]int
	Failed         int
}

// Records is what it prints of a look-up.
type Records struct {
	RCode   string
	Records []string
}

// Client runs the client in a pod and reads what it prints.
func Client[T any](ctx context.Context, c *lab.Cluster, namespace, pod string, argv ...string) (out T, err error) {
	text, err := c.Exec(ctx, namespace, pod, "", append([]string{"/usr/local/bin/causeway-test"}, argv...)...)
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		return out, fmt.Errorf("%q: %w", text, err)
	}
	return out, nil
}
