package translate

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

func TestCookiePath(t *testing.T) {
	for _, c := range []struct {
		kind       resolve.PathType
		path, want string
	}{
		{resolve.PathPrefix, "/", "/"},
		{resolve.PathPrefix, "/a/b/", "/a/b"},
		{resolve.PathExact, "/a/b", "/a/b"},
		{resolve.PathPrefix, "/a;b/c", "/"},
		{resolve.PathPrefix, "/a/b;c/d", "/a"},
		{resolve.PathRegex, "/p1/p2/.*/p3", "/p1/p2"},
		{resolve.PathRegex, "/p1/p2.*", "/p1"},
		{resolve.PathRegex, "^/p(1|2)", "/"},
		{resolve.PathRegex, "(?i)/p1/p2", "/"},
		{resolve.PathRegex, "[", "/"},
	} {
		if got := cookiePath(&resolve.Match{PathType: c.kind, Path: c.path}); got != c.want {
			t.Errorf("%s %s: %q, want %q", c.kind, c.path, got, c.want)
		}
	}
}

// Clients stay where they were, as the real Envoy does it.
func TestSessionsInEnvoy(t *testing.T) {
	w := newWorld(t, "east")
	var s ruleSet
	session := func(x resolve.Session, change func(*resolve.Rule)) func(*resolve.Rule) {
		return func(r *resolve.Rule) {
			if r.Session = &x; change != nil {
				change(r)
			}
		}
	}
	s.add("/cookie", session(resolve.Session{Name: "sticky"}, nil), to("a", 1))
	s.add("/permanent", session(resolve.Session{Name: "sticky", Permanent: true, AbsoluteTimeout: time.Hour}, nil), to("a", 1))
	s.add("/short", session(resolve.Session{Name: "sticky", AbsoluteTimeout: time.Second}, nil), to("a", 1))
	s.add("/header", session(resolve.Session{Name: "X-Sticky", Header: true}, nil), to("a", 1))
	s.add("/shares", session(resolve.Session{Name: "st.cky"}, nil), to("a", 1), to("b", 1))
	s.add("/header-shares", session(resolve.Session{Name: "x-sticky", Header: true}, nil), to("a", 1), to("b", 1))
	s.add("/guarded", session(resolve.Session{Name: "sticky"}, func(r *resolve.Rule) {
		r.Filters.Auth = &resolve.ExternalAuth{Backend: serviceKey("auth")}
	}), to("a", 1))
	pods := func(name string, n int) (out []netip.AddrPort) {
		for i := range n {
			out = append(out, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-From", fmt.Sprintf("%s-%d", name, i))
				w.Header().Set("X-Cookie", r.Header.Get("Cookie")+r.Header.Get(headerPin)+r.Header.Get("X-Sticky"))
				w.Header().Add("Set-Cookie", "sticky=of-the-backend; Path=/other")
				w.Header().Add("Set-Cookie", "mine=1")
			})))
		}
		return out
	}
	as, bs := pods("a", 3), pods("b", 3)
	parts := []any{service("b", resolve.AppHTTP, bs...), service("auth", resolve.AppHTTP, echo(t, "auth"))}
	r, at := w.sidecarFor(s.rules, append(parts, service("a", resolve.AppHTTP, as...))...)
	// begin asks without a token, and gives what the client sends from then on,
	// with the attributes of a cookie.
	begin := func(path string) (from string, send []string, attributes string) {
		t.Helper()
		x := ask(t, at, "GET", "svc.app", path)
		if v := x.header.Get("X-Sticky"); v != "" {
			return x.from(), []string{"X-Sticky", v}, ""
		}
		list := x.header.Values("Set-Cookie")
		if len(list) != 3 || list[0] != "sticky=of-the-backend; Path=/other" || list[1] != "mine=1" {
			t.Fatalf("%s: %d, cookies %q", path, x.status, list)
		}
		value, attributes, _ := strings.Cut(list[2], "; ")
		return x.from(), []string{"Cookie", "x=1; " + value + "; y=2"}, attributes
	}
	stays := func(path, from string, send []string) {
		t.Helper()
		for range 12 {
			x := ask(t, at, "GET", "svc.app", path, send...)
			if x.from() != from {
				t.Errorf("%s: a session with %s is answered by %s, %d", path, from, x.from(), x.status)
				return
			}
			if n := len(x.header.Values("Set-Cookie")); n > 2 || x.header.Get("X-Sticky") != "" {
				t.Errorf("%s: the session goes on, and there is another token: %v", path, x.header)
			}
		}
	}
	for path, want := range map[string]string{
		"/cookie":        `^SameSite=Lax; HttpOnly$`,
		"/permanent":     `^Max-Age=3600; SameSite=Lax; HttpOnly$`,
		"/short":         `^SameSite=Lax; HttpOnly$`,
		"/shares":        `^SameSite=Lax; HttpOnly$`,
		"/guarded":       `^SameSite=Lax; HttpOnly$`,
		"/header":        `^$`,
		"/header-shares": `^$`,
	} {
		from, send, attributes := begin(path)
		if path == "/short" {
			continue
		}
		got := strings.Replace(strings.Replace(attributes, "Path="+path+"; ", "", 1), "; Path="+path, "", 1)
		if !regexp.MustCompile(want).MatchString(sortAttributes(got)) {
			t.Errorf("%s: attributes %q", path, attributes)
		}
		stays(path, from, send)
		if send[0] == "Cookie" {
			x := ask(t, at, "GET", "svc.app", path, send...)
			if c := x.header.Get("X-Cookie"); c != "x=1; y=2" {
				t.Errorf("%s: the backend gets the cookies %q", path, c)
			}
		}
	}
	t.Run("what is no token", func(t *testing.T) {
		for _, v := range []string{"sticky=", "sticky=\"x", "sticky=MS4yLjMuNDo1.00000000.0", "sticky=" + strings.Repeat("x.", 500), "sticky=a.b.c.d; sticky=MS4yLjMuNDo1"} {
			if x := ask(t, at, "GET", "svc.app", "/cookie", "Cookie", v); x.status != 200 || len(x.header.Values("Set-Cookie")) != 3 {
				t.Errorf("%q: %d %v", v, x.status, x.header)
			}
		}
	})
	t.Run("the end", func(t *testing.T) {
		began := time.Now()
		_, send, _ := begin("/short")
		await(t, func() error {
			if x := ask(t, at, "GET", "svc.app", "/short", send...); len(x.header.Values("Set-Cookie")) != 3 {
				return fmt.Errorf("the session goes on")
			}
			return nil
		})
		if lasted := time.Since(began); lasted < time.Second || lasted > 5*time.Second {
			t.Errorf("a session of 1s lasted %v", lasted)
		}
	})
	t.Run("weights and endpoints", func(t *testing.T) {
		type client struct {
			path, from string
			send       []string
		}
		var clients []client
		for i := range 20 {
			path := []string{"/shares", "/header-shares"}[i%2]
			from, send, _ := begin(path)
			clients = append(clients, client{path, from, send})
		}
		for _, c := range clients {
			stays(c.path, c.from, c.send)
		}
		// a's share becomes nothing, and one of its endpoints goes.
		for _, x := range s.rules {
			if len(x.Backends) == 2 {
				x.Backends = []resolve.WeightedBackend{to("a", 0), to("b", 1)}
			}
		}
		f := frontend("svc", table(s.rules...))
		in := r.state.in
		in.Result = result("east", append(parts, f, service("a", resolve.AppHTTP, as[:2]...))...)
		next, _ := r.state.Update(in, resolve.Delta{Frontends: []string{f.Key.String()}, BackendEndpoints: []string{serviceKey("a").String()}})
		r.feed.set(next)
		await(t, func() error {
			for range 20 {
				if from, _, _ := begin("/shares"); !strings.HasPrefix(from, "b") {
					return fmt.Errorf("a new session begins with %s", from)
				}
			}
			return nil
		})
		moved := 0
		for _, c := range clients {
			if c.from != "a-2" {
				stays(c.path, c.from, c.send)
				continue
			}
			moved++
			x := ask(t, at, "GET", "svc.app", c.path, c.send...)
			if !strings.HasPrefix(x.from(), "a-") {
				t.Errorf("the endpoint of the session is gone, and %s answers", x.from())
			}
		}
		if moved == 0 {
			t.Log("no client was with a-2")
		}
	})
	r.accepted(t)
}

