package echo

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"time"
)

// language is what a client speaks, by its first bytes.
type language int

const (
	unclear language = iota // more bytes are needed to tell
	langTLS
	langHTTP1
	langHTTP2
	langOther
)

const (
	preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	// maxMethod bounds methods of HTTP that nobody has heard of.
	maxMethod     = 20
	recordTLS     = 0x16
	unclearPause  = time.Second // a client that stops in the midst of "GE" speaks no HTTP
	sniffBuffer   = 4 << 10
	majorTLS      = 3
	minimumRecord = 2
)

var methods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace,
}

// classify tells a language by the first bytes of a connection. It is pure.
func classify(b []byte) language {
	switch {
	case len(b) == 0:
		return unclear
	case b[0] == recordTLS:
		if len(b) < minimumRecord {
			return unclear
		}
		if b[1] == majorTLS {
			return langTLS
		}
		return langOther
	case bytes.HasPrefix(b, []byte(preface)):
		return langHTTP2
	case bytes.HasPrefix([]byte(preface), b):
		return unclear
	}
	token, rest, found := bytes.Cut(b, []byte(" "))
	for i, c := range token {
		if i >= maxMethod || (c < 'A' || c > 'Z') && (c != '-' || i == 0) {
			return langOther
		}
	}
	switch {
	case len(token) == 0:
		return langOther
	case !found, len(rest) == 0:
		return unclear
	}
	for _, m := range methods {
		if string(token) == m {
			return langHTTP1
		}
	}
	// Another method: only with what a target begins with, or words of other
	// protocols would be taken for one.
	if rest[0] == '/' || rest[0] == '*' {
		return langHTTP1
	}
	return langOther
}

// conn is a connection whose first bytes have been looked at.
type conn struct {
	net.Conn
	r   *bufio.Reader
	tls *tls.ConnectionState // of the connection that it is the inside of
}

func newConn(c net.Conn, state *tls.ConnectionState) *conn {
	return &conn{Conn: c, r: bufio.NewReaderSize(c, sniffBuffer), tls: state}
}

func (c *conn) Read(p []byte) (int, error) { return c.r.Read(p) }

// sniff waits for the client to say enough, at most until idle has passed.
func (c *conn) sniff(idle time.Duration) (language, error) {
	if err := c.SetReadDeadline(time.Now().Add(idle)); err != nil {
		return unclear, err
	}
	for n := 1; ; n = c.r.Buffered() + 1 {
		_, err := c.r.Peek(n)
		seen, _ := c.r.Peek(c.r.Buffered())
		l := classify(seen)
		switch {
		case l != unclear:
			return l, c.SetReadDeadline(time.Time{})
		case len(seen) > 0 && err != nil:
			// It has stopped, for now or for good: what there is is all.
			return langOther, c.SetReadDeadline(time.Time{})
		case err != nil:
			return unclear, err
		}
		if err := c.SetReadDeadline(time.Now().Add(unclearPause)); err != nil {
			return unclear, err
		}
	}
}

func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
