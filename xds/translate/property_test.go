package translate

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
	"pgregory.net/rapid"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

var (
	someNames    = []string{"a", "b", "c"}
	someClusters = []cluster.ID{"east", "west", "north"}
	somePorts    = []int32{80, 81}
	someSpaces   = []string{"app", "dev"}
	someApps     = []resolve.AppProtocol{resolve.AppTCP, resolve.AppHTTP, resolve.AppH2C}
)

func pick[T any](t *rapid.T, label string, from []T) T {
	return from[rapid.IntRange(0, len(from)-1).Draw(t, label)]
}

func odds(t *rapid.T, label string, n int) bool { return rapid.IntRange(0, n-1).Draw(t, label) == 0 }

func drawBackendKey(t *rapid.T) resolve.BackendKey {
	k := resolve.BackendKey{Kind: pick(t, "kind", []resolve.BackendKind{resolve.BackendService, resolve.BackendImport, resolve.BackendShare}), Namespace: "app", Name: pick(t, "name", someNames), Port: pick(t, "port", somePorts)}
	if k.Kind == resolve.BackendShare {
		k.Cluster = "west"
	}
	return k
}

func drawFrontendKey(t *rapid.T) resolve.FrontendKey {
	k := resolve.FrontendKey{Kind: pick(t, "kind", []cluster.Kind{cluster.KindService, cluster.KindServiceImport}), Namespace: "app", Name: pick(t, "name", someNames)}
	if k.Kind == cluster.KindService && odds(t, "remote", 3) {
		k.Cluster = "west"
	}
	return k
}

func drawTable(t *rapid.T, gateway bool) *resolve.RouteTable {
	out := &resolve.RouteTable{}
	for i := range rapid.IntRange(0, 3).Draw(t, "rules") {
		if odds(t, "anything", 4) {
			out.Rules = append(out.Rules, drawRule(t, i, gateway))
			continue
		}
		r := &resolve.Rule{Route: resolve.RouteID{Kind: cluster.KindHTTPRoute, Namespace: "app", Name: pick(t, "route", someNames), Cluster: "east"}, RuleIndex: i,
			Match: resolve.Match{PathType: resolve.PathPrefix, Path: pick(t, "path", []string{"/", "/a", "bad"})}}
		for range rapid.IntRange(0, 3).Draw(t, "backends") {
			b := resolve.WeightedBackend{Weight: uint32(rapid.IntRange(0, 2).Draw(t, "weight")), Backend: drawBackendKey(t)}
			switch {
			case odds(t, "invalid", 5):
				b.Invalid = "invalid"
			case gateway && odds(t, "chain", 2):
				k := drawFrontendKey(t)
				b.Chain = &k
			}
			r.Backends = append(r.Backends, b)
		}
		out.Rules = append(out.Rules, r)
	}
	return out
}

func drawFrontend(t *rapid.T, key resolve.FrontendKey) *resolve.Frontend {
	f := &resolve.Frontend{Key: key, Headless: odds(t, "headless", 8)}
	for _, p := range somePorts {
		if odds(t, "no port", 3) {
			continue
		}
		x := resolve.FrontendPort{Port: p, Protocol: "TCP", AppProtocol: pick(t, "app", someApps), Backend: drawBackendKey(t)}
		if odds(t, "producer", 2) {
			x.Producer = drawTable(t, false)
		}
		for _, ns := range someSpaces {
			if odds(t, "consumer", 3) {
				x.Consumers = append(x.Consumers, resolve.ConsumerTable{Namespace: ns, Table: drawTable(t, false)})
			}
		}
		f.Ports = append(f.Ports, x)
	}
	return f
}

func drawGateway(t *rapid.T) *resolve.Gateway {
	g := &resolve.Gateway{Namespace: "app", Name: "gw"}
	for i, p := range somePorts {
		g.Listeners = append(g.Listeners, resolve.Listener{Name: fmt.Sprint(i), Port: p, Protocol: pick(t, "protocol", []string{"HTTP", "HTTP", "TLS"}),
			Hosts: []resolve.VirtualHost{{Hostname: pick(t, "host", []string{"*", "a.example", "*.example"}), Table: drawTable(t, true)}}})
	}
	return g
}