// A Gateway's session goes through the producer routes of its backend.
func TestChainedSessionsInEnvoy(t *testing.T) {
	w := newWorld(t, "east")
	var pods [2][]netip.AddrPort
	for i, name := range []string{"a", "b"} {
		for n := range 3 {
			pods[i] = append(pods[i], serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-From", fmt.Sprintf("%s-%d", name, n))
				w.Header().Set("X-Got", r.Header.Get("Cookie")+r.Header.Get(headerPin))
			})))
		}
	}
	var fronts []any
	chain := func(name string) resolve.WeightedBackend {
		b := to(name, 1)
		key := frontend(name, nil).Key
		b.Chain = &key
		fronts = append(fronts, frontend(name, table(prefixRule("producer", 0, "/", to(name, 1)))))
		return b
	}
	a, b := chain("a"), chain("b")
	one, two, none := prefixRule("r", 0, "/one", a), prefixRule("r", 1, "/two", a, b), prefixRule("r", 2, "/none", a)
	one.Session, two.Session = &resolve.Session{Name: "s"}, &resolve.Session{Name: "s"}
	g := &resolve.Gateway{Namespace: "app", Name: "gw", Listeners: []resolve.Listener{{Name: "http", Port: 80, Protocol: "HTTP",
		Hosts: []resolve.VirtualHost{{Hostname: "*", Table: table(one, two, none)}}}}}
	p := Proxy{Cluster: "east", Role: RoleGateway, Namespace: "app", Name: "gw"}
	r := w.start(Input{Proxy: p, Result: result("east", append(fronts, g, service("a", resolve.AppHTTP, pods[0]...), service("b", resolve.AppHTTP, pods[1]...))...)}, &ports{t: t})
	at, _ := r.ports.Gateway(p, TransportTCP, 80)
	for range 6 {
		for _, path := range []string{"/one", "/two"} {
			x := ask(t, at, "GET", "x", path)
			cookie, _, _ := strings.Cut(x.header.Get("Set-Cookie"), ";")
			if cookie == "" {
				t.Fatalf("%s: no cookie: %d %v", path, x.status, x.header)
			}
			for range 8 {
				y := ask(t, at, "GET", "x", path, "Cookie", cookie)
				if y.from() != x.from() || y.header.Get("Set-Cookie") != "" || y.header.Get("X-Got") != "" || y.header.Get(headerPin) != "" {
					t.Errorf("%s: a session with %s: %v", path, x.from(), y.header)
				}
			}
		}
	}
	// Without a session nobody chooses an endpoint.
	pin := base64.StdEncoding.EncodeToString([]byte(pods[0][0].String()))
	from := map[string]int{}
	for range 30 {
		x := ask(t, at, "GET", "x", "/none", headerPin, pin)
		if x.header.Get(headerPin) != "" || x.header.Get("X-Got") != "" {
			t.Fatalf("%v", x.header)
		}
		from[x.from()]++
	}
	if len(from) != 3 {
		t.Errorf("answers by %v", from)
	}
	r.accepted(t)
}

// sortAttributes puts a cookie's attributes in an order: Max-Age, SameSite, HttpOnly.
func sortAttributes(s string) string {
	var out []string
	for _, name := range []string{"Max-Age", "SameSite", "HttpOnly", "Expires", "Path", "Domain", "Secure"} {
		for _, a := range strings.Split(s, "; ") {
			if strings.HasPrefix(a, name) {
				out = append(out, a)
			}
		}
	}
	return strings.Join(out, "; ")
}
