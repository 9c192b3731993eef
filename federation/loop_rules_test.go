package federation

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/policy"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/store"
)

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
