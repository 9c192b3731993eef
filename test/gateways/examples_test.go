package gateways

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/causeway-mesh/causeway/test/conformance/fleet"
	"github.com/causeway-mesh/causeway/test/lab"
)

// taken are those of Gateway API's own examples of what is invalid that the API server takes
// all the same, with what their status has to say. Of the experimental channel it takes none.
var taken = map[string]string{
	"experimental/httproute/invalid-header-value.yaml": `parent Accepted=False UnsupportedValue rules[0]: ResponseHeaderModifier: "this\nis\rinvalid\r\nvalue" can't be the value of header x-test-header`,
}

// Gateway API's examples of what is invalid are refused by the API server, or say what is wrong.
func (w *world) examples() {
	t := w.T
	module, err := lab.ModuleDir(t.Context(), "sigs.k8s.io/gateway-api")
	if err != nil {
		t.Fatal(err)
	}
	w.apply(`
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: prod-web, namespace: shop}
spec: {gatewayClassName: causeway, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: examples, namespace: shop}
spec:
  parentRefs: [{name: prod-web}]
  hostnames: [good.example.com]
  rules: [{backendRefs: [{name: web, port: 80}]}]
`)
	address := w.programmed("prod-web")
	dir := filepath.Join(module, "hack", "invalid-examples")
	found := 0
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		found++
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(data, &u.Object); err != nil {
			return err
		}
		w.example(name, u)
		return nil
	}); err != nil || found < 30 {
		t.Errorf("%d examples: %v", found, err)
	}
	if err := asked(address, "http://good.example.com/", "200"); err != nil {
		t.Errorf("what is good: %v", err)
	}
}

// example makes one as one of ours: of our class, or at our Gateway.
func (w *world) example(name string, u *unstructured.Unstructured) {
	w.Helper()
	if u.GetKind() != "GatewayClass" {
		u.SetNamespace(ns)
	}
	set := func(value any, path ...string) {
		w.Helper()
		if err := unstructured.SetNestedField(u.Object, value, path...); err != nil {
			w.Fatal(err)
		}
	}
	switch {
	case u.GetKind() == "Gateway":
		set("causeway", "spec", "gatewayClassName")
	case strings.HasSuffix(u.GetKind(), "Route"):
		set([]any{map[string]any{"name": "prod-web"}}, "spec", "parentRefs")
	}
	line, wanted := taken[name]
	switch err := w.create(u); {
	case err == nil && !wanted:
		w.Errorf("%s is taken by the API server: add what its status has to say", name)
	case err != nil && wanted:
		w.Errorf("%s is not taken: %v", name, err)
	case wanted:
		fleet.Eventually(w, name+": "+line, func() error {
			live, err := w.resource(u).Get(w.Context(), u.GetName(), metav1.GetOptions{})
			if err != nil {
				return err
			}
			return said(live, line)
		})
	}
}
