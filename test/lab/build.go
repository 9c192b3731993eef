package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// ErrNotBuilt says that a component of the lab has yet to be built.
var ErrNotBuilt = errors.New("the lab's Kubernetes is not built; run `make lab-build`")

// modulePath is that of Causeway's module, in whose tree the components' sources are.
const modulePath = "github.com/causeway-mesh/causeway"

// component is a binary that the lab builds from its folder below components.
type component struct {
	name   string // of the folder and of the binary
	module string // whose version is the component's; empty: it is Causeway's own
}

var (
	kubernetesBinary = component{name: "kubernetes", module: "k8s.io/kubernetes"} // all of its parts, and etcd
	corednsBinary    = component{name: "coredns", module: "github.com/coredns/coredns"}
	pauseBinary      = component{name: "pause"}
)

// Build builds what the lab runs, where the cache has not got it yet: some ten minutes
// with nothing in the cache and two cores, a moment with everything. Several may
// build at a time; all but the first wait.
func Build(ctx context.Context, log *slog.Logger) error {
	for _, c := range []component{pauseBinary, corednsBinary, kubernetesBinary} {
		if _, err := c.build(ctx, log); err != nil {
			return err
		}
	}
	return nil
}

// CoreDNS returns the path of the lab's CoreDNS, for pods that want one of their own. It
// builds it where the cache has not got it yet.
func CoreDNS(ctx context.Context, log *slog.Logger) (string, error) {
	return corednsBinary.build(ctx, log)
}

// find returns the path of the binary, or ErrNotBuilt.
func (c component) find() (string, error) {
	path, _, err := c.locate()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w (no %s)", ErrNotBuilt, path)
	}
	return path, nil
}

// locate returns where the binary belongs, and where its source is. The folder in the
// cache is named after the version and after a hash of the source with its go.mod
// and go.sum and of the compiler's version, so that a change never meets an old binary.
func (c component) locate() (binary, source string, err error) {
	root, err := SourceRoot()
	if err != nil {
		return "", "", err
	}
	cache, err := cacheDir()
	if err != nil {
		return "", "", err
	}
	source = filepath.Join(root, "test", "lab", "components", c.name)
	files, err := filepath.Glob(filepath.Join(source, "*"))
	if err != nil || len(files) == 0 {
		return "", "", fmt.Errorf("no source of the lab's %s in %s", c.name, source)
	}
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), runtime.GOARCH)
	version := "causeway"
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return "", "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", filepath.Base(f), len(b), b)
		if filepath.Base(f) == "go.mod" {
			if version, err = requiredVersion(b, c.module); err != nil {
				return "", "", fmt.Errorf("%s: %w", f, err)
			}
		}
	}
	dir := fmt.Sprintf("%s-%s-%s", c.name, version, hex.EncodeToString(h.Sum(nil))[:12])
	return filepath.Join(cache, dir, c.name), source, nil
}

// requiredVersion finds the version of a module that a go.mod requires.
func requiredVersion(gomod []byte, module string) (string, error) {
	for line := range strings.Lines(string(gomod)) {
		if f := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require ")); len(f) >= 2 && f[0] == module && strings.HasPrefix(f[1], "v") {
			return f[1], nil
		}
	}
	return "", fmt.Errorf("it does not require %s", module)
}

// build returns the path of the binary, after building it if need be.
func (c component) build(ctx context.Context, log *slog.Logger) (string, error) {
	binary, source, err := c.locate()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	cache := filepath.Dir(filepath.Dir(binary))
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(ctx, filepath.Join(cache, c.name+".lock"))
	if err != nil {
		return "", fmt.Errorf("wait for another process that builds the lab's %s: %w", c.name, err)
	}
	defer unlock()
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	tmp, err := os.MkdirTemp(cache, "tmp-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", err
	}
	flags := "-s -w"
	if c == kubernetesBinary {
		// Kubernetes reports, and for its feature gates reckons with, what the linker says.
		version := strings.TrimPrefix(filepath.Base(filepath.Dir(binary)), c.name+"-")
		version, _, _ = strings.Cut(version, "-")
		numbers := strings.Split(strings.TrimPrefix(version, "v"), ".")
		const pkg = " -X k8s.io/component-base/version."
		flags += pkg + "gitVersion=" + version + pkg + "gitMajor=" + numbers[0] + pkg + "gitMinor=" + numbers[1]
	}
	log.Info("building a part of the lab; without a warm build cache Kubernetes takes some ten minutes", "component", filepath.Base(filepath.Dir(binary)))
	start := time.Now()
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-mod=readonly", "-ldflags", flags, "-o", filepath.Join(tmp, c.name), ".")
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	if _, err := outputOf(cmd); err != nil {
		return "", fmt.Errorf("build the lab's %s: %w", c.name, err)
	}
	if err := os.Rename(tmp, filepath.Dir(binary)); err != nil {
		return "", err
	}
	log.Info("built", "component", filepath.Base(filepath.Dir(binary)), "took", time.Since(start).Round(time.Second))
	return binary, nil
}

// cacheDir is where what is built stays: $CAUSEWAY_LAB_CACHE, else the user's cache.
func cacheDir() (string, error) {
	if dir := os.Getenv("CAUSEWAY_LAB_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("where to keep what is built: %w; set CAUSEWAY_LAB_CACHE", err)
	}
	return filepath.Join(dir, "causeway", "lab"), nil
}

// SourceRoot is the root of Causeway's source tree, which the working directory is in.
func SourceRoot() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.Contains(b, []byte("\nmodule "+modulePath+"\n")) || bytes.HasPrefix(b, []byte("module "+modulePath+"\n")) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s is not inside Causeway's source tree, which the lab needs", wd)
		}
	}
}

// lock takes the lock that the file stands for, and waits for it.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := await(ctx, path, 50*time.Millisecond, func(context.Context) error {
		return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil // the lock goes with the only descriptor
}
