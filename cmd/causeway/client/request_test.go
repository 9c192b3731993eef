package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/causeway-mesh/causeway/api/query/querytest"
	"github.com/causeway-mesh/causeway/cluster/workload/echo"
)

// wires is a `causeway up` whose Envoys are one echo server.
type wires struct {
	t      *testing.T
	env    map[string]string
	server *echo.Server
	cacert string
}

func newWires(t *testing.T) wires {
	t.Helper()
	cert, err := echo.SelfSigned([]string{"web.app", "example.local"})
	if err != nil {
		t.Fatal(err)
	}
	server, err := echo.New(echo.Config{Namespace: "app", Pod: "web-0", Cluster: "west", Settings: echo.Settings{Service: "web", Certificate: cert}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		server.Shutdown(ctx)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	w := querytest.New(t)
	at := netip.MustParseAddrPort(ln.Addr().String())
	w.Listen("east/sidecar/dev/sidecar", "Service/app/web:80", at)
	w.Listen("east/gateway/infra/gw", ":80", at)
	cacert := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(cacert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), 0o600); err != nil {
		t.Fatal(err)
	}
	return wires{t, map[string]string{"CAUSEWAY_STATE": contextOf(t, querytest.Run(t, w.Config()), "ada")}, server, cacert}
}

// ask runs `causeway request -o json`.
func (w wires) ask(args ...string) (Answers, error) {
	w.t.Helper()
	out, _, err := run(w.t, w.env, append([]string{"request", "-o", "json"}, args...)...)
	var got Answers
	if out != "" {
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			w.t.Fatalf("%v in %s", err, out)
		}
	}
	return got, err
}

// Every scheme reaches the server in its own protocol, and what it answers is
// told in the same form.
func TestRequestSpeaks(t *testing.T) {
	t.Parallel()
	w := newWires(t)
	for _, c := range []struct {
		args                    string
		status                  int
		result, proto, protocol string
		data                    string
	}{
		{"http://web.app/x", 200, "200", "HTTP/1.1", "", ""},
		{"--http2 http://web.app/x", 200, "200", "HTTP/2.0", "", ""},
		{"https://web.app:80/x", 200, "200", "HTTP/2.0", "", ""},
		{"--http2 --reconnect=false https://web.app:80/x", 200, "200", "HTTP/2.0", "", ""},
		{"grpc://web.app", 200, "OK", "HTTP/2.0", "", ""},
		{`-d {"message":"hi"} grpc://web.app/any.Service/Method`, 200, "OK", "HTTP/2.0", "", "hi"},
		{"grpcs://web.app:80", 200, "OK", "HTTP/2.0", "", ""},
		{"ws://web.app/x", 101, "101", "HTTP/1.1", "", "hello"},
		{"wss://web.app:80/x", 101, "101", "HTTP/1.1", "", "hello"},
		{"tcp://web.app:80 -d hi", 0, "answered", "", "TCP", "hi"},
		{"tls://web.app:80", 0, "answered", "", "TLS", "hello"},
		{"tls://web.app:80 --from east/gateway/infra/gw --sni example.local", 0, "answered", "", "TLS", "hello"},
	} {
		t.Run(strings.ReplaceAll(c.args, "/", "_"), func(t *testing.T) {
			args := strings.Fields(c.args)
			secure := strings.Contains(c.args, "https") || strings.Contains(c.args, "grpcs") || strings.Contains(c.args, "wss") || strings.Contains(c.args, "tls")
			if !strings.Contains(c.args, "--from") {
				args = append(args, "--from", "east/dev")
			}
			if secure {
				args = append(args, "--tls-cacert", w.cacert)
			}
			got, err := w.ask(append(args, "-n", "3", "--fail")...)
			if err != nil || len(got.Answers) != 3 {
				t.Fatalf("%+v %v", got, err)
			}
			if want := (Count{Cluster: "west", Namespace: "app", Pod: "web-0", Status: c.status, Result: c.result, Count: 3}); len(got.Counts) != 1 || got.Counts[0] != want {
				t.Errorf("counts %+v, want %+v", got.Counts, want)
			}
			a := got.Answers[0]
			if a.Status != c.status || a.Result != c.result || a.Proto != c.proto || (a.TLS != nil) != secure {
				t.Errorf("%+v", a)
			}
			var body struct {
				Protocol, Path, Proto, Host, Data string
				TLS                               *echo.TLS
			}
			if err := json.Unmarshal(a.Body, &body); err != nil {
				t.Fatal(err)
			}
			if body.Protocol != c.protocol || body.Data != c.data || body.Proto != c.proto || (body.TLS != nil) != secure {
				t.Errorf("%s", a.Body)
			}
			if secure && (a.TLS.Version != "TLSv1.3" || a.TLS.ServerName != body.TLS.ServerName || len(a.TLS.Server.DNSNames) != 2) {
				t.Errorf("%+v, at the server %+v", a.TLS, body.TLS)
			}
			if strings.Contains(c.args, "--sni") && a.TLS.ServerName != "example.local" {
				t.Errorf("%+v", a.TLS)
			}
		})
	}
}

