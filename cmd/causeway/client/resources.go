package client

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
)

// question is what `get` asks for.
type question struct {
	filter   *causewayv1.Filter
	seenFrom string
	revision int64
	all      bool // all judgements of routes
}

// resource is one type that `get` shows.
type resource struct {
	name, singular string
	aliases        []string
	short          string
	watch          causewayv1.WatchType
	namespaced     bool
	past           bool // takes a revision
	header, wide   []string
	// list gets all pages, as one response of the list's type and as its objects.
	list func(context.Context, causewayv1.FederationClient, question) (proto.Message, []proto.Message, error)
	// rows shows one object; the cells of wide follow those of the header.
	rows func(proto.Message) [][]string
	// event takes the object out of a watch's event; nil if it has none of the type.
	event func(*causewayv1.WatchResponse) proto.Message
	// id names an object, for errors that say what exists.
	id func(proto.Message) string
}

// pages calls get with one page token after the other, until there is none.
func pages[T proto.Message](get func(*causewayv1.Page) ([]T, string, error)) ([]proto.Message, []T, error) {
	var objects []proto.Message
	var all []T
	page := &causewayv1.Page{PageSize: 1000}
	for {
		some, next, err := get(page)
		if err != nil {
			return nil, nil, err
		}
		for _, o := range some {
			objects, all = append(objects, o), append(all, o)
		}
		if next == "" {
			return objects, all, nil
		}
		page.PageToken = next
	}
}

func resources() []*resource {
	return []*resource{clusters(), imports(), routes(), endpoints(), proxies(), problems()}
}

func clusters() *resource {
	return &resource{
		name: "clusters", singular: "cluster", short: "The clusters and their health", past: true,
		watch:  causewayv1.WatchType_WATCH_TYPE_CLUSTERS,
		header: []string{"NAME", "STATUS", "DRAINED", "REGION", "NETWORK", "EXPORTS", "ROUTES", "PROXIES", "PROBLEMS"},
		wide:   []string{"ZONE", "REVISION", "TRUST-DOMAIN", "CROSSING", "REASON"},
		list: func(ctx context.Context, c causewayv1.FederationClient, q question) (proto.Message, []proto.Message, error) {
			out := &causewayv1.ListClustersResponse{}
			objects, all, err := pages(func(p *causewayv1.Page) ([]*causewayv1.Cluster, string, error) {
				r, err := c.ListClusters(ctx, &causewayv1.ListClustersRequest{Filter: q.filter, Page: p, Revision: q.revision})
				out.Revision = r.GetRevision()
				return r.GetClusters(), r.GetNextPageToken(), err
			})
			out.Clusters = all
			return out, objects, err
		},
		rows: func(m proto.Message) [][]string {
			c := m.(*causewayv1.Cluster)
			return [][]string{{c.GetName(), liveness(c.GetLiveness()), drained(c.GetDrained(), c.GetDrainTarget()), cell(c.GetRegion()), cell(c.GetNetwork()), itoa(c.GetExports()), itoa(c.GetRoutes()),
				fmt.Sprintf("%d/%d", c.GetProxiesConnected(), c.GetProxies()), itoa(c.GetProblems()),
				cell(c.GetZone()), strconv.FormatInt(c.GetRevision(), 10), cell(c.GetTrustDomain()), list(c.GetCrossing(), 3), cell(c.GetLivenessReason())}}
		},
		event: func(e *causewayv1.WatchResponse) proto.Message { return present(e.GetCluster()) },
		id:    func(m proto.Message) string { return m.(*causewayv1.Cluster).GetName() },
	}
}

