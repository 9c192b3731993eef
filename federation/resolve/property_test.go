package resolve

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	iradix "github.com/hashicorp/go-immutable-radix/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/policy"
)

// The little world of the property tests: few names, so that everything meets
// everything.
var (
	someClusters   = []cluster.ID{"east", "north", "west"}
	someNamespaces = []string{"app", "dev"}
	someNames      = []string{"a", "b"}
	someHosts      = []string{"a.example.com", "b.example.com", "*.example.com", "*.com"}
)

// at is a moment for objects that have no store revision.
func at(seconds int) time.Time { return time.Unix(int64(seconds), 0).UTC() }

// step is one change in a history: of an object, or of a cluster.
type step struct {
	change   *federation.Change
	member   *federation.Cluster
	policies *[]policy.Policy
	refused  *federation.Refusal
}

// drawPolicy is a step of the administrators: other policies, or an object that
// is over its cluster's quota, or no more.
func drawPolicy(t *rapid.T) step {
	if rapid.IntRange(0, 2).Draw(t, "quota") == 0 {
		kind := rapid.SampledFrom(federation.PermittedKinds).Draw(t, "kind")
		return step{refused: &federation.Refusal{Cluster: rapid.SampledFrom(someClusters).Draw(t, "cluster"), Why: rapid.SampledFrom([]string{"", "over quota"}).Draw(t, "why"),
			Ref: cluster.Ref{Kind: kind, Namespace: rapid.SampledFrom(someNamespaces).Draw(t, "namespace"), Name: rapid.SampledFrom(someNames).Draw(t, "name")}}}
	}
	namespaces := func() *policy.Namespaces {
		n := rapid.SampledFrom([]*policy.Namespaces{nil, {Allow: []string{}}, {Allow: []string{"app"}}, {Allow: []string{"d*"}, Deny: []string{"app"}}, {Deny: []string{"a*"}}, {Deny: []string{"dev"}}, {Allow: []string{"*"}}}).Draw(t, "namespaces")
		return n
	}
	var all []policy.Policy
	for i := range rapid.IntRange(0, 2).Draw(t, "policies") {
		p := policy.Policy{Name: fmt.Sprint("p", i), Export: namespaces(), Route: namespaces(),
			Clusters: rapid.SampledFrom([]*policy.Clusters{nil, {Names: []string{"east"}}, {Names: []string{"*st"}, Selector: "region=eu"}, {Selector: "network"}}).Draw(t, "clusters")}
		if p.Check() == nil {
			all = append(all, p)
		}
	}
	return step{policies: &all}
}

func drawStep(t *rapid.T) step {
	if rapid.IntRange(0, 9).Draw(t, "policy") == 0 {
		return drawPolicy(t)
	}
	if rapid.IntRange(0, 4).Draw(t, "rich") == 0 {
		return drawRichStep(t)
	}
	id := rapid.SampledFrom(someClusters).Draw(t, "cluster")
	ns := rapid.SampledFrom(someNamespaces).Draw(t, "namespace")
	name := rapid.SampledFrom(someNames).Draw(t, "name")
	kind := rapid.SampledFrom(append([]cluster.Kind{cluster.KindService, cluster.KindService, cluster.KindServiceExport, cluster.KindServiceExport, cluster.KindHTTPRoute, cluster.KindHTTPRoute, cluster.KindHTTPRoute,
		cluster.KindGateway, cluster.KindGateway, cluster.KindEndpointSlice, cluster.KindEndpointSlice, cluster.KindReferenceGrant, cluster.KindNamespace, cluster.KindGatewayClass, cluster.KindGRPCRoute, cluster.KindGatewayRun, "Cluster"}, otherKinds...)).Draw(t, "kind")
	if kind == "Cluster" {
		c := drawCluster(t, id)
		return step{member: &c}
	}
	ref := cluster.Ref{Kind: kind, Namespace: ns, Name: name}
	switch kind {
	case cluster.KindNamespace:
		ref = cluster.Ref{Kind: kind, Name: ns}
	case cluster.KindGatewayClass:
		ref = cluster.Ref{Kind: kind, Name: rapid.SampledFrom([]string{cluster.ClassCauseway, cluster.ClassClusterset, "other"}).Draw(t, "class")}
	}
	if rapid.IntRange(0, 3).Draw(t, "gone") == 0 {
		return step{change: &federation.Change{Cluster: id, Ref: ref}}
	}
	o := &cluster.Object{Ref: ref, Cluster: id, Value: drawValue(t, ref), Seniority: cluster.Seniority{Revision: rapid.Int64Range(0, 5).Draw(t, "revision"), Created: at(rapid.IntRange(1, 3).Draw(t, "created"))}}
	return step{change: &federation.Change{Cluster: id, Ref: ref, Object: o}}
}

