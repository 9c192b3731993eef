package envoy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary be started again as a parent that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("CAUSEWAY_TEST_PARENT"); dir != "" {
		p := testProcess(dir)
		p.Path = os.Getenv("CAUSEWAY_TEST_ENVOY")
		fmt.Fprintln(os.Stderr, p.Run(context.Background()))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

const static = `{
  "node": {"id": "n", "cluster": "c"},
  "admin": {"address": {"pipe": {"path": %q}}},
  "static_resources": {"listeners": [{"name": "l", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
    "filter_chains": [{"filters": [{"name": "echo", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo"}}]}]}]}
}`

func testProcess(dir string) Process {
	return Process{
		Bootstrap: filepath.Join(dir, "envoy.json"), LogPath: filepath.Join(dir, "envoy.log"), LogLevel: "info",
		Logger: slog.New(slog.DiscardHandler),
	}
}

// prepare writes a bootstrap, or skips where there is no Envoy. The folder's name
// is short: it holds a socket.
func prepare(t *testing.T) (p Process, socket string) {
	t.Helper()
	binary, err := Find("")
	if err != nil {
		t.Skipf("no Envoy: %v", err)
	}
	dir, err := os.MkdirTemp("", "cw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p, socket = testProcess(dir), filepath.Join(dir, "admin")
	p.Path = binary.Path
	if err := os.WriteFile(p.Bootstrap, fmt.Appendf(nil, static, socket), 0o600); err != nil {
		t.Fatal(err)
	}
	return p, socket
}

func ready(t *testing.T, socket string) {
	t.Helper()
	r, err := NewReadiness(socket)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if err = r.Ready(t.Context()); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// pid finds the process whose command line names the bootstrap; 0 if there is none.
func pid(t *testing.T, p Process) int {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		b, err := os.ReadFile(f)
		if args := bytes.Split(b, []byte{0}); err == nil && len(args) > 2 && string(args[0]) == p.Path && string(args[2]) == p.Bootstrap {
			n, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			return n
		}
	}
	return 0
}

func within(t *testing.T, what string, d time.Duration, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(d); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", d, what)
		}
	}
}

// syncBuffer may be written and read by different goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestRestartsAfterCrashAndStopsInTime(t *testing.T) {
	p, socket := prepare(t)
	var log syncBuffer
	p.Logger = slog.New(slog.NewTextHandler(&log, nil))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	ready(t, socket)
	first := pid(t, p)
	if first == 0 {
		t.Fatal("no Envoy runs")
	}
	if group, err := syscall.Getpgid(first); err != nil || group != first {
		t.Errorf("its process group is %d, %v", group, err)
	}
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	within(t, "another Envoy", time.Minute, func() bool { n := pid(t, p); return n != 0 && n != first })
	ready(t, socket)
	if s := log.String(); !strings.Contains(s, "signal: killed") || !strings.Contains(s, "starting main dispatch loop") {
		t.Errorf("the log does not tell what happened: %s", s)
	}
	last := pid(t, p)
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it does not stop")
	}
	if syscall.Kill(last, 0) == nil {
		t.Error("Run returned while Envoy runs")
	}
}

func TestStopsOneThatHangs(t *testing.T) {
	p, socket := prepare(t)
	p.Grace = 300 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	ready(t, socket)
	n := pid(t, p)
	if err := syscall.Kill(n, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case <-done:
	case <-time.After(time.Minute):
		_ = syscall.Kill(n, syscall.SIGKILL)
		t.Fatal("a hanging Envoy keeps Run from returning")
	}
}

