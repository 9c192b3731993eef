package federation

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/policy"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/record/recordtest"
	"github.com/causeway-mesh/causeway/federation/store"
)

// world is a store and a source as a random history leaves them.
type world struct {
	*rapid.T
	local    cluster.ID
	der      []byte
	revision int64
	kvs      map[string]store.KV
	objects  map[cluster.Ref]*cluster.Object // the local source's
	meta     cluster.Meta
	now      time.Time
}

func (w *world) listing() *listing {
	out := &listing{revision: w.revision}
	for _, key := range slices.Sorted(maps.Keys(w.kvs)) {
		out.records = append(out.records, w.kvs[key])
	}
	return out
}

// policy draws the record of a policy, mostly with a quota.
func (w *world) policy() record.Record {
	p := policy.Policy{Name: rapid.SampledFrom([]string{"p", "q"}).Draw(w.T, "policy"),
		Clusters: rapid.SampledFrom([]*policy.Clusters{nil, {Names: []string{"*st"}}, {Selector: "region=r"}}).Draw(w.T, "clusters"),
		Export:   rapid.SampledFrom([]*policy.Namespaces{nil, {Allow: []string{}}, {Deny: []string{"app"}}}).Draw(w.T, "export"),
		Route:    rapid.SampledFrom([]*policy.Namespaces{nil, {Allow: []string{"dev"}}}).Draw(w.T, "route"), Quota: &policy.Quota{}}
	n := rapid.Int64Range(0, 4).Draw(w.T, "most")
	if size := n * 300; rapid.Bool().Draw(w.T, "bytes") {
		p.Quota.Bytes = &size
	} else {
		p.Quota.Objects = &n
	}
	r, err := record.EncodePolicy(&p)
	if err != nil {
		w.Fatal(err)
	}
	return r
}

// record draws a record of some cluster, sound or not.
func (w *world) record() record.Record {
	id := rapid.SampledFrom([]cluster.ID{"east", "west", "north"}).Draw(w.T, "cluster")
	if rapid.IntRange(0, 9).Draw(w.T, "garbage") == 0 {
		tail := rapid.SampledFrom([]string{"services/app/a", "routes/httproute/app/a", "routes/new/app/a", "meta/cluster", "meta/other", "trust/west.x", "strange/a", "endpoints/app/a/a-slice"}).Draw(w.T, "key")
		return record.Record{Key: store.ClustersPrefix + string(id) + "/" + tail, Value: []byte{0xff}}
	}
	if rapid.IntRange(0, 9).Draw(w.T, "policy") == 0 {
		if rapid.IntRange(0, 2).Draw(w.T, "garbage") == 0 {
			tail := rapid.SampledFrom([]string{"drain/west", "drain/no.label", "drain", "strange", "rules/p", "rules/no.label"}).Draw(w.T, "key")
			return record.Record{Key: store.PolicyPrefix + tail, Value: []byte{0xff}}
		}
		if rapid.Bool().Draw(w.T, "rules") {
			return w.policy()
		}
		r, err := record.EncodeDrain(id, record.Drain{From: 0, Target: rapid.SampledFrom([]int{0, 50, 100}).Draw(w.T, "target"),
			Started: recordtest.At(rapid.IntRange(0, 60).Draw(w.T, "started")), Over: time.Minute})
		if err != nil {
			w.Fatal(err)
		}
		return r
	}
	var r record.Record
	var err error
	switch rapid.IntRange(0, 8).Draw(w.T, "what") {
	case 0:
		r, err = record.EncodeMeta(id, cluster.Meta{Region: rapid.SampledFrom([]string{"r", "s"}).Draw(w.T, "region"), TrustDomain: rapid.SampledFrom([]string{"west.x", "north.x", ""}).Draw(w.T, "domain")})
	case 1:
		r, err = record.EncodeTrust(id, record.Trust{TrustDomain: rapid.SampledFrom([]string{"west.x", "north.x"}).Draw(w.T, "domain"), Authorities: [][]byte{w.der}, Sealing: rapid.SampledFrom([][]byte{nil, make([]byte, 32)}).Draw(w.T, "sealing")})
	case 2:
		r, err = record.EncodeAlive(id, rapid.SampledFrom([]string{"agent-0", "agent-1"}).Draw(w.T, "agent"))
	case 3: // slices that move between Services
		r, err = record.EncodeSlice(recordtest.Slice(id, "app", rapid.SampledFrom([]string{"a", "b"}).Draw(w.T, "service"), "a-slice", 1, 1))
	case 4: // which no source delivers
		r, err = record.EncodeObject(&cluster.Object{Cluster: id, Ref: cluster.Ref{Kind: cluster.KindGatewayRun, Namespace: "app", Name: "a"},
			Value: &cluster.GatewayRun{Home: "west", Generation: rapid.Int64Range(1, 3).Draw(w.T, "generation")}})
	default:
		o := recordtest.Draw(w.T, id)
		switch o.Kind {
		case cluster.KindSecret, cluster.KindGatewayClass:
			o = recordtest.Route(id, "app", "b", 1, "a", "c", "/")
			r, err = record.EncodeObject(o)
		case cluster.KindService, cluster.KindServiceExport:
			r, err = record.EncodeService(recordtest.Service(id, o.Namespace, o.Name, 1, 80), recordtest.Export(id, o.Namespace, o.Name, 2, fmt.Sprint(w.revision)))
		case cluster.KindEndpointSlice:
			r, err = record.EncodeSlice(o)
		case cluster.KindConfigMap:
			r, err = record.EncodeObject(recordtest.ConfigMap(id, o.Namespace, o.Name, 1, recordtest.CA+fmt.Sprint(w.revision)))
		default:
			r, err = record.EncodeObject(o)
		}
	}
	if err != nil {
		w.Fatal(err)
	}
	return r
}

