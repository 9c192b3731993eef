package lab_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/causeway-mesh/causeway/test/lab"
)

// state is all of the machine that a lab might leave something in, a line for each thing, but
// for what is another lab's that runs beside the test.
type state struct {
	lines []string
	alone bool // no other lab runs
}

// shared are what belongs to all labs, and doesn't tell to which.
var shared = []string{"/run/containerd", "/var/lib/cni", "/var/log/containers", "/var/log/pods", "/sys/fs/cgroup/k8s.io", "/sys/fs/cgroup/*/k8s.io"}

func isShared(line string) bool {
	path, _, _ := strings.Cut(line, " ")
	for ; len(path) > 1; path = filepath.Dir(path) {
		if slices.ContainsFunc(shared, func(pattern string) bool { ok, err := filepath.Match(pattern, path); return ok && err == nil }) {
			return true
		}
	}
	return false
}

func machine(t *testing.T) state {
	t.Helper()
	globs := []string{
		"/run/*", "/run/netns/*", "/var/tmp/*", "/opt/*", "/var/lib/kubelet", "/var/run/kubernetes",
		"/usr/libexec/kubernetes", "/etc/cni", "/etc/kubernetes", "/sys/class/net/*", "/run/causeway-lab/*.json",
		"/run/containerd/*", "/run/containerd/*/*", "/var/lib/cni", "/var/lib/cni/*/*", "/var/log/containers", "/var/log/containers/*", "/var/log/pods", "/var/log/pods/*",
	}
	others, err := filepath.Glob("/run/causeway-lab/*.json")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, glob := range globs {
		files, err := filepath.Glob(glob)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if to, err := os.Readlink(f); err == nil && to != "" {
				f += " -> " + to // which tells whose it is
			}
			out = append(out, f)
		}
	}
	for _, argv := range [][]string{{"ip", "-4", "route"}, {"ip", "-6", "route"}, {"cat", "/proc/self/mounts"}, {"iptables-save"}, {"ip6tables-save"}} {
		b, err := exec.Command(argv[0], argv[1:]...).Output()
		if err != nil {
			continue // before the lab has installed it, there are no rules
		}
		for s := bufio.NewScanner(strings.NewReader(string(b))); s.Scan(); {
			line := s.Text()
			if strings.HasSuffix(argv[0], "-save") && (strings.HasPrefix(line, "#") || strings.HasPrefix(line, ":")) {
				continue // times and counters
			}
			out = append(out, argv[0]+": "+line)
		}
	}
	out = append(append(out, contained(t)...), cgroupsHere(t)...)
	for _, o := range others {
		name := "cwlab" + strings.TrimSuffix(filepath.Base(o), ".json")
		out = slices.DeleteFunc(out, func(line string) bool { return line == o || strings.Contains(line, name) })
	}
	slices.Sort(out)
	return state{slices.Compact(out), len(others) == 0}
}

// process is what begins a line of a state about one.
const process = "process "

// contained lists the processes that run in a network, mount or PID namespace of their own, with
// what tells whose they are: the name of the network namespace, and where their root comes from.
func contained(t *testing.T) []string {
	t.Helper()
	spaces := map[string]string{}
	files, err := filepath.Glob("/run/netns/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		var st syscall.Stat_t
		if syscall.Stat(f, &st) == nil {
			spaces[fmt.Sprintf("net:[%d]", st.Ino)] = f
		}
	}
	pids, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, dir := range pids {
		own := false
		var space string
		for _, kind := range []string{"mnt", "pid", "net"} {
			here, err := os.Readlink("/proc/self/ns/" + kind)
			if err != nil {
				t.Fatal(err)
			}
			there, err := os.Readlink(filepath.Join(dir, "ns", kind))
			own = own || err == nil && there != here // else it has just ended
			space = there
		}
		if !own {
			continue
		}
		name := spaces[space]
		if name == "" {
			name = space
		}
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || len(line) == 0 {
			continue // the kernel's own, and zombies, which init takes its time to reap
		}
		out = append(out, fmt.Sprintf("%s%s %s, network %s, root %s", process, filepath.Base(dir), strings.ReplaceAll(string(line), "\x00", " "), name, rootOf(dir)))
	}
	return out
}

// rootOf is the mount that is a process's root, as the kernel describes it: with the
// folders that it is made of.
func rootOf(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, "mountinfo"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == "/" {
			return line
		}
	}
	return ""
}

// cgroupsHere lists all cgroups but those of containers of other labs.
func cgroupsHere(t *testing.T) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && !d.IsDir() {
			return nil
		}
		if err != nil {
			return err
		}
		running, err := filepath.Glob("/run/cwlab*-*/runc/k8s.io/" + d.Name())
		if len(running) == 0 {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// compare reports what has come to the machine, or gone from it.
func compare(t *testing.T, before, after state) {
	t.Helper()
	report := func(what string, from, to state) {
		for _, line := range to.lines {
			if !slices.Contains(from.lines, line) && (from.alone && to.alone || !isShared(line)) {
				t.Error(what, line)
			}
		}
	}
	report("left behind:", before, after)
	before.lines = slices.DeleteFunc(before.lines, func(line string) bool { return strings.HasPrefix(line, process) }) // others' may end
	report("gone:", after, before)
}

// What a killed process has left of its lab does not confuse the next one, which removes it.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("CAUSEWAY_LAB_VICTIM"); dir != "" {
		if _, err := lab.Start(t.Context(), lab.Options{Clusters: 1, Dir: dir}); err != nil {
			t.Fatal(err)
		}
		fmt.Println("up")
		select {} // until it is killed
	}
	if os.Getenv("CAUSEWAY_E2E_IMAGES") == "" {
		t.Skip("needs root and real clusters: run it by `make e2e`")
	}
	before := machine(t)
	dir := filepath.Join(t.TempDir(), "victim")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	victim := exec.CommandContext(ctx, os.Args[0], "-test.run", "^TestKilled$")
	victim.Env = append(os.Environ(), "CAUSEWAY_LAB_VICTIM="+dir)
	victim.Stderr = os.Stderr
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	_ = victim.Process.Kill()
	_, _ = io.Copy(io.Discard, out)
	_ = victim.Wait()
	if err != nil || strings.TrimSpace(line) != "up" {
		t.Fatalf("the victim says %q, %v", line, err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) == 0 {
		t.Fatal("the victim has left nothing, so this test tests nothing")
	}
	inVictim := func(line string) bool { return strings.HasPrefix(line, process) && strings.Contains(line, dir+"/") }
	if !slices.ContainsFunc(contained(t), inVictim) {
		t.Fatal("no container of the victim goes on, so this test tests nothing")
	}
	l, err := lab.Start(t.Context(), lab.Options{Clusters: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the victim's folder is still there")
	}
	for _, line := range contained(t) {
		if inVictim(line) {
			t.Error("the victim's container goes on:", line)
		}
	}
	client, err := kubernetes.NewForConfig(l.Clusters[0].Config)
	if err != nil {
		t.Fatal(err)
	}
	var deployments *appsv1.DeploymentList
	if deployments, err = client.AppsV1().Deployments("").List(t.Context(), metav1.ListOptions{}); err != nil || len(deployments.Items) != 1 {
		t.Errorf("a new cluster has %v, %v", deployments, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	compare(t, before, machine(t))
}
