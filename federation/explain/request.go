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
	Method  string
	Scheme  string           // http or https
	Host    string           // without port, lower case
	Port    int32            // that the client connects to
	Path    string           // as sent, escaped, beginning with '/'
	Query   string           // raw, without '?'
	Headers []resolve.Header // names in lower case
}

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
	r := Request{Method: strings.ToUpper(method), Scheme: u.Scheme, Host: strings.ToLower(u.Hostname()), Path: u.EscapedPath(), Query: u.RawQuery}
	if r.Method == "" {
		r.Method = "GET"
	}
	if r.Path == "" {
		r.Path = "/"
	}
	switch r.Scheme {
	case "http":
		r.Port = 80
	case "https":
		r.Port = 443
	default:
		return Request{}, fmt.Errorf("URL %q: scheme %q is neither http nor https", rawURL, r.Scheme)
	}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return Request{}, fmt.Errorf("URL %q: port %q is not a number from 1 to 65535", rawURL, p)
		}
		r.Port = int32(n)
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
			r.Host = strings.ToLower(strings.TrimSpace(value))
			if host, port, ok := strings.Cut(r.Host, ":"); ok && port != "" {
				r.Host = host
			}
			continue
		}
		r.Headers = append(r.Headers, resolve.Header{Name: name, Value: strings.TrimSpace(value)})
	}
	return r, nil
}

// header gives a header's value as Envoy compares it: several of one name are
// joined by commas.
func (r *Request) header(name string) (string, bool) {
	var vals []string
	for _, h := range r.Headers {
		if h.Name == name {
			vals = append(vals, h.Value)
		}
	}
	if name == "host" || name == ":authority" {
		return r.Host, true
	}
	return strings.Join(vals, ","), len(vals) > 0
}

// apply gives the request as header changes leave it.
func (r Request) apply(m resolve.HeaderMods) Request {
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
	out.Headers = append(append(out.Headers, m.Set...), m.Add...)
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

func location(r Request, m resolve.Match, d *resolve.Redirect) string {
	scheme, host := r.Scheme, r.Host
	if d.Scheme != "" {
		scheme = d.Scheme
	}
	if d.Hostname != "" {
		host = d.Hostname
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if d.Port != 0 {
		host += ":" + strconv.Itoa(int(d.Port))
	}
	s := scheme + "://" + host + replacePath(r.Path, m, d.FullPath, d.PrefixPath)
	if r.Query != "" {
		s += "?" + r.Query
	}
	return s
}