func drawCluster(t *rapid.T, id cluster.ID) federation.Cluster {
	pick := func(of ...string) string { return rapid.SampledFrom(of).Draw(t, "meta") }
	c := federation.Cluster{ID: id, Meta: cluster.Meta{Region: pick("", "eu", "us"), Network: pick("", "n1", "n2"), TrustDomain: string(id)}}
	if rapid.Bool().Draw(t, "crossing") {
		c.Meta.Crossing = []string{"192.0.2.1:15443", "gate.example:15443"}
	}
	c.Drained = rapid.SampledFrom([]int{0, 0, 0, 50, 95, 100}).Draw(t, "drained")
	c.Health.Liveness = federation.Liveness(pick(string(federation.Alive), string(federation.Alive), string(federation.Suspect), string(federation.Dead)))
	return c
}

func drawValue(t *rapid.T, ref cluster.Ref) any {
	m := metav1.ObjectMeta{Namespace: ref.Namespace, Name: ref.Name, Annotations: map[string]string{}}
	maybe := func(label, key string, of ...string) {
		if v := rapid.SampledFrom(append(of, "")).Draw(t, label); v != "" {
			m.Annotations[key] = v
		}
	}
	switch ref.Kind {
	case cluster.KindService:
		s := &corev1.Service{ObjectMeta: m}
		switch rapid.IntRange(0, 9).Draw(t, "type") {
		case 0:
			s.Spec.ClusterIP = corev1.ClusterIPNone
		case 1:
			s.Spec.Type = corev1.ServiceTypeExternalName
		}
		if rapid.IntRange(0, 3).Draw(t, "affinity") == 0 {
			s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		}
		s.Spec.Ports = rapid.SampledFrom([][]corev1.ServicePort{
			{{Port: 80}}, {{Name: "http", Port: 80}, {Name: "dns", Port: 80, Protocol: "UDP"}}, {{Name: "http", Port: 80, AppProtocol: ptr("https")}}, {{Port: 80, AppProtocol: ptr("kubernetes.io/h2c")}}, {{Port: 80, AppProtocol: ptr("kubernetes.io/ws")}}, {{Name: "http", Port: 8080}, {Name: "web", Port: 80}}, {{Name: "http", Port: 80, Protocol: "UDP"}},
		}).Draw(t, "ports")
		return s
	case cluster.KindServiceExport:
		maybe("distribution", cluster.AnnotationDistribution, cluster.DistributionEven, "")
		maybe("weight", cluster.AnnotationWeight, "0", "7", "none", "")
		return &mcsv1beta1.ServiceExport{ObjectMeta: m}
	case cluster.KindNamespace:
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ref.Name, Labels: map[string]string{"team": rapid.SampledFrom([]string{"red", "blue"}).Draw(t, "team")}}}
	case cluster.KindGatewayClass:
		return &gatewayv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: ref.Name}, Spec: gatewayv1.GatewayClassSpec{ControllerName: gatewayv1.GatewayController(rapid.SampledFrom([]string{cluster.ControllerName, "example.com/x"}).Draw(t, "controller"))}}
	case cluster.KindReferenceGrant:
		g := &gatewayv1beta1.ReferenceGrant{ObjectMeta: m}
		g.Spec.From = []gatewayv1.ReferenceGrantFrom{{Group: gatewayv1.GroupName, Kind: gatewayv1.Kind(rapid.SampledFrom([]string{"HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute", "UDPRoute", "Gateway", "Gateway", "ListenerSet"}).Draw(t, "fromKind")), Namespace: gatewayv1.Namespace(rapid.SampledFrom(someNamespaces).Draw(t, "from"))}}
		g.Spec.To = rapid.SampledFrom([][]gatewayv1.ReferenceGrantTo{{{Kind: "Service"}}, {{Group: groupMCS, Kind: "ServiceImport"}}, {{Kind: "Secret"}, {Kind: "ConfigMap"}}}).Draw(t, "to")
		return g
	case cluster.KindEndpointSlice:
		s := &cluster.EndpointSlice{Service: ref.Name, Ports: []cluster.EndpointPort{{Name: rapid.SampledFrom([]string{"", "http"}).Draw(t, "port"), Port: 8080, Protocol: "TCP"}}}
		for i := range rapid.IntRange(0, 3).Draw(t, "endpoints") {
			e := cluster.Endpoint{Addr: netip.AddrFrom4([4]byte{10, 0, ref.Name[0], byte(i)}), Pod: fmt.Sprint(i)}
			e.Ready, e.Serving, e.Terminating = rapid.Bool().Draw(t, "ready"), rapid.Bool().Draw(t, "serving"), rapid.Bool().Draw(t, "terminating")
			e.Ready = e.Ready && !e.Terminating
			s.Endpoints = append(s.Endpoints, e)
		}
		if rapid.IntRange(0, 2).Draw(t, "counted") == 0 {
			return s.Counted()
		}
		return s
	case cluster.KindGateway:
		maybe("clusters", cluster.AnnotationClusters, "region=eu", "name in (east,west)", "((", "")
		maybe("chain", cluster.AnnotationServiceRoutes, cluster.ServiceRoutesIgnore, "", "")
		g := &gatewayv1.Gateway{ObjectMeta: m}
		g.Spec.GatewayClassName = gatewayv1.ObjectName(rapid.SampledFrom([]string{cluster.ClassCauseway, cluster.ClassClusterset, cluster.ClassClusterset, "other"}).Draw(t, "class"))
		g.Spec.Listeners = drawListeners(t)
		drawGatewayOptions(t, g)
		return g
	case cluster.KindGatewayRun:
		return &cluster.GatewayRun{Home: rapid.SampledFrom(someClusters).Draw(t, "home"), Generation: rapid.Int64Range(1, 2).Draw(t, "generation")}
	case cluster.KindHTTPRoute:
		maybe("scope", cluster.AnnotationScope, cluster.ScopeCluster, "", "", "")
		return drawRoute(t, m)
	case cluster.KindGRPCRoute:
		maybe("scope", cluster.AnnotationScope, cluster.ScopeCluster, "", "", "")
		return drawGRPCRoute(t, m)
	}
	maybe("scope", cluster.AnnotationScope, cluster.ScopeCluster, "", "", "")
	return drawOther(t, ref.Kind, m)
}

