package lab

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// imagesVariable names the folder of image archives that `make e2e` has built. Tests that
// need a lab run where it is set, and nowhere else.
const imagesVariable = "CAUSEWAY_E2E_IMAGES"

// StartTest starts a lab for a test, with the images that `make e2e` has built, and
// closes it when the test ends. It skips the test unless `make e2e` runs it.
func StartTest(t testing.TB, o Options) *Lab {
	t.Helper()
	dir := os.Getenv(imagesVariable)
	if dir == "" {
		t.Skip("needs root and real clusters: run it by `make e2e`")
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
			return name + ":" + version
		}
	}
	t.Fatalf("no archive of the image %s in $%s, %s; `make images` writes it", name, imagesVariable, dir)
	return ""
}
