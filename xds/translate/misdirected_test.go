package translate

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

// statusOf is what the hosts answer to a request without looking at its path: the
// virtual host is chosen as Envoy does. 200 stands for a route of the listener.
func statusOf(hosts []*routev3.VirtualHost, host string) int {
	best, length := (*routev3.VirtualHost)(nil), -1
	for _, v := range hosts {
		for _, d := range v.Domains {
			n := -1
			switch suffix, wild := strings.CutPrefix(d, "*"); {
			case d == host:
				n = 1000
			case wild && strings.HasSuffix(host, suffix) && len(host) > len(suffix):
				n = len(suffix)
			}
			if n > length {
				best, length = v, n
			}
		}
	}
	switch {
	case best == nil || len(best.Routes) == 0:
		return http.StatusNotFound
	case best.Routes[0].GetDirectResponse() != nil:
		return int(best.Routes[0].GetDirectResponse().Status)
	}
	return http.StatusOK
}

// The table of Gateway API's conformance test, and what more there is to GEP-3567.
func TestMisdirectedRequests(t *testing.T) {
	listener := func(name, hostname string, hosts ...string) resolve.Listener {
		l := resolve.Listener{Name: name, Port: 443, Protocol: protocolHTTPS, Hostname: hostname}
		for _, h := range hosts {
			l.Hosts = append(l.Hosts, resolve.VirtualHost{Hostname: h, Table: table(prefixRule("r", 0, "/", to("a", 1)))})
		}
		return l
	}
	other := listener("other-port", "elsewhere.org")
	other.Port = 8443
	pass := listener("tls", "tls.example.net")
	pass.Protocol = protocolTLS
	g := &resolve.Gateway{Namespace: "app", Name: "gw", Listeners: []resolve.Listener{
		listener("any", "", "example.org", "x.wildcard.org"),
		listener("second", "second-example.org", "second-example.org"),
		listener("wildcard", "*.wildcard.org", "*.wildcard.org", "fourth.wildcard.org", "w.wildcard.org", "*.deep.wildcard.org"),
		listener("short", "w.wildcard.org", "w.wildcard.org"),
		listener("fourth", "fourth.wildcard.org", "fourth.wildcard.org"),
		listener("deep", "*.deep.wildcard.org", "a.deep.wildcard.org"),
		other, pass,
	}}
	for _, c := range []struct {
		listener, host string
		want           int
	}{
		{"any", "example.org", 200},
		{"any", "second-example.org", 421},
		{"any", "unknown-example.org", 404},
		{"any", "x.wildcard.org", 421},
		{"any", "wildcard.org", 404},
		{"wildcard", "w.wildcard.org", 421}, // as long as the wildcard, and more specific
		{"any", "elsewhere.org", 404},
		{"any", "tls.example.net", 421},
		{"second", "second-example.org", 200},
		{"second", "example.org", 421},
		{"second", "unknown-example.org", 421},
		{"wildcard", "third.wildcard.org", 200},
		{"wildcard", "fifth.wildcard.org", 200},
		{"wildcard", "fourth.wildcard.org", 421},
		{"wildcard", "a.deep.wildcard.org", 421},
		{"wildcard", "deep.wildcard.org", 200},
		{"wildcard", "unknown-example.org", 421},
		{"fourth", "fourth.wildcard.org", 200},
		{"fourth", "fifth.wildcard.org", 421},
		{"deep", "a.deep.wildcard.org", 200},
		{"deep", "b.deep.wildcard.org", 404},
		{"deep", "fifth.wildcard.org", 421},
	} {
		i := slices.IndexFunc(g.Listeners, func(l resolve.Listener) bool { return l.Name == c.listener })
		set := &routeSet{}
		hosts := set.httpsHosts("Gateway/app/gw", g, &g.Listeners[i])
		if got := statusOf(hosts, c.host); got != c.want {
			t.Errorf("over listener %s, %s gets %d, want %d", c.listener, c.host, got, c.want)
		}
		if len(set.problems) > 0 {
			t.Error(set.problems)
		}
		// Envoy refuses a domain that is there twice.
		var domains []string
		for _, v := range hosts {
			domains = append(domains, v.Domains...)
		}
		slices.Sort(domains)
		if n := len(domains); n != len(slices.Compact(domains)) {
			t.Errorf("listener %s has a domain twice: %q", c.listener, domains)
		}
	}
	// Without a listener for everything, a host of nobody gets 404.
	g.Listeners = g.Listeners[1:]
	if got := statusOf((&routeSet{}).httpsHosts("", g, &g.Listeners[0]), "example.org"); got != 404 {
		t.Errorf("a host that no listener has gets %d", got)
	}
}
