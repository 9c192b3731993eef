package query_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/api/query"
	"github.com/causeway-mesh/causeway/api/query/querytest"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
)

const (
	added    = causewayv1.EventType_EVENT_TYPE_ADDED
	modified = causewayv1.EventType_EVENT_TYPE_MODIFIED
	deleted  = causewayv1.EventType_EVENT_TYPE_DELETED
	synced   = causewayv1.EventType_EVENT_TYPE_SYNCED
)

func recv(t *testing.T, stream causewayv1.Federation_WatchClient) *causewayv1.WatchResponse {
	t.Helper()
	e, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// A Watch sends all that there is, then SYNCED, then each change and nothing else.
func TestWatch(t *testing.T) {
	t.Parallel()
	w := querytest.New(t)
	c := ada(t, querytest.Run(t, w.Config()))
	stream, err := c.Watch(t.Context(), &causewayv1.WatchRequest{Types: []causewayv1.WatchType{
		causewayv1.WatchType_WATCH_TYPE_ROUTES, causewayv1.WatchType_WATCH_TYPE_PROXIES}, Filter: &causewayv1.Filter{Namespace: "dev"}})
	if err != nil {
		t.Fatal(err)
	}
	var first []string
	for {
		e := recv(t, stream)
		if e.GetEvent() == synced {
			break
		}
		if e.GetEvent() != added {
			t.Errorf("before SYNCED: %v", e)
		}
		first = append(first, e.GetRoute().GetName()+e.GetProxy().GetId())
	}
	if !slices.Equal(first, []string{"web-dev", "east/sidecar/dev/sidecar"}) {
		t.Errorf("at first %v", first)
	}

	// A change of another namespace, and a revision alone, are no events here.
	w.Proxy("east/gateway/infra/gw", func(p *query.Proxy) { p.Connected = false })
	w.Edit(func(e *federation.Edit) { e.SetRevision(40) })
	w.Proxy("east/sidecar/dev/sidecar", func(p *query.Proxy) { p.Connected = false })
	if e := recv(t, stream); e.GetEvent() != modified || e.GetProxy().GetId() != "east/sidecar/dev/sidecar" || e.GetProxy().GetConnected() {
		t.Errorf("got %v, want the sidecar disconnected", e)
	}
	w.Edit(func(e *federation.Edit) {
		if err := e.Apply(federation.Change{Cluster: "west", Ref: cluster.Ref{Kind: cluster.KindHTTPRoute, Namespace: "dev", Name: "web-dev"}}); err != nil {
			t.Error(err)
		}
		o := querytest.Route("east", "dev", "new", querytest.Import("app", "web"), querytest.Rule("/", querytest.BackendIn("app", "web", 1)))
		if err := e.Apply(federation.Change{Cluster: "east", Ref: o.Ref, Object: o}); err != nil {
			t.Error(err)
		}
		e.SetRevision(41)
	})
	if e := recv(t, stream); e.GetEvent() != added || e.GetRoute().GetName() != "new" || e.GetRevision() != 41 {
		t.Errorf("got %v, want the new route at 41", e)
	}
	if e := recv(t, stream); e.GetEvent() != deleted || e.GetRoute().GetName() != "web-dev" {
		t.Errorf("got %v, want web-dev deleted", e)
	}
}

// Endpoints that become unready reach a watcher; all types are sent by default.
func TestWatchAll(t *testing.T) {
	t.Parallel()
	w := querytest.New(t)
	w.SetViews() // nothing is resolved yet: the Watch waits for it
	c := ada(t, querytest.Run(t, w.Config()))
	stream, err := c.Watch(t.Context(), &causewayv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	w.Edit(func(*federation.Edit) {})
	counts := map[string]int{}
	for e := recv(t, stream); e.GetEvent() != synced; e = recv(t, stream) {
		switch e.GetObject().(type) {
		case *causewayv1.WatchResponse_Cluster:
			counts["clusters"]++
		case *causewayv1.WatchResponse_Import:
			counts["imports"]++
		case *causewayv1.WatchResponse_Route:
			counts["routes"]++
		case *causewayv1.WatchResponse_Endpoint:
			counts["endpoints"]++
		case *causewayv1.WatchResponse_Proxy:
			counts["proxies"]++
		case *causewayv1.WatchResponse_Problem:
			counts["problems"]++
		}
	}
	listed, err := c.ListEndpoints(t.Context(), &causewayv1.ListEndpointsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for what, n := range map[string]int{"clusters": 3, "imports": 2, "routes": 4, "endpoints": len(listed.GetEndpoints()), "proxies": 4, "problems": 1} {
		if counts[what] != n {
			t.Errorf("%d %s, want %d", counts[what], what, n)
		}
	}
	w.Edit(func(e *federation.Edit) {
		o := querytest.Service("west", "app", "web-v2")[2] // an EndpointSlice without endpoints
		if err := e.Apply(federation.Change{Cluster: "west", Ref: o.Ref, Object: o}); err != nil {
			t.Error(err)
		}
	})
	gone := 0
	for gone < 2 { // as west sees it, at the Service and at the import
		if e := recv(t, stream); e.GetEvent() == deleted && e.GetEndpoint().GetSeenFrom() == "west" && e.GetEndpoint().GetBackend().GetName() == "web-v2" {
			gone++
		}
	}
}

// Watches are bounded in number, give their place back, and end with the server.
func TestWatchBounds(t *testing.T) {
	t.Parallel()
	w := querytest.New(t)
	cfg := w.Config()
	cfg.MaxWatches = 1
	var c causewayv1.FederationClient
	var last causewayv1.Federation_WatchClient
	t.Run("server", func(t *testing.T) {
		c = ada(t, querytest.Run(t, cfg))
		request := &causewayv1.WatchRequest{Types: []causewayv1.WatchType{causewayv1.WatchType_WATCH_TYPE_PROBLEMS}}
		ctx, cancel := context.WithCancel(t.Context())
		one, err := c.Watch(ctx, request)
		if err != nil {
			t.Fatal(err)
		}
		recv(t, one)
		two, err := c.Watch(t.Context(), request)
		if err == nil {
			_, err = two.Recv()
		}
		wantCode(t, "a second watch", err, codes.ResourceExhausted)
		cancel()
		for { // the place is free once the server has noticed
			last, err = c.Watch(context.WithoutCancel(t.Context()), request)
			if err == nil {
				_, err = last.Recv()
			}
			if status.Code(err) != codes.ResourceExhausted {
				break
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		bad, err := c.Watch(t.Context(), &causewayv1.WatchRequest{Types: []causewayv1.WatchType{99}})
		if err == nil {
			_, err = bad.Recv()
		}
		wantCode(t, "an unknown type", err, codes.InvalidArgument)
	}) // stops the server
	for {
		_, err := last.Recv()
		if err == nil {
			continue // what was sent before
		}
		if errors.Is(err, io.EOF) {
			t.Error("the watch ended as if all was well")
		}
		return
	}
}
