package mcs

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/causeway-mesh/causeway/test/conformance/fleet"
)

func errOf(what string, err error) error {
	if err != nil {
		return err
	}
	return errors.New(what)
}

// lists waits until an import names exactly these clusters.
func (s suite) lists(t *testing.T, c int, ns, svc string, clusters ...string) {
	t.Helper()
	fleet.Eventually(t, fmt.Sprintf("ServiceImport %s/%s in %s lists %s", ns, svc, s.Clusters[c].Name, strings.Join(clusters, ", ")), func() error {
		i, err := s.imported(t.Context(), c, ns, svc)
		if err != nil {
			return err
		}
		var got []string
		for _, x := range i.Status.Clusters {
			got = append(got, x.Cluster)
		}
		if slices.Sort(got); !slices.Equal(got, clusters) {
			return fmt.Errorf("it lists %v", got)
		}
		return nil
	})
}

// addCondition adds a condition of somebody else's to a ServiceExport.
func (s suite) addCondition(t *testing.T, c int, ns, svc, kind string) {
	t.Helper()
	d, err := s.client(c, exports, ns)
	if err != nil {
		t.Fatal(err)
	}
	patch := fmt.Sprintf(`{"apiVersion":"multicluster.x-k8s.io/v1beta1","kind":"ServiceExport","metadata":{"name":%q,"namespace":%q},"status":{"conditions":[
		{"type":%q,"status":"True","reason":"ByHand","message":"","observedGeneration":1,"lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`, svc, ns, kind)
	if _, err := d.Patch(t.Context(), svc, types.ApplyPatchType, []byte(patch), metav1.PatchOptions{FieldManager: "somebody"}, "status"); err != nil {
		t.Fatal(err)
	}
}

// scale sets how many pods a Deployment has.
func (s suite) scale(t *testing.T, c int, ns, name string, replicas int) {
	t.Helper()
	d, err := s.client(c, workloads, ns)
	if err == nil {
		_, err = d.Patch(t.Context(), name, types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas), metav1.PatchOptions{})
	}
	if err != nil {
		t.Fatalf("%s: %v", s.Clusters[c].Name, err)
	}
}

// gone waits until there is no import.
func (s suite) gone(t *testing.T, c int, ns, svc string) {
	t.Helper()
	fleet.Eventually(t, fmt.Sprintf("ServiceImport %s/%s in %s is gone", ns, svc, s.Clusters[c].Name), func() error {
		if _, err := s.imported(t.Context(), c, ns, svc); !apierrors.IsNotFound(err) {
			return errOf("it is there", err)
		}
		return nil
	})
}
