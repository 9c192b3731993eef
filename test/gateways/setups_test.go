package gateways

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// setup is a configuration of one Gateway: listeners, certificates, routes, and who stands
// behind the Services. Nobody changes one that others know; next makes another.
type setup struct {
	ports   map[string]int32  // of the Gateway's listeners, by their names
	certs   map[string]pair   // by the Secret that has it
	shown   map[string]string // which Secret a listener with TLS refers to
	routes  map[int]route     // by number, of which its host is made
	behind  map[string]string // which Deployment's pods a Service selects
	changed int               // how many changes led here
	what    string            // the last of them
}

// pair is a certificate with its key, in PEM, and the certificate in DER.
type pair struct {
	cert, key []byte
	der       string
}

// route is an HTTPRoute of one host.
type route struct {
	section string // the listener to which it is attached; empty: all
	rules   []rule
}

// rule has one match, and whatever comes by it bears its mark, which no other rule has,
// and none that it becomes later.
type rule struct {
	mark           string
	path           string
	exact          bool
	kind, method   string // of the header x-kind, and of requests; empty: any
	weights        map[string]int
	rewrite, moved bool // its path is rewritten; it answers with a redirect instead
}

const (
	hostsDrawn = 8
	absent     = "missing" // the name of a Service that is not there
)

var (
	servicesDrawn = []string{"a", "b", "c"}
	workloads     = []string{"red", "green", "blue"}
	secretsDrawn  = []string{"cert-0", "cert-1"}
	// listenersDrawn are those that come, go and move, and those that stay. The names of
	// those with TLS begin with "tls".
	listenersDrawn = map[string][]int32{"http": {80}, "tls": {443}, "extra": {8081, 8082, 8083}, "tls-extra": {8441, 8442}}
	pathsDrawn     = []string{"/", "/a", "/a/b", "/c"}
	kindsDrawn     = []string{"", "", "one", "two"}
	methodsDrawn   = []string{"", "", "", "POST"}
)

func hasTLS(listener string) bool { return strings.HasPrefix(listener, "tls") }

func pick[T any](c *rand.Rand, list []T) T { return list[c.IntN(len(list))] }

// firstSetup has routes for most hosts.
func firstSetup(c *rand.Rand, fresh func() pair) *setup {
	s := &setup{ports: map[string]int32{"http": 80, "tls": 443}, certs: map[string]pair{}, shown: map[string]string{}, routes: map[int]route{}, behind: map[string]string{}, what: "the first"}
	for name := range listenersDrawn {
		if hasTLS(name) {
			s.shown[name] = secretsDrawn[0]
		}
	}
	for _, name := range secretsDrawn {
		s.certs[name] = fresh()
	}
	for i, name := range servicesDrawn {
		s.behind[name] = workloads[i]
	}
	for i := range hostsDrawn - 2 {
		s.routes[i] = s.drawRoute(c, i)
	}
	return s
}

func (s *setup) drawRoute(c *rand.Rand, host int) route {
	var r route
	if c.IntN(4) == 0 {
		r.section = pick(c, slices.Sorted(maps.Keys(listenersDrawn)))
	}
	for i := range 1 + c.IntN(4) {
		x := rule{path: pick(c, pathsDrawn), exact: c.IntN(4) == 0, kind: pick(c, kindsDrawn), method: pick(c, methodsDrawn), rewrite: c.IntN(3) == 0, moved: c.IntN(8) == 0}
		x.mark = fmt.Sprintf("r%d-%d-%d", host, s.changed, i)
		x.weights = drawWeights(c)
		r.rules = append(r.rules, x)
	}
	return r
}

// drawWeights leaves at least one backend with a share.
func drawWeights(c *rand.Rand) map[string]int {
	out := map[string]int{pick(c, servicesDrawn): 1 + c.IntN(3)}
	for _, name := range servicesDrawn {
		if c.IntN(3) == 0 && out[name] == 0 {
			out[name] = c.IntN(4)
		}
	}
	if c.IntN(8) == 0 {
		out[absent] = 1
	}
	return out
}

// next makes one change. Whether anybody sees it is another question.
func (s *setup) next(c *rand.Rand, fresh func() pair) *setup {
	n := &setup{ports: maps.Clone(s.ports), certs: maps.Clone(s.certs), shown: maps.Clone(s.shown), routes: maps.Clone(s.routes), behind: maps.Clone(s.behind), changed: s.changed + 1}
	host := c.IntN(hostsDrawn)
	old, there := s.routes[host]
	switch c.IntN(8) {
	case 0:
		if there {
			delete(n.routes, host)
			n.what = fmt.Sprintf("route %d removed", host)
			return n
		}
		fallthrough
	case 1:
		n.routes[host], n.what = n.drawRoute(c, host), fmt.Sprintf("route %d", host)
	case 2, 3:
		if !there {
			return n.next(c, fresh)
		}
		// Its backends and their weights alone; marks tell the answers apart.
		r := route{section: old.section, rules: slices.Clone(old.rules)}
		for i := range r.rules {
			r.rules[i].weights, r.rules[i].mark = drawWeights(c), fmt.Sprintf("r%d-%d-%d", host, n.changed, i)
		}
		n.routes[host], n.what = r, fmt.Sprintf("backends of route %d", host)
	case 4:
		name := pick(c, servicesDrawn)
		n.behind[name] = pick(c, workloads)
		n.what = fmt.Sprintf("Service %s selects %s", name, n.behind[name])
	case 5:
		name := pick(c, secretsDrawn)
		n.certs[name], n.what = fresh(), "Secret "+name
	case 6:
		name := pick(c, slices.Sorted(maps.Keys(s.shown)))
		n.shown[name] = pick(c, secretsDrawn)
		n.what = fmt.Sprintf("listener %s shows %s", name, n.shown[name])
	default:
		name := pick(c, []string{"extra", "tls-extra"})
		if s.ports[name] != 0 && c.IntN(3) == 0 {
			delete(n.ports, name)
			n.what = fmt.Sprintf("listener %s removed", name)
			return n
		}
		n.ports[name] = pick(c, listenersDrawn[name])
		n.what = fmt.Sprintf("listener %s on port %d", name, n.ports[name])
	}
	return n
}

