package translate

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/xds/envoy/envoytest"
)

var update = flag.Bool("update", false, "rewrite the goldens")

// scene is testdata/<case>/input.yaml: a proxy and what the resolver found.
type scene struct {
	Proxy     Proxy
	Options   Options
	Clusters  []cluster.ID // all clusters; each claims a trust domain
	Trust     []cluster.ID // clusters whose authorities are known
	Unbound   []string     // names of listeners that have no address
	Frontends []*resolve.Frontend
	Gateways  []*resolve.Gateway
	Imports   []*resolve.Import
	Backends  []*resolve.Backend
}

// counted binds listeners to 127.0.0.1:10001 and on, in the order in which they
// are asked for.
type counted struct {
	unbound []string
	given   map[string]uint16
}

func (c *counted) of(name string) (netip.AddrPort, bool) {
	if slices.Contains(c.unbound, name) {
		return netip.AddrPort{}, false
	}
	if c.given == nil {
		c.given = map[string]uint16{}
	}
	if _, ok := c.given[name]; !ok {
		c.given[name] = uint16(10001 + len(c.given))
	}
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), c.given[name]), true
}

func (c *counted) Frontend(_ Proxy, key resolve.FrontendKey, t Transport, port int32) (netip.AddrPort, bool) {
	return c.of(FrontendListenerName(key, t, port))
}

func (c *counted) Gateway(_ Proxy, t Transport, port int32) (netip.AddrPort, bool) {
	return c.of(GatewayListenerName(t, port))
}

func (c *counted) Crossing(Proxy) (netip.AddrPort, bool) { return c.of(nameCrossing) }

func (c *counted) Entry(_ Proxy, key resolve.FrontendKey, t Transport, port int32) (netip.AddrPort, bool) {
	return c.of(prefixEntry + FrontendListenerName(key, t, port))
}

var goldenFiles = map[string]string{TypeSecret: "secrets.yaml", TypeCluster: "clusters.yaml", TypeEndpoint: "endpoints.yaml", TypeListener: "listeners.yaml", TypeRoute: "routes.yaml"}

func readScene(t *testing.T, dir string) scene {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "input.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var s scene
	if err := yaml.UnmarshalStrict(data, &s); err != nil {
		t.Fatalf("%s/input.yaml: %v", dir, err)
	}
	return s
}

