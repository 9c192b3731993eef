package federation

import (
	"fmt"
	"testing"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/record/recordtest"
	"github.com/causeway-mesh/causeway/federation/store"
)

// One endpoint's change among 10 clusters of 1,000 exported services.
func BenchmarkMergeSlice(b *testing.B) {
	m := newMerger("c0")
	in := newInput(0)
	in.list = &listing{revision: 100_000}
	rev := int64(1)
	add := func(r record.Record, err error) store.KV {
		if err != nil {
			b.Fatal(err)
		}
		rev++
		kv := store.KV{Key: r.Key, Value: r.Value, CreateRevision: rev, ModRevision: rev}
		in.list.records = append(in.list.records, kv)
		return kv
	}
	var last store.KV
	for c := range 10 {
		id := cluster.ID(fmt.Sprintf("c%d", c))
		add(record.EncodeMeta(id, cluster.Meta{}))
		for s := range 1000 {
			name := fmt.Sprintf("s%d", s)
			add(record.EncodeService(recordtest.Service(id, "app", name, s, 80), recordtest.Export(id, "app", name, s, "1")))
			last = add(record.EncodeSlice(recordtest.Slice(id, "app", name, name+"-1", s, 10)))
		}
	}
	began := b.Elapsed()
	m.merge(in)
	b.Logf("%d objects in %v", m.builder.Snapshot().Len(), b.Elapsed()-began)
	a, err := record.EncodeSlice(recordtest.Slice("c9", "app", "s999", "s999-1", 1, 11))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		in := newInput(0)
		kv := last
		kv.ModRevision = int64(200_000 + i)
		if i%2 == 0 {
			kv.Value = a.Value
		}
		in.events[kv.Key], in.revision = store.Event{KV: kv}, kv.ModRevision
		if out := m.merge(in); len(out.changes) != 1 {
			b.Fatalf("changes %v", out.changes)
		}
	}
}
