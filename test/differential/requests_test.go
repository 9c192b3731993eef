package differential

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/causeway-mesh/causeway/federation/explain"
)

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

// drawRequest makes a request, of steady worlds one of plain HTTP, HTTPS or gRPC.
func drawRequest(c *rand.Rand, steady bool) (from string, out request) {
	from = pick(c, []string{"east/gateway/app/gw", "east/gateway/app/gw", "east/app", "east/dev"})
	if !steady && c.IntN(3) == 0 {
		return from, drawOther(c, from)
	}
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
	origin, few := 2, 3 // of one world there are few requests: enough preflights for each outcome
	if steady {
		origin, few = 4, 2
	}
	if c.IntN(origin) == 0 {
		add := func(name, value string) {
			out.header.Set(name, value)
			lines = append(lines, name+": "+value)
		}
		add("origin", pick(c, origins))
		if c.IntN(few) > 0 {
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

// drawOther makes a connection or a datagram, or a request where nobody reads those.
func drawOther(c *rand.Rand, from string) request {
	s := pick(c, services)
	host := s.name + "." + s.namespace + pick(c, []string{".svc.cluster.local", ".svc.clusterset.local"})
	scheme := pick(c, []string{"tcp", "tcp", "tls", "tls", "udp", "udp", "http", "https"})
	port := pick(c, []int32{portBytes, portBytes, portTLS, portHTTP})
	if scheme == "udp" {
		port = portUDP
	}
	if strings.Contains(from, "/gateway/") {
		host, port = pick(c, slices.Concat(tlsHosts, tlsHosts, hosts)), map[string]int32{"tcp": gatewayPorts[3], "tls": gatewayPorts[2], "udp": gatewayPorts[4], "http": gatewayPorts[3], "https": gatewayPorts[2]}[scheme]
	}
	out := request{rawURL: fmt.Sprintf("%s://%s:%d%s", scheme, host, port, pick(c, []string{"/", "/a", "/v1"})), header: http.Header{}}
	var err error
	if out.Request, err = explain.NewRequest("GET", out.rawURL, nil); err != nil {
		panic(err)
	}
	return out
}

// escape leaves what is escaped as it is.
func escape(path string) string { return strings.ReplaceAll(path, "é", "%C3%A9") }

// answer is what a client got.
type answer struct {
	status   int
	header   http.Header
	seen     *seen
	location string
	closed   error // why there is no answer
}

// send sends a request as it is: neither the path nor the order of anything is
// put right on the way. may: no answer is one of those that are expected.
func (r *rig) send(at netip.AddrPort, q request, may bool) answer {
	var a answer
	var err error
	switch q.Scheme {
	case "tcp", "tls":
		a.seen, err = talk(at, q)
	case "udp":
		a.seen, err = datagram(at, may)
	default:
		a, err = r.ask(at, q)
	}
	a.closed = err
	return a
}

// String shows it in messages.
func (a answer) String() string {
	if a.closed != nil {
		return a.closed.Error()
	}
	return fmt.Sprintf("%d %v (seen %+v)", a.status, a.header, a.seen)
}

// sendAll sends a request several times. raw: connections, not requests, have a
// backend, so that each request has one of its own.
func (r *rig) sendAll(at netip.AddrPort, q request, n int, may, raw bool) []answer {
	out := make([]answer, n)
	if q.Scheme == "udp" {
		var all sync.WaitGroup
		for i := range out {
			all.Go(func() { out[i] = r.send(at, q, may) })
		}
		all.Wait()
		return out
	}
	for i := range out {
		if raw {
			r.hangUp()
		}
		out[i] = r.send(at, q, may)
	}
	return out
}

// hangUp closes the connections that wait for more requests.
func (r *rig) hangUp() {
	for _, c := range []*http.Client{&r.client, &r.h2, &r.secure} {
		c.CloseIdleConnections()
	}
}

const patience = 60 * time.Second

// talk opens a connection and says a word.
func talk(at netip.AddrPort, q request) (*seen, error) {
	c, err := net.DialTimeout("tcp", at.String(), patience)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if q.Scheme == "tls" {
		c = tls.Client(c, &tls.Config{ServerName: q.ServerName, InsecureSkipVerify: true}) //nolint:gosec // which certificate it is, is for others to test
	}
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return nil, err
	}
	var out seen
	if err := json.NewDecoder(c).Decode(&out); err != nil {
		return nil, err
	}
	return &out, nil
}

// datagram sends a datagram of a session of its own, again if it seems to be lost.
func datagram(at netip.AddrPort, may bool) (*seen, error) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(at))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	tries, wait := 40, 250*time.Millisecond
	if may {
		tries, wait = 1, datagramWait
	}
	buf := make([]byte, 2048)
	for range tries {
		if _, err := c.Write([]byte("hello")); err != nil {
			return nil, err
		}
		_ = c.SetReadDeadline(time.Now().Add(wait))
		var n int
		if n, err = c.Read(buf); err == nil {
			var out seen
			return &out, json.Unmarshal(buf[:n], &out)
		}
	}
	return nil, err
}

// datagramWait is how long an answer to a datagram is waited for that need not come.
const datagramWait = 100 * time.Millisecond

func (r *rig) ask(at netip.AddrPort, q request) (answer, error) {
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
			return answer{}, fmt.Errorf("answer %q: %w", body, err)
		}
	}
	return a, nil
}
