package translate

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// A Gateway's request goes through the producer routes of its backend, and
// neither the backend nor the client can tell that there were two hops.
func TestChainInEnvoy(t *testing.T) {
	w := newWorld(t, "east")
	a, b := echo(t, "a"), echo(t, "b")
	svcA := resolve.FrontendKey{Kind: cluster.KindService, Namespace: "app", Name: "a"}
	producer := prefixRule("route-b", 0, "/rewritten", to("b", 1))
	producer.Filters.Request.Set = []resolve.Header{{Name: "x-producer", Value: "1"}}
	fa := frontend("a", table(producer))

	chained := resolve.WeightedBackend{Weight: 1, Backend: serviceKey("a"), Chain: &svcA}
	first := prefixRule("route-a", 0, "/", chained)
	first.Filters.Rewrite = &resolve.Rewrite{PrefixPath: ptr("/rewritten"), Hostname: "inner.example"}
	direct := prefixRule("route-a", 1, "/direct", to("b", 1))
	direct.Filters.Rewrite = &resolve.Rewrite{PrefixPath: ptr("/rewritten"), Hostname: "inner.example"}
	direct.Filters.Request.Set = []resolve.Header{{Name: "x-producer", Value: "1"}}
	missing := prefixRule("route-a", 2, "/missing", chained)
	gone := resolve.FrontendKey{Kind: cluster.KindService, Namespace: "app", Name: "gone"}
	nowhere := prefixRule("route-a", 3, "/gone", resolve.WeightedBackend{Weight: 1, Backend: serviceKey("gone"), Chain: &gone})
	g := &resolve.Gateway{Namespace: "app", Name: "gw", Listeners: []resolve.Listener{
		{Name: "http", Port: 80, Protocol: "HTTP", Hostname: "", Hosts: []resolve.VirtualHost{
			{Hostname: "example.local", Table: table(missing, nowhere, direct, first)},
		}},
		{Name: "wild", Port: 80, Protocol: "HTTP", Hostname: "*.wild.local", Hosts: []resolve.VirtualHost{
			{Hostname: "*.wild.local", Table: table(prefixRule("route-w", 0, "/", to("a", 1)))},
		}},
		{Name: "strict", Port: 80, Protocol: "HTTP", Hostname: "strict.wild.local", Hosts: []resolve.VirtualHost{
			{Hostname: "strict.wild.local", Table: table()},
		}},
	}}
	p := Proxy{Cluster: "east", Role: RoleGateway, Namespace: "app", Name: "gw"}
	log := filepath.Join(t.TempDir(), "access.log")
	r := w.start(Input{Proxy: p, Options: Options{DebugHeaders: true, AccessLog: log}, Result: result("east", fa, g,
		service("a", resolve.AppHTTP, a), service("b", resolve.AppHTTP, b))}, &ports{t: t})
	at, _ := r.ports.Gateway(p, TransportTCP, 80)

	for _, c := range []struct {
		host, path string
		status     int
		from       string
	}{
		{"example.local", "/x", 200, "b"},
		{"example.local:8080", "/x", 200, "b"},
		{"EXAMPLE.local", "/x", 200, "b"},
		{"example.local", "/missing", 404, ""}, // the producer routes know no /missing
		{"example.local", "/gone", 500, ""},
		{"other.local", "/x", 404, ""},
		{"one.wild.local", "/x", 200, "a"},
		{"two.one.wild.local:1", "/x", 200, "a"},
		{"wild.local", "/x", 404, ""},
		{"strict.wild.local", "/x", 404, ""},
	} {
		if x := ask(t, at, "GET", c.host, c.path); x.status != c.status || x.from() != c.from {
			t.Errorf("%s%s: %d from %q, want %d from %q", c.host, c.path, x.status, x.from(), c.status, c.from)
		}
	}

	// Both ways give the backend the same, save for the request's own id.
	headers := []string{"x-forwarded-for", "1.2.3.4", "x-envoy-retry-on", "5xx", "x-request-id", "mine", "x-forwarded-proto", "https"}
	two := ask(t, at, "POST", "example.local", "/x?y=z", headers...)
	one := ask(t, at, "POST", "example.local", "/direct/x?y=z", headers...)
	mask := func(s string) string {
		var out []string
		for _, l := range strings.Split(s, "\n") {
			if strings.HasPrefix(l, "X-Request-Id: ") {
				if strings.Contains(l, "|") || strings.Contains(l, "mine") {
					t.Errorf("request id %q", l)
				}
				l = "X-Request-Id: masked"
			}
			out = append(out, l)
		}
		return strings.Join(out, "\n")
	}
	if mask(two.body) != mask(one.body) {
		t.Errorf("over two hops the backend got\n%s\nover one\n%s", two.body, one.body)
	}
	for _, want := range []string{"POST /rewritten/x?y=z HTTP/1.1\n", "Host: inner.example\n", "X-Producer: 1\n", "X-Forwarded-For: 1.2.3.4,"} {
		if !strings.Contains(two.body, want) {
			t.Errorf("the backend did not get %q:\n%s", want, two.body)
		}
	}
	if strings.Contains(two.body, "X-Envoy") {
		t.Errorf("the backend gets headers of Envoy's own:\n%s", two.body)
	}
	if got, want := two.header.Get(HeaderRoute), "HTTPRoute/app/route-a@east/0/0, HTTPRoute/app/route-b@east/0/0"; got != want {
		t.Errorf("%s: %q, want %q", HeaderRoute, got, want)
	}
	if got := two.header.Values(HeaderUpstream); len(got) != 1 || !strings.HasPrefix(got[0], "Service/app/b/80; cluster=east; pod=b-0; ") {
		t.Errorf("%s: %q", HeaderUpstream, got)
	}
	await(t, func() error { // both hops log, under the same request id
		data, err := os.ReadFile(log)
		if err != nil {
			return err
		}
		routes := map[string][]string{}
		for _, l := range strings.Split(strings.TrimSpace(string(data)), "\n") {
			var x struct {
				Route     string `json:"route"`
				RequestID string `json:"request_id"`
				Status    int    `json:"status"`
			}
			if err := json.Unmarshal([]byte(l), &x); err != nil {
				return fmt.Errorf("%s: %w", l, err)
			}
			if x.Status == 200 {
				routes[x.RequestID] = append(routes[x.RequestID], x.Route)
			}
		}
		for _, list := range routes {
			slices.Sort(list)
			if slices.Equal(list, []string{"HTTPRoute/app/route-a@east/0/0", "HTTPRoute/app/route-b@east/0/0"}) {
				return nil
			}
		}
		return fmt.Errorf("no request is logged by both hops: %v", routes)
	})
	one.header.Del(HeaderRoute)
	two.header.Del(HeaderRoute)
	one.header.Del("Content-Length")
	two.header.Del("Content-Length")
	for k := range two.header {
		if k != "Date" && !slices.Equal(one.header[k], two.header[k]) {
			t.Errorf("response header %s: %q over two hops, %q over one", k, two.header[k], one.header[k])
		}
	}
	if len(one.header) != len(two.header) {
		t.Errorf("response headers over two hops %v, over one %v", two.header, one.header)
	}
}

