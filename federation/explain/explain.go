package explain

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// Explanation is what becomes of a request.
type Explanation struct {
	Source  Source
	Request Request
	// Problem, if not empty, is why the request reaches nothing at all; Hop is
	// nil then.
	Problem string
	Hop     *Hop
	// Staleness is what the answer rests on.
	Staleness Staleness
}

// GroupKind tells which routes govern a hop.
type GroupKind string

// The groups (DESIGN section 3, "Which routes govern a request").
const (
	GroupGateway  GroupKind = "Gateway"  // routes of a Gateway's listener
	GroupConsumer GroupKind = "Consumer" // consumer routes of the client's namespace
	GroupProducer GroupKind = "Producer" // producer routes of the frontend
	GroupPlain    GroupKind = "Plain"    // no routes: the frontend's endpoints
)

// Hop is one decision by routes.
type Hop struct {
	// Frontend is set where the hop is one, Listener where it is a Gateway's.
	Frontend *resolve.FrontendKey
	Listener *Listener
	Port     int32
	Group    GroupKind
	Why      string // why this group governs
	// Rules are all rules of the group in the order in which they are tried.
	Rules []Verdict
	// Chosen is the index in Rules of the one that takes the request, -1 for none.
	Chosen int
	// Status is the fixed answer's, 0 where the request is sent on; Reason says why.
	Status   int
	Reason   string
	Location string // of a redirect
	// Request is as the rule sends it on, Response what the rule changes in the answer.
	Request        Request
	Response       resolve.HeaderMods
	RequestTimeout time.Duration
	BackendTimeout time.Duration
	Branches       []Branch // empty where Status is set
}

// Listener is the listener and virtual host that a request belongs to.
type Listener struct {
	Namespace, Gateway, Name string
	Hostname                 string // of the virtual host
}

// Verdict is what became of one rule.
type Verdict struct {
	Rule *resolve.Rule
	// Lost is why the rule does not take the request; empty for the chosen one.
	Lost string
}

// Branch is one backend's part of a hop's requests.
type Branch struct {
	Backend resolve.BackendKey
	Weight  uint32
	Share   float64 // of the hop's requests
	// Status is not 0 where this share gets a fixed answer; Reason says why.
	Status   int
	Reason   string
	Request  Request // as the backend's filters leave it
	Response resolve.HeaderMods
	// Chain is where the request goes on through producer routes; Destination
	// where it goes to endpoints. At most one is set.
	Chain       *Hop
	Destination *Destination
}

// Staleness is what an answer rests on, for judging how old it may be.
type Staleness struct {
	Revision int64 // store revision that is included in full
	// Clusters are those whose objects or endpoints take part, sorted by ID.
	Clusters []Involved
}

// Involved is a cluster that takes part in an answer.
type Involved struct {
	Cluster  cluster.ID
	Liveness federation.Liveness
	Reason   string
	Routes   bool // wrote a route that was looked at
	Serves   bool // has endpoints in a destination
}

// explainer collects what Staleness needs.
type explainer struct {
	res  *resolve.Result
	seen map[cluster.ID]*Involved
}

// Explain evaluates a request against what result.Local's proxies are told.
func Explain(result *resolve.Result, from Source, req Request) Explanation {
	e := &explainer{res: result, seen: map[cluster.ID]*Involved{}}
	out := Explanation{Source: from, Request: req}
	switch {
	case from.Cluster != result.Local:
		out.Problem = fmt.Sprintf("this is the view of cluster %s: it does not know what cluster %s does", result.Local, from.Cluster)
	case from.Gateway != "":
		out.Hop, out.Problem = e.gateway(from, req)
	default:
		out.Hop, out.Problem = e.workload(from, req)
	}
	out.Staleness.Revision = result.Snapshot.Revision
	for _, i := range e.seen {
		out.Staleness.Clusters = append(out.Staleness.Clusters, *i)
	}
	sort.Slice(out.Staleness.Clusters, func(i, j int) bool { return out.Staleness.Clusters[i].Cluster < out.Staleness.Clusters[j].Cluster })
	return out
}

