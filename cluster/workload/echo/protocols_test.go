package echo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
)

func dialRPC(t testing.TB, addr string) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("web.example:80"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

func TestGRPC(t *testing.T) {
	t.Parallel()
	s, addr := run(t, Settings{})
	cc := dialRPC(t, addr)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-one", "1", "x-one", "2", "x-echo-set-header", "x-back: v1")
	for _, method := range []string{
		"/causeway.v1.Echo/Echo", "/gateway_api_conformance.echo_basic.grpcecho.GrpcEcho/Echo", "/gateway_api_conformance.echo_basic.grpcecho.GrpcEcho/EchoTwo", "/any.Service/Method",
	} {
		var header metadata.MD
		out := &causewayv1.EchoResponse{}
		if err := cc.Invoke(ctx, method, &causewayv1.EchoRequest{Message: "hello"}, out, grpc.Header(&header)); err != nil {
			t.Fatal(method, err)
		}
		a := FromRPC(out)
		if a.Identity != me || a.Path != method || a.Host != "web.example:80" || "/"+a.GRPC.Service+"/"+a.GRPC.Method != method ||
			fmt.Sprint(a.Headers["X-One"]) != "[1 2]" || a.Data == nil || a.Data.Data != "hello" || a.TLS != nil {
			t.Errorf("%s: %+v", method, a)
		}
		if fmt.Sprint(header.Get("x-back")) != "[v1]" {
			t.Errorf("%s: %v", method, header)
		}
	}
	// A request of another message is no reason to fail.
	if err := cc.Invoke(ctx, "/any.Service/Method", wrapperspb.Int64(7), &causewayv1.EchoResponse{}); err != nil {
		t.Error(err)
	}
	err := cc.Invoke(ctx, "/gateway_api_conformance.echo_basic.grpcecho.GrpcEcho/EchoThree", &causewayv1.EchoRequest{}, &causewayv1.EchoResponse{})
	if status.Code(err) != codes.Unimplemented {
		t.Error("EchoThree:", err)
	}
	call := func(req *causewayv1.EchoRequest) codes.Code {
		return status.Code(cc.Invoke(ctx, "/causeway.v1.Echo/Echo", req, &causewayv1.EchoResponse{}))
	}
	if got := call(&causewayv1.EchoRequest{Code: int32(codes.Aborted)}); got != codes.Aborted {
		t.Error("asked for Aborted:", got)
	}
	if got := call(&causewayv1.EchoRequest{Delay: durationpb.New(time.Hour)}); got != codes.InvalidArgument {
		t.Error("a delay over the bound:", got)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := cc.Invoke(short, "/causeway.v1.Echo/Echo", &causewayv1.EchoRequest{Delay: durationpb.New(time.Minute)}, &causewayv1.EchoResponse{}); status.Code(err) != codes.DeadlineExceeded {
		t.Error("the client's deadline:", err)
	}
	s.Set(Settings{Fail: http.StatusServiceUnavailable})
	if got := call(&causewayv1.EchoRequest{}); got != codes.Unavailable {
		t.Error("fails as 503:", got)
	}
}

func TestReflection(t *testing.T) {
	t.Parallel()
	_, addr := run(t, Settings{})
	stream, err := reflectionv1.NewServerReflectionClient(dialRPC(t, addr)).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil || !strings.Contains(answer.String(), "causeway.v1.Echo") {
		t.Error(answer, err)
	}
}

// Our messages are those of Gateway API's echo-basic on the wire, as far as it
// has them: their numbers are not ours to change.
func TestWireOfEchoBasic(t *testing.T) {
	got := map[string]int32{}
	for _, m := range []proto.Message{&causewayv1.EchoResponse{}, &causewayv1.EchoAssertions{}, &causewayv1.EchoHeader{}, &causewayv1.EchoContext{}, &causewayv1.EchoTLS{}, &causewayv1.EchoRequest{}} {
		d := m.ProtoReflect().Descriptor()
		for i := range d.Fields().Len() {
			if f := d.Fields().Get(i); f.Number() < 100 {
				got[string(d.Name())+"."+string(f.Name())] = int32(f.Number())
			}
		}
	}
	want := map[string]int32{
		"EchoResponse.assertions": 1, "EchoResponse.request": 2,
		"EchoAssertions.fully_qualified_method": 1, "EchoAssertions.headers": 2, "EchoAssertions.authority": 3, "EchoAssertions.context": 4, "EchoAssertions.tls_assertions": 5,
		"EchoHeader.key": 1, "EchoHeader.value": 2,
		"EchoContext.namespace": 1, "EchoContext.ingress": 2, "EchoContext.service_name": 3, "EchoContext.pod": 4,
		"EchoTLS.version": 1, "EchoTLS.negotiated_protocol": 2, "EchoTLS.server_name": 3, "EchoTLS.cipher_suite": 4,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	s, addr := run(t, Settings{})
	plain, resp, err := websocket.DefaultDialer.Dial("ws://"+addr+"/ws", http.Header{"X-Echo-Set-Header": {"x-back: v1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if resp.Header.Get("X-Back") != "v1" {
		t.Error(resp.Header)
	}
	for _, kind := range []int{websocket.TextMessage, websocket.BinaryMessage} {
		_ = plain.WriteMessage(kind, []byte("hello"))
		if got, message, err := plain.ReadMessage(); got != kind || string(message) != "hello" || err != nil {
			t.Errorf("message came back as %d %q %v", got, message, err)
		}
	}
	dialer := &websocket.Dialer{Subprotocols: []string{Subprotocol}}
	telling, _, err := dialer.Dial("ws://"+addr+"/any?x=1", http.Header{"X-One": {"1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer telling.Close()
	_ = telling.WriteMessage(websocket.TextMessage, []byte("hello"))
	var e HTTP
	if err := telling.ReadJSON(&e); err != nil || e.Identity != me || e.Path != "/any?x=1" || e.Headers["X-One"][0] != "1" || e.Data == nil || e.Data.Data != "hello" {
		t.Errorf("%+v %v", e, err)
	}
	// A message over the bound ends the connection.
	_ = telling.WriteMessage(websocket.BinaryMessage, make([]byte, maxMessage+1))
	if _, _, err := telling.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseMessageTooBig) {
		t.Error(err)
	}
	// The end of the pod is said.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s.Shutdown(ctx)
	if _, _, err := plain.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseGoingAway) {
		t.Error(err)
	}
}

func TestPackets(t *testing.T) {
	t.Parallel()
	s := newServer(t, Settings{})
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.ServePackets(c) }()
	conn, err := net.Dial("udp", c.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	buf := make([]byte, maxPacket)
	ask := func(data []byte) (e Stream) {
		t.Helper()
		if _, err := conn.Write(data); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(buf[:n], &e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	for _, slow := range []time.Duration{0, time.Millisecond} {
		s.Set(Settings{Service: "web", Slow: slow})
		if got := ask([]byte("hello")); got != (Stream{Protocol: "UDP", Identity: me, Data: Data{Data: "hello"}}) {
			t.Errorf("%+v", got)
		}
	}
	if got := ask(make([]byte, 65000)); !got.Truncated || got.Identity != me || !strings.HasPrefix(got.Data.Data, "\x00\x00") {
		t.Errorf("%+v", got)
	}
	s.Shutdown(t.Context())
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A language once told stays, whatever follows; and until it is told, each
// further byte may tell it.
func TestClassifyIsMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := []byte(rapid.OneOf(
			rapid.StringMatching(`(GET|PRI|POST|PURGE|HELLO|hello|A-B|) ?[/*]?[a-z ]{0,5}(HTTP/1.1)?(\r\n)?`),
			rapid.Just(preface), rapid.Just("\x16\x03\x01\x02"), rapid.String(),
		).Draw(t, "bytes"))
		told := unclear
		for i := range len(b) + 1 {
			l := classify(b[:i])
			if told != unclear && l != told {
				t.Fatalf("%q is %d, %q is %d", b[:i-1], told, b[:i], l)
			}
			told = l
		}
		if len(b) > 2*len(preface) && told == unclear {
			t.Fatalf("%q is still unclear", b)
		}
	})
}

func TestFailingStreams(t *testing.T) {
	t.Parallel()
	_, addr := run(t, Settings{Fail: http.StatusInternalServerError})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "hello\n")
	if rest, _ := io.ReadAll(conn); len(rest) > 0 {
		t.Errorf("%q", rest)
	}
	if _, resp, err := websocket.DefaultDialer.Dial("ws://"+addr, nil); err == nil || resp == nil || resp.StatusCode != http.StatusInternalServerError {
		t.Errorf("%v %v", resp, err)
	}
}
