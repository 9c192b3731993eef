package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/federation/store/etcd"
	"github.com/causeway-mesh/causeway/test/conformance/fleet"
	"github.com/causeway-mesh/causeway/test/lab"
)

// secretOf gives the credentials in what `causeway cluster add` printed.
func secretOf(t *testing.T, values []byte) map[string]string {
	t.Helper()
	var v struct {
		Secret struct{ Data map[string]string }
		Store  struct{ Endpoints []string }
	}
	if err := yaml.Unmarshal(values, &v); err != nil || len(v.Secret.Data) == 0 || len(v.Store.Endpoints) == 0 {
		t.Fatalf("no values: %v", err)
	}
	v.Secret.Data["endpoint"] = v.Store.Endpoints[0]
	return v.Secret.Data
}

// shortLived is a certificate for the first cluster's agents that soon expires.
func (w *world) shortLived(t *testing.T) *identity.Credential {
	t.Helper()
	authority, err := identity.OpenStoreAuthority(identity.StoreAuthorityConfig{
		Clusterset: fleet.Clusterset, RootConfig: identity.RootConfig{Dir: filepath.Join(w.Dir, "store"), Logger: slog.New(slog.DiscardHandler)},
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := authority.IssueClient(10*time.Second, etcd.AgentUser(w.one.Name))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// refused runs agents with a certificate of another cluster's, and with one that has expired:
// both say what to do.
func (w *world) refused(t *testing.T, short *identity.Credential) {
	c := w.one
	time.Sleep(time.Until(short.NotAfter())) // a while ago, as a rule
	data := secretOf(t, w.Values(t, c.Cluster, c.network))
	endpoint := data["endpoint"]
	delete(data, "endpoint")
	expired := map[string]string{}
	for k, v := range data {
		expired[k] = v
	}
	expired["store.crt"], expired["store.key"] = string(short.CertPEM()), string(short.KeyPEM())
	for _, x := range []struct {
		name, as string
		data     map[string]string
		says     []string
		ends     bool
	}{
		{"other", w.two.Name, data, []string{"agent:" + c.Name, "causeway cluster add " + w.two.Name, "--cluster"}, true},
		{"expired", c.Name, expired, []string{"has expired", "causeway cluster add", "replace the Secret"}, false},
	} {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: x.name, Namespace: shop}, StringData: x.data}
		if _, err := c.api.CoreV1().Secrets(shop).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		seconds := int64(1)
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: x.name, Namespace: shop},
			Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever, TerminationGracePeriodSeconds: &seconds,
				Containers: []corev1.Container{{
					Name: "agent", Image: lab.TestImage(t, "causeway"), Args: []string{"agent", "--cluster=" + x.as, "--clusterset=" + fleet.Clusterset, "--store=" + endpoint},
					VolumeMounts: []corev1.VolumeMount{{Name: "credentials", MountPath: "/etc/causeway/clusterset"}, {Name: "data", MountPath: "/var/lib/causeway"}},
				}},
				Volumes: []corev1.Volume{
					{Name: "credentials", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: x.name}}},
					{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
				},
				SecurityContext: &corev1.PodSecurityContext{FSGroup: new(int64)},
			},
		}
		*pod.Spec.SecurityContext.FSGroup = 65532
		if _, err := c.api.CoreV1().Pods(shop).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		fleet.Eventually(t, "agent "+x.name, func() error {
			logs, err := c.api.CoreV1().Pods(shop).GetLogs(x.name, &corev1.PodLogOptions{}).DoRaw(t.Context())
			if err != nil {
				return err
			}
			for _, word := range x.says {
				if !strings.Contains(string(logs), word) {
					return fmt.Errorf("it does not say %q: %s", word, logs)
				}
			}
			p, err := c.api.CoreV1().Pods(shop).Get(t.Context(), x.name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if x.ends != (p.Status.Phase == corev1.PodFailed) {
				return fmt.Errorf("its pod is %s", p.Status.Phase)
			}
			return nil
		})
		if err := c.api.CoreV1().Pods(shop).Delete(t.Context(), x.name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := c.api.CoreV1().Secrets(shop).Delete(t.Context(), x.name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// restarts counts how often the agents' containers have been started again.
func (c cluster) restarts(t *testing.T) (n int32) {
	t.Helper()
	for _, p := range c.agents(t) {
		for _, s := range p.Status.ContainerStatuses {
			n += s.RestartCount
		}
	}
	return n
}

// storeAway cuts the store off. What is exported meanwhile says so, and is exported when it is
// back; an agent that starts meanwhile does not crash.
func (w *world) storeAway(t *testing.T) {
	c := w.one
	before := c.restarts(t)
	traffic := fleet.Send(t, c.Cluster, shop, "client", url(w.two))
	w.CutStore()
	defer w.HealStore()
	c.apply(t, service(c.Name, "late"))
	c.export(t, "late")
	c.exported(t, "late", string(mcsv1beta1.ServiceExportConditionReady), metav1.ConditionFalse, string(mcsv1beta1.ServiceExportReasonPending))
	agents := c.agents(t)
	if _, err := w.metric(t.Context(), c, agents[0], "causeway_store_connected"); !errors.Is(err, lab.ErrForeign) {
		fleet.Eventually(t, "the metric", func() error {
			v, err := w.metric(t.Context(), c, agents[0], "causeway_store_connected")
			if err == nil && v != "0" {
				err = fmt.Errorf("it is %s", v)
			}
			return err
		})
	}
	if err := c.api.CoreV1().Pods(system).Delete(t.Context(), agents[1].Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	fleet.Eventually(t, "a new agent runs", func() error {
		for _, p := range c.agents(t) {
			if p.Name != agents[0].Name && p.Name != agents[1].Name && p.Status.Phase == corev1.PodRunning {
				return nil
			}
		}
		return errors.New("there is none")
	})
	fleet.Stays(t, "no agent is started again", func() error {
		if n := c.restarts(t); n > before {
			return fmt.Errorf("%d restarts", n-before)
		}
		return nil
	})
	w.HealStore()
	c.exported(t, "late", string(mcsv1beta1.ServiceExportConditionReady), metav1.ConditionTrue, string(mcsv1beta1.ServiceExportReasonExported))
	w.two.imports(t, "late", c.Name)
	c.rolledOut(t, "causeway-agent")
	if n := c.restarts(t); n > before {
		t.Errorf("agents were started again %d times", n-before)
	}
	t.Logf("%d requests", traffic.End(t))
}

// metric asks an agent for a metric without labels, as the clusterset's administrator.
func (w *world) metric(ctx context.Context, c cluster, p corev1.Pod, name string) (string, error) {
	if c.Foreign() {
		return "", lab.ErrForeign
	}
	at := func(file string) string { return filepath.Join(w.Dir, "admin", file) }
	cert, err := tls.LoadX509KeyPair(at(identity.FileCert), at(identity.FileKey))
	if err != nil {
		return "", err
	}
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		// The agent's own trust domain is not known here; the test asks what it says, not who it is.
		TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true, VerifyPeerCertificate: func([][]byte, [][]*x509.Certificate) error { return nil }},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+net.JoinHostPort(p.Status.PodIP, "9090")+"/metrics", nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	for s := bufio.NewScanner(io.LimitReader(resp.Body, 16<<20)); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), name+" "); ok {
			return v, nil
		}
	}
	return "", fmt.Errorf("status %d, and no %s", resp.StatusCode, name)
}

