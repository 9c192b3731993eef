package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

// table lets a group of routes judge a request or connection. last: the backends
// of the table are endpoints, no chain follows. The outcome is a problem, if the
// group can't read what comes.
func (e *explainer) table(hop *Hop, t *resolve.RouteTable, req Request, last bool) string {
	if t.Forward != nil {
		e.forward(hop, t.Forward, req, last, true)
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
	req.written = ""
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
	if rule.Invalid != "" {
		hop.Status, hop.Reason = rule.Route.FailureStatus(), rule.Invalid
		return
	}
	// The shares of a rule have an answer in common, unless each is treated by itself.
	live, _ := rule.Live()
	if together := rule.Redirect != nil || len(live) > 0 && !rule.Divided(); together {
		if hop.Status, hop.Reason = answerPreflight(rule.Filters.CORS, &req); hop.Status != 0 {
			return
		}
		hop.Auth = e.authorization(rule.Filters.Auth)
		if hop.Status, hop.Reason = hop.Auth.silent(); hop.Status != 0 {
			return
		}
	}
	if rule.Redirect != nil {
		hop.Status, hop.Reason = rule.Redirect.StatusCode, "the rule redirects"
		hop.Location = location(req, rule.Match, rule.Redirect, exact)
		return
	}
	hop.Request = rewrite(req, rule, rule.Filters.Rewrite).Apply(rule.Filters.Request)
	mirrors := e.mirrors(rule.Filters.Mirrors)
	for i := range rule.Backends {
		b := &rule.Backends[i]
		x := Branch{Backend: b.Backend, Weight: b.Weight, Share: share(rule.Backends, b), Response: b.Filters.Response}
		filters := rule.Filters.Then(b.Filters)
		x.Request = rewrite(req, rule, filters.Rewrite).Apply(rule.Filters.Request).Apply(b.Filters.Request)
		if b.Invalid != "" {
			e.withhold(b.Backend.Namespace, b.Backend.Name)
			x.Status, x.Reason = rule.Route.FailureStatus(), b.Invalid
		} else {
			x.Status, x.Reason = answerPreflight(filters.CORS, &req)
		}
		if x.Status == 0 && hop.Auth == nil {
			x.Auth = e.authorization(filters.Auth)
			x.Status, x.Reason = x.Auth.silent()
		}
		switch {
		case x.Status != 0:
		case b.Redirect != nil:
			x.Status, x.Reason = b.Redirect.StatusCode, "the backend's filter redirects"
			x.Location = location(req, rule.Match, b.Redirect, exact)
		default:
			x.Mirrors = slices.Concat(mirrors, e.mirrors(b.Filters.Mirrors))
			e.deliver(&x, b, x.Request, last, false)
		}
		hop.Branches = append(hop.Branches, x)
	}
}

// authorization is who is asked about a request, nil for nobody.
func (e *explainer) authorization(a *resolve.ExternalAuth) *Authorization {
	if a == nil {
		return nil
	}
	return &Authorization{ExternalAuth: *a, Destination: e.destination(a.Backend)}
}

// silent tells what requests get where nobody can answer whether they may go on.
func (a *Authorization) silent() (status int, reason string) {
	if a == nil {
		return 0, ""
	}
	if status, reason = a.Destination.status(); status != 0 {
		reason = fmt.Sprintf("%s is to say whether the request may go on, and can't: %s", a.Backend, reason)
	}
	return status, reason
}

func (e *explainer) mirrors(list []resolve.Mirror) (out []Mirror) {
	for _, m := range list {
		out = append(out, Mirror{Mirror: m, Destination: e.destination(m.Backend)})
	}
	return out
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

// forward sends a connection or session on by a TCPRoute, TLSRoute or UDPRoute. raw:
// as it is, for it is not one whose TLS the listener has ended.
func (e *explainer) forward(hop *Hop, f *resolve.ForwardRule, req Request, last, raw bool) {
	hop.Forward, hop.Request = f, req.unread()
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
		x := Branch{Backend: b.Backend, Weight: b.Weight, Share: share(f.Backends, b), Request: hop.Request, Raw: raw}
		if b.Invalid != "" {
			e.withhold(b.Backend.Namespace, b.Backend.Name)
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
	e.withhold(k.Namespace, k.Name)
	p, ok := f.Port(req.transport(), b.Port)
	if !ok || p.Producer == nil {
		return nil
	}
	hop := &Hop{Frontend: &f.Key, Port: p.Port, Group: GroupProducer, Chosen: -1, Request: req, Why: "the Gateway's backend has producer routes: they apply, once, to the request as the first route left it"}
	if problem := e.table(hop, p.Producer, req, true); problem != "" {
		hop.Closed, hop.Reason = true, problem
	}
	return hop
}

func (e *explainer) plain(k resolve.BackendKey, req Request, opaque bool) Branch {
	if opaque {
		req = req.unread()
	}
	b := Branch{Backend: k, Weight: 1, Share: 1, Request: req, Raw: opaque, Destination: e.destination(k)}
	b.end(opaque)
	return b
}
