package differential

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/causeway-mesh/causeway/federation/explain"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/xds/translate"
)

var (
	firstSeed = flag.Uint64("seed", 1, "the seed of the first world")
	worlds    = flag.Int("worlds", 40, "how many worlds")
	requests  = flag.Int("requests", 60, "requests to each world")
)

// repeats is how often a request is sent where the whole set of backends must be
// seen, and sure the share of requests above which one must be among them:
// (1-sure)^repeats is one in ten million.
const (
	repeats = 60
	sure    = 0.25
)

// TestExplainTellsWhatEnvoyDoes is the test that the package is for.
func TestExplainTellsWhatEnvoyDoes(t *testing.T) {
	r := newRig(t)
	p := newPods(t, 6, east, west)
	sources := map[string]translate.Proxy{
		"east/gateway/app/gw": {Cluster: east, Role: translate.RoleGateway, Namespace: "app", Name: "gw"},
		"east/app":            {Cluster: east, Role: translate.RoleSidecar, Namespace: "app", Name: "sidecar"},
		"east/dev":            {Cluster: east, Role: translate.RoleSidecar, Namespace: "dev", Name: "sidecar"},
	}
	for _, x := range sources {
		r.start(x)
	}
	outcomes := map[string]int{}
	sent := 0
	for i := range *worlds {
		seed := *firstSeed + uint64(i)
		res := resolve.Resolve(east, draw(t, seed, p))
		r.follow(int64(i+1), res)
		chance := rand.New(rand.NewPCG(seed, 1))
		for range *requests {
			from, req := drawRequest(chance)
			source, err := explain.ParseSource(from)
			if err != nil {
				t.Fatal(err)
			}
			n := 1
			if chance.IntN(15) == 0 {
				n = repeats
			}
			outcome, err := r.compare(r.proxies[sources[from].ID()], res, source, req, n)
			sent += n
			if err != nil {
				t.Errorf("seed %d: %s: %s: %v", seed, from, show(req), err)
			}
			outcomes[outcome]++
		}
		if t.Failed() {
			break
		}
	}
	t.Logf("%d requests: %v", sent, outcomes)
	for _, want := range []string{"served", "closed", "200", "403", "421", "404", "500", "redirected", "chained", "unreachable"} {
		if outcomes[want] == 0 && *worlds >= 40 {
			t.Errorf("not one request was %s: the test shows nothing about it", want)
		}
	}
}

// request is one to send, with what explain is asked.
type request struct {
	explain.Request
	rawURL     string
	hostHeader string // if not that of the URL
	header     http.Header
}

func show(r request) string {
	return fmt.Sprintf("%s %s %q", r.Method, r.rawURL, r.header)
}

