package explain

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

// TestPriorityLoads: the examples of Envoy's documentation on priority levels
// (arch_overview, "Priority levels"), each a list of healthy percentages.
func TestPriorityLoads(t *testing.T) {
	for _, c := range []struct{ healthy, want []int }{
		{[]int{100}, []int{100}},
		{[]int{72, 100}, []int{100, 0}},
		{[]int{71, 100}, []int{99, 1}},
		{[]int{50, 100}, []int{70, 30}},
		{[]int{25, 100}, []int{35, 65}},
		{[]int{0, 100}, []int{0, 100}},
		{[]int{25, 25}, []int{50, 50}},
		{[]int{5, 0}, []int{100, 0}},
		{[]int{20, 20, 10}, []int{40, 40, 20}},
		{[]int{0, 0}, nil},
	} {
		var groups []resolve.EndpointGroup
		for p, percent := range c.healthy {
			groups = append(groups, resolve.EndpointGroup{Priority: uint32(p), Endpoints: []resolve.Endpoint{{Weight: uint32(percent), Healthy: true}, {Weight: uint32(100 - percent)}}})
		}
		loads, unhealthy := priorityLoads(groups)
		if unhealthy != (c.want == nil) {
			t.Errorf("%v: unhealthy is %t", c.healthy, unhealthy)
		}
		for i := range c.want {
			if loads[i] != c.want[i] {
				t.Errorf("%v: got %v, want %v", c.healthy, loads, c.want)
				break
			}
		}
	}
}

// TestReplacePath: the table of Gateway API's HTTPPathModifier.
func TestReplacePath(t *testing.T) {
	for _, c := range []struct{ path, prefix, replacement, want string }{
		{"/foo/bar", "/foo", "/xyz", "/xyz/bar"},
		{"/foo/bar", "/foo", "/xyz/", "/xyz/bar"},
		{"/foo", "/foo", "/xyz", "/xyz"},
		{"/foo/", "/foo", "/xyz", "/xyz/"},
		{"/foo/bar", "/foo", "", "/bar"},
		{"/foo/", "/foo", "", "/"},
		{"/foo", "/foo", "", "/"},
		{"/foo/", "/foo", "/", "/"},
		{"/foo", "/foo", "/", "/"},
		{"/foo", "/", "/xyz", "/xyz/foo"},
		{"/", "/", "/xyz", "/xyz/"},
	} {
		got := replacePath(c.path, resolve.Match{PathType: resolve.PathPrefix, Path: c.prefix}, nil, &c.replacement)
		if got != c.want {
			t.Errorf("%s with %s replaced by %q: got %s, want %s", c.path, c.prefix, c.replacement, got, c.want)
		}
	}
}

func TestFrontendOf(t *testing.T) {
	for host, want := range map[string]string{
		"a":                                  "Service/dev/a",
		"a.app":                              "Service/app/a",
		"a.app.svc":                          "Service/app/a",
		"A.app.svc.cluster.local":            "Service/app/a",
		"a.app.svc.cluster.local.":           "Service/app/a",
		"a.app.svc.clusterset.local":         "ServiceImport/app/a",
		"a.app.svc.example.com":              "",
		"east.a.app.svc.clusterset.local":    "",
		"svc.clusterset.local":               "",
		"a..svc":                             "",
		"":                                   "",
		"pod.sub.a.app.svc.cluster.local":    "",
		"example.com.app.svc.cluster.local.": "",
	} {
		got := ""
		if k, ok := FrontendOf(host, "dev"); ok {
			got = k.String()
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", host, got, want)
		}
	}
}

// TestInputs: what can't be a source or a request is refused, and nothing panics.
func TestInputs(t *testing.T) {
	for _, s := range []string{"", "east", "east/", "/ns", "east/gateway/ns", "east/gateway/ns/", "east/a/b/c", "a/b/c/d/e"} {
		if _, err := ParseSource(s); err == nil {
			t.Errorf("source %q was accepted", s)
		}
	}
	for _, u := range []string{"", "http://", "ftp://a", "http://a:0", "http://a:99999", "http://[", "http://a\x7f"} {
		if _, err := NewRequest("GET", u, nil); err == nil {
			t.Errorf("URL %q was accepted", u)
		}
	}
	if _, err := NewRequest("GET", "http://a", []string{"no-colon"}); err == nil {
		t.Error("a header without a colon was accepted")
	}
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "source")
		if from, err := ParseSource(s); err == nil && from.String() != s {
			t.Fatalf("%q reads as %q", s, from)
		}
		r, err := NewRequest(rapid.String().Draw(t, "method"), rapid.String().Draw(t, "url"), []string{rapid.String().Draw(t, "header")})
		if err == nil && (r.Host == "" || !strings.HasPrefix(r.Path, "/")) && r.Path != "*" {
			t.Fatalf("request without host or path: %+v", r)
		}
	})
}