func (e *explainer) involve(id cluster.ID) *Involved {
	i := e.seen[id]
	if i == nil {
		i = &Involved{Cluster: id}
		if c, ok := e.res.Snapshot.Cluster(id); ok {
			i.Liveness, i.Reason = c.Health.Liveness, c.Health.Reason
		}
		e.seen[id] = i
	}
	return i
}

// FrontendOf reads the DNS names by which workloads of a namespace call
// frontends: svc, svc.ns, svc.ns.svc, svc.ns.svc.cluster.local and
// svc.ns.svc.clusterset.local.
func FrontendOf(host, namespace string) (resolve.FrontendKey, bool) {
	k := resolve.FrontendKey{Kind: cluster.KindService, Namespace: namespace}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if rest, ok := strings.CutSuffix(host, "."+cluster.DomainClusterset); ok {
		k.Kind, host = cluster.KindServiceImport, rest
		if strings.Count(host, ".") != 1 {
			return k, false
		}
	} else if rest, ok := strings.CutSuffix(host, "."+cluster.DomainCluster); ok {
		if host = rest; strings.Count(host, ".") != 1 {
			return k, false
		}
	} else if rest, ok := strings.CutSuffix(host, ".svc"); ok && strings.Count(rest, ".") == 1 {
		host = rest
	}
	p := strings.Split(host, ".")
	switch {
	case len(p) == 1 && p[0] != "":
		k.Name = p[0]
		return k, true
	case len(p) == 2 && p[0] != "" && p[1] != "":
		k.Name, k.Namespace = p[0], p[1]
		return k, true
	}
	return k, false
}

func (e *explainer) workload(from Source, req Request) (*Hop, string) {
	k, ok := FrontendOf(req.Host, from.Namespace)
	if !ok {
		return nil, fmt.Sprintf("host %s is not the name of a Service or ServiceImport", req.Host)
	}
	f, ok := e.res.Frontend(k)
	if !ok {
		return nil, e.missing(k)
	}
	if f.Headless {
		return nil, fmt.Sprintf("%s is headless: its name leads straight to its pods, and routes do not apply", k)
	}
	p, ok := f.Port("TCP", req.Port)
	if !ok {
		return nil, fmt.Sprintf("%s has no TCP port %d", k, req.Port)
	}
	hop := &Hop{Frontend: &f.Key, Port: p.Port}
	for _, c := range p.Consumers {
		if c.Namespace == from.Namespace {
			hop.Group, hop.Why = GroupConsumer, fmt.Sprintf("namespace %s has consumer routes of its own for this frontend", from.Namespace)
			e.table(hop, c.Table, req, true)
			return hop, ""
		}
	}
	if p.Producer != nil {
		hop.Group, hop.Why = GroupProducer, fmt.Sprintf("the frontend has producer routes, and namespace %s has no consumer routes for it", from.Namespace)
		e.table(hop, p.Producer, req, true)
		return hop, ""
	}
	hop.Group, hop.Why, hop.Chosen, hop.Request = GroupPlain, "no routes govern this port of the frontend", -1, req
	hop.Branches = []Branch{e.plain(p.Backend, req)}
	return hop, ""
}

func (e *explainer) missing(k resolve.FrontendKey) string {
	other := k
	if k.Kind == cluster.KindService {
		other.Kind = cluster.KindServiceImport
		if _, ok := e.res.Frontend(other); ok {
			return fmt.Sprintf("cluster %s has no Service %s/%s; other clusters export it: call %s", e.res.Local, k.Namespace, k.Name, other.Host())
		}
		return fmt.Sprintf("cluster %s has no Service %s/%s", e.res.Local, k.Namespace, k.Name)
	}
	return fmt.Sprintf("no cluster exports a Service %s/%s", k.Namespace, k.Name)
}

