package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a component that runs on its own: it outlives the process that has
// started it, and is found again by its file DIR/NAME.pid, which holds its id and
// when it was started, so that another process which got the same id later is not
// taken for it.
type process struct {
	dir  string // of NAME.pid and NAME.log
	name string
	args []string // argv
}

// start starts it. Its output is appended to its log.
func (p *process) start() error {
	log, err := os.OpenFile(p.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.args[0], p.args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	go func() { _ = cmd.Wait() }() // or it would stay as a zombie while this process lives
	started, err := startTime(cmd.Process.Pid)
	if err != nil {
		return p.died()
	}
	return os.WriteFile(p.pidPath(), fmt.Appendf(nil, "%d %s\n", cmd.Process.Pid, started), 0o644)
}

func (p *process) logPath() string { return filepath.Join(p.dir, p.name+".log") }
func (p *process) pidPath() string { return filepath.Join(p.dir, p.name+".pid") }

// pid is its id, or 0 if it does not run.
func (p *process) pid() int {
	b, err := os.ReadFile(p.pidPath())
	if err != nil {
		return 0
	}
	id, started, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	pid, err := strconv.Atoi(id)
	if err != nil || pid <= 1 || !isProcess(pid, started) {
		return 0
	}
	return pid
}

// stop sends the signal, waits for its end at most for grace, and then kills it.
func (p *process) stop(s syscall.Signal, grace time.Duration) error {
	pid := p.pid()
	if pid == 0 {
		_ = os.Remove(p.pidPath())
		return nil
	}
	if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	deadline := time.Now().Add(grace)
	for p.pid() != 0 {
		if time.Now().After(deadline) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			deadline = time.Now().Add(time.Minute)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return os.Remove(p.pidPath())
}

// died describes an unexpected end, by the end of the log.
func (p *process) died() error {
	return fmt.Errorf("%s: it has ended; the end of %s:\n%s", p.name, p.logPath(), tail(p.logPath(), 12))
}

// tail gives a file's last lines.
func tail(path string, lines int) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	const enough = 16 << 10
	if info, err := f.Stat(); err == nil && info.Size() > enough {
		_, _ = f.Seek(-enough, io.SeekEnd)
	}
	b, _ := io.ReadAll(f)
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// startTime is when a process was started, in ticks since the machine was.
func startTime(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The name, in brackets, may hold anything; state is the first field after it.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	const state, start = 0, 19
	if len(fields) <= start || string(fields[state]) == "Z" {
		return "", os.ErrProcessDone
	}
	return string(fields[start]), nil
}

func isProcess(pid int, started string) bool {
	now, err := startTime(pid)
	return err == nil && now == started
}

// run runs a command to its end. Its error has the command's output.
func run(ctx context.Context, argv ...string) error {
	_, err := output(ctx, argv...)
	return err
}

func output(ctx context.Context, argv ...string) ([]byte, error) {
	return outputOf(exec.CommandContext(ctx, argv[0], argv[1:]...))
}

func outputOf(cmd *exec.Cmd) ([]byte, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(errs.String())
		if text == "" {
			text = strings.TrimSpace(out.String())
		}
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, text)
	}
	return out.Bytes(), nil
}

// terminal is an error that asking again won't mend.
type terminal struct{ error }

func (t *terminal) Unwrap() error { return t.error }

// await asks again and again until there is no error or a terminal one, or ctx ends:
// the error then has both.
func await(ctx context.Context, what string, every time.Duration, ask func(context.Context) error) error {
	for {
		err := ask(ctx)
		var final *terminal
		if err == nil || errors.As(err, &final) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %w", what, context.Cause(ctx), err)
		case <-time.After(every):
		}
	}
}
