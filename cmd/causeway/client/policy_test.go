package client

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/causeway-mesh/causeway/api/admin"
	"github.com/causeway-mesh/causeway/api/query/querytest"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/federation/store/memory"
)

// administration serves it over mTLS, and gives the flags by which admin calls it.
func administration(t *testing.T) []string {
	t.Helper()
	r := querytest.Run(t, querytest.New(t).Config())
	hub, err := identity.HubID(r.Clusterset.TrustDomain())
	if err != nil {
		t.Fatal(err)
	}
	svid, err := r.Clusterset.Issue(identity.SVIDRequest{ID: hub, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	bundles := &identity.BundleSet{}
	bundles.Replace([]*x509bundle.Bundle{r.Clusterset.Bundle()})
	mem, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := admin.New(admin.Config{Store: mem, Clusters: func() []cluster.ID { return nil }, Authorize: admin.Users(querytest.Clusterset, "admin"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(identity.ServerConfig(svid, bundles, identity.Genuine))))
	s.Register(g)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	dir := r.User(r.Clusterset, "admin")
	return []string{"--server", l.Addr().String(), "--cacert", filepath.Join(dir, identity.FileBundle), "--cert", filepath.Join(dir, identity.FileCert), "--key", filepath.Join(dir, identity.FileKey)}
}

// What apply takes get prints; what is wrong in one policy keeps all from being taken.
func TestPolicyCommands(t *testing.T) {
	t.Parallel()
	flags := administration(t)
	do := func(args ...string) string {
		t.Helper()
		out, _, err := run(t, nil, append(args, flags...)...)
		if err != nil {
			out += "error: " + err.Error()
		}
		return out
	}
	expect := func(got string, all ...string) {
		t.Helper()
		for _, want := range all {
			if !strings.Contains(got, want) {
				t.Errorf("%q is missing in:\n%s", want, got)
			}
		}
	}
	write := func(text string) string {
		name := filepath.Join(t.TempDir(), "policy.yaml")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	const head = "apiVersion: causeway.dev/v1\nkind: ClusterPolicy\n"
	edge := head + "metadata: {name: edge}\nspec: {clusters: {names: ['edge-*'], selector: region=eu}, export: {allow: []}, route: {allow: [a, b], deny: [c]}, quota: {objects: 3, bytes: 2Ki}}\n"
	all := head + "metadata: {name: all}\nspec: {export: {deny: [secret]}}\n"
	expect(do("policy", "apply", "-f", write(edge+"---\n"+all)), "policy edge created\npolicy all created\n")
	expect(do("policy", "apply", "-f", write(edge), "-f", write(strings.Replace(all, "secret", "other", 1))), "policy edge unchanged\npolicy all changed\n")
	expect(do("policy", "get"), "NAME", "all    all", "not other", "edge-* with region=eu", "none", "a,b, not c", "3 objects, 2048 bytes")
	again := do("policy", "get", "-o", "yaml")
	expect(do("policy", "apply", "-f", write(again)), "policy all unchanged\npolicy edge unchanged\n")
	expect(do("policy", "get", "edge", "-o", "json"), `"name": "edge"`)
	if got := do("policy", "get", "edge", "-o", "json"); strings.Contains(got, `"all"`) {
		t.Errorf("another policy: %s", got)
	}
	expect(do("policy", "apply", "-f", write(all+"---\n"+strings.Replace(edge, "edge-*", "Edge", 1))), "error: ", "document 2", `"Edge"`)
	expect(do("policy", "apply", "-f", write("# nothing\n")), "error: ", "has no policy")
	expect(do("policy", "apply"), "error: ", "-f")
	expect(do("policy", "get", "none"), `error: there is no policy "none"`)
	expect(do("policy", "delete", "all", "none"), "error: ", "no policy none")
	expect(do("policy", "delete", "all", "edge"), "policy all deleted\npolicy edge deleted\n")
	if got := do("policy", "get"); strings.Contains(got, "edge") {
		t.Errorf("still there: %s", got)
	}
}
