package agent

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/federation/resolve/resolvetest"
	"github.com/causeway-mesh/causeway/federation/store"
)

const travelGateway = `
kind: Gateway
metadata: {namespace: app, name: edge}
spec:
  gatewayClassName: causeway-clusterset
  listeners:
  - {name: a, protocol: HTTPS, port: 443, hostname: a.example, tls: {certificateRefs: [{name: a}]}}
  - {name: b, protocol: HTTPS, port: 443, hostname: b.example, tls: {certificateRefs: [{name: b}]}}
---
kind: Certificate
metadata: {namespace: app, name: a, annotations: {causeway.dev/clusters: "name in (west,old)"}}
hosts: [a.example]
---
kind: Certificate
metadata: {namespace: app, name: b}
hosts: [b.example]
`

// A certificate is sealed for each cluster that may have it, and opened there and nowhere
// else; what is the same is not sealed again, by another process of the cluster neither.
func TestTravel(t *testing.T) {
	authorities := map[cluster.ID]*identity.Authority{}
	for _, id := range []cluster.ID{"east", "north", "west"} {
		a, err := identity.OpenAuthority(identity.AuthorityConfig{TrustDomain: spiffeid.RequireTrustDomainFromString(string(id) + ".isles")})
		if err != nil {
			t.Fatal(err)
		}
		authorities[id] = a
	}
	keys := map[cluster.ID][]byte{} // old has published none
	for id, a := range authorities {
		key, err := a.SealingKey()
		if err != nil {
			t.Fatal(err)
		}
		keys[id] = key
	}
	world := resolvetest.Read(t, map[string][]byte{"meta.yaml": []byte("{east: {}, north: {}, old: {}, west: {}}"), "east.yaml": []byte(travelGateway), "north.yaml": nil, "old.yaml": nil, "west.yaml": nil})
	b := federation.NewBuilder()
	resolved := func(edit func(*federation.Edit)) *resolve.Result {
		e := b.Edit()
		edit(e)
		snap, _ := e.Commit()
		return resolve.Resolve("east", snap)
	}
	travel := func(id cluster.ID) *travel {
		return &travel{local: id, authority: authorities[id], log: slog.New(slog.DiscardHandler)}
	}
	res := resolved(func(e *federation.Edit) {
		world.Put(t, e)
		e.SetSealing(keys)
	})
	home := travel("east")
	all := home.seal(res, nil)
	const key = store.ClustersPrefix + "east/secrets/app/a/west"
	if len(all) != 1 || all[key].record.Key != key {
		t.Fatalf("sealed %d: %v", len(all), all)
	}
	if p := home.list(); len(p) != 1 || !strings.Contains(p[0].Message, "does not travel to cluster old: it has published no key") {
		t.Errorf("problems %+v", p)
	}
	o, _ := res.Snapshot.Get("east", cluster.KindSecret, "app", "a")
	want := o.Value.(*corev1.Secret).Data
	for name, part := range want {
		if bytes.Contains(all[key].record.Value, part) || bytes.Contains(all[key].record.Value, part[64:128]) {
			t.Errorf("%s is in the store as it is", name)
		}
	}
	c, err := record.Decode(store.KV{Key: key, Value: all[key].record.Value, CreateRevision: 1})
	if err != nil {
		t.Fatal(err)
	}
	sealed := c.Objects[0].Value.(*cluster.SealedSecret)
	got, err := travel("west").open("east", "app", "a", sealed)
	if err != nil || !slices.Equal(got.Data[corev1.TLSPrivateKeyKey], want[corev1.TLSPrivateKeyKey]) || !slices.Equal(got.Data[corev1.TLSCertKey], want[corev1.TLSCertKey]) {
		t.Errorf("west has opened %d parts (%v)", len(got.Data), err)
	}
	for name, open := range map[string]func() (*corev1.Secret, error){
		"another cluster":    func() (*corev1.Secret, error) { return travel("north").open("east", "app", "a", sealed) },
		"under another name": func() (*corev1.Secret, error) { return travel("west").open("east", "app", "b", sealed) },
		"as another's":       func() (*corev1.Secret, error) { return travel("west").open("north", "app", "a", sealed) },
	} {
		if _, err := open(); err == nil {
			t.Errorf("%s: it was opened", name)
		}
	}

	// The same again, by the same process and by another that finds it in the store.
	if again := home.seal(res, all); !bytes.Equal(again[key].record.Value, all[key].record.Value) {
		t.Error("sealed again, though nothing has changed")
	}
	put := func(value *cluster.SealedSecret) func(e *federation.Edit) {
		return func(e *federation.Edit) {
			o := &cluster.Object{Cluster: "east", Ref: cluster.Ref{Kind: cluster.KindSealedSecret, Namespace: "app", Name: cluster.SealedName("west", "a")}, Value: value}
			if err := e.Apply(federation.Change{Cluster: "east", Ref: o.Ref, Object: o}); err != nil {
				t.Fatal(err)
			}
		}
	}
	stored := resolved(put(sealed))
	if again := travel("east").seal(stored, nil); !bytes.Equal(again[key].record.Value, all[key].record.Value) {
		t.Error("sealed again by another process, though it is in the store")
	}
	// What somebody has put in its place is not taken for it.
	forged := *sealed
	if forged.Sealed, err = identity.Seal(keys["west"], sealedContext("east", "app", "a", "west"), []byte("another")); err != nil {
		t.Fatal(err)
	}
	if again := travel("east").seal(resolved(put(&forged)), nil); bytes.Contains(again[key].record.Value, forged.Sealed) {
		t.Error("what somebody else has sealed is published")
	}
	// Nor what is of an older certificate, or for an older key.
	if again := travel("east").seal(resolved(func(e *federation.Edit) {
		put(sealed)(e)
		e.SetSealing(map[cluster.ID][]byte{"west": keys["north"]})
	}), all); bytes.Equal(again[key].record.Value, all[key].record.Value) {
		t.Error("not sealed for the new key")
	}
}
