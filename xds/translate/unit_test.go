package translate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// However an identity or the secret made of it is printed, the key is not there.
func TestKeysAreNotPrinted(t *testing.T) {
	a, err := identity.OpenAuthority(identity.AuthorityConfig{TrustDomain: spiffeid.RequireTrustDomainFromString("east." + testSet)})
	if err != nil {
		t.Fatal(err)
	}
	id, err := identity.AgentID(a.TrustDomain())
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.Issue(identity.SVIDRequest{ID: id, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	in := Input{Proxy: Proxy{Cluster: "east", Role: RoleSidecar}, Result: result("east"), Bindings: &counted{}, Identity: NewIdentity(c.CertPEM(), c.KeyPEM())}
	s := Build(in)
	r, ok := s.Resources.Get(TypeSecret, nameIdentity)
	if !ok || !bytes.Contains(r.Body.Value, c.KeyPEM()) {
		t.Fatal("the secret has no key")
	}
	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, nil))
	text := slog.New(slog.NewTextHandler(&out, nil))
	for _, v := range []any{in.Identity, *in.Identity, r, *r, in, s, struct{ I *Identity }{in.Identity}} {
		fmt.Fprintf(&out, "%v %+v %#v %s\n", v, v, v, v)
		if data, err := json.Marshal(v); err == nil {
			out.Write(data)
		}
		log.Info("x", "v", v)
		text.Info("x", "v", v)
	}
	body := strings.Split(string(c.KeyPEM()), "\n")[1]
	key := c.KeyPEM()
	numbers := strings.Trim(fmt.Sprintf("%v", key[30:38]), "[]") // as bytes print
	for _, leak := range []string{"PRIVATE KEY", body, body[:20], numbers} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("%q is printed", leak)
		}
	}
}

// A key of another certificate is a problem, and no secret.
func TestIdentityMustFit(t *testing.T) {
	s := Build(Input{Proxy: Proxy{Cluster: "east", Role: RoleSidecar}, Result: result("east"), Bindings: &counted{}, Identity: NewIdentity([]byte("x"), []byte("y"))})
	if _, ok := s.Resources.Get(TypeSecret, nameIdentity); ok || len(s.Problems()) != 1 {
		t.Errorf("problems %v", s.Problems())
	}
}

// count is how many resources of a type a proxy has.
func count(s *State, typeURL string) (n int) {
	for range s.Resources.All(typeURL) {
		n++
	}
	return n
}

// A name that is not UTF-8 can't be sent to Envoy; the others can.
func TestNamesThatAreNotUTF8(t *testing.T) {
	rules := table(prefixRule("r", 0, "/bad", to("b\xff", 1)), prefixRule("r\xff", 1, "/good", to("a", 1)))
	s := Build(Input{Proxy: Proxy{Cluster: "east", Role: RoleSidecar}, Bindings: &counted{},
		Result: result("east", frontend("a", rules), frontend("b\xff", nil), service("a", resolve.AppHTTP), service("b\xff", resolve.AppHTTP))})
	if n := count(s, TypeListener); n != 1 {
		t.Errorf("%d listeners", n)
	}
	if _, ok := s.Resources.Get(TypeRoute, "frontend/Service/app/a/80"); !ok {
		t.Error("the good frontend has no routes")
	}
	if !slices.ContainsFunc(s.Problems(), func(p Problem) bool { return p.Subject == "Service/app/b?" }) {
		t.Errorf("problems %v", s.Problems())
	}
}

// Proxies share what they have in common, and nothing is kept that nobody has.
func TestCacheSharesAndForgets(t *testing.T) {
	cache := NewCache()
	shareResources(t, cache)
	held := func() (n int) {
		count := func(_, _ any) bool { n++; return true }
		cache.backends.found.Range(count)
		cache.frontends.found.Range(count)
		cache.latest.Range(count)
		return n
	}
	await(t, func() error {
		runtime.GC()
		if n := held(); n != 0 {
			return fmt.Errorf("%d entries are left", n)
		}
		return nil
	})
}

