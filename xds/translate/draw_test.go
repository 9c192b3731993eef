package translate

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/xds/envoy/envoytest"
)

// Values as users write them, and as nobody should get through with.
var (
	someTexts   = []string{"", "a", "x-header", "Host", "host", ":path", "x y", "100%", "%REQ(a)%", "a\r\nb", "ü", "\xff", "*", "a;b", `a\b`, `"`, "{", "content-length", "transfer-encoding", strings.Repeat("n", 300)}
	somePaths   = []string{"/", "/a", "/a/", "/a/b.c", "/%7Euser", "/a;b", "/ü", "//", "/a?b", "/a#b", "a", "", `/\1`, "/" + strings.Repeat("p/", 500), "/a b", "/(", "/\x00"}
	someRegexes = []string{"/a.*", "[", "(a|b)+", `\pL{900}`, "(?i)/ü", `/\d+`, "", strings.Repeat("a?", 600), "^/a$", `(?P<n>a)`, "/" + strings.Repeat("x", 1000), `\C`, "a{1001}", "(?=a)", `[[:word:]]{20}`}
	someHosts   = []string{"", "a.example", "*.example", "A.Example", "a b", "a:80", strings.Repeat("h", 300), "1.2.3.4", "ü.example", "-a"}
	someOrigins = []string{"*", "https://a.example", "http://*", "https://*.a.example:8443", "ftp://a", "https://", "https://a:0", "https://a:99999", "https://*x", "a", "https://a/", "https://" + strings.Repeat("o", 240)}
	someMethods = []string{"", "GET", "POST", "OPTIONS", "get", "*", "G T", "CONNECT"}
	someTimes   = []time.Duration{0, 1, time.Millisecond, time.Second, 99999 * time.Hour, -time.Second}
	someCounts  = []uint32{0, 1, 2, 3, 100, 1 << 31, 1<<32 - 1}
)

func drawOf[T any](t *rapid.T, label string, most int, draw func() T) []T {
	var out []T
	for range rapid.IntRange(0, most).Draw(t, label) {
		out = append(out, draw())
	}
	return out
}

func drawMods(t *rapid.T) resolve.HeaderMods {
	header := func() resolve.Header {
		return resolve.Header{Name: pick(t, "name", someTexts), Value: pick(t, "value", someTexts)}
	}
	return resolve.HeaderMods{Set: drawOf(t, "set", 2, header), Add: drawOf(t, "add", 2, header), Remove: drawOf(t, "remove", 1, func() string { return pick(t, "gone", someTexts) })}
}

func drawRewrite(t *rapid.T) *resolve.Rewrite {
	w := &resolve.Rewrite{Hostname: pick(t, "host", someHosts)}
	switch pick(t, "path", []string{"full", "prefix", ""}) {
	case "full":
		w.FullPath = ptr(pick(t, "full", somePaths))
	case "prefix":
		w.PrefixPath = ptr(pick(t, "prefix", somePaths))
	}
	return w
}

func drawRedirect(t *rapid.T) *resolve.Redirect {
	w := drawRewrite(t)
	return &resolve.Redirect{Scheme: pick(t, "scheme", []string{"", "http", "https", "x"}), Hostname: w.Hostname, FullPath: w.FullPath, PrefixPath: w.PrefixPath,
		Port: pick(t, "port", []int32{0, 80, 443, 8443, -1, 70000}), StatusCode: pick(t, "status", []int{301, 302, 303, 307, 308, 200})}
}

func drawFilters(t *rapid.T) resolve.Filters {
	var f resolve.Filters
	if odds(t, "request", 3) {
		f.Request = drawMods(t)
	}
	if odds(t, "response", 3) {
		f.Response = drawMods(t)
	}
	if odds(t, "rewrite", 3) {
		f.Rewrite = drawRewrite(t)
	}
	if odds(t, "mirrors", 3) {
		f.Mirrors = drawOf(t, "mirrors", 3, func() resolve.Mirror {
			return resolve.Mirror{Backend: drawBackendKey(t), Numerator: pick(t, "n", someCounts), Denominator: pick(t, "d", someCounts)}
		})
	}
	if odds(t, "cors", 3) {
		text := func() string { return pick(t, "text", someTexts) }
		f.CORS = &resolve.CORS{AllowOrigins: drawOf(t, "origins", 8, func() string { return pick(t, "origin", someOrigins) }), AllowCredentials: odds(t, "credentials", 2),
			AllowMethods: drawOf(t, "methods", 2, func() string { return pick(t, "method", someMethods) }), AllowHeaders: drawOf(t, "headers", 2, text), ExposeHeaders: drawOf(t, "expose", 2, text),
			MaxAge: pick(t, "age", someTimes)}
	}
	if odds(t, "auth", 3) {
		names := func() string { return pick(t, "header", someTexts) }
		f.Auth = &resolve.ExternalAuth{GRPC: odds(t, "grpc", 2), Backend: drawBackendKey(t), Path: pick(t, "path", somePaths), MaxBody: pick(t, "body", someCounts),
			RequestHeaders: drawOf(t, "sent", 2, names), ResponseHeaders: drawOf(t, "copied", 2, names)}
	}
	return f
}

