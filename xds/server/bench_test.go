package server

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/causeway-mesh/causeway/xds/translate"
)

// BenchmarkEndpointChange measures one changed assignment of endpoints from Set
// to the last acknowledgement, with 50 proxies that have 500 clusters each.
func BenchmarkEndpointChange(b *testing.B) {
	const proxies, clusters = 50, 500
	s, err := New(Config{Authorize: anyone})
	if err != nil {
		b.Fatal(err)
	}
	l := bufconn.Listen(1 << 20)
	g := grpc.NewServer(ServerOptions()...)
	s.Register(g)
	go func() { _ = g.Serve(l) }()
	defer g.Stop()

	w := newWorld()
	var names []string
	for i := range clusters {
		c := fmt.Sprintf("c%d", i)
		names = append(names, "eds/"+c)
		w.put(kindCluster, "1", edsCluster(c, time.Second)).put(kindEndpoint, "1", endpoints(c, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10))
	}
	set := func(r *translate.Resources, c translate.Changes, rev int64) {
		for i := range proxies {
			s.Set(fmt.Sprintf("p%d", i), r, c, Stamp{Revision: rev, At: time.Now()})
		}
	}
	synced := func() {
		for {
			changed, n := s.Changed(), 0
			for _, p := range s.Proxies() {
				if p.InSync() {
					n++
				}
			}
			if n == proxies {
				return
			}
			<-changed
		}
	}
	set(w.resources(), translate.Changes{}, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for i := range proxies {
		c, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		st, err := discoveryv3.NewAggregatedDiscoveryServiceClient(c).DeltaAggregatedResources(ctx)
		if err != nil {
			b.Fatal(err)
		}
		for _, r := range []*discoveryv3.DeltaDiscoveryRequest{
			{TypeUrl: translate.TypeCluster, Node: &corev3.Node{Id: fmt.Sprintf("p%d", i)}},
			{TypeUrl: translate.TypeEndpoint, ResourceNamesSubscribe: names},
			{TypeUrl: translate.TypeListener},
		} {
			if err := st.Send(r); err != nil {
				b.Fatal(err)
			}
		}
		wg.Go(func() {
			for {
				m, err := st.Recv()
				if err != nil {
					return
				}
				if st.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: m.GetTypeUrl(), ResponseNonce: m.GetNonce()}) != nil {
					return
				}
			}
		})
	}
	synced()
	rev := int64(1)
	for b.Loop() {
		b.StopTimer()
		rev++
		next := w.clone().put(kindEndpoint, v(rev), endpoints("c7", 1, 2, 3, 4, 5, 6, 7, 8, 9, int(rev%1000)+10))
		r, c := next.resources(), next.since(w)
		w = next
		b.StartTimer()
		set(r, c, rev)
		synced()
	}
}
