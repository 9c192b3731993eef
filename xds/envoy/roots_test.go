package envoy

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFirstFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{"empty": "", "roots": "x", "later": "x"} {
		if err := os.WriteFile(path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := firstFile([]string{path("missing"), dir, path("empty"), path("roots"), path("later")}); got != path("roots") {
		t.Errorf("got %q", got)
	}
	if got := firstFile([]string{path("missing")}); got != "" {
		t.Errorf("got %q where there is none", got)
	}
}