func drawRequest(c *rand.Rand) (from string, out request) {
	from = pick(c, []string{"east/gateway/app/gw", "east/gateway/app/gw", "east/app", "east/dev"})
	host, port := pick(c, hosts), gatewayPorts[0]
	if !strings.Contains(from, "/gateway/") {
		s := pick(c, services)
		host = s.name + "." + s.namespace + pick(c, []string{".svc.cluster.local", ".svc.clusterset.local"})
	}
	if c.IntN(6) == 0 {
		port = gatewayPorts[1]
	}
	scheme := "http"
	switch {
	case c.IntN(5) == 0:
		scheme = "grpc"
	case c.IntN(4) == 0 && strings.Contains(from, "/gateway/"):
		scheme, port = "https", gatewayPorts[2]
	}
	path := pick(c, paths)
	if scheme == "grpc" {
		path = "/" + pick(c, grpcServices) + "/" + pick(c, grpcMethods)
	}
	if c.IntN(2) == 0 && scheme != "grpc" {
		path = strings.TrimSuffix(path, "/") + pick(c, []string{"/", "/b", "/c/d", "/c//e", "/%41", "/a%2Fb", "/../a", "/./b", "/é"})
	}
	var query []string
	for _, p := range some(c, params) {
		query = append(query, url.QueryEscape(p)+"="+url.QueryEscape(pick(c, values)))
	}
	out.rawURL = fmt.Sprintf("%s://%s:%d%s", scheme, host, port, escape(path))
	if len(query) > 0 {
		out.rawURL += "?" + strings.Join(query, "&")
	}
	out.header = http.Header{}
	var lines []string
	for _, h := range some(c, headers) {
		for range 1 + c.IntN(5)/4 {
			v := pick(c, values)
			out.header.Add(h, v)
			lines = append(lines, h+": "+v)
		}
	}
	method := pick(c, methods)
	if c.IntN(4) == 0 {
		add := func(name, value string) {
			out.header.Set(name, value)
			lines = append(lines, name+": "+value)
		}
		add("origin", pick(c, origins))
		if c.IntN(2) == 0 {
			method = "OPTIONS"
			add("access-control-request-method", "PUT")
		}
	}
	var err error
	if scheme == "https" && c.IntN(3) == 0 {
		// Over a connection that was made for another host.
		other := pick(c, hosts)
		out.hostHeader = other
		lines = append(lines, "host: "+other)
	}
	if out.Request, err = explain.NewRequest(method, out.rawURL, lines); err != nil {
		panic(err)
	}
	if scheme == "grpc" {
		out.header.Set("content-type", "application/grpc")
	}
	return from, out
}

// escape leaves what is escaped as it is.
func escape(path string) string { return strings.ReplaceAll(path, "é", "%C3%A9") }

// answer is what a client got.
type answer struct {
	status   int
	header   http.Header
	seen     *seen
	location string
}

// send sends a request as it is: neither the path nor the order of anything is
// put right on the way.
func (r *rig) send(at netip.AddrPort, q request) (answer, error) {
	client, scheme := &r.client, "http"
	switch q.Scheme {
	case "grpc":
		client = &r.h2
	case "https":
		client, scheme = &r.secure, "https"
	}
	req, err := http.NewRequestWithContext(context.WithValue(context.Background(), serverName{}, q.ServerName), q.Method, scheme+"://"+at.String(), nil)
	if err != nil {
		return answer{}, err
	}
	u, err := url.Parse(q.rawURL)
	if err != nil {
		return answer{}, err
	}
	req.Host = u.Host
	if q.hostHeader != "" {
		req.Host = q.hostHeader
	}
	req.URL.Opaque = u.EscapedPath()
	req.URL.RawQuery = u.RawQuery
	req.Header = q.header.Clone()
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{status: resp.StatusCode, header: resp.Header, location: resp.Header.Get("Location")}
	if resp.StatusCode == http.StatusOK && len(body) > 0 {
		a.seen = &seen{}
		if err := json.Unmarshal(body, a.seen); err != nil {
			return a, fmt.Errorf("answer %q: %w", body, err)
		}
	}
	return a, nil
}

// compare sends a request and holds what happens against the explanation.
func (r *rig) compare(p *proxy, res *resolve.Result, from explain.Source, q request, n int) (string, error) {
	x := explain.Explain(res, from, q.Request)
	at, listening := p.listens(res, from, q.Request)
	if x.Problem != "" || !listening {
		if listening {
			return "", fmt.Errorf("explained as unreachable (%s), but %s listens at %s", x.Problem, p.ID(), at)
		}
		if x.Problem == "" {
			return "", fmt.Errorf("explained as reachable, but nothing listens for it")
		}
		return "unreachable", nil
	}
	all := leaves(x.Hop, nil)
	met := map[string]bool{}
	var first string
	for range n {
		got, err := r.send(at, q)
		if x.Hop.Closed {
			if err == nil {
				return "", fmt.Errorf("explained as closed (%s), and got %d", x.Hop.Reason, got.status)
			}
			return "closed", nil
		}
		if err != nil {
			return "", err
		}
		var whyNot []string
		found := ""
		for i := range all {
			if why := all[i].differs(got); why != "" {
				whyNot = append(whyNot, fmt.Sprintf("not %s: %s", all[i].name(), why))
			} else {
				found = all[i].kind()
				met[all[i].backend+" "+got.address()] = true
			}
		}
		if found == "" {
			return "", fmt.Errorf("got %d %v (seen %+v), which is none of what was explained:\n  %s", got.status, got.header, got.seen, strings.Join(append(whyNot, verdicts(x.Hop)...), "\n  "))
		}
		first = found
	}
	if n < repeats {
		return first, nil
	}
	for i := range all {
		for addr, share := range all[i].endpoints {
			if all[i].status == 0 && share*all[i].share > sure && !met[all[i].backend+" "+addr] {
				return "", fmt.Errorf("of %d requests none reached %s at %s, which is to get %.0f %%", n, all[i].backend, addr, 100*share*all[i].share)
			}
		}
	}
	return first, nil
}

