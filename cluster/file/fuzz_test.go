package file

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/causeway-mesh/causeway/cluster"
)

// No bytes make the reader panic or run away, and what it says is sound: each
// object has a name of a kind that is read, each problem a line of the file and
// words.
func FuzzReader(f *testing.F) {
	cases, _ := filepath.Glob("testdata/reading/*.txtar")
	for _, name := range cases {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			f.Add(string(file.Data), filepath.Ext(file.Name) == ".json")
		}
	}
	text, err := os.ReadFile("testdata/tutorial/reviews.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text), false)
	r := &reader{schemas: shared, maxObjects: 100}
	f.Fuzz(func(t *testing.T, text string, asJSON bool) {
		name := "x.yaml"
		if asJSON {
			name = "x.json"
		}
		lines := 1
		for _, b := range []byte(text) {
			if b == '\n' {
				lines++
			}
		}
		began := time.Now()
		c := r.file(name, []byte(text))
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("reading %d bytes took %v", len(text), took)
		}
		size := 0
		for _, o := range c.objects {
			data, err := json.Marshal(o.value)
			if err != nil {
				t.Fatalf("%s: %v", o.ref, err)
			}
			size += len(data)
			if o.ref.Name == "" || o.value == nil || o.line < 1 || o.line > lines {
				t.Errorf("%+v", o)
			}
			if o.ref.Kind == cluster.KindNamespace && o.ref.Namespace != "" {
				t.Errorf("%+v", o)
			}
		}
		// Defaults of the schemas make more of it; aliases may fill each document to its bound.
		bound := 64<<10 + 100*len(text)
		if strings.Contains(text, "*") {
			bound += lines * 4 * maxScalarBytes
		}
		if size > bound {
			t.Errorf("%d bytes became objects of %d", len(text), size)
		}
		for _, p := range c.problems {
			if p.line < 1 || p.line > lines || p.message == "" || len(p.message) > 600 || (utf8.ValidString(text) && !utf8.ValidString(p.message)) {
				t.Errorf("%+v of %d lines", p, lines)
			}
		}
		if len(c.problems) > 0 && !c.lost && len(c.broken) == 0 {
			t.Errorf("problems, and nothing is kept for them: %+v", c.problems)
		}
	})
}