func (e *explainer) gateway(from Source, req Request) (*Hop, string) {
	g, ok := e.res.Gateways.Get([]byte(from.Namespace + "/" + from.Gateway))
	if !ok {
		return nil, fmt.Sprintf("cluster %s runs no Gateway %s/%s", e.res.Local, from.Namespace, from.Gateway)
	}
	var best *resolve.VirtualHost
	var at *resolve.Listener
	port := false
	for i := range g.Listeners {
		l := &g.Listeners[i]
		if l.Port != req.Port {
			continue
		}
		port = true
		for j := range l.Hosts {
			h := &l.Hosts[j]
			if hostMatches(h.Hostname, req.Host) && (best == nil || moreSpecific(h.Hostname, best.Hostname)) {
				best, at = h, l
			}
		}
	}
	if !port {
		return nil, fmt.Sprintf("Gateway %s has no working listener on port %d", g.Key(), req.Port)
	}
	hop := &Hop{Port: req.Port, Group: GroupGateway, Chosen: -1, Request: req}
	if best == nil {
		hop.Listener = &Listener{Namespace: g.Namespace, Gateway: g.Name}
		hop.Status, hop.Reason = 404, fmt.Sprintf("no listener on port %d takes host %s", req.Port, req.Host)
		return hop, ""
	}
	hop.Listener = &Listener{Namespace: g.Namespace, Gateway: g.Name, Name: at.Name, Hostname: best.Hostname}
	hop.Why = fmt.Sprintf("host %s belongs to listener %s", req.Host, at.Name)
	e.table(hop, best.Table, req, false)
	return hop, ""
}

// moreSpecific compares two names that both cover a host: an exact name beats
// wildcards, a longer wildcard a shorter one.
func moreSpecific(a, b string) bool {
	if wa, wb := strings.HasPrefix(a, "*"), strings.HasPrefix(b, "*"); wa != wb {
		return wb
	}
	return len(a) > len(b)
}

// table lets the rules of a table judge a request. last: the backends of the
// table are endpoints, no chain follows.
func (e *explainer) table(hop *Hop, t *resolve.RouteTable, req Request, last bool) {
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
	hop.Response, hop.RequestTimeout, hop.BackendTimeout = rule.Filters.Response, rule.RequestTimeout, rule.BackendTimeout
	switch {
	case rule.Invalid != "":
		hop.Status, hop.Reason = 500, rule.Invalid
		return
	case rule.Redirect != nil:
		hop.Status, hop.Reason = rule.Redirect.StatusCode, "the rule redirects"
		hop.Location = location(req, rule.Match, rule.Redirect, hop.Listener != nil && !strings.HasPrefix(hop.Listener.Hostname, "*"))
		return
	}
	out := req.Apply(rule.Filters.Request)
	if w := rule.Filters.Rewrite; w != nil {
		out.Path = replacePath(req.Path, rule.Match, w.FullPath, w.PrefixPath)
		if w.Hostname != "" {
			out.Host, out.HostPort = w.Hostname, 0
		}
	}
	hop.Request = out
	var sum float64
	for _, b := range rule.Backends {
		sum += float64(b.Weight)
	}
	for _, b := range rule.Backends {
		x := Branch{Backend: b.Backend, Weight: b.Weight, Request: out.Apply(b.Filters.Request), Response: b.Filters.Response}
		if sum > 0 {
			x.Share = float64(b.Weight) / sum
		}
		switch {
		case b.Invalid != "":
			x.Status, x.Reason = 500, b.Invalid
		case b.Chain != nil && !last:
			x.Chain = e.chain(*b.Chain, b.Backend, x.Request)
		}
		if x.Status == 0 && x.Chain == nil {
			x.Destination = e.destination(b.Backend)
			x.Status, x.Reason = x.Destination.status()
		}
		hop.Branches = append(hop.Branches, x)
	}
}

// chain follows a Gateway's request through the producer routes of a frontend;
// nil if there are none, which leaves the backend's endpoints.
func (e *explainer) chain(k resolve.FrontendKey, b resolve.BackendKey, req Request) *Hop {
	f, ok := e.res.Frontend(k)
	if !ok {
		return nil
	}
	p, ok := f.Port("TCP", b.Port)
	if !ok || p.Producer == nil {
		return nil
	}
	hop := &Hop{Frontend: &f.Key, Port: p.Port, Group: GroupProducer, Why: "the Gateway's backend has producer routes: they apply, once, to the request as the first route left it"}
	e.table(hop, p.Producer, req, true)
	return hop
}

func (e *explainer) plain(k resolve.BackendKey, req Request) Branch {
	b := Branch{Backend: k, Weight: 1, Share: 1, Request: req, Destination: e.destination(k)}
	b.Status, b.Reason = b.Destination.status()
	return b
}