// step changes the store at one revision.
func (w *world) step() (events []store.Event) {
	w.revision++
	for range rapid.IntRange(1, 3).Draw(w.T, "ops") {
		r := w.record()
		old, exists := w.kvs[r.Key]
		if rapid.IntRange(0, 2).Draw(w.T, "delete") == 0 {
			if exists && old.ModRevision < w.revision {
				delete(w.kvs, r.Key)
				events = append(events, store.Event{KV: store.KV{Key: r.Key, ModRevision: w.revision}, Deleted: true})
			}
			continue
		}
		if old.ModRevision == w.revision {
			continue
		}
		kv := store.KV{Key: r.Key, Value: r.Value, CreateRevision: w.revision, ModRevision: w.revision, Leased: strings.Contains(r.Key, "/alive/")}
		if exists {
			kv.CreateRevision = old.CreateRevision
		}
		w.kvs[r.Key] = kv
		events = append(events, store.Event{KV: kv})
	}
	return events
}

// However a history was cut into inputs, batches or new listings, the Snapshot,
// the problems and the leases are those of a fresh start from its end; and each
// ChangeSet names every set that differs.
func TestMergeEqualsFresh(t *testing.T) {
	der := recordtest.Authority(t)
	rapid.Check(t, func(t *rapid.T) {
		w := &world{T: t, der: der, revision: 1, kvs: map[string]store.KV{}, objects: map[cluster.Ref]*cluster.Object{}, now: recordtest.At(0),
			local: rapid.SampledFrom([]cluster.ID{"", "east"}).Draw(t, "local")}
		m, box := newMerger(w.local), newInbox()
		var disk bytes.Buffer
		if _, err := record.WriteCopy(&disk, record.CopyChange{Revision: 1, Put: func(func(store.KV) bool) {}}); err != nil {
			t.Fatal(err)
		}
		save := func(out merged) {
			if out.records == nil {
				return
			}
			if _, err := record.AppendCopy(&disk, out.records.change(out.records.changed)); err != nil {
				t.Fatal(err)
			}
		}
		box.putList(nil, 1)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch n := rapid.IntRange(0, 9).Draw(t, "step"); {
			case n < 5:
				events := w.step()
				box.putBatch(store.Batch{Revision: w.revision, Events: events})
			case n == 5: // the watch missed some
				w.step()
				w.step()
				l := w.listing()
				box.putList(l.records, l.revision)
			case n == 6 && w.local != "":
				w.meta = cluster.Meta{TrustDomain: rapid.SampledFrom([]string{"west.x", "east.x"}).Draw(t, "domain")}
				meta := w.meta
				box.put(func(in *input) { in.meta = &meta })
			case w.local != "":
				o := recordtest.Draw(t, w.local)
				ref := o.Ref
				if rapid.IntRange(0, 3).Draw(t, "gone") == 0 {
					o = nil
				}
				w.objects[ref] = o
				box.put(func(in *input) { in.local[ref] = o })
			}
			if rapid.Bool().Draw(t, "merge") {
				before := m.builder.Snapshot()
				w.now = w.now.Add(time.Duration(rapid.IntRange(0, 30).Draw(t, "later")) * time.Second)
				in := box.take()
				in.now = w.now
				out := m.merge(in)
				checkChanges(t, before, m.builder.Snapshot(), out)
				save(out)
			}
		}
		in := box.take()
		in.now = w.now
		last := m.merge(in)
		save(last)
		step := last.step

		fresh := newMerger(w.local)
		in = newInput(0)
		in.now, in.list, in.revision, in.local, in.meta = w.now, w.listing(), w.revision, w.objects, &w.meta
		if out := fresh.merge(in); !out.step.Equal(step) {
			t.Fatalf("the next step is at %s, fresh at %s", step, out.step)
		}
		if got, want := describe(m.builder.Snapshot()), describe(fresh.builder.Snapshot()); got != want {
			t.Fatalf("the history leads to\n%s\na fresh start to\n%s", got, want)
		}
		if !reflect.DeepEqual(m.leases(), fresh.leases()) {
			t.Fatalf("leases %v, fresh %v", m.leases(), fresh.leases())
		}
		m.problems.stale, fresh.problems.stale = true, true
		got, _ := m.problems.settle()
		want, _ := fresh.problems.settle()
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("problems %+v\nfresh    %+v", got, want)
		}
		_, copied, cut, err := record.ReadCopy(&disk, 1<<20)
		slices.SortFunc(copied, func(a, b store.KV) int { return strings.Compare(a.Key, b.Key) })
		if want := w.listing().records; err != nil || cut != nil || !slices.EqualFunc(copied, want, func(a, b store.KV) bool { return reflect.DeepEqual(a, b) }) {
			t.Fatalf("the copy has %d records of %d, or others: %v, %v", len(copied), len(want), cut, err)
		}
		if m.records.Len() != len(w.kvs) {
			t.Fatalf("%d records are kept of %d", m.records.Len(), len(w.kvs))
		}
		checkRules(t, w, m.builder.Snapshot())
	})
}

