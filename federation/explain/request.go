package explain

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// Source is where a request comes from: a workload of a namespace, behind its
// sidecar, or the outside, through a Gateway.
type Source struct {
	Cluster   cluster.ID
	Namespace string // of the workload, or of the Gateway
	Gateway   string // name; empty for a workload
}

// String gives what ParseSource reads.
func (s Source) String() string {
	if s.Gateway != "" {
		return string(s.Cluster) + "/gateway/" + s.Namespace + "/" + s.Gateway
	}
	return string(s.Cluster) + "/" + s.Namespace
}

// ParseSource reads CLUSTER/NAMESPACE or CLUSTER/gateway/NAMESPACE/NAME.
func ParseSource(s string) (Source, error) {
	p := strings.Split(s, "/")
	if slices.Contains(p, "") {
		p = nil
	}
	switch {
	case len(p) == 2:
		return Source{Cluster: cluster.ID(p[0]), Namespace: p[1]}, nil
	case len(p) == 4 && p[1] == "gateway":
		return Source{Cluster: cluster.ID(p[0]), Namespace: p[2], Gateway: p[3]}, nil
	}
	return Source{}, fmt.Errorf("source %q is neither CLUSTER/NAMESPACE nor CLUSTER/gateway/NAMESPACE/NAME", s)
}

// Request is an HTTP request as far as routing looks at it.
type Request struct {
	Method string
	Scheme string // one of Schemes
	Host   string // without port, lower case
	// ServerName is what a client of TLS asks for, lower case: the URL's host.
	ServerName string
	Port       int32 // that the client connects to
	// HostPort is the port that the client writes into Host, 0 for none.
	HostPort int32
	Path     string           // escaped, as Envoy normalizes it, beginning with '/'
	Query    string           // raw, without '?'
	Headers  []resolve.Header // names in lower case
	// written is the path as the client writes it, where nobody has read the request
	// yet, and so has normalized it.
	written string
	// ended is true where a Gateway has ended the client's TLS: redirects still lead
	// to https.
	ended bool
}

// unread is the request as it is passed on by who reads none.
func (r Request) unread() Request {
	if r.written != "" {
		r.Path = r.written
	}
	return r
}

// inPlain is the request as it is sent on once its TLS has been ended.
func (r Request) inPlain() Request {
	if p := schemes[r.Scheme].plain; p != "" {
		r.Scheme, r.ended = p, true
	}
	return r
}

func (r *Request) http() bool      { return schemes[r.Scheme].Speaks != SpeaksBytes }
func (r *Request) secure() bool    { return schemes[r.Scheme].TLS() }
func (r *Request) plainHTTP() bool { return r.http() && !r.secure() }

func (r *Request) transport() string { return schemes[r.Scheme].Transport() }

