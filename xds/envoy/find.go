package envoy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// Version is the Envoy that we build for and test with, and that `make envoy`
// fetches. minMinor is the oldest minor version of Envoy 1 that knows all we use.
const (
	Version  = "1.40.0"
	minMinor = 37
)

var versionPattern = regexp.MustCompile(`/(\d+)\.(\d+)\.(\d+)[-/]`)

// Binary is an Envoy that runs and is new enough.
type Binary struct {
	Path    string
	version semver
}

// Find gives the Envoy to run: flag, else $CAUSEWAY_ENVOY, else `envoy` on PATH, else
// what `make envoy` fetched. It runs it to learn its version, and refuses one that does
// not run or is too old.
func Find(flag string) (Binary, error) {
	path, err := locate(flag)
	if err != nil {
		return Binary{}, err
	}
	version, err := ask(path)
	if err != nil {
		return Binary{}, err
	}
	return Binary{path, version}, version.check(path)
}

// Untested reports whether the Envoy is not of the version that all is tested with, and
// which it is. Who runs it says so.
func (b Binary) Untested() (version string, untested bool) {
	return b.version.String(), b.version.String() != Version
}

// semver is a version of Envoy.
type semver [3]int

func (v semver) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

func (v semver) check(path string) error {
	if v[0] != 1 || v[1] < minMinor {
		return fmt.Errorf("%s is Envoy %v; 1.%d or newer is needed, and `make envoy` fetches %s", path, v, minMinor, Version)
	}
	return nil
}

// ask runs the binary to learn its version.
func ask(path string) (semver, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return semver{}, fmt.Errorf("%s does not run: %w; set CAUSEWAY_ENVOY to an Envoy that does", path, err)
	}
	m := versionPattern.FindSubmatch(out)
	if m == nil {
		return semver{}, fmt.Errorf("%s does not say which version of Envoy it is: %q", path, bytes.TrimSpace(out[:min(len(out), 200)]))
	}
	var v semver
	for i := range v {
		v[i], _ = strconv.Atoi(string(m[i+1]))
	}
	return v, nil
}

func locate(flag string) (string, error) {
	for _, named := range []struct{ from, path string }{{"--envoy", flag}, {"CAUSEWAY_ENVOY", os.Getenv("CAUSEWAY_ENVOY")}} {
		if named.path == "" {
			continue
		}
		path, err := exec.LookPath(named.path)
		if err != nil {
			return "", fmt.Errorf("%s: %w", named.from, err)
		}
		return path, nil
	}
	if path, err := exec.LookPath("envoy"); err == nil {
		return path, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", errors.New("no Envoy found: set CAUSEWAY_ENVOY, or set HOME and run `make envoy`")
	}
	path := filepath.Join(cache, "causeway", "envoy-"+Version, "envoy")
	if _, err := os.Stat(path); err != nil {
		return "", errors.New("no Envoy found: run `make envoy`, put one on PATH, or name one with --envoy or CAUSEWAY_ENVOY")
	}
	return path, nil
}
