package differential

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve/resolvetest"
)

// Pods say whether requests may go on (ExternalAuth): they refuse what has refused in
// its path. Over HTTP only what is asked below authPath is a question. Answers name the
// pod in a header.
const (
	authPath   = "/authz"
	refused    = "b"
	authHeader = "x-auth-by"
)

// seen is what a pod saw of a request, connection or datagram; it answers with it.
type seen struct {
	Address string
	// HTTP is false for bytes and datagrams, of which nothing but these two is known.
	HTTP bool
	TLS  *string // the server name of the TLS that came as far as the pod
	// Of requests.
	Method, URI, Host string
	Headers           http.Header
}

// pods are servers on addresses of their own, all on one port, that take whatever
// comes: HTTP/1.1 and HTTP/2, bytes, either of them over TLS, datagrams, and questions
// whether requests may go on. Bytes begin with a lower case letter.
type pods struct {
	port  uint16
	addrs map[cluster.ID][]netip.Addr
	next  map[cluster.ID]int

	tls   *tls.Config
	conns chan net.Conn // of HTTP
	mu    sync.Mutex
	open  map[net.Conn]struct{}
}

// newPods listens on n addresses for each cluster.
func newPods(t *testing.T, own block, n int, clusters ...cluster.ID) *pods {
	t.Helper()
	p := &pods{addrs: map[cluster.ID][]netip.Addr{}, next: map[cluster.ID]int{}, conns: make(chan net.Conn), open: map[net.Conn]struct{}{}}
	cert, err := tls.X509KeyPair(resolvetest.PEM(t, "pods"))
	if err != nil {
		t.Fatal(err)
	}
	p.tls = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	ctx, cancel := context.WithCancel(context.Background())
	asked := grpc.NewServer()
	authv3.RegisterAuthorizationServer(asked, authorizer{})
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	s := &http.Server{Protocols: &both, ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.HasPrefix(req.URL.Path, "/envoy.service.auth.v3.") {
			asked.ServeHTTP(w, req)
			return
		}
		p.answer(w, req)
	}), ConnContext: func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, podConn{}, c)
	}}
	go func() { _ = s.Serve(&queue{p.conns, ctx}) }()
	t.Cleanup(func() {
		cancel()
		_ = s.Close()
	})
	for i, c := range clusters {
		for j := range n {
			at := netip.AddrPortFrom(own.pod(i, j), p.port)
			l, err := net.Listen("tcp", at.String())
			if err != nil {
				t.Fatal(err)
			}
			at = l.Addr().(*net.TCPAddr).AddrPort()
			p.port = at.Port()
			u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _, _ = l.Close(), u.Close() })
			go p.accept(ctx, l)
			go echo(u)
			p.addrs[c] = append(p.addrs[c], at.Addr())
		}
	}
	return p
}

// take gives n addresses, in turns.
func (p *pods) take(c cluster.ID, n int) []netip.Addr {
	var out []netip.Addr
	for range n {
		out = append(out, p.addrs[c][p.next[c]%len(p.addrs[c])])
		p.next[c]++
	}
	return out
}

// podConn is a connection whose first byte has been looked at. It is also the key of
// the connection in the context of requests.
type podConn struct {
	net.Conn
	r   *bufio.Reader
	tls *string
}

func (c podConn) Read(b []byte) (int, error) { return c.r.Read(b) }

// queue is the Listener of what turned out to be HTTP.
type queue struct {
	conns chan net.Conn
	ctx   context.Context //nolint:containedctx // a Listener has no other
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.ctx.Done():
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error   { return nil }
func (q *queue) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pods) accept(ctx context.Context, l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		p.open[c] = struct{}{}
		p.mu.Unlock()
		go p.serve(ctx, podConn{Conn: c, r: bufio.NewReader(c)})
	}
}

// hangUp closes all connections: those that lead through a crossing gateway stay with
// their pod for as long as they last, whatever has become of it.
func (p *pods) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		_ = c.Close()
	}
	clear(p.open)
}

// serve finds out what a connection carries.
func (p *pods) serve(ctx context.Context, c podConn) {
	const handshake = 0x16
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	first, err := c.r.Peek(1)
	switch {
	case err != nil:
		_ = c.Close()
	case first[0] == handshake && c.tls == nil:
		inner := tls.Server(c, p.tls)
		if inner.HandshakeContext(ctx) != nil {
			_ = c.Close()
			return
		}
		name := inner.ConnectionState().ServerName
		p.serve(ctx, podConn{Conn: inner, r: bufio.NewReader(inner), tls: &name})
	case first[0] >= 'A' && first[0] <= 'Z':
		_ = c.SetDeadline(time.Time{})
		select {
		case p.conns <- c:
		case <-ctx.Done():
			_ = c.Close()
		}
	default:
		if _, err := c.r.ReadString('\n'); err == nil {
			_ = json.NewEncoder(c).Encode(seen{Address: c.LocalAddr().String(), TLS: c.tls})
		}
		_ = c.Close()
	}
}

func echo(u *net.UDPConn) {
	buf := make([]byte, 2048)
	for {
		_, from, err := u.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		b, _ := json.Marshal(seen{Address: u.LocalAddr().String()})
		_, _ = u.WriteToUDPAddrPort(b, from)
	}
}

// localAddress is the pod's, from the context of a request.
func localAddress(ctx context.Context) string {
	a, _ := ctx.Value(http.LocalAddrContextKey).(net.Addr)
	return a.String()
}

func (p *pods) answer(w http.ResponseWriter, req *http.Request) {
	_, _ = io.Copy(io.Discard, req.Body)
	at := localAddress(req.Context())
	w.Header().Set("x-r", "backend")
	w.Header().Set("x-r-drop", "backend")
	w.Header().Set(authHeader, at)
	if strings.HasPrefix(req.RequestURI, authPath+"/") && refuses(req.RequestURI) {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	c, _ := req.Context().Value(podConn{}).(podConn)
	_ = json.NewEncoder(w).Encode(seen{Address: at, HTTP: true, TLS: c.tls, Method: req.Method, URI: req.RequestURI, Host: req.Host, Headers: req.Header})
}

func refuses(uri string) bool {
	path, _, _ := strings.Cut(uri, "?")
	return strings.Contains(path, refused)
}

// authorizer is asked over gRPC.
type authorizer struct {
	authv3.UnimplementedAuthorizationServer
}

func (authorizer) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	by := []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: authHeader, Value: localAddress(ctx)}, AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD}}
	if refuses(req.GetAttributes().GetRequest().GetHttp().GetPath()) {
		return &authv3.CheckResponse{Status: &status.Status{Code: int32(codes.PermissionDenied)}, HttpResponse: &authv3.CheckResponse_DeniedResponse{
			DeniedResponse: &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: typev3.StatusCode_Forbidden}, Headers: by},
		}}, nil
	}
	return &authv3.CheckResponse{Status: &status.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{Headers: by}}}, nil
}
