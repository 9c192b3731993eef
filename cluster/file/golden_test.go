package file

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/causeway-mesh/causeway/cluster"
)

var update = flag.Bool("update", false, "write the expected results anew")

// shared saves each test the time of compiling the schemas.
var shared = NewSchemas()

// Each case of testdata/reading is a folder with what must come of it: the
// objects, and the problems word for word.
func TestGolden(t *testing.T) {
	cases, err := filepath.Glob("testdata/reading/*.txtar")
	if err != nil || len(cases) == 0 {
		t.Fatal("no cases", err)
	}
	for _, name := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			var want []byte
			kept := archive.Files[:0:0]
			for _, f := range archive.Files {
				if f.Name == "want" {
					want = f.Data
					continue
				}
				kept = append(kept, f)
				write(t, dir, f.Name, string(f.Data))
			}
			got := describe(readOnce(t, Config{Dir: dir}))
			if *update {
				archive.Files = append(kept, txtar.File{Name: "want", Data: []byte(got)})
				if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("-want +got, or run with -update:\n%s", d)
			}
		})
	}
}

// write puts a file in place, old enough to be believed at once.
func write(t testing.TB, dir, name, text string) {
	t.Helper()
	name = filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(name, old, old); err != nil {
		t.Fatal(err)
	}
}

func readOnce(t testing.TB, cfg Config) *state {
	t.Helper()
	cfg.Cluster, cfg.Logger, cfg.Schemas = "east", slog.New(slog.DiscardHandler), shared
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	st := newState()
	if err := s.look(context.Background(), st, func(string) {}); err != nil {
		t.Fatal(err)
	}
	return st
}

func describe(st *state) string {
	var b strings.Builder
	m := st.meta
	if m.Region+m.Zone+m.Network != "" {
		fmt.Fprintf(&b, "meta region=%q zone=%q network=%q\n", m.Region, m.Zone, m.Network)
	}
	lines := []string{}
	for ref, o := range st.objects {
		lines = append(lines, fmt.Sprintf("%s %s\n", ref, o.Origin))
	}
	slices.Sort(lines)
	b.WriteString(strings.Join(lines, ""))
	for _, p := range st.problems {
		fmt.Fprintf(&b, "problem: %s [%s] %s\n", p.Where, p.Object, p.Message)
	}
	return b.String()
}

// state is a sink that holds what a reader of the batches would.
type state struct {
	objects  map[cluster.Ref]*cluster.Object
	problems []cluster.Problem
	meta     cluster.Meta
	synced   bool
	batches  []cluster.Batch
}

func newState() *state { return &state{objects: map[cluster.Ref]*cluster.Object{}} }

func (s *state) Deliver(_ context.Context, b cluster.Batch) error {
	for _, e := range b.Events {
		if e.Object == nil {
			delete(s.objects, e.Ref)
		} else {
			s.objects[e.Ref] = e.Object
		}
	}
	if b.Problems != nil {
		s.problems = *b.Problems
	}
	if b.Meta != nil {
		s.meta = *b.Meta
	}
	s.synced = b.Synced
	s.batches = append(s.batches, b)
	return nil
}
