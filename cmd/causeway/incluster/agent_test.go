package incluster_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	typed "k8s.io/client-go/kubernetes"

	"github.com/causeway-mesh/causeway/cluster/kubernetes"
	"github.com/causeway-mesh/causeway/cmd/causeway/agent"
	"github.com/causeway-mesh/causeway/cmd/causeway/root/roottest"
	"github.com/causeway-mesh/causeway/test/lab"
	"github.com/causeway-mesh/causeway/xds/envoy/envoytest"
)

// running is a command that runs until it is stopped.
type running struct {
	stop func()
	log  *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func start(t *testing.T, name string, args ...string) *running {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	r := &running{log: &syncBuffer{}}
	go func() { ended <- roottest.Run(ctx, r.log, r.log, args...) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	t.Cleanup(func() {
		r.stop()
		if t.Failed() {
			t.Logf("the log of %s:\n%s", name, r.log)
		}
	})
	return r
}

func eventually(t *testing.T, most time.Duration, what string, ok func() error) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		err := ok()
		if err == nil {
			return time.Since(began)
		}
		if time.Since(began) > most {
			t.Fatalf("%s: not within %s: %v", what, most, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func healthy(address string) func() error {
	return func() error {
		c := http.Client{Timeout: time.Second}
		r, err := c.Get("http://" + address + "/readyz")
		if err != nil {
			return err
		}
		defer r.Body.Close()
		text, _ := io.ReadAll(r.Body)
		if r.StatusCode != http.StatusOK {
			return fmt.Errorf("%d: %s", r.StatusCode, text)
		}
		return nil
	}
}

// service is what a Service of the agents is: connections go to any that takes them.
func service(t *testing.T, backends ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer in.Close()
				for _, b := range backends {
					out, err := net.DialTimeout("tcp", b, time.Second)
					if err != nil {
						continue
					}
					defer out.Close()
					go func() {
						_, _ = io.Copy(out, in)
						out.Close()
					}()
					_, _ = io.Copy(in, out)
					return
				}
			}()
		}
	}()
	return l.Addr().String()
}

// Two agents of a cluster, a real API server, a real etcd and a real Envoy: what is
// exported is published and said so; one agent alone leads, and gives the lead away
// when it is told to stop; Envoy proves by its token who it is, and stays served; with
// the API server and the store away a restarted agent serves what it had.
func TestAgents(t *testing.T) {
	t.Parallel()
	path := envoytest.Binary(t)
	cp := lab.StartControlPlane(t, lab.ControlPlaneOptions{CRDs: lab.CRDs{GatewayAPI: lab.Standard, MCS: true}})
	api, err := typed.NewForConfig(cp.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Apply(t.Context(), cp.Config, []byte(`
apiVersion: v1
kind: Namespace
metadata: {name: causeway-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: causeway-crossing, namespace: causeway-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: somebody, namespace: default}
`)); err != nil {
		t.Fatal(err)
	}
	kubeconfig := grant(t, cp, api)
	prod := roottest.Init(t, "prod")

	xds, ids, probes, queries, data := roottest.Addresses(t, 2), roottest.Addresses(t, 2), roottest.Addresses(t, 2), roottest.Addresses(t, 2), []string{t.TempDir(), t.TempDir()}
	config := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "cluster: west\nclusterset: prod\nregion: eu\nstore: [%q]\nkubeconfig: %s\ncredentials: %s\nhandover: 500ms\ngossip: 127.0.0.1:0\nmetrics: 127.0.0.1:0\ncrossing-port: %s\n",
		prod.Store.Endpoint(), kubeconfig, prod.Add(t, "west", "eu"), port(roottest.Addresses(t, 1)[0])), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(i int) *running {
		return start(t, fmt.Sprint("agent ", i), "agent", "--config", config, "--replica", fmt.Sprint("agent-", i), "--data", data[i], "--xds", xds[i], "--identity", ids[i], "--probe", probes[i], "--listen", queries[i], "--bind", "127.0.0.1")
	}
	agents := []*running{run(0), run(1)}
	for _, p := range probes {
		took := eventually(t, time.Minute, "ready", healthy(p))
		t.Logf("ready after %s", took.Round(time.Millisecond))
	}

	// What is exported is published, and the cluster's objects say so.
	dyn, err := dynamic.NewForConfig(cp.Config)
	if err != nil {
		t.Fatal(err)
	}
	exports := dyn.Resource(schema.GroupVersionResource{Group: "multicluster.x-k8s.io", Version: "v1beta1", Resource: "serviceexports"}).Namespace("default")
	export := func(name string) {
		t.Helper()
		if err := lab.Apply(t.Context(), cp.Config, fmt.Appendf(nil, "apiVersion: v1\nkind: Service\nmetadata: {name: %[1]s}\nspec: {ports: [{port: 80}]}\n---\napiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceExport\nmetadata: {name: %[1]s}\n", name)); err != nil {
			t.Fatal(err)
		}
	}
	exported := func(name string) func() error {
		return func() error {
			o, err := exports.Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			raw, _ := json.Marshal(o.Object["status"])
			var st struct{ Conditions []metav1.Condition }
			if err := json.Unmarshal(raw, &st); err != nil {
				return err
			}
			for _, typ := range []string{"Valid", "Ready"} {
				if !slices.ContainsFunc(st.Conditions, func(c metav1.Condition) bool {
					return c.Type == typ && c.Status == metav1.ConditionTrue && c.ObservedGeneration == o.GetGeneration()
				}) {
					return fmt.Errorf("the status is %s", raw)
				}
			}
			return nil
		}
	}
	export("web")
	eventually(t, time.Minute, "the export's status", exported("web"))
	imports := dyn.Resource(schema.GroupVersionResource{Group: "multicluster.x-k8s.io", Version: "v1beta1", Resource: "serviceimports"}).Namespace("default")
	eventually(t, time.Minute, "the import and its status", func() error {
		o, err := imports.Get(t.Context(), "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		raw, _ := json.Marshal(o.Object)
		var imp struct {
			Spec   struct{ IPs []string }
			Status struct {
				Clusters   []struct{ Cluster string }
				Conditions []metav1.Condition
			}
		}
		if err := json.Unmarshal(raw, &imp); err != nil {
			return err
		}
		if len(imp.Spec.IPs) == 0 || len(imp.Status.Clusters) != 1 || imp.Status.Clusters[0].Cluster != "west" || len(imp.Status.Conditions) != 1 {
			return fmt.Errorf("the import is %s", raw)
		}
		return nil
	})

	policies(t, prod, exported("web"), func() error {
		_, err := imports.Get(t.Context(), "web", metav1.GetOptions{})
		return err
	}, exports)

	// Envoy's token gets it a certificate; others' tokens don't.
	trust := filepath.Join(t.TempDir(), "ca.crt")
	eventually(t, time.Minute, "the roots in the ConfigMap", func() error {
		m, err := api.CoreV1().ConfigMaps(agent.SystemNamespace).Get(t.Context(), kubernetes.TrustConfigMap, metav1.GetOptions{})
		if err != nil {
			return err
		}
		return os.WriteFile(trust, []byte(m.Data["ca.crt"]), 0o600)
	})
	token := func(ns, name, audience string) string {
		t.Helper()
		r, err := api.CoreV1().ServiceAccounts(ns).CreateToken(t.Context(), name, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte(r.Status.Token), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	askByToken(t, cp, queries[0], trust, func(ns, name, audience string) string {
		data, err := os.ReadFile(token(ns, name, audience))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	})
	proxyAt, dir := roottest.Addresses(t, 1)[0], short(t)
	args := func(token, dir, probe string) []string {
		return []string{"proxy", "--cluster", "west", "--clusterset", "prod", "--identity", service(t, ids...), "--xds", service(t, xds...), "--token", token, "--roots", trust, "--dir", dir, "--probe", probe, "--drain", "100ms", "--envoy", path, "--concurrency", "1"}
	}
	for what, bad := range map[string]struct{ token, says string }{
		"another ServiceAccount": {token("default", "somebody", "causeway.dev/west.prod"), "may not be a crossing gateway"},
		"another audience":       {token(agent.SystemNamespace, "causeway-crossing", "elsewhere"), "was not made for"},
	} {
		r := start(t, what, args(bad.token, short(t), "")...)
		eventually(t, time.Minute, "a refusal of "+what, func() error {
			if log := r.log.String(); !strings.Contains(log, bad.says) {
				return fmt.Errorf("the log is %s", log)
			}
			return nil
		})
		r.stop()
	}
	start(t, "proxy", args(token(agent.SystemNamespace, "causeway-crossing", "causeway.dev/west.prod"), dir, proxyAt)...)
	eventually(t, time.Minute, "Envoy ready", healthy(proxyAt))

	// The leader hands over.
	lease := func() string {
		l, err := api.CoordinationV1().Leases(agent.SystemNamespace).Get(t.Context(), kubernetes.LeaderLease, metav1.GetOptions{})
		if err != nil || l.Spec.HolderIdentity == nil {
			return ""
		}
		return *l.Spec.HolderIdentity
	}
	leader := 0
	if lease() == "agent-1" {
		leader = 1
	}
	other := 1 - leader
	began := time.Now()
	agents[leader].stop()
	eventually(t, time.Minute, "the other leads", func() error {
		if got, want := lease(), fmt.Sprint("agent-", other); got != want {
			return fmt.Errorf("%q leads, not %q", got, want)
		}
		return nil
	})
	t.Logf("the lead was handed over in %s", time.Since(began).Round(time.Millisecond))
	export("api")
	eventually(t, time.Minute, "the new leader's writes", exported("api"))
	connected := func() error { return connectedTo(dir) }
	eventually(t, time.Minute, "Envoy connected to the other agent", connected)

	// Everything that an agent reads is away, and it starts again. It leaves copies when it
	// is told to stop.
	if err := cp.StopAPIServer(); err != nil {
		t.Fatal(err)
	}
	prod.Store.Stop()
	agents[other].stop()
	if healthy(probes[other])() == nil {
		t.Fatal("a stopped agent is ready")
	}
	again := run(other)
	took := eventually(t, time.Minute, "ready with the copies on disk", healthy(probes[other]))
	t.Logf("ready with the copies on disk after %s", took.Round(time.Millisecond))
	eventually(t, time.Minute, "Envoy connected to the restarted agent", connected)
	if !strings.Contains(again.log.String(), "starting with the copy on disk") {
		t.Error("the agent does not say that it began with its copy")
	}

	// And back.
	if err := prod.Store.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := cp.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	export("back")
	eventually(t, time.Minute, "publishing and status after the outage", exported("back"))
	if log := again.log.String(); strings.Contains(log, "PRIVATE KEY") || strings.Contains(log, "BEGIN CERTIFICATE") {
		t.Error("the log holds keys or certificates")
	}
	secret, err := api.CoreV1().Secrets(agent.SystemNamespace).Get(t.Context(), kubernetes.AuthoritySecret, metav1.GetOptions{})
	if err != nil || !bytes.Contains(secret.Data["authority.pem"], []byte("PRIVATE KEY")) {
		t.Errorf("the authority's Secret: %v", err)
	}
}

func port(address string) string {
	_, p, _ := net.SplitHostPort(address)
	return p
}

// short gives a folder with a short name: sockets are in it.
func short(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// connectedTo asks Envoy whether its stream of xDS is up.
func connectedTo(dir string) error {
	c := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(dir, "admin.sock"))
	}}}
	r, err := c.Get("http://envoy/stats?filter=control_plane.connected_state")
	if err != nil {
		return err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err == nil && !strings.Contains(string(text), "connected_state: 1") {
		err = fmt.Errorf("envoy says %q", text)
	}
	return err
}
