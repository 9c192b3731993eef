package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// claims is where labs say that they are there: one file for each slot.
const claims = "/run/causeway-lab"

// cniFolders is where distributions put the plugins of containernetworking.
var cniFolders = []string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"}

// tools are the programs of others that a lab needs, and Debian's packages of them.
var tools = []struct{ program, pkg string }{
	{"containerd", "containerd"}, {"ctr", "containerd"}, {"runc", "runc"}, {"iptables", "iptables"}, {"ip6tables", "iptables"},
	{"ip", "iproute2"}, {"nft", "nftables"}, {"nsenter", "util-linux"}, {"mount", "mount"},
}

// Prepare checks that this machine can run a lab, and installs packages that are missing
// where apt can.
func Prepare(ctx context.Context, log *slog.Logger) error {
	if runtime.GOOS != "linux" {
		return errors.New("the lab needs Linux: its clusters are network namespaces")
	}
	if os.Geteuid() != 0 {
		return errors.New("the lab needs root, for network namespaces and containers: run it with sudo, as in `sudo env PATH=$PATH make lab`")
	}
	if !exists("/proc/net/if_inet6") {
		return errors.New("the lab needs IPv6, which this machine's kernel has switched off (ipv6.disable=1)")
	}
	packages := missing()
	if len(packages) == 0 {
		return nil
	}
	list := strings.Join(packages, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("the lab needs what Debian has in its packages %s; install them", list)
	}
	log.Info("installing packages that the lab needs", "packages", list)
	for _, argv := range [][]string{{"apt-get", "update", "-qq"}, append([]string{"apt-get", "install", "-y", "-qq", "--no-install-recommends"}, packages...)} {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if _, err := outputOf(cmd); err != nil {
			return fmt.Errorf("install the packages %s: %w", list, err)
		}
	}
	if packages := missing(); len(packages) > 0 {
		return fmt.Errorf("the packages %s are installed, but what the lab needs of them is not on PATH %s", strings.Join(packages, " "), os.Getenv("PATH"))
	}
	return nil
}

func missing() []string {
	var out []string
	for _, t := range tools {
		if _, err := exec.LookPath(t.program); err != nil && !slices.Contains(out, t.pkg) {
			out = append(out, t.pkg)
		}
	}
	if cniFolder() == "" {
		out = append(out, "containernetworking-plugins")
	}
	return out
}

func cniFolder() string {
	for _, d := range cniFolders {
		if _, err := os.Stat(filepath.Join(d, "host-local")); err == nil {
			return d
		}
	}
	return ""
}

// claim says who has a slot. It lies on a file system that a restart of the machine
// empties, as are all other traces of a lab but its folder.
type claim struct {
	Slot     slot   `json:"slot"`
	Dir      string `json:"dir"`
	Clusters int    `json:"clusters"`
	// Detached: the lab stays when the process that made it ends, until Down. Otherwise
	// it is a leftover from the moment that Pid, which started at Started, is gone.
	Detached bool   `json:"detached"`
	Pid      int    `json:"pid"`
	Started  string `json:"started"`
	// Ready is set when all clusters have come up.
	Ready bool `json:"ready"`
}

func (c claim) path() string { return filepath.Join(claims, fmt.Sprintf("%d.json", int(c.Slot))) }

func (c claim) alive() bool { return c.Detached && c.Ready || isProcess(c.Pid, c.Started) }

func (c claim) members() []member {
	var out []member
	for n := 1; n <= c.Clusters; n++ {
		out = append(out, member{c.Slot, n})
	}
	return out
}

func (c claim) write() error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	tmp := c.path() + ".new"
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, c.path())
}

// readClaims returns all claims of this machine.
func readClaims() ([]claim, error) {
	files, err := filepath.Glob(filepath.Join(claims, "*.json"))
	if err != nil {
		return nil, err
	}
	var out []claim
	for _, f := range files {
		b, err := os.ReadFile(f)
		if errors.Is(err, os.ErrNotExist) {
			continue // its lab has just gone
		}
		if err != nil {
			return nil, err
		}
		var c claim
		if err := json.Unmarshal(b, &c); err != nil || filepath.Base(c.path()) != filepath.Base(f) || c.Slot < 0 || c.Slot >= maxLabs {
			return nil, fmt.Errorf("%s is not what a lab has written; remove it", f)
		}
		out = append(out, c)
	}
	return out, nil
}

// stake cleans up after labs whose process was killed, and takes the first free slot
// whose addresses the machine does not use for something else.
func stake(ctx context.Context, o Options, log *slog.Logger) (claim, error) {
	if err := os.MkdirAll(claims, 0o755); err != nil {
		return claim{}, err
	}
	unlock, err := lock(ctx, filepath.Join(claims, "lock"))
	if err != nil {
		return claim{}, err
	}
	defer unlock()
	all, err := readClaims()
	if err != nil {
		return claim{}, err
	}
	taken := map[slot]bool{}
	for _, c := range all {
		if c.alive() {
			taken[c.Slot] = true
			continue
		}
		log.Info("cleaning up after a lab whose process is gone", "slot", int(c.Slot), "pid", c.Pid)
		if err := c.destroy(ctx); err != nil {
			return claim{}, err
		}
	}
	used, err := net.InterfaceAddrs()
	if err != nil {
		return claim{}, err
	}
	started, err := startTime(os.Getpid())
	if err != nil {
		return claim{}, err
	}
	for s := range slot(maxLabs) {
		if taken[s] || inUse(s, used) {
			continue
		}
		c := claim{Slot: s, Dir: o.Dir, Clusters: o.Clusters, Detached: o.Detached, Pid: os.Getpid(), Started: started}
		if c.Dir == "" {
			c.Dir = fmt.Sprintf("/var/tmp/%s", s.link())
		}
		if c.Dir, err = filepath.Abs(c.Dir); err != nil {
			return claim{}, err
		}
		if o.Dir == "" {
			if err := os.RemoveAll(c.Dir); err != nil { // of before the machine was restarted
				return claim{}, err
			}
		} else if entries, err := os.ReadDir(c.Dir); err == nil && len(entries) > 0 {
			return claim{}, fmt.Errorf("the lab's folder %s is not empty", c.Dir)
		}
		return c, c.write()
	}
	return claim{}, fmt.Errorf("all %d places for labs on this machine are taken, or their addresses are; `make lab-down` removes labs", maxLabs)
}

func inUse(s slot, used []net.Addr) bool {
	whole := netip.PrefixFrom(s.address4(), 16).Masked()
	return slices.ContainsFunc(used, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && p.Overlaps(whole) && p.Bits() >= 8
	})
}
