package echo

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// run serves on a free port until the test ends.
func run(t testing.TB, settings Settings) (*Server, string) {
	t.Helper()
	s := newServer(t, settings)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		s.Shutdown(ctx)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, ln.Addr().String()
}

func newServer(t testing.TB, settings Settings) *Server {
	t.Helper()
	settings.Service = "web"
	s, err := New(Config{Namespace: "ns", Pod: "web-1", Cluster: "east", Settings: settings, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var me = Identity{Namespace: "ns", Service: "web", Pod: "web-1", Cluster: "east"}

// clients speak each kind of HTTP, by the Proto that the server sees.
func clients(t testing.TB) map[string]*http.Client {
	h2c := new(http.Protocols)
	h2c.SetUnencryptedHTTP2(true)
	h1, h2 := &http.Transport{}, &http.Transport{Protocols: h2c}
	t.Cleanup(h1.CloseIdleConnections)
	t.Cleanup(h2.CloseIdleConnections)
	return map[string]*http.Client{"HTTP/1.1": {Transport: h1}, "HTTP/2.0": {Transport: h2}}
}

func get(t testing.TB, client *http.Client, url string, header http.Header) (*http.Response, HTTP) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var e HTTP
	_ = json.Unmarshal(body, &e)
	return resp, e
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestHTTP(t *testing.T) {
	t.Parallel()
	_, addr := run(t, Settings{})
	url := "http://" + addr
	for proto, client := range clients(t) {
		resp, e := get(t, client, url+"/a/../b?x=1", http.Header{"X-One": {"1", "2"}, "X-Echo-Set-Header": {"x-back: v1, x-more:v2"}})
		if resp.StatusCode != http.StatusOK || e.Path != "/a/../b?x=1" || e.Method != http.MethodGet || e.Proto != proto || e.Host != addr ||
			fmt.Sprint(e.Headers["X-One"]) != "[1 2]" || e.Identity != me || e.TLS != nil {
			t.Errorf("%s: %d %+v", proto, resp.StatusCode, e)
		}
		if resp.Header.Get("X-Back") != "v1" || resp.Header.Get("X-More") != "v2" || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %v", proto, resp.Header)
		}
		if resp, e := get(t, client, url+"/status/503", nil); resp.StatusCode != http.StatusServiceUnavailable || e.Identity != me {
			t.Errorf("%s: %d %+v", proto, resp.StatusCode, e)
		}
		for path, want := range map[string]int{"/status/204": 204, "/status/99": 400, "/?delay=1ms": 200, "/?delay=1h": 400, "/health": 200} {
			if resp, _ := get(t, client, url+path, nil); resp.StatusCode != want {
				t.Errorf("%s: %s gives %d", proto, path, resp.StatusCode)
			}
		}
		resp, err := client.Post(url, "text/plain", io.LimitReader(endless{}, maxBody+1))
		if err == nil { // else the server closed the connection first, as it may
			if resp.Body.Close(); resp.StatusCode != http.StatusRequestEntityTooLarge {
				t.Errorf("%s: a body over the bound gives %d", proto, resp.StatusCode)
			}
		}
	}
}

// The first bytes decide, however slowly they come, and nothing is said before.
func TestFirstBytesDecide(t *testing.T) {
	t.Parallel()
	_, addr := run(t, Settings{})
	for name, c := range map[string]struct {
		sent []string
		want string
	}{
		"HTTP/1.1 in pieces":  {[]string{"G", "ET", " / HTTP/1.1\r\nHost: x\r\n\r\n"}, "HTTP/1.1 200 OK"},
		"a method of its own": {[]string{"PURGE ", "/x HTTP/1.1\r\nHost: x\r\n\r\n"}, "HTTP/1.1 200 OK"},
		"a line":              {[]string{"hel", "lo\nmore"}, `{"protocol":"TCP","namespace":"ns","ingress":"","service":"web","pod":"web-1","cluster":"east","data":"hello"}`},
		"no end of a line":    {[]string{"hello"}, `{"protocol":"TCP","namespace":"ns","ingress":"","service":"web","pod":"web-1","cluster":"east","data":"hello"}`},
		"words":               {[]string{"HELLO all\n"}, `{"protocol":"TCP","namespace":"ns","ingress":"","service":"web","pod":"web-1","cluster":"east","data":"HELLO all"}`},
		"almost HTTP":         {[]string{"GE"}, `{"protocol":"TCP","namespace":"ns","ingress":"","service":"web","pod":"web-1","cluster":"east","data":"GE"}`},
		"no text":             {[]string{"\x00\xff\n"}, `{"protocol":"TCP","namespace":"ns","ingress":"","service":"web","pod":"web-1","cluster":"east","data":"AP8=","encoding":"base64"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(time.Minute))
			for _, piece := range c.sent {
				if _, err := io.WriteString(conn, piece); err != nil {
					t.Fatal(err)
				}
				time.Sleep(20 * time.Millisecond) // so that it arrives alone
			}
			line, err := bufio.NewReader(conn).ReadString('\n')
			if strings.TrimSpace(line) != c.want || err != nil {
				t.Errorf("got %q, %v", line, err)
			}
		})
	}
}

// A connection goes on by lines, and ends after the client's end.
func TestLines(t *testing.T) {
	t.Parallel()
	_, addr := run(t, Settings{})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	_, _ = io.WriteString(conn, "one\r\ntwo\nthree")
	_ = conn.(*net.TCPConn).CloseWrite()
	answers := json.NewDecoder(conn)
	for _, want := range []string{"one", "two", "three"} {
		var s Stream
		if err := answers.Decode(&s); err != nil || s.Identity != me || s.Protocol != "TCP" || s.Data.Data != want {
			t.Errorf("%s: %+v %v", want, s, err)
		}
	}
	if err := answers.Decode(new(Stream)); err != io.EOF {
		t.Error("after the end:", err)
	}
}

// Inside TLS is what the client wants, and the answer tells of both ends of it.
func TestTLS(t *testing.T) {
	t.Parallel()
	given, err := SelfSigned([]string{"web.example"})
	if err != nil {
		t.Fatal(err)
	}
	mine, err := SelfSigned([]string{"client.example"})
	if err != nil {
		t.Fatal(err)
	}
	_, addr := run(t, Settings{Certificate: given, Accepts: AcceptTLS})
	config := func(protos ...string) *tls.Config {
		return &tls.Config{ServerName: "web.example", InsecureSkipVerify: true, NextProtos: protos, Certificates: []tls.Certificate{*mine}}
	}
	check := func(what string, state *tls.ConnectionState, got *TLS, alpn string) {
		t.Helper()
		if state != nil && state.PeerCertificates[0].DNSNames[0] != "web.example" {
			t.Errorf("%s: shown %v", what, state.PeerCertificates[0].DNSNames)
		}
		if got == nil || got.Version != "TLSv1.3" || got.ServerName != "web.example" || got.NegotiatedProtocol != alpn || got.CipherSuite == "" ||
			got.Client == nil || fmt.Sprint(got.Client.DNSNames) != "[client.example]" || !strings.HasPrefix(got.Client.Subject, "CN=") {
			t.Errorf("%s: %+v", what, got)
		}
	}
	for proto, alpn := range map[string]string{"HTTP/1.1": "http/1.1", "HTTP/2.0": "h2", "HTTP/1.1 ": ""} {
		transport := &http.Transport{TLSClientConfig: config(), ForceAttemptHTTP2: alpn == "h2"}
		if alpn != "" {
			transport.TLSClientConfig.NextProtos = []string{alpn}
		}
		resp, e := get(t, &http.Client{Transport: transport}, "https://"+addr+"/x", nil)
		if e.Proto != strings.TrimSpace(proto) || e.Identity != me || e.Path != "/x" {
			t.Errorf("%q: %+v", proto, e)
		}
		check(proto, resp.TLS, e.TLS, alpn)
		transport.CloseIdleConnections()
	}
	for _, alpn := range []string{"", "imap"} {
		c := config()
		if alpn != "" {
			c = config(alpn)
		}
		conn, err := tls.Dial("tcp", addr, c)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		_, _ = io.WriteString(conn, "hello\n")
		var s Stream
		if err := json.NewDecoder(conn).Decode(&s); err != nil || s.Protocol != "TLS" || s.Identity != me || s.Data.Data != "hello" {
			t.Errorf("%q: %+v %v", alpn, s, err)
		}
		state := conn.ConnectionState()
		check("bytes", &state, s.TLS, alpn)
		conn.Close()
	}
	// Without TLS there is nothing to get here.
	if resp, err := http.Get("http://" + addr); err != nil || resp.StatusCode != http.StatusBadRequest {
		t.Errorf("HTTP without TLS: %v %v", resp, err)
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "hello\n")
	if rest, err := io.ReadAll(conn); len(rest) > 0 {
		t.Errorf("bytes without TLS: %q %v", rest, err)
	}
}

func TestH2COnly(t *testing.T) {
	t.Parallel()
	_, addr := run(t, Settings{Accepts: AcceptH2C})
	for proto, want := range map[string]int{"HTTP/1.1": 400, "HTTP/2.0": 200} {
		if resp, _ := get(t, clients(t)[proto], "http://"+addr, nil); resp.StatusCode != want {
			t.Errorf("%s gives %d", proto, resp.StatusCode)
		}
	}
}

// A pod that resets breaks what it has heard the beginning of.
func TestReset(t *testing.T) {
	t.Parallel()
	s, addr := run(t, Settings{Reset: true})
	for proto, client := range clients(t) {
		if resp, err := client.Post("http://"+addr, "", strings.NewReader("x")); err == nil {
			resp.Body.Close()
			t.Errorf("%s gives %d", proto, resp.StatusCode)
		}
	}
	s.Set(Settings{})
	if resp, _ := get(t, clients(t)["HTTP/1.1"], "http://"+addr, nil); resp.StatusCode != http.StatusOK {
		t.Error("mended:", resp.StatusCode)
	}
}

// Shutdown answers what runs, closes what is quiet and frees the port at once.
func TestShutdown(t *testing.T) {
	t.Parallel()
	s, addr := run(t, Settings{})
	quiet, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer quiet.Close()
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_, _ = io.WriteString(raw, "hello\n")
	if _, err := bufio.NewReader(raw).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	all := clients(t)
	for proto, client := range all {
		get(t, client, "http://"+addr, nil) // the connection is there before
		answered := make(chan int, 1)
		go func() {
			resp, err := client.Get("http://" + addr + "/running?delay=500ms")
			if err != nil {
				t.Log(proto, err)
				answered <- 0
				return
			}
			resp.Body.Close()
			answered <- resp.StatusCode
		}()
		defer func() {
			if code := <-answered; code != http.StatusOK {
				t.Errorf("%s: a running request got %d", proto, code)
			}
		}()
	}
	for deadline := time.Now().Add(time.Minute); s.received.of("/running") < uint64(len(all)); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the requests don't get there")
		}
	}
	s.Stop()
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Error("the port must be free")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s.Shutdown(ctx)
	for _, c := range []net.Conn{quiet, raw} {
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		if _, err := io.Copy(io.Discard, c); timedOut(err) {
			t.Error("must be closed")
		}
	}
}