// allAway kills the agents of a cluster whose API server is away, and the store too: they come back
// with the copies on their disks and serve what they served.
func (w *world) allAway(t *testing.T) {
	c := w.one
	c.rolledOut(t, "causeway-agent")
	w.reaches(t, w.two, w.one)
	agents := c.agents(t)
	if err := c.StopAPIServer(); errors.Is(err, lab.ErrForeign) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	started := false
	defer func() {
		if !started {
			_ = c.StartAPIServer(t.Context())
		}
	}()
	w.CutStore()
	defer w.HealStore()
	traffic := fleet.Send(t, w.two.Cluster, shop, "client", url(w.one))
	ready := func(p corev1.Pod) error {
		code, err := fromHere(t.Context(), http.DefaultClient, "http://"+net.JoinHostPort(p.Status.PodIP, "8080")+"/readyz")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("status %d", code)
		}
		return err
	}
	for _, p := range agents {
		if err := ready(p); err != nil {
			t.Errorf("agent %s, with API server and store away: %v", p.Name, err)
		}
		if err := c.KillContainer(t.Context(), p.Status.ContainerStatuses[0].ContainerID); err != nil {
			t.Fatal(err)
		}
	}
	killed := time.Now()
	for _, p := range agents {
		fleet.Eventually(t, "agent "+p.Name+" is ready again", func() error { return ready(p) })
	}
	t.Logf("agents are ready %s after they were killed", time.Since(killed).Round(100*time.Millisecond))
	fleet.Eventually(t, "they serve both crossing gateways", func() error {
		total := 0
		for _, p := range agents {
			v, err := w.metric(t.Context(), c, p, "causeway_xds_streams")
			if err != nil {
				return err
			}
			n, err := strconv.Atoi(v)
			if err != nil {
				return err
			}
			total += n
		}
		if total < 2 {
			return fmt.Errorf("%d are connected", total)
		}
		return nil
	})
	t.Logf("%d requests", traffic.End(t))
	w.HealStore()
	started = true
	if err := c.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.rolledOut(t, "causeway-agent")
	c.apply(t, service(c.Name, "afterwards"))
	c.export(t, "afterwards")
	w.two.imports(t, "afterwards", c.Name)
}