func imports() *resource {
	return &resource{
		name: "imports", singular: "import", aliases: []string{"serviceimports", "serviceimport"},
		short: "The services of the clusterset", namespaced: true, past: true,
		watch:  causewayv1.WatchType_WATCH_TYPE_SERVICE_IMPORTS,
		header: []string{"NAMESPACE", "NAME", "PORTS", "EXPORTED-BY", "CONFLICT"},
		wide:   []string{"TYPE", "HOST", "DISTRIBUTION"},
		list: func(ctx context.Context, c causewayv1.FederationClient, q question) (proto.Message, []proto.Message, error) {
			out := &causewayv1.ListServiceImportsResponse{}
			objects, all, err := pages(func(p *causewayv1.Page) ([]*causewayv1.ServiceImport, string, error) {
				r, err := c.ListServiceImports(ctx, &causewayv1.ListServiceImportsRequest{Filter: q.filter, Page: p, Revision: q.revision})
				out.Revision = r.GetRevision()
				return r.GetImports(), r.GetNextPageToken(), err
			})
			out.Imports = all
			return out, objects, err
		},
		rows: func(m proto.Message) [][]string {
			i := m.(*causewayv1.ServiceImport)
			var ports, exporters, conflicts []string
			for _, p := range i.GetPorts() {
				ports = append(ports, fmt.Sprintf("%d/%s", p.GetPort(), p.GetProtocol()))
			}
			for _, e := range i.GetExporters() {
				text := fmt.Sprintf("%s(%d/%d)", e.GetCluster(), e.GetEndpointsReady(), e.GetEndpoints())
				if e.Weight != nil {
					text += fmt.Sprintf("*%d", e.GetWeight())
				}
				exporters = append(exporters, text)
				for _, c := range e.GetConditions() {
					if c.GetType() == "Conflict" && c.GetStatus() == "True" && !slices.Contains(conflicts, c.GetReason()) {
						conflicts = append(conflicts, c.GetReason())
					}
				}
			}
			kind, distribution := "ClusterSetIP", "nearest"
			if i.GetHeadless() {
				kind = "Headless"
			}
			if i.GetEven() {
				distribution = "even"
			}
			return [][]string{{i.GetNamespace(), i.GetName(), list(ports, 0), list(exporters, 0), list(conflicts, 0), kind, i.GetHost(), distribution}}
		},
		event: func(e *causewayv1.WatchResponse) proto.Message { return present(e.GetImport()) },
		id: func(m proto.Message) string {
			i := m.(*causewayv1.ServiceImport)
			return i.GetNamespace() + "/" + i.GetName()
		},
	}
}

func routes() *resource {
	return &resource{
		name: "routes", singular: "route", aliases: []string{"httproutes", "httproute"},
		short: "The routes, their status and the clusters that obey them", namespaced: true, past: true,
		watch:  causewayv1.WatchType_WATCH_TYPE_ROUTES,
		header: []string{"NAMESPACE", "NAME", "KIND", "HOME", "PARENT", "ACCEPTED", "RESOLVED-REFS", "OBEYED-BY"},
		wide:   []string{"FEDERATED", "JUDGED-BY", "HOSTNAMES", "ORIGIN", "MESSAGE"},
		list: func(ctx context.Context, c causewayv1.FederationClient, q question) (proto.Message, []proto.Message, error) {
			out := &causewayv1.ListRoutesResponse{}
			objects, all, err := pages(func(p *causewayv1.Page) ([]*causewayv1.Route, string, error) {
				r, err := c.ListRoutes(ctx, &causewayv1.ListRoutesRequest{Filter: q.filter, Page: p, Revision: q.revision, AllJudgements: q.all})
				out.Revision = r.GetRevision()
				return r.GetRoutes(), r.GetNextPageToken(), err
			})
			out.Routes = all
			return out, objects, err
		},
		rows:  routeRows,
		event: func(e *causewayv1.WatchResponse) proto.Message { return present(e.GetRoute()) },
		id: func(m proto.Message) string {
			r := m.(*causewayv1.Route)
			return r.GetNamespace() + "/" + r.GetName()
		},
	}
}

// routeRows gives a row for each parent.
func routeRows(m proto.Message) [][]string {
	r := m.(*causewayv1.Route)
	var obeyed []string
	for _, u := range r.GetUses() {
		obeyed = append(obeyed, u.GetClusters()...)
	}
	slices.Sort(obeyed)
	obeyed = slices.Compact(obeyed)
	federated, said := verdict(r.GetConditions(), "Federated")
	parents := r.GetParents()
	if len(parents) == 0 {
		parents = []*causewayv1.RouteParent{{}}
	}
	var out [][]string
	for _, p := range parents {
		accepted, a := acceptance(p.GetConditions())
		resolved, b := verdict(p.GetConditions(), "ResolvedRefs")
		messages := slices.DeleteFunc([]string{a, b, said}, func(s string) bool { return s == "" })
		out = append(out, []string{r.GetNamespace(), r.GetName(), r.GetKind(), r.GetCluster(), cell(parentName(r, p)), accepted, resolved, list(obeyed, 0),
			federated, cell(p.GetJudgedBy()), list(r.GetHostnames(), 3), cell(r.GetOrigin()), cell(strings.Join(messages, "; "))})
	}
	return out
}

func parentName(r *causewayv1.Route, p *causewayv1.RouteParent) string {
	if p.GetParent() == nil {
		return ""
	}
	text := p.GetParent().GetKind() + "/"
	if ns := p.GetParent().GetNamespace(); ns != r.GetNamespace() {
		text += ns + "/"
	}
	text += p.GetParent().GetName()
	if p.GetPort() != 0 {
		text += ":" + itoa(p.GetPort())
	}
	if p.GetSectionName() != "" {
		text += "#" + p.GetSectionName()
	}
	return text
}

