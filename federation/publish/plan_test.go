package publish

import (
	"bytes"
	"crypto/sha256"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/record/recordtest"
	"github.com/causeway-mesh/causeway/federation/store"
)

const east cluster.ID = "east"

// Whatever the history and however it was cut into writes, the store ends up
// with what a fresh start from the last state would write, and with nothing of
// what must stay at home.
func TestIncrementalEqualsFresh(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, have, known := newExports(east), map[string][]byte{}, map[string]held{}
		x.setMeta(cluster.Meta{Region: "r", Network: "n"})
		others := map[string]cluster.ID{}
		last := map[cluster.Ref]*cluster.Object{}
		for range rapid.IntRange(0, 60).Draw(t, "events") {
			o := recordtest.Draw(t, east)
			e := cluster.Event{Ref: o.Ref, Object: o}
			if rapid.IntRange(0, 3).Draw(t, "gone") == 0 {
				e.Object = nil
			}
			x.apply(e)
			put(last, e.Ref, e.Object)
			if rapid.IntRange(0, 5).Draw(t, "others") == 0 {
				others = rapid.SampledFrom([]map[string]cluster.ID{{}, {"other": "west"}, {"n": "west"}, {"n": "north"}}).Draw(t, "networks")
				x.setNetworks(others)
			}
			if rapid.Bool().Draw(t, "write") {
				write(t, x.plan(known), have, known)
			}
		}
		write(t, x.plan(known), have, known)

		fresh, want := newExports(east), map[string][]byte{}
		fresh.setMeta(cluster.Meta{Region: "r", Network: "n"})
		fresh.setNetworks(others)
		for ref, o := range last {
			fresh.apply(cluster.Event{Ref: ref, Object: o})
		}
		write(t, fresh.plan(nil), want, map[string]held{})
		if !maps.EqualFunc(have, want, bytes.Equal) {
			t.Fatalf("the store has\n%s\nwhere a fresh start writes\n%s", keys(have), keys(want))
		}
		fresh.touchAll()
		if ops := fresh.plan(known); len(ops) > 0 {
			t.Fatalf("a fresh start would rewrite %d records, %s first", len(ops), ops[0].Key)
		}
		check(t, have, last)
		for key, value := range have {
			if shared := others["n"] != ""; !shared && bytes.Contains(value, []byte{10, 0, 0, 0}) {
				t.Fatalf("%s holds an address that nobody can use", key)
			}
		}
	})
}

func keys(m map[string][]byte) string {
	return strings.Join(slices.Sorted(maps.Keys(m)), "\n")
}

func write(t *rapid.T, ops []store.Op, have map[string][]byte, known map[string]held) {
	rev := int64(1)
	for _, h := range known {
		rev = max(rev, h.mod)
	}
	for _, txn := range guarded(ops, known) {
		rev++
		if err := txn.Validate(); err != nil {
			t.Fatal(err)
		}
		for i, op := range txn.Ops {
			if txn.Guards[i] != (store.Guard{Key: op.Key, ModRevision: known[op.Key].mod}) {
				t.Fatalf("guard %+v of %s", txn.Guards[i], op.Key)
			}
			if op.Remove {
				delete(have, op.Key)
				delete(known, op.Key)
				continue
			}
			have[op.Key] = op.Value
			known[op.Key] = held{sha256.Sum256(op.Value), rev}
		}
	}
}

// check states the rules of what crosses once more, from the state alone.
func check(t *rapid.T, have map[string][]byte, last map[cluster.Ref]*cluster.Object) {
	got := map[cluster.Ref]bool{}
	for key, value := range have {
		c, err := record.Decode(store.KV{Key: key, Value: value, CreateRevision: 1, ModRevision: 1})
		if err != nil {
			t.Fatalf("others would refuse: %v", err)
		}
		for _, o := range c.Objects {
			got[o.Ref] = true
		}
		if bytes.Contains(value, []byte("stay at home")) {
			t.Fatalf("%s gives away what no policy needs", key)
		}
	}
	is := func(kind cluster.Kind, ns, name string) bool {
		return last[cluster.Ref{Kind: kind, Namespace: ns, Name: name}] != nil
	}
	for ref, o := range last {
		want := false
		exported := func(name string) bool {
			svc := last[cluster.Ref{Kind: cluster.KindService, Namespace: ref.Namespace, Name: name}]
			return svc != nil && is(cluster.KindServiceExport, ref.Namespace, name) && !external(svc)
		}
		switch ref.Kind {
		case cluster.KindService, cluster.KindServiceExport:
			want = exported(ref.Name)
		case cluster.KindEndpointSlice:
			want = exported(o.Value.(*cluster.EndpointSlice).Service)
		case cluster.KindGateway, cluster.KindListenerSet, cluster.KindReferenceGrant:
			want = true
		case cluster.KindNamespace:
			for other := range last {
				want = want || other.Namespace == ref.Name && (slices.Contains(cluster.RouteKinds, other.Kind) || other.Kind == cluster.KindGateway || other.Kind == cluster.KindListenerSet)
			}
		case cluster.KindBackendTLSPolicy:
			want = exported(string(o.Value.(*gatewayv1.BackendTLSPolicy).Spec.TargetRefs[0].Name))
		case cluster.KindConfigMap:
			for _, other := range last {
				if p, ok := other.Value.(*gatewayv1.BackendTLSPolicy); ok && other.Namespace == ref.Namespace {
					want = want || string(p.Spec.Validation.CACertificateRefs[0].Name) == ref.Name && exported(string(p.Spec.TargetRefs[0].Name)) &&
						o.Value.(*corev1.ConfigMap).Data["ca.crt"] == recordtest.CA
				}
			}
		default:
			want = slices.Contains(cluster.RouteKinds, ref.Kind)
		}
		if got[ref] != want {
			t.Fatalf("%s: published %v, want %v", ref, got[ref], want)
		}
		delete(got, ref)
	}
	for ref := range got {
		t.Fatalf("%s is published, but is gone", ref)
	}
}