func drawMatch(t *rapid.T) resolve.Match {
	m := resolve.Match{PathType: pick(t, "type", []resolve.PathType{resolve.PathPrefix, resolve.PathPrefix, resolve.PathExact, resolve.PathRegex, "x"}), Method: pick(t, "method", someMethods)}
	if m.PathType == resolve.PathRegex {
		m.Path = pick(t, "regex", someRegexes)
	} else {
		m.Path = pick(t, "path", somePaths)
	}
	value := func() resolve.ValueMatch {
		v := resolve.ValueMatch{Name: pick(t, "name", someTexts), Regex: odds(t, "regex", 3)}
		if v.Regex {
			v.Value = pick(t, "regex", someRegexes)
		} else {
			v.Value = pick(t, "value", someTexts)
		}
		return v
	}
	if odds(t, "headers", 3) {
		m.Headers = drawOf(t, "headers", 2, value)
	}
	if odds(t, "query", 3) {
		m.Query = drawOf(t, "query", 2, value)
	}
	return m
}

// drawRule draws a rule of which anything may be wrong; half of them have a match
// with which nothing is.
func drawRule(t *rapid.T, index int, gateway bool) *resolve.Rule {
	r := &resolve.Rule{Route: resolve.RouteID{Kind: pick(t, "kind", []cluster.Kind{cluster.KindHTTPRoute, cluster.KindGRPCRoute}), Namespace: "app", Name: pick(t, "route", someNames), Cluster: "east"}, RuleIndex: index,
		Match:   resolve.Match{PathType: resolve.PathPrefix, Path: fmt.Sprintf("/%d", index)},
		Filters: drawFilters(t),
	}
	if odds(t, "match", 2) {
		r.Match = drawMatch(t)
	}
	if odds(t, "redirect", 5) {
		r.Redirect = drawRedirect(t)
		return r
	}
	if odds(t, "invalid", 10) {
		r.Invalid = "invalid"
	}
	if odds(t, "retry", 3) {
		r.Retry = &resolve.Retry{Codes: drawOf(t, "codes", 3, func() int { return pick(t, "code", []int{400, 500, 503, 0, 999, -1}) }), Attempts: pick(t, "attempts", []int{0, 1, 3, 1 << 40, -1}), Backoff: pick(t, "backoff", someTimes)}
	}
	if odds(t, "session", 3) {
		r.Session = &resolve.Session{Header: odds(t, "header", 2), Name: pick(t, "name", append([]string{"sticky", "st.cky", "a'b", "`"}, someTexts...)), AbsoluteTimeout: pick(t, "life", someTimes), Permanent: odds(t, "permanent", 2)}
	}
	if odds(t, "timeouts", 3) {
		r.RequestTimeout, r.BackendTimeout = pick(t, "request", someTimes), pick(t, "backend", someTimes)
	}
	for range rapid.IntRange(0, 3).Draw(t, "backends") {
		b := resolve.WeightedBackend{Weight: pick(t, "weight", someCounts), Backend: drawBackendKey(t)}
		if odds(t, "filters", 3) {
			b.Filters = drawFilters(t)
		}
		switch {
		case odds(t, "invalid", 5):
			b.Invalid = "invalid"
		case odds(t, "redirect", 5):
			b.Redirect = drawRedirect(t)
		case gateway && odds(t, "chain", 2):
			k := drawFrontendKey(t)
			b.Chain = &k
		}
		r.Backends = append(r.Backends, b)
	}
	return r
}

// Whatever rules say, Envoy takes what becomes of them: each by its own checks,
// and many at once by the real one.
func TestEnvoyTakesWhatIsDrawn(t *testing.T) {
	binary := envoytest.Binary(t)
	for i := range 4 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			gen := rapid.Custom(func(t *rapid.T) *resolve.Rule { return drawRule(t, 0, i%2 == 0) })
			var rules []*resolve.Rule
			for n := range 400 {
				r := gen.Example(i*10_000 + n)
				r.RuleIndex = n
				rules = append(rules, r)
			}
			var in Input
			if i%2 == 0 {
				g := &resolve.Gateway{Namespace: "app", Name: "gw", Listeners: []resolve.Listener{{Name: "l", Port: 80, Protocol: protocolHTTP}}}
				for n, h := range append([]string{"*"}, someHosts...) {
					g.Listeners[0].Hosts = append(g.Listeners[0].Hosts, resolve.VirtualHost{Hostname: h, Table: table(rules[n*30 : (n+1)*30]...)})
				}
				in = Input{Proxy: Proxy{Cluster: "east", Role: RoleGateway, Namespace: "app", Name: "gw"}, Result: result("east", g)}
			} else {
				in = Input{Proxy: Proxy{Cluster: "east", Role: RoleSidecar, Namespace: "app", Name: "w"}, Result: result("east", frontend("a", table(rules...)))}
			}
			in.Bindings, in.Options = &counted{}, Options{DebugHeaders: i < 2}
			s := Build(in)
			routes := 0
			for _, typ := range Types {
				for _, r := range s.Resources.All(typ) {
					m, err := r.Body.UnmarshalNew()
					if err != nil {
						t.Fatal(err)
					}
					if v, ok := m.(interface{ ValidateAll() error }); !ok {
						t.Errorf("%T has no checks", m)
					} else if err := v.ValidateAll(); err != nil {
						t.Errorf("%s: %v", r.Name, err)
					}
					routes += strings.Count(string(must(proto.Marshal(m))), "Route/app/")
				}
			}
			if routes < 50 {
				t.Errorf("only %d routes of 400 rules are left", routes)
			}
			if err := accepted(t, binary, s); err != nil {
				t.Errorf("%.2000s", err)
			}
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
