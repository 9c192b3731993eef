package translate

import (
	"fmt"
	"net/netip"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// result makes a Result of parts. Keys are those that the resolver gives.
func result(local cluster.ID, parts ...any) *resolve.Result {
	r := &resolve.Result{
		Local:     local,
		Frontends: iradix.New[*resolve.Frontend](), Remotes: iradix.New[*resolve.Frontend](), Gateways: iradix.New[*resolve.Gateway](),
		Imports: iradix.New[*resolve.Import](), Backends: iradix.New[*resolve.Backend](), Reports: iradix.New[*resolve.ObjectReport](),
	}
	for _, p := range parts {
		switch p := p.(type) {
		case *resolve.Frontend:
			if p.Key.Cluster != "" {
				r.Remotes, _, _ = r.Remotes.Insert([]byte(p.Key.String()), p)
			} else {
				r.Frontends, _, _ = r.Frontends.Insert([]byte(p.Key.String()), p)
			}
		case *resolve.Gateway:
			r.Gateways, _, _ = r.Gateways.Insert([]byte(p.Key()), p)
		case *resolve.Import:
			r.Imports, _, _ = r.Imports.Insert([]byte(p.Namespace+"/"+p.Name), p)
		case *resolve.Backend:
			r.Backends, _, _ = r.Backends.Insert([]byte(p.Key.String()), p)
		default:
			panic(fmt.Sprintf("no part of a Result: %T", p))
		}
	}
	return r
}

// Short forms for the tests.

func serviceKey(name string) resolve.BackendKey {
	return resolve.BackendKey{Kind: resolve.BackendService, Namespace: "app", Name: name, Port: 80}
}

func service(name string, app resolve.AppProtocol, at ...netip.AddrPort) *resolve.Backend {
	g := resolve.EndpointGroup{Cluster: "east"}
	for i, a := range at {
		g.Endpoints = append(g.Endpoints, resolve.Endpoint{Addr: a, Weight: 1000, Healthy: true, Pod: fmt.Sprintf("%s-%d", name, i)})
	}
	return &resolve.Backend{Key: serviceKey(name), Config: resolve.BackendConfig{Protocol: "TCP", AppProtocol: app}, Groups: []resolve.EndpointGroup{g}}
}

func frontend(name string, producer *resolve.RouteTable) *resolve.Frontend {
	return &resolve.Frontend{
		Key:   resolve.FrontendKey{Kind: cluster.KindService, Namespace: "app", Name: name},
		Ports: []resolve.FrontendPort{{Port: 80, Protocol: "TCP", AppProtocol: resolve.AppHTTP, Producer: producer, Backend: serviceKey(name)}},
	}
}

func to(name string, weight uint32) resolve.WeightedBackend {
	return resolve.WeightedBackend{Weight: weight, Backend: serviceKey(name)}
}

func prefixRule(route string, index int, path string, backends ...resolve.WeightedBackend) *resolve.Rule {
	return &resolve.Rule{
		Route:     resolve.RouteID{Kind: cluster.KindHTTPRoute, Namespace: "app", Name: route, Cluster: "east"},
		RuleIndex: index,
		Match:     resolve.Match{PathType: resolve.PathPrefix, Path: path},
		Backends:  backends,
	}
}

func table(rules ...*resolve.Rule) *resolve.RouteTable { return &resolve.RouteTable{Rules: rules} }

// addresses makes n addresses, other ones for another i.
func addresses(i, n int) []netip.AddrPort {
	var out []netip.AddrPort
	for j := range n {
		out = append(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(j)}), 8080))
	}
	return out
}