// A route that is there before the internal listener of its chain waits for it.
func TestChainWaitsForItsListener(t *testing.T) {
	w := newWorld(t, "east")
	key := resolve.FrontendKey{Kind: cluster.KindService, Namespace: "app", Name: "a"}
	g := &resolve.Gateway{Namespace: "app", Name: "gw", Listeners: []resolve.Listener{{Name: "http", Port: 80, Protocol: "HTTP",
		Hosts: []resolve.VirtualHost{{Hostname: "*", Table: table(prefixRule("r", 0, "/", resolve.WeightedBackend{Weight: 1, Backend: serviceKey("a"), Chain: &key}))}}}}}
	p := Proxy{Cluster: "east", Role: RoleGateway, Namespace: "app", Name: "gw"}
	in := Input{Proxy: p, Result: result("east", g, frontend("a", nil), service("a", resolve.AppHTTP, echo(t, "a")))}
	r := w.start(in, &ports{t: t})
	at, _ := r.ports.Gateway(p, TransportTCP, 80)
	if x := ask(t, at, "GET", "x", "/"); x.from() != "a" {
		t.Fatalf("%d from %q", x.status, x.from())
	}
	without := *r.state
	types := maps.Clone(r.state.Resources.types)
	types[TypeListener], _, _ = types[TypeListener].Delete([]byte(ChainName(key, 80, false)))
	without.Resources = &Resources{types: types}
	r.feed.set(&without)
	await(t, func() error {
		if x := ask(t, at, "GET", "x", "/"); x.status != 503 {
			return fmt.Errorf("without the internal listener the answer is %d", x.status)
		}
		return nil
	})
	before := r.stat(t, "cluster."+ChainName(key, 80, false)+".upstream_rq_retry")
	came := make(chan answer, 1)
	go func() { came <- ask(t, at, "GET", "x", "/") }()
	await(t, func() error {
		if r.stat(t, "cluster."+ChainName(key, 80, false)+".upstream_rq_retry") == before {
			return errors.New("the request does not wait for the listener")
		}
		return nil
	})
	r.feed.set(r.state)
	if x := <-came; x.status != 200 {
		t.Errorf("the listener came while a request waited, and the answer is %d", x.status)
	}
}

