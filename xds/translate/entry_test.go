package translate

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/federation/resolve/resolvetest"
)

// exported is the manifest of a Service with its export and the one endpoint of each port.
func exported(name string, ports map[string]netip.AddrPort) string {
	numbers := map[string]string{"http": "80", "tcp": "81", "udp": "53, protocol: UDP"}
	var out, list string
	for _, p := range []string{"http", "tcp", "udp"} {
		at, ok := ports[p]
		if !ok {
			continue
		}
		list += fmt.Sprintf("  - {name: %s, port: %s}\n", p, numbers[p])
		protocol := "TCP"
		if p == "udp" {
			protocol = "UDP"
		}
		out += fmt.Sprintf(`---
kind: EndpointSlice
metadata: {namespace: app, name: %[1]s-%[2]s, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
ports: [{name: %[2]s, port: %[3]d, protocol: %[5]s}]
endpoints: [{addresses: ["%[4]s"]}]
`, name, p, at.Port(), at.Addr(), protocol)
	}
	return fmt.Sprintf("---\nkind: Service\nmetadata: {namespace: app, name: %[1]s}\nspec:\n  ports:\n%[2]s---\nkind: ServiceExport\nmetadata: {namespace: app, name: %[1]s}\n", name, list) + out
}

// producerRoute is the manifest of a route that splits a port of ServiceImport a between a and b.
func producerRoute(kind string, namespace string, port, a, b int) string {
	const ref = "{group: multicluster.x-k8s.io, kind: ServiceImport, namespace: app, name: "
	return fmt.Sprintf("---\nkind: %[1]s\nmetadata: {namespace: %[2]s, name: split}\nspec:\n  parentRefs: [%[3]sa, port: %[4]d}]\n  rules: [{backendRefs: [%[3]sa, port: %[4]d, weight: %[5]d}, %[3]sb, port: %[4]d, weight: %[6]d}]}]\n", kind, namespace, ref, port, a, b)
}

// Clients of east that have no sidecar call imports that west alone serves, in another
// network: by the entries of east's crossing gateway, on by mTLS to west's, from manifests
// to Envoys. The producer routes of HTTP, TCP and UDP split 70 to 30; the consumer routes
// of some namespace are not theirs.
func TestEntriesInEnvoy(t *testing.T) {
	w := newWorld(t, "east", "west")
	binds := &ports{t: t}
	gate := func(id cluster.ID) Proxy {
		return Proxy{Cluster: id, Role: RoleCrossing, Namespace: "causeway-system", Name: "crossing"}
	}
	gateAt, _ := binds.Crossing(gate("west"))
	files := map[string][]byte{
		"meta.yaml": []byte("east: {network: one}\nwest: {network: two, crossing: [" + gateAt.String() + "]}\n"),
		"west.yaml": []byte(exported("a", map[string]netip.AddrPort{"http": echo(t, "a"), "tcp": said(t, "a", nil), "udp": datagrams(t, "a")}) +
			exported("b", map[string]netip.AddrPort{"http": echo(t, "b"), "tcp": said(t, "b", nil), "udp": datagrams(t, "b")}) +
			producerRoute("HTTPRoute", "app", 80, 70, 30) + producerRoute("TCPRoute", "app", 81, 70, 30) + producerRoute("UDPRoute", "app", 53, 70, 30)),
		"east.yaml": []byte(producerRoute("HTTPRoute", "dev", 80, 0, 1)),
	}
	// The authorities of these Envoys have trust domains of their own.
	world := resolvetest.Read(t, files)
	for i := range world.Clusters {
		world.Clusters[i].Meta.TrustDomain = domainOf(world.Clusters[i].ID)
	}
	snap := world.Snapshot(t)
	w.start(Input{Proxy: gate("west"), Result: resolve.Resolve("west", snap)}, binds)
	in := Input{Proxy: gate("east"), Result: resolve.Resolve("east", snap)}
	e := w.start(in, binds)
	if p := e.state.Problems(); len(p) > 0 {
		t.Errorf("problems: %v", p)
	}
	entry := func(name string, tr Transport, port int32) netip.AddrPort {
		at, _ := binds.Entry(gate("east"), resolve.FrontendKey{Kind: cluster.KindServiceImport, Namespace: "app", Name: name}, tr, port)
		return at
	}
	calls := map[string]func(name string) string{
		"http": func(name string) string {
			x := ask(t, entry(name, TransportTCP, 80), "GET", "whatever", "/x")
			if x.status != 200 {
				return fmt.Sprint(x.status)
			}
			return x.from()
		},
		"tcp": func(name string) string { return hear(net.Dial("tcp", entry(name, TransportTCP, 81).String())) },
		"udp": func(name string) string {
			got, err := ping(entry(name, TransportUDP, 53))
			if err != nil {
				return err.Error()
			}
			return strings.TrimSuffix(got, " hello")
		},
	}
	for what, call := range calls {
		await(t, func() error {
			if got := call("b"); got != "b" {
				return fmt.Errorf("%s to b without routes is answered by %q", what, got)
			}
			return nil
		})
		counts := map[string]int{}
		for range 200 {
			counts[call("a")]++
		}
		if counts["a"] < 110 || counts["b"] < 30 || counts["a"]+counts["b"] != 200 {
			t.Errorf("of 200 calls by %s, split 70 to 30: %v", what, counts)
		}
	}

	// The route goes: all of it is a's again. An entry that is bound elsewhere is
	// another listener, and the former goes.
	in.Bindings, in.Cache, in.Identity, in.Bundles = binds, w.cache, e.state.in.Identity, e.state.in.Bundles
	world.Objects = slices.DeleteFunc(world.Objects, func(o *cluster.Object) bool { return o.Kind == cluster.KindHTTPRoute })
	in.Result = resolve.Resolve("east", world.Snapshot(t))
	front := resolve.FrontendKey{Kind: cluster.KindServiceImport, Namespace: "app", Name: "a"}
	next, changes := e.state.Update(in, resolve.Delta{Frontends: []string{front.String()}})
	if len(changes.Changed[TypeListener])+len(changes.Removed[TypeListener]) != 0 || len(changes.Changed[TypeRoute]) != 1 {
		t.Errorf("a route went, and the changes are %v", changes)
	}
	e.feed.set(next)
	await(t, func() error {
		for range 10 {
			if got := calls["http"]("a"); got != "a" {
				return fmt.Errorf("no route, and the answer is of %q", got)
			}
		}
		return nil
	})
	moved := &moving{ports: binds, by: 1000}
	in.Bindings = moved
	former := entry("a", TransportTCP, 81)
	next, changes = next.Update(in, resolve.Delta{Frontends: []string{front.String()}})
	if n := len(changes.Changed[TypeListener]); n != 3 || len(changes.Removed[TypeListener]) != 3 {
		t.Errorf("three entries moved, and the changes are %v", changes)
	}
	e.feed.set(next)
	await(t, func() error {
		at, _ := moved.Entry(gate("east"), front, TransportTCP, 81)
		if got := hear(net.Dial("tcp", at.String())); got != "a" && got != "b" {
			return fmt.Errorf("the new entry answers %q", got)
		}
		if got := hear(net.Dial("tcp", former.String())); got == "a" || got == "b" {
			return fmt.Errorf("the former entry still answers")
		}
		return nil
	})
	e.accepted(t)
}

