// Command demo shows Causeway at work: it starts `causeway up` on a copy of
// deploy/examples/archipelago (embedded etcd, real Envoys), drives it with the
// causeway command and grpcurl as a person would, edits manifests meanwhile, and
// prints what was asked, what governed it, who answered and what was expected.
// It exits with 0 only if everything was as expected, and leaves no process
// behind. Run it by `make demo`.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	bin := flag.String("bin", "bin", "folder with the causeway and grpcurl binaries")
	dir := flag.String("clusters", "deploy/examples/archipelago", "folder of clusters")
	keep := flag.Bool("keep", false, "keep the working folder, for looking at logs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *bin, *dir, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin, dir string, keep bool) (err error) {
	tmp, err := os.MkdirTemp("", "causeway-demo-")
	if err != nil {
		return err
	}
	defer func() {
		if keep || err != nil {
			fmt.Fprintln(os.Stderr, "demo: manifests, state and logs are in", tmp)
			return
		}
		_ = os.RemoveAll(tmp)
	}()
	d := &demo{ctx: ctx, dir: filepath.Join(tmp, "clusters"), state: filepath.Join(tmp, "state"), out: os.Stdout}
	for _, b := range []struct {
		name string
		path *string
	}{{"causeway", &d.causeway}, {"grpcurl", &d.grpcurl}} {
		if *b.path, err = filepath.Abs(filepath.Join(bin, b.name)); err != nil {
			return err
		}
		if _, err := os.Stat(*b.path); err != nil {
			return fmt.Errorf("%w; run `make demo`, which builds it", err)
		}
	}
	if err := os.CopyFS(d.dir, os.DirFS(dir)); err != nil {
		return fmt.Errorf("copy the example clusters: %w", err)
	}

	start := time.Now()
	shut, err := d.up(filepath.Join(tmp, "up.log"))
	if err != nil {
		return err
	}
	defer func() {
		if e := shut(); e != nil {
			err = errors.Join(err, e)
		}
	}()
	fmt.Fprintln(d.out, "waiting until every cluster is alive and every Envoy has what it needs")
	if err := d.settle("60s"); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "up after %.1f s\n", time.Since(start).Seconds())

	d.header()
	for _, s := range stories {
		fmt.Fprintf(d.out, "\n%s\n", s.title)
		if err := s.tell(d); err != nil {
			return fmt.Errorf("%s: %w", s.title, err)
		}
	}
	fmt.Fprintf(d.out, "\n%d passed, %d failed\n", d.passed, d.failed)
	fmt.Fprintf(d.out, "took %.1f s\n", time.Since(start).Seconds())
	if d.failed > 0 {
		return fmt.Errorf("%d of %d expectations did not hold", d.failed, d.passed+d.failed)
	}
	return nil
}

// demo drives one running `causeway up`.
type demo struct {
	ctx               context.Context
	causeway, grpcurl string
	dir, state        string
	out               io.Writer
	passed, failed    int
}

// up starts causeway up; the function it returns stops it as Ctrl-C does.
func (d *demo) up(log string) (func() error, error) {
	f, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(d.causeway, "up", d.dir, "--state", d.state)
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	fmt.Fprintln(d.out, "$ causeway up deploy/examples/archipelago   # log:", log)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait(); f.Close() }()
	// `up` writes its context file once its API answers.
	for deadline := time.Now().Add(30 * time.Second); ; {
		if _, err := os.Stat(filepath.Join(d.state, "client.yaml")); err == nil {
			break
		}
		select {
		case err := <-done:
			text, _ := os.ReadFile(log)
			if err == nil {
				err = errors.New("exit 0")
			}
			return nil, fmt.Errorf("causeway up ended: %w\n%s", err, tail(string(text), 20))
		case <-d.ctx.Done():
			_ = cmd.Process.Kill()
			return nil, d.ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			return nil, fmt.Errorf("causeway up did not get ready in 30 s; see %s", log)
		}
	}
	return func() error {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case err := <-done:
			if err != nil {
				return fmt.Errorf("causeway up ended badly: %w; see %s", err, log)
			}
			return nil
		case <-time.After(20 * time.Second):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			return errors.New("causeway up did not stop within 20 s of Ctrl-C")
		}
	}, nil
}

