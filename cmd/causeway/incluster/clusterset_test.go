package incluster_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	typed "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/cluster/kubernetes"
	"github.com/causeway-mesh/causeway/cluster/provision"
	"github.com/causeway-mesh/causeway/cmd/causeway/agent"
	"github.com/causeway-mesh/causeway/cmd/causeway/root/roottest"
	"github.com/causeway-mesh/causeway/test/lab"
)

// grant gives the agent's ServiceAccount the rights that are listed for it, and writes a
// kubeconfig that acts as it.
func grant(t *testing.T, cp *lab.ControlPlane, api typed.Interface) string {
	t.Helper()
	var rules []rbacv1.PolicyRule
	for _, r := range slices.Concat(kubernetes.Rules(), provision.Rules(), kubernetes.TokenRules()) {
		rules = append(rules, r.PolicyRule)
	}
	if _, err := lab.Restrict(t.Context(), cp.Config, agent.SystemNamespace, "causeway-agent", rules); err != nil {
		t.Fatal(err)
	}
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "causeway-agent"}}
	for _, r := range kubernetes.NamespaceRules() {
		role.Rules = append(role.Rules, r.PolicyRule)
	}
	if _, err := api.RbacV1().Roles(agent.SystemNamespace).Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.RbacV1().RoleBindings(agent.SystemNamespace).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "causeway-agent"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "causeway-agent"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: agent.SystemNamespace, Name: "causeway-agent"}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	cfg, err := clientcmd.LoadFromFile(cp.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range cfg.AuthInfos {
		as := lab.Impersonate(cp.Config, agent.SystemNamespace, "causeway-agent").Impersonate
		u.Impersonate, u.ImpersonateGroups = as.UserName, as.Groups
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*cfg, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// askByToken calls an agent's query API as a ServiceAccount, with its token and the
// cluster's roots alone: it sees its own namespace; once RBAC says so, everything; and a
// token for something else nothing.
func askByToken(t *testing.T, cp *lab.ControlPlane, address, roots string, token func(ns, name, audience string) string) {
	t.Helper()
	creds, err := credentials.NewClientTLSFromFile(roots, "")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := causewayv1.NewFederationClient(conn)
	imports := func(token string) (names []string, err error) {
		answer, err := c.ListServiceImports(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token), &causewayv1.ListServiceImportsRequest{})
		for _, i := range answer.GetImports() {
			names = append(names, i.GetNamespace()+"/"+i.GetName())
		}
		return names, err
	}
	mine := token("default", "somebody", "causeway.dev/west.prod/query")
	if got, err := imports(mine); err != nil || !slices.Equal(got, []string{"default/web"}) {
		t.Errorf("default's token sees %q, %v", got, err)
	}
	theirs := token(agent.SystemNamespace, "causeway-crossing", "causeway.dev/west.prod/query")
	if got, err := imports(theirs); err != nil || len(got) != 0 {
		t.Errorf("another namespace's token sees %q, %v", got, err)
	}
	for _, audience := range []string{"causeway.dev/west.prod", "causeway.dev/east.prod/query", "elsewhere"} {
		if got, err := imports(token("default", "somebody", audience)); status.Code(err) != codes.Unauthenticated {
			t.Errorf("a token for %s sees %q, %v", audience, got, err)
		}
	}
	if err := lab.Apply(t.Context(), cp.Config, []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: elsewhere}\n---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: reader, namespace: elsewhere}\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := lab.Restrict(t.Context(), cp.Config, "elsewhere", "reader", []rbacv1.PolicyRule{kubernetes.ViewerRule().PolicyRule}); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "a viewer sees everything", func() error { // RBAC takes a moment
		got, err := imports(token("elsewhere", "reader", "causeway.dev/west.prod/query"))
		if err == nil && !slices.Equal(got, []string{"default/web"}) {
			err = fmt.Errorf("sees %q", got)
		}
		return err
	})
}

// What an administrator forbids at a hub, the ServiceExport says, and the import goes; so
// with a quota; and all is back when the policy is gone.
func policies(t *testing.T, prod *roottest.ClusterSet, exported, imported func() error, exports dynamic.ResourceInterface) {
	t.Helper()
	at := roottest.Addresses(t, 2)
	h := start(t, "hub", "hub", "--clusterset", "prod", "--credentials", prod.Hub, "--store", prod.Store.Endpoint(), "--replica", "0",
		"--listen", prod.API, "--gossip", "127.0.0.1:0", "--metrics", at[0], "--probe", at[1])
	defer h.stop()
	eventually(t, time.Minute, "the hub ready", healthy(at[1]))
	causeway := func(args ...string) {
		t.Helper()
		var out bytes.Buffer
		if err := roottest.Run(t.Context(), &out, &out, append(args, "--state", prod.Dir)...); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, &out)
		}
	}
	file := filepath.Join(t.TempDir(), "policy.yaml")
	for what, spec := range map[string]string{
		"namespace": "export: {deny: [default]}",
		"quota":     "clusters: {names: [west]}\n  quota: {objects: 0}",
	} {
		manifest := "apiVersion: causeway.dev/v1\nkind: ClusterPolicy\nmetadata: {name: held-back}\nspec:\n  " + spec + "\n"
		if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
			t.Fatal(err)
		}
		causeway("policy", "apply", "-f", file)
		eventually(t, time.Minute, what+": the export says what holds it back", func() error {
			o, err := exports.Get(t.Context(), "web", metav1.GetOptions{})
			if err != nil {
				return err
			}
			raw, _ := json.Marshal(o.Object["status"])
			if !strings.Contains(string(raw), "held-back") {
				return fmt.Errorf("the status is %s", raw)
			}
			return nil
		})
		if what == "namespace" {
			eventually(t, time.Minute, "the import gone", func() error {
				err := imported()
				if err == nil {
					return errors.New("it is there")
				}
				if apierrors.IsNotFound(err) {
					return nil
				}
				return err
			})
		}
		causeway("policy", "delete", "held-back")
		eventually(t, time.Minute, what+": the export is itself again", exported)
		eventually(t, time.Minute, what+": the import is back", imported)
	}
}
