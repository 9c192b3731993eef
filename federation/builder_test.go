package federation

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/record/recordtest"
)

// marshal gives text that is equal for equal values; slices of endpoints hold
// addresses, which JSON renders.
func marshal(v any) ([]byte, error) { return json.Marshal(v) }

// A Snapshot that was handed out never changes, whatever is built on it.
func TestSnapshotIsImmutable(t *testing.T) {
	b := NewBuilder()
	var kept []*Snapshot
	var text []string
	for i := range 50 {
		e := b.Edit()
		id := []cluster.ID{"east", "west", "north"}[i%3]
		e.SetCluster(Cluster{ID: id, Meta: cluster.Meta{Region: string(rune('a' + i%5))}})
		o := recordtest.Route(id, "app", "r", i, "a", "b", "/")
		if i%7 == 6 {
			o = nil
		}
		if err := e.Apply(Change{Cluster: id, Ref: cluster.Ref{Kind: cluster.KindHTTPRoute, Namespace: "app", Name: "r"}, Object: o}); err != nil {
			t.Fatal(err)
		}
		e.SetRevision(int64(i))
		if i%11 == 10 {
			e.RemoveCluster(id)
		}
		s, _ := e.Commit()
		kept, text = append(kept, s), append(text, describe(s))
	}
	for i, s := range kept {
		if describe(s) != text[i] {
			t.Fatalf("snapshot %d has changed since it was made", i)
		}
	}
}