func external(svc *cluster.Object) bool {
	_, err := record.EncodeService(svc, recordtest.Export(svc.Cluster, svc.Namespace, svc.Name, 1, "1"))
	return err != nil
}

// Records come into being in the order of age, policies before the Services that
// they are about, and CA certificates before the policies; a Service right after its
// slices.
func TestOrderOfCreation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := newExports(east)
		x.setMeta(cluster.Meta{})
		last := map[cluster.Ref]*cluster.Object{}
		for range rapid.IntRange(2, 60).Draw(t, "objects") {
			o := recordtest.Draw(t, east)
			x.apply(cluster.Event{Ref: o.Ref, Object: o})
			last[o.Ref] = o
		}
		var before *cluster.Object
		class := 0
		written := map[string]bool{}
		for i, op := range x.plan(nil) {
			written[op.Key] = true
			k, err := store.ParseKey(op.Key)
			if err != nil {
				t.Fatal(err)
			}
			refs, err := record.Refs(k)
			if err != nil {
				t.Fatal(err)
			}
			var ranks *cluster.Object
			c := classOf(k.Section, refs)
			if c < class {
				t.Fatalf("%s is written too late", op.Key)
			} else if c > class {
				before, class = nil, c
			}
			switch k.Section {
			case store.SectionMeta:
				if i != 0 {
					t.Fatalf("the meta is number %d", i)
				}
			case store.SectionServices:
				ranks = last[refs[1]]
				for key := range x.slices[name{k.Names[0], k.Names[1]}] {
					if slice, _ := record.SliceKey(east, k.Names[0], k.Names[1], key); !written[slice] {
						t.Fatalf("%s is written before %s", op.Key, slice)
					}
				}
			case store.SectionRoutes, store.SectionGateways, store.SectionPolicies:
				ranks = last[refs[0]]
			}
			if ranks == nil {
				continue
			}
			if before != nil && cluster.Older(ranks, before) {
				t.Fatalf("%s (%v) is written after %s (%v)", ranks.Ref, ranks.Seniority.Created, before.Ref, before.Seniority.Created)
			}
			before = ranks
		}
	})
}

func classOf(s store.Section, refs []cluster.Ref) int {
	switch {
	case s == store.SectionMeta:
		return 0
	case s == store.SectionNamespaces:
		return 1
	case s == store.SectionPolicies && refs[0].Kind == cluster.KindConfigMap:
		return 2
	case s == store.SectionPolicies:
		return 3
	case s == store.SectionGrants:
		return 4
	}
	return 5
}

func TestLedger(t *testing.T) {
	l := &ledger{known: map[string]held{}, gone: map[string]int64{}}
	put := func(key string, rev int64, value string) store.Event {
		return store.Event{KV: store.KV{Key: key, Value: []byte(value), ModRevision: rev}}
	}
	gone := func(key string, rev int64) store.Event {
		return store.Event{KV: store.KV{Key: key, ModRevision: rev}, Deleted: true}
	}
	l.wrote(store.Put("a", []byte("1")), 5)
	l.wrote(store.Delete("a"), 6)
	l.wrote(store.Put("b", []byte("1")), 7)
	l.wrote(store.Delete("c"), 8)
	l.wrote(store.Put("c", []byte("2")), 9)
	for _, c := range []struct {
		e    store.Event
		news bool
	}{
		{put("a", 5, "1"), false}, {gone("a", 6), false}, {put("b", 7, "1"), false}, {gone("c", 8), false}, {put("c", 9, "2"), false}, // own, late
		{put("a", 10, "x"), true}, {gone("b", 11), true}, {gone("b", 12), false}, {put("c", 13, "x"), true}, {put("d", 14, "x"), true},
	} {
		if got := l.saw(c.e); got != c.news {
			t.Errorf("%+v is news: %v", c.e, got)
		}
	}
	if want := []string{"a", "c", "d"}; !slices.Equal(slices.Sorted(maps.Keys(l.known)), want) {
		t.Errorf("knows %v", l.known)
	}
}