// verdicts shows what was explained of each rule.
func verdicts(h *explain.Hop) (out []string) {
	for _, v := range h.Rules {
		out = append(out, fmt.Sprintf("%s %+v: %s", translate.RuleName(v.Rule), v.Rule.Match, v.Lost))
	}
	for _, b := range h.Branches {
		if b.Chain != nil {
			out = append(out, verdicts(b.Chain)...)
		}
	}
	return out
}

// listens tells where a request goes, as DNS and a Gateway's address would.
func (p *proxy) listens(res *resolve.Result, from explain.Source, q explain.Request) (netip.AddrPort, bool) {
	name := translate.GatewayListenerName(translate.TransportTCP, q.Port)
	if from.Gateway == "" {
		k, ok := explain.FrontendOf(q.Host, from.Namespace)
		if !ok {
			return netip.AddrPort{}, false
		}
		name = translate.FrontendListenerName(k, translate.TransportTCP, q.Port)
	}
	if _, ok := p.state.Load().Resources.Get(translate.TypeListener, name); !ok {
		return netip.AddrPort{}, false
	}
	at, _ := p.binds.of(name)
	return at, true
}

// leaf is one thing that may become of a request.
type leaf struct {
	rules     []string // names of the rules that governed, in order
	share     float64
	status    int // fixed answer
	location  string
	backend   string
	endpoints map[string]float64 // share by address
	request   explain.Request
	response  []resolve.HeaderMods // the innermost first
}

func (l *leaf) name() string {
	return fmt.Sprintf("%d %s by %v", l.status, l.backend, l.rules)
}

func (l *leaf) kind() string {
	switch {
	case l.status >= 300 && l.status < 400:
		return "redirected"
	case l.status != 0:
		return fmt.Sprint(l.status)
	case len(l.rules) > 1:
		return "chained"
	}
	return "served"
}

// leaves lists what may become of a request at a hop.
func leaves(h *explain.Hop, rules []string) []leaf {
	if h.Chosen >= 0 {
		rules = append(slices.Clone(rules), translate.RuleName(h.Rules[h.Chosen].Rule))
	} else if h.Group == explain.GroupPlain {
		rules = append(slices.Clone(rules), translate.PlainRouteName(*h.Frontend))
	}
	if h.Status == http.StatusMisdirectedRequest {
		rules = []string{"misdirected"}
	}
	if h.Status != 0 {
		return []leaf{{rules: rules, share: 1, status: h.Status, location: h.Location, request: h.Request, response: []resolve.HeaderMods{h.Response}}}
	}
	var out []leaf
	for _, b := range h.Branches {
		if b.Share == 0 {
			continue
		}
		var below []leaf
		switch {
		case b.Status != 0:
			below = []leaf{{rules: rules, share: 1, status: b.Status, location: b.Location, request: b.Request}}
		case b.Chain != nil:
			below = leaves(b.Chain, rules)
		default:
			l := leaf{rules: rules, share: 1, backend: b.Backend.String(), endpoints: map[string]float64{}, request: b.Request}
			for _, g := range b.Destination.Groups {
				for _, e := range g.Endpoints {
					if e.Share > 0 {
						l.endpoints[e.Addr.String()] = e.Share
					}
				}
			}
			below = []leaf{l}
		}
		for _, l := range below {
			l.share *= b.Share
			l.response = append(l.response, h.Response, b.Response)
			out = append(out, l)
		}
	}
	return out
}