// What a Gateway's request goes through may be another cluster's producer routes: the
// gateway follows those, and is left alone by all other changes.
func TestChainFollowsRemotes(t *testing.T) {
	remote := func(path string) *resolve.Frontend {
		f := frontend("a", table(prefixRule("route-a", 0, path, to("a", 1))))
		f.Key.Cluster = "west"
		return f
	}
	key := remote("/").Key
	g := &resolve.Gateway{Namespace: "app", Name: "gw", Listeners: []resolve.Listener{{Name: "http", Port: 80, Protocol: "HTTP", Hosts: []resolve.VirtualHost{
		{Hostname: "*", Table: table(prefixRule("route-g", 0, "/", resolve.WeightedBackend{Weight: 1, Backend: serviceKey("a"), Chain: &key}))},
	}}}}
	parts := func(path string, more ...any) *resolve.Result {
		return result("east", append(more, g, remote(path), service("a", resolve.AppHTTP, addresses(1, 1)...))...)
	}
	in := Input{Proxy: Proxy{Cluster: "east", Role: RoleGateway, Namespace: "app", Name: "gw"}, Bindings: &ports{t: t}, Cache: NewCache(), Result: parts("/")}
	for _, shared := range []bool{false, true} {
		in := in
		if shared {
			in.Shared = NewShared(in)
		}
		s := Build(in)
		for _, x := range []struct {
			next    *resolve.Result
			delta   resolve.Delta
			changes bool
		}{
			{parts("/other"), resolve.Delta{Remotes: []string{key.String()}}, true},
			{parts("/other", service("b", resolve.AppHTTP, addresses(2, 1)...)), resolve.Delta{BackendConfigs: []string{serviceKey("b").String()}}, false},
		} {
			in.Result = x.next
			if shared {
				in.Shared = in.Shared.Update(in, x.delta)
			}
			next, changes := s.Update(in, x.delta)
			if d := differ(Build(in).Resources, next.Resources); d != "" || changes.Empty() == x.changes {
				t.Errorf("shared %v, %+v: it has not what is built, or what changed is told wrongly (%+v):\n%s", shared, x.delta, changes, d)
			}
			s = next
		}
	}
}
