package resolve

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
)

var poolOfHosts = []string{"", "example.com", "*.com", "*.example.com", "a.example.com", "b.example.com", "*.a.example.com", "x.a.example.com", "y.x.a.example.com", "*.org", "example.org"}

// TestCoveringNames: coveringNames is what covers says, for every pair of names,
// and an intersection is covered by both sides.
func TestCoveringNames(t *testing.T) {
	for _, h := range poolOfHosts[1:] {
		names := coveringNames(h)
		for _, n := range append([]string{"*"}, poolOfHosts[1:]...) {
			if HostCovers(n, h) != slices.Contains(names, n) {
				t.Errorf("does %q cover %q? covers says %t, coveringNames %q", n, h, HostCovers(n, h), names)
			}
			if x, ok := intersect(n, h); ok != (HostCovers(n, h) || HostCovers(h, n)) || ok && (!HostCovers(n, x) || !HostCovers(h, x)) {
				t.Errorf("intersection of %q and %q: %q, %t", n, h, x, ok)
			}
		}
		if !sort.SliceIsSorted(names, func(i, j int) bool { return rankOf(names[i]).before(rankOf(names[j])) }) {
			t.Errorf("%q is not from the most to the least specific", names)
		}
	}
}

// modelRoute is a route in the model: one rule with one prefix.
type modelRoute struct {
	name      string
	section   string // of the parentRef, empty for all listeners
	hostnames []string
	path      string
	revision  int64
}

// TestHostsAgreeWithModel: for random listeners and routes, the rule that takes a
// request is the one that Gateway API's words lead to: the most specific listener
// of the port has the request; of its routes that know the host, the one with the
// most specific hostname comes first, then the longest prefix, then the senior.
func TestHostsAgreeWithModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hosts := rapid.SliceOfNDistinct(rapid.SampledFrom(poolOfHosts), 1, 4, rapid.ID[string]).Draw(t, "listeners")
		gw := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: "gw"}, Spec: gatewayv1.GatewaySpec{GatewayClassName: cluster.ClassCauseway}}
		for i, h := range hosts {
			l := gatewayv1.Listener{Name: gatewayv1.SectionName(fmt.Sprint("l", i)), Port: 80, Protocol: gatewayv1.HTTPProtocolType}
			if h != "" {
				l.Hostname = ptr(gatewayv1.Hostname(h))
			}
			gw.Spec.Listeners = append(gw.Spec.Listeners, l)
		}
		w := &worldWriter{t: t, builder: federation.NewBuilder()}
		w.edit = w.builder.Edit()
		w.put("east", cluster.KindGateway, "gw", gw)
		var routes []modelRoute
		for i := range rapid.IntRange(1, 6).Draw(t, "routes") {
			m := modelRoute{name: fmt.Sprint("r", i), path: rapid.SampledFrom([]string{"/", "/a"}).Draw(t, "path"), hostnames: rapid.SliceOfNDistinct(rapid.SampledFrom(poolOfHosts[1:]), 0, 3, rapid.ID[string]).Draw(t, "hostnames")}
			h := importRoute(m.name, gatewayv1.ParentReference{Name: "gw"}, m.path, "a")
			if rapid.Bool().Draw(t, "section") {
				m.section = fmt.Sprint("l", rapid.IntRange(0, len(hosts)-1).Draw(t, "listener"))
				h.Spec.ParentRefs[0].SectionName = ptr(gatewayv1.SectionName(m.section))
			}
			for _, n := range m.hostnames {
				h.Spec.Hostnames = append(h.Spec.Hostnames, gatewayv1.Hostname(n))
			}
			w.put("east", cluster.KindHTTPRoute, m.name, h)
			m.revision = w.n
			routes = append(routes, m)
		}
		snap, _ := w.edit.Commit()
		got, _ := Resolve("east", snap).Gateways.Get([]byte("app/gw"))
		for _, host := range []string{"example.com", "a.example.com", "b.example.com", "c.example.com", "x.a.example.com", "z.a.example.com", "y.x.a.example.com", "example.org", "com"} {
			for _, path := range []string{"/", "/a", "/ab"} {
				if x, y := takenBy(got, host, path), modelTakes(hosts, routes, host, path); x != y {
					t.Fatalf("%s%s: taken by %q, but the model says %q", host, path, x, y)
				}
			}
		}
	})
}

// takenBy finds the route as Envoy would: the most specific virtual host, then
// the first rule that matches.
func takenBy(g *Gateway, host, path string) string {
	var best *VirtualHost
	for i := range g.Listeners {
		for j := range g.Listeners[i].Hosts {
			h := &g.Listeners[i].Hosts[j]
			if HostCovers(h.Hostname, host) && (best == nil || rankOf(h.Hostname).before(rankOf(best.Hostname))) {
				best = h
			}
		}
	}
	if best == nil {
		return ""
	}
	for _, r := range best.Table.Rules {
		if prefixMatches(r.Match.Path, path) {
			return r.Route.Name
		}
	}
	return ""
}

func modelTakes(listeners []string, routes []modelRoute, host, path string) string {
	at := -1
	for i, l := range listeners {
		if HostCovers(l, host) && (at < 0 || rankOf(l).before(rankOf(listeners[at]))) {
			at = i
		}
	}
	if at < 0 {
		return ""
	}
	best, bestRank := (*modelRoute)(nil), hostRank{}
	for i := range routes {
		r := &routes[i]
		if (r.section != "" && r.section != fmt.Sprint("l", at)) || !prefixMatches(r.path, path) {
			continue
		}
		rank, knows := hostRank{}, len(r.hostnames) == 0
		for _, h := range r.hostnames {
			if HostCovers(h, host) && (!knows || rankOf(h).before(rank)) {
				rank, knows = rankOf(h), true
			}
		}
		if !knows {
			continue
		}
		better := best == nil || rank.before(bestRank)
		if best != nil && rank == bestRank {
			better = len(r.path) > len(best.path) || (len(r.path) == len(best.path) && r.revision < best.revision)
		}
		if better {
			best, bestRank = r, rank
		}
	}
	if best == nil {
		return ""
	}
	return best.name
}

func prefixMatches(prefix, path string) bool {
	return prefix == "/" || path == prefix || strings.HasPrefix(path, prefix+"/")
}