// acceptance shows whether a parent takes a route, all of it or, by Gateway API's
// PartiallyInvalid, only some rules; the message of an accepted route says what it
// was not accepted for.
func acceptance(conditions []*causewayv1.Condition) (short, message string) {
	short, message = verdict(conditions, "Accepted")
	if short != "True" {
		return short, message
	}
	var said []string
	for _, c := range conditions {
		switch {
		case c.GetType() == "PartiallyInvalid" && c.GetStatus() == "True":
			short = "Partially:" + c.GetReason()
			said = append(said, c.GetMessage())
		case c.GetType() == "Accepted" && c.GetMessage() != "":
			said = append(said, c.GetMessage())
		}
	}
	return short, strings.Join(said, "; ")
}

// verdict shows a condition: its status, with the reason unless it is True; and
// the message of one that isn't.
func verdict(conditions []*causewayv1.Condition, kind string) (short, message string) {
	for _, c := range conditions {
		switch {
		case c.GetType() != kind:
		case c.GetStatus() == "True":
			return "True", ""
		default:
			return c.GetStatus() + ":" + c.GetReason(), c.GetMessage()
		}
	}
	return "-", ""
}

func endpoints() *resource {
	return &resource{
		name: "endpoints", singular: "endpoint", aliases: []string{"backends", "backend"},
		short: "Where requests can go, as each cluster sees it", namespaced: true, past: true,
		watch:  causewayv1.WatchType_WATCH_TYPE_ENDPOINTS,
		header: []string{"SEEN-FROM", "BACKEND", "CLUSTER", "PRIORITY", "WEIGHT", "HEALTHY", "ADDRESS", "IS"},
		wide:   []string{"REGION", "ZONE"},
		list: func(ctx context.Context, c causewayv1.FederationClient, q question) (proto.Message, []proto.Message, error) {
			out := &causewayv1.ListEndpointsResponse{}
			objects, all, err := pages(func(p *causewayv1.Page) ([]*causewayv1.BackendEndpoint, string, error) {
				r, err := c.ListEndpoints(ctx, &causewayv1.ListEndpointsRequest{Filter: q.filter, Page: p, Revision: q.revision, SeenFrom: q.seenFrom})
				out.Revision = r.GetRevision()
				return r.GetEndpoints(), r.GetNextPageToken(), err
			})
			out.Endpoints = all
			return out, objects, err
		},
		rows: func(m proto.Message) [][]string {
			e := m.(*causewayv1.BackendEndpoint)
			is := "pod " + cell(e.GetPod())
			at := e.GetAddress()
			switch {
			case e.GetMissing() && e.GetBehind() == 0:
				at, is = "-", "left to others: draining"
			case e.GetMissing():
				at, is = "-", fmt.Sprintf("%d not ready there", e.GetBehind())
			case at == "":
				at, is = "-", plural(int(e.GetBehind()), "endpoint")+" of unpublished address"
			case e.GetViaCrossing():
				is = fmt.Sprintf("crossing to %d", e.GetBehind())
			}
			return [][]string{{e.GetSeenFrom(), backendName(e.GetBackend()), e.GetCluster(), utoa(e.GetPriority()), utoa(e.GetWeight()), yesNo(e.GetHealthy()),
				at, is, cell(e.GetRegion()), cell(e.GetZone())}}
		},
		event: func(e *causewayv1.WatchResponse) proto.Message { return present(e.GetEndpoint()) },
		id: func(m proto.Message) string {
			b := m.(*causewayv1.BackendEndpoint).GetBackend()
			return b.GetNamespace() + "/" + b.GetName()
		},
	}
}

func backendName(b *causewayv1.Backend) string {
	text := fmt.Sprintf("%s/%s/%s:%d", b.GetKind(), b.GetNamespace(), b.GetName(), b.GetPort())
	if b.GetProtocol() != "" {
		text += "/" + b.GetProtocol()
	}
	if b.GetCluster() != "" {
		text += "@" + b.GetCluster()
	}
	return text
}

func proxies() *resource {
	return &resource{
		name: "proxies", singular: "proxy", aliases: []string{"envoys", "envoy"},
		short: "The Envoys, and what they have acknowledged", namespaced: true,
		watch:  causewayv1.WatchType_WATCH_TYPE_PROXIES,
		header: []string{"CLUSTER", "ROLE", "NAMESPACE", "NAME", "CONNECTED", "SYNC", "LAG"},
		wide:   []string{"LISTENERS", "REFUSAL"},
		list: func(ctx context.Context, c causewayv1.FederationClient, q question) (proto.Message, []proto.Message, error) {
			out := &causewayv1.ListProxiesResponse{}
			objects, all, err := pages(func(p *causewayv1.Page) ([]*causewayv1.Proxy, string, error) {
				r, err := c.ListProxies(ctx, &causewayv1.ListProxiesRequest{Filter: q.filter, Page: p})
				out.Revision = r.GetRevision()
				return r.GetProxies(), r.GetNextPageToken(), err
			})
			out.Proxies = all
			return out, objects, err
		},
		rows:  proxyRows,
		event: func(e *causewayv1.WatchResponse) proto.Message { return present(e.GetProxy()) },
		id: func(m proto.Message) string {
			p := m.(*causewayv1.Proxy)
			return p.GetNamespace() + "/" + p.GetName()
		},
	}
}

