package explain

import (
	"fmt"
	"strings"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

// table lets a group of routes judge a request or connection. last: the backends
// of the table are endpoints, no chain follows. The outcome is a problem, if the
// group can't read what comes.
func (e *explainer) table(hop *Hop, t *resolve.RouteTable, req Request, last bool) string {
	if t.Forward != nil {
		e.forward(hop, t.Forward, req, last)
		return ""
	}
	if !req.http() || req.secure() && hop.Frontend != nil {
		return fmt.Sprintf("the routes of port %d read HTTP without TLS, and nothing else goes there", hop.Port)
	}
	e.rules(hop, t, req, last)
	return ""
}

// rules lets HTTPRoutes or GRPCRoutes judge a request.
func (e *explainer) rules(hop *Hop, t *resolve.RouteTable, req Request, last bool) {
	hop.Chosen, hop.Request = -1, req
	for i, rule := range t.Rules {
		e.involve(rule.Route.Cluster).Routes = true
		v := Verdict{Rule: rule, Lost: mismatch(&rule.Match, &req)}
		switch {
		case v.Lost != "":
		case hop.Chosen < 0:
			hop.Chosen = i
		default:
			v.Lost = "matches too, but comes later"
		}
		hop.Rules = append(hop.Rules, v)
	}
	if hop.Chosen < 0 {
		hop.Status, hop.Reason = 404, "no rule matches, and routes replace plain delivery"
		return
	}
	rule := t.Rules[hop.Chosen]
	exact := hop.Listener != nil && !strings.HasPrefix(hop.Listener.Hostname, "*")
	hop.Response, hop.RequestTimeout, hop.BackendTimeout = rule.Filters.Response, rule.RequestTimeout, rule.BackendTimeout
	switch {
	case rule.Invalid != "":
		hop.Status, hop.Reason = failure(rule.Route), rule.Invalid
		return
	}
	// The shares of a rule have an answer in common, unless each is a route of its own.
	if status, reason := answerPreflight(rule.Filters.CORS, &req); status != 0 && usable(rule) && !divided(rule) {
		hop.Status, hop.Reason = status, reason
		return
	}
	switch {
	case rule.Redirect != nil:
		hop.Status, hop.Reason = rule.Redirect.StatusCode, "the rule redirects"
		hop.Location = location(req, rule.Match, rule.Redirect, exact)
		return
	}
	hop.Request = rewrite(req, rule, rule.Filters.Rewrite).Apply(rule.Filters.Request)
	for i := range rule.Backends {
		b := &rule.Backends[i]
		x := Branch{Backend: b.Backend, Weight: b.Weight, Share: share(rule.Backends, b), Response: b.Filters.Response}
		w := rule.Filters.Rewrite
		if b.Filters.Rewrite != nil {
			w = b.Filters.Rewrite
		}
		x.Request = rewrite(req, rule, w).Apply(rule.Filters.Request).Apply(b.Filters.Request)
		cors := rule.Filters.CORS
		if b.Filters.CORS != nil {
			cors = b.Filters.CORS
		}
		status, reason := answerPreflight(cors, &req)
		switch {
		case b.Invalid != "":
			x.Status, x.Reason = failure(rule.Route), b.Invalid
		case status != 0:
			x.Status, x.Reason = status, reason
		case b.Redirect != nil:
			x.Status, x.Reason = b.Redirect.StatusCode, "the backend's filter redirects"
			x.Location = location(req, rule.Match, b.Redirect, exact)
		default:
			for _, m := range append(rule.Filters.Mirrors[:len(rule.Filters.Mirrors):len(rule.Filters.Mirrors)], b.Filters.Mirrors...) {
				x.Mirrors = append(x.Mirrors, Mirror{Mirror: m, Destination: e.destination(m.Backend)})
			}
			e.deliver(&x, b, x.Request, last, false)
		}
		hop.Branches = append(hop.Branches, x)
	}
}

// usable reports whether a rule answers by itself or has a backend that can be
// used. Where none can, the rule as a whole can't.
func usable(rule *resolve.Rule) bool {
	for i := range rule.Backends {
		if b := &rule.Backends[i]; b.Weight > 0 && b.Invalid == "" {
			return true
		}
	}
	return rule.Redirect != nil
}

// rewrite gives the request with its path and host changed.
func rewrite(req Request, rule *resolve.Rule, w *resolve.Rewrite) Request {
	if w == nil {
		return req
	}
	req.Path = replacePath(req.Path, rule.Match, w.FullPath, w.PrefixPath)
	if w.Hostname != "" {
		req.Host, req.HostPort = w.Hostname, 0
	}
	return req
}

// share is a backend's part of the requests.
func share(all []resolve.WeightedBackend, b *resolve.WeightedBackend) float64 {
	var sum float64
	for i := range all {
		sum += float64(all[i].Weight)
	}
	if sum == 0 {
		return 0
	}
	return float64(b.Weight) / sum
}

// forward sends a connection or session on by a TCPRoute, TLSRoute or UDPRoute.
func (e *explainer) forward(hop *Hop, f *resolve.ForwardRule, req Request, last bool) {
	hop.Forward = f
	switch {
	case f == nil:
		hop.Closed, hop.Reason = true, "no route is attached"
		return
	case f.Invalid != "":
		hop.Closed, hop.Reason = true, f.Invalid
	}
	e.involve(f.Route.Cluster).Routes = true
	if hop.Closed {
		return
	}
	for i := range f.Backends {
		b := &f.Backends[i]
		x := Branch{Backend: b.Backend, Weight: b.Weight, Share: share(f.Backends, b), Request: req}
		if b.Invalid != "" {
			x.Closed, x.Reason = true, b.Invalid
		} else {
			e.deliver(&x, b, req, last, true)
		}
		hop.Branches = append(hop.Branches, x)
	}
}

// deliver follows a branch to a chain or to endpoints. opaque: what fails is
// closed, for nobody speaks HTTP there.
func (e *explainer) deliver(x *Branch, b *resolve.WeightedBackend, req Request, last, opaque bool) {
	if b.Chain != nil && !last {
		if x.Chain = e.chain(*b.Chain, b.Backend, req); x.Chain != nil {
			return
		}
	}
	x.Destination = e.destination(b.Backend)
	x.end(opaque)
}

// end says what becomes of a branch without endpoints.
func (x *Branch) end(opaque bool) {
	status, reason := x.Destination.status()
	if status == 0 {
		return
	}
	x.Reason = reason
	if opaque {
		x.Closed = true
	} else {
		x.Status = status
	}
}

// chain follows what a Gateway sends on through the producer routes of a
// frontend; nil if there are none, which leaves the backend's endpoints.
func (e *explainer) chain(k resolve.FrontendKey, b resolve.BackendKey, req Request) *Hop {
	f, ok := e.res.Frontend(k)
	if !ok {
		return nil
	}
	p, ok := f.Port(req.transport(), b.Port)
	if !ok || p.Producer == nil {
		return nil
	}
	hop := &Hop{Frontend: &f.Key, Port: p.Port, Group: GroupProducer, Chosen: -1, Request: req, Why: "the Gateway's backend has producer routes: they apply, once, to the request as the first route left it"}
	// The Gateway has ended the client's TLS, if it could read the request.
	req.Scheme, req.ended = strings.TrimSuffix(req.Scheme, "s"), req.secure()
	if problem := e.table(hop, p.Producer, req, true); problem != "" {
		hop.Closed, hop.Reason = true, problem
	}
	return hop
}

func (e *explainer) plain(k resolve.BackendKey, req Request, opaque bool) Branch {
	b := Branch{Backend: k, Weight: 1, Share: 1, Request: req, Destination: e.destination(k)}
	b.end(opaque)
	return b
}
