package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

// sender answers each request with a response of so many bytes, and names the names that
// it was asked for; then it has had enough.
type sender struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	sizes []int
}

func (s *sender) DeltaAggregatedResources(g discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	for i, size := range s.sizes {
		req, err := g.Recv()
		if err != nil {
			return err
		}
		resp := &discoveryv3.DeltaDiscoveryResponse{Nonce: req.GetResponseNonce(), RemovedResources: req.GetResourceNamesSubscribe(),
			Resources: []*discoveryv3.Resource{{Name: strings.Repeat("x", i), Resource: &anypb.Any{Value: make([]byte, size)}}}}
		if err := g.Send(resp); err != nil {
			return err
		}
	}
	return status.Error(codes.PermissionDenied, "that is enough")
}

// A stream carries messages larger than all windows both ways, counts what comes, and
// tells why it ended.
func TestStream(t *testing.T) {
	certs := httptest.NewTLSServer(nil)
	defer certs.Close()
	sizes := []int{0, 10, 5 << 20, 100, 3 << 20, 1}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// The least that HTTP/2 has for windows, and pings that measure the way.
	srv := grpc.NewServer(grpc.Creds(credentials.NewTLS(certs.TLS)), grpc.MaxRecvMsgSize(64<<20))
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(srv, &sender{sizes: sizes})
	go func() { _ = srv.Serve(l) }()
	defer srv.Stop()
	config := certs.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	config.ServerName = "example.com"
	var wire atomic.Int64
	s, err := dialStream(t.Context(), l.Addr().String(), discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName, config, &wire)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.close() }()
	late := time.AfterFunc(time.Minute, func() { _ = s.close() }) // rather than to wait for ever
	defer late.Stop()
	var names []string
	total := int64(0)
	for i, size := range sizes {
		if err := s.send(&discoveryv3.DeltaDiscoveryRequest{ResponseNonce: strings.Repeat("n", i), ResourceNamesSubscribe: names}); err != nil {
			t.Fatal(err)
		}
		raw, err := s.receive()
		if err != nil {
			t.Fatalf("response %d of %d bytes: %v", i, size, err)
		}
		total += int64(len(raw))
		d, err := parseDiscovery(raw)
		if err != nil {
			t.Fatal(err)
		}
		if len(d.nonce) != i || len(d.resources) != 1 || len(d.resources[0].name) != i || len(d.resources[0].body) < size || !slices.Equal(d.removed, names) {
			t.Errorf("response %d is not that to its request: nonce of %d bytes, %d resources, %d of %d names", i, len(d.nonce), len(d.resources), len(d.removed), len(names))
		}
		names = append(names, strings.Repeat("y", 1<<20))
	}
	if _, err := s.receive(); err == nil || errors.Is(err, io.EOF) || !strings.Contains(err.Error(), "that is enough") {
		t.Errorf("the stream ended with: %v", err)
	}
	if n := wire.Load(); n < total || n > total+total/10 {
		t.Errorf("%d bytes of messages were %d on the wire", total, n)
	}
}
