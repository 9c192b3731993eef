package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/test/conformance/fleet"
	"github.com/causeway-mesh/causeway/test/lab"
)

const (
	system     = "causeway-system"
	shop       = "shop" // the namespace of what the tests run
	agentLabel = "app.kubernetes.io/name=causeway-agent"
)

var (
	exportsResource = schema.GroupVersionResource{Group: mcsv1beta1.GroupName, Version: "v1beta1", Resource: "serviceexports"}
	importsResource = schema.GroupVersionResource{Group: mcsv1beta1.GroupName, Version: "v1beta1", Resource: "serviceimports"}
)

// world is a clusterset of two clusters of separate networks.
type world struct {
	*fleet.Fleet
	one, two cluster
}

// cluster is one of them.
type cluster struct {
	*lab.Cluster
	api     kubernetes.Interface
	dynamic dynamic.Interface
	network string
}

func newCluster(t *testing.T, c *lab.Cluster, network string) cluster {
	t.Helper()
	out := cluster{Cluster: c, network: network}
	var err error
	if out.api, err = kubernetes.NewForConfig(c.Config); err != nil {
		t.Fatal(err)
	}
	if out.dynamic, err = dynamic.NewForConfig(c.Config); err != nil {
		t.Fatal(err)
	}
	if c.Foreign() {
		t.Cleanup(func() {
			for _, ns := range []string{shop, many, system} {
				if err := out.api.CoreV1().Namespaces().Delete(context.Background(), ns, metav1.DeleteOptions{}); err != nil && !isNotFound(err) {
					t.Error(err)
				}
			}
		})
	}
	return out
}

// TestCluster is the life of a clusterset, from the installation of the charts to their going.
// Its parts build upon each other.
func TestCluster(t *testing.T) {
	f := fleet.StartBare(t, lab.Options{Clusters: 2, CRDs: lab.CRDs{GatewayAPI: lab.Standard, MCS: true}})
	w := &world{Fleet: f, one: newCluster(t, f.Clusters[0], "one"), two: newCluster(t, f.Clusters[1], "two")}
	f.StartStore(t)
	before := map[string][]string{}
	for _, c := range w.clusters() {
		c.apply(t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+system+"}\n")
		before[c.Name] = inventory(t, c)
		c.apply(t, client)
		c.apply(t, service(c.Name, "at-"+c.Name))
	}
	next, expired := w.buildNext(t), w.shortLived(t)

	t.Run("dry run", w.dryRun)
	for _, c := range w.clusters() {
		f.Install(t, c.Cluster, c.network)
		c.export(t, "at-"+c.Name)
	}
	w.reaches(t, w.one, w.two)
	w.reaches(t, w.two, w.one)
	for _, x := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"a leader that goes loses no request", w.handOver},
		{"an upgrade loses no request", func(t *testing.T) { w.upgrade(t, next) }},
		{"a thousand Services", w.thousand},
		{"credentials that are not this cluster's are refused", func(t *testing.T) { w.refused(t, expired) }},
		{"a store that is away is a condition and a metric", w.storeAway},
		{"agents start without API server and store", w.allAway},
		{"a cluster that is gone for good is removed", w.remove},
		{"nothing is left", func(t *testing.T) { w.uninstall(t, before) }},
	} {
		if !t.Run(x.name, x.run) && t.Context().Err() != nil {
			break
		}
	}
}

func (w *world) clusters() []cluster { return []cluster{w.one, w.two} }

func (c cluster) apply(t *testing.T, manifests string) {
	t.Helper()
	if err := c.Apply(t.Context(), []byte(strings.ReplaceAll(manifests, "TESTIMAGE", lab.TestImage(t, "causeway-test")))); err != nil {
		t.Fatal(err)
	}
}

// client is a pod in which clients run.
const client = `
apiVersion: v1
kind: Namespace
metadata: {name: ` + shop + `}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: ` + shop + `}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: client, image: "TESTIMAGE", args: [idle]}]
`

