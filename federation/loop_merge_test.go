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

// sets lists what each Key stands for, as text.
func sets(s *Snapshot) map[Key]string {
	out := map[Key]string{}
	add := func(k Key, o *cluster.Object) {
		out[k] += fmt.Sprintf("%s@%s %v %p\n", o.Ref, o.Cluster, o.Seniority, o.Value)
	}
	for _, kind := range cluster.Kinds {
		for _, o := range s.OfKind(kind) {
			if sl, ok := o.Value.(*cluster.EndpointSlice); ok {
				add(KeySlices(o.Namespace, sl.Service, o.Cluster), o)
				continue
			}
			add(KeyNamed(kind, o.Namespace, o.Name), o)
			if slices.Contains(PermittedKinds, kind) {
				out[KeyNamed(kind, o.Namespace, o.Name)] += s.Refused(o) + "\n"
			}
			add(KeyNamespace(kind, o.Namespace), o)
			for _, k := range targetKeys(o) {
				add(k, o)
			}
		}
	}
	for _, c := range s.Clusters() {
		out[KeyClusters] += fmt.Sprintf("%s %+v %s\n", c.ID, c.Meta, c.Health.Liveness)
		if c.Drained != 0 {
			out[KeyDrained(c.ID)] = fmt.Sprint(c.Drained)
		}
	}
	for _, td := range slices.Sorted(maps.Keys(s.Trust())) {
		out[KeyTrust] += fmt.Sprintf("%s %x\n", td, s.Trust()[td])
	}
	return out
}

func checkChanges(t *rapid.T, before, after *Snapshot, out merged) {
	a, b := sets(before), sets(after)
	for k := range b {
		if a[k] != b[k] && !out.changes.Has(k) {
			t.Fatalf("%q differs, and the ChangeSet doesn't say so:\n%s\n%s", k, a[k], b[k])
		}
	}
	for k := range a {
		if _, ok := b[k]; !ok && !out.changes.Has(k) {
			t.Fatalf("%q is gone, and the ChangeSet doesn't say so", k)
		}
	}
	if (before != after) != (out.snapshot != nil) {
		t.Fatal("a new Snapshot that wasn't told, or the other way round")
	}
}

// describe puts all of a Snapshot into text, through its indexes too.
func describe(s *Snapshot) string {
	var b strings.Builder
	fmt.Fprintf(&b, "revision %d\n", s.Revision)
	for _, c := range s.Clusters() {
		fmt.Fprintf(&b, "%+v\n", c)
	}
	for _, td := range slices.Sorted(maps.Keys(s.Trust())) {
		fmt.Fprintf(&b, "%s %d\n", td, len(s.Trust()[td]))
	}
	s.refusals.Root().Walk(func(k []byte, r Refusal) bool {
		fmt.Fprintf(&b, "%q: %+v\n", k, r)
		return false
	})
	one := func(title string, list []*cluster.Object) {
		for _, o := range list {
			value, err := marshal(o.Value)
			fmt.Fprintf(&b, "%s: %s@%s %d %v %s %s %v\n", title, o.Ref, o.Cluster, o.Seniority.Revision, o.Seniority.Created, o.Origin, value, err)
			if slices.Contains(PermittedKinds, o.Kind) {
				fmt.Fprintln(&b, s.Refused(o))
			}
		}
	}
	for _, kind := range cluster.Kinds {
		one("all", s.OfKind(kind))
	}
	for _, ns := range []string{"app", "dev"} {
		for _, name := range []string{"a", "b", "c"} {
			for _, kind := range []cluster.Kind{cluster.KindGateway, cluster.KindListenerSet, cluster.KindService, cluster.KindServiceImport} {
				one("routes of "+string(kind)+" "+name, s.RoutesOf(kind, ns, name))
			}
			one("listeners of "+name, s.ListenerSetsOf(ns, name))
			one("policies of "+name, s.PoliciesOf(cluster.KindService, ns, name))
			one("named "+name, s.Named(cluster.KindServiceExport, ns, name))
			for _, id := range []cluster.ID{"east", "west", "north"} {
				one("slices of "+name, s.SlicesOf(id, ns, name))
			}
		}
		one("in "+ns, s.InNamespace(cluster.KindHTTPRoute, ns))
	}
	return b.String()
}

