// Command rbac writes the rights of agents, of what cleans up after them, and of hubs into the Helm charts, as the packages that
// need them list them, each with its reason. `make generate` runs it.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/causeway-mesh/causeway/cluster/kubernetes"
	"github.com/causeway-mesh/causeway/cluster/provision"
)

func main() {
	dir := flag.String("charts", "deploy/helm", "folder of the charts to write to")
	flag.Parse()
	for name, data := range map[string][]byte{
		"causeway/templates/rbac.yaml": agentChart(), "causeway/templates/uninstall-rbac.yaml": uninstall(), "causeway-hub/templates/rbac.yaml": hubChart(),
	} {
		if err := os.WriteFile(filepath.Join(*dir, filepath.FromSlash(name)), data, 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "rbac:", err)
			os.Exit(1)
		}
	}
}

const made = "# Made by `make generate` of what the packages list (deploy/rbac).\n"

// template is what the roles and bindings of one chart have in common.
type template struct {
	bytes.Buffer
	labels  string // of the chart
	account string // ServiceAccount, and name of its roles
	hook    string // what makes them a hook of Helm's; empty: they are none
}

const namespace = "  namespace: {{ .Release.Namespace }}\n"

// agentChart is the template of the agent's roles and bindings, and of the role that
// lets people see everything.
func agentChart() []byte {
	t := &template{labels: "causeway.labels", account: "causeway-agent"}
	t.WriteString(made)
	t.role("ClusterRole", t.account, "", slices.Concat(kubernetes.Rules(), provision.Rules(), kubernetes.TokenRules()))
	t.WriteString("---\n")
	t.binding("ClusterRole", "")
	t.WriteString("---\n")
	t.role("Role", t.account, namespace, kubernetes.NamespaceRules())
	t.WriteString("---\n")
	t.binding("Role", namespace)
	t.WriteString("---\n")
	t.role("ClusterRole", "causeway-viewer", "", []kubernetes.Rule{kubernetes.ViewerRule()})
	return t.Bytes()
}

// uninstall is the template of the rights of the hook that removes what agents have made. They
// are hooks too: they come when the rest of the chart has gone, and go with the job.
func uninstall() []byte {
	t := &template{labels: "causeway.labels", account: "causeway-uninstall", hook: "  annotations: {{- include \"uninstall.hook\" \"-1\" | nindent 4 }}\n"}
	t.WriteString(made)
	t.role("ClusterRole", t.account, "", provision.RemoveRules())
	t.WriteString("---\n")
	t.binding("ClusterRole", "")
	t.WriteString("---\n")
	t.role("Role", t.account, namespace, kubernetes.RemoveRules())
	t.WriteString("---\n")
	t.binding("Role", namespace)
	return t.Bytes()
}

// hubChart is the same of hubs that take tokens.
func hubChart() []byte {
	t := &template{labels: "hub.labels", account: "causeway-hub"}
	t.WriteString(made + "{{- if .Values.hub.tokens }}\n")
	t.role("ClusterRole", t.account, "", kubernetes.TokenRules())
	t.WriteString("---\n")
	t.binding("ClusterRole", "")
	t.WriteString("---\n")
	t.role("ClusterRole", "causeway-hub-viewer", "", []kubernetes.Rule{kubernetes.ViewerRule()})
	t.WriteString("{{- end }}\n")
	return t.Bytes()
}

func (t *template) head(kind, name, namespace string) {
	fmt.Fprintf(t, "apiVersion: rbac.authorization.k8s.io/v1\nkind: %s\nmetadata:\n  name: %s\n%s  labels: {{- include %q . | nindent 4 }}\n%s", kind, name, namespace, t.labels, t.hook)
}

func (t *template) role(kind, name, namespace string, rules []kubernetes.Rule) {
	t.head(kind, name, namespace)
	t.WriteString("rules:\n")
	for _, r := range rules {
		fmt.Fprintf(t, "  # %s\n  - apiGroups: %s\n    resources: %s\n    verbs: %s\n", r.Why, list(r.APIGroups), list(r.Resources), list(r.Verbs))
		if len(r.ResourceNames) > 0 {
			fmt.Fprintf(t, "    resourceNames: %s\n", list(r.ResourceNames))
		}
	}
}

func (t *template) binding(kind, namespace string) {
	t.head(kind+"Binding", t.account, namespace)
	fmt.Fprintf(t, "roleRef: {apiGroup: rbac.authorization.k8s.io, kind: %s, name: %s}\nsubjects:\n  - {kind: ServiceAccount, name: %s, namespace: {{ .Release.Namespace }}}\n", kind, t.account, t.account)
}

func list(s []string) string {
	quoted := make([]string, len(s))
	for i, x := range s {
		quoted[i] = fmt.Sprintf("%q", x)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
