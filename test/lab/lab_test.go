package lab_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/causeway-mesh/causeway/test/lab"
)

const patience = 3 * time.Minute

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
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
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
