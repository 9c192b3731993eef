package query

import (
	"cmp"
	"slices"
	"sync"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// use is a place in one Result where rules of a route are in force.
type use struct {
	role            causewayv1.RouteRole
	kind            cluster.Kind
	namespace, name string
	port            int32
	consumer        string
	target          cluster.ID // where the target is, if elsewhere
}

// uses are the places by route, each once, in a fixed order.
type uses map[resolve.RouteID][]use

// useIndexes keeps the index of the last few Results: a Result is immutable, so
// its index is made once, when it is first asked for.
type useIndexes struct {
	mu    sync.Mutex
	order []*resolve.Result // oldest first
	made  map[*resolve.Result]func() uses
}

// maxIndexes covers every cluster of `causeway up` and some answers of the past.
const maxIndexes = 64

func (u *useIndexes) of(r *resolve.Result) uses {
	u.mu.Lock()
	get, ok := u.made[r]
	if !ok {
		if u.made == nil {
			u.made = map[*resolve.Result]func() uses{}
		}
		if len(u.order) == maxIndexes {
			delete(u.made, u.order[0])
			u.order = slices.Delete(u.order, 0, 1)
		}
		get = sync.OnceValue(func() uses { return indexUses(r) })
		u.made[r], u.order = get, append(u.order, r)
	}
	u.mu.Unlock()
	return get()
}

func indexUses(r *resolve.Result) uses {
	out := uses{}
	add := func(t *resolve.RouteTable, u use) {
		if t == nil {
			return
		}
		for _, rule := range t.Rules {
			out.add(rule.Route, u)
		}
		if t.Forward != nil {
			out.add(t.Forward.Route, u)
		}
	}
	frontend := func(_ []byte, f *resolve.Frontend) bool {
		for _, p := range f.Ports {
			u := use{kind: f.Key.Kind, namespace: f.Key.Namespace, name: f.Key.Name, port: p.Port, target: f.Key.Cluster}
			u.role = causewayv1.RouteRole_ROUTE_ROLE_PRODUCER
			add(p.Producer, u)
			u.role = causewayv1.RouteRole_ROUTE_ROLE_CONSUMER
			for _, c := range p.Consumers {
				u.consumer = c.Namespace
				add(c.Table, u)
			}
		}
		return false
	}
	r.Frontends.Root().Walk(frontend)
	r.Remotes.Root().Walk(frontend)
	r.Gateways.Root().Walk(func(_ []byte, g *resolve.Gateway) bool {
		for _, l := range g.Listeners {
			u := use{role: causewayv1.RouteRole_ROUTE_ROLE_GATEWAY, kind: cluster.KindGateway, namespace: g.Namespace, name: g.Name, port: l.Port}
			for _, h := range l.Hosts {
				add(h.Table, u)
			}
			if l.Forward != nil {
				out.add(l.Forward.Route, u)
			}
		}
		return false
	})
	return out
}

func (u uses) add(route resolve.RouteID, at use) {
	if !slices.Contains(u[route], at) {
		u[route] = append(u[route], at)
	}
}

func compareUses(a, b *causewayv1.RouteUse) int {
	return cmp.Or(cmp.Compare(a.GetRole(), b.GetRole()),
		cmp.Compare(a.GetTarget().GetKind(), b.GetTarget().GetKind()),
		cmp.Compare(a.GetTarget().GetNamespace(), b.GetTarget().GetNamespace()),
		cmp.Compare(a.GetTarget().GetName(), b.GetTarget().GetName()),
		cmp.Compare(a.GetPort(), b.GetPort()), cmp.Compare(a.GetConsumerNamespace(), b.GetConsumerNamespace()),
		cmp.Compare(a.GetTargetCluster(), b.GetTargetCluster()))
}
