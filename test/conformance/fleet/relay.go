package fleet

import (
	"io"
	"net"
	"sync"
)

// relay passes connections on, unless it is cut.
type relay struct {
	to string

	mu    sync.Mutex
	isCut bool
	conns map[net.Conn]bool
}

// serve takes connections until the listener is closed.
func (r *relay) serve(l net.Listener) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		go r.pass(in)
	}
}

// pass carries one connection. An end of it that is closed closes the other.
func (r *relay) pass(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("tcp", r.to)
	if err != nil {
		return
	}
	defer out.Close()
	if !r.enter(in) {
		return
	}
	defer r.leave(in)
	go func() {
		_, _ = io.Copy(out, in)
		out.Close()
	}()
	_, _ = io.Copy(in, out)
}

func (r *relay) enter(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.isCut {
		r.conns[c] = true
	}
	return !r.isCut
}

func (r *relay) leave(c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
}

func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.isCut = true
	for c := range r.conns {
		_ = c.Close()
	}
}

func (r *relay) heal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.isCut = false
}