func TestDrains(t *testing.T) {
	p, socket := prepare(t)
	p.Admin, p.Drain = socket, time.Minute
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	ready(t, socket)
	a, err := newAdmin(socket)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	within(t, "failing health checks", time.Minute, func() bool {
		code, _, err := a.call(context.Background(), http.MethodGet, "/ready")
		return err == nil && code != http.StatusOK
	})
	// It need not wait for one that goes by itself.
	if code, _, err := a.call(context.Background(), http.MethodPost, "/quitquitquit"); err != nil || code != http.StatusOK {
		t.Fatal(code, err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Run waits for an Envoy that is gone")
	}
}

func TestNothingIsLeftBehindByAKilledParent(t *testing.T) {
	p, socket := prepare(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(self)
	parent.Env = append(os.Environ(), "CAUSEWAY_TEST_PARENT="+filepath.Dir(p.Bootstrap), "CAUSEWAY_TEST_ENVOY="+p.Path)
	parent.Stderr = os.Stderr
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = parent.Process.Kill() }()
	ready(t, socket)
	n := pid(t, p)
	if n == 0 {
		t.Fatal("no Envoy runs")
	}
	defer func() {
		if t.Failed() {
			_ = syscall.Kill(n, syscall.SIGKILL)
		}
	}()
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	within(t, "the end of Envoy", time.Minute, func() bool { return pid(t, p) == 0 })
}

func TestValidate(t *testing.T) {
	p, _ := prepare(t)
	if err := Validate(t.Context(), p.Path, p.Bootstrap); err != nil {
		t.Error(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.json")
	if err := os.WriteFile(bad, []byte(`{"static_resources": {"listeners": [{"name": "x"}]}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Validate(t.Context(), p.Path, bad); err == nil || !strings.Contains(err.Error(), "bad.json") || !strings.Contains(err.Error(), "ddress") {
		t.Errorf("an invalid bootstrap: %v", err)
	}
}

func TestFind(t *testing.T) {
	script := func(version string) string {
		path := filepath.Join(t.TempDir(), "envoy")
		body := fmt.Sprintf("#!/bin/sh\necho \"%s version: 9e55/%s/Clean/RELEASE/BoringSSL\"\n", path, version)
		if err := os.WriteFile(path, []byte(body), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("CAUSEWAY_ENVOY", "")
	t.Setenv("PATH", "/bin:/usr/bin")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	if _, err := exec.LookPath("envoy"); err == nil {
		t.Skip("an Envoy is installed in a system folder")
	}
	if _, err := Find(""); err == nil || !strings.Contains(err.Error(), "make envoy") {
		t.Errorf("nothing there: %v", err)
	}
	cached := filepath.Join(os.Getenv("XDG_CACHE_HOME"), "causeway", "envoy-"+Version, "envoy")
	if err := os.MkdirAll(filepath.Dir(cached), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(script(Version), cached); err != nil {
		t.Fatal(err)
	}
	check := func(flag, want string) {
		t.Helper()
		if got, err := Find(flag); err != nil || got.Path != want {
			t.Errorf("want %s, got %s, %v", want, got.Path, err)
		}
	}
	check("", cached)
	onPath := script("1.41.2")
	t.Setenv("PATH", filepath.Dir(onPath)+":/bin:/usr/bin")
	check("", onPath)
	env := script("1.37.0")
	t.Setenv("CAUSEWAY_ENVOY", env)
	check("", env)
	flag := script(Version)
	check(flag, flag)
	for path, want := range map[string]string{env: "1.37.0", flag: Version} {
		b, err := Find(path)
		if v, untested := b.Untested(); err != nil || v != want || untested != (path == env) {
			t.Errorf("%s: %s, %v, %v", path, v, untested, err)
		}
	}
	for _, old := range []string{"1.36.9", "2.0.0", "odd"} {
		if _, err := Find(script(old)); err == nil {
			t.Errorf("Envoy %s is accepted", old)
		}
	}
	if _, err := Find(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "--envoy") {
		t.Errorf("a flag that names nothing: %v", err)
	}
}

func TestLogIsBoundedAndNeverBlocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := openLog(path, 100)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		if _, err := fmt.Fprintf(l, "line %04d\n", i); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{path, path + ".1"} {
		if info, err := os.Stat(p); err != nil || info.Size() > 100 {
			t.Errorf("%s: %v, %v", p, info, err)
		}
	}
	if s := lastLines(path, 2); s != "line 0048 | line 0049" {
		t.Errorf("last lines: %q", s)
	}
	// The folder goes away: lines are lost, writes succeed.
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	if n, err := io.WriteString(l, strings.Repeat("x", 200)); n != 200 || err != nil {
		t.Error(n, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestSocketsWithLongNamesAreRefused(t *testing.T) {
	_, err := NewReadiness("/" + strings.Repeat("x", MaxSocket))
	if err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Error(err)
	}
}

// In a container Envoy's log is the container's: no file is written.
func TestOutput(t *testing.T) {
	p, socket := prepare(t)
	file := p.LogPath
	r, w := io.Pipe()
	p.LogPath, p.Output = "", w
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		err := p.Run(ctx)
		_ = w.Close()
		ended <- err
	}()
	log := make(chan string, 1)
	go func() {
		all, _ := io.ReadAll(r)
		log <- string(all)
	}()
	ready(t, socket)
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if all := <-log; !strings.Contains(all, "starting main dispatch loop") {
		t.Errorf("Envoy's output is %q", all)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("a log file: %v", err)
	}
}