// richWorld is a start from which random edits soon reach the far corners: a
// clusterset Gateway whose route leads to a Service that other clusters know as
// a share, with producer routes to chain through.
func richWorld() []step {
	var out []step
	put := func(id cluster.ID, kind cluster.Kind, v metav1.Object) {
		ref := cluster.Ref{Kind: kind, Namespace: v.GetNamespace(), Name: v.GetName()}
		o := &cluster.Object{Ref: ref, Cluster: id, Value: v, Seniority: cluster.Seniority{Revision: int64(len(out) + 1)}}
		out = append(out, step{change: &federation.Change{Cluster: id, Ref: ref, Object: o}})
	}
	backend := func(name string) []gatewayv1.HTTPRouteRule {
		b := gatewayv1.HTTPBackendRef{}
		b.Name, b.Port = gatewayv1.ObjectName(name), ptr(gatewayv1.PortNumber(80))
		return []gatewayv1.HTTPRouteRule{{BackendRefs: []gatewayv1.HTTPBackendRef{b}}}
	}
	for _, id := range []cluster.ID{"east", "west"} {
		for _, name := range someNames {
			m := metav1.ObjectMeta{Namespace: "app", Name: name}
			put(id, cluster.KindService, &corev1.Service{ObjectMeta: m, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}})
			put(id, cluster.KindServiceExport, &mcsv1beta1.ServiceExport{ObjectMeta: m})
		}
	}
	put("east", cluster.KindGateway, &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: "a"}, Spec: gatewayv1.GatewaySpec{
		GatewayClassName: cluster.ClassClusterset, Listeners: []gatewayv1.Listener{{Name: "l0", Port: 80, Protocol: "HTTP"}},
		AllowedListeners: &gatewayv1.AllowedListeners{Namespaces: &gatewayv1.ListenerNamespaces{From: ptr(gatewayv1.NamespacesFromSame)}}}})
	a := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: "a"}}
	a.Spec.ParentRefs, a.Spec.Rules = []gatewayv1.ParentReference{{Name: "a"}}, backend("a")
	put("east", cluster.KindHTTPRoute, a)
	b := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: "b"}}
	b.Spec.ParentRefs, b.Spec.Rules = []gatewayv1.ParentReference{{Group: ptr(gatewayv1.Group("")), Kind: ptr(gatewayv1.Kind("Service")), Name: "a"}}, backend("b")
	put("east", cluster.KindHTTPRoute, b)
	return append(out, richL4()...)
}

