package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/causeway-mesh/causeway/test/conformance/fleet"
	"github.com/causeway-mesh/causeway/test/lab"
)

// A clusterset whose store and hubs run in a cluster themselves, by the chart causeway-hub: from
// nothing but load balancers' addresses to answers, and the store's own jobs.
func TestHub(t *testing.T) {
	needE2E(t)
	f := fleet.StartBare(t, lab.Options{
		Clusters: 1, CRDs: lab.CRDs{MCS: true}, Images: []string{filepath.Join(os.Getenv("CAUSEWAY_E2E_IMAGES"), "etcd-e2e.tar")},
	})
	c := newCluster(t, f.Clusters[0], "one")
	if err := c.Volumes(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	before := inventory(t, c)
	values := filepath.Join(t.TempDir(), "hub.yaml")
	prepare := func(etcd, hub string, flags ...string) error {
		args := []string{"clusterset", "init", fleet.Clusterset, "--etcd", "https://" + etcd + ":2379", "--api", hub + ":8443", "--hub", hub + ":7946", "--values", values}
		_, err := f.Causeway(t.Context(), append(args, flags...)...)
		return err
	}
	install := func() {
		t.Helper()
		data, err := os.ReadFile(values)
		if err != nil {
			t.Fatal(err)
		}
		repository, tag := fleet.Image(t, "causeway")
		f.Helm(t, c.Cluster, data, "upgrade", "--install", "causeway-hub", hubChart, "--namespace", system, "--create-namespace", "--values", "-",
			"--set", "etcd.enabled=true", "--set", "etcd.service.type=LoadBalancer", "--set", "hub.service.type=LoadBalancer",
			"--set-string", "image.repository="+repository, "--set-string", "image.tag="+tag)
	}

	// Who has no names for the load balancers learns their addresses from a first installation.
	if err := prepare("etcd.example.com", "hub.example.com", "--wait", "1ms"); err == nil {
		t.Fatal("there is no etcd yet")
	}
	install()
	address := map[string]string{}
	for _, name := range []string{"causeway-etcd-client", "causeway-hub"} {
		fleet.Eventually(t, "address of "+name, func() error {
			s, err := c.api.CoreV1().Services(system).Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if len(s.Status.LoadBalancer.Ingress) == 0 {
				return errors.New("none yet")
			}
			in := s.Status.LoadBalancer.Ingress[0]
			address[name] = in.IP + in.Hostname
			return nil
		})
	}
	etcd, hub := address["causeway-etcd-client"], address["causeway-hub"]
	_ = prepare(etcd, hub, "--wait", "1ms") // its members have the old certificates
	install()
	fleet.Eventually(t, "the store", func() error { return prepare(etcd, hub, "--wait", "5s") })
	c.rolledOut(t, "causeway-hub")

	f.Install(t, c.Cluster, c.network)
	fleet.Eventually(t, "the cluster is alive", func() error {
		out, err := f.Ask(t.Context(), "get", "clusters")
		if err != nil {
			return err
		}
		for line := range strings.Lines(out) {
			if fields := strings.Fields(line); len(fields) > 1 && fields[0] == c.Name && fields[1] == "Alive" {
				return nil
			}
		}
		return errors.New(out)
	})
	admin := func(file string) string { return filepath.Join(f.Dir, "admin", file) }
	fleet.Eventually(t, "grpcurl", func() error { // another hub may answer, a moment behind
		out, err := fleet.Output(t.Context(), nil, "go", "tool", "-modfile=.ci/tools/grpcurl.mod", "grpcurl",
			"-cacert", admin("ca.crt"), "-cert", admin("tls.crt"), "-key", admin("tls.key"), hub+":8443", "causeway.v1.Federation/ListClusters")
		if err == nil && !strings.Contains(string(out), fmt.Sprintf("%q", c.Name)) {
			err = fmt.Errorf("it says %s", out)
		}
		return err
	})

	t.Run("jobs", func(t *testing.T) { jobs(t, c) })
	t.Run("a member goes", func(t *testing.T) { memberGoes(t, c) })
	t.Run("nothing but data is left", func(t *testing.T) {
		f.Helm(t, c.Cluster, nil, "uninstall", "causeway", "--namespace", system, "--wait")
		f.Helm(t, c.Cluster, nil, "uninstall", "causeway-hub", "--namespace", system, "--wait")
		fleet.Eventually(t, "what is left", func() error {
			var left []string
			for _, o := range inventory(t, c) {
				kind, name, _ := strings.Cut(o, " ")
				data := kind == "PersistentVolumeClaim" && strings.Contains(name, "causeway-etcd") || kind == "PersistentVolume"
				if !slices.Contains(before, o) && !data && o != "Namespace "+system && !users(kind, name) {
					left = append(left, o)
				}
			}
			if len(left) > 0 {
				return fmt.Errorf("%q", left)
			}
			return nil
		})
	})
}

// jobs runs each CronJob of the chart once, as `kubectl create job --from` does.
func jobs(t *testing.T, c cluster) {
	for _, x := range []struct {
		name string
		says []string
	}{
		{"defragment", []string{"causeway-etcd-0.", "causeway-etcd-1.", "causeway-etcd-2."}},
		{"snapshot", []string{"/snapshots/causeway-", " bytes"}},
	} {
		cron, err := c.api.BatchV1().CronJobs(system).Get(t.Context(), "causeway-etcd-"+x.name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "by-hand-" + x.name, Labels: cron.Spec.JobTemplate.Labels}, Spec: cron.Spec.JobTemplate.Spec}
		if _, err := c.api.BatchV1().Jobs(system).Create(t.Context(), job, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		fleet.Eventually(t, "job "+x.name, func() error {
			j, err := c.api.BatchV1().Jobs(system).Get(t.Context(), job.Name, metav1.GetOptions{})
			if err == nil && j.Status.Succeeded == 0 {
				err = fmt.Errorf("%+v", j.Status)
			}
			return err
		})
		pods, err := c.api.CoreV1().Pods(system).List(t.Context(), metav1.ListOptions{ // there may be others, which failed
			LabelSelector: "batch.kubernetes.io/job-name=" + job.Name, FieldSelector: "status.phase=" + string(corev1.PodSucceeded),
		})
		if err != nil || len(pods.Items) == 0 {
			t.Fatalf("pods of job %s: %v", job.Name, err)
		}
		logs, err := c.api.CoreV1().Pods(system).GetLogs(pods.Items[0].Name, &corev1.PodLogOptions{}).DoRaw(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range x.says {
			if !strings.Contains(string(logs), word) {
				t.Errorf("job %s does not say %q: %s", x.name, word, logs)
			}
		}
		background := metav1.DeletePropagationBackground
		if err := c.api.BatchV1().Jobs(system).Delete(t.Context(), job.Name, metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
			t.Error(err)
		}
	}
}

// memberGoes: with one of its members away the store takes what is exported.
func memberGoes(t *testing.T, c cluster) {
	now := int64(0)
	if err := c.api.CoreV1().Pods(system).Delete(t.Context(), "causeway-etcd-0", metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
	c.apply(t, client)
	c.apply(t, service(c.Name, "web"))
	c.export(t, "web")
	c.exported(t, "web", "Ready", metav1.ConditionTrue, "Exported")
	fleet.Eventually(t, "the member is back", func() error {
		s, err := c.api.AppsV1().StatefulSets(system).Get(t.Context(), "causeway-etcd", metav1.GetOptions{})
		if err == nil && s.Status.ReadyReplicas != 3 {
			err = fmt.Errorf("%d are ready", s.Status.ReadyReplicas)
		}
		return err
	})
}