// Who is not what the certificate says is not talked to, and a client certificate is shown.
func TestRequestCertificates(t *testing.T) {
	t.Parallel()
	w := newWires(t)
	for _, args := range [][]string{{"https://web.app:80"}, {"https://web.app:80", "--tls-cacert", w.cacert, "--sni", "other.local"}, {"tls://web.app:80"}, {"wss://web.app:80"}, {"grpcs://web.app:80"}} {
		got, err := w.ask(append(args, "--from", "east/dev")...)
		if err == nil || len(got.Answers) != 1 || got.Answers[0].Result != "none" || !strings.Contains(got.Answers[0].Error, "certificate") {
			t.Errorf("%v: %+v %v", args, got, err)
		}
	}
	mine, err := echo.SelfSigned([]string{"client.example"})
	if err != nil {
		t.Fatal(err)
	}
	cert, key := filepath.Join(t.TempDir(), "crt"), filepath.Join(t.TempDir(), "key")
	writeCertificate(t, mine, cert, key)
	got, err := w.ask("--from", "east/dev", "https://web.app:80", "-k", "--tls-cert", cert, "--tls-key", key)
	if err != nil {
		t.Fatal(err)
	}
	var body echo.HTTP
	if err := json.Unmarshal(got.Answers[0].Body, &body); err != nil || body.TLS == nil || body.TLS.Client == nil || body.TLS.Client.DNSNames[0] != "client.example" {
		t.Errorf("%s", got.Answers[0].Body)
	}
}

// What fails is told in the terms of its protocol.
func TestRequestFailures(t *testing.T) {
	t.Parallel()
	w := newWires(t)
	got, err := w.ask("--from", "east/dev", "-d", `{"code": 9}`, "grpc://web.app", "--fail")
	if a := got.Answers[0]; err == nil || a.Status != 200 || a.Result != "FAILED_PRECONDITION" || a.GRPC == nil || a.GRPC.Code != int(codes.FailedPrecondition) || !strings.Contains(a.GRPC.Message, "asked to") {
		t.Errorf("%+v %v", a, err)
	}
	if got, err = w.ask("--from", "east/dev", "ws://web.app/status/403"); err != nil || got.Answers[0].Status != 403 || got.Answers[0].Result != "403" {
		t.Errorf("%+v %v", got, err)
	}
	for _, args := range [][]string{
		{"http://web.app/?delay=1m"}, {"ws://web.app/?delay=1m"}, {"grpc://web.app", "-d", `{"delay": "60s"}`},
	} {
		started := time.Now()
		got, err := w.ask(append(args, "--from", "east/dev", "--timeout", "100ms")...)
		if err == nil || got.Answers[0].Result != "none" || got.Counts[0].Result != "none" || time.Since(started) > 20*time.Second {
			t.Errorf("%v: %+v %v", args, got, err)
		}
	}
	w.server.Set(echo.Settings{Fail: 503})
	if got, err = w.ask("--from", "east/dev", "tcp://web.app:80"); err == nil || got.Answers[0].Error != "the connection was closed without an answer" {
		t.Errorf("%+v %v", got, err)
	}
	if got, err = w.ask("--from", "east/dev", "grpc://web.app"); err != nil || got.Answers[0].Result != "UNAVAILABLE" {
		t.Errorf("%+v %v", got, err)
	}
}

func TestRequestDatagrams(t *testing.T) {
	t.Parallel()
	server, err := echo.New(echo.Config{Namespace: "app", Pod: "web-0", Cluster: "west", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.ServePackets(conn) }()
	defer server.Shutdown(t.Context())
	to, err := parseTarget("udp://web.app:53")
	if err != nil {
		t.Fatal(err)
	}
	r := &requester{count: 2, concurrency: 1, timeout: 10 * time.Second, data: "hi"}
	ask := func() []Answer {
		t.Helper()
		c, done, err := r.caller(to, wire{address: conn.LocalAddr().String()})
		if err != nil {
			t.Fatal(err)
		}
		defer done()
		answers, err := r.send(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		return answers
	}
	for _, a := range ask() {
		if !strings.Contains(string(a.Body), `"protocol":"UDP"`) || !strings.Contains(string(a.Body), `"data":"hi"`) || a.Result != "answered" || !a.good() {
			t.Errorf("%+v", a)
		}
	}
	server.Set(echo.Settings{Fail: 503})
	r.timeout = 50 * time.Millisecond
	if a := ask()[0]; a.Error != "no answer within 50ms" || a.Result != "none" {
		t.Errorf("%+v", a)
	}
}

func TestRPCBody(t *testing.T) {
	for in, want := range map[string]string{
		"":                           "it ends within a message",
		"\x00\x00\x00\x00\x05abc":    "it ends within a message",
		"\x01\x00\x00\x00\x00":       "it is compressed, although nobody has asked for that",
		"\x00\x00\x00\x00\x03abc":    `"YWJj"`, // another's message
		"\x00\x00\x00\x00\x00":       `""`,
		"\x00\xff\xff\xff\xff\x00":   "it ends within a message",
		"\x00\x00\x00\x00\x02\x0a\n": `"Cgo="`,
	} {
		got, err := rpcBody([]byte(in))
		if err == nil {
			err = errors.New(string(got))
		}
		if err.Error() != want {
			t.Errorf("%q: %v, want %s", in, err, want)
		}
	}
}

func writeCertificate(t *testing.T, c *tls.Certificate, cert, key string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: c.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
