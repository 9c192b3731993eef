package query_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/api/query"
	"github.com/causeway-mesh/causeway/api/query/querytest"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/federation"
)

// connect connects with the credentials in dir, or without any if it is empty.
func connect(t *testing.T, r *querytest.Running, dir string) *grpc.ClientConn {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(identity.BundlePEM(r.Clusterset.Bundle()))
	cfg := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	if dir != "" {
		cert, err := tls.LoadX509KeyPair(filepath.Join(dir, identity.FileCert), filepath.Join(dir, identity.FileKey))
		if err != nil {
			t.Fatal(err)
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	conn, err := grpc.NewClient(r.Addr, grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func ada(t *testing.T, r *querytest.Running) causewayv1.FederationClient {
	return causewayv1.NewFederationClient(connect(t, r, r.User(r.Clusterset, "ada")))
}

func wantCode(t *testing.T, what string, err error, code codes.Code) {
	t.Helper()
	if status.Code(err) != code {
		t.Errorf("%s: got %v, want code %s", what, err, code)
	}
}

// routes names the routes that a caller sees, each with its cluster.
func routes(ctx context.Context, t *testing.T, c causewayv1.FederationClient) (names []string) {
	t.Helper()
	answer, err := c.ListRoutes(ctx, &causewayv1.ListRoutesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range answer.GetRoutes() {
		names = append(names, o.GetName()+"@"+o.GetCluster())
	}
	return names
}

// Who calls decides what is seen, and nobody is let in unproven.
func TestCallers(t *testing.T) {
	t.Parallel()
	w := querytest.New(t)
	r := querytest.Run(t, w.Config())
	ctx := t.Context()

	if got, want := routes(ctx, t, ada(t, r)), []string{"refused@north", "web-split@east", "web-dev@west", "entry@east"}; !slices.Equal(got, want) {
		t.Errorf("a user of the clusterset sees %v, want %v", got, want)
	}

	local := causewayv1.NewFederationClient(connect(t, r, r.User(r.East, "eve")))
	if got, want := routes(ctx, t, local), []string{"web-split@east", "entry@east"}; !slices.Equal(got, want) {
		t.Errorf("a user of east sees %v, want %v", got, want)
	}
	_, err := local.Explain(ctx, &causewayv1.ExplainRequest{Url: "http://web.app", Source: &causewayv1.Source{Cluster: "west", From: &causewayv1.Source_Namespace{Namespace: "app"}}})
	wantCode(t, "a user of east asks about west", err, codes.NotFound)
	answer, err := local.ListEndpoints(ctx, &causewayv1.ListEndpointsRequest{})
	if err != nil || len(answer.GetEndpoints()) == 0 {
		t.Fatalf("endpoints for a user of east: %v, %v", answer, err)
	}
	for _, e := range answer.GetEndpoints() {
		if e.GetSeenFrom() != "east" {
			t.Errorf("a user of east sees what %s sees", e.GetSeenFrom())
		}
	}
	proxies, err := local.ListProxies(ctx, &causewayv1.ListProxiesRequest{})
	if err != nil || len(proxies.GetProxies()) != 2 {
		t.Errorf("a user of east sees proxies %v, %v; want those of east, 2", proxies, err)
	}
	st, err := local.GetStatus(ctx, &causewayv1.GetStatusRequest{})
	if err != nil || len(st.GetProblems()) != 0 {
		t.Errorf("a user of east sees problems %v, %v; west has one, east none", st.GetProblems(), err)
	}

	proxyID, _ := identity.ProxyID(r.East.TrustDomain(), identity.RoleSidecar, "dev", "sidecar")
	proxy := connect(t, r, r.Files(r.East, identity.SVIDRequest{ID: proxyID}))
	_, err = causewayv1.NewFederationClient(proxy).ListClusters(ctx, &causewayv1.ListClustersRequest{})
	wantCode(t, "a proxy lists clusters", err, codes.PermissionDenied)
	stream, err := causewayv1.NewFederationClient(proxy).Watch(ctx, &causewayv1.WatchRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	wantCode(t, "a proxy watches", err, codes.PermissionDenied)

	_, err = causewayv1.NewFederationClient(connect(t, r, "")).ListClusters(ctx, &causewayv1.ListClustersRequest{})
	wantCode(t, "someone without a certificate", err, codes.Unavailable)
	other := querytest.Run(t, querytest.New(t).Config())
	_, err = causewayv1.NewFederationClient(connect(t, r, other.User(other.Clusterset, "ada"))).ListClusters(ctx, &causewayv1.ListClustersRequest{})
	wantCode(t, "a user of another clusterset", err, codes.Unavailable)
}

// A service that was registered without Options answers nobody.
func TestWithoutInterceptors(t *testing.T) {
	t.Parallel()
	w := querytest.New(t)
	s, err := query.New(w.Config())
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	s.Register(g)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	c := causewayv1.NewFederationClient(conn)
	if _, err = c.ListClusters(t.Context(), &causewayv1.ListClustersRequest{}); err == nil {
		t.Error("ListClusters answers without authentication")
	}
	if _, err = c.GetStatus(t.Context(), &causewayv1.GetStatusRequest{}); err == nil {
		t.Error("GetStatus answers without authentication")
	}
	if _, err = c.ListProblems(t.Context(), &causewayv1.ListProblemsRequest{}); err == nil {
		t.Error("ListProblems answers without authentication")
	}
}

// Lists of one row a page add up to the whole, whatever the list.
func TestPages(t *testing.T) {
	t.Parallel()
	w := querytest.New(t)
	c := ada(t, querytest.Run(t, w.Config()))
	ctx := t.Context()
	endpoints := func(p *causewayv1.Page) ([]string, string) {
		r, err := c.ListEndpoints(ctx, &causewayv1.ListEndpointsRequest{Page: p})
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, e := range r.GetEndpoints() {
			out = append(out, e.String())
		}
		return out, r.GetNextPageToken()
	}
	whole, next := endpoints(nil)
	if len(whole) < 10 || next != "" {
		t.Fatalf("%d endpoints, next %q; want at least 10 and no token", len(whole), next)
	}
	for _, size := range []int32{1, 4, int32(len(whole)), 5001} {
		var got []string
		for page := (&causewayv1.Page{PageSize: size}); ; {
			rows, next := endpoints(page)
			if len(rows) > int(size) {
				t.Errorf("a page of %d has %d rows", size, len(rows))
			}
			got = append(got, rows...)
			if next == "" {
				break
			}
			page.PageToken = next
		}
		if len(got) != len(whole) {
			t.Errorf("pages of %d give %d rows, want %d", size, len(got), len(whole))
		}
		for _, e := range whole {
			if !slices.Contains(got, e) {
				t.Errorf("pages of %d lack %s", size, e)
			}
		}
	}
	r, err := c.ListRoutes(ctx, &causewayv1.ListRoutesRequest{Page: &causewayv1.Page{PageSize: 1}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.ListRoutes(ctx, &causewayv1.ListRoutesRequest{Page: &causewayv1.Page{PageToken: r.GetNextPageToken()}, Filter: &causewayv1.Filter{Namespace: "app"}})
	wantCode(t, "a token with another filter", err, codes.InvalidArgument)
	_, err = c.ListRoutes(ctx, &causewayv1.ListRoutesRequest{Page: &causewayv1.Page{PageToken: "x"}})
	wantCode(t, "a made-up token", err, codes.InvalidArgument)
	_, err = c.ListRoutes(ctx, &causewayv1.ListRoutesRequest{Page: &causewayv1.Page{PageSize: -1}})
	wantCode(t, "a negative page", err, codes.InvalidArgument)
}

// The past is answered from History, with its errors as codes.
func TestHistory(t *testing.T) {
	t.Parallel()
	w := querytest.New(t)
	c := ada(t, querytest.Run(t, w.Config()))
	ctx := t.Context()
	w.Edit(func(e *federation.Edit) {
		ref := cluster.Ref{Kind: cluster.KindHTTPRoute, Namespace: "dev", Name: "web-dev"}
		if err := e.Apply(federation.Change{Cluster: "west", Ref: ref}); err != nil {
			t.Error(err)
		}
		e.SetRevision(30)
	})
	group := func(revision int64) (causewayv1.RouteGroup, int64) {
		r, err := c.Explain(ctx, &causewayv1.ExplainRequest{Url: "http://web.app.svc.clusterset.local", Revision: revision,
			Source: &causewayv1.Source{Cluster: "east", From: &causewayv1.Source_Namespace{Namespace: "dev"}}})
		if err != nil {
			t.Fatal(err)
		}
		if s := r.GetStaleness(); s.GetNewestRevision() != 30 {
			t.Errorf("the newest revision is %d, want 30", s.GetNewestRevision())
		}
		return r.GetHop().GetGroup(), r.GetRevision()
	}
	if g, r := group(0); g != causewayv1.RouteGroup_ROUTE_GROUP_PRODUCER || r != 30 {
		t.Errorf("now: %s at %d, want the producer's at 30", g, r)
	}
	if g, r := group(19); g != causewayv1.RouteGroup_ROUTE_GROUP_CONSUMER || r != 19 {
		t.Errorf("at revision 19: %s at %d, want the consumer's at 19", g, r)
	}
	old, err := c.ListRoutes(ctx, &causewayv1.ListRoutesRequest{Revision: 19, Filter: &causewayv1.Filter{Name: "web-dev"}})
	if err != nil || len(old.GetRoutes()) != 1 || old.GetRevision() != 19 || len(old.GetRoutes()[0].GetUses()) != 1 {
		t.Errorf("routes at 19: %v, %v; want web-dev with its use", old, err)
	}
	_, err = c.ListClusters(ctx, &causewayv1.ListClustersRequest{Revision: 31})
	wantCode(t, "the future", err, codes.OutOfRange)
	w.Compact(19)
	_, err = c.ListClusters(ctx, &causewayv1.ListClustersRequest{Revision: 19})
	wantCode(t, "a compacted revision", err, codes.OutOfRange)
	_, err = c.ListClusters(ctx, &causewayv1.ListClustersRequest{Revision: -1})
	wantCode(t, "a negative revision", err, codes.InvalidArgument)

	cfg := w.Config()
	cfg.History = nil
	_, err = ada(t, querytest.Run(t, cfg)).ListClusters(ctx, &causewayv1.ListClustersRequest{Revision: 19})
	wantCode(t, "no history", err, codes.FailedPrecondition)
}

// A panic ends its call alone, and is counted; so does too large a request.
func TestContainment(t *testing.T) {
	t.Parallel()
	w := querytest.New(t)
	cfg := w.Config()
	var log strings.Builder
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	cfg.Proxies = func() []query.Proxy { panic("a bug") }
	r := querytest.Run(t, cfg)
	c := ada(t, r)
	_, err := c.ListProxies(t.Context(), &causewayv1.ListProxiesRequest{})
	wantCode(t, "a panic", err, codes.Internal)
	if strings.Contains(err.Error(), "a bug") {
		t.Error("the caller is told the panic's value")
	}
	if _, err := c.ListRoutes(t.Context(), &causewayv1.ListRoutesRequest{}); err != nil {
		t.Errorf("after a panic: %v", err)
	}
	families, err := r.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	panics := 0.0
	for _, f := range families {
		if f.GetName() == "causeway_query_panics_total" {
			panics = f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	if panics != 1 {
		t.Errorf("causeway_query_panics_total is %v, want 1", panics)
	}
	if !strings.Contains(log.String(), "a bug") {
		t.Error("the panic is not in the log")
	}
	_, err = c.Explain(t.Context(), &causewayv1.ExplainRequest{Url: strings.Repeat("x", 1<<20)})
	wantCode(t, "a request of 1 MiB", err, codes.ResourceExhausted)
	_, err = c.Explain(t.Context(), &causewayv1.ExplainRequest{Url: strings.Repeat("x", 10<<10), Source: &causewayv1.Source{Cluster: "east", From: &causewayv1.Source_Namespace{Namespace: "dev"}}})
	wantCode(t, "a URL of 10 KiB", err, codes.InvalidArgument)
}

// Tools find the service by both versions of reflection, and its health.
func TestReflectionAndHealth(t *testing.T) {
	t.Parallel()
	w := querytest.New(t)
	r := querytest.Run(t, w.Config())
	conn := connect(t, r, r.User(r.Clusterset, "ada"))
	ctx := t.Context()

	v1, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := v1.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "causeway.v1.Federation"}}); err != nil {
		t.Fatal(err)
	}
	if a, err := v1.Recv(); err != nil || a.GetFileDescriptorResponse() == nil {
		t.Errorf("reflection v1: %v, %v", a, err)
	}
	alpha, err := reflectionv1alpha.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	//nolint:staticcheck // deprecated, and what older grpcurls speak
	if err := alpha.Send(&reflectionv1alpha.ServerReflectionRequest{MessageRequest: &reflectionv1alpha.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	if a, err := alpha.Recv(); err != nil || !strings.Contains(a.String(), "causeway.v1.Federation") {
		t.Errorf("reflection v1alpha: %v, %v", a, err)
	}

	h := healthpb.NewHealthClient(conn)
	if a, err := h.Check(ctx, &healthpb.HealthCheckRequest{Service: "causeway.v1.Federation"}); err != nil || a.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", a, err)
	}
	_, err = h.Check(ctx, &healthpb.HealthCheckRequest{Service: "other"})
	wantCode(t, "health of another service", err, codes.NotFound)
	watch, err := h.Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := watch.Recv(); err != nil || a.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health at first: %v, %v", a, err)
	}
	w.SetViews(query.View{Cluster: "east"})
	if a, err := watch.Recv(); err != nil || a.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health without a result: %v, %v", a, err)
	}
	_, err = causewayv1.NewFederationClient(conn).ListRoutes(ctx, &causewayv1.ListRoutesRequest{})
	wantCode(t, "a list without a result", err, codes.Unavailable)
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	w := querytest.New(t)
	for name, change := range map[string]func(*query.Config){
		"no Views":           func(c *query.Config) { c.Views = nil },
		"no Changed":         func(c *query.Config) { c.Changed = nil },
		"no Authorize":       func(c *query.Config) { c.Authorize = nil },
		"no Logger":          func(c *query.Config) { c.Logger = nil },
		"no Registerer":      func(c *query.Config) { c.Registerer = nil },
		"a negative timeout": func(c *query.Config) { c.Timeout = -1 },
		"metrics registered twice": func(c *query.Config) {
			reg := prometheus.NewRegistry()
			c.Registerer = reg
			if _, err := query.New(*c); err != nil {
				t.Error(err)
			}
		},
	} {
		cfg := w.Config()
		change(&cfg)
		if _, err := query.New(cfg); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	s, err := query.New(w.Config())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context(), l); err == nil {
		t.Error("Run serves without TLS")
	}
}