func drawImport(t *rapid.T, name string) *resolve.Import {
	m := &resolve.Import{Namespace: "app", Name: name}
	for _, p := range somePorts {
		x := resolve.ImportPort{Port: p, Protocol: "TCP"}
		for _, c := range someClusters {
			if odds(t, "serves", 2) {
				x.Clusters = append(x.Clusters, c)
			}
		}
		m.Ports = append(m.Ports, x)
	}
	return m
}

func drawConfig(t *rapid.T) resolve.BackendConfig {
	c := resolve.BackendConfig{Protocol: "TCP", AppProtocol: pick(t, "app", someApps)}
	if odds(t, "crossing", 2) {
		c.Crossings = []resolve.Crossing{{Cluster: "west", TrustDomain: pick(t, "domain", []string{"west.test.example", ""})}}
	}
	return c
}

func drawGroups(t *rapid.T) []resolve.EndpointGroup {
	var out []resolve.EndpointGroup
	for i, c := range someClusters {
		if odds(t, "group", 2) {
			out = append(out, resolve.EndpointGroup{Cluster: c, Priority: uint32(i), Crossing: c != "east", Endpoints: []resolve.Endpoint{
				{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(1, 3).Draw(t, "addr"))}), 80), Weight: 1, Healthy: odds(t, "healthy", 2)},
			}})
		}
	}
	return out
}

// mutate changes some of a Result, as an update of the resolver would, and names
// what it changed; sometimes it names more.
func mutate(t *rapid.T, r *resolve.Result) (*resolve.Result, resolve.Delta) {
	next := *r
	var d resolve.Delta
	for range rapid.IntRange(0, 4).Draw(t, "changes") {
		gone := odds(t, "gone", 3)
		switch rapid.IntRange(0, 5).Draw(t, "what") {
		case 0, 1:
			k := drawFrontendKey(t)
			tree, list := &next.Frontends, &d.Frontends
			if k.Cluster != "" {
				tree, list = &next.Remotes, &d.Remotes
			}
			put(tree, k.String(), gone, func() *resolve.Frontend { return drawFrontend(t, k) })
			*list = append(*list, k.String())
		case 2:
			put(&next.Gateways, "app/gw", gone, func() *resolve.Gateway { return drawGateway(t) })
			d.Gateways = append(d.Gateways, "app/gw")
		case 3:
			n := pick(t, "name", someNames)
			put(&next.Imports, "app/"+n, gone, func() *resolve.Import { return drawImport(t, n) })
			d.Imports = append(d.Imports, "app/"+n)
		case 4:
			k := drawBackendKey(t)
			put(&next.Backends, k.String(), gone, func() *resolve.Backend {
				return &resolve.Backend{Key: k, Config: drawConfig(t), Groups: drawGroups(t)}
			})
			d.BackendConfigs = append(d.BackendConfigs, k.String())
		case 5:
			k := drawBackendKey(t)
			if old, ok := next.Backends.Get([]byte(k.String())); ok {
				b := *old
				b.Groups = drawGroups(t)
				put(&next.Backends, k.String(), false, func() *resolve.Backend { return &b })
				d.BackendEndpoints = append(d.BackendEndpoints, k.String())
			}
		}
	}
	if odds(t, "clusters", 4) {
		next.Snapshot = snapshotOf(someClusters[:rapid.IntRange(0, 3).Draw(t, "known")]...)
	}
	return &next, d
}

func put[T any](tree **iradix.Tree[*T], key string, gone bool, draw func() *T) {
	if gone {
		*tree, _, _ = (*tree).Delete([]byte(key))
		return
	}
	*tree, _, _ = (*tree).Insert([]byte(key), draw())
}

// differ tells what differs between two Resources.
func differ(a, b *Resources) string {
	var out bytes.Buffer
	for _, t := range Types {
		for _, d := range diffOf(a, b, t) {
			fmt.Fprintf(&out, "%s %s\n", t, d)
		}
	}
	return out.String()
}

