package echo

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

type stateKey struct{}

// withState remembers the TLS that a connection is the inside of, where the HTTP
// server can't see it.
func withState(ctx context.Context, c net.Conn) context.Context {
	if c, ok := c.(*conn); ok && c.tls != nil {
		return context.WithValue(ctx, stateKey{}, c.tls)
	}
	return ctx
}

// ServeHTTP answers a request. Some things change the answer, as they do in
// echo-basic: the path /status/CODE answers with that status, the query
// delay=DURATION waits first, and each request header X-Echo-Set-Header:
// NAME:VALUE[,NAME:VALUE...] sets response headers. The query received=PATH asks
// how many requests and RPCs the server has had for a path: so copies are seen,
// whose answers nobody gets.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if state, ok := r.Context().Value(stateKey{}).(*tls.ConnectionState); ok {
		r.TLS = state
	}
	set := s.settings.Load()
	if set.Leaving {
		w.Header().Set("Connection", "close")
	}
	if set.Accepts == AcceptH2C && r.TLS == nil && r.ProtoMajor < 2 {
		refuse(w, http.StatusBadRequest, "this port takes HTTP/2 with prior knowledge alone")
		return
	}
	s.received.add(r.URL.Path)
	if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		s.grpc.ServeHTTP(w, r)
		return
	}
	s.answer(w, r, set)
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, set *Settings) {
	if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBody)); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			refuse(w, http.StatusRequestEntityTooLarge, "the body is larger than "+strconv.Itoa(maxBody)+" bytes")
			return
		}
		refuse(w, http.StatusBadRequest, "the body can't be read: "+err.Error())
		return
	}
	wait := set.Slow
	if text := r.URL.Query().Get("delay"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 || d > maxDelay {
			refuse(w, http.StatusBadRequest, "delay must be a duration from 0s to "+maxDelay.String())
			return
		}
		wait += d
	}
	if !pause(r.Context(), wait) {
		return
	}
	status := http.StatusOK
	if text, ok := strings.CutPrefix(r.URL.Path, "/status/"); ok {
		code, err := strconv.Atoi(text)
		if err != nil || code < 200 || code > 599 {
			refuse(w, http.StatusBadRequest, "the path must be /status/ and a status from 200 to 599")
			return
		}
		status = code
	}
	switch {
	case set.Fail != 0:
		status = set.Fail
	case r.URL.Path == "/health":
		_, _ = io.WriteString(w, "OK")
		return
	case websocket.IsWebSocketUpgrade(r) && status == http.StatusOK:
		s.frames(w, r)
		return
	}
	setHeaders(w.Header(), r.Header)
	if status == http.StatusNoContent || status == http.StatusNotModified {
		w.WriteHeader(status)
		return
	}
	body, err := json.MarshalIndent(s.seen(r), "", " ")
	if err != nil {
		refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// setHeaders sets the response headers that a request asks for.
func setHeaders(to, request http.Header) {
	for _, list := range request["X-Echo-Set-Header"] {
		for pair := range strings.SplitSeq(list, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(pair), ":")
			if name = strings.TrimSpace(name); name != "" {
				to.Add(name, strings.TrimSpace(value))
			}
		}
	}
}

// seen is what there is to tell of a request.
func (s *Server) seen(r *http.Request) HTTP {
	out := HTTP{
		Path: r.RequestURI, Host: r.Host, Method: r.Method, Proto: r.Proto, Headers: r.Header,
		Identity: s.identity(), TLS: tlsOf(r.TLS),
	}
	if path := r.URL.Query().Get("received"); path != "" {
		n := s.received.of(path)
		out.Received = &n
	}
	return out
}

func refuse(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": message})
}
