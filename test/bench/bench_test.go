package main

import (
	"slices"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/causeway-mesh/causeway/federation/record"
)

// The proxies' short way through a response finds what is in it.
func TestParseDiscovery(t *testing.T) {
	want := &discoveryv3.DeltaDiscoveryResponse{
		SystemVersionInfo: "v", TypeUrl: "type", Nonce: "7", RemovedResources: []string{"x", "y"},
		Resources: []*discoveryv3.Resource{
			{Name: "a", Version: "1", Resource: &anypb.Any{TypeUrl: "type", Value: []byte("body")}},
			{Name: "b", Version: "2"},
		},
	}
	raw, err := proto.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseDiscovery(raw)
	if err != nil {
		t.Fatal(err)
	}
	if got.typeURL != "type" || got.nonce != "7" || !slices.Equal(got.removed, want.RemovedResources) || len(got.resources) != 2 {
		t.Fatalf("%+v", got)
	}
	var body anypb.Any
	if a := got.resources[0]; a.name != "a" || a.version != "1" || proto.Unmarshal(a.body, &body) != nil || string(body.Value) != "body" {
		t.Errorf("%+v", got.resources[0])
	}
	if _, err := parseDiscovery(raw[:len(raw)-1]); err == nil {
		t.Error("a response that is cut off is taken")
	}
}

// Every object of the worlds can be published, and each edit changes its record.
func TestWorldsArePublished(t *testing.T) {
	for _, w := range []world{standard, many} {
		for c := range w.Clusters {
			svc, exp := w.exported(c, 0)
			if _, err := record.EncodeService(svc, exp); err != nil {
				t.Fatal(err)
			}
			if _, err := record.EncodeMeta(w.cluster(c), w.metaOf(c, string(w.cluster(c))+".bench")); err != nil {
				t.Fatal(err)
			}
		}
		for i := range w.Routes {
			if _, err := record.EncodeObject(w.route(i, generation{})); err != nil {
				t.Fatal(err)
			}
		}
		values := map[string]bool{}
		for _, g := range []generation{{}, {ready: 1}, {pod: 1}} {
			r, err := record.EncodeSlice(w.slice(0, 0, g))
			if err != nil {
				t.Fatal(err)
			}
			values[string(r.Value)] = true
		}
		if len(values) != 3 {
			t.Error("an edit of endpoints changes nothing")
		}
	}
	if _, err := record.EncodeObject(standard.gateway(0)); err != nil {
		t.Error(err)
	}
}

func TestQuantile(t *testing.T) {
	var list []time.Duration
	for i := range 100 {
		list = append(list, time.Duration(100-i))
	}
	if a, b := quantile(list, .5), quantile(list, .99); a != 51 || b != 100 {
		t.Errorf("%d, %d", a, b)
	}
}
