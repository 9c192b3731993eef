package translate

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

// What browsers are told, by the real Envoy. The first rules are those of Gateway
// API's own conformance tests.
func TestCORSInEnvoy(t *testing.T) {
	w := newWorld(t, "east")
	var many []string
	for i := range 64 {
		many = append(many, fmt.Sprintf("https://%s-%d.example.com", strings.Repeat("n", 180), i))
	}
	var s ruleSet
	rule := func(path string, c resolve.CORS, change func(*resolve.Rule), backends ...resolve.WeightedBackend) {
		if backends == nil {
			backends = []resolve.WeightedBackend{to("a", 1)}
		}
		s.add(path, func(r *resolve.Rule) {
			r.Filters.CORS = &c
			if change != nil {
				change(r)
			}
		}, backends...)
	}
	rule("/several", resolve.CORS{AllowOrigins: []string{"https://www.foo.com", "https://*.bar.com"}, AllowMethods: []string{"GET", "OPTIONS"}, AllowHeaders: []string{"x-header-1", "x-header-2"}, ExposeHeaders: []string{"x-header-3", "x-header-4"}, AllowCredentials: true, MaxAge: time.Hour}, nil)
	rule("/methods", resolve.CORS{AllowOrigins: []string{"https://www.foo.com"}, AllowMethods: []string{"*"}, MaxAge: 5 * time.Second}, nil)
	rule("/anybody", resolve.CORS{AllowOrigins: []string{"*"}, AllowMethods: []string{"PUT"}, ExposeHeaders: []string{"*"}}, nil)
	rule("/all", resolve.CORS{AllowOrigins: []string{"*"}, AllowMethods: []string{"*"}, AllowHeaders: []string{"*"}, ExposeHeaders: []string{"*"}, AllowCredentials: true}, nil)
	rule("/hosts", resolve.CORS{AllowOrigins: []string{"http://*", "https://*:8443", "http://1.2.3.4:80"}}, nil)
	rule("/nobody", resolve.CORS{}, nil)
	rule("/many", resolve.CORS{AllowOrigins: many}, nil)
	rule("/moved", resolve.CORS{AllowOrigins: []string{"https://www.foo.com"}, AllowCredentials: true}, func(r *resolve.Rule) {
		r.Backends, r.Redirect = nil, &resolve.Redirect{StatusCode: 307, Hostname: "there.example"}
	})
	rule("/failing", resolve.CORS{AllowOrigins: []string{"https://www.foo.com"}}, nil, to("closed", 1))
	rule("/guarded", resolve.CORS{AllowOrigins: []string{"https://www.foo.com"}}, func(r *resolve.Rule) {
		r.Filters.Auth = &resolve.ExternalAuth{Backend: serviceKey("closed")}
	})
	rule("/get", resolve.CORS{AllowOrigins: []string{"*"}}, func(r *resolve.Rule) { r.Match.Method = "GET" })
	rule("/percent", resolve.CORS{AllowOrigins: []string{"*"}, AllowHeaders: []string{"a%REQ%"}, ExposeHeaders: []string{"a%b"}}, nil)
	own := to("b", 1)
	own.Filters.CORS = &resolve.CORS{AllowOrigins: []string{"https://own.com"}}
	rule("/shares", resolve.CORS{AllowOrigins: []string{"https://www.foo.com"}}, nil, to("a", 1), own)
	s.add("/plain", nil, to("a", 1))
	r, at := w.sidecarFor(s.rules, service("a", resolve.AppHTTP, echo(t, "a")), service("b", resolve.AppHTTP, echo(t, "b")), service("closed", resolve.AppHTTP, closedPort(t)))
	if p := r.state.Problems(); len(p) != 0 {
		t.Error(p)
	}

	type want map[string]string // "": absent
	several := func(origin string) want {
		return want{"Allow-Origin": origin, "Allow-Methods": "GET, OPTIONS", "Allow-Headers": "x-header-1, x-header-2", "Expose-Headers": "x-header-3, x-header-4", "Max-Age": "3600", "Allow-Credentials": "true"}
	}
	const foo, bar = "https://www.foo.com", "https://xpto.www.bar.com"
	cases := []struct {
		path, origin string
		ask          string // what a preflight asks for: "METHOD headers"; empty for a GET
		status       int
		want         want
	}{
		{"/several", foo, "GET x-header-1, x-header-2", 200, several(foo)},
		{"/several", "https://www.bar.com", "GET", 200, several("https://www.bar.com")},
		{"/several", bar, "GET", 200, several(bar)},
		{"/several", "https://www.foo.com:443", "GET", 200, several("https://www.foo.com:443")},
		{"/several", "https://foobar.com", "GET", 403, want{}},
		{"/several", "https://bar.com", "GET", 403, want{}},
		{"/several", "https://evil.com/x.bar.com", "GET", 403, want{}},
		{"/several", "https://evil.com:1.bar.com", "GET", 403, want{}},
		{"/several", "https://www.foo.com.evil.com", "GET", 403, want{}},
		{"/several", "https://wwwxfoo.com", "GET", 403, want{}},
		{"/several", "http://www.foo.com", "GET", 403, want{}},
		{"/several", "https://www.foo.com:8443", "GET", 403, want{}},
		{"/several", "null", "GET", 403, want{}},
		{"/several", foo, "", 200, want{"Allow-Origin": foo, "Allow-Credentials": "true", "Expose-Headers": "x-header-3, x-header-4"}},
		{"/several", bar, "", 200, want{"Allow-Origin": bar, "Allow-Credentials": "true", "Expose-Headers": "x-header-3, x-header-4"}},
		{"/several", "https://foobar.com", "", 200, want{}},
		{"/methods", foo, "POST", 200, want{"Allow-Origin": foo, "Allow-Methods": "POST", "Max-Age": "5"}},
		{"/anybody", "https://foobar.com:12345", "PUT", 200, want{"Allow-Origin": "https://foobar.com:12345", "Allow-Methods": "PUT", "Expose-Headers": "*"}},
		{"/anybody", "null", "", 200, want{"Allow-Origin": "null", "Expose-Headers": "*"}},
		{"/all", bar, "PUT x-header-1, x-header-2", 200, want{"Allow-Origin": bar, "Allow-Methods": "PUT", "Allow-Headers": "x-header-1, x-header-2", "Allow-Credentials": "true"}},
		{"/all", bar, "PUT", 200, want{"Allow-Origin": bar, "Allow-Methods": "PUT", "Allow-Credentials": "true"}},
		{"/all", bar, "", 200, want{"Allow-Origin": bar, "Allow-Credentials": "true"}},
		{"/hosts", "http://any.where", "GET", 200, want{"Allow-Origin": "http://any.where"}},
		{"/hosts", "http://any.where:81", "GET", 403, want{}},
		{"/hosts", "https://any.where:8443", "GET", 200, want{"Allow-Origin": "https://any.where:8443"}},
		{"/hosts", "https://any.where", "GET", 403, want{}},
		{"/hosts", "http://1.2.3.4", "", 200, want{"Allow-Origin": "http://1.2.3.4"}},
		{"/nobody", foo, "GET", 403, want{}},
		{"/nobody", foo, "", 200, want{}},
		{"/many", many[0], "GET", 200, want{"Allow-Origin": many[0]}},
		{"/many", many[63], "GET", 200, want{"Allow-Origin": many[63]}},
		{"/many", many[40], "", 200, want{"Allow-Origin": many[40]}},
		{"/moved", foo, "GET", 200, want{"Allow-Origin": foo, "Allow-Credentials": "true"}},
		{"/moved", foo, "", 307, want{"Allow-Origin": foo, "Allow-Credentials": "true"}},
		{"/moved", bar, "", 307, want{}},
		{"/failing", foo, "", 503, want{"Allow-Origin": foo}},
		{"/guarded", foo, "GET", 200, want{"Allow-Origin": foo}},
		{"/guarded", foo, "", 503, want{"Allow-Origin": foo}},
		{"/get", foo, "GET", 404, want{}},
		{"/get", foo, "", 200, want{"Allow-Origin": foo}},
		{"/percent", foo, "GET", 200, want{"Allow-Origin": foo, "Allow-Headers": "a%REQ%", "Expose-Headers": "a%b"}},
		{"/percent", foo, "", 200, want{"Allow-Origin": foo, "Expose-Headers": "a%b"}},
		{"/plain", foo, "GET", 200, want{}},
	}
	for _, c := range cases {
		method, headers := "GET", []string{"Origin", c.origin}
		if c.ask != "" {
			method = "OPTIONS"
			m, h, _ := strings.Cut(c.ask, " ")
			headers = append(headers, "Access-Control-Request-Method", m)
			if h != "" {
				headers = append(headers, "Access-Control-Request-Headers", h)
			}
		}
		x := ask(t, at, method, "svc.app", c.path, headers...)
		what := fmt.Sprintf("%s %s from %.60s", method, c.path, c.origin)
		if x.status != c.status {
			t.Errorf("%s: %d, want %d", what, x.status, c.status)
		}
		if (x.from() != "") != (c.status == 200 && (c.ask == "" || c.path == "/plain")) {
			t.Errorf("%s: answered by %q", what, x.from())
		}
		for _, n := range []string{"Allow-Origin", "Allow-Methods", "Allow-Headers", "Expose-Headers", "Max-Age", "Allow-Credentials"} {
			got := x.header.Values("Access-Control-" + n)
			if len(got) > 1 || strings.Join(got, "|") != c.want[n] || len(got) == 1 && c.want[n] == "" {
				t.Errorf("%s: %s is %q, want %q", what, n, got, c.want[n])
			}
		}
		if got := x.header.Get(HeaderRoute); x.status != 404 && c.path != "/guarded" && got == "" {
			t.Errorf("%s: no route header", what)
		}
		if c.ask == "" && x.from() != "" && c.path != "/plain" {
			every := c.path == "/anybody" || c.path == "/all" || c.path == "/get" || c.path == "/percent"
			if vary := x.header.Get("Vary"); every != (vary == "") {
				t.Errorf("%s: Vary is %q", what, vary)
			}
		}
	}
	// OPTIONS that is no preflight goes on.
	if x := ask(t, at, http.MethodOptions, "svc.app", "/several", "Origin", foo); x.from() != "a" || x.header.Get("Access-Control-Allow-Origin") != foo {
		t.Errorf("%d %v", x.status, x.header)
	}
	// Shares have their own: an origin is allowed by one of two.
	n := 0
	for range 100 {
		if x := ask(t, at, "GET", "svc.app", "/shares", "Origin", foo); (x.header.Get("Access-Control-Allow-Origin") == foo) == (x.from() == "a") {
			n++
		}
	}
	if n != 100 {
		t.Errorf("%d of 100 responses are marked as their share says", n)
	}
	r.accepted(t)
}