func diffOf(a, b *Resources, t string) []string {
	var out []string
	for k, r := range a.All(t) {
		if o, ok := b.Get(t, k); !ok {
			out = append(out, k+" is missing")
		} else if o.Version != r.Version || o.Subject != r.Subject || !bytes.Equal(o.Body.Value, r.Body.Value) {
			out = append(out, k+" differs")
		}
	}
	for k := range b.All(t) {
		if _, ok := a.Get(t, k); !ok {
			out = append(out, k+" is too much")
		}
	}
	return out
}

// However a State came about, it is what Build makes of its Input; Changes say
// exactly what changed, and what did not keeps its pointer.
func TestUpdateEqualsBuild(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cache := NewCache()
		binds := &counted{}
		in := Input{
			Proxy:   Proxy{Cluster: "east", Role: pick(t, "role", []Role{RoleSidecar, RoleGateway, RoleCrossing}), Namespace: "app", Name: "gw"},
			Options: Options{DebugHeaders: rapid.Bool().Draw(t, "debug")}, Bindings: binds, Cache: cache, Result: result("east"),
		}
		other := in // another proxy of the agent
		other.Proxy.Namespace = "dev"
		if rapid.Bool().Draw(t, "shared") {
			in.Shared = NewShared(in)
			other.Shared = in.Shared
		}
		s, o := Build(in), Build(other)
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			r, delta := mutate(t, in.Result)
			in.Result = r
			if odds(t, "bundles", 6) {
				in.Bundles = NewBundles(nil)
			}
			if odds(t, "moves", 10) {
				in.Proxy.Namespace = pick(t, "namespace", someSpaces)
			}
			if in.Shared != nil {
				in.Shared = in.Shared.Update(in, delta)
			}
			other.Result, other.Bundles, other.Shared = in.Result, in.Bundles, in.Shared
			next, changes := s.Update(in, delta)
			o, _ = o.Update(other, delta)
			for what, x := range map[string]struct {
				got *State
				in  Input
			}{"the proxy": {next, in}, "the other proxy": {o, other}} {
				x.in.Cache, x.in.Shared = nil, nil // nothing of what was remembered may matter
				built := Build(x.in)
				if d := differ(built.Resources, x.got.Resources); d != "" {
					t.Fatalf("%s: updated, it has other resources than built:\n%s", what, d)
				}
				if !slices.Equal(built.Problems(), x.got.Problems()) {
					t.Fatalf("%s: updated, it has problems\n%v\nbuilt,\n%v", what, x.got.Problems(), built.Problems())
				}
			}
			for _, typ := range Types {
				var changed, removed []string
				for k, r := range next.Resources.All(typ) {
					was, ok := s.Resources.Get(typ, k)
					_, wasOwn := s.Resources.tree(typ).Get([]byte(k))
					_, isOwn := next.Resources.tree(typ).Get([]byte(k))
					switch {
					case !ok || was.Version != r.Version || was.Subject != r.Subject:
						changed = append(changed, k)
					case was != r && wasOwn == isOwn:
						t.Fatalf("%s %s did not change and is another pointer", typ, k)
					}
				}
				for k := range s.Resources.All(typ) {
					if _, ok := next.Resources.Get(typ, k); !ok {
						removed = append(removed, k)
					}
				}
				if !slices.Equal(changed, changes.Changed[typ]) || !slices.Equal(removed, changes.Removed[typ]) {
					t.Fatalf("%s: changed %q, removed %q, and Changes say %v", typ, changed, removed, changes)
				}
			}
			complete(t, next)
			if next.shared != nil {
				complete(t, next.shared.state)
			}
			s = next
		}
	})
}

// complete checks that everything needed is there, and nothing in vain.
func complete(t *rapid.T, s *State) {
	s.needs.Root().Walk(func(k []byte, n int) bool {
		if u, ok := s.units.Get(k); !ok || u == nil || n <= 0 {
			t.Fatalf("unit %s is needed %d times and is not there", k, n)
		}
		return false
	})
	s.units.Root().Walk(func(k []byte, u *unit) bool {
		if n, _ := s.needs.Get(k); !u.key.isRoot() && n == 0 {
			t.Fatalf("unit %s is there and nobody needs it", k)
		}
		return false
	})
}
