package translate

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// health answers SERVING, and repeats what it was sent in response headers.
type health struct {
	healthv1.UnimplementedHealthServer
}

func (health) Check(ctx context.Context, _ *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	in, _ := metadata.FromIncomingContext(ctx)
	out := metadata.Pairs("x-from", "health", "x-host", strings.Join(in.Get(":authority"), ","), "x-set", strings.Join(in.Get("x-set"), ","))
	if d, ok := ctx.Deadline(); ok {
		out.Set("x-left", time.Until(d).String())
	}
	_ = grpc.SetHeader(ctx, out)
	return &healthv1.HealthCheckResponse{Status: healthv1.HealthCheckResponse_SERVING}, nil
}

func (health) Watch(_ *healthv1.HealthCheckRequest, s grpc.ServerStreamingServer[healthv1.HealthCheckResponse]) error {
	for range 3 {
		if err := s.Send(&healthv1.HealthCheckResponse{}); err != nil {
			return err
		}
	}
	return status.Error(codes.ResourceExhausted, "that was all")
}

func serveGRPC(t *testing.T, register func(*grpc.Server)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	register(s)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// Rules of GRPCRoutes, and the gRPC status of what they can't serve.
func TestGRPCInEnvoy(t *testing.T) {
	w := newWorld(t, "east")
	at := serveGRPC(t, func(s *grpc.Server) { healthv1.RegisterHealthServer(s, health{}) })
	grpcTo := func(name string) resolve.WeightedBackend {
		b := to(name, 1)
		b.Backend.HTTP2 = true
		return b
	}
	backend := func(name string, at ...netip.AddrPort) *resolve.Backend {
		b := service(name, resolve.AppH2C, at...)
		b.Key.HTTP2 = true
		return b
	}
	invalid := grpcTo("nowhere")
	invalid.Invalid = "there is none"
	var rules []*resolve.Rule
	rule := func(header string, change func(*resolve.Rule), backends ...resolve.WeightedBackend) {
		r := prefixRule("g", len(rules), "/", backends...)
		r.Route.Kind = cluster.KindGRPCRoute
		r.Match.Method = "POST"
		r.Match.Headers = []resolve.ValueMatch{{Name: "x-case", Value: header}}
		if change != nil {
			change(r)
		}
		rules = append(rules, r)
	}
	rule("method", func(r *resolve.Rule) {
		r.Match.PathType, r.Match.Path = resolve.PathExact, "/grpc.health.v1.Health/Check"
		r.Filters.Request.Set = []resolve.Header{{Name: "x-set", Value: "1"}}
	}, grpcTo("h"))
	rule("all", nil, grpcTo("h"))
	rule("invalid", func(r *resolve.Rule) { r.Invalid = "there is none" })
	rule("half", nil, grpcTo("h"), invalid)
	rule("only", nil, invalid)
	rule("closed", nil, grpcTo("closed"))
	rule("bad", func(r *resolve.Rule) { r.Filters.Request.Set = []resolve.Header{{Name: "x", Value: "\n"}} }, grpcTo("h"))
	rule("sticky", func(r *resolve.Rule) { r.Session = &resolve.Session{Name: "s"} }, grpcTo("h"))
	// The same port by HTTP/1.1 for HTTPRoutes: the keys are different.
	r, front := w.sidecarFor(rules, backend("h", at), backend("closed", closedPort(t)), service("h", resolve.AppTCP, at))
	conn, err := grpc.NewClient("passthrough:///"+front.String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("svc.app"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := healthv1.NewHealthClient(conn)
	call := func(name string, timeout time.Duration) (metadata.MD, codes.Code) {
		t.Helper()
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "x-case", name), timeout)
		defer cancel()
		var head metadata.MD
		_, err := c.Check(ctx, &healthv1.HealthCheckRequest{}, grpc.Header(&head))
		return head, status.Code(err)
	}
	head, code := call("method", 7*time.Second)
	if code != codes.OK || head.Get("x-from") == nil || head.Get("x-set")[0] != "1" || head.Get("x-host")[0] != "svc.app" {
		t.Errorf("%v %v", code, head)
	}
	if left, err := time.ParseDuration(strings.Join(head.Get("x-left"), "")); err != nil || left > 7*time.Second || left < 3*time.Second {
		t.Errorf("the client's deadline of 7s reaches the backend as %v %v", left, err)
	}
	if got := head.Get(HeaderUpstream); len(got) != 1 || !strings.HasPrefix(got[0], "Service/app/h/80+http2; cluster=east; pod=h-0") {
		t.Errorf("%s: %q", HeaderUpstream, got)
	}
	for name, want := range map[string]codes.Code{
		"all": codes.OK, "sticky": codes.OK, "unknown": codes.Unimplemented,
		"invalid": codes.Unavailable, "only": codes.Unavailable, "closed": codes.Unavailable, "bad": codes.Unavailable,
	} {
		if _, code := call(name, 10*time.Second); code != want {
			t.Errorf("%s: %v, want %v", name, code, want)
		}
	}
	counts := map[codes.Code]int{}
	for range 200 {
		_, code := call("half", 10*time.Second)
		counts[code]++
	}
	if counts[codes.OK]+counts[codes.Unavailable] != 200 || !close5(counts[codes.OK], 200, 0.5) {
		t.Errorf("half of the share is invalid, and the statuses are %v", counts)
	}
	watch := func(name string) (n int, code codes.Code) {
		s, err := c.Watch(metadata.AppendToOutgoingContext(t.Context(), "x-case", name), &healthv1.HealthCheckRequest{})
		for ; err == nil; n++ {
			_, err = s.Recv()
		}
		return n - 1, status.Code(err)
	}
	if n, code := watch("all"); n != 3 || code != codes.ResourceExhausted {
		t.Errorf("a stream of 3 messages gives %d and %v", n, code)
	}
	if _, code := watch("method"); code != codes.Unimplemented {
		t.Errorf("another method: %v", code)
	}
	r.accepted(t)
}
