package envoy

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// An Envoy is ready once it says so, stays so while it is too busy to answer, and is not any
// more once it says so or is gone.
func TestReadiness(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "admin.sock")
	r, err := NewReadiness(socket)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, ready bool) {
		t.Helper()
		if err := r.Ready(t.Context()); (err == nil) != ready {
			t.Errorf("%s: %v", what, err)
		}
	}
	check("not started", false)

	const busy = 0
	var says atomic.Int32 // a status, or busy
	serve := func() *http.Server {
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if code := int(says.Load()); code != busy {
				w.WriteHeader(code)
				return
			}
			<-req.Context().Done()
		})}
		go func() { _ = s.Serve(l) }()
		t.Cleanup(func() { s.Close() })
		return s
	}
	s := serve()
	check("busy from the beginning", false)
	says.Store(http.StatusServiceUnavailable)
	check("initializing", false)
	says.Store(http.StatusOK)
	check("serving", true)
	says.Store(busy)
	check("busy while it serves", true)
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Ready(impatient); err != nil {
		t.Errorf("busy, and nobody waits: %v", err)
	}
	check("busy after that", true)
	says.Store(http.StatusServiceUnavailable)
	check("draining", false)
	says.Store(busy)
	check("busy while it drains", false)
	says.Store(http.StatusOK)
	check("serving again", true)
	s.Close()
	check("gone", false)
	says.Store(busy)
	serve()
	check("started again, and busy", false)
}