// service is an echo server of a cluster and a Service before it.
func service(cluster, name string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  replicas: 2
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: echo
        image: "TESTIMAGE"
        args: [serve, -http, "8080"]
        env:
        - {name: CLUSTER, value: %[3]s}
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  selector: {app: %[1]s}
  ports: [{name: http, port: 80, targetPort: 8080, appProtocol: http}]
`, name, shop, cluster)
}

func (c cluster) export(t *testing.T, name string) {
	t.Helper()
	c.apply(t, fmt.Sprintf("apiVersion: %s\nkind: ServiceExport\nmetadata: {name: %s, namespace: %s}\n", mcsv1beta1.GroupVersion, name, shop))
}

// url is by what every cluster reaches the Service of one.
func url(c cluster) string {
	return fmt.Sprintf("http://at-%s.%s.svc.clusterset.local/", c.Name, shop)
}

// reaches waits until the client of a cluster has an answer from another.
func (w *world) reaches(t *testing.T, from, to cluster) {
	t.Helper()
	fleet.Eventually(t, fmt.Sprintf("%s from %s", url(to), from.Name), func() error {
		a, err := fleet.Client[fleet.Answers](t.Context(), from.Cluster, shop, "client", "http", "-n", "5", url(to))
		if err != nil {
			return err
		}
		if a.Failed > 0 || a.Clusters[to.Name] != 5 {
			return fmt.Errorf("%+v", a)
		}
		return nil
	})
}

// exported waits for a condition of a ServiceExport that is of its generation.
func (c cluster) exported(t *testing.T, name, condition string, status metav1.ConditionStatus, reason string) {
	t.Helper()
	fleet.Eventually(t, fmt.Sprintf("ServiceExport %s of %s: %s=%s %s", name, c.Name, condition, status, reason), func() error {
		e, err := get[mcsv1beta1.ServiceExport](t.Context(), c, exportsResource, name)
		if err != nil {
			return err
		}
		x := meta.FindStatusCondition(e.Status.Conditions, condition)
		if x == nil || x.Status != status || x.Reason != reason || x.ObservedGeneration != e.Generation {
			return fmt.Errorf("conditions %+v", e.Status.Conditions)
		}
		return nil
	})
}

// imports waits until the clusters that export a Service are these alone, as c sees it; none:
// until there is no import.
func (c cluster) imports(t *testing.T, name string, exporters ...string) {
	t.Helper()
	fleet.Eventually(t, fmt.Sprintf("ServiceImport %s of %s is of %v", name, c.Name, exporters), func() error { return c.hasImport(t.Context(), name, exporters...) })
}

// agents are the pods of a cluster's agents, but for those that are going.
func (c cluster) agents(t *testing.T) []corev1.Pod {
	t.Helper()
	list, err := c.api.CoreV1().Pods(system).List(t.Context(), metav1.ListOptions{LabelSelector: agentLabel})
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
}

// rolledOut waits until all pods of a Deployment are ready, and there are as many as there should be.
func (c cluster) rolledOut(t *testing.T, deployment string) {
	t.Helper()
	fleet.Eventually(t, deployment+" of "+c.Name, func() error {
		d, err := c.api.AppsV1().Deployments(system).Get(t.Context(), deployment, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if s := d.Status; s.ReadyReplicas != *d.Spec.Replicas || s.UpdatedReplicas != s.ReadyReplicas || s.Replicas != s.ReadyReplicas || s.ObservedGeneration != d.Generation {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

func (c cluster) hasImport(ctx context.Context, name string, exporters ...string) error {
	i, err := get[mcsv1beta1.ServiceImport](ctx, c, importsResource, name)
	switch {
	case isNotFound(err) && len(exporters) == 0:
		return nil
	case err != nil:
		return err
	}
	var have []string
	for _, x := range i.Status.Clusters {
		have = append(have, x.Cluster)
	}
	slices.Sort(have)
	if len(exporters) == 0 || !slices.Equal(have, exporters) {
		return fmt.Errorf("it is of %v", have)
	}
	return nil
}
