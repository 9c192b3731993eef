package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// What `make e2e` has built comes out the same when it is built once more.
func TestReproducible(t *testing.T) {
	dir := os.Getenv("CAUSEWAY_E2E_IMAGES")
	if dir == "" {
		t.Skip("builds all programs: run it by `make e2e`")
	}
	out := t.TempDir()
	t.Chdir(filepath.Join("..", ".."))
	if err := build(t.Context(), "e2e", out, []string{"causeway", "causeway-envoy", "causeway-test", "etcd"}); err != nil {
		t.Fatal(err)
	}
	again, err := filepath.Glob(filepath.Join(out, "*"))
	if err != nil || len(again) != 4 {
		t.Fatalf("%q %v", again, err)
	}
	for _, path := range again {
		first, err := os.ReadFile(filepath.Join(dir, filepath.Base(path)))
		if err != nil {
			t.Fatal(err)
		}
		second, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first, second) {
			t.Errorf("%s is %d bytes, and %d the second time, and they differ", filepath.Base(path), len(first), len(second))
		}
	}
}

func TestVersionIsATag(t *testing.T) {
	for _, version := range []string{"", "a b", "a/b", "-x", "v1+meta"} {
		if err := build(t.Context(), version, t.TempDir(), nil); err == nil {
			t.Errorf("%q is accepted", version)
		}
	}
}
