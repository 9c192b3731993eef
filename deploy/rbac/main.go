// Command rbac writes the rights of the agent into the Helm chart, as the packages that
// need them list them, each with its reason. `make generate` runs it.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/causeway-mesh/causeway/cluster/kubernetes"
	"github.com/causeway-mesh/causeway/cluster/provision"
)

func main() {
	out := flag.String("out", "deploy/helm/causeway/templates/rbac.yaml", "file to write")
	flag.Parse()
	if err := os.WriteFile(*out, chart(), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "rbac:", err)
		os.Exit(1)
	}
}

// chart is the template of all roles and bindings.
func chart() []byte {
	var b bytes.Buffer
	b.WriteString("# Made by `make generate` of what the agent's packages list (deploy/rbac).\n")
	role(&b, "ClusterRole", "", slices.Concat(kubernetes.Rules(), provision.Rules(), []kubernetes.Rule{kubernetes.TokenRule()}))
	b.WriteString("---\n")
	binding(&b, "ClusterRole", "")
	b.WriteString("---\n")
	const namespace = "  namespace: {{ .Release.Namespace }}\n"
	role(&b, "Role", namespace, kubernetes.NamespaceRules())
	b.WriteString("---\n")
	binding(&b, "Role", namespace)
	return b.Bytes()
}

func head(b *bytes.Buffer, kind, namespace string) {
	fmt.Fprintf(b, "apiVersion: rbac.authorization.k8s.io/v1\nkind: %s\nmetadata:\n  name: causeway-agent\n%s  labels: {{- include \"causeway.labels\" . | nindent 4 }}\n", kind, namespace)
}

func role(b *bytes.Buffer, kind, namespace string, rules []kubernetes.Rule) {
	head(b, kind, namespace)
	b.WriteString("rules:\n")
	for _, r := range rules {
		fmt.Fprintf(b, "  # %s\n  - apiGroups: %s\n    resources: %s\n    verbs: %s\n", r.Why, list(r.APIGroups), list(r.Resources), list(r.Verbs))
		if len(r.ResourceNames) > 0 {
			fmt.Fprintf(b, "    resourceNames: %s\n", list(r.ResourceNames))
		}
	}
}

func binding(b *bytes.Buffer, kind, namespace string) {
	head(b, kind+"Binding", namespace)
	fmt.Fprintf(b, "roleRef: {apiGroup: rbac.authorization.k8s.io, kind: %s, name: causeway-agent}\nsubjects:\n  - {kind: ServiceAccount, name: causeway-agent, namespace: {{ .Release.Namespace }}}\n", kind)
}

func list(s []string) string {
	quoted := make([]string, len(s))
	for i, x := range s {
		quoted[i] = fmt.Sprintf("%q", x)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