func TestApplyRefuses(t *testing.T) {
	e := NewBuilder().Edit()
	route := recordtest.Route("east", "app", "r", 1, "a", "b", "/")
	wrong := *route
	wrong.Value = &gatewayv1.Gateway{}
	odd := recordtest.Route("east", "app", "r\x00", 1, "a", "b", "/")
	slice := recordtest.Slice("east", "app", "a\x00b", "s", 1, 1)
	for name, c := range map[string]Change{
		"name of another":    {"east", cluster.Ref{Kind: cluster.KindHTTPRoute, Namespace: "app", Name: "q"}, route},
		"cluster of another": {"west", route.Ref, route},
		"no cluster":         {"", route.Ref, route},
		"value of no kind":   {"east", route.Ref, &wrong},
		"separator in name":  {"east", odd.Ref, odd},
		"separator in slice": {"east", slice.Ref, slice},
	} {
		if err := e.Apply(c); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
	if e.Changed() {
		t.Error("what was refused changed something")
	}
	parent := recordtest.Route("east", "app", "r", 1, "a\x00b", "b", "/")
	if err := e.Apply(Change{"east", parent.Ref, parent}); err != nil {
		t.Fatal(err)
	}
	s, _ := e.Commit()
	if len(s.RoutesOf(cluster.KindServiceImport, "app", "a")) != 0 {
		t.Error("a parentRef with a separator names another parent")
	}
}

// What is equal, delivered again as a copy, is no change.
func TestEqualIsNoChange(t *testing.T) {
	b := NewBuilder()
	make := func() []*cluster.Object {
		return []*cluster.Object{
			recordtest.Route("east", "app", "r", 1, "a", "b", "/"), recordtest.Slice("east", "app", "a", "s", 1, 5),
			recordtest.Service("east", "app", "a", 1, 80), recordtest.Grant("east", "app", "g", 1, "x"),
		}
	}
	for round := range 2 {
		e := b.Edit()
		for _, o := range make() {
			if err := e.Apply(Change{o.Cluster, o.Ref, o}); err != nil {
				t.Fatal(err)
			}
		}
		e.SetTrust(map[string][][]byte{"td": {{1}}})
		e.SetCluster(Cluster{ID: "east", Meta: cluster.Meta{Crossing: []string{"a:1"}}})
		if e.Changed() != (round == 0) {
			t.Errorf("round %d: changed %v", round, e.Changed())
		}
		e.Commit()
	}
}

// refs lists what an object names, as "what kind/namespace/name" in the order of
// its text: read from its JSON, without the code that is tested.
func refs(t *rapid.T, o *cluster.Object) (out []string) {
	text, err := marshal(o.Value)
	if err != nil {
		t.Fatal(err)
	}
	type ref struct{ Group, Kind, Namespace, Name *string }
	var v struct {
		Spec struct {
			ParentRefs, TargetRefs []ref
			ParentRef              *ref
		}
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	name := func(what string, r ref) {
		group, kind, ns := "gateway.networking.k8s.io", "Gateway", o.Namespace
		for to, from := range map[*string]*string{&group: r.Group, &kind: r.Kind, &ns: r.Namespace} {
			if from != nil {
				*to = *from
			}
		}
		switch group + "/" + kind {
		case "gateway.networking.k8s.io/Gateway", "gateway.networking.k8s.io/ListenerSet", "/Service", "multicluster.x-k8s.io/ServiceImport":
			out = append(out, what+" "+kind+"/"+ns+"/"+*r.Name)
		}
	}
	for _, r := range v.Spec.ParentRefs {
		name("parent", r)
	}
	if v.Spec.ParentRef != nil {
		name("listeners", *v.Spec.ParentRef)
	}
	for _, r := range v.Spec.TargetRefs {
		name("policies", r)
	}
	return out
}

// Whatever came and went, each parent finds its routes, each Gateway its
// ListenerSets and each Service its policies: all of them and nothing else, and
// the ChangeSet names the sets that differ.
func TestIndexes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := NewBuilder()
		held := map[string][]string{}
		for range rapid.IntRange(1, 15).Draw(t, "edits") {
			e := b.Edit()
			for range rapid.IntRange(1, 5).Draw(t, "changes") {
				id := rapid.SampledFrom([]cluster.ID{"east", "west"}).Draw(t, "cluster")
				o := recordtest.Draw(t, id)
				c := Change{id, o.Ref, o}
				if rapid.IntRange(0, 3).Draw(t, "gone") == 0 {
					c.Object = nil
				}
				if err := e.Apply(c); err != nil {
					t.Fatal(err)
				}
			}
			s, changed := e.Commit()
			want := map[string][]string{}
			for _, kind := range cluster.Kinds {
				for _, o := range s.OfKind(kind) {
					for _, r := range refs(t, o) {
						want[r] = append(want[r], o.String()+"@"+string(o.Cluster))
					}
				}
			}
			got := map[string][]string{}
			keys := map[string]Key{}
			for _, ns := range []string{"app", "dev"} {
				for _, name := range []string{"a", "b", "c"} {
					list := func(what string, k Key, objects []*cluster.Object) {
						keys[what] = k
						for _, o := range objects {
							got[what] = append(got[what], o.String()+"@"+string(o.Cluster))
						}
						if !slices.IsSorted(got[what]) {
							t.Fatalf("%s in no order: %v", what, got[what])
						}
					}
					for _, kind := range []cluster.Kind{cluster.KindGateway, cluster.KindListenerSet, cluster.KindService, cluster.KindServiceImport} {
						at := string(kind) + "/" + ns + "/" + name
						list("parent "+at, KeyParent(kind, ns, name), s.RoutesOf(kind, ns, name))
						list("policies "+at, KeyPolicies(kind, ns, name), s.PoliciesOf(kind, ns, name))
					}
					list("listeners Gateway/"+ns+"/"+name, KeyListenerSets(ns, name), s.ListenerSetsOf(ns, name))
				}
			}
			for what := range keys {
				slices.Sort(want[what])
				if !slices.Equal(got[what], want[what]) {
					t.Fatalf("%s: found %v, want %v", what, got[what], want[what])
				}
				if !slices.Equal(held[what], want[what]) && !changed.Has(keys[what]) {
					t.Fatalf("%s has changed from %v to %v unsaid", what, held[what], want[what])
				}
				delete(want, what)
			}
			for _, what := range slices.Sorted(maps.Keys(want)) {
				t.Fatalf("%s is no set that was asked for", strings.Join(want[what], ", "))
			}
			held = got
		}
	})
}

func TestParentKind(t *testing.T) {
	for _, c := range []struct {
		group, kind *string
		want        cluster.Kind
	}{
		{nil, nil, cluster.KindGateway},
		{nil, text("Gateway"), cluster.KindGateway},
		{nil, text("ListenerSet"), cluster.KindListenerSet},
		{text("gateway.networking.k8s.io"), text("ListenerSet"), cluster.KindListenerSet},
		{text("gateway.networking.x-k8s.io"), text("XListenerSet"), ""},
		{text(""), text("ListenerSet"), ""},
		{text(""), text("Service"), cluster.KindService},
		{nil, text("Service"), ""},
		{text(""), nil, ""},
		{text("multicluster.x-k8s.io"), text("ServiceImport"), cluster.KindServiceImport},
		{nil, text("HTTPRoute"), ""},
	} {
		if got := ParentKind(gatewayv1.ParentReference{Group: (*gatewayv1.Group)(c.group), Kind: (*gatewayv1.Kind)(c.kind), Name: "a"}); got != c.want {
			t.Errorf("a parent of group %v, kind %v is taken for %q, not %q", deref(c.group), deref(c.kind), got, c.want)
		}
	}
}

func text(s string) *string { return &s }

func deref(s *string) string {
	if s == nil {
		return "none"
	}
	return *s
}
