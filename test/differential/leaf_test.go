package differential

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/explain"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// leaf is one thing that may become of a request.
type leaf struct {
	rules     []string // names of the rules that governed requests, in order
	share     float64
	status    int // fixed answer
	closed    bool
	location  string
	backend   string
	raw       bool                   // the last hop reads no requests
	endpoints map[string]reached     // by address
	twice     bool                   // the backend gets more than the request of each client's
	arrived   explain.Request        // as the last hop got it
	request   explain.Request        // what comes out
	response  []resolve.HeaderMods   // the innermost first
	asked     *explain.Authorization // the last that was asked whether the request may go on
	askers    map[string]reached     // its endpoints
	refused   bool                   // it says no
	silent    bool                   // it can't say anything
}

// reached is what is known of an endpoint.
type reached struct {
	share float64
	// via is the cluster in whose network it is, empty for this one. Behind a crossing
	// gateway each connection has one endpoint, so that requests, which share
	// connections, need not reach all.
	via cluster.ID
}

func (l *leaf) name() string {
	if l.closed {
		return fmt.Sprintf("closed by %v", l.rules)
	}
	return fmt.Sprintf("%d %s by %v", l.status, l.backend, l.rules)
}

func (l *leaf) kind() string {
	switch {
	case l.closed:
		return "closed"
	case l.refused:
		return "refused"
	case len(l.rules) > 1: // whatever comes of it: which of a rule's backends Envoy takes is chance
		return "chained"
	case l.silent:
		return "silent"
	case l.status >= 300 && l.status < 400:
		return "redirected"
	case l.status != 0:
		return fmt.Sprint(l.status)
	case l.asked != nil:
		return "allowed"
	case l.raw:
		kind := "passed on"
		if l.request.Scheme == "udp" {
			kind = "datagram"
		}
		for _, e := range l.endpoints {
			if e.via != "" {
				kind += " to another network"
				break
			}
		}
		return kind
	}
	return "served"
}

// views are what clusters make of a clusterset.
type views map[cluster.ID]*resolve.Result

// leaves lists what may become of a request at a hop. so is what the hops before have
// come to.
func (v views) leaves(h *explain.Hop, so leaf) []leaf {
	so.share, so.arrived = 1, so.request
	so.raw = h.Forward != nil || h.Group == explain.GroupPlain && len(h.Branches) == 1 && h.Branches[0].Raw
	so.rules = slices.Clone(so.rules)
	switch {
	case h.Chosen >= 0:
		so.rules = append(so.rules, translate.RuleName(h.Rules[h.Chosen].Rule))
	case h.Group == explain.GroupPlain && !so.raw:
		so.rules = append(so.rules, translate.PlainRouteName(*h.Frontend))
	case h.Status == http.StatusMisdirectedRequest:
		so.rules = []string{"misdirected"}
	}
	outer := so.response
	so.response = slices.Concat([]resolve.HeaderMods{h.Response}, outer)
	end := func(l leaf, status int, closed bool) leaf {
		if l.status, l.closed = status, closed; closed && len(l.rules) > 0 {
			// Whoever reads requests answers for a connection that is closed.
			l.status, l.closed = http.StatusServiceUnavailable, false
		}
		return l
	}
	so.request = h.Request
	if h.Auth != nil {
		if so = v.ask(so, h.Auth); so.refused {
			return []leaf{so}
		}
	}
	if h.Status != 0 || h.Closed {
		so.location = h.Location
		return []leaf{end(so, h.Status, h.Closed)}
	}
	var out []leaf
	for _, b := range h.Branches {
		if b.Share == 0 {
			continue
		}
		l := so
		l.request, l.location = b.Request, b.Location
		l.response = slices.Concat([]resolve.HeaderMods{h.Response, b.Response}, outer)
		if b.Auth != nil {
			l = v.ask(l, b.Auth)
		}
		below := []leaf{l}
		switch {
		case l.refused:
		case b.Status != 0 || b.Closed:
			below[0] = end(l, b.Status, b.Closed)
		case b.Chain != nil:
			below = v.leaves(b.Chain, l)
		default:
			below[0].backend, below[0].endpoints = b.Backend.String(), v.endpoints(b.Destination)
			below[0].twice = l.asked != nil && l.asked.Backend == b.Backend ||
				slices.ContainsFunc(b.Mirrors, func(m explain.Mirror) bool { return m.Backend == b.Backend })
		}
		for _, l := range below {
			l.share *= b.Share
			out = append(out, l)
		}
	}
	return out
}

// ask takes down who is asked whether a request may go on, and what it will say.
func (v views) ask(l leaf, a *explain.Authorization) leaf {
	askers := v.endpoints(a.Destination)
	if len(askers) == 0 {
		l.silent = true // the explanation says what becomes of it
		return l
	}
	l.asked, l.askers = a, askers
	// Over HTTP only those asked below a path of theirs know that they are.
	l.refused = strings.Contains(l.arrived.Path, refused) && (a.GRPC || strings.HasPrefix(a.Path, authPath))
	return l
}

