package mcs

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/test/conformance/fleet"
	"github.com/causeway-mesh/causeway/test/lab"
)

// The clusters, by number, and what is particular of them.
const (
	c1 = iota // alone in its network
	c2
	c3 // in the network of c2
)

var everywhere = []int{c1, c2, c3}

// suite is what cases share: a fleet, and a client in each cluster.
type suite struct{ *fleet.Fleet }

const clientNamespace = "client"

// TestMCS runs all cases on one fleet.
func TestMCS(t *testing.T) {
	s := suite{fleet.Start(t, fleet.Options{Networks: []string{"one", "two", "two"}, CRDs: lab.CRDs{GatewayAPI: lab.Standard, MCS: true}})}
	for _, c := range s.Clusters {
		s.apply(t, c.Number-1, fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: %s}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: %[1]s}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: client, image: "%s", args: [idle]}
`, clientNamespace, lab.TestImage(t, "causeway-test")))
	}
	for _, x := range slices.Concat(exportCases, mergeCases, nameCases, trafficCases, lifeCases) {
		t.Run(strings.ReplaceAll(x.says, " ", "_"), func(t *testing.T) {
			t.Parallel()
			x.holds(t, s, namespaceOf(x.says))
		})
	}
}

// testCase is a sentence of the KEP, and what holds the clusters to it, in a namespace of
// its own.
type testCase struct {
	says  string
	holds func(t *testing.T, s suite, ns string)
}

// namespaceOf makes a namespace's name of a sentence.
func namespaceOf(says string) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, says)
	return strings.Trim("t-"+clean[:min(len(clean), 50)], "-")
}

func (s suite) apply(t *testing.T, c int, manifests string) {
	t.Helper()
	if err := s.Clusters[c].Apply(t.Context(), []byte(manifests)); err != nil {
		t.Fatalf("%s: %v", s.Clusters[c].Name, err)
	}
}

// namespace makes one in clusters.
func (s suite) namespace(t *testing.T, ns string, clusters ...int) {
	t.Helper()
	for _, c := range clusters {
		s.apply(t, c, "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+ns+"}\n")
	}
}

// serve runs an echo server behind the Service svc in clusters, and waits for nothing.
// spec are further lines of the Service's spec, each with its end.
func (s suite) serve(t *testing.T, ns, svc, spec string, clusters ...int) {
	t.Helper()
	for _, c := range clusters {
		s.apply(t, c, fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  replicas: 1
  selector: {matchLabels: {app: %[2]s}}
  template:
    metadata: {labels: {app: %[2]s}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: echo
        image: "%[3]s"
        args: [serve, -http, "8080,8081", -udp, "5353"]
        env:
        - {name: CLUSTER, value: "%[4]s"}
        - {name: NAMESPACE, value: "%[1]s"}
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  selector: {app: %[2]s}
%[5]s`, ns, svc, lab.TestImage(t, "causeway-test"), s.Clusters[c].Name, indent(spec)))
	}
}

// service makes a Service without pods.
func (s suite) service(t *testing.T, ns, svc, spec string, clusters ...int) {
	t.Helper()
	for _, c := range clusters {
		s.apply(t, c, fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %[1]s}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: %[2]s, namespace: %[1]s}\nspec:\n%[3]s", ns, svc, indent(spec)))
	}
}

func indent(lines string) string {
	var b strings.Builder
	for l := range strings.Lines(lines) {
		b.WriteString("  " + l)
	}
	return b.String()
}

// Ports of the echo server.
const (
	httpPort = "ports: [{name: http, port: 80, targetPort: 8080, appProtocol: http}]\n"
	tcpPort  = "ports: [{name: tcp, port: 80, targetPort: 8080}]\n"
	udpPort  = "ports: [{name: udp, port: 53, targetPort: 5353, protocol: UDP}]\n"
)

// export exports a Service from clusters; spec are the ServiceExport's.
func (s suite) export(t *testing.T, ns, svc, spec string, clusters ...int) {
	t.Helper()
	for _, c := range clusters {
		text := fmt.Sprintf("apiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceExport\nmetadata: {name: %s, namespace: %s}\n", svc, ns)
		if spec != "" {
			text += "spec:\n" + indent(spec)
		}
		s.apply(t, c, text)
	}
}

