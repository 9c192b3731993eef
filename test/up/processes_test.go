package up_test

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/causeway-mesh/causeway/federation/store"
	"github.com/causeway-mesh/causeway/federation/store/etcd"
	"github.com/causeway-mesh/causeway/federation/store/etcd/etcdtest"
)

// patience is how long a story waits for what must become true.
const patience = 90 * time.Second

type storyKey struct{}

// story is what one script has going on.
type story struct {
	*testscript.TestScript
	t     *testing.T
	state string

	process *exec.Cmd
	exit    chan error // gets what process.Wait said
	traffic []*traffic
	held    []net.Listener
	issuers map[string]issuer
	server  *etcdtest.Server // of the command etcd
}

// stop ends what the script left.
func (s *story) stop() {
	for _, l := range s.traffic {
		l.cancel()
		<-l.done
	}
	for _, l := range s.held {
		_ = l.Close()
	}
	s.checkLogs()
	if s.process == nil {
		return
	}
	_ = s.process.Process.Signal(syscall.SIGINT)
	select {
	case <-s.exit:
	case <-time.After(time.Minute):
		_ = s.process.Process.Kill()
		<-s.exit
		s.t.Error("causeway up did not end within a minute of SIGINT")
	}
}

// checkLogs fails the story for what must never be logged, whatever it is about.
func (s *story) checkLogs() {
	if s.TestScript == nil {
		return // it ended before its first command
	}
	log, _ := os.ReadFile(s.MkAbs("up.log"))
	if at := bytes.Index(log, []byte("panic")); at >= 0 {
		s.t.Errorf("causeway panicked:\n%s", log[at:])
	}
	logs, _ := filepath.Glob(filepath.Join(s.state, "proxies", "*", "*", "envoy.log"))
	for _, name := range logs {
		// Envoy gives up waiting for what a server does not answer after 15 s.
		if text, _ := os.ReadFile(name); bytes.Contains(text, []byte("initial fetch timed out")) {
			s.t.Errorf("an Envoy was left without an answer at its start: %s says\n%s", strings.TrimPrefix(name, s.state), text)
		}
	}
}

// up DIR [FLAG...] starts `causeway up` and waits until all is in place. What it
// prints is in up.log.
func (s *story) up(neg bool, args []string) {
	s.plain(neg, "up", len(args) >= 1)
	if s.process != nil {
		s.Fatalf("up: already running")
	}
	log, err := os.Create(s.MkAbs("up.log"))
	s.Check(err)
	defer func() { _ = log.Close() }()
	args = append([]string{"up", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"}, args...)
	cmd := exec.Command(filepath.Join(binDir, "causeway"), args...)
	cmd.Dir, cmd.Env = s.MkAbs("."), s.environ()
	cmd.Stdout, cmd.Stderr = log, log
	s.Check(cmd.Start())
	exit := make(chan error, 1)
	go func() { exit <- cmd.Wait() }()
	s.process, s.exit = cmd, exit
	s.settle(false, nil)
}

// environ is the script's environment, for processes that Exec can't start.
func (s *story) environ() []string {
	env := os.Environ()
	for _, name := range []string{"PATH", "CAUSEWAY_STATE", "CAUSEWAY_ENVOY", "TMPDIR", "HOME"} {
		env = append(env, name+"="+s.Getenv(name))
	}
	return env
}

// settle waits until every cluster is alive and every Envoy has acknowledged what
// the files say now.
func (s *story) settle(neg bool, args []string) {
	s.plain(neg, "settle", len(args) == 0)
	if err := s.Exec("causeway", "status", "--wait="+patience.String()); err != nil {
		log, _ := os.ReadFile(s.MkAbs("up.log"))
		s.Fatalf("settle: %v\nup.log:\n%s", err, log)
	}
}

// plain refuses `!` and wrong numbers of arguments.
func (s *story) plain(neg bool, name string, ok bool) {
	if neg || !ok {
		s.Fatalf("%s: see its comment in processes_test.go, requests_test.go, files_test.go or tls_test.go", name)
	}
}

// hold-port VAR listens on a free port of all addresses, and says which in $VAR.
func (s *story) holdPort(neg bool, args []string) {
	s.plain(neg, "hold-port", len(args) == 1)
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	s.Check(err)
	s.held = append(s.held, l)
	s.Setenv(args[0], strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
}

// etcd CLUSTER... starts an etcd beside causeway, with users for these clusters. It
// is at $ETCD; ca.pem, root.pem and root-key.pem are its administrator's files.
func (s *story) etcd(neg bool, args []string) {
	s.plain(neg, "etcd", len(args) > 0)
	server := etcdtest.Start(s.t, args...)
	s.server = server
	cert, key := server.Issue(s.t, "root")
	s.write("ca.pem", string(server.CA()))
	s.write("root.pem", string(cert))
	s.write("root-key.pem", string(key))
	s.Setenv("ETCD", "etcd://"+strings.TrimPrefix(server.Endpoint(), "https://"))
}

// stored ADDRESS wants some value in that etcd to hold an address; ! stored, none.
func (s *story) stored(neg bool, args []string) {
	s.plain(false, "stored", len(args) == 1 && s.server != nil)
	addr, err := netip.ParseAddr(args[0])
	s.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	records, _, err := s.server.Connect(s.t, etcd.HubUser).List(ctx, store.Root, 0)
	s.Check(err)
	for _, kv := range records {
		if bytes.Contains(kv.Value, addr.AsSlice()) || bytes.Contains(kv.Value, []byte(addr.String())) {
			if neg {
				s.Fatalf("%s of the store holds %s", kv.Key, addr)
			}
			return
		}
	}
	if !neg || len(records) == 0 {
		s.Fatalf("none of the store's %d values holds %s", len(records), addr)
	}
}

// signal INT|KILL sends it to causeway up.
func (s *story) signal(neg bool, args []string) {
	s.plain(neg, "signal", len(args) == 1 && s.process != nil)
	which, ok := map[string]os.Signal{"INT": syscall.SIGINT, "KILL": syscall.SIGKILL}[args[0]]
	s.plain(neg, "signal", ok)
	if len(s.envoys()) == 0 {
		s.Fatalf("signal: no Envoy runs, so that none can be left over")
	}
	s.Check(s.process.Process.Signal(which))
}

// ended waits for causeway up's exit, with status 0; ! ended, with any other.
func (s *story) ended(neg bool, args []string) {
	s.plain(false, "ended", len(args) == 0 && s.process != nil)
	select {
	case err := <-s.exit:
		s.process = nil
		if (err != nil) != neg {
			log, _ := os.ReadFile(s.MkAbs("up.log"))
			s.Fatalf("causeway up ended with %v\nup.log:\n%s", err, log)
		}
	case <-time.After(patience):
		s.Fatalf("causeway up did not end within %v", patience)
	}
}

// no-envoys waits until no process of this story is left.
func (s *story) noEnvoys(neg bool, args []string) {
	s.plain(neg, "no-envoys", len(args) == 0)
	deadline := time.Now().Add(time.Minute)
	for {
		left := s.envoys()
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			s.Fatalf("processes left: %v", left)
		}
		time.Sleep(50 * time.Millisecond) // processes can't be awaited by strangers
	}
}

// envoys lists the processes whose command line names the story's state folder.
func (s *story) envoys() []string {
	var out []string
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range lines {
		text, err := os.ReadFile(f)
		if err != nil || !bytes.Contains(text, []byte(s.state+"/")) {
			continue
		}
		out = append(out, filepath.Base(filepath.Dir(f))+": "+strings.ReplaceAll(string(text), "\x00", " "))
	}
	return out
}
