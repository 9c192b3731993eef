package query

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
)

const drainTime = 2 * time.Second

// Run serves on l, with mTLS, until ctx ends; it then gives running calls two
// seconds, ends all Watches, and returns nil. It closes l. Call it once.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	if s.cfg.SVID == nil || s.cfg.Bundles == nil {
		_ = l.Close()
		return errors.New("query API: SVID and Bundles are needed to serve")
	}
	g := grpc.NewServer(append(s.Options(), grpc.Creds(credentials.NewTLS(s.TLS())))...)
	s.Register(g)

	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	select {
	case err := <-served:
		close(s.stopping)
		g.Stop()
		return fmt.Errorf("serve the query API on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	close(s.stopping)
	force := time.AfterFunc(drainTime, g.Stop)
	defer force.Stop()
	g.GracefulStop()
	if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve the query API on %s: %w", l.Addr(), err)
	}
	return nil
}

// Options gives the interceptors and bounds without which Register's services
// refuse every call. Run uses them; a caller with a gRPC server of its own must
// pass them to it, beside credentials made of TLS.
func (s *Server) Options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxRequestBytes),
		grpc.MaxConcurrentStreams(1000),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(s.unary),
		grpc.ChainStreamInterceptor(s.stream),
	}
}

// Register adds the query API, health and reflection (v1 and v1alpha, so that
// every grpcurl works) to a server that was made with Options.
func (s *Server) Register(g *grpc.Server) {
	causewayv1.RegisterFederationServer(g, service{Server: s})
	healthpb.RegisterHealthServer(g, &health{s: s})
	reflection.Register(g)
}

// service keeps the RPC methods off Server's own method set.
type service struct {
	causewayv1.UnimplementedFederationServer
	*Server
}

// admit tells who calls and what they may see.
func (s *Server) admit(ctx context.Context) (context.Context, Caller, error) {
	caller, err := s.authenticate(ctx)
	if err != nil {
		return nil, caller, err
	}
	scope, err := s.cfg.Authorize(caller)
	if err != nil {
		return nil, caller, fmt.Errorf("%w: %s: %w", errForbidden, caller.Name, err)
	}
	return withScope(ctx, scope), caller, nil
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (answer any, err error) {
	start, caller, limit := time.Now(), Caller{}, s.cfg.Timeout
	defer func() {
		if p := recover(); p != nil {
			err = s.panicked(info.FullMethod, p)
		}
		s.finish(info.FullMethod, caller, start, err)
		if limit == s.cfg.Timeout {
			s.metrics.duration.WithLabelValues(method(info.FullMethod)).Observe(time.Since(start).Seconds())
		}
		err = asStatus(err)
	}()
	ctx, caller, err = s.admit(ctx)
	if err != nil {
		return nil, err
	}
	if r, ok := req.(*causewayv1.GetStatusRequest); ok && r.GetWait() != nil {
		limit += r.GetWait().AsDuration()
	}
	ctx, cancel := context.WithTimeout(ctx, min(limit, maxWait+s.cfg.Timeout))
	defer cancel()
	return handler(ctx, req)
}

func (s *Server) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	start, caller := time.Now(), Caller{}
	defer func() {
		if p := recover(); p != nil {
			err = s.panicked(info.FullMethod, p)
		}
		s.finish(info.FullMethod, caller, start, err)
		err = asStatus(err)
	}()
	ctx, caller, err := s.admit(stream.Context())
	if err != nil {
		return err
	}
	if caller.Bearer != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, maxTokenStream, errTokenOld)
		defer cancel()
	}
	err = handler(srv, &scopedStream{ServerStream: stream, ctx: ctx})
	if err != nil && errors.Is(context.Cause(ctx), errTokenOld) {
		return errTokenOld
	}
	return err
}

// scopedStream carries the Scope in its context.
type scopedStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *scopedStream) Context() context.Context { return s.ctx }

func (s *Server) panicked(fullMethod string, p any) error {
	s.metrics.panics.Inc()
	s.cfg.Logger.Error("panic in the query API", "method", fullMethod, "panic", p, "stack", string(debug.Stack()))
	return errPanic
}

func (s *Server) finish(fullMethod string, caller Caller, start time.Time, err error) {
	code := codeOf(err)
	s.metrics.requests.WithLabelValues(method(fullMethod), code.String()).Inc()
	level := slog.LevelDebug
	if code == codes.Unauthenticated || code == codes.PermissionDenied || code == codes.Unknown {
		level = slog.LevelWarn
	}
	args := []any{"method", method(fullMethod), "caller", caller.Name, "code", code.String(), "took", time.Since(start)}
	if err != nil {
		args = append(args, "error", err)
	}
	s.cfg.Logger.Log(context.Background(), level, "query", args...)
}

func method(full string) string { return full[strings.LastIndexByte(full, '/')+1:] }

// health says SERVING as soon as there is something to ask about.
type health struct {
	healthpb.UnimplementedHealthServer
	s *Server
}

func (h *health) status() healthpb.HealthCheckResponse_ServingStatus {
	for _, v := range h.s.cfg.Views() {
		if v.Result != nil {
			return healthpb.HealthCheckResponse_SERVING
		}
	}
	return healthpb.HealthCheckResponse_NOT_SERVING
}

func known(service string) bool {
	return service == "" || service == causewayv1.Federation_ServiceDesc.ServiceName
}

// Check implements grpc.health.v1.
func (h *health) Check(_ context.Context, r *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if !known(r.GetService()) {
		return nil, notFoundf("no service %.100q here", r.GetService())
	}
	return &healthpb.HealthCheckResponse{Status: h.status()}, nil
}

// List implements grpc.health.v1.
func (h *health) List(context.Context, *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	now := &healthpb.HealthCheckResponse{Status: h.status()}
	return &healthpb.HealthListResponse{Statuses: map[string]*healthpb.HealthCheckResponse{
		"": now, causewayv1.Federation_ServiceDesc.ServiceName: now,
	}}, nil
}

// Watch implements grpc.health.v1.
func (h *health) Watch(r *healthpb.HealthCheckRequest, stream grpc.ServerStreamingServer[healthpb.HealthCheckResponse]) error {
	sent := healthpb.HealthCheckResponse_UNKNOWN
	for {
		changed := h.s.cfg.Changed()
		now := healthpb.HealthCheckResponse_SERVICE_UNKNOWN // as the protocol has it for names it doesn't know
		if known(r.GetService()) {
			now = h.status()
		}
		if now != sent {
			if err := stream.Send(&healthpb.HealthCheckResponse{Status: now}); err != nil {
				return err
			}
			sent = now
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-h.s.stopping:
			return errStopping
		}
	}
}
