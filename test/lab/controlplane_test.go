package lab_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/causeway-mesh/causeway/test/lab"
)

// An API server with our kinds comes up without root, keeps what it has over a crash, and
// serves both versions of MCS.
func TestControlPlane(t *testing.T) {
	t.Parallel()
	cp := lab.StartControlPlane(t, lab.ControlPlaneOptions{CRDs: lab.CRDs{GatewayAPI: lab.Experimental, MCS: true}, Controllers: true})
	client, err := kubernetes.NewForConfig(cp.Config)
	if err != nil {
		t.Fatal(err)
	}
	for version, kinds := range map[string][]string{
		"gateway.networking.k8s.io/v1": {"HTTPRoute", "Gateway"}, "gateway.networking.x-k8s.io/v1alpha1": {"XMesh"},
		"multicluster.x-k8s.io/v1alpha1": {"ServiceImport"}, "multicluster.x-k8s.io/v1beta1": {"ServiceExport", "ServiceImport"},
	} {
		list, err := client.Discovery().ServerResourcesForGroupVersion(version)
		if err != nil {
			t.Fatalf("%s: %v", version, err)
		}
		has := map[string]bool{}
		for _, r := range list.APIResources {
			has[r.Kind] = true
		}
		for _, k := range kinds {
			if !has[k] {
				t.Errorf("%s has no %s", version, k)
			}
		}
	}
	if err := lab.Apply(t.Context(), cp.Config, []byte(`
apiVersion: v1
kind: Namespace
metadata: {name: app}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: app}
spec: {ipFamilyPolicy: RequireDualStack, ports: [{port: 80}]}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: web, namespace: app}
`)); err != nil {
		t.Fatal(err)
	}
	if err := cp.StopAPIServer(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Services("app").Get(t.Context(), "web", metav1.GetOptions{}); err == nil {
		t.Error("a stopped API server answers")
	}
	if err := cp.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	web, err := client.CoreV1().Services("app").Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(web.Spec.ClusterIPs) != 2 || web.Spec.IPFamilies[1] != corev1.IPv6Protocol {
		t.Errorf("the Service has addresses %v of families %v", web.Spec.ClusterIPs, web.Spec.IPFamilies)
	}
	// The controllers finish a namespace off, once they have found the API server again, which
	// client-go takes up to a minute for.
	if err := client.CoreV1().Namespaces().Delete(t.Context(), "app", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		_, err := client.CoreV1().Namespaces().Get(t.Context(), "app", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("namespace app is still there: %v", err)
		}
	}
}