// drawRichStep puts back, changes or removes one object of the rich world.
func drawRichStep(t *rapid.T) step {
	s := rapid.SampledFrom(richWorld()).Draw(t, "object")
	if rapid.IntRange(0, 3).Draw(t, "gone") == 0 {
		s.change.Object = nil
		return s
	}
	m := map[string]string{}
	if rapid.Bool().Draw(t, "scope") {
		m[cluster.AnnotationScope] = cluster.ScopeCluster
	}
	if rapid.IntRange(0, 2).Draw(t, "chain") == 0 {
		m[cluster.AnnotationServiceRoutes] = cluster.ServiceRoutesIgnore
	}
	s.change.Object.Value.(metav1.Object).SetAnnotations(m)
	return s
}

func applySteps(t interface{ Fatal(...any) }, b *federation.Builder, steps []step) (*federation.Snapshot, federation.ChangeSet) {
	e := b.Edit()
	for _, s := range steps {
		if s.member != nil {
			e.SetCluster(*s.member)
			continue
		}
		if s.refused != nil {
			e.Refuse(s.refused.Cluster, s.refused.Ref, s.refused.Why)
			continue
		}
		if s.policies != nil {
			set, err := policy.Compile(*s.policies)
			if err != nil {
				t.Fatal(err)
			}
			e.SetPolicies(set)
			continue
		}
		if err := e.Apply(*s.change); err != nil {
			t.Fatal(err)
		}
	}
	return e.Commit()
}

// TestUpdateEqualsResolve: after every step of a random history, in every
// cluster, what was updated step by step equals what is computed from scratch;
// the Delta names exactly what differs, and all else keeps its pointer. It also
// holds what the engine remembers to be the same, so that nothing leaks.
func TestUpdateEqualsResolve(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := federation.NewBuilder()
		local := rapid.SampledFrom(someClusters).Draw(t, "local")
		var all []step
		for _, id := range someClusters {
			c := drawCluster(t, id)
			all = append(all, step{member: &c})
		}
		if rapid.Bool().Draw(t, "rich") {
			all = append(all, richWorld()...)
		}
		snap, _ := applySteps(t, b, all)
		res := Resolve(local, snap)
		for range rapid.IntRange(1, 25).Draw(t, "edits") {
			steps := rapid.SliceOfN(rapid.Custom(drawStep), 1, 4).Draw(t, "steps")
			if rapid.IntRange(0, 3).Draw(t, "drain") == 0 { // a drain's step changes nothing else
				c := rapid.SampledFrom(b.Snapshot().Clusters()).Draw(t, "draining")
				c.Drained = rapid.SampledFrom([]int{0, 50, 100}).Draw(t, "drained")
				steps = []step{{member: &c}}
			}
			if rapid.IntRange(0, 5).Draw(t, "administrators") == 0 { // so does what clusters may
				steps = []step{drawPolicy(t)}
			}
			snap, changed := applySteps(t, b, steps)
			before := dump(res)
			next, delta := res.Update(snap, changed)
			if dump(res) != before {
				t.Fatal("Update changed the Result that it started from")
			}
			fresh := Resolve(local, snap)
			if got, want := dump(next), dump(fresh); got != want {
				t.Fatalf("updated and rebuilt differ (-rebuilt +updated):\n%s", cmp.Diff(want, got))
			}
			sameTrees(t, next, fresh)
			checkDelta(t, res, next, delta)
			slicesTouchBackends(t, next)
			if why := unsound(next); why != "" {
				t.Fatal(why)
			}
			secretsTouchCertificates(t, next)
			res = next
		}
	})
}

