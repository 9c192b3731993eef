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
	// Withheld is what the administrators' policy keeps out, sorted.
	Withheld []Withheld
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
	// Forward is the rule of a TCPRoute, TLSRoute or UDPRoute that takes the
	// connection or session; Rules is empty then.
	Forward *resolve.ForwardRule
	// Auth, if not nil, is asked before anything else becomes of the request, a
	// redirect included; all that follows holds for what it lets go on.
	Auth *Authorization
	// Status is the fixed answer's, 0 where the request is sent on; Closed is true
	// where the connection is closed, or the datagram dropped, without an answer. (To
	// a client whose requests a Gateway has read before, that is 503.) Reason says why.
	Status   int
	Closed   bool
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
	// Status is not 0 where this share gets a fixed answer, Closed is true where
	// its connections are closed; Reason says why.
	Status   int
	Closed   bool
	Reason   string
	Location string  // of a redirect
	Request  Request // as the backend's filters leave it
	Response resolve.HeaderMods
	// Auth is as Hop.Auth, where a backend's share is treated by itself.
	Auth *Authorization
	// Raw is true where bytes or datagrams are passed on as they came: nobody reads
	// requests, and no BackendTLSPolicy applies.
	Raw bool
	// Chain is where the request goes on through producer routes; Destination
	// where it goes to endpoints. At most one is set.
	Chain       *Hop
	Destination *Destination
	// Mirrors are the copies that are sent along, the rule's and the backend's.
	Mirrors []Mirror
}

// Authorization is who is asked whether a request may go on (GEP-1494). What it
// refuses the client gets as it says it.
type Authorization struct {
	resolve.ExternalAuth
	Destination *Destination
}

// Mirror is where a part of the requests is copied to.
type Mirror struct {
	resolve.Mirror
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
	// Drained and DrainTarget are as in federation.Cluster, and 0 for the cluster
	// itself, whose clients notice nothing.
	Drained, DrainTarget int
}

// explainer collects what Staleness needs.
type explainer struct {
	res  *resolve.Result
	seen map[cluster.ID]*Involved
	// withheld has what is kept out, asked holds for which services that is known.
	withheld map[Withheld]bool
	asked    map[resolve.FrontendKey]bool
}

func newExplainer(result *resolve.Result) *explainer {
	return &explainer{res: result, seen: map[cluster.ID]*Involved{}, withheld: map[Withheld]bool{}, asked: map[resolve.FrontendKey]bool{}}
}

// Explain evaluates a request against what result.Local's proxies are told.
func Explain(result *resolve.Result, from Source, req Request) Explanation {
	e := newExplainer(result)
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
	out.Withheld = e.sortedWithheld()
	return out
}

func (e *explainer) involve(id cluster.ID) *Involved {
	i := e.seen[id]
	if i == nil {
		i = &Involved{Cluster: id}
		if c, ok := e.res.Snapshot.Cluster(id); ok {
			i.Liveness, i.Reason = c.Health.Liveness, c.Health.Reason
			if id != e.res.Local {
				i.Drained, i.DrainTarget = c.Drained, c.DrainTarget
			}
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

func (e *explainer) missing(k resolve.FrontendKey) string {
	e.withhold(k.Namespace, k.Name)
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