// TestOriginsAreThoseThatResolveMeans holds the regular expressions that Envoy gets
// against resolve.CORS.Allows, which explain goes by.
func TestOriginsAreThoseThatResolveMeans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		labels := []string{"web", "a.web", "b.a.web", "xweb", "*", "*.web", "*web", "."}
		origin := func(name string) string {
			return pick(t, name+" scheme", []string{"http", "https", "HTTPS", "ftp"}) + "://" + pick(t, name+" label", labels) + pick(t, name+" end", []string{"", ".example", ".EXAMPLE", "xexample"}) +
				pick(t, name+" port", []string{"", ":80", ":443", ":8080", ":", ":0"})
		}
		allowed := origin("allowed")
		if odds(t, "any", 10) {
			allowed = "*"
		}
		p, err := originPattern(allowed)
		if err != nil {
			t.Skip(err) // resolve refuses it too, or it is no origin
		}
		asked := strings.ReplaceAll(origin("asked"), "*", "star")
		fits := regexp.MustCompile("^(?:" + p + ")$").MatchString(asked)
		if c := (&resolve.CORS{AllowOrigins: []string{allowed}}); c.Allows(asked) != fits {
			t.Fatalf("%q for %q: %t by resolve, %t by %s", allowed, asked, c.Allows(asked), fits, p)
		}
	})
}
