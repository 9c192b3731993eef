package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	cgroupFS    = "/sys/fs/cgroup"
	shimSockets = "/run/containerd/s/"   // of containerd's shims, whoever's
	cniResults  = "/var/lib/cni/results" // of libcni, whoever's
	logLinks    = "/var/log/containers"  // of kubelets, whoever's
)

// destroy removes all that there is of a lab, in whatever state it is. It may be called again.
// It goes by what the kernel says: processes of a lab are those in its nodes' network
// namespaces and those in its cgroups, which nothing started by them gets out of.
func (c claim) destroy(ctx context.Context) error {
	var errs []error
	spaces := map[string]bool{} // the network namespaces' ids, as /proc/PID/ns/net has them
	for _, m := range c.members() {
		var st syscall.Stat_t
		if syscall.Stat(m.netns(), &st) == nil {
			spaces[fmt.Sprintf("net:[%d]", st.Ino)] = true
		}
	}
	sockets := map[string]bool{}
	errs = append(errs, await(ctx, "the end of the lab's processes", 20*time.Millisecond, func(context.Context) error {
		pids := c.processes(spaces)
		for _, pid := range pids {
			for _, s := range socketsOf(pid) {
				sockets[s] = true
			}
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if len(pids) > 0 {
			return fmt.Errorf("processes %v go on", pids)
		}
		return nil
	}))
	for s := range sockets {
		errs = append(errs, absent(os.Remove(s)))
	}
	errs = append(errs, c.unmount())
	if exists("/sys/class/net/" + c.Slot.link()) {
		errs = append(errs, ip(ctx, "", "link del "+c.Slot.link()))
	}
	for _, name := range append(c.names(), c.Slot.wire()) {
		if exists(netnsPath(name)) {
			errs = append(errs, ip(ctx, "", "netns del "+name))
		}
	}
	for _, name := range c.names() {
		errs = append(errs, removeCgroups(ctx, name), os.RemoveAll(runDir(name)))
		left, _ := filepath.Glob(filepath.Join(cniResults, name+"-*-eth0"))
		for _, f := range left {
			// A pod has one result by its network's name, and one for loopback by its own.
			pod := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), name+"-"), "-eth0")
			errs = append(errs, absent(os.Remove(filepath.Join(cniResults, "cni-loopback-"+pod+"-lo"))), absent(os.Remove(f)))
		}
	}
	links, _ := filepath.Glob(filepath.Join(logLinks, "*"))
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && strings.HasPrefix(to, c.Dir+"/") {
			errs = append(errs, absent(os.Remove(l)))
		}
	}
	errs = append(errs, os.RemoveAll(c.Dir))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove lab %d: %w", int(c.Slot), err)
	}
	// Folders that all labs share go with the last thing in them.
	for _, dir := range []string{logLinks, cniResults, filepath.Dir(cniResults), shimSockets, filepath.Dir(filepath.Clean(shimSockets))} {
		_ = os.Remove(dir)
	}
	return absent(os.Remove(c.path()))
}

func (c claim) names() []string {
	var out []string
	for _, m := range c.members() {
		out = append(out, m.name())
	}
	return out
}

// runDir holds a node's sockets and its containers' state: a short path, on memory.
func runDir(name string) string { return "/run/" + name }

// processes lists the lab's processes, but for zombies and for this one.
func (c claim) processes(spaces map[string]bool) []int {
	entries, _ := os.ReadDir("/proc")
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if _, err := startTime(pid); err != nil {
			continue
		}
		space, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
		if spaces[space] || c.inCgroup(pid) {
			out = append(out, pid)
		}
	}
	return out
}

func (c claim) inCgroup(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		// HIERARCHY:CONTROLLERS:/PATH
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && slices.Contains(c.names(), strings.SplitN(strings.TrimPrefix(f[2], "/"), "/", 2)[0]) {
			return true
		}
	}
	return false
}

// socketsOf lists the sockets of shims in the network namespace of a process.
func socketsOf(pid int) []string {
	f, err := os.Open(fmt.Sprintf("/proc/%d/net/unix", pid))
	if err != nil {
		return nil
	}
	defer f.Close()
	var out []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if i := strings.Index(s.Text(), shimSockets); i >= 0 {
			out = append(out, s.Text()[i:])
		}
	}
	return out
}

// unmount detaches what is mounted below the lab's folders, the innermost first.
func (c claim) unmount() error {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	var errs []error
	lines := strings.Split(string(b), "\n")
	for _, line := range slices.Backward(lines) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		below := func(dir string) bool { return strings.HasPrefix(f[1], dir+"/") }
		if below(c.Dir) || slices.ContainsFunc(c.names(), func(n string) bool { return below(runDir(n)) }) {
			if err := syscall.Unmount(f[1], syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
				errs = append(errs, fmt.Errorf("unmount %s: %w", f[1], err))
			}
		}
	}
	return errors.Join(errs...)
}

// removeCgroups removes the cgroup and what is in it from all hierarchies, as soon as the
// last of their processes is reaped.
func removeCgroups(ctx context.Context, name string) error {
	roots, err := filepath.Glob(filepath.Join(cgroupFS, "*", name))
	if err != nil {
		return err
	}
	for _, root := range append(roots, filepath.Join(cgroupFS, name)) {
		if err := await(ctx, "the end of cgroup "+root, 20*time.Millisecond, func(context.Context) error {
			var dirs []string
			_ = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, p)
				}
				return nil
			})
			for _, d := range slices.Backward(dirs) { // a folder comes before what is in it
				if err := syscall.Rmdir(d); err != nil && !errors.Is(err, syscall.ENOENT) {
					return fmt.Errorf("%s: %w", d, err)
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func absent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
