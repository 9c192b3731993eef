package client

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

// maxDatagram bounds what UDP answers.
const maxDatagram = 64 << 10

// bytes open a connection each, send a line (over UDP, a datagram) and take the
// first one back.
func (r *requester) bytes(t target, w wire) call {
	return func(ctx context.Context) Answer {
		a, err := r.oneOfBytes(ctx, t, w)
		if err != nil {
			if ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
				err = fmt.Errorf("no answer within %s", r.timeout)
			}
			return none(err)
		}
		return a
	}
}

func (r *requester) oneOfBytes(ctx context.Context, t target, w wire) (Answer, error) {
	conn, seen, err := w.open(ctx, strings.ToLower(t.Transport()))
	if err != nil {
		return Answer{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	a := Answer{Result: resultBytes, Headers: map[string][]string{}, TLS: seen}
	message := r.message()
	if t.Transport() == "UDP" {
		if _, err := io.WriteString(conn, message); err != nil {
			return Answer{}, err
		}
		buf := make([]byte, maxDatagram)
		n, err := conn.Read(buf)
		if err != nil {
			return Answer{}, err
		}
		a.Body = bodyJSON(buf[:n])
		return a, nil
	}
	if !strings.HasSuffix(message, "\n") {
		message += "\n"
	}
	if _, err := io.WriteString(conn, message); err != nil {
		return Answer{}, err
	}
	line, err := bufio.NewReader(io.LimitReader(conn, maxBodyBytes)).ReadBytes('\n')
	switch {
	case len(line) > 0: // what there is, is an answer
	case errors.Is(err, io.EOF):
		return Answer{}, errors.New("the connection was closed without an answer")
	case err != nil:
		return Answer{}, err
	}
	a.Body = bodyJSON(line)
	return a, nil
}

// open makes one connection, with TLS if the wire has it.
func (w wire) open(ctx context.Context, network string) (net.Conn, *TLSSeen, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, w.address)
	if err != nil || w.tls == nil {
		return conn, nil, err
	}
	secured := tls.Client(conn, w.tls)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	state := secured.ConnectionState()
	return secured, tlsSeen(&state), nil
}