// TestScopeLifted: a route that stayed home and no longer does reaches the
// Gateways of other clusters, and leaves them again.
func TestScopeLifted(t *testing.T) {
	b := federation.NewBuilder()
	var steps []step
	for _, id := range someClusters {
		steps = append(steps, step{member: &federation.Cluster{ID: id, Health: federation.Health{Liveness: federation.Alive}}})
	}
	snap, _ := applySteps(t, b, append(steps, richWorld()...))
	res := Resolve("west", snap)
	for _, scope := range []string{cluster.ScopeCluster, "", cluster.ScopeCluster} {
		s := richWorld()[9]
		if s.change.Ref.String() != "HTTPRoute/app/a" {
			t.Fatalf("the world has changed: %s", s.change.Ref)
		}
		s.change.Object.Value.(metav1.Object).SetAnnotations(map[string]string{cluster.AnnotationScope: scope})
		snap, changed := applySteps(t, b, []step{s})
		res, _ = res.Update(snap, changed)
		if diff := cmp.Diff(dump(Resolve("west", snap)), dump(res)); diff != "" {
			t.Fatalf("scope %q: updated and rebuilt differ (-rebuilt +updated):\n%s", scope, diff)
		}
		gw, _ := res.Gateways.Get([]byte("app/a"))
		if got, want := len(gw.Listeners[0].Hosts[0].Table.Rules), 1; (scope == "") != (got == want) {
			t.Fatalf("scope %q: west's Gateway has %d rules", scope, got)
		}
	}
}

// TestOrderDoesNotMatter: the same objects in any order and any batches give the
// same Result, to the byte.
func TestOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		final := map[string]step{}
		for _, id := range someClusters {
			c := drawCluster(t, id)
			final[string(id)] = step{member: &c}
		}
		for _, s := range rapid.SliceOfN(rapid.Custom(drawStep), 10, 60).Draw(t, "steps") {
			switch {
			case s.member != nil:
				final[string(s.member.ID)] = s
			case s.refused != nil:
				final["refused "+s.refused.Ref.String()+"@"+string(s.refused.Cluster)] = s
			case s.policies != nil:
				final["policies"] = s
			case s.change.Object != nil:
				final[s.change.Ref.String()+"@"+string(s.change.Cluster)] = s
			}
		}
		keys := make([]string, 0, len(final))
		for k := range final {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		var steps []step
		for _, k := range keys {
			steps = append(steps, final[k])
		}
		snap, _ := applySteps(t, federation.NewBuilder(), steps)
		want := Resolve("west", snap)
		shuffled := rapid.Permutation(steps).Draw(t, "order")
		b := federation.NewBuilder()
		got := Resolve("west", b.Snapshot())
		for len(shuffled) > 0 {
			n := rapid.IntRange(1, len(shuffled)).Draw(t, "batch")
			snap, changed := applySteps(t, b, shuffled[:n])
			got, _ = got.Update(snap, changed)
			shuffled = shuffled[n:]
		}
		if x, y := asBytes(t, want), asBytes(t, got); string(x) != string(y) {
			t.Fatalf("order matters:\n%s", cmp.Diff(string(x), string(y)))
		}
	})
}

