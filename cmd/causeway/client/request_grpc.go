package client

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/cluster/workload/echo"
)

// frameHeader is what comes before each message of gRPC: whether it is
// compressed, and its length.
const frameHeader = 5

// rpcs are unary calls. They are made by hand, not with gRPC's client, which
// hides what an Envoy has answered.
func (r *requester) rpcs(t target, w wire) (call, func(), error) {
	path := t.url.Path
	if path == "" || path == "/" {
		path = causewayv1.Echo_Echo_FullMethodName
	}
	service, method, ok := strings.Cut(path[1:], "/")
	if !ok || service == "" || method == "" || strings.Contains(method, "/") {
		return nil, nil, fmt.Errorf("URL %s: the method must be /package.Service/Method", t.url)
	}
	message := &causewayv1.EchoRequest{}
	if r.data != "" {
		if err := protojson.Unmarshal([]byte(r.data), message); err != nil {
			// Not with its text, which differs from build to build.
			return nil, nil, fmt.Errorf("-d must be the JSON of a %s, such as {\"message\": \"hello\"}", message.ProtoReflect().Descriptor().FullName())
		}
	}
	data, err := proto.Marshal(message)
	if err != nil {
		return nil, nil, fmt.Errorf("-d: %w", err)
	}
	frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(data))), data...)
	u := url.URL{Scheme: "http", Host: t.url.Host, Path: path}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(!t.TLS())
	protocols.SetHTTP2(t.TLS())
	if t.TLS() {
		u.Scheme = "https"
	}
	exchange, done := w.exchanges(r, protocols)
	return func(ctx context.Context) Answer {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(frame))
		if err != nil {
			return none(err)
		}
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("Te", "trailers")
		addHeaders(req, w.headers)
		a, data, err := exchange(req)
		if err != nil {
			return none(err)
		}
		return rpcAnswer(a, data)
	}, done, nil
}

// rpcAnswer reads an answer of gRPC, or shows another as what it is.
func rpcAnswer(a Answer, data []byte) Answer {
	end := http.Header(a.Trailers)
	if end.Get("Grpc-Status") == "" { // there may be trailers alone, which come as headers
		end = a.Headers
	}
	status, message := end.Get("Grpc-Status"), end.Get("Grpc-Message")
	code, err := strconv.ParseUint(status, 10, 32)
	if err != nil {
		a.Body = bodyJSON(data)
		return a
	}
	if text, err := url.PathUnescape(message); err == nil {
		message = text
	}
	a.GRPC = &RPCStatus{Code: int(code), Name: codeName(codes.Code(code)), Message: message}
	a.Result = a.GRPC.Name
	a.Body = json.RawMessage(`""`)
	if len(data) == 0 {
		return a
	}
	body, err := rpcBody(data)
	if err != nil {
		return none(fmt.Errorf("read the answer with status %s: %w", a.GRPC.Name, err))
	}
	a.Body = body
	return a
}

// rpcBody is the JSON of an echo server's message, or a string with the bytes of
// another's.
func rpcBody(data []byte) (json.RawMessage, error) {
	if len(data) < frameHeader {
		return nil, errors.New("it ends within a message")
	}
	if data[0] != 0 {
		return nil, errors.New("it is compressed, although nobody has asked for that")
	}
	size := binary.BigEndian.Uint32(data[1:frameHeader])
	data = data[frameHeader:]
	if uint64(size) > uint64(len(data)) {
		return nil, errors.New("it ends within a message")
	}
	var message causewayv1.EchoResponse
	if err := proto.Unmarshal(data[:size], &message); err != nil || message.GetAssertions().GetContext() == nil {
		return json.Marshal(data[:size]) // in base64
	}
	return json.Marshal(echo.FromRPC(&message))
}

// codeName is how gRPC's documentation spells a code.
func codeName(c codes.Code) string {
	var b strings.Builder
	for i, r := range c.String() {
		if i > 0 && r >= 'A' && r <= 'Z' && c != codes.OK {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String())
}
