package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"golang.org/x/sync/errgroup"

	"github.com/causeway-mesh/causeway/test/conformance/fleet"
	"github.com/causeway-mesh/causeway/test/lab"
)

// nextTag is the tag of the release to which the clusters are upgraded.
const nextTag = "e2e-next"

// buildNext builds the images of another release and gives the clusters them, while other
// things are done; the function waits for it. It says whether it could: clusters that are no
// lab's have no way of getting them.
func (w *world) buildNext(t *testing.T) func() (bool, error) {
	t.Helper()
	dir := t.TempDir()
	done := make(chan error, 1)
	go func() {
		_, err := fleet.Output(t.Context(), nil, "go", "run", "./deploy/images", "-version", nextTag, "-out", dir, "-only", "causeway,causeway-envoy")
		if err == nil {
			err = w.LoadImage(t.Context(), filepath.Join(dir, "causeway-"+nextTag+".tar"), filepath.Join(dir, "causeway-envoy-"+nextTag+".tar"))
		}
		done <- err
	}()
	return func() (bool, error) {
		err := <-done
		if errors.Is(err, lab.ErrForeign) {
			return false, nil
		}
		return true, err
	}
}

// dryRun: the API server would take all that the charts make.
func (w *world) dryRun(t *testing.T) {
	args := append([]string{"template", "causeway", agentChart, "--namespace", system, "--values", "-"}, fleet.ImageArgs(t)...)
	agent, err := fleet.HelmAlone(t.Context(), w.Values(t, w.one.Cluster, w.one.network), args...)
	if err != nil {
		t.Fatal(err)
	}
	const all = "{clusterset: {name: prod}, etcd: {enabled: true, tls: {ca.crt: a, tls.crt: b, tls.key: c}, root: {ca.crt: a, tls.crt: b, tls.key: c}, " +
		"storage: {className: fast}, snapshot: {storage: {className: slow}}}, networkPolicy: {from: [{ipBlock: {cidr: 192.0.2.0/24}}]}}"
	for name, values := range map[string]string{"causeway-hub with an etcd of one's own": hubValues, "causeway-hub with all": all} {
		hub, err := fleet.HelmAlone(t.Context(), []byte(values), "template", "causeway-hub", hubChart, "--namespace", system, "--values", "-")
		if err != nil {
			t.Fatal(err)
		}
		if err := lab.DryRun(t.Context(), w.one.Config, []byte(hub)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := lab.DryRun(t.Context(), w.one.Config, []byte(agent)); err != nil {
		t.Errorf("causeway: %v", err)
	}
}

// handOver deletes the agent that leads.
func (w *world) handOver(t *testing.T) {
	c := w.one
	holder := func() (string, error) {
		l, err := c.api.CoordinationV1().Leases(system).Get(t.Context(), "causeway-agent", metav1.GetOptions{})
		if err != nil || l.Spec.HolderIdentity == nil || *l.Spec.HolderIdentity == "" {
			return "", fmt.Errorf("nobody leads: %w", err)
		}
		return *l.Spec.HolderIdentity, nil
	}
	traffic := []*fleet.Traffic{fleet.Send(t, w.one.Cluster, shop, "client", url(w.two)), fleet.Send(t, w.two.Cluster, shop, "client", url(w.one))}
	leader, err := holder()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.api.CoreV1().Pods(system).Delete(t.Context(), leader, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	deleted := time.Now()
	c.apply(t, service(c.Name, "after"))
	c.export(t, "after")
	fleet.Eventually(t, "another agent leads", func() error {
		if now, err := holder(); err != nil || now == leader {
			return fmt.Errorf("%s leads: %w", now, err)
		}
		return nil
	})
	c.exported(t, "after", "Ready", metav1.ConditionTrue, "Exported")
	w.two.imports(t, "after", c.Name)
	t.Logf("what was exported when the leader went is imported elsewhere %s after", time.Since(deleted).Round(100*time.Millisecond))
	fleet.Eventually(t, "its pod is gone", func() error {
		if _, err := c.api.CoreV1().Pods(system).Get(t.Context(), leader, metav1.GetOptions{}); !isNotFound(err) {
			return fmt.Errorf("it is still there: %w", err)
		}
		return nil
	})
	c.rolledOut(t, "causeway-agent")
	for _, x := range traffic {
		t.Logf("%d requests", x.End(t))
	}
	if err := c.dynamic.Resource(exportsResource).Namespace(shop).Delete(t.Context(), "after", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	w.two.imports(t, "after")
}

// upgrade upgrades one cluster after the other to another release with other values, under
// traffic through both.
func (w *world) upgrade(t *testing.T, next func() (bool, error)) {
	set := []string{"--set", "agent.verbose=true", "--set", "crossing.concurrency=1"}
	images, err := next()
	if err != nil {
		t.Fatal(err)
	}
	if images {
		set = append(set, "--set-string", "image.tag="+nextTag, "--set-string", "crossing.image.tag="+nextTag)
	}
	traffic := []*fleet.Traffic{fleet.Send(t, w.one.Cluster, shop, "client", url(w.two)), fleet.Send(t, w.two.Cluster, shop, "client", url(w.one))}
	for _, c := range w.clusters() {
		began := time.Now()
		w.Install(t, c.Cluster, c.network, set...)
		for _, deployment := range []string{"causeway-agent", "causeway-crossing"} {
			c.rolledOut(t, deployment)
		}
		t.Logf("%s is upgraded within %s", c.Name, time.Since(began).Round(time.Second))
		pods, err := c.api.CoreV1().Pods(system).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pods.Items {
			if p.DeletionTimestamp != nil {
				continue
			}
			x := p.Spec.Containers[0]
			if images && !strings.HasSuffix(x.Image, ":"+nextTag) || !slices.Contains(x.Args, "--verbose") && !slices.Contains(x.Args, "--concurrency=1") {
				t.Errorf("pod %s of %s runs %s %v", p.Name, c.Name, x.Image, x.Args)
			}
		}
	}
	for _, x := range traffic {
		t.Logf("%d requests", x.End(t))
	}
}

// What thousand makes, and exports of it.
const (
	many     = "many" // its namespace
	thousand = 1000
	hundred  = 100
)

// thousand: an agent with a thousand Services is soon ready. How soon is docs/performance.md's.
func (w *world) thousand(t *testing.T) {
	c := w.one
	c.apply(t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+many+"}\n")
	began := time.Now()
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(8)
	port, protocol, name := int32(8080), corev1.ProtocolTCP, "http"
	for i := range thousand {
		g.Go(func() error {
			// kube-proxy, which this is not about, leaves them alone.
			labels := map[string]string{"service.kubernetes.io/service-proxy-name": "nobody"}
			s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("s%d", i), Labels: maps.Clone(labels)}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: name, Port: 80}}}}
			if _, err := c.api.CoreV1().Services(many).Create(ctx, s, metav1.CreateOptions{}); err != nil {
				return err
			}
			labels[discoveryv1.LabelServiceName] = s.Name
			e := &discoveryv1.EndpointSlice{
				ObjectMeta:  metav1.ObjectMeta{Name: s.Name, Labels: labels},
				AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &protocol}},
				Endpoints: []discoveryv1.Endpoint{{Addresses: []string{fmt.Sprintf("198.51.100.%d", i%250+1)}}, {Addresses: []string{fmt.Sprintf("203.0.113.%d", i%250+1)}}},
			}
			_, err := c.api.DiscoveryV1().EndpointSlices(many).Create(ctx, e, metav1.CreateOptions{})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d Services are there after %s", thousand, time.Since(began).Round(time.Second))
	var exports strings.Builder
	for i := range hundred {
		fmt.Fprintf(&exports, "---\napiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceExport\nmetadata: {name: s%d, namespace: %s}\n", i, many)
	}
	c.apply(t, exports.String())
	fleet.Eventually(t, "imports", func() error {
		list, err := c.dynamic.Resource(importsResource).Namespace(many).List(t.Context(), metav1.ListOptions{})
		if err == nil && len(list.Items) != hundred {
			err = fmt.Errorf("%d of them", len(list.Items))
		}
		return err
	})
	t.Logf("%d of them are imported after %s", hundred, time.Since(began).Round(time.Second))
	old := c.agents(t)
	if err := c.api.CoreV1().Pods(system).Delete(t.Context(), old[0].Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	var fresh string
	fleet.Eventually(t, "a new agent is ready", func() error {
		for _, p := range c.agents(t) {
			if p.Name != old[0].Name && p.Name != old[1].Name && isReady(&p) {
				fresh = p.Name
				return nil
			}
		}
		return errors.New("there is none")
	})
	fleet.Eventually(t, "agent "+fresh+" says when it was ready", func() error { // its log may come after its probe
		logs, err := c.api.CoreV1().Pods(system).GetLogs(fresh, &corev1.PodLogOptions{}).DoRaw(t.Context())
		if err != nil {
			return err
		}
		i := strings.Index(string(logs), "this agent is ready")
		if i < 0 {
			return fmt.Errorf("it says:\n%s", logs)
		}
		line, _, _ := strings.Cut(string(logs[i:]), "\n")
		t.Logf("with %d Services: %s", thousand, line)
		return nil
	})
	c.rolledOut(t, "causeway-agent")
	w.reaches(t, w.one, w.two)
}

func isReady(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && slices.ContainsFunc(p.Status.Conditions, func(x corev1.PodCondition) bool {
		return x.Type == corev1.PodReady && x.Status == corev1.ConditionTrue
	})
}

// fromHere makes a request from this machine.
func fromHere(ctx context.Context, client *http.Client, url string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}
