package translate

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

// ruleSet numbers rules as they come.
type ruleSet struct{ rules []*resolve.Rule }

func (s *ruleSet) add(path string, change func(*resolve.Rule), backends ...resolve.WeightedBackend) {
	r := prefixRule("r", len(s.rules), path, backends...)
	if change != nil {
		change(r)
	}
	s.rules = append(s.rules, r)
}

// sidecarFor runs a sidecar with the rules on svc.app:80, and gives its address.
func (w *world) sidecarFor(rules []*resolve.Rule, parts ...any) (*running, netip.AddrPort) {
	f := frontend("svc", table(rules...))
	p := Proxy{Cluster: "east", Role: RoleSidecar, Namespace: "app", Name: "w"}
	r := w.start(Input{Proxy: p, Options: Options{DebugHeaders: true}, Result: result("east", append(parts, f)...)}, &ports{t: w.t})
	at, _ := r.ports.Frontend(p, f.Key, TransportTCP, 80)
	return r, at
}

// seen remembers requests by their paths, each as echo shows it.
type seen struct {
	mu sync.Mutex
	by map[string][]string
}

func (s *seen) count(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.by[path])
}

func (s *seen) last(path string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.by[path]; len(l) > 0 {
		return l[len(l)-1]
	}
	return ""
}

// serve runs a server of HTTP/1.1 and HTTP/2 without TLS.
func serve(t *testing.T, h http.Handler) netip.AddrPort {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().(*net.TCPAddr).AddrPort()
}

// remember is a backend that remembers what it got and then does what next does.
func remember(t *testing.T, next http.HandlerFunc) (*seen, netip.AddrPort) {
	s := &seen{by: map[string][]string{}}
	return s, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var lines []string
		for k, v := range r.Header {
			lines = append(lines, strings.ToLower(k)+": "+strings.Join(v, "|"))
		}
		slices.Sort(lines)
		s.mu.Lock()
		s.by[r.URL.Path] = append(s.by[r.URL.Path], fmt.Sprintf("%s %s\nhost: %s\n%s\n\n%s", r.Method, r.RequestURI, r.Host, strings.Join(lines, "\n"), body))
		s.mu.Unlock()
		if next != nil {
			next(w, r)
		}
	}))
}

// close5 tells whether got is what n draws with probability p are sure to give.
func close5(got, n int, p float64) bool {
	d := float64(got) - float64(n)*p
	return d*d <= 25*float64(n)*p*(1-p)+1e-9
}