// A trust domain belongs to one cluster that claims it: the local one, else the
// one that had it first; and only if its Meta says so.
func TestTrust(t *testing.T) {
	a, b, c := recordtest.Authority(t), recordtest.Authority(t), recordtest.Authority(t)
	kv := func(rev int64, r record.Record, err error) store.KV {
		if err != nil {
			t.Fatal(err)
		}
		return store.KV{Key: r.Key, Value: r.Value, CreateRevision: rev, ModRevision: rev}
	}
	meta := func(rev int64, id cluster.ID, td string) store.KV {
		r, err := record.EncodeMeta(id, cluster.Meta{TrustDomain: td})
		return kv(rev, r, err)
	}
	trust := func(rev int64, id cluster.ID, td string, der []byte) store.KV {
		r, err := record.EncodeTrust(id, record.Trust{TrustDomain: td, Authorities: [][]byte{der}})
		return kv(rev, r, err)
	}
	m := newMerger("east")
	in := newInput(0)
	in.meta, in.trust = &cluster.Meta{TrustDomain: "east.x"}, &record.Trust{TrustDomain: "east.x", Authorities: [][]byte{a}}
	in.list = &listing{revision: 20, records: []store.KV{
		meta(1, "evil", "east.x"), trust(2, "evil", "east.x", b), // claims the local cluster's
		meta(10, "west", "west.x"), trust(11, "west", "west.x", b),
		meta(3, "thief", "west.x"), trust(12, "thief", "west.x", c), // came later with its bundle
		meta(4, "north", "north.x"), trust(5, "north", "other.x", c), // not what its Meta says
		trust(6, "nobody", "nobody.x", c), // no part of the clusterset
	}}
	out := m.merge(in)
	want := map[string][][]byte{"east.x": {a}, "west.x": {b}}
	if got := out.snapshot.Trust(); !reflect.DeepEqual(got, want) {
		t.Errorf("trusts %v", slices.Sorted(maps.Keys(got)))
	}
	var who []cluster.ID
	for _, p := range out.problems {
		who = append(who, p.Cluster)
	}
	if !slices.Equal(who, []cluster.ID{"evil", "north", "thief"}) {
		t.Errorf("problems %+v", out.problems)
	}

	in = newInput(0)
	in.events["x"] = store.Event{KV: meta(21, "thief", "thief.x")}
	in.events = map[string]store.Event{in.events["x"].Key: in.events["x"]}
	out = m.merge(in)
	if out.changes.Has(KeyTrust) {
		t.Error("trust is told to have changed")
	}
	if i := slices.IndexFunc(out.problems, func(p cluster.Problem) bool { return p.Cluster == "thief" }); i < 0 || !strings.Contains(out.problems[i].Message, "thief.x") {
		t.Errorf("problems %+v", out.problems)
	}
}

