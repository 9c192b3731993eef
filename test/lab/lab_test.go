package lab_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/causeway-mesh/causeway/test/lab"
)

const patience = 60 * time.Second

// eventually asks until there is no error.
func eventually(t *testing.T, what string, ask func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if err = ask(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// workload is an echo server and a client, and Services of both kinds before the server.
const workload = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo, namespace: default}
spec:
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      terminationGracePeriodSeconds: 1
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: echo
        image: IMAGE
        args: [serve, -http, "8080", -udp, "5353"]
        env:
        - {name: CLUSTER, value: NAME}
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
        securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: default}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: client, image: IMAGE, args: [idle]}
---
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: default}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  selector: {app: echo}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: udp, port: 53, targetPort: 5353, protocol: UDP}
`

// answers is what the client prints.
type answers struct {
	Clusters map[string]int
	Failed   int
}

// ask runs the client in its pod, and says from which cluster the answer came.
func ask(t *testing.T, c *lab.Cluster, argv ...string) (string, error) {
	out, err := c.Exec(t.Context(), "default", "client", "", append([]string{"/usr/local/bin/causeway-test"}, argv...)...)
	if err != nil {
		return "", err
	}
	var a answers
	if err := json.Unmarshal([]byte(out), &a); err != nil {
		return "", fmt.Errorf("%s: %w", out, err)
	}
	if a.Failed > 0 || len(a.Clusters) != 1 {
		return "", errors.New(out)
	}
	for name := range a.Clusters {
		return name, nil
	}
	return "", nil
}

func mustAnswer(t *testing.T, from *lab.Cluster, want string, argv ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%v from %s", argv, from.Name), func() error {
		if got, err := ask(t, from, argv...); err != nil || got != want {
			return fmt.Errorf("%q answers: %w", got, err)
		}
		return nil
	})
}

func mustFail(t *testing.T, from *lab.Cluster, argv ...string) {
	t.Helper()
	if got, err := ask(t, from, argv...); err == nil {
		t.Errorf("%v from %s: %q answers", argv, from.Name, got)
	}
}

// A lab is what its documentation says: pods, DNS, Services and load balancers of both
// IP families, overlapping Services, separate networks, cuts, crashes of an API server;
// and it leaves nothing.
func TestLab(t *testing.T) {
	before := machine(t)
	t.Run("up", func(t *testing.T) {
		l := lab.StartTest(t, lab.Options{Clusters: 2, CRDs: lab.CRDs{GatewayAPI: lab.Standard, MCS: true}})
		manifests := strings.ReplaceAll(workload, "IMAGE", lab.TestImage(t, "causeway-test"))
		addresses := map[string][]string{}
		pods := map[string]corev1.PodStatus{}
		for _, c := range l.Clusters {
			if err := c.Apply(t.Context(), []byte(strings.ReplaceAll(manifests, "NAME", c.Name))); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range l.Clusters {
			client, err := kubernetes.NewForConfig(c.Config)
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "addresses", func() error {
				s, err := client.CoreV1().Services("default").Get(t.Context(), "echo", metav1.GetOptions{})
				if err != nil {
					return err
				}
				addresses[c.Name] = nil
				for _, in := range s.Status.LoadBalancer.Ingress {
					addresses[c.Name] = append(addresses[c.Name], in.IP)
				}
				if len(addresses[c.Name]) != 2 {
					return fmt.Errorf("the Service of %s has %v", c.Name, addresses[c.Name])
				}
				list, err := client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=echo"})
				if err != nil || len(list.Items) != 1 || len(list.Items[0].Status.PodIPs) != 2 {
					return fmt.Errorf("pods of %s: %+v, %w", c.Name, list, err)
				}
				pods[c.Name] = list.Items[0].Status
				return nil
			})
			for _, addr := range addresses[c.Name] {
				eventually(t, "from the machine to "+addr, func() error { return fromMachine(t, net.JoinHostPort(addr, "80"), c.Name) })
			}
			mustAnswer(t, c, c.Name, "http", "http://echo") // the Services' addresses may be the same in both
			mustAnswer(t, c, c.Name, "udp", "echo.default.svc.cluster.local:53")
			out, err := c.Exec(t.Context(), "default", "client", "", "/usr/local/bin/causeway-test", "dns", "-type", "AAAA", "echo.default.svc.cluster.local")
			if err != nil || !strings.Contains(out, "fd00:10:96:") {
				t.Errorf("AAAA: %s %v", out, err)
			}
			out, err = c.Exec(t.Context(), "default", "client", "", "/usr/local/bin/causeway-test", "dns", "none.default.svc.clusterset.local")
			if err != nil || !strings.Contains(out, "NXDOMAIN") {
				t.Errorf("clusterset.local: %s %v", out, err)
			}
		}
		one, two := l.Clusters[0], l.Clusters[1]
		quick := func(url string) []string { return []string{"http", "-timeout", "1s", url} }
		for _, addr := range addresses[two.Name] {
			mustAnswer(t, one, two.Name, quick("http://"+net.JoinHostPort(addr, "80"))...)
		}
		balancer := quick("http://" + addresses[two.Name][0])
		pod4 := quick("http://" + net.JoinHostPort(pods[two.Name].PodIPs[0].IP, "8080"))
		pod6 := quick("http://" + net.JoinHostPort(pods[two.Name].PodIPs[1].IP, "8080"))

		// Networks are separate until they are made one; a cut takes all, and a heal gives it back.
		mustFail(t, one, pod4...)
		mustFail(t, one, pod6...)
		if err := l.Flat(t.Context(), 1, 2); err != nil {
			t.Fatal(err)
		}
		mustAnswer(t, one, two.Name, pod4...)
		mustAnswer(t, one, two.Name, pod6...)
		for range 2 { // both may be said twice
			if err := l.Cut(t.Context(), 2, 1); err != nil {
				t.Fatal(err)
			}
		}
		for _, request := range [][]string{balancer, pod4, pod6} {
			mustFail(t, one, request...)
		}
		if err := fromMachine(t, addresses[two.Name][0]+":80", two.Name); err != nil {
			t.Error("the machine is cut off too:", err)
		}
		for range 2 {
			if err := l.Heal(t.Context(), 1, 2); err != nil {
				t.Fatal(err)
			}
		}
		for _, request := range [][]string{balancer, pod4, pod6} {
			mustAnswer(t, one, two.Name, request...)
		}

		// Without its API server a cluster's pods go on.
		client, err := kubernetes.NewForConfig(one.Config)
		if err != nil {
			t.Fatal(err)
		}
		if err := one.StopAPIServer(); err != nil {
			t.Fatal(err)
		}
		if _, err := client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{}); err == nil {
			t.Error("a stopped API server answers")
		}
		if err := fromMachine(t, addresses[one.Name][0]+":80", one.Name); err != nil {
			t.Error("without its API server:", err)
		}
		if err := one.StartAPIServer(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustAnswer(t, one, one.Name, "http", "http://echo")
		balancers(t, one)
		images(t, one)
		adopted(t, l)
	})
	if t.Skipped() {
		return
	}
	compare(t, before, machine(t))
}

// fromMachine makes a request from this process.
func fromMachine(t *testing.T, addr, cluster string) error {
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + addr)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var who struct{ Cluster string }
	if err := json.NewDecoder(resp.Body).Decode(&who); err != nil || who.Cluster != cluster {
		return fmt.Errorf("%q answers: %w", who.Cluster, err)
	}
	return nil
}

// balancers asks for load balancers' addresses by name: one that is free is given, one that
// the cluster does not have and one that is taken stay away.
func balancers(t *testing.T, c *lab.Cluster) {
	t.Helper()
	client, err := kubernetes.NewForConfig(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	want := c.LoadBalancers4.Addr()
	for range 77 {
		want = want.Next()
	}
	create := func(name, address string) {
		if err := c.Apply(t.Context(), fmt.Appendf(nil, `
