package up_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// edit FILE OLD NEW replaces the one occurrence of OLD.
func (s *story) edit(neg bool, args []string) {
	s.plain(neg, "edit", len(args) == 3)
	text := s.ReadFile(args[0])
	if strings.Count(text, args[1]) != 1 {
		s.Fatalf("edit: %q is %d times in %s, not once", args[1], strings.Count(text, args[1]), args[0])
	}
	s.write(args[0], strings.Replace(text, args[1], args[2], 1))
}

// write puts a file in place whole, as editors do.
func (s *story) write(name, text string) {
	path := s.MkAbs(name)
	s.Check(os.MkdirAll(filepath.Dir(path), 0o700))
	s.Check(os.WriteFile(filepath.Join(filepath.Dir(path), ".new"), []byte(text), 0o600))
	s.Check(os.Rename(filepath.Join(filepath.Dir(path), ".new"), path))
}

// fill FILE WORD SIZE puts SIZE bytes in WORD's place.
func (s *story) fill(neg bool, args []string) {
	s.plain(neg, "fill", len(args) == 3)
	size, err := strconv.Atoi(args[2])
	s.Check(err)
	s.edit(false, []string{args[0], args[1], strings.Repeat("x", size)})
}

// include FILE WORD OTHER puts another file's text in WORD's place.
func (s *story) include(neg bool, args []string) {
	s.plain(neg, "include", len(args) == 3)
	s.edit(false, []string{args[0], args[1], s.ReadFile(args[2])})
}

// service CLUSTER NAMESPACE/NAME [REPLICAS] [export] writes CLUSTER/NAMESPACE-NAME.yaml
// below clusters: a Service (port 80 to 8080), its Deployment, and a ServiceExport.
func (s *story) service(neg bool, args []string) {
	s.plain(neg, "service", len(args) >= 2)
	ns, name, ok := strings.Cut(args[1], "/")
	s.plain(neg, "service", ok)
	replicas, export := "1", false
	for _, a := range args[2:] {
		if a == "export" {
			export = true
		} else {
			replicas = a
		}
	}
	text := fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: %[2]s}
spec: {selector: {app: %[1]s}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, namespace: %[2]s, annotations: {}}
spec:
  replicas: %[3]s
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec: {containers: [{name: server, image: example/echo}]}
`, name, ns, replicas)
	if export {
		text += fmt.Sprintf(`---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: %s, namespace: %s}
`, name, ns)
	}
	s.write(filepath.Join("clusters", args[0], ns+"-"+name+".yaml"), text)
}

// address FILE VAR puts the first loopback address that the file names in $VAR.
func (s *story) address(neg bool, args []string) {
	s.plain(neg, "address", len(args) == 2)
	at := regexp.MustCompile(`127\.\d+\.\d+\.\d+`).FindString(s.ReadFile(args[0]))
	if at == "" {
		s.Fatalf("address: none in %s", args[0])
	}
	s.Setenv(args[1], at)
}
