package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"github.com/causeway-mesh/causeway/cluster/workload/echo"
)

// defaultMessage is sent where there is no -d.
const defaultMessage = "hello"

// webSockets open a connection each, send a message and take the first one.
func (r *requester) webSockets(t target, w wire) call {
	return func(ctx context.Context) Answer {
		var seen *TLSSeen
		dial := func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
			conn, seen, err = w.open(ctx, "tcp")
			return conn, err
		}
		d := &websocket.Dialer{
			NetDialContext: dial, NetDialTLSContext: dial,
			Subprotocols: []string{echo.Subprotocol}, // echo servers tell of themselves then
		}
		request := http.Header{"User-Agent": {"causeway"}}
		for _, h := range w.headers {
			if strings.EqualFold(h.name, "User-Agent") {
				request.Set(h.name, h.value)
			} else {
				request.Add(h.name, h.value)
			}
		}
		ws, resp, err := d.DialContext(ctx, t.url.String(), request)
		if err != nil && !errors.Is(err, websocket.ErrBadHandshake) { // that one has an answer
			return none(err)
		}
		defer func() { _ = resp.Body.Close() }()
		a := answerOf(resp)
		a.TLS = seen
		if err != nil {
			data, _ := io.ReadAll(resp.Body) // the library keeps its beginning
			a.Body = bodyJSON(data)
			return a
		}
		defer ws.Close()
		if until, ok := ctx.Deadline(); ok {
			_ = ws.SetReadDeadline(until)
			_ = ws.SetWriteDeadline(until)
		}
		ended := context.AfterFunc(ctx, func() { _ = ws.Close() })
		defer ended()
		ws.SetReadLimit(maxBodyBytes)
		if err := ws.WriteMessage(websocket.TextMessage, []byte(r.message())); err != nil {
			return none(fmt.Errorf("send a message: %w", err))
		}
		_, data, err := ws.ReadMessage()
		if err != nil {
			return none(fmt.Errorf("wait for a message: %w", err))
		}
		a.Body = bodyJSON(data)
		_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
		return a
	}
}

func (r *requester) message() string {
	if r.data == "" {
		return defaultMessage
	}
	return r.data
}