var (
	exports   = schema.GroupVersionResource{Group: mcsv1beta1.GroupName, Version: "v1beta1", Resource: "serviceexports"}
	imports   = schema.GroupVersionResource{Group: mcsv1beta1.GroupName, Version: "v1beta1", Resource: "serviceimports"}
	services  = schema.GroupVersionResource{Version: "v1", Resource: "services"}
	endpoints = schema.GroupVersionResource{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"}
	workloads = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
)

func (s suite) client(c int, r schema.GroupVersionResource, ns string) (dynamic.ResourceInterface, error) {
	d, err := dynamic.NewForConfig(s.Clusters[c].Config)
	if err != nil {
		return nil, err
	}
	return d.Resource(r).Namespace(ns), nil
}

func get[T any](ctx context.Context, s suite, c int, r schema.GroupVersionResource, ns, name string) (*T, error) {
	d, err := s.client(c, r, ns)
	if err != nil {
		return nil, err
	}
	u, err := d.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Clusters[c].Name, err)
	}
	out := new(T)
	return out, runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, out)
}

func (s suite) imported(ctx context.Context, c int, ns, svc string) (*mcsv1beta1.ServiceImport, error) {
	return get[mcsv1beta1.ServiceImport](ctx, s, c, imports, ns, svc)
}

func (s suite) delete(t *testing.T, c int, r schema.GroupVersionResource, ns, name string) {
	t.Helper()
	d, err := s.client(c, r, ns)
	if err == nil {
		err = d.Delete(t.Context(), name, metav1.DeleteOptions{})
	}
	if err != nil {
		t.Fatalf("%s: %v", s.Clusters[c].Name, err)
	}
}

// hasIP waits for an import with an address.
func (s suite) hasIP(t *testing.T, c int, ns, svc string) *mcsv1beta1.ServiceImport {
	t.Helper()
	var out *mcsv1beta1.ServiceImport
	fleet.Eventually(t, fmt.Sprintf("ServiceImport %s/%s in %s has an address", ns, svc, s.Clusters[c].Name), func() (err error) {
		if out, err = s.imported(t.Context(), c, ns, svc); err == nil && len(out.Spec.IPs) == 0 {
			err = fmt.Errorf("none yet: %+v", out.Spec)
		}
		return err
	})
	return out
}

// condition waits for a condition of a ServiceExport; reason is part of its reason.
func (s suite) condition(t *testing.T, c int, ns, svc string, kind mcsv1beta1.ServiceExportConditionType, status metav1.ConditionStatus, reason string) metav1.Condition {
	t.Helper()
	var out metav1.Condition
	fleet.Eventually(t, fmt.Sprintf("ServiceExport %s/%s in %s: %s=%s %s", ns, svc, s.Clusters[c].Name, kind, status, reason), func() error {
		e, err := get[mcsv1beta1.ServiceExport](t.Context(), s, c, exports, ns, svc)
		if err != nil {
			return err
		}
		for _, x := range e.Status.Conditions {
			if x.Type == string(kind) {
				out = x
				if x.Status == status && strings.Contains(x.Reason, reason) && x.ObservedGeneration == e.Generation {
					return nil
				}
			}
		}
		return fmt.Errorf("conditions %+v", e.Status.Conditions)
	})
	return out
}

// name is the DNS name of an import.
func name(ns, svc string) string { return svc + "." + ns + ".svc.clusterset.local" }

// look asks a cluster's DNS, as its pods do.
func (s suite) look(ctx context.Context, c int, kind, name string) (fleet.Records, error) {
	return fleet.Client[fleet.Records](ctx, s.Clusters[c], clientNamespace, "client", "dns", "-type", kind, name)
}

// ask sends requests from a cluster's client.
func (s suite) ask(ctx context.Context, c int, argv ...string) (fleet.Answers, error) {
	return fleet.Client[fleet.Answers](ctx, s.Clusters[c], clientNamespace, "client", argv...)
}

// reaches waits until requests from cluster c are all answered, by these clusters alone,
// each of them.
func (s suite) reaches(t *testing.T, c int, clusters []int, argv ...string) {
	t.Helper()
	fleet.Eventually(t, fmt.Sprintf("%v from %s", argv, s.Clusters[c].Name), func() error {
		a, err := s.ask(t.Context(), c, argv...)
		if err != nil {
			return err
		}
		if a.Failed > 0 || len(a.Clusters) != len(clusters) {
			return fmt.Errorf("answers of %v, %d without", a.Clusters, a.Failed)
		}
		for _, want := range clusters {
			if a.Clusters[s.Clusters[want].Name] == 0 {
				return fmt.Errorf("answers of %v, none of %s", a.Clusters, s.Clusters[want].Name)
			}
		}
		return nil
	})
}