// Filters, as the real Envoy understands them.
func TestFiltersInEnvoy(t *testing.T) {
	w := newWorld(t, "east")
	copies, copyAt := remember(t, nil)
	asked, authAt := remember(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-User-Id", "42")
		w.Header().Set("X-Other", "o")
		switch {
		case strings.HasSuffix(r.URL.Path, "/denied"):
			w.Header().Set("X-Auth-Error", "no")
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, "go away")
		case strings.HasSuffix(r.URL.Path, "/login"):
			http.Redirect(w, r, "https://login.example/", http.StatusFound)
		case strings.HasSuffix(r.URL.Path, "/broken"):
			w.WriteHeader(http.StatusInternalServerError)
		default:
			_, _ = io.WriteString(w, "some body")
		}
	})
	mirror := func(name string, n, d uint32) resolve.Mirror {
		return resolve.Mirror{Backend: serviceKey(name), Numerator: n, Denominator: d}
	}
	grpcKey := serviceKey("check")
	grpcKey.HTTP2 = true
	share := func(name string, weight uint32, f resolve.Filters) resolve.WeightedBackend {
		b := to(name, weight)
		b.Filters = f
		return b
	}
	invalid := to("nowhere", 1)
	invalid.Invalid = "there is none"
	away := to("a", 1)
	away.Redirect = &resolve.Redirect{StatusCode: 307, Hostname: "away.example"}

	var s ruleSet
	filters := func(f resolve.Filters) func(*resolve.Rule) { return func(r *resolve.Rule) { r.Filters = f } }
	auth := func(a resolve.ExternalAuth) func(*resolve.Rule) {
		if a.Backend.Name == "" {
			a.Backend = serviceKey("auth")
		}
		return filters(resolve.Filters{Auth: &a})
	}
	s.add("/mirror/all", filters(resolve.Filters{Rewrite: &resolve.Rewrite{PrefixPath: ptr("/copied"), Hostname: "h.example"}, Mirrors: []resolve.Mirror{mirror("copy", 1, 1), mirror("copy", 1, 1)}}), to("a", 1))
	s.add("/mirror/half", filters(resolve.Filters{Mirrors: []resolve.Mirror{mirror("copy", 50, 100)}}), to("a", 1))
	s.add("/mirror/third", filters(resolve.Filters{Mirrors: []resolve.Mirror{mirror("copy", 1, 3)}}), to("a", 1))
	s.add("/mirror/nowhere", filters(resolve.Filters{Mirrors: []resolve.Mirror{mirror("closed", 1, 1), mirror("unknown", 1, 1)}}), to("a", 1))
	s.add("/shares", filters(resolve.Filters{
		Request: resolve.HeaderMods{Set: []resolve.Header{{Name: "x-who", Value: "rule"}}},
		Rewrite: &resolve.Rewrite{PrefixPath: ptr("/rule")},
	}), to("a", 3),
		share("b", 3, resolve.Filters{Rewrite: &resolve.Rewrite{FullPath: ptr("/share-b"), Hostname: "b.example"}, Request: resolve.HeaderMods{Set: []resolve.Header{{Name: "x-who", Value: "b"}}}}),
		share("b", 2, resolve.Filters{Mirrors: []resolve.Mirror{mirror("copy", 1, 2)}, Response: resolve.HeaderMods{Set: []resolve.Header{{Name: "x-mirrored", Value: "perhaps"}}}}),
		away, invalid)
	s.add("/one-share", nil, share("b", 1, resolve.Filters{Rewrite: &resolve.Rewrite{FullPath: ptr("/share-b")}, Response: resolve.HeaderMods{Set: []resolve.Header{{Name: "x-r", Value: "1"}}}}))
	s.add("/auth/http", auth(resolve.ExternalAuth{Path: "/check"}), to("a", 1))
	s.add("/auth/lists", auth(resolve.ExternalAuth{RequestHeaders: []string{"x-sent"}, ResponseHeaders: []string{"x-user-id"}, MaxBody: 100}), to("a", 1))
	s.add("/auth/closed", auth(resolve.ExternalAuth{Backend: serviceKey("closed")}), to("a", 1))
	s.add("/auth/grpc", auth(resolve.ExternalAuth{GRPC: true, Backend: grpcKey, MaxBody: 100}), to("a", 1))
	s.add("/auth/grpc-lists", auth(resolve.ExternalAuth{GRPC: true, Backend: grpcKey, RequestHeaders: []string{"x-sent"}}), to("a", 1))
	s.add("/auth/redirect", func(r *resolve.Rule) {
		r.Filters.Auth = &resolve.ExternalAuth{Backend: serviceKey("auth")}
		r.Redirect = &resolve.Redirect{StatusCode: 302, Hostname: "x.example"}
	})
	check := service("check", resolve.AppH2C, serveGRPC(t, func(s *grpc.Server) { authv3.RegisterAuthorizationServer(s, &checker{}) }))
	check.Key = grpcKey
	r, at := w.sidecarFor(s.rules,
		service("a", resolve.AppHTTP, echo(t, "a")), service("b", resolve.AppHTTP, echo(t, "b")),
		service("copy", resolve.AppHTTP, copyAt), service("auth", resolve.AppHTTP, authAt), service("closed", resolve.AppHTTP, closedPort(t)), check)
	get := func(path string, headers ...string) answer { return ask(t, at, "GET", "svc.app", path, headers...) }
	status := func(path string, want int, headers ...string) answer {
		t.Helper()
		x := get(path, headers...)
		if x.status != want {
			t.Errorf("GET %s: status %d, want %d\n%s", path, x.status, want, x.body)
		}
		return x
	}
	has := func(what, text string, parts ...string) {
		t.Helper()
		for _, p := range parts {
			if !strings.Contains(text, p) {
				t.Errorf("%s: no %q in\n%s", what, p, text)
			}
		}
	}

	t.Run("mirrors", func(t *testing.T) {
		if x := status("/mirror/all/x", 200); x.from() != "a" {
			t.Error(x.from())
		}
		await(t, func() error {
			if n := copies.count("/copied/x"); n != 2 {
				return fmt.Errorf("%d copies, want 2", n)
			}
			return nil
		})
		has("copy", copies.last("/copied/x"), "GET /copied/x\nhost: h.example\n")
		const n = 600
		for path, p := range map[string]float64{"/mirror/half": 0.5, "/mirror/third": 1.0 / 3} {
			for range n {
				status(path, 200)
			}
			await(t, func() error {
				if got := copies.count(path); !close5(got, n, p) {
					return fmt.Errorf("%s: %d copies of %d", path, got, n)
				}
				return nil
			})
		}
		if x := status("/mirror/nowhere", 200); x.from() != "a" {
			t.Error(x.from())
		}
	})
	t.Run("shares", func(t *testing.T) {
		const n = 1500
		got := map[string]int{}
		for range n {
			x := get("/shares/x?q=1")
			if x.header.Get(HeaderRoute) != "HTTPRoute/app/r@east/4/0" {
				t.Fatalf("route header %q of %d", x.header.Get(HeaderRoute), x.status)
			}
			switch {
			case x.status == 307:
				has("redirect", x.header.Get("Location"), "http://away.example/shares/x?q=1")
				got["away"]++
			case x.status == 500:
				got["invalid"]++
			case x.header.Get("X-Mirrored") != "":
				has("mirrored", x.body, "b\nGET /rule/x?q=1 ", "X-Who: rule\n")
				got["mirrored"]++
			case x.from() == "b":
				has("b", x.body, "GET /share-b?q=1 ", "Host: b.example\n", "X-Who: b\n")
				got["b"]++
			case x.from() == "a":
				has("a", x.body, "GET /rule/x?q=1 ", "Host: svc.app\n", "X-Who: rule\n")
				got["a"]++
			}
		}
		for name, p := range map[string]float64{"a": 0.3, "b": 0.3, "mirrored": 0.2, "away": 0.1, "invalid": 0.1} {
			if !close5(got[name], n, p) {
				t.Errorf("%s got %d of %d, want %v", name, got[name], n, p)
			}
		}
		await(t, func() error {
			if c := copies.count("/rule/x"); !close5(c, got["mirrored"], 0.5) {
				return fmt.Errorf("%d copies of %d, want half", c, got["mirrored"])
			}
			return nil
		})
		x := status("/one-share/x", 200)
		has("one share", x.body, "GET /share-b ")
		if x.header.Get("X-R") != "1" || !strings.HasPrefix(x.header.Get(HeaderUpstream), "Service/app/b/80; ") {
			t.Errorf("%v", x.header)
		}
	})
	t.Run("external auth over HTTP", func(t *testing.T) {
		x := status("/auth/http/x?q=1", 200, "Authorization", "Bearer t", "X-Sent", "s", "Content-Type", "text/x")
		has("backend", x.body, "X-User-Id: 42\n", "X-Other: o\n", "Content-Type: text/x\n", "GET /auth/http/x?q=1 ")
		q := asked.last("/check/auth/http/x")
		has("asked", q, "GET /check/auth/http/x?q=1\nhost: svc.app\n", "authorization: Bearer t\n")
		if strings.Contains(q, "x-sent") {
			t.Errorf("the service gets more than it should:\n%s", q)
		}
		x = status("/auth/http/denied", 403)
		if x.body != "go away" || x.header.Get("X-Auth-Error") != "no" {
			t.Errorf("%q %v", x.body, x.header)
		}
		if x := status("/auth/http/login", 302); x.header.Get("Location") != "https://login.example/" {
			t.Errorf("%v", x.header)
		}
		status("/auth/http/broken", 503)
		status("/auth/closed/x", 503)
		x = status("/auth/lists/x", 200, "X-Sent", "s", "X-Unsent", "u")
		has("backend", x.body, "X-User-Id: 42\n")
		if strings.Contains(x.body, "X-Other") {
			t.Errorf("a header is copied that is not in the list:\n%s", x.body)
		}
		q = asked.last("/auth/lists/x")
		has("asked", q, "x-sent: s\n")
		if strings.Contains(q, "x-unsent") {
			t.Errorf("the service gets more than it should:\n%s", q)
		}
		status("/auth/redirect/x", 302)
		status("/auth/redirect/denied", 403)
		for size, want := range map[int]int{10: 200, 200: 413} {
			if x := post(t, at, "/auth/lists/body", strings.Repeat("x", size)); x.status != want {
				t.Errorf("a body of %d bytes gives %d, want %d", size, x.status, want)
			}
		}
		has("asked", asked.last("/auth/lists/body"), "\n\nxxxxxxxxxx", "content-length: 10\n")
		if x := post(t, at, "/auth/http/body", strings.Repeat("x", 200)); x.status != 200 {
			t.Errorf("%d", x.status)
		}
		has("asked", asked.last("/check/auth/http/body"), "content-length: 0\n")
	})
	t.Run("external auth over gRPC", func(t *testing.T) {
		x := status("/auth/grpc/x?q=1", 200, "X-Sent", "s", "X-Unsent", "u")
		has("backend", x.body, "X-User-Id: 42\n", "X-Got: s|u\n")
		x = status("/auth/grpc-lists/x", 200, "X-Sent", "s", "X-Unsent", "u")
		has("backend", x.body, "X-Got: s|\n")
		x = status("/auth/grpc/denied", 403)
		if x.body != "go away" || x.header.Get("X-Auth-Error") != "no" {
			t.Errorf("%q %v", x.body, x.header)
		}
		status("/auth/grpc/error", 503)
		for size, want := range map[int]int{10: 200, 200: 413} {
			x := post(t, at, "/auth/grpc/body", strings.Repeat("x", size))
			if x.status != want {
				t.Errorf("a body of %d bytes gives %d, want %d", size, x.status, want)
			}
			if want == 200 {
				has("backend", x.body, "X-Body-Size: 10\n")
			}
		}
	})
	r.accepted(t)
}

