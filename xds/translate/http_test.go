package translate

import (
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

func ptr[T any](v T) *T { return &v }

// What rules mean, as the real Envoy understands them.
func TestRulesInEnvoy(t *testing.T) {
	w := newWorld(t, "east")
	a, b := echo(t, "a"), echo(t, "b")
	n := 0
	rule := func(path string, change func(*resolve.Rule), backends ...resolve.WeightedBackend) *resolve.Rule {
		r := prefixRule("r", n, path, backends...)
		n++
		if change != nil {
			change(r)
		}
		return r
	}
	invalid := to("nowhere", 1)
	invalid.Invalid = "there is no such Service"
	redirect := func(d resolve.Redirect) func(*resolve.Rule) {
		return func(r *resolve.Rule) { r.Redirect = &d }
	}
	rewrite := func(x resolve.Rewrite) func(*resolve.Rule) {
		return func(r *resolve.Rule) { r.Filters.Rewrite = &x }
	}
	var rules []*resolve.Rule
	add := func(r ...*resolve.Rule) { rules = append(rules, r...) }
	add(
		rule("/invalid/all", func(r *resolve.Rule) { r.Invalid = "no backends" }),
		rule("/invalid/share", nil, to("a", 1), invalid),
		rule("/invalid/only", nil, invalid),
		rule("/weights", nil, to("a", 7), to("b", 3)),
		rule("/weights-huge", nil, to("a", math.MaxUint32), to("b", math.MaxUint32)),
		rule("/weights-zero", nil, to("a", 0), to("b", 1)),
		rule("/exact", func(r *resolve.Rule) { r.Match.PathType = resolve.PathExact }, to("a", 1)),
		rule("/re", func(r *resolve.Rule) { r.Match = resolve.Match{PathType: resolve.PathRegex, Path: "/re/[0-9]+"} }, to("a", 1)),
		rule("/method", func(r *resolve.Rule) { r.Match.Method = "POST" }, to("a", 1)),
		rule("/headers", func(r *resolve.Rule) {
			r.Match.Headers = []resolve.ValueMatch{{Name: "color", Value: "red"}, {Name: "host", Value: ".*[.]example", Regex: true}}
		}, to("a", 1)),
		rule("/query", func(r *resolve.Rule) {
			r.Match.Query = []resolve.ValueMatch{{Name: "q", Value: "a b"}, {Name: "n", Value: "[0-9]+", Regex: true}}
		}, to("a", 1)),
		rule("/mods", func(r *resolve.Rule) {
			r.Filters.Request = resolve.HeaderMods{Set: []resolve.Header{{Name: "x-set", Value: "100%"}, {Name: "x-both", Value: "rule"}}, Add: []resolve.Header{{Name: "x-add", Value: "2"}}, Remove: []string{"x-gone"}}
			r.Filters.Response = resolve.HeaderMods{Set: []resolve.Header{{Name: "x-from", Value: "changed"}}, Add: []resolve.Header{{Name: "x-extra", Value: "e"}}, Remove: []string{"server"}}
		}, resolve.WeightedBackend{Weight: 1, Backend: serviceKey("a"), Filters: resolve.Filters{Request: resolve.HeaderMods{Set: []resolve.Header{{Name: "x-both", Value: "backend"}, {Name: "Host", Value: "set.example"}}}}}),
		rule("/host", rewrite(resolve.Rewrite{Hostname: "other.example"}), to("a", 1)),
		rule("/full", rewrite(resolve.Rewrite{FullPath: ptr(`/all\1/this`)}), to("a", 1)),
		rule("/timeout", func(r *resolve.Rule) { r.RequestTimeout = 200 * time.Millisecond }, to("slow", 1)),
		rule("/try-timeout", func(r *resolve.Rule) { r.BackendTimeout = 200 * time.Millisecond }, to("slow", 1)),
		rule("/refused", nil, to("half", 1)),
		rule("/bad-header", func(r *resolve.Rule) {
			r.Filters.Request.Set = []resolve.Header{{Name: "x-bad", Value: "a\r\nb"}}
		}, to("a", 1)),
		rule("/bad-regex", func(r *resolve.Rule) {
			r.Match = resolve.Match{PathType: resolve.PathRegex, Path: `/bad-regex\`}
		}, to("a", 1)),
		rule("/bad-header-name", func(r *resolve.Rule) {
			r.Match.Headers = []resolve.ValueMatch{{Name: ":path", Value: "x"}}
		}, to("a", 1)),
	)
	add(rule("/re-large", func(r *resolve.Rule) {
		r.Match = resolve.Match{PathType: resolve.PathRegex, Path: "/re-large/[a-z]{300}"}
	}, to("a", 1)))
	codes := []int{301, 302, 303, 307, 308}
	for _, c := range codes {
		add(rule("/code/"+http.StatusText(c)[:1]+string(rune('0'+c%10)), redirect(resolve.Redirect{StatusCode: c})))
	}
	add(
		rule("/to/port", redirect(resolve.Redirect{StatusCode: 302, Port: 8443, Scheme: "https"})),
		rule("/to/scheme", redirect(resolve.Redirect{StatusCode: 302, Scheme: "https"})),
		rule("/to/host", redirect(resolve.Redirect{StatusCode: 302, Hostname: "other.example"})),
		rule("/to/full", redirect(resolve.Redirect{StatusCode: 302, FullPath: ptr("/there")})),
		rule("/to/prefix", redirect(resolve.Redirect{StatusCode: 302, PrefixPath: ptr("/p/")})),
		rule("/to/root", redirect(resolve.Redirect{StatusCode: 302, PrefixPath: ptr("/")})),
	)
	// The table of HTTPPathModifier, with the root and trailing slashes added.
	rewrites := []struct{ path, match, replace, want string }{
		{"/foo/bar", "/foo", "/xyz", "/xyz/bar"},
		{"/foo/bar", "/foo", "/xyz/", "/xyz/bar"},
		{"/foo/bar", "/foo/", "/xyz", "/xyz/bar"},
		{"/foo/bar", "/foo/", "/xyz/", "/xyz/bar"},
		{"/foo", "/foo", "/xyz", "/xyz"},
		{"/foo/", "/foo", "/xyz", "/xyz/"},
		{"/foo/bar", "/foo", "", "/bar"},
		{"/foo/", "/foo", "", "/"},
		{"/foo", "/foo", "", "/"},
		{"/foo/", "/foo", "/", "/"},
		{"/foo", "/foo", "/", "/"},
		{"/foo?a=/foo", "/foo", "/", "/?a=/foo"},
		{"/foo/bar?a=b", "/foo", "/", "/bar?a=b"},
		{"/foo.+/bar", "/foo.+", "/", "/bar"},
		{"/foo//bar", "/foo", "/", "//bar"},
		{"/foo/bar", "/", "/xyz", "/xyz/foo/bar"},
		{"/", "/", "/xyz", "/xyz/"},
		{"/foo", "/", "/", "/foo"},
		{"/foo/a/foo", "/foo", "/x%20y", "/x%20y/a/foo"},
	}
	for i, c := range rewrites {
		x := rule(c.match, rewrite(resolve.Rewrite{PrefixPath: ptr(c.replace)}), to("a", 1))
		x.Match.Headers = []resolve.ValueMatch{{Name: "case", Value: string(rune('A' + i))}}
		add(x)
	}
	f := frontend("svc", table(rules...))
	p := Proxy{Cluster: "east", Role: RoleSidecar, Namespace: "app", Name: "w"}
	slow := slowServer(t)
	r := w.start(Input{Proxy: p, Options: Options{DebugHeaders: true}, Result: result("east", f,
		service("a", resolve.AppHTTP, a), service("b", resolve.AppHTTP, b), service("slow", resolve.AppHTTP, slow),
		service("half", resolve.AppHTTP, a, closedPort(t)))}, &ports{t: t})
	at, _ := r.ports.Frontend(p, f.Key, TransportTCP, 80)
	get := func(path string, headers ...string) answer { return ask(t, at, "GET", "svc.app", path, headers...) }
	status := func(path string, want int, headers ...string) answer {
		t.Helper()
		x := get(path, headers...)
		if x.status != want {
			t.Errorf("GET %s: status %d, want %d\n%s", path, x.status, want, x.body)
		}
		return x
	}

	t.Run("problems", func(t *testing.T) {
		var got []string
		for _, p := range r.state.Problems() {
			got = append(got, p.Message[:strings.Index(p.Message, ":")])
		}
		want := []string{"rules[17].matches[0] answers 500", "rules[18].matches[0] is left out", "rules[19].matches[0] is left out"}
		if !slices.Equal(got, want) {
			t.Errorf("problems %q, want %q", got, want)
		}
	})
	t.Run("not found", func(t *testing.T) {
		status("/", 404)
		status("/exact/x", 404)
		status("/weightsx", 404)
		status("/bad-regex", 404)
	})
	t.Run("invalid", func(t *testing.T) {
		x := status("/invalid/all", 500)
		if got := x.header.Get(HeaderRoute); got != "HTTPRoute/app/r@east/0/0" {
			t.Errorf("route header %q", got)
		}
		status("/invalid/only", 500)
		status("/bad-header", 500)
		counts := map[int]int{}
		for range 200 {
			counts[get("/invalid/share").status]++
		}
		if counts[200]+counts[500] != 200 || counts[500] < 60 || counts[500] > 140 {
			t.Errorf("half of the share is invalid, and the statuses are %v", counts)
		}
	})
	t.Run("weights", func(t *testing.T) {
		for path, share := range map[string]float64{"/weights": 0.7, "/weights-huge": 0.5, "/weights-zero": 0} {
			const total = 1000
			got := 0
			for range total {
				if status(path, 200).from() == "a" {
					got++
				}
			}
			sigma := math.Sqrt(total * share * (1 - share))
			if math.Abs(float64(got)-total*share) > 5*sigma {
				t.Errorf("%s: a answered %d of %d, want %.0f", path, got, total, total*share)
			}
		}
	})
	t.Run("matches", func(t *testing.T) {
		status("/exact", 200)
		status("/exact?x=y", 200)
		status("/re/12", 200)
		status("/re/12/x", 404)
		status("/re-large/"+strings.Repeat("x", 300), 200)
		status("/method", 404)
		if x := ask(t, at, "POST", "svc.app", "/method/x"); x.status != 200 {
			t.Errorf("POST: %d", x.status)
		}
		if x := ask(t, at, "GET", "svc.example", "/headers", "Color", "red"); x.status != 200 {
			t.Errorf("headers: %d", x.status)
		}
		status("/headers", 404, "Color", "red")
		status("/query?q=a%20b&n=12", 200)
		status("/query?q=a%20b&n=x", 404)
		status("/query?q=a%20b", 404)
	})
	t.Run("headers", func(t *testing.T) {
		x := status("/mods", 200, "x-set", "old", "x-add", "1", "x-gone", "y")
		for _, want := range []string{"X-Set: 100%\n", "X-Both: backend\n", "Host: set.example\n"} {
			if !strings.Contains(x.body, want) {
				t.Errorf("the backend did not get %q:\n%s", want, x.body)
			}
		}
		if !strings.Contains(x.body, "X-Add: 1|2\n") && !strings.Contains(x.body, "X-Add: 1,2\n") {
			t.Errorf("x-add was not added to:\n%s", x.body)
		}
		if strings.Contains(x.body, "X-Gone") || x.from() != "changed" || x.header.Get("X-Extra") != "e" || x.header.Get("Server") != "" {
			t.Errorf("headers %v\n%s", x.header, x.body)
		}
	})
	t.Run("transparent", func(t *testing.T) {
		x := ask(t, at, "GET", "Anything.example:1234", "/exact", "x-envoy-max-retries", "9", "x-envoy-upstream-rq-timeout-ms", "1", "user-agent", "u")
		head := "a\nGET /exact HTTP/1.1\nHost: Anything.example:1234\n"
		rest := strings.TrimPrefix(x.body, head)
		var names []string
		for _, l := range strings.Split(strings.TrimSpace(rest), "\n") {
			names = append(names, strings.SplitN(l, ":", 2)[0])
		}
		if want := []string{"Accept-Encoding", "User-Agent", "X-Forwarded-Proto", "X-Request-Id"}; rest == x.body || !slices.Equal(names, want) {
			t.Errorf("the backend got\n%s\nwant\n%sand headers %v", x.body, head, want)
		}
		if x.header.Get("Server") != "echo" {
			t.Errorf("Server: %q", x.header.Get("Server"))
		}
		for k := range x.header {
			if strings.HasPrefix(k, "X-Envoy") {
				t.Errorf("response header %s", k)
			}
		}
		if got, want := x.header.Get(HeaderUpstream), "Service/app/a/80; cluster=east; pod=a-0; address="+a.String(); got != want {
			t.Errorf("%s: %q, want %q", HeaderUpstream, got, want)
		}
	})
	t.Run("rewrites", func(t *testing.T) {
		if x := status("/host", 200); !strings.Contains(x.body, "Host: other.example\n") {
			t.Error(x.body)
		}
		if x := status("/full/x?q=1", 200); !strings.Contains(x.body, `GET /all\1/this?q=1 `) {
			t.Error(x.body)
		}
		for i, c := range rewrites {
			x := status(c.path, 200, "case", string(rune('A'+i)))
			if !strings.Contains(x.body, "GET "+c.want+" HTTP") {
				t.Errorf("%s with %q for %q: want %s:\n%s", c.path, c.replace, c.match, c.want, x.body)
			}
		}
	})
	t.Run("redirects", func(t *testing.T) {
		for _, c := range codes {
			path := "/code/" + http.StatusText(c)[:1] + string(rune('0'+c%10))
			if x := status(path+"?a=b", c); x.header.Get("Location") != "http://svc.app"+path+"?a=b" {
				t.Errorf("%d: Location %q", c, x.header.Get("Location"))
			}
		}
		for path, want := range map[string]string{
			"/to/port":         "https://svc.app:8443/to/port",
			"/to/scheme":       "https://svc.app/to/scheme",
			"/to/host/x?y=z":   "http://other.example/to/host/x?y=z",
			"/to/full/x?y=z":   "http://svc.app/there?y=z",
			"/to/prefix":       "http://svc.app/p",
			"/to/prefix/x?y=z": "http://svc.app/p/x?y=z",
			"/to/root":         "http://svc.app/",
			"/to/root/x/?y=z":  "http://svc.app/x/?y=z",
		} {
			if x := status(path, 302); x.header.Get("Location") != want {
				t.Errorf("%s: Location %q, want %q", path, x.header.Get("Location"), want)
			}
		}
	})
	t.Run("timeouts", func(t *testing.T) {
		status("/timeout", 504)
		status("/try-timeout", 504)
	})
	t.Run("retries", func(t *testing.T) {
		for range 50 {
			if x := ask(t, at, "POST", "svc.app", "/refused"); x.status != 200 {
				t.Fatalf("one of two endpoints refuses connections, and the answer is %d", x.status)
			}
		}
	})
}

// Protocols pass through one hop and two.
func TestProtocolsInEnvoy(t *testing.T) {
	w := newWorld(t, "east")
	h2, h1, ws := echo(t, "h2"), echo(t, "h1"), upgrader(t)
	chain := func(name string) resolve.WeightedBackend {
		return resolve.WeightedBackend{Weight: 1, Backend: serviceKey(name), Chain: &resolve.FrontendKey{Kind: cluster.KindService, Namespace: "app", Name: name}}
	}
	var parts []any
	var rules []*resolve.Rule
	for i, name := range []string{"h2", "h1", "ws"} {
		parts = append(parts, frontend(name, table(prefixRule("producer", 0, "/", to(name, 1)))))
		rules = append(rules, prefixRule("r", i, "/two/"+name, chain(name)), prefixRule("r", i, "/one/"+name, to(name, 1)))
	}
	parts = append(parts, service("h2", resolve.AppH2C, h2), service("h1", resolve.AppHTTP, h1), service("ws", resolve.AppHTTP, ws))
	moved := prefixRule("r", 9, "/moved")
	moved.Redirect = &resolve.Redirect{StatusCode: 301, Scheme: "https"}
	rules = append(rules, moved)
	g := &resolve.Gateway{Namespace: "app", Name: "gw", Listeners: []resolve.Listener{{Name: "http", Port: 80, Protocol: "HTTP",
		Hosts: []resolve.VirtualHost{{Hostname: "a.example", Table: table(rules...)}}}}}
	p := Proxy{Cluster: "east", Role: RoleGateway, Namespace: "app", Name: "gw"}
	r := w.start(Input{Proxy: p, Result: result("east", append(parts, g)...)}, &ports{t: t})
	at, _ := r.ports.Gateway(p, TransportTCP, 80)

	plain := http.DefaultTransport.(*http.Transport).Clone()
	plain.Protocols = new(http.Protocols)
	plain.Protocols.SetUnencryptedHTTP2(true)
	second := &http.Client{Transport: plain, Timeout: 10 * time.Second}
	for _, hops := range []string{"one", "two"} {
		for _, c := range []struct {
			client *http.Client
			to     string
			proto  string
		}{{client, "h1", "HTTP/1.1"}, {client, "h2", "HTTP/2.0"}, {second, "h1", "HTTP/1.1"}, {second, "h2", "HTTP/2.0"}} {
			path := "/" + hops + "/" + c.to
			if x := askBy(t, c.client, at, "GET", "a.example", path); x.status != 200 || !strings.HasPrefix(x.body, c.to+"\nGET "+path+" "+c.proto+"\n") {
				t.Errorf("%s: %d %s, want %s", path, x.status, x.body, c.proto)
			}
		}
		if got := upgrade(t, at, "a.example", "/"+hops+"/ws"); got != "echo: hello" {
			t.Errorf("a WebSocket over %s hops says %q", hops, got)
		}
	}
	// The Location names no port, whatever port the client wrote into Host.
	if x := ask(t, at, "GET", "a.example:8080", "/moved"); x.status != 301 || x.header.Get("Location") != "https://a.example/moved" {
		t.Errorf("%d to %q", x.status, x.header.Get("Location"))
	}
}
