package workload

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Bounds of one request.
const (
	maxBody    = 10 << 20
	maxHeaders = 256 << 10
	maxDelay   = time.Minute
	maxPacket  = 64 << 10
)

// Echo is the answer to a request, in the fields of Gateway API's echo-basic
// and the cluster beside them.
type Echo struct {
	Path      string              `json:"path"`
	Host      string              `json:"host"`
	Method    string              `json:"method"`
	Proto     string              `json:"proto"`
	Headers   map[string][]string `json:"headers"`
	Namespace string              `json:"namespace"`
	Ingress   string              `json:"ingress"`
	Service   string              `json:"service"`
	Pod       string              `json:"pod"`
	Cluster   string              `json:"cluster"`
}

// echo answers HTTP requests as one pod.
type echo struct {
	namespace, pod, cluster string
	service                 atomic.Pointer[string]
	// leaving makes clients give up their connections, each with the next
	// response, before the server closes.
	leaving atomic.Bool
}

// ServeHTTP echoes the request. Three things change the answer, as they do in
// echo-basic: the path /status/CODE answers with that status, the query delay=DURATION
// waits first, and each request header X-Echo-Set-Header: NAME:VALUE[,NAME:VALUE...]
// sets response headers.
func (e *echo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if e.leaving.Load() {
		w.Header().Set("Connection", "close")
	}
	if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBody)); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			refuse(w, http.StatusRequestEntityTooLarge, "the body is larger than "+strconv.Itoa(maxBody)+" bytes")
			return
		}
		refuse(w, http.StatusBadRequest, "the body can't be read: "+err.Error())
		return
	}
	if text := r.URL.Query().Get("delay"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 || d > maxDelay {
			refuse(w, http.StatusBadRequest, "delay must be a duration from 0s to "+maxDelay.String())
			return
		}
		select {
		case <-time.After(d):
		case <-r.Context().Done():
			return
		}
	}
	if r.URL.Path == "/health" {
		_, _ = io.WriteString(w, "OK")
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
	for _, list := range r.Header["X-Echo-Set-Header"] {
		for pair := range strings.SplitSeq(list, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(pair), ":")
			if name = strings.TrimSpace(name); name != "" {
				w.Header().Add(name, strings.TrimSpace(value))
			}
		}
	}
	if status == http.StatusNoContent || status == http.StatusNotModified {
		w.WriteHeader(status)
		return
	}
	body, err := json.MarshalIndent(Echo{
		Path: r.RequestURI, Host: r.Host, Method: r.Method, Proto: r.Proto, Headers: r.Header,
		Namespace: e.namespace, Service: *e.service.Load(), Pod: e.pod, Cluster: e.cluster,
	}, "", " ")
	if err != nil {
		refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

func refuse(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": message})
}

// echoPackets sends each datagram back until the socket closes.
func echoPackets(conn net.PacketConn) error {
	buf := make([]byte, maxPacket)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		_, _ = conn.WriteTo(buf[:n], from)
	}
}