// NewRequest makes a Request of a URL. Headers are as "Name: value"; a Host
// header takes the place of the URL's host for the choice of routes in Gateways.
func NewRequest(method, rawURL string, headers []string) (Request, error) {
	if !strings.Contains(rawURL, "://") {
		rawURL = "http://" + rawURL
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return Request{}, fmt.Errorf("URL: %w", err)
	}
	r := Request{Method: strings.ToUpper(method), Scheme: u.Scheme, Host: strings.ToLower(u.Hostname()), ServerName: strings.ToLower(u.Hostname()), Path: normalize(u.EscapedPath()), Query: u.RawQuery, written: u.EscapedPath()}
	if r.Method == "" {
		r.Method = "GET"
	}
	if r.Path == "" {
		r.Path = "/"
	}
	known, ok := SchemeOf(r.Scheme)
	if !ok {
		return Request{}, fmt.Errorf("URL %q: scheme %q is none of %s", rawURL, r.Scheme, strings.Join(Schemes(), ", "))
	}
	r.Port = known.Port
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return Request{}, fmt.Errorf("URL %q: port %q is not a number from 1 to 65535", rawURL, p)
		}
		r.Port, r.HostPort = int32(n), int32(n)
	}
	if r.Port == 0 {
		return Request{}, fmt.Errorf("URL %q: scheme %s has no port of its own: write host:port", rawURL, r.Scheme)
	}
	if known.Speaks == SpeaksGRPC {
		r.Method = "POST"
		r.Headers = append(r.Headers, resolve.Header{Name: "content-type", Value: "application/grpc"})
	}
	if r.Host == "" {
		return Request{}, fmt.Errorf("URL %q has no host", rawURL)
	}
	for _, h := range headers {
		name, value, ok := strings.Cut(h, ":")
		name = strings.ToLower(strings.TrimSpace(name))
		if !ok || name == "" {
			return Request{}, fmt.Errorf("header %q is not of the form \"Name: value\"", h)
		}
		if name == "host" {
			r.Host, r.HostPort = strings.ToLower(strings.TrimSpace(value)), 0
			if host, port, ok := strings.Cut(r.Host, ":"); ok && port != "" {
				n, err := strconv.ParseUint(port, 10, 16)
				if err != nil {
					return Request{}, fmt.Errorf("header %q: port %q is not a number", h, port)
				}
				r.Host, r.HostPort = host, int32(n)
			}
			continue
		}
		r.Headers = append(r.Headers, resolve.Header{Name: name, Value: strings.TrimSpace(value)})
	}
	return r, nil
}

// values gives a header's values. Envoy compares each by itself, and a header
// matches if one does.
func (r *Request) values(name string) []string {
	if name == "host" || name == ":authority" {
		return []string{r.Host}
	}
	var out []string
	for _, h := range r.Headers {
		if h.Name == name {
			out = append(out, h.Value)
		}
	}
	return out
}

// Apply gives the request as header changes leave it.
func (r Request) Apply(m resolve.HeaderMods) Request {
	if m.Empty() {
		return r
	}
	out := r
	out.Headers = nil
	for _, h := range r.Headers {
		set := slices.ContainsFunc(m.Set, func(x resolve.Header) bool { return x.Name == h.Name })
		if !set && !slices.Contains(m.Remove, h.Name) {
			out.Headers = append(out.Headers, h)
		}
	}
	for _, h := range slices.Concat(m.Set, m.Add) {
		if h.Name == "host" {
			out.Host, out.HostPort = strings.ToLower(h.Value), 0
			continue
		}
		out.Headers = append(out.Headers, h)
	}
	return out
}

// replacePath gives the path that a rewrite or redirect makes of one that was
// matched. An empty prefix that is left becomes "/".
func replacePath(path string, m resolve.Match, full, prefix *string) string {
	switch {
	case full != nil:
		return *full
	case prefix != nil:
		rest := path
		if m.PathType == resolve.PathPrefix && m.Path != "/" {
			rest = strings.TrimPrefix(path, m.Path)
		}
		if p := strings.TrimRight(*prefix, "/") + rest; p != "" {
			return p
		}
		return "/"
	}
	return path
}

// location gives the Location of a redirect. A port that the client wrote into
// Host stays in it, as Envoy has it, unless the redirect names a host or port or
// the request belongs to a virtual host of one name (exact), or the port is the
// default of a scheme that is left.
func location(r Request, m resolve.Match, d *resolve.Redirect, exact bool) string {
	scheme, host, port := "http", r.Host, d.Port
	if r.secure() || r.ended {
		scheme = "https"
	}
	if port == 0 && d.Hostname == "" && !exact {
		port = r.HostPort
		if d.Scheme == "https" && port == 80 || d.Scheme == "http" && port == 443 {
			port = 0
		}
	}
	if d.Scheme != "" {
		scheme = d.Scheme
	}
	if d.Hostname != "" {
		host = d.Hostname
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port != 0 {
		host += ":" + strconv.Itoa(int(port))
	}
	s := scheme + "://" + host + replacePath(r.Path, m, d.FullPath, d.PrefixPath)
	if r.Query != "" {
		s += "?" + r.Query
	}
	return s
}