// Another cluster's health is what it was set to, else what its lease says; the
// local one's is never in doubt. A reason that changes reaches readers, but
// makes no one resolve anew.
func TestHealth(t *testing.T) {
	m := newMerger("east")
	in := newInput(0)
	r, _ := record.EncodeMeta("west", cluster.Meta{})
	in.list = &listing{revision: 5, records: []store.KV{{Key: r.Key, Value: r.Value, CreateRevision: 2, ModRevision: 2}}}
	m.merge(in)
	alive, _ := record.EncodeAlive("west", "agent-0")
	live := func(in input) (merged, Liveness) {
		out := m.merge(in)
		c, _ := m.builder.Snapshot().Cluster("west")
		return out, c.Health.Liveness
	}
	event := func(ev store.Event) (in input) {
		in = newInput(0)
		in.events[ev.Key] = ev
		return in
	}
	set := func(l Liveness, reason string) (in input) {
		in = newInput(0)
		in.health, in.healthSet = map[cluster.ID]Health{"west": {l, reason}, "east": {Dead, "says who"}}, true
		return in
	}
	leased := store.KV{Key: alive.Key, Value: alive.Value, CreateRevision: 6, ModRevision: 6, Leased: true}
	forever := leased
	forever.Leased = false
	for i, c := range []struct {
		in     input
		want   Liveness
		change bool
	}{
		{newInput(0), Suspect, false},
		{event(store.Event{KV: forever}), Suspect, false},
		{event(store.Event{KV: leased}), Alive, true},
		{set(Dead, "a"), Dead, true},
		{set(Dead, "b"), Dead, false},
		{event(store.Event{KV: store.KV{Key: alive.Key, ModRevision: 7}, Deleted: true}), Dead, false},
		{set(Alive, "c"), Alive, true},
	} {
		out, got := live(c.in)
		if got != c.want || out.changes.Has(KeyClusters) != c.change {
			t.Errorf("step %d: %s, change %v", i, got, out.changes.Has(KeyClusters))
		}
		if c, _ := m.builder.Snapshot().Cluster("east"); c.Health.Liveness != Alive {
			t.Errorf("step %d: the local cluster is %s", i, c.Health.Liveness)
		}
	}
	if c, _ := m.builder.Snapshot().Cluster("west"); c.Health.Reason != "c" {
		t.Errorf("reason %q", c.Health.Reason)
	}
}

// One cluster's thousand mistakes don't bury another's.
func TestProblemsAreBounded(t *testing.T) {
	m := newMerger("")
	in := newInput(0)
	in.list = &listing{revision: 5000}
	for i := range 1000 {
		in.list.records = append(in.list.records, store.KV{Key: fmt.Sprintf("%swest/services/%d", store.ClustersPrefix, i), Value: []byte{1}, CreateRevision: 2, ModRevision: 2})
	}
	in.list.records = append(in.list.records, store.KV{Key: store.ClustersPrefix + "north/meta/x", Value: []byte{1}, CreateRevision: 2, ModRevision: 2})
	slices.SortFunc(in.list.records, func(a, b store.KV) int { return cmp.Compare(a.Key, b.Key) })
	out := m.merge(in)
	if len(out.problems) != maxProblems+2 || out.problems[0].Cluster != "north" {
		t.Errorf("%d problems, first %+v", len(out.problems), out.problems[0])
	}
	if p := out.problems[len(out.problems)-1]; p.Message != fmt.Sprintf("and %d more problems", 1000-maxProblems) {
		t.Errorf("last problem %+v", p)
	}
}

// Of records that came at once, a Service comes before its EndpointSlices, and both
// before what is named later.
func TestSubjects(t *testing.T) {
	var got []string
	for _, tail := range []string{"services/app/a", "endpoints/app/a/z", "endpoints/app/a/a", "services/app/b", "endpoints/app/b/a", "routes/httproute/app/c", "namespaces/dev", "grants/dev/a", "strange"} {
		got = append(got, subjectOf(store.ClustersPrefix+"west/"+tail))
	}
	want := []string{got[0], got[2], got[1], got[3], got[4], got[5], got[6], got[7], got[8]}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Fatalf("%q", got)
	}
}