// ask is a request to a listener's port.
type ask struct {
	port         int32
	tls          bool
	host         int
	path         string
	kind, method string
}

func (a ask) String() string {
	return fmt.Sprintf("%s %s:%d%s (x-kind: %q, TLS: %t)", a.method, hostName(a.host), a.port, a.path, a.kind, a.tls)
}

func hostName(i int) string { return fmt.Sprintf("h%d.example.com", i) }

func (s *setup) drawAsk(c *rand.Rand) ask {
	name := pick(c, slices.Sorted(maps.Keys(s.ports)))
	a := ask{port: s.ports[name], tls: hasTLS(name), host: c.IntN(hostsDrawn), path: pick(c, pathsDrawn), kind: pick(c, kindsDrawn), method: pick(c, methodsDrawn)}
	if c.IntN(2) == 0 {
		a.path = strings.TrimSuffix(a.path, "/") + pick(c, []string{"/b", "/d"})
	}
	if a.method == "" {
		a.method = "GET"
	}
	return a
}

// What becomes of a request is one of these words, with who answered.
const (
	wordRefused = "refused" // there is no connection
	wordNone    = "404"
	wordBroken  = "500"
)

func wordServed(mark, workload, path string) string {
	return fmt.Sprintf("%s by %s as %s", mark, workload, strings.TrimSuffix(path, "/"))
}

func wordMoved(mark string) string { return "to " + mark }

// over adds which certificate a connection had.
func over(der, word string) string {
	if der == "" {
		return word
	}
	return fmt.Sprintf("%s over %x", word, der[len(der)-4:])
}

// answers lists the words for what may become of a request.
func (s *setup) answers(a ask) (out []string) {
	listener, der := "", ""
	for name, port := range s.ports {
		if port == a.port {
			listener = name
		}
	}
	if listener == "" {
		return []string{wordRefused}
	}
	if hasTLS(listener) {
		der = s.certs[s.shown[listener]].der
	}
	best := rule{}
	for _, r := range s.routes[a.host].rules {
		if on := s.routes[a.host].section; (on == "" || on == listener) && r.matches(a) && (best.mark == "" || r.before(best)) {
			best = r
		}
	}
	switch {
	case best.mark == "":
		return []string{over(der, wordNone)}
	case best.moved:
		return []string{over(der, wordMoved(best.mark))}
	}
	for name, weight := range best.weights {
		switch {
		case weight == 0:
		case name == absent:
			out = append(out, over(der, wordBroken))
		default:
			out = append(out, over(der, wordServed(best.mark, s.behind[name], best.arrives(a.path))))
		}
	}
	return out
}

func (r rule) matches(a ask) bool {
	below := strings.TrimSuffix(r.path, "/") + "/"
	return (a.path == r.path || !r.exact && strings.HasPrefix(a.path, below)) && (r.kind == "" || r.kind == a.kind) && (r.method == "" || r.method == a.method)
}

// before is Gateway API's precedence; of equals the first of the list stays.
func (r rule) before(o rule) bool {
	switch {
	case r.exact != o.exact:
		return r.exact
	case len(r.path) != len(o.path):
		return len(r.path) > len(o.path)
	case (r.method == "") != (o.method == ""):
		return r.method != ""
	}
	return r.kind != "" && o.kind == ""
}

// arrives is how a path reaches the backend.
func (r rule) arrives(path string) string {
	if !r.rewrite {
		return path
	}
	if rest := strings.TrimPrefix(strings.TrimPrefix(path, r.path), "/"); rest != "" {
		return "/" + r.mark + "/" + rest
	}
	return "/" + r.mark
}

// telling lists requests by whose answers two setups can be told apart for sure.
func telling(old, next *setup) (out []ask) {
	ports := map[int32]bool{}
	for _, s := range []*setup{old, next} {
		for name, port := range s.ports {
			ports[port] = hasTLS(name)
		}
	}
	for port, tls := range ports {
		for host := range hostsDrawn {
			for _, path := range pathsDrawn {
				for _, kind := range kindsDrawn[1:] {
					for _, method := range []string{"GET", "POST"} {
						a := ask{port: port, tls: tls, host: host, path: path, kind: kind, method: method}
						before := old.answers(a)
						if !slices.ContainsFunc(next.answers(a), func(w string) bool { return slices.Contains(before, w) }) {
							out = append(out, a)
						}
					}
				}
			}
		}
	}
	return out
}
