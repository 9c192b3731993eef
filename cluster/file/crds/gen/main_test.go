package main

import (
	"bytes"
	"testing"

	"github.com/causeway-mesh/causeway/cluster/file/crds"
)

// The copies must say what the module of go.mod says.
func TestCopiesAreCurrent(t *testing.T) {
	entries, err := crds.Files.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(crds.Plurals) {
		t.Errorf("%d files for %d kinds: remove the orphans", len(entries), len(crds.Plurals))
	}
	for _, plural := range crds.Plurals {
		want, err := current(plural)
		if err != nil {
			t.Fatal(err)
		}
		got, err := crds.Files.ReadFile(plural + ".json")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s.json differs from the module in go.mod: run `go generate ./cluster/file/crds`", plural)
		}
	}
}

func TestStripKeepsFieldsCalledDescription(t *testing.T) {
	got, err := compact([]byte(`
spec:
  versions:
  - name: v1
    schema:
      openAPIV3Schema:
        description: gone
        properties:
          description: {type: string, description: gone}
          list: {items: {description: gone, type: object}}
`))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(got, []byte("gone")) || !bytes.Contains(got, []byte(`"description": {`)) {
		t.Errorf("wrong:\n%s", got)
	}
}
