package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"golang.org/x/sync/errgroup"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/test/conformance/fleet"
	"github.com/causeway-mesh/causeway/test/lab"
)

// remove takes a cluster out that nobody reaches any more. Back again, it stays out.
func (w *world) remove(t *testing.T) {
	w.one.imports(t, "at-"+w.two.Name, w.two.Name)
	foreign := false
	for _, other := range []int{0, 1} { // the machine has the store
		err := w.Cut(t.Context(), other, 2)
		if foreign = errors.Is(err, lab.ErrForeign); err != nil && !foreign {
			t.Fatal(err)
		}
	}
	// No connection is left over which it could be told that its records go: once it is
	// back, the store refuses it.
	w.CutStore()
	w.HealStore()
	out, err := w.Causeway(t.Context(), "cluster", "remove", w.two.Name)
	if err == nil || !strings.Contains(err.Error(), "--yes") {
		t.Errorf("without --yes: %s %v", out, err)
	}
	if _, err := w.Causeway(t.Context(), "cluster", "remove", w.two.Name, "--yes"); err != nil {
		t.Fatal(err)
	}
	w.one.imports(t, "at-"+w.two.Name)
	for _, other := range []int{0, 1} {
		if err := w.Heal(t.Context(), other, 2); err != nil && !errors.Is(err, lab.ErrForeign) {
			t.Fatal(err)
		}
	}
	w.two.exported(t, "at-"+w.two.Name, "Ready", metav1.ConditionFalse, "Pending")
	if !foreign {
		fleet.Eventually(t, "its export says why", func() error {
			e, err := get[mcsv1beta1.ServiceExport](t.Context(), w.two, exportsResource, "at-"+w.two.Name)
			if err == nil && !strings.Contains(fmt.Sprint(e.Status.Conditions), "the global store refuses this cluster") {
				err = fmt.Errorf("conditions %+v", e.Status.Conditions)
			}
			return err
		})
	}
	fleet.Stays(t, "it is not there again", func() error { return w.one.hasImport(t.Context(), "at-"+w.two.Name) })
	w.one.imports(t, "at-"+w.one.Name, w.one.Name) // the others are
}

// uninstall leaves what was there before, and what is the users' own.
func (w *world) uninstall(t *testing.T, before map[string][]string) {
	var g errgroup.Group
	for _, c := range w.clusters() {
		g.Go(func() error {
			_, err := fleet.Output(t.Context(), nil, "go", "tool", "-modfile=.ci/tools/helm.mod", "helm", "--kubeconfig", c.Kubeconfig, "uninstall", "causeway", "--namespace", system, "--wait", "--timeout", "300s")
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, c := range w.clusters() {
		fleet.Eventually(t, "what is left of "+c.Name, func() error {
			var left []string
			for _, o := range inventory(t, c) {
				if kind, name, _ := strings.Cut(o, " "); !slices.Contains(before[c.Name], o) && !users(kind, name) {
					left = append(left, o)
				}
			}
			if len(left) > 0 {
				return fmt.Errorf("%q", left)
			}
			return nil
		})
	}
}

// users tells whether an object is of the tests' own, or of Kubernetes for them.
func users(kind, name string) bool {
	ns, name, ok := strings.Cut(name, "/")
	switch {
	case kind == "Namespace":
		return ns == shop || ns == many
	case !ok || ns != shop && ns != many:
		return false
	case kind == "ServiceImport":
		return false
	case kind == "Service", kind == "EndpointSlice":
		return !strings.HasPrefix(name, "causeway-")
	}
	return true
}
