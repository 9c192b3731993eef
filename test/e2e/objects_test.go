package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
)

func isNotFound(err error) bool { return apierrors.IsNotFound(err) }

// get reads an object of the tests' namespace.
func get[T any](ctx context.Context, c cluster, r schema.GroupVersionResource, name string) (*T, error) {
	u, err := c.dynamic.Resource(r).Namespace(shop).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	out := new(T)
	return out, runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, out)
}

// untold are kinds of objects that tell of others: of what was, or of addresses that Services have.
var untold = []string{"Event", "IPAddress", "Endpoints", "ComponentStatus"}

// inventory lists all objects of a cluster, but for those untold, and for what Kubernetes adds
// to each namespace, sooner or later.
func inventory(t *testing.T, c cluster) []string {
	t.Helper()
	disco, err := discovery.NewDiscoveryClientForConfig(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	lists, err := disco.ServerPreferredResources()
	if err != nil {
		t.Fatal(err)
	}
	client, err := metadata.NewForConfig(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list.APIResources {
			if !slices.Contains(r.Verbs, "list") || slices.Contains(untold, r.Kind) {
				continue
			}
			objects, err := client.Resource(gv.WithResource(r.Name)).List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatalf("list %s of %s: %v", r.Name, c.Name, err)
			}
			for _, o := range objects.Items {
				if r.Kind == "ConfigMap" && o.Name == "kube-root-ca.crt" || r.Kind == "ServiceAccount" && o.Name == "default" {
					continue
				}
				out = append(out, fmt.Sprintf("%s %s", r.Kind, strings.Trim(o.Namespace+"/"+o.Name, "/")))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
