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
	"syscall"
	"time"
)

// Process describes one Envoy to run.
type Process struct {
	Path      string // of the binary, from Find
	Bootstrap string // file
	// LogPath takes what Envoy prints. It is rotated once it has grown beyond
	// MaxLog, when Envoy starts and while it runs.
	LogPath string
	// Output, if not nil, takes what Envoy prints instead: os.Stderr in a container,
	// whose log others rotate. It must not fail or block for long; Envoy waits for it.
	Output      io.Writer
	LogLevel    string // Envoy's --log-level; "warning" if empty
	Concurrency int    // worker threads; 1 if zero
	Logger      *slog.Logger
	// Grace is how long Envoy may take to stop after SIGTERM; 3 s if zero.
	Grace time.Duration
	// Admin is the unix socket of the bootstrap's admin interface, and Drain how long
	// Envoy turns its clients away before it is told to stop. Not at all if zero.
	Admin string
	Drain time.Duration
}

// Bounds of the pauses between restarts.
const (
	minPause = 200 * time.Millisecond
	maxPause = 10 * time.Second
	// steady is how long an Envoy must have run for its crash to count as the first.
	steady = 30 * time.Second
)

func (p *Process) complete() (*admin, error) {
	if p.Path == "" || p.Bootstrap == "" || p.LogPath == "" && p.Output == nil || p.Logger == nil {
		return nil, errors.New("run Envoy: path, bootstrap, logger, and log file or output are required")
	}
	if p.Grace == 0 {
		p.Grace = 3 * time.Second
	}
	if p.LogLevel == "" {
		p.LogLevel = "warning"
	}
	if p.Concurrency == 0 {
		p.Concurrency = 1
	}
	if p.Drain == 0 {
		return nil, nil
	}
	if p.Admin == "" {
		return nil, errors.New("run Envoy: to drain it, its admin socket is required")
	}
	return newAdmin(p.Admin)
}

// Run runs Envoy until ctx ends, and starts it again when it ends by itself. It
// returns once the last process is gone; its error says that none can be started.
func (p Process) Run(ctx context.Context) error {
	a, err := p.complete()
	if err != nil {
		return err
	}
	pause := minPause
	for {
		start := time.Now()
		err := p.once(ctx, a)
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
		args := []any{"bootstrap", p.Bootstrap, "error", err, "in", pause}
		if p.Output == nil {
			args = append(args, "log", p.LogPath, "last", lastLines(p.LogPath, 3))
		}
		p.Logger.Error("Envoy ended by itself and is started again", args...)
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
func (p Process) once(ctx context.Context, a *admin) error {
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ended <- p.exec(ctx, a)
	}()
	return <-ended
}

func (p Process) exec(ctx context.Context, a *admin) error {
	log := p.Output
	if log == nil {
		f, err := openLog(p.LogPath, MaxLog)
		if err != nil {
			return err
		}
		defer f.Close()
		log = f
	}
	cmd := exec.CommandContext(ctx, p.Path, "-c", p.Bootstrap, "--disable-hot-restart", "--drain-time-s", "5",
		"--concurrency", fmt.Sprint(p.Concurrency), "--log-level", p.LogLevel)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error {
		if a != nil {
			p.drain(a, cmd.Process)
		}
		return cmd.Process.Signal(syscall.SIGTERM)
	}
	cmd.WaitDelay = p.Grace // from the end of Cancel; then SIGKILL
	return cmd.Run()
}

// drain lets Envoy's clients go elsewhere for a while, or until it is gone.
func (p Process) drain(a *admin, envoy *os.Process) {
	ctx, cancel := context.WithTimeout(context.Background(), p.Drain)
	defer cancel()
	if err := a.drain(ctx); err != nil {
		p.Logger.Warn("Envoy is stopped without being drained", "bootstrap", p.Bootstrap, "error", err)
		return
	}
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for envoy.Signal(syscall.Signal(0)) == nil {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Validate lets Envoy check a bootstrap file with all that it holds.
func Validate(ctx context.Context, path, bootstrap string) error {
	out, err := exec.CommandContext(ctx, path, "--mode", "validate", "-c", bootstrap, "--log-level", "error").CombinedOutput()
	if err != nil {
		return fmt.Errorf("envoy does not accept %s: %w\n%s", filepath.Base(bootstrap), err, out)
	}
	return nil
}