// cli runs the causeway command and gives what it printed.
func (d *demo) cli(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(d.ctx, 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.causeway, append(args, "--state", d.state)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("causeway %s: %w\n%s%s", strings.Join(args, " "), err, tail(out.String(), 15), tail(errs.String(), 15))
	}
	return out.String(), nil
}

// settle waits until what the manifests say is what the Envoys do.
func (d *demo) settle(wait string) error {
	_, err := d.cli("status", "--wait="+wait)
	return err
}

// count is one line of what `causeway request -o json` counts.
type count struct {
	Cluster, Namespace, Pod string
	Status, Count           int
}

// answers is what `causeway request -o json` prints.
type answers struct {
	Answers []struct {
		Status  int                 `json:"status"`
		Headers map[string][]string `json:"headers"`
		Body    json.RawMessage     `json:"body"`
	} `json:"answers"`
	Counts []count `json:"counts"`
}

// by adds up the counts by a property of the answer.
func (a answers) by(f func(count) string) map[string]int {
	m := map[string]int{}
	for _, c := range a.Counts {
		m[f(c)] += c.Count
	}
	return m
}

// route is the chain of routes that governed the first answer.
func (a answers) route() string {
	if len(a.Answers) == 0 {
		return ""
	}
	if a.Answers[0].Status == 0 {
		return "-" // bytes and datagrams have no headers that could tell
	}
	for k, v := range a.Answers[0].Headers {
		if strings.EqualFold(k, "x-causeway-route") {
			var short []string
			for _, r := range strings.Split(strings.Join(v, ","), ",") {
				// kind/ns/name@cluster/rule/match, or plain/kind/ns/name.
				p := strings.Split(strings.TrimSpace(r), "/")
				if p[0] == "plain" {
					short = append(short, "no route")
				} else if len(p) >= 3 {
					short = append(short, p[1]+"/"+p[2])
				}
			}
			return strings.Join(short, " > ")
		}
	}
	return "none of our rules"
}

func (d *demo) request(from, url string, n int, extra ...string) (answers, error) {
	var a answers
	out, err := d.cli(append([]string{"request", "--from", from, url, "-n", fmt.Sprint(n), "-o", "json"}, extra...)...)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal([]byte(out), &a); err != nil {
		return a, fmt.Errorf("causeway request printed no JSON: %w\n%s", err, tail(out, 5))
	}
	return a, nil
}

func (d *demo) write(name, text string) error {
	return os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o644)
}

func (d *demo) edit(name, old, with string) error {
	b, err := os.ReadFile(filepath.Join(d.dir, name))
	if err != nil {
		return err
	}
	if !strings.Contains(string(b), old) {
		return fmt.Errorf("%s no longer holds %q", name, old)
	}
	return d.write(name, strings.Replace(string(b), old, with, 1))
}

const rowFormat = "  %-6s %-22s %-38s %-41s %-68s %s\n"

func (d *demo) header() {
	fmt.Fprintf(d.out, rowFormat, "", "FROM", "TO", "GOVERNED BY", "ANSWERED BY", "EXPECTED")
}

// row prints one expectation and counts it.
func (d *demo) row(from, to, route, answered, expected string, ok bool) {
	mark := "ok"
	if ok {
		d.passed++
	} else {
		d.failed++
		mark = "FAILED"
	}
	fmt.Fprintf(d.out, rowFormat, mark, from, to, route, answered, expected)
}

func tail(s string, lines int) string {
	l := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(l) > lines {
		l = l[len(l)-lines:]
	}
	return strings.Join(l, "\n")
}
