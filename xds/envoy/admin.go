package envoy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// MaxSocket bounds the path of a unix socket, in bytes (sun_path without its end).
const MaxSocket = 107

// admin speaks to an Envoy's admin interface on a unix socket.
type admin struct {
	socket string
	client *http.Client
}

func newAdmin(socket string) (*admin, error) {
	if len(socket) > MaxSocket {
		return nil, fmt.Errorf("the path of the admin socket, %s, has %d bytes: sockets have at most %d; choose a directory with a shorter name",
			socket, len(socket), MaxSocket)
	}
	return &admin{socket: socket, client: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}}, nil
}

// call sends one request and gives the answer's first line.
func (a *admin) call(ctx context.Context, method, path string) (code int, answer string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://admin"+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	line, _, _ := strings.Cut(string(b), "\n")
	return resp.StatusCode, line, err
}

// drain makes the Envoy fail health checks and turn its clients away: it answers
// what it gets and asks them to connect elsewhere.
func (a *admin) drain(ctx context.Context) error {
	for _, path := range []string{"/healthcheck/fail", "/drain_listeners?graceful"} {
		if code, answer, err := a.call(ctx, http.MethodPost, path); err != nil || code != http.StatusOK {
			return fmt.Errorf("drain: POST %s: %d %s: %w", path, code, answer, err)
		}
	}
	return nil
}
