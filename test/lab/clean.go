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
	podCgroups  = "k8s.io"               // where containerd has its containers' cgroups, whoever's

	// Below a node's run folder, one folder for each container.
	containerdTasks = "state/io.containerd.runtime.v2.task/k8s.io"
	runcStates      = "runc/k8s.io"
)

// destroy removes all that there is of a lab, in whatever state it is. It may be called again.
// It goes by what the kernel says: see traces.
func (c claim) destroy(ctx context.Context) error {
	var errs []error
	t, sockets := c.newTraces(), map[string]bool{}
	errs = append(errs, await(ctx, "the end of the lab's processes", 20*time.Millisecond, func(context.Context) error {
		// What still runs may have started pods since the last look.
		if err := t.look(); err != nil {
			return err
		}
		pids := t.processes()
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
	for id := range t.containers {
		errs = append(errs, removeCgroups(ctx, filepath.Join(podCgroups, id)))
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
	shared := []string{logLinks, cniResults, filepath.Dir(cniResults), shimSockets, filepath.Dir(filepath.Clean(shimSockets))}
	for _, dir := range append(shared, cgroups(podCgroups)...) {
		_ = syscall.Rmdir(dir)
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

// traces are by what a lab's processes are known: its nodes' network namespaces, its pods',
// which are mounted below the nodes' run folders, and the cgroups of its containers, whose
// names their runtime keeps there. Nothing that a lab has started gets out of all of them:
// what belongs to no container is in a node's network namespace, and a container is in its
// cgroup before it is in its namespaces.
type traces struct {
	claim
	spaces     map[string]bool // the network namespaces' ids, as /proc/PID/ns/net has them
	containers map[string]bool
}

func (c claim) newTraces() *traces {
	return &traces{claim: c, spaces: map[string]bool{}, containers: map[string]bool{}}
}

// look adds what there is now. It forgets nothing.
func (t *traces) look() error {
	for _, m := range t.members() {
		var st syscall.Stat_t
		if syscall.Stat(m.netns(), &st) == nil {
			t.spaces[fmt.Sprintf("net:[%d]", st.Ino)] = true
		}
		for _, folder := range []string{containerdTasks, runcStates} {
			entries, err := os.ReadDir(filepath.Join(runDir(m.name()), folder))
			if absent(err) != nil {
				return err
			}
			for _, e := range entries {
				t.containers[e.Name()] = true
			}
		}
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		// ID PARENT DEVICE ROOT MOUNTPOINT ...; the root of a namespace's mount is its id.
		f := strings.Fields(line)
		if len(f) > 4 && strings.HasPrefix(f[3], "net:[") && slices.ContainsFunc(t.names(), func(n string) bool { return strings.HasPrefix(f[4], runDir(n)+"/") }) {
			t.spaces[f[3]] = true
		}
	}
	return nil
}

// processes lists the lab's processes, but for zombies and for this one.
func (t *traces) processes() []int {
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
		if t.spaces[space] || t.inCgroup(pid) {
			out = append(out, pid)
		}
	}
	return out
}

func (t *traces) inCgroup(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		// HIERARCHY:CONTROLLERS:/PATH
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) < 3 {
			continue
		}
		path := strings.Split(f[2], "/")
		if slices.ContainsFunc(path, func(part string) bool { return t.containers[part] }) || len(path) > 1 && slices.Contains(t.names(), path[1]) {
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
	for _, root := range cgroups(name) {
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

// cgroups lists the folders of a cgroup: one where cgroups are of version 2, else one in each
// hierarchy.
func cgroups(name string) []string {
	var out []string
	for _, pattern := range []string{filepath.Join(cgroupFS, name), filepath.Join(cgroupFS, "*", name)} {
		found, _ := filepath.Glob(pattern) // the pattern is well-formed
		out = append(out, found...)
	}
	return out
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