func proxyRows(m proto.Message) [][]string {
	p := m.(*causewayv1.Proxy)
	var pending int32
	for _, t := range p.GetTypes() {
		pending += t.GetPending()
	}
	var refused, words []string
	for _, x := range p.GetRejections() {
		subject := x.GetSubject()
		if subject == "" {
			subject = x.GetType() + " " + x.GetResource()
		}
		if !slices.Contains(refused, subject) {
			refused = append(refused, subject)
		}
		words = append(words, subject+": "+x.GetMessage())
	}
	sync := "in sync"
	switch {
	case len(refused) > 0:
		sync = "refuses " + list(refused, 2)
	case !p.GetConnected():
		sync = "-"
	case pending > 0:
		sync = fmt.Sprintf("%d pending", pending)
	case !p.GetInSync():
		sync = fmt.Sprintf("at %d of %d", p.GetAckedRevision(), p.GetRevision())
	}
	lag := "-"
	if p.GetLag() != nil {
		lag = p.GetLag().AsDuration().Round(1e6).String()
	}
	var where []string
	for _, l := range p.GetListeners() {
		where = append(where, listenerName(l))
	}
	return [][]string{{p.GetCluster(), roleName(p.GetRole()), p.GetNamespace(), p.GetName(), yesNo(p.GetConnected()), sync, lag,
		list(where, 3), cell(strings.Join(words, "; "))}}
}

func listenerName(l *causewayv1.ProxyListener) string {
	if l.GetTarget() == nil {
		return l.GetAddress()
	}
	return fmt.Sprintf("%s/%s/%s:%s=%s", l.GetTarget().GetKind(), l.GetTarget().GetNamespace(), l.GetTarget().GetName(), portName(l), l.GetAddress())
}

func problems() *resource {
	return &resource{
		name: "problems", singular: "problem",
		short: "What is wrong with the clusters' input", namespaced: true,
		watch:  causewayv1.WatchType_WATCH_TYPE_PROBLEMS,
		header: []string{"CLUSTER", "WHERE", "OBJECT", "MESSAGE"},
		list: func(ctx context.Context, c causewayv1.FederationClient, q question) (proto.Message, []proto.Message, error) {
			out := &causewayv1.ListProblemsResponse{}
			objects, all, err := pages(func(p *causewayv1.Page) ([]*causewayv1.Problem, string, error) {
				r, err := c.ListProblems(ctx, &causewayv1.ListProblemsRequest{Filter: q.filter, Page: p})
				out.Revision = r.GetRevision()
				return r.GetProblems(), r.GetNextPageToken(), err
			})
			out.Problems = all
			return out, objects, err
		},
		rows: func(m proto.Message) [][]string {
			p := m.(*causewayv1.Problem)
			return [][]string{{p.GetCluster(), cell(p.GetWhere()), cell(p.GetObject()), cell(p.GetMessage())}}
		},
		event: func(e *causewayv1.WatchResponse) proto.Message { return present(e.GetProblem()) },
		id:    func(m proto.Message) string { return m.(*causewayv1.Problem).GetObject() },
	}
}

// present turns a nil pointer into a nil interface.
func present[T any, M interface {
	*T
	proto.Message
}](m M) proto.Message {
	if m == nil {
		return nil
	}
	return m
}

func itoa(n int32) string  { return strconv.Itoa(int(n)) }
func utoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func liveness(l causewayv1.Liveness) string {
	switch l {
	case causewayv1.Liveness_LIVENESS_ALIVE:
		return "Alive"
	case causewayv1.Liveness_LIVENESS_SUSPECT:
		return "Suspect"
	case causewayv1.Liveness_LIVENESS_DEAD:
		return "Dead"
	}
	return "Unknown"
}

// drained shows how far a cluster is drained and, while that changes, to where.
func drained(percent, target int32) string {
	switch {
	case percent == 0 && target == 0:
		return "-"
	case percent == target:
		return fmt.Sprintf("%d%%", percent)
	}
	return fmt.Sprintf("%d%% to %d%%", percent, target)
}

func roleName(r causewayv1.ProxyRole) string {
	return strings.ToLower(strings.TrimPrefix(r.String(), "PROXY_ROLE_"))
}