func (s scene) input(t *testing.T) Input {
	t.Helper()
	var parts []any
	for _, x := range s.Frontends {
		parts = append(parts, x)
	}
	for _, x := range s.Gateways {
		parts = append(parts, x)
	}
	for _, x := range s.Imports {
		parts = append(parts, x)
	}
	for _, x := range s.Backends {
		parts = append(parts, x)
	}
	trust := map[string][][]byte{}
	in := Input{Proxy: s.Proxy, Options: s.Options, Result: result(s.Proxy.Cluster, parts...), Bindings: &counted{unbound: s.Unbound}}
	for _, c := range s.Trust {
		td, err := identity.TrustDomain(c, testSet)
		if err != nil {
			t.Fatal(err)
		}
		a, err := identity.OpenAuthority(identity.AuthorityConfig{TrustDomain: td})
		if err != nil {
			t.Fatal(err)
		}
		trust[td.Name()] = [][]byte{a.Bundle().X509Authorities()[0].Raw}
		if c == s.Proxy.Cluster {
			id, err := identity.ProxyID(td, identity.Role(s.Proxy.Role), s.Proxy.Namespace, s.Proxy.Name)
			if err != nil {
				t.Fatal(err)
			}
			cred, err := a.Issue(identity.SVIDRequest{ID: id, TTL: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			in.Identity = NewIdentity(cred.CertPEM(), cred.KeyPEM())
		}
	}
	in.Bundles = NewBundles(trust)
	in.Result.Snapshot = snapshotOf(s.Clusters...)
	return in
}

// snapshotOf holds clusters that each claim a trust domain, and nothing else.
func snapshotOf(clusters ...cluster.ID) *federation.Snapshot {
	e := federation.NewBuilder().Edit()
	for _, c := range clusters {
		e.SetCluster(federation.Cluster{ID: c, Meta: cluster.Meta{TrustDomain: domainOf(c)}})
	}
	s, _ := e.Commit()
	return s
}

// generic gives a resource as JSON values.
func generic(t *testing.T, r *Resource) map[string]any {
	t.Helper()
	data, err := protojson.Marshal(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	delete(out, "@type")
	return out
}

// render gives the files of a golden. Certificates and keys are new in each run,
// so that only what they are is shown.
func render(t *testing.T, s *State) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for typeURL, file := range goldenFiles {
		var list []any
		for _, r := range s.Resources.All(typeURL) {
			g := generic(t, r)
			envoytest.Walk(g, func(m map[string]any) {
				if text, ok := m["inlineBytes"].(string); ok {
					data, _ := base64.StdEncoding.DecodeString(text)
					m["inlineBytes"] = strings.SplitN(string(data), "\n", 2)[0]
				}
			})
			list = append(list, map[string]any{"subject": r.Subject, "resource": g})
		}
		if list == nil {
			continue
		}
		data, err := yaml.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		out[file] = data
	}
	if p := s.Problems(); len(p) > 0 {
		data, err := yaml.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		out["problems.yaml"] = data
	}
	return out
}

func goldenCases(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		if e.Name() == "rapid" {
			continue // where failed properties are kept
		}
		if e.IsDir() {
			out = append(out, e.Name())
		} else {
			t.Errorf("testdata/%s is no folder of a case", e.Name())
		}
	}
	if len(out) == 0 {
		t.Fatal("no goldens")
	}
	return out
}

// Each folder of testdata holds an input and what becomes of it. Files that the
// translation does not give fail the test, unless -update removes them.
func TestGolden(t *testing.T) {
	for _, name := range goldenCases(t) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join("testdata", name)
			got := render(t, Build(readScene(t, dir).input(t)))
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if _, ok := got[e.Name()]; ok || e.Name() == "input.yaml" {
					continue
				}
				if !*update {
					t.Errorf("%s is an orphan: nothing gives it any more; run with -update", e.Name())
				} else if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
					t.Fatal(err)
				}
			}
			for file, data := range got {
				path := filepath.Join(dir, file)
				if *update {
					if err := os.WriteFile(path, data, 0o644); err != nil {
						t.Fatal(err)
					}
					continue
				}
				want, err := os.ReadFile(path)
				if err != nil {
					t.Errorf("%v; run with -update", err)
				} else if !bytes.Equal(want, data) {
					t.Errorf("%s differs: run with -update and review the difference\n%s", path, firstDifference(want, data))
				}
			}
		})
	}
}

func firstDifference(want, got []byte) string {
	w, g := strings.Split(string(want), "\n"), strings.Split(string(got), "\n")
	for i := range max(len(w), len(g)) {
		x, y := "(end)", "(end)"
		if i < len(w) {
			x = w[i]
		}
		if i < len(g) {
			y = g[i]
		}
		if x != y {
			return fmt.Sprintf("line %d: want %q, got %q", i+1, x, y)
		}
	}
	return ""
}

// The real Envoy accepts every golden.
func TestEnvoyAcceptsGoldens(t *testing.T) {
	binary := envoytest.Binary(t)
	for _, name := range goldenCases(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := accepted(t, binary, Build(readScene(t, filepath.Join("testdata", name)).input(t))); err != nil {
				t.Error(err)
			}
		})
	}
}

// accepted asks Envoy about a proxy's resources.
func accepted(t *testing.T, binary string, s *State) error {
	t.Helper()
	bodies := func(typeURL string) (out []*anypb.Any) {
		for _, r := range s.Resources.All(typeURL) {
			out = append(out, r.Body)
		}
		return out
	}
	var all envoytest.Static
	if err := all.Add(envoytest.Resources{Clusters: bodies(TypeCluster), Endpoints: bodies(TypeEndpoint), Listeners: bodies(TypeListener), Routes: bodies(TypeRoute), Secrets: bodies(TypeSecret)}); err != nil {
		return err
	}
	boot, err := Bootstrap(BootstrapConfig{Proxy: s.in.Proxy, XDSAddress: "127.0.0.1:1", ServerID: "spiffe://x/agent", Dir: t.TempDir(), Credential: t.TempDir()})
	if err != nil {
		return err
	}
	return all.Validate(t.Context(), binary, t.TempDir(), boot[FileBootstrap])
}
