package envoy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Process describes one Envoy to run.
type Process struct {
	Path      string // of the binary, from Find
	Bootstrap string // file
	// LogPath takes what Envoy prints. It is rotated once it has grown beyond
	// MaxLog, when Envoy starts and while it runs.
	LogPath     string
	LogLevel    string // Envoy's --log-level; "warning" if empty
	Concurrency int    // worker threads; 1 if zero
	Logger      *slog.Logger
	// Grace is how long Envoy may take to stop after SIGTERM; 3 s if zero.
	Grace time.Duration
}

// MaxLog bounds a log file, in bytes; one older file of that size is kept.
const MaxLog = 8 << 20

// Bounds of the pauses between restarts.
const (
	minPause = 200 * time.Millisecond
	maxPause = 10 * time.Second
	// steady is how long an Envoy must have run for its crash to count as the first.
	steady = 30 * time.Second
)

// Run runs Envoy until ctx ends, and starts it again when it ends by itself. It
// returns once the last process is gone; its error says that none can be started.
func (p Process) Run(ctx context.Context) error {
	if p.Path == "" || p.Bootstrap == "" || p.LogPath == "" || p.Logger == nil {
		return errors.New("run Envoy: path, bootstrap, log file and logger are required")
	}
	if p.Grace == 0 {
		p.Grace = 3 * time.Second
	}
	pause := minPause
	for {
		start := time.Now()
		err := p.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		var failed *exec.ExitError
		if err != nil && !errors.As(err, &failed) {
			return fmt.Errorf("run Envoy: %w", err)
		}
		if time.Since(start) > steady {
			pause = minPause
		}
		p.Logger.Error("Envoy ended by itself and is started again", "bootstrap", p.Bootstrap, "error", err, "in", pause, "log", p.LogPath, "last", lastLines(p.LogPath, 3))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
}

// once runs one process to its end. The thread that starts it must live as long
// as it does: the parent-death signal is tied to the thread.
func (p Process) once(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ended <- p.exec(ctx)
	}()
	return <-ended
}

func (p Process) exec(ctx context.Context) error {
	log, err := openLog(p.LogPath)
	if err != nil {
		return err
	}
	defer log.Close()
	level, workers := p.LogLevel, p.Concurrency
	if level == "" {
		level = "warning"
	}
	if workers == 0 {
		workers = 1
	}
	cmd := exec.CommandContext(ctx, p.Path, "-c", p.Bootstrap, "--disable-hot-restart", "--concurrency", fmt.Sprint(workers), "--log-level", level)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = p.Grace
	return cmd.Run()
}

// logFile is written through a pipe, so that it can be rotated while Envoy runs.
type logFile struct {
	path string
	f    *os.File
	size int64
}

func openLog(path string) (*logFile, error) {
	l := &logFile{path: path}
	return l, l.open()
}

func (l *logFile) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open Envoy's log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("open Envoy's log: %w", err)
	}
	l.f, l.size = f, info.Size()
	return nil
}

// Write implements io.Writer; os/exec calls it from one goroutine.
func (l *logFile) Write(b []byte) (int, error) {
	if l.size+int64(len(b)) > MaxLog {
		l.f.Close()
		if err := os.Rename(l.path, l.path+".1"); err != nil {
			return 0, err
		}
		if err := l.open(); err != nil {
			return 0, err
		}
	}
	n, err := l.f.Write(b)
	l.size += int64(n)
	return n, err
}

func (l *logFile) Close() error { return l.f.Close() }

var _ io.WriteCloser = (*logFile)(nil)

func lastLines(path string, n int) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > 4096 {
		_, _ = f.Seek(-4096, io.SeekEnd)
	}
	b, _ := io.ReadAll(io.LimitReader(f, 4096))
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], " | ")
}

// Validate lets Envoy check a bootstrap file with all that it holds.
func Validate(ctx context.Context, path, bootstrap string) error {
	out, err := exec.CommandContext(ctx, path, "--mode", "validate", "-c", bootstrap, "--log-level", "error").CombinedOutput()
	if err != nil {
		return fmt.Errorf("envoy does not accept %s: %w\n%s", filepath.Base(bootstrap), err, out)
	}
	return nil
}