apiVersion: v1
kind: Service
metadata: {name: %s, namespace: default}
spec: {type: LoadBalancer, loadBalancerIP: %s, ports: [{port: 80}]}
`, name, address)); err != nil {
			t.Fatal(err)
		}
	}
	ingress := func(name string) string {
		s, err := client.CoreV1().Services("default").Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, in := range s.Status.LoadBalancer.Ingress {
			out = append(out, in.IP)
		}
		return strings.Join(out, ",")
	}
	create("far", "192.0.2.1")
	create("free", want.String())
	eventually(t, "the address asked for", func() error {
		if got := ingress("free"); got != want.String() {
			return fmt.Errorf("it is %q, not %s", got, want)
		}
		return nil
	})
	create("taken", want.String())
	create("last", "") // by the time that it has an address the others have been looked at
	eventually(t, "any address", func() error {
		if ingress("last") == "" {
			return errors.New("there is none")
		}
		return nil
	})
	for _, name := range []string{"far", "taken"} {
		if got := ingress(name); got != "" {
			t.Errorf("the Service %s has %s", name, got)
		}
	}
}

// adopted uses the clusters as somebody's, which tests leave alone.
func adopted(t *testing.T, l *lab.Lab) {
	t.Helper()
	t.Setenv("CAUSEWAY_E2E_KUBECONFIGS", l.Clusters[1].Kubeconfig+":"+l.Clusters[0].Kubeconfig)
	t.Setenv("CAUSEWAY_E2E_ADDRESS", l.Machine)
	t.Setenv("CAUSEWAY_E2E_REGISTRY", "registry.example:5000/team/")
	foreign := lab.StartTest(t, lab.Options{Clusters: 2, CRDs: lab.CRDs{MCS: true}})
	if got := lab.TestImage(t, "causeway"); got != "registry.example:5000/team/causeway:e2e" {
		t.Errorf("the image is called %s", got)
	}
	for what, err := range map[string]error{
		"cut": foreign.Cut(t.Context(), 1, 2), "flat": foreign.Flat(t.Context(), 1, 2), "stop": foreign.Clusters[0].StopAPIServer(), "load": foreign.LoadImage(t.Context(), "x.tar"),
	} {
		if !errors.Is(err, lab.ErrForeign) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := foreign.Close(); err != nil {
		t.Error(err)
	}
	mustAnswer(t, foreign.Clusters[0], l.Clusters[1].Name, "http", "http://echo")
}

// images runs Causeway's own images as strictly as a cluster can be.
func images(t *testing.T, c *lab.Cluster) {
	t.Helper()
	client, err := kubernetes.NewForConfig(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	yes, no := true, false
	for name, want := range map[string]struct {
		command   []string
		arg, says string
	}{
		"causeway": {nil, "version", "causeway e2e"}, "causeway-envoy": {[]string{"/usr/local/bin/envoy"}, "--version", "/1.40.0/"},
	} {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever, AutomountServiceAccountToken: &no,
				Containers: []corev1.Container{{
					Name: name, Image: lab.TestImage(t, name), Command: want.command, Args: []string{want.arg},
					SecurityContext: &corev1.SecurityContext{
						RunAsNonRoot: &yes, ReadOnlyRootFilesystem: &yes, AllowPrivilegeEscalation: &no,
						Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
						SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
					},
				}},
			},
		}
		if _, err := client.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the image "+name, func() error {
			p, err := client.CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if p.Status.Phase != corev1.PodSucceeded {
				return fmt.Errorf("%+v", p.Status)
			}
			return nil
		})
		out, err := client.CoreV1().Pods("default").GetLogs(name, &corev1.PodLogOptions{}).DoRaw(t.Context())
		if err != nil || !strings.Contains(string(out), want.says) {
			t.Errorf("%s %s: %s %v", name, want.arg, out, err)
		}
	}
}

// machine is all that a lab might leave something in, but for what is another lab's that
// runs beside the test.
func machine(t *testing.T) []string {
	t.Helper()
	globs := []string{
		"/run/*", "/run/netns/*", "/var/log/containers/*", "/var/log/pods/*", "/var/tmp/*", "/opt/*", "/var/lib/kubelet", "/var/run/kubernetes",
		"/usr/libexec/kubernetes", "/etc/cni", "/etc/kubernetes", "/sys/fs/cgroup/*", "/sys/fs/cgroup/*/cwlab*", "/sys/class/net/*", "/run/causeway-lab/*.json",
	}
	others, err := filepath.Glob("/run/causeway-lab/*.json")
	if err != nil {
		t.Fatal(err)
	}
	if len(others) == 0 { // these don't tell whose they are
		globs = append(globs, "/run/containerd", "/run/containerd/*", "/run/containerd/*/*", "/var/lib/cni", "/var/lib/cni/*/*", "/var/log/containers", "/var/log/pods")
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
	for _, argv := range [][]string{{"ip", "-4", "route"}, {"ip", "-6", "route"}, {"cat", "/proc/self/mounts"}, {"iptables-save"}, {"ip6tables-save"}, {"ps", "-eo", "args"}} {
		b, err := exec.Command(argv[0], argv[1:]...).Output()
		if err != nil {
			continue // before the lab has installed it, there are no rules
		}
		for s := bufio.NewScanner(strings.NewReader(string(b))); s.Scan(); {
			line := s.Text()
			if argv[0] == "ps" && !strings.Contains(line, "cwlab") && !strings.Contains(line, "containerd-shim") || strings.Contains(line, "<defunct>") {
				continue // other processes come and go, and init takes its time to reap
			}
			if strings.HasSuffix(argv[0], "-save") && (strings.HasPrefix(line, "#") || strings.HasPrefix(line, ":")) {
				continue // times and counters
			}
			out = append(out, argv[0]+": "+line)
		}
	}
	for _, o := range others {
		name := "cwlab" + strings.TrimSuffix(filepath.Base(o), ".json")
		out = slices.DeleteFunc(out, func(line string) bool { return line == o || strings.Contains(line, name) })
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// compare reports what has come to the machine, or gone from it.
func compare(t *testing.T, before, after []string) {
	t.Helper()
	for _, line := range after {
		if !slices.Contains(before, line) {
			t.Error("left behind:", line)
		}
	}
	for _, line := range before {
		if !slices.Contains(after, line) {
			t.Error("gone:", line)
		}
	}
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
	l, err := lab.Start(t.Context(), lab.Options{Clusters: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the victim's folder is still there")
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