func post(t *testing.T, at netip.AddrPort, path, body string) answer {
	t.Helper()
	res, err := client.Post("http://"+at.String()+path, "application/octet-stream", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, string(data)}
}

// checker is a service of Envoy's ext_authz protocol.
type checker struct {
	authv3.UnimplementedAuthorizationServer
}

func (c *checker) Check(_ context.Context, q *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	h := q.Attributes.Request.Http
	add := func(k, v string) *corev3.HeaderValueOption {
		return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: k, Value: v}}
	}
	path, _, _ := strings.Cut(h.Path, "?")
	switch {
	case strings.HasSuffix(path, "/denied"):
		return &authv3.CheckResponse{Status: &status.Status{Code: int32(codes.PermissionDenied)}, HttpResponse: &authv3.CheckResponse_DeniedResponse{
			DeniedResponse: &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: typev3.StatusCode_Forbidden}, Headers: []*corev3.HeaderValueOption{add("x-auth-error", "no")}, Body: "go away"},
		}}, nil
	case strings.HasSuffix(path, "/error"):
		return nil, fmt.Errorf("broken")
	}
	return &authv3.CheckResponse{Status: &status.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{
		add("x-user-id", "42"), add("x-got", h.Headers["x-sent"]+"|"+h.Headers["x-unsent"]), add("x-body-size", fmt.Sprint(len(h.Body)+len(h.RawBody))),
	}}}}, nil
}
