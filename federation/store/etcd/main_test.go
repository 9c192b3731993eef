package etcd_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/causeway-mesh/causeway/federation/store/etcd/embedded"
	"github.com/causeway-mesh/causeway/federation/store/etcd/etcdtest"
)

// serverDir makes this test binary an etcd server instead: in a process of its
// own it can be killed.
const serverDir = "CAUSEWAY_TEST_ETCD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(serverDir); dir != "" {
		if err := serve(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serve runs a server until standard input ends, that is, until the test does.
func serve(dir string) error {
	cfg := embedded.Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	for name, to := range map[string]*[]byte{"ca": &cfg.CA, "cert": &cfg.Cert, "key": &cfg.Key} {
		b, err := os.ReadFile(filepath.Join(dir, "given-"+name))
		if err != nil {
			return err
		}
		*to = b
	}
	s, err := embedded.New(cfg)
	if err != nil {
		return err
	}
	if err := s.Start(context.Background()); err != nil {
		return err
	}
	fmt.Println(s.Endpoint())
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return s.Close()
}

// process is an etcd in a process of its own.
type process struct {
	*etcdtest.Authority
	dir      string
	endpoint string

	mu  sync.Mutex
	cmd *exec.Cmd
}

func startProcess(t testing.TB) *process {
	t.Helper()
	p := &process{Authority: etcdtest.NewAuthority(t), dir: t.TempDir()}
	cfg := p.ServerConfig(t, p.dir)
	for name, b := range map[string][]byte{"ca": cfg.CA, "cert": cfg.Cert, "key": cfg.Key} {
		if err := os.WriteFile(filepath.Join(p.dir, "given-"+name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.start(t)
	t.Cleanup(func() { p.kill(t) })
	return p
}

func (p *process) start(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), serverDir+"="+p.dir)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	// Held open by this process alone: should it die, so does the server.
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		cmd.Process.Kill() //nolint:errcheck // it is over anyhow
		t.Fatalf("server process did not start: %v, %v", err, cmd.Wait())
	}
	endpoint := strings.TrimSpace(line)
	if p.endpoint != "" && endpoint != p.endpoint {
		t.Errorf("server moved from %s to %s", p.endpoint, endpoint)
	}
	p.endpoint, p.cmd = endpoint, cmd
}

// kill ends the server as a power failure would.
func (p *process) kill(t testing.TB) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	if err := p.cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	p.cmd.Wait() //nolint:errcheck // always "killed"
	p.cmd = nil
}

// signal sends SIGSTOP or SIGCONT.
func (p *process) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// proxy is a way to a server that can be cut.
type proxy struct {
	l      net.Listener
	target string

	mu    sync.Mutex
	conns []net.Conn
	wg    sync.WaitGroup
}

func startProxy(t testing.TB, endpoint string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l, target: strings.TrimPrefix(endpoint, "https://")}
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Add(1)
			go p.pass(c)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) endpoint() string { return "https://" + p.l.Addr().String() }

func (p *proxy) pass(c net.Conn) {
	defer p.wg.Done()
	defer c.Close()
	s, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer s.Close()
	p.mu.Lock()
	p.conns = append(p.conns, c, s)
	p.mu.Unlock()
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		io.Copy(s, c) //nolint:errcheck // being cut is what it is for
		s.Close()
		c.Close()
	}()
	io.Copy(c, s) //nolint:errcheck // the same
}

// cut breaks all connections; new ones are taken at once.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}