// endpoints lists the pods that a destination leads to. Those in another network are
// known there alone.
func (v views) endpoints(d *explain.Destination) map[string]reached {
	out := map[string]reached{}
	for _, g := range d.Groups {
		if g.Share == 0 {
			continue
		}
		if !g.Crossing {
			for _, e := range g.Endpoints {
				if e.Share > 0 {
					out[e.Addr.String()] = reached{share: e.Share}
				}
			}
			continue
		}
		own := d.Backend
		own.Kind, own.Cluster, own.HTTP2 = resolve.BackendService, "", false
		b, ok := v[g.Cluster].Backends.Get([]byte(own.String()))
		if !ok {
			continue
		}
		var pods []string
		for _, group := range b.Groups {
			for _, e := range group.Endpoints {
				if e.Healthy {
					pods = append(pods, e.Addr.String())
				}
			}
		}
		for _, p := range pods {
			out[p] = reached{share: g.Share / float64(len(pods)), via: g.Cluster}
		}
	}
	return out
}

// grpcStatus is what a status of HTTP is to gRPC (gRPC's "HTTP to gRPC Status Code Mapping").
func grpcStatus(http int) string {
	if s, ok := map[int]string{400: "13", 401: "16", 403: "7", 404: "12", 429: "14", 502: "14", 503: "14", 504: "14"}[http]; ok {
		return s
	}
	return "2"
}

// mark names what an answer that is of the leaf shows of it, and expected how often
// each is to be seen.
func (l *leaf) mark(a answer) string {
	if l.endpoints == nil {
		return l.name()
	}
	return l.markOf(a.seen.Address)
}

func (l *leaf) markOf(address string) string {
	if l.twice {
		// It takes turns with copies and questions, perhaps always the same.
		return l.backend
	}
	if e := l.endpoints[address]; e.via != "" && !l.raw {
		return l.backend + " in " + string(e.via)
	}
	return l.backend + " at " + address
}

func (l *leaf) expected() map[string]float64 {
	out := map[string]float64{}
	if l.endpoints == nil {
		out[l.name()] = l.share
	}
	for address, e := range l.endpoints {
		out[l.markOf(address)] += l.share * e.share
	}
	return out
}

// differs tells in what an answer is not what the leaf says; empty if it is.
func (l *leaf) differs(a answer) string {
	switch {
	case l.closed && a.closed != nil:
		return ""
	case l.closed:
		return "there was an answer"
	case a.closed != nil:
		return a.closed.Error()
	case a.seen != nil && !a.seen.HTTP:
		return l.differsAt(a.seen)
	}
	status := l.status
	switch {
	case l.refused:
		status = http.StatusForbidden
	case status == 0:
		status = http.StatusOK
	}
	fixed := l.status != 0 || l.refused
	if l.request.Scheme == "grpc" && fixed {
		// Envoy's own answers to gRPC are 200 with a gRPC status.
		if got, want := a.header.Get("grpc-status"), grpcStatus(status); a.status != http.StatusOK || got != want {
			return fmt.Sprintf("status %d, gRPC status %s, not %s", a.status, got, want)
		}
	} else if a.status != status {
		return fmt.Sprintf("status %d", a.status)
	}
	if (a.seen == nil) != fixed {
		return "it is not the one of who was to answer, Envoy or the backend"
	}
	if l.refused {
		if _, ok := l.askers[a.header.Get(authHeader)]; !ok {
			return fmt.Sprintf("refused by %q, not one of %v", a.header.Get(authHeader), l.askers)
		}
		return ""
	}
	// A second hop that has no rule for the request names none, nor does every answer in
	// the place of an authorization.
	if got, want := strings.TrimRight(a.header.Get(translate.HeaderRoute), ", "), strings.Join(l.rules, ", "); got != want && (!l.silent || got != "") {
		return fmt.Sprintf("governed by %q", got)
	}
	if a.location != l.location {
		return fmt.Sprintf("location %q, not %q", a.location, l.location)
	}
	if fixed {
		return ""
	}
	if name, _, _ := strings.Cut(a.header.Get(translate.HeaderUpstream), ";"); !l.raw && name != l.backend {
		return fmt.Sprintf("backend %q", name)
	}
	if why := l.differsAt(a.seen); why != "" {
		return why
	}
	if x := l.asked; x != nil && (x.GRPC || len(x.ResponseHeaders) == 0 || slices.Contains(x.ResponseHeaders, authHeader)) {
		if _, ok := l.askers[a.seen.Headers.Get(authHeader)]; !ok {
			return fmt.Sprintf("allowed by %q, not one of %v", a.seen.Headers.Get(authHeader), l.askers)
		}
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

// differsAt compares what a pod knows of connections and datagrams too.
func (l *leaf) differsAt(at *seen) string {
	if l.endpoints == nil {
		return "a backend answered"
	}
	if _, ok := l.endpoints[at.Address]; !ok {
		return fmt.Sprintf("endpoint %s is not one of %v", at.Address, l.endpoints)
	}
	want := l.request.Scheme == "https" || l.request.Scheme == "tls"
	switch {
	case want && (at.TLS == nil || *at.TLS != l.request.ServerName):
		return fmt.Sprintf("the backend saw no TLS for %s", l.request.ServerName)
	case !want && at.TLS != nil:
		return "the backend saw TLS"
	}
	return ""
}
