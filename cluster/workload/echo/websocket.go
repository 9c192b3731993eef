package echo

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
)

// Subprotocol of WebSocket makes the server answer each message with an HTTP of
// its own. Without it messages come back as they are, as echo-basic's do.
const Subprotocol = "echo.causeway.dev"

// frames echoes messages until the client ends, or says nothing for too long.
func (s *Server) frames(w http.ResponseWriter, r *http.Request) {
	set := http.Header{}
	setHeaders(set, r.Header)
	upgrader := websocket.Upgrader{
		HandshakeTimeout: handshakeTimeout, ReadBufferSize: sniffBuffer, WriteBufferSize: sniffBuffer, Subprotocols: []string{Subprotocol},
		CheckOrigin: func(*http.Request) bool { return true }, // there is nothing to steal
		Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
			refuse(w, status, reason.Error())
		},
	}
	ws, err := upgrader.Upgrade(w, r, set)
	if err != nil {
		return // it has answered
	}
	defer ws.Close()
	goodbye := closer(func() error {
		_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseGoingAway, "the pod ends"), time.Now().Add(time.Second))
		return ws.Close()
	})
	if !s.track(&goodbye) {
		_ = goodbye()
		return
	}
	defer s.forget(&goodbye)
	ws.SetReadLimit(maxMessage)
	for {
		_ = ws.SetReadDeadline(time.Now().Add(idleTimeout))
		kind, message, err := ws.ReadMessage()
		if err != nil || !pause(s.closing, s.settings.Load().Slow) {
			return
		}
		if ws.Subprotocol() == Subprotocol {
			answer, data := s.seen(r), dataOf(message)
			answer.Data = &data
			if message, err = json.Marshal(answer); err != nil {
				return
			}
			kind = websocket.TextMessage
		}
		_ = ws.SetWriteDeadline(time.Now().Add(writeTimeout))
		if err := ws.WriteMessage(kind, message); err != nil {
			return
		}
	}
}

// closer is a function as an io.Closer.
type closer func() error

// Close implements io.Closer.
func (c *closer) Close() error { return (*c)() }
