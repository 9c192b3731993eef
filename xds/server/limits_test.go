package server

import (
	"context"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/causeway-mesh/causeway/xds/translate"
)

func TestStreamsThatAreRefused(t *testing.T) {
	r := newRig(t, Limits{Subscriptions: 2})
	code := func(name string, want codes.Code, text string, err error) {
		t.Helper()
		if s := status.Convert(err); s.Code() != want || !strings.Contains(s.Message(), text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	code("unauthorised", codes.PermissionDenied, "SPIFFE", r.open("evil").end())
	code("no node", codes.InvalidArgument, "node.id", r.open("").end())

	c := r.open("p")
	c.say(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: translate.TypeListener, Node: &corev3.Node{Id: "q"}})
	code("changed node", codes.PermissionDenied, "changed", c.end())

	c = r.open("p")
	c.say(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: translate.TypeEndpoint, ResourceNamesSubscribe: []string{"1", "2", "3"}})
	code("greedy", codes.ResourceExhausted, "subscriptions", c.end())

	silent, err := newRig(t, Limits{FirstRequest: 50 * time.Millisecond}).dial().DeltaAggregatedResources(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	_, err = silent.Recv()
	code("silent", codes.DeadlineExceeded, "no request", err)

	sotw, err := r.dial().StreamAggregatedResources(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	_, err = sotw.Recv()
	code("state of the world", codes.Unimplemented, "DELTA_GRPC", err)

	// The newest stream of a node wins, also over one that does not read.
	old := r.open("p#7")
	r.await("old", func(p ProxyStatus) bool { return p.Node == "p#7" && p.Connected })
	r.open("p#7")
	code("replaced", codes.Aborted, "newer", old.end())
	if n := r.metric("causeway_xds_replaced_total", ""); n != 1 {
		t.Errorf("%v streams replaced", n)
	}
	c = r.open("gone")
	r.await("gone", func(p ProxyStatus) bool { return p.Proxy == "gone" })
	r.Remove("gone")
	code("removed", codes.NotFound, "not configured", c.end())
}

func TestSlowReaderKeepsNobodyWaiting(t *testing.T) {
	r := newRig(t, Limits{Linger: -1, Backlog: 100})
	c := r.open("p") // reads one response at most, and never answers
	w := plain("a")
	r.put(w, newWorld(), 1)
	r.await("in flight", func(p ProxyStatus) bool {
		return p.Revision == 1 && p.Types != nil && p.Types[kindCluster].InFlight == 1
	})
	// A second node of the same proxy gets everything meanwhile.
	fast := r.open("p#2")
	fast.say(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: translate.TypeListener})
	fast.ack(fast.expect(translate.TypeCluster, "a"))
	for rev := int64(2); rev < 50; rev++ {
		next := w.clone()
		for i := range 20 {
			next.put(kindCluster, v(rev), plain(v("c", i)).get(t, kindCluster, v("c", i)))
		}
		r.put(next, w, rev)
		w = next
		for {
			m := fast.hear(translate.TypeCluster)
			fast.ack(m)
			if m.GetResources()[0].GetVersion() == v(rev) {
				break
			}
		}
	}
	r.await("fast", func(p ProxyStatus) bool { return p.Node == "p#2" && p.InSync() })
	slow := r.await("slow", func(p ProxyStatus) bool { return p.Node == "p" && p.Types[kindCluster].Pending == 21 })
	if slow.Types[kindCluster].Responses != 1 || slow.InSync() {
		t.Fatalf("%+v", slow)
	}
	c.ack(c.hear(translate.TypeCluster))
	// The acknowledgement may be read before word of the last Set.
	for n := 1; ; n++ {
		m := c.hear(translate.TypeCluster)
		if version := m.GetResources()[0].GetVersion(); len(m.GetResources()) != 20 || n > 2 {
			t.Fatalf("response %d has %d resources of version %s: want the newest versions alone", n, len(m.GetResources()), version)
		} else if version == "49" {
			break
		}
		c.ack(m)
	}
}

func (w world) get(t *testing.T, k kind, name string) proto.Message {
	t.Helper()
	m, err := w[k.URL()][name].Body.UnmarshalNew()
	if err != nil {
		t.Fatal(err)
	}
	return m
}
