package file

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// Whatever edits were made, in the end the source says what one that starts
// then says, save where a file is broken and its last good state is kept.
func TestEditsEndInAFreshRead(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "edits")
		if err != nil {
			t.Fatal(err)
		}
		clock := &stepper{files: files{reader: &reader{schemas: shared, maxObjects: 1000}, maxFiles: 100, maxBytes: 1 << 20, byPath: map[string]*tracked{}}}
		paths := []string{"a.yaml", "b.yml", "sub/c.yaml", "sub/deep/d.json"}
		document := rapid.Custom(func(t *rapid.T) string {
			name := rapid.SampledFrom([]string{"p", "q", "r", "s"}).Draw(t, "name")
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				return "{apiVersion: v1, kind: ConfigMap, metadata: {name: " + name + "}, data: [broken]}"
			case 1:
				return "{apiVersion: v1, kind: Namespace, metadata: {name: " + name + "}}"
			default:
				return fmt.Sprintf(`{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": %q}, "data": {"v": "%d"}}`, name, rapid.IntRange(0, 3).Draw(t, "v"))
			}
		})
		broken := map[string]bool{}
		for range rapid.IntRange(1, 12).Draw(rt, "edits") {
			name := rapid.SampledFrom(paths).Draw(rt, "file")
			full := filepath.Join(dir, filepath.FromSlash(name))
			switch rapid.IntRange(0, 5).Draw(rt, "edit") {
			case 0:
				_ = os.Remove(full)
			case 1:
				_ = os.RemoveAll(filepath.Dir(full))
				_ = os.MkdirAll(dir, 0o755)
			case 2:
				write(t, dir, name, "{ malformed")
			default:
				sep := "\n---\n"
				if strings.HasSuffix(name, ".json") {
					sep = "\n"
				}
				write(t, dir, name, strings.Join(rapid.SliceOfN(document, 0, 3).Draw(rt, "documents"), sep))
			}
			if rapid.Bool().Draw(rt, "look") {
				clock.look(t, dir)
			}
		}
		clock.settle(t, dir)
		fresh := &stepper{files: files{reader: clock.files.reader, maxFiles: 100, maxBytes: 1 << 20, byPath: map[string]*tracked{}}}
		fresh.settle(t, dir)
		for name, tr := range clock.files.byPath {
			broken[name] = len(tr.kept) > 0
		}
		if d := cmp.Diff(fresh.says(nil), clock.says(broken)); d != "" {
			rt.Fatalf("-fresh +after edits:\n%s", d)
		}
		// What is kept is never more than what a fresh read lacks.
		for _, line := range fresh.says(nil) {
			if !slices.Contains(clock.says(nil), line) && !strings.HasPrefix(line, "problem") {
				rt.Fatal("missing:", line)
			}
		}
	})
}

// stepper is a folder's state on a clock of its own.
type stepper struct {
	files files
	at    int
}

func (s *stepper) look(t *testing.T, dir string) {
	s.at++
	start := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	if _, err := s.files.scan(dir, start.Add(settleTime*2/3*time.Duration(s.at)), func(string) {}); err != nil {
		t.Fatal(err)
	}
}

// settle looks until nothing waits.
func (s *stepper) settle(t *testing.T, dir string) {
	for range 5 {
		s.look(t, dir)
	}
	if len(s.files.held()) > 0 {
		t.Fatal("still held")
	}
}

// says lists the objects and problems. Objects that are merely kept are left
// out if drop says so for their file.
func (s *stepper) says(drop map[string]bool) (lines []string) {
	a := assemble(s.files.byPath, 1000)
	for _, c := range a.claims {
		if drop[c.path] && slices.Contains(s.files.byPath[c.path].kept, c.parsed) {
			continue
		}
		lines = append(lines, fmt.Sprintf("%s:%d %s %v", c.path, c.line, c.ref, c.value))
	}
	for _, p := range a.problems {
		lines = append(lines, fmt.Sprintf("problem: %s:%d %s", p.path, p.line, p.message))
	}
	return lines
}
