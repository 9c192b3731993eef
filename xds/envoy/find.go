// Package envoy finds and runs real Envoy processes for `causeway up` and tests.
// A Process is restarted when it crashes, stops within a bounded time when its
// context ends, and never outlives this process, however that ends.
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
// fetches. MinMinor is the oldest minor version of Envoy 1 that knows all we use.
const (
	Version  = "1.40.0"
	minMinor = 37
)

var versionPattern = regexp.MustCompile(`/(\d+)\.(\d+)\.(\d+)[-/]`)

// Find gives the path of the Envoy to run: flag, else $CAUSEWAY_ENVOY, else
// `envoy` on PATH, else what `make envoy` fetched. It refuses one that does not
// run or is too old.
func Find(flag string) (string, error) {
	path, err := locate(flag)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s does not run: %w; set CAUSEWAY_ENVOY to an Envoy that does", path, err)
	}
	return path, checkVersion(path, out)
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

func checkVersion(path string, out []byte) error {
	m := versionPattern.FindSubmatch(out)
	if m == nil {
		return fmt.Errorf("%s does not say which version of Envoy it is: %q", path, bytes.TrimSpace(out))
	}
	major, _ := strconv.Atoi(string(m[1]))
	minor, _ := strconv.Atoi(string(m[2]))
	if major != 1 || minor < minMinor {
		return fmt.Errorf("%s is Envoy %s.%s.%s; 1.%d or newer is needed, %s is what `make envoy` fetches", path, m[1], m[2], m[3], minMinor, Version)
	}
	return nil
}
