package record_test

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/record/recordtest"
	"github.com/causeway-mesh/causeway/federation/store"
)

// Whatever the bytes: no panic, the names are the key's, and what was accepted
// can be written again and reads the same.
func FuzzDecode(f *testing.F) {
	seed := func(r record.Record, err error) {
		if err != nil {
			f.Fatal(err)
		}
		f.Add(r.Key, r.Value)
	}
	seed(record.EncodeMeta(east, cluster.Meta{Region: "r", Crossing: []string{"a:1"}}))
	seed(record.EncodeAlive(east, "agent"))
	seed(record.EncodeTrust(east, record.Trust{TrustDomain: "td", Authorities: [][]byte{recordtest.Authority(f)}}))
	seed(record.EncodeObject(recordtest.Route(east, "app", "a", 1, "a", "b", "/")))
	seed(record.EncodeObject(recordtest.Gateway(east, "app", "a", 1, 80)))
	seed(record.EncodeObject(recordtest.Grant(east, "app", "a", 1, "b")))
	seed(record.EncodeObject(recordtest.Namespace(east, "app", 1, "a")))
	seed(record.EncodeObject(recordtest.ConfigMap(east, "app", "a", 1, recordtest.CA)))
	for kind, list := range specs {
		for _, spec := range list {
			kv := specRecord(f, kind, spec)
			f.Add(kv.Key, kv.Value)
		}
	}
	seed(record.EncodeSlice(recordtest.Slice(east, "app", "a", "a-1", 1, 3)))
	counted := recordtest.Slice(east, "app", "a", "a-1", 1, 3)
	counted.Value = counted.Value.(*cluster.EndpointSlice).Counted()
	seed(record.EncodeSlice(counted))
	seed(record.EncodeService(recordtest.Service(east, "app", "a", 1, 80), recordtest.Export(east, "app", "a", 1, "1")))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		in := store.KV{Key: key, Value: value, CreateRevision: 5, ModRevision: 6}
		c, err := record.Decode(in)
		if err != nil {
			var e *record.Error
			if !errors.As(err, &e) || len(e.Problem().Message) > 600 {
				t.Fatalf("error %T of %d bytes", err, len(err.Error()))
			}
			return
		}
		k, err := store.ParseKey(key)
		if err != nil || cluster.ID(k.Cluster) != c.Cluster {
			t.Fatalf("record of %q at %q", c.Cluster, key)
		}
		boundedBy(t, c.Objects, len(value))
		if len(c.Objects) == 0 {
			return
		}
		refs, err := record.Refs(k)
		if err != nil {
			t.Fatal(err)
		}
		for i, o := range c.Objects {
			if o.Ref != refs[i] || o.Cluster != c.Cluster {
				t.Fatalf("%s of %q at %q", o.Ref, o.Cluster, key)
			}
		}
		again, err := encodeAgain(c.Objects)
		if err != nil {
			t.Fatalf("accepted, but can't be written: %v", err)
		}
		if again.Key != key {
			t.Fatalf("read at %q, written at %q", key, again.Key)
		}
		c2, err := record.Decode(store.KV{Key: again.Key, Value: again.Value, CreateRevision: 5, ModRevision: 6})
		if err != nil || !reflect.DeepEqual(c.Objects, c2.Objects) {
			t.Fatalf("reads differently after it was written: %v\n%s\n%s", err, dump(c.Objects), dump(c2.Objects))
		}
	})
}

// boundedBy fails if objects are out of proportion to what they were read from.
func boundedBy(t *testing.T, objects []*cluster.Object, size int) {
	t.Helper()
	if n := len(marshal(t, objects)); n > 4<<10+100*size {
		t.Fatalf("%d bytes became objects of %d", size, n)
	}
}

// The same for the JSON inside, which the fuzzer seldom reaches through protobuf.
func FuzzJSON(f *testing.F) {
	kinds := []cluster.Kind{cluster.KindHTTPRoute, cluster.KindGateway, cluster.KindReferenceGrant, cluster.KindService, cluster.KindServiceExport,
		cluster.KindGRPCRoute, cluster.KindTLSRoute, cluster.KindTCPRoute, cluster.KindUDPRoute, cluster.KindListenerSet, cluster.KindBackendTLSPolicy, cluster.KindConfigMap}
	for _, o := range []*cluster.Object{
		recordtest.Route(east, "app", "a", 1, "a", "b", "/"), recordtest.Gateway(east, "app", "a", 1, 80),
		recordtest.Grant(east, "app", "a", 1, "b"), recordtest.Service(east, "app", "a", 1, 80), recordtest.Export(east, "app", "a", 1, "1"),
		recordtest.ConfigMap(east, "app", "a", 1, recordtest.CA),
	} {
		f.Add(uint8(slices.Index(kinds, o.Kind)), marshal(f, o.Value))
	}
	for kind, list := range specs {
		for _, spec := range list {
			f.Add(uint8(slices.Index(kinds, kind)), []byte(`{"metadata":{"namespace":"app","name":"a"},"spec":`+spec+`}`))
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, doc []byte) {
		minimal := []byte(`{"metadata":{"namespace":"app","name":"a"}}`)
		var msg proto.Message
		ref := cluster.Ref{Kind: kinds[int(which)%len(kinds)], Namespace: "app", Name: "a"}
		switch ref.Kind {
		case cluster.KindService:
			msg = &causewayv1.ExportedService{Namespace: "app", Name: "a", Service: doc, Export: minimal}
		case cluster.KindServiceExport:
			msg = &causewayv1.ExportedService{Namespace: "app", Name: "a", Service: minimal, Export: doc}
		default:
			msg = &causewayv1.Object{Kind: string(ref.Kind), Namespace: "app", Name: "a", Json: doc}
		}
		value, err := proto.Marshal(msg)
		if err != nil {
			t.Skip(err)
		}
		key, err := record.ObjectKey(&cluster.Object{Ref: ref, Cluster: east})
		if err != nil {
			t.Fatal(err)
		}
		c, err := record.Decode(store.KV{Key: key, Value: value, CreateRevision: 5, ModRevision: 6})
		if err != nil {
			return
		}
		boundedBy(t, c.Objects, len(value))
		again, err := encodeAgain(c.Objects)
		if err != nil {
			t.Fatalf("accepted, but can't be written: %v", err)
		}
		c2, err := record.Decode(store.KV{Key: again.Key, Value: again.Value, CreateRevision: 5, ModRevision: 6})
		if err != nil {
			t.Fatalf("written, but can't be read: %v", err)
		}
		if third, err := encodeAgain(c2.Objects); err != nil || !slices.Equal(third.Value, again.Value) {
			t.Fatalf("reads differently after it was written: %v\n%s\n%s", err, dump(c.Objects), dump(c2.Objects))
		}
	})
}
