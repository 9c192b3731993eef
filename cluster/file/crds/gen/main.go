// Command gen copies the CustomResourceDefinitions that cluster/file needs out
// of the Gateway API module. Its argument is the folder to write to.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/causeway-mesh/causeway/cluster/file/crds"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gen FOLDER")
		os.Exit(2)
	}
	if err := generate(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func generate(out string) error {
	for _, plural := range crds.Plurals {
		data, err := current(plural)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(out, plural+".json"), data, 0o644); err != nil {
			return fmt.Errorf("write the schema of %s: %w", plural, err)
		}
	}
	return nil
}

// current gives the file that Files should hold for a plural, from the module
// that go.mod names now.
func current(plural string) ([]byte, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		return nil, fmt.Errorf("locate the module sigs.k8s.io/gateway-api: %w", err)
	}
	name := filepath.Join(strings.TrimSpace(string(out)), "config", "crd", "experimental", "gateway.networking.k8s.io_"+plural+".yaml")
	raw, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read the CRD of %s: %w", plural, err)
	}
	return compact(raw)
}

// compact turns a CRD's YAML into indented JSON without descriptions.
func compact(raw []byte) ([]byte, error) {
	var tree map[string]any
	if err := yaml.Unmarshal(raw, &tree); err != nil {
		return nil, fmt.Errorf("parse the CRD: %w", err)
	}
	spec, _ := tree["spec"].(map[string]any)
	versions, _ := spec["versions"].([]any)
	if len(versions) == 0 {
		return nil, fmt.Errorf("the CRD has no versions")
	}
	for _, v := range versions {
		version, _ := v.(map[string]any)
		wrap, _ := version["schema"].(map[string]any)
		schema, _ := wrap["openAPIV3Schema"].(map[string]any)
		if schema == nil {
			return nil, fmt.Errorf("version %v of the CRD has no schema", version["name"])
		}
		strip(schema)
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(tree); err != nil {
		return nil, fmt.Errorf("write the CRD: %w", err)
	}
	return buf.Bytes(), nil
}

// strip takes the description from a schema and the schemas in it. It follows
// the keywords that hold schemas, so that a field called "description" stays.
func strip(schema map[string]any) {
	delete(schema, "description")
	for keyword, value := range schema {
		switch keyword {
		case "properties", "patternProperties", "definitions":
			fields, _ := value.(map[string]any)
			for _, f := range fields {
				if sub, ok := f.(map[string]any); ok {
					strip(sub)
				}
			}
		case "items", "additionalProperties", "not":
			if sub, ok := value.(map[string]any); ok {
				strip(sub)
			}
		case "allOf", "anyOf", "oneOf":
			list, _ := value.([]any)
			for _, e := range list {
				if sub, ok := e.(map[string]any); ok {
					strip(sub)
				}
			}
		}
	}
}
