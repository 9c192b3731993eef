package resolve

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/resolve/resolvetest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden resolves each folder of testdata for each of its clusters. What the
// folder holds is in package resolvetest; <cluster>.golden is the outcome. Folders and
// golden files that belong to nothing fail.
func TestGolden(t *testing.T) {
	dirs, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		if d.Name() == "rapid" || d.Name() == "fuzz" {
			continue // what rapid keeps of failures, and the corpus of FuzzResolve
		}
		t.Run(d.Name(), func(t *testing.T) {
			dir := filepath.Join("testdata", d.Name())
			world := resolvetest.ReadDir(t, dir)
			snap := world.Snapshot(t)
			expected := map[string]bool{"meta.yaml": true, "health.yaml": true, "drain.yaml": true, "policy.yaml": true}
			for _, c := range snap.Clusters() {
				expected[string(c.ID)+".yaml"] = true
				expected[string(c.ID)+".golden"] = true
				checkGolden(t, filepath.Join(dir, string(c.ID)+".golden"), dump(Resolve(c.ID, arrived(t, world, c.ID))))
			}
			files, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				if !expected[f.Name()] {
					t.Errorf("%s/%s belongs to no cluster of meta.yaml", dir, f.Name())
				}
			}
		})
	}
}

// arrived is the world as a cluster knows it: of others' Secrets, those with certificates that
// they let travel to it.
func arrived(t *testing.T, w resolvetest.World, to cluster.ID) *federation.Snapshot {
	all := w.Snapshot(t)
	come := map[string]bool{}
	for _, c := range all.Clusters() {
		each(Resolve(c.ID, all).Travels, func(_ string, x *Travel) {
			for _, cert := range x.Certificates {
				if slices.Contains(cert.Clusters, to) {
					come[string(c.ID)+"/"+cert.Namespace+"/"+cert.Name] = true
				}
			}
		})
	}
	w.Objects = slices.DeleteFunc(slices.Clone(w.Objects), func(o *cluster.Object) bool {
		return o.Kind == cluster.KindSecret && o.Cluster != to && !come[string(o.Cluster)+"/"+o.Namespace+"/"+o.Name]
	})
	return w.Snapshot(t)
}

func checkGolden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: run the test with -update and review what it writes", err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}
