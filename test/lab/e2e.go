package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/kubernetes"
)

// The settings of tests that need clusters.
const (
	// imagesVariable names the folder of image archives that `make e2e` has built. The
	// tests run where it is set, and nowhere else.
	imagesVariable = "CAUSEWAY_E2E_IMAGES"
	// kubeconfigsVariable names kubeconfig files, as PATH does folders: clusters of
	// somebody's, which the tests are to use instead of a lab.
	kubeconfigsVariable = "CAUSEWAY_E2E_KUBECONFIGS"
	// registryVariable is what comes before the images' names in these clusters, where
	// they have been pushed to a registry.
	registryVariable = "CAUSEWAY_E2E_REGISTRY"
	// addressVariable is the address of this machine by which pods of these clusters reach it.
	addressVariable = "CAUSEWAY_E2E_ADDRESS"
	// flatVariable, if it is not empty, says that their pods reach each other.
	flatVariable = "CAUSEWAY_E2E_FLAT"
)

// ErrForeign says that something can't be done to clusters that are no lab's.
var ErrForeign = errors.New("the clusters are no lab's, but those of $" + kubeconfigsVariable)

// StartTest starts a lab for a test, with the images that `make e2e` has built, and
// closes it when the test ends. It skips the test unless `make e2e` runs it. Where
// $CAUSEWAY_E2E_KUBECONFIGS names clusters it takes those; Cut, Heal, Flat, StopAPIServer
// and StartAPIServer then give ErrForeign, and the test has to remove what it applies.
func StartTest(t testing.TB, o Options) *Lab {
	t.Helper()
	dir := os.Getenv(imagesVariable)
	if dir == "" {
		t.Skip("needs root and real clusters: run it by `make e2e`")
	}
	if list := os.Getenv(kubeconfigsVariable); list != "" {
		l, err := adopt(t.Context(), o, filepath.SplitList(list))
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	archives, err := filepath.Glob(filepath.Join(dir, "causeway*.tar"))
	if err != nil || len(archives) == 0 {
		t.Fatalf("no image archives in $%s, %s", imagesVariable, dir)
	}
	o.Images = append(archives, o.Images...)
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	l, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// adopt makes a Lab of clusters that are there already.
func adopt(ctx context.Context, o Options, kubeconfigs []string) (*Lab, error) {
	if len(kubeconfigs) < o.Clusters {
		return nil, fmt.Errorf("%d clusters are needed, and $%s names %d", o.Clusters, kubeconfigsVariable, len(kubeconfigs))
	}
	l := &Lab{Machine: os.Getenv(addressVariable), foreign: true}
	if l.Machine == "" {
		return nil, fmt.Errorf("$%s has to say by which address pods reach this machine", addressVariable)
	}
	crds, err := o.CRDs.manifests(ctx)
	if err != nil {
		return nil, err
	}
	for i, path := range kubeconfigs[:o.Clusters] {
		c := &Cluster{Number: i + 1, Name: nameOf(i + 1), Kubeconfig: path}
		if c.Config, err = adminConfig(path); err != nil {
			return nil, err
		}
		if c.client, err = kubernetes.NewForConfig(c.Config); err != nil {
			return nil, err
		}
		if err := c.Apply(ctx, crds); err != nil {
			return nil, err
		}
		l.Clusters = append(l.Clusters, c)
	}
	return l, nil
}

// TestImage is what the image of that name is called in the labs of StartTest: "causeway",
// "causeway-envoy" or "causeway-test".
func TestImage(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv(imagesVariable)
	archives, err := filepath.Glob(filepath.Join(dir, name+"-*.tar"))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range archives {
		// Names are prefixes of others; a version begins with a digit, a v or a word of its own.
		version := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(a), name+"-"), ".tar")
		if name != "causeway" || !strings.HasPrefix(version, "envoy-") && !strings.HasPrefix(version, "test-") {
			return os.Getenv(registryVariable) + name + ":" + version
		}
	}
	t.Fatalf("no archive of the image %s in $%s, %s; `make images` writes it", name, imagesVariable, dir)
	return ""
}