// TestCountsAreEnough: for whom a cluster is of another network, it makes no
// difference whether that publishes addresses or counts.
func TestCountsAreEnough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		local := rapid.SampledFrom(someClusters).Draw(t, "local")
		var steps []step
		networks := map[cluster.ID]string{}
		for _, id := range someClusters {
			c := drawCluster(t, id)
			networks[id] = c.Meta.Network
			steps = append(steps, step{member: &c})
		}
		steps = append(steps, richWorld()...)
		steps = append(steps, rapid.SliceOfN(rapid.Custom(drawStep), 10, 60).Draw(t, "steps")...)
		for _, id := range someClusters {
			for _, name := range someNames { // so that there is something to count
				ref := cluster.Ref{Kind: cluster.KindEndpointSlice, Namespace: "app", Name: name}
				steps = append(steps, step{change: &federation.Change{Cluster: id, Ref: ref, Object: &cluster.Object{Ref: ref, Cluster: id, Value: drawValue(t, ref)}}})
			}
		}
		// The clusters stay as they were drawn first.
		steps = slices.DeleteFunc(steps, func(s step) bool { return s.member != nil && s.member.Meta.Network != networks[s.member.ID] })
		with := asBytes(t, Resolve(local, snapshotOf(t, steps)))
		for i, s := range steps {
			if s.change == nil || s.change.Object == nil || s.change.Cluster == local {
				continue
			}
			slice, ok := s.change.Object.Value.(*cluster.EndpointSlice)
			if !ok || networks[s.change.Cluster] != "" && networks[s.change.Cluster] == networks[local] {
				continue
			}
			o := *s.change.Object
			o.Value = slice.Counted()
			steps[i].change = &federation.Change{Cluster: s.change.Cluster, Ref: s.change.Ref, Object: &o}
		}
		if without := asBytes(t, Resolve(local, snapshotOf(t, steps))); string(with) != string(without) {
			t.Fatalf("addresses matter (-with +without):\n%s", cmp.Diff(string(with), string(without)))
		}
	})
}

func snapshotOf(t interface{ Fatal(...any) }, steps []step) *federation.Snapshot {
	snap, _ := applySteps(t, federation.NewBuilder(), steps)
	return snap
}