// checkRules states, from the end of the history alone, what must hold.
func checkRules(t *rapid.T, w *world, s *Snapshot) {
	if s.Revision != w.revision {
		t.Fatalf("snapshot of revision %d, the store has %d", s.Revision, w.revision)
	}
	is := map[cluster.ID]bool{w.local: w.local != ""}
	for key, kv := range w.kvs {
		if strings.HasSuffix(key, "/meta/cluster") {
			k, _ := store.ParseKey(kv.Key)
			is[cluster.ID(k.Cluster)] = true
		}
	}
	for _, c := range s.Clusters() {
		if !is[c.ID] {
			t.Fatalf("cluster %q is shown without a Meta", c.ID)
		}
		delete(is, c.ID)
	}
	delete(is, "")
	if len(is) > 0 {
		t.Fatalf("clusters %v are not shown", is)
	}
	n := 0
	for _, kind := range cluster.Kinds {
		for _, o := range s.OfKind(kind) {
			if o.Cluster == w.local {
				n++
				src := w.objects[o.Ref]
				if src == nil || !reflect.DeepEqual(src.Value, o.Value) || src.Origin != o.Origin {
					t.Fatalf("%s of the local cluster is not its source's", o.Ref)
				}
				var want int64
				if key, err := record.ObjectKey(o); err == nil && o.Kind != cluster.KindEndpointSlice {
					want = w.kvs[key].CreateRevision
				}
				if o.Seniority.Revision != want {
					t.Fatalf("%s has rank %d, its record %d", o.Ref, o.Seniority.Revision, want)
				}
				continue
			}
			key, err := record.ObjectKey(o)
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := w.kvs[key]; !ok {
				t.Fatalf("%s of %q has no record", o.Ref, o.Cluster)
			}
		}
	}
	fitting := fitting(t, w, s)
	for key, kv := range w.kvs { // what doesn't fit is said of every object that it holds
		k, err := store.ParseKey(key)
		if _, shown := s.Cluster(cluster.ID(k.Cluster)); err != nil || !shown || k.Section == store.SectionEndpoints {
			continue
		}
		refs, _ := record.Refs(k)
		for _, ref := range refs {
			if said := slices.ContainsFunc(s.Refusals(ref.Kind, ref.Namespace, ref.Name), func(r Refusal) bool { return r.Cluster == cluster.ID(k.Cluster) }); said == fitting[kv.Key] {
				t.Fatalf("%s: fits %t, refused %t", key, fitting[key], said)
			}
		}
	}
	newest := map[string]store.KV{} // by cluster and slice
	for key, kv := range w.kvs {
		if !fitting[key] {
			continue
		}
		if k, err := store.ParseKey(kv.Key); err == nil && k.Section == store.SectionEndpoints && len(k.Names) == 3 {
			slice := k.Cluster + "/" + k.Names[0] + "/" + k.Names[2]
			if old := newest[slice]; old.CreateRevision < kv.CreateRevision || old.CreateRevision == kv.CreateRevision && old.Key < kv.Key {
				newest[slice] = kv
			}
		}
	}
	for _, kv := range w.kvs {
		c, err := record.Decode(kv)
		_, shown := s.Cluster(c.Cluster)
		if err != nil || !shown {
			continue
		}
		if c.Cluster == w.local {
			for _, o := range c.Objects {
				if got, _ := s.Get(o.Cluster, o.Kind, o.Namespace, o.Name); o.Kind == cluster.KindGatewayRun && !reflect.DeepEqual(got, o) {
					t.Fatalf("the cluster runs a Gateway as %+v, the snapshot has %+v", o, got)
				}
			}
			continue
		}
		for _, o := range c.Objects {
			if !fitting[kv.Key] {
				if o.Kind == cluster.KindEndpointSlice {
					continue // another key may claim it
				}
				if _, ok := s.Get(o.Cluster, o.Kind, o.Namespace, o.Name); ok {
					t.Fatalf("%s is over quota, and in the snapshot", kv.Key)
				}
				continue
			}
			got, ok := s.Get(o.Cluster, o.Kind, o.Namespace, o.Name)
			if o.Kind == cluster.KindEndpointSlice && newest[string(o.Cluster)+"/"+o.Namespace+"/"+o.Name].Key != kv.Key {
				continue
			}
			if !ok || !reflect.DeepEqual(got, o) {
				t.Fatalf("%s is published by %q, the snapshot has %+v", o.Ref, o.Cluster, got)
			}
		}
	}
	for _, o := range w.objects {
		if o != nil {
			n--
		}
	}
	if n != 0 {
		t.Fatalf("%d local objects too many", n)
	}
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

// fitting lists the records that are within their cluster's quota: each that fits
// beside those of the older ones that do.
func fitting(t *rapid.T, w *world, s *Snapshot) map[string]bool {
	var policies []policy.Policy
	for _, kv := range w.kvs {
		if p, err := record.DecodePolicy(kv); err == nil && p.Rules != nil {
			policies = append(policies, *p.Rules)
		}
	}
	set, err := policy.Compile(policies)
	if err != nil {
		t.Fatal(err)
	}
	last := func(kv store.KV) int { // how others' Gateways are run takes nothing away
		return strings.Count(kv.Key, "/"+string(store.SectionRuns)+"/")
	}
	all := slices.SortedFunc(maps.Values(w.kvs), func(a, b store.KV) int {
		return cmp.Or(cmp.Compare(last(a), last(b)), cmp.Compare(a.CreateRevision, b.CreateRevision), cmp.Compare(subjectOf(a.Key), subjectOf(b.Key)), cmp.Compare(a.Key, b.Key))
	})
	objects, bytes, out := map[string]int64{}, map[string]int64{}, map[string]bool{}
	for _, kv := range all {
		tail, ok := strings.CutPrefix(kv.Key, store.ClustersPrefix)
		if !ok {
			continue
		}
		parts := strings.SplitN(tail, "/", 3)
		c, _ := s.Cluster(cluster.ID(parts[0]))
		c.ID = cluster.ID(parts[0])
		r, size := set.For(c.Labels()), int64(len(kv.Key)+len(kv.Value))
		if r == nil || parts[1] == "meta" || parts[1] == "alive" || parts[1] == "trust" {
			out[kv.Key] = true
			continue
		}
		if r.Objects != nil && objects[parts[0]] == r.Objects.Most || r.Bytes != nil && bytes[parts[0]]+size > r.Bytes.Most {
			continue
		}
		objects[parts[0]]++
		bytes[parts[0]] += size
		out[kv.Key] = true
	}
	return out
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