// shareResources gives two proxies what they have in common, and lets go of them.
func shareResources(t *testing.T, cache *Cache) {
	r := result("east", frontend("a", nil), service("a", resolve.AppHTTP))
	in := func(ns string) Input {
		return Input{Proxy: Proxy{Cluster: "east", Role: RoleSidecar, Namespace: ns}, Result: r, Bindings: &counted{}, Cache: cache}
	}
	x, y := Build(in("x")), Build(in("y"))
	for _, typ := range []string{TypeCluster, TypeEndpoint, TypeRoute} {
		n := 0
		for k, r := range x.Resources.All(typ) {
			n++
			if o, _ := y.Resources.Get(typ, k); o != r {
				t.Errorf("%s %s is there twice", typ, k)
			}
		}
		if n != 1 {
			t.Errorf("%d resources of type %s", n, typ)
		}
	}
}

// What can't start is refused with what to do.
func TestBootstrapRefuses(t *testing.T) {
	good := BootstrapConfig{Proxy: Proxy{Cluster: "east", Role: RoleSidecar, Namespace: "a", Name: "b"}, XDSAddress: "agent.example:15010", ServerID: "spiffe://x/agent", Dir: "/d", Credential: "/c", AdminSocket: "/d/admin"}
	files, err := Bootstrap(good)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := Bootstrap(good)
	for name, data := range files {
		if !bytes.Equal(again[name], data) {
			t.Errorf("%s differs from one time to the next", name)
		}
	}
	if !bytes.Contains(files[FileBootstrap], []byte("STRICT_DNS")) || !bytes.Contains(files[FileBootstrap], []byte(`"east/sidecar/a/b"`)) {
		t.Errorf("%s", files[FileBootstrap])
	}
	for what, change := range map[string]func(*BootstrapConfig){
		"xDS address":   func(c *BootstrapConfig) { c.XDSAddress = "agent" },
		"port":          func(c *BootstrapConfig) { c.XDSAddress = "agent:0" },
		"role":          func(c *BootstrapConfig) { c.Proxy.Role = "x" },
		"cluster":       func(c *BootstrapConfig) { c.Proxy.Cluster = cluster.ID("") },
		"SPIFFE id":     func(c *BootstrapConfig) { c.ServerID = "" },
		"relative path": func(c *BootstrapConfig) { c.Dir = "d" },
		"socket":        func(c *BootstrapConfig) { c.AdminSocket = "/" + strings.Repeat("x", 100) },
	} {
		c := good
		change(&c)
		if _, err := Bootstrap(c); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

// scale of a clusterset for benchmarks: services, and endpoints of each.
func large(services, endpoints int) *resolve.Result {
	var parts []any
	for i := range services {
		name := fmt.Sprintf("svc-%d", i)
		parts = append(parts, frontend(name, table(prefixRule("r-"+name, 0, "/", to(name, 1)))), service(name, resolve.AppHTTP, addresses(i, endpoints)...))
	}
	return result("east", parts...)
}

func BenchmarkBuildSidecars(b *testing.B) {
	r := large(500, 10)
	for b.Loop() {
		cache := NewCache()
		for p := range 50 {
			Build(Input{Proxy: Proxy{Cluster: "east", Role: RoleSidecar, Namespace: fmt.Sprint(p)}, Result: r, Bindings: &counted{}, Cache: cache})
		}
	}
}

func BenchmarkEndpointChange(b *testing.B) {
	r := large(500, 10)
	cache := NewCache()
	var states []*State
	for p := range 50 {
		states = append(states, Build(Input{Proxy: Proxy{Cluster: "east", Role: RoleSidecar, Namespace: fmt.Sprint(p)}, Result: r, Bindings: &counted{}, Cache: cache}))
	}
	n := 0
	for b.Loop() {
		n++
		changed := service("svc-7", resolve.AppHTTP, addresses(n, 10)...)
		next := *r
		next.Backends, _, _ = r.Backends.Insert([]byte(changed.Key.String()), changed)
		r = &next
		for i, s := range states {
			in := s.in
			in.Result = r
			states[i], _ = s.Update(in, resolve.Delta{BackendEndpoints: []string{changed.Key.String()}})
		}
	}
}

// Envoys of one proxy have node ids of their own, in which the proxy is found again.
func TestNodeID(t *testing.T) {
	p := Proxy{Cluster: "west", Role: RoleCrossing, Namespace: "causeway-system", Name: "crossing"}
	for _, instance := range []string{"", "causeway-crossing-5775cd5d45-h5w82", "a~b"} {
		id := p.NodeID(instance)
		if ProxyOfNode(id) != p.ID() || (id == p.ID()) != (instance == "") {
			t.Errorf("%q: node %s is of proxy %s", instance, id, ProxyOfNode(id))
		}
	}
}