func asBytes(t interface{ Fatal(...any) }, r *Result) []byte {
	var all []any
	add := func(k string, v any) { all = append(all, k, v) }
	each(r.Frontends, func(k string, v *Frontend) { add(k, v) })
	each(r.Remotes, func(k string, v *Frontend) { add(k, v) })
	each(r.Gateways, func(k string, v *Gateway) { add(k, v) })
	each(r.Imports, func(k string, v *Import) { add(k, v) })
	each(r.Backends, func(k string, v *Backend) { add(k, v) })
	each(r.Reports, func(k string, v *ObjectReport) { add(k, v) })
	out, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func sameTrees(t *rapid.T, a, b *Result) {
	compareTrees(t, "frontends", a.Frontends, b.Frontends)
	compareTrees(t, "remotes", a.Remotes, b.Remotes)
	compareTrees(t, "gateways", a.Gateways, b.Gateways)
	compareTrees(t, "imports", a.Imports, b.Imports)
	compareTrees(t, "backends", a.Backends, b.Backends)
	compareTrees(t, "reports", a.Reports, b.Reports)
	compareTrees(t, "runs", a.Runs, b.Runs)
	compareTrees(t, "travels", a.Travels, b.Travels)
	compareTrees(t, "units", a.memo.units, b.memo.units)
	compareTrees(t, "parts", a.memo.parts, b.memo.parts)
	compareTrees(t, "readers", a.memo.readers, b.memo.readers)
	compareTrees(t, "refs", a.memo.refs, b.memo.refs)
}

func compareTrees[T any](t *rapid.T, what string, a, b *iradix.Tree[T]) {
	x, y := map[string]T{}, map[string]T{}
	each(a, func(k string, v T) { x[k] = v })
	each(b, func(k string, v T) { y[k] = v })
	for k := range x {
		if _, ok := y[k]; !ok {
			t.Fatalf("%s: %q is in the updated result alone", what, k)
		}
		if !reflect.DeepEqual(x[k], y[k]) {
			t.Fatalf("%s: %q differs: updated %+v, rebuilt %+v", what, k, x[k], y[k])
		}
	}
	if len(x) != len(y) {
		t.Fatalf("%s: %d entries in the updated result, %d in the rebuilt one", what, len(x), len(y))
	}
}

// slicesTouchBackends: what reads EndpointSlices is a backend, so that a churn of
// endpoints is never more than that.
func slicesTouchBackends(t *rapid.T, r *Result) {
	prefix := federation.KeySlices("", "", "")
	each(r.memo.readers, func(k string, u unit) {
		if strings.HasPrefix(k, string(prefix[:len("slices")+1])) && u.class != unitBackend {
			t.Fatalf("%s reads EndpointSlices", u.id())
		}
	})
}

// secretsTouchCertificates: what reads Secrets is the piece of a Gateway that gives
// a certificate, and what sends it to other clusters, so that a new certificate is no reason to look at routes again;
// and ConfigMaps are read besides by policies, their verdicts and backends alone.
func secretsTouchCertificates(t *rapid.T, r *Result) {
	each(r.memo.readers, func(k string, u unit) {
		secret, config := strings.HasPrefix(k, string(cluster.KindSecret)+"\x00"), strings.HasPrefix(k, string(cluster.KindConfigMap)+"\x00")
		gateway := u.class == unitGateway && (strings.HasPrefix(u.part, "certificate ") || strings.HasPrefix(u.part, "authorities "))
		if (secret && !gateway && u.class != unitTravel) || (config && !gateway && u.class != unitVerdict && u.class != unitPolicy && u.class != unitBackend) {
			t.Fatalf("%s reads %q", u.id(), k)
		}
		if strings.HasPrefix(k, string(federation.KeyListenerSets("", "")[:len("listeners")+1])) && u.class != unitGateway {
			t.Fatalf("%s reads the ListenerSets of a Gateway", u.id())
		}
	})
}

func checkDelta(t *rapid.T, old, next *Result, d Delta) {
	deltaIs(t, "frontends", old.Frontends, next.Frontends, d.Frontends)
	deltaIs(t, "remotes", old.Remotes, next.Remotes, d.Remotes)
	deltaIs(t, "gateways", old.Gateways, next.Gateways, d.Gateways)
	deltaIs(t, "imports", old.Imports, next.Imports, d.Imports)
	deltaIs(t, "reports", old.Reports, next.Reports, d.Reports)
	deltaIs(t, "runs", old.Runs, next.Runs, d.Runs)
	deltaIs(t, "travels", old.Travels, next.Travels, d.Travels)
	both := append(slices.Clone(d.BackendConfigs), d.BackendEndpoints...)
	sort.Strings(both)
	deltaIs(t, "backends", old.Backends, next.Backends, both)
	for _, k := range d.BackendEndpoints {
		a, _ := old.Backends.Get([]byte(k))
		b, _ := next.Backends.Get([]byte(k))
		if a == nil || b == nil || !reflect.DeepEqual(a.Config, b.Config) {
			t.Fatalf("backend %s: the Delta says that endpoints alone differ", k)
		}
	}
}

func deltaIs[T any](t *rapid.T, what string, old, next *iradix.Tree[*T], got []string) {
	keys := map[string]bool{}
	each(old, func(k string, _ *T) { keys[k] = true })
	each(next, func(k string, _ *T) { keys[k] = true })
	var want []string
	for k := range keys {
		a, _ := old.Get([]byte(k))
		b, _ := next.Get([]byte(k))
		if a != b {
			want = append(want, k)
			if reflect.DeepEqual(a, b) {
				t.Fatalf("%s %s: equal to what it was, but not the same pointer", what, k)
			}
		}
	}
	sort.Strings(want)
	if !slices.Equal(want, got) {
		t.Fatalf("%s: the Delta names %q, but %q differ", what, got, want)
	}
}