func (a *answer) address() string {
	if a.seen == nil {
		return ""
	}
	return a.seen.Address
}

// grpcStatus is what a status of HTTP is to gRPC (gRPC's "HTTP to gRPC Status Code Mapping").
func grpcStatus(http int) string {
	if s, ok := map[int]string{400: "13", 401: "16", 403: "7", 404: "12", 429: "14", 502: "14", 503: "14", 504: "14"}[http]; ok {
		return s
	}
	return "2"
}

// differs tells in what an answer is not what the leaf says; empty if it is.
func (l *leaf) differs(a answer) string {
	status := l.status
	if status == 0 {
		status = http.StatusOK
	}
	if l.request.Scheme == "grpc" && l.status != 0 {
		// Envoy's own answers to gRPC are 200 with a gRPC status.
		if got, want := a.header.Get("grpc-status"), grpcStatus(l.status); a.status != http.StatusOK || got != want {
			return fmt.Sprintf("status %d, gRPC status %s, not %s", a.status, got, want)
		}
	} else if a.status != status {
		return fmt.Sprintf("status %d", a.status)
	}
	// A second hop that has no rule for the request names none.
	if got, want := strings.TrimRight(a.header.Get(translate.HeaderRoute), ", "), strings.Join(l.rules, ", "); got != want {
		return fmt.Sprintf("governed by %q", got)
	}
	if a.location != l.location {
		return fmt.Sprintf("location %q, not %q", a.location, l.location)
	}
	if (a.seen == nil) != (l.status != 0) {
		return "it is not the one of who was to answer, Envoy or the backend"
	}
	if l.status != 0 {
		return ""
	}
	if name, _, _ := strings.Cut(a.header.Get(translate.HeaderUpstream), ";"); name != l.backend {
		return fmt.Sprintf("backend %q", name)
	}
	if _, ok := l.endpoints[a.seen.Address]; !ok {
		return fmt.Sprintf("endpoint %s is not one of %v", a.seen.Address, l.endpoints)
	}
	if l.request.Scheme == "grpc" && a.seen.Headers.Get("content-type") != "application/grpc" {
		return "the backend saw no gRPC"
	}
	uri := l.request.Path
	if l.request.Query != "" {
		uri += "?" + l.request.Query
	}
	host, _, err := net.SplitHostPort(a.seen.Host)
	if err != nil {
		host = a.seen.Host
	}
	switch {
	case a.seen.Method != l.request.Method:
		return fmt.Sprintf("method %s", a.seen.Method)
	case a.seen.URI != uri:
		return fmt.Sprintf("the backend saw %s, not %s", a.seen.URI, uri)
	case host != l.request.Host:
		return fmt.Sprintf("the backend saw host %s, not %s", host, l.request.Host)
	}
	for _, name := range headers {
		var want []string
		for _, h := range l.request.Headers {
			if h.Name == name {
				want = append(want, h.Value)
			}
		}
		if got := a.seen.Headers.Values(name); strings.Join(got, ",") != strings.Join(want, ",") {
			return fmt.Sprintf("the backend saw %s: %q, not %q", name, got, want)
		}
	}
	from := []resolve.Header{{Name: "x-r", Value: "backend"}, {Name: "x-r-drop", Value: "backend"}}
	answer := explain.Request{Headers: from}
	for _, m := range l.response {
		answer = answer.Apply(m)
	}
	for _, name := range responseHeaders {
		var want []string
		for _, h := range answer.Headers {
			if h.Name == name {
				want = append(want, h.Value)
			}
		}
		if got := a.header.Values(name); strings.Join(got, ",") != strings.Join(want, ",") {
			return fmt.Sprintf("the client saw %s: %q, not %q", name, got, want)
		}
	}
	return ""
}
