package federation

import (
	"encoding/json"
	"testing"

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