// moving binds entries to other ports.
type moving struct {
	*ports
	by uint16
}

func (m *moving) Entry(p Proxy, key resolve.FrontendKey, tr Transport, port int32) (netip.AddrPort, bool) {
	at, ok := m.ports.Entry(p, key, tr, port)
	return netip.AddrPortFrom(at.Addr(), at.Port()+m.by), ok
}

// A crossing gateway without entries has what it always had.
func TestNoEntries(t *testing.T) {
	snap := resolvetest.Files(t, map[string][]byte{
		"meta.yaml": []byte("east: {network: one}\n"),
		"east.yaml": []byte("kind: Service\nmetadata: {namespace: app, name: a}\nspec: {ports: [{port: 80}]}\n---\nkind: ServiceExport\nmetadata: {namespace: app, name: a}\n"),
	})
	in := Input{Proxy: Proxy{Cluster: "east", Role: RoleCrossing, Namespace: "causeway-system", Name: "x"}, Result: resolve.Resolve("east", snap), Bindings: noEntries{&counted{}}}
	with := in
	with.Bindings = &counted{}
	s := Build(in)
	if n, m := count(s, TypeListener), count(Build(with), TypeListener); n != 1 || m != 2 {
		t.Errorf("%d listeners without entries, want that for other networks alone; %d with them, want 2", n, m)
	}
	// An entry comes: Update with the frontend's name adds it, and nothing else changes.
	next, changes := s.Update(with, resolve.Delta{Frontends: []string{"ServiceImport/app/a"}})
	if n := count(next, TypeListener); n != 2 || len(changes.Changed[TypeListener]) != 1 || len(changes.Removed) > 0 {
		t.Errorf("%d listeners once there is an entry, by the changes %v", n, changes)
	}
}

type noEntries struct{ *counted }

func (noEntries) Entry(Proxy, resolve.FrontendKey, Transport, int32) (netip.AddrPort, bool) {
	return netip.AddrPort{}, false
}
