package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Each part runs in a process of its own, so that what it uses can be told apart:
// etcd, each agent, the hub. The driver, which also plays the proxies, starts them
// and speaks with them over stdin and stdout, one JSON object a line each way.

// setup is the first line that a part is sent.
type setup struct {
	Part  string // partStore, partAgent, partHub
	World world
	Index int // of the cluster
	Dir   string
	Store storeSetup
	Key   string // of gossip
	Edits []edit // that have been made before
	// Profile: allocations will be profiled, more closely than by default.
	Profile bool
}

// storeSetup is how to reach etcd, or in etcd itself what to present.
type storeSetup struct {
	Endpoint      string
	CA, Cert, Key []byte
}

// String hides the key.
func (s storeSetup) String() string { return "store at " + s.Endpoint }

// GoString hides the key.
func (s storeSetup) GoString() string { return s.String() }

const (
	partStore = "store"
	partAgent = "agent"
	partHub   = "hub"
)

// started is a part's first answer.
type started struct {
	Address string // etcd: of clients; agent: of xDS
	Gossip  string
	Error   string
}

// request asks a part for something; only one field is set.
type request struct {
	Edit    *edit  // deliver it
	Burst   *burst // deliver many
	Peers   []string
	Usage   bool // what was used so far
	Heap    bool // what is live
	Hold    bool // collect garbage, then no more until Resume
	Resume  bool
	Settle  *settle
	Profile string // a folder: profile until the next request with "-"
}

// burst delivers edits, Count of them, evenly over Within.
type burst struct {
	Count  int
	Within time.Duration
}

// edit is the i-th of a burst. Some services change once, others twice.
func (b burst) edit(w world, i int) edit { return edit{editReady, i * 2 / 3 % w.Services} }

// settle waits until all that was delivered is in the store (Flush), and until
// everything up to Revision is with all connected proxies, of which there are
// Proxies at least.
type settle struct {
	Flush    bool
	Revision int64
	Proxies  int
}

// response answers a request.
type response struct {
	Error    string
	At       int64 // ns since 1970: when the edit was delivered, or the first and...
	Until    int64 // ...the last of a burst
	Revision int64
	Usage    usage
	Heap     heap
	Cycle    cycle
}

// usage is what a process has used since its start.
type usage struct {
	CPU     time.Duration // user and system
	Allocs  uint64        // objects
	Bytes   uint64
	Written uint64 // bytes to disk, as the kernel counts them
}

func (u usage) minus(o usage) usage {
	return usage{u.CPU - o.CPU, u.Allocs - o.Allocs, u.Bytes - o.Bytes, u.Written - o.Written}
}

func (u usage) plus(o usage) usage {
	return usage{u.CPU + o.CPU, u.Allocs + o.Allocs, u.Bytes + o.Bytes, u.Written + o.Written}
}

// heap is what a process holds.
type heap struct {
	Live     uint64 // bytes of reachable objects
	Objects  uint64
	Resident uint64
}

// cycle is a collection of garbage: what it takes, and after how much there is another.
type cycle struct {
	CPU  time.Duration
	Room uint64 // bytes allocated between two, as the runtime plans it
}

// share is what an allocation of so many bytes takes of collections to come.
func (c cycle) share(bytes uint64) time.Duration {
	return time.Duration(float64(c.CPU) * float64(bytes) / float64(max(1, c.Room)))
}

// process is the driver's end of a part.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended

	mu  sync.Mutex // one request at a time
	in  *json.Encoder
	out *json.Decoder
}

// start runs a part and waits for its first answer. It ends with ctx, or by stop.
func start(ctx context.Context, name string, s setup, log *os.File) (*process, started, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, started{}, err
	}
	cmd := exec.CommandContext(ctx, exe, "-part")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, started{}, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, started{}, err
	}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return nil, started{}, err
	}
	p := &process{name: name, cmd: cmd, done: make(chan struct{}), in: json.NewEncoder(stdin), out: json.NewDecoder(bufio.NewReader(stdout))}
	var first started
	err = p.in.Encode(s)
	if err == nil {
		err = p.out.Decode(&first)
	}
	if err == nil && first.Error != "" {
		err = errors.New(first.Error)
	}
	if err != nil {
		p.kill()
		return nil, started{}, fmt.Errorf("%s does not start: %w", name, err)
	}
	return p, first, nil
}

// ask sends a request and waits for the answer.
func (p *process) ask(r request) (response, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out response
	err := p.in.Encode(r)
	if err == nil {
		err = p.out.Decode(&out)
	}
	if err == nil && out.Error != "" {
		err = errors.New(out.Error)
	}
	if err != nil {
		return out, fmt.Errorf("%s: %w", p.name, err)
	}
	return out, nil
}

// kill ends the process at once, as a machine that fails would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}
