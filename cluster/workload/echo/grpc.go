package echo

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
)

// unimplemented is the method of Gateway API's echo-basic that is there to be missed.
const unimplemented = "/gateway_api_conformance.echo_basic.grpcecho.GrpcEcho/EchoThree"

// newGRPC makes the server that answers RPCs: those of causeway.v1.Echo, which
// reflection shows, and all others in the same way.
func (s *Server) newGRPC() *grpc.Server {
	g := grpc.NewServer(grpc.UnknownServiceHandler(s.anyMethod), grpc.MaxRecvMsgSize(maxMessage))
	causewayv1.RegisterEchoServer(g, echoServer{s: s})
	reflection.Register(g)
	return g
}

type echoServer struct {
	causewayv1.UnimplementedEchoServer
	s *Server
}

// Echo implements causeway.v1.Echo.
func (e echoServer) Echo(ctx context.Context, req *causewayv1.EchoRequest) (*causewayv1.EchoResponse, error) {
	return e.s.rpc(ctx, req)
}

// anyMethod answers methods that are not known here. Their requests may be of
// any message, so only what fits is read.
func (s *Server) anyMethod(_ any, stream grpc.ServerStream) error {
	var in emptypb.Empty // it keeps what it does not know
	if err := stream.RecvMsg(&in); err != nil {
		return err
	}
	req := &causewayv1.EchoRequest{}
	if err := proto.Unmarshal(in.ProtoReflect().GetUnknown(), req); err != nil {
		req.Reset()
	}
	out, err := s.rpc(stream.Context(), req)
	if err != nil {
		return err
	}
	return stream.SendMsg(out)
}

// rpc answers one call.
func (s *Server) rpc(ctx context.Context, req *causewayv1.EchoRequest) (*causewayv1.EchoResponse, error) {
	set := s.settings.Load()
	method, _ := grpc.Method(ctx)
	in, _ := metadata.FromIncomingContext(ctx)
	request := http.Header{"X-Echo-Set-Header": in.Get("x-echo-set-header")}
	wanted := http.Header{}
	setHeaders(wanted, request)
	out := metadata.MD{}
	for name, values := range wanted {
		out.Append(strings.ToLower(name), values...)
	}
	if err := grpc.SetHeader(ctx, out); err != nil {
		return nil, err
	}
	wait := set.Slow
	if req.GetDelay() != nil {
		if err := req.GetDelay().CheckValid(); err != nil || req.GetDelay().AsDuration() < 0 || req.GetDelay().AsDuration() > maxDelay {
			return nil, status.Errorf(codes.InvalidArgument, "delay must be from 0s to %s", maxDelay)
		}
		wait += req.GetDelay().AsDuration()
	}
	if !pause(ctx, wait) {
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	me := s.identity()
	switch {
	case set.Fail != 0:
		return nil, status.Errorf(codeOf(set.Fail), "%s/%s in cluster %s fails on purpose, as with HTTP status %d", me.Namespace, me.Pod, me.Cluster, set.Fail)
	case method == unimplemented:
		return nil, status.Error(codes.Unimplemented, "this method is there to be missed")
	case req.GetCode() != 0:
		return nil, status.Errorf(codes.Code(uint32(req.GetCode())), "%s/%s in cluster %s answers as it was asked to", me.Namespace, me.Pod, me.Cluster)
	}
	seen := &causewayv1.EchoAssertions{
		FullyQualifiedMethod: method, Authority: strings.Join(in.Get(":authority"), ","),
		Context: &causewayv1.EchoContext{Namespace: me.Namespace, ServiceName: me.Service, Pod: me.Pod, Cluster: me.Cluster},
	}
	for name, values := range in {
		for _, v := range values {
			if strings.HasSuffix(name, "-bin") {
				v = base64Text([]byte(v))
			}
			seen.Headers = append(seen.Headers, &causewayv1.EchoHeader{Key: name, Value: strings.ToValidUTF8(v, "\uFFFD")})
		}
	}
	slices.SortStableFunc(seen.Headers, func(a, b *causewayv1.EchoHeader) int { return strings.Compare(a.GetKey(), b.GetKey()) })
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			seen.TlsAssertions = tlsMessage(tlsOf(&info.State))
		}
	}
	return &causewayv1.EchoResponse{Assertions: seen, Request: req}, nil
}

func tlsMessage(t *TLS) *causewayv1.EchoTLS {
	out := &causewayv1.EchoTLS{Version: t.Version, NegotiatedProtocol: t.NegotiatedProtocol, ServerName: t.ServerName, CipherSuite: t.CipherSuite}
	if t.Client != nil {
		out.ClientSubject, out.ClientUris, out.ClientDnsNames = t.Client.Subject, t.Client.URIs, t.Client.DNSNames
	}
	return out
}

// FromRPC gives the answer to an RPC in the form of one to a request.
func FromRPC(r *causewayv1.EchoResponse) HTTP {
	a := r.GetAssertions()
	service, method, _ := strings.Cut(strings.TrimPrefix(a.GetFullyQualifiedMethod(), "/"), "/")
	out := HTTP{
		Path: a.GetFullyQualifiedMethod(), Host: a.GetAuthority(), Method: http.MethodPost, Proto: "HTTP/2.0", Headers: map[string][]string{},
		Identity: Identity{Namespace: a.GetContext().GetNamespace(), Ingress: a.GetContext().GetIngress(), Service: a.GetContext().GetServiceName(), Pod: a.GetContext().GetPod(), Cluster: a.GetContext().GetCluster()},
		GRPC:     &GRPC{Service: service, Method: method},
	}
	for _, h := range a.GetHeaders() {
		if strings.HasPrefix(h.GetKey(), ":") {
			continue
		}
		name := http.CanonicalHeaderKey(h.GetKey())
		out.Headers[name] = append(out.Headers[name], h.GetValue())
	}
	if t := a.GetTlsAssertions(); t != nil {
		out.TLS = &TLS{Version: t.GetVersion(), ServerName: t.GetServerName(), NegotiatedProtocol: t.GetNegotiatedProtocol(), CipherSuite: t.GetCipherSuite()}
		if t.GetClientSubject() != "" || len(t.GetClientUris())+len(t.GetClientDnsNames()) > 0 {
			out.TLS.Client = &Client{Subject: t.GetClientSubject(), URIs: t.GetClientUris(), DNSNames: t.GetClientDnsNames()}
		}
	}
	if m := r.GetRequest().GetMessage(); m != "" {
		out.Data = &Data{Data: m}
	}
	return out
}

// codeOf is the code that gRPC gives an HTTP status (its doc/http-grpc-status-mapping.md).
func codeOf(status int) codes.Code {
	switch status {
	case http.StatusBadRequest:
		return codes.Internal
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusNotFound:
		return codes.Unimplemented
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return codes.Unavailable
	}
	return codes.Unknown
}
