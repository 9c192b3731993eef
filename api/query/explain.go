package query

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/explain"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// Explain implements causeway.v1.Federation. The explanation is package
// explain's; here it only changes its form.
func (s service) Explain(ctx context.Context, req *causewayv1.ExplainRequest) (*causewayv1.ExplainResponse, error) {
	from, err := source(req.GetSource())
	if err != nil {
		return nil, err
	}
	if len(req.GetUrl()) > maxURL || len(req.GetMethod()) > maxName || len(req.GetHeaders()) > maxHeaders {
		return nil, invalidf("a request may have a URL of %d bytes, a method of %d and %d headers", maxURL, maxName, maxHeaders)
	}
	var headers []string
	for _, h := range req.GetHeaders() {
		headers = append(headers, h.GetName()+": "+h.GetValue())
	}
	request, err := explain.NewRequest(req.GetMethod(), req.GetUrl(), headers)
	if err != nil {
		return nil, invalidf("%v", err)
	}
	r, err := s.read(ctx, req.GetRevision(), need{one: from.Cluster})
	if err != nil {
		return nil, err
	}
	v, err := r.view(string(from.Cluster))
	if err != nil {
		return nil, err
	}
	if !r.scope.Sees(v.Cluster, from.Namespace) {
		return nil, notFoundf("there is no %s that you may see", from)
	}
	e := explain.Explain(v.Result, from, request)
	out := &causewayv1.ExplainResponse{
		Revision: e.Staleness.Revision, Source: req.GetSource(), Method: e.Request.Method, Url: requestURL(e.Request),
		Problem: e.Problem, Staleness: r.staleness(v, e.Staleness, s.cfg.Views()),
	}
	for _, w := range e.Withheld {
		out.Withheld = append(out.Withheld, &causewayv1.Withheld{Object: w.Ref.String(), Cluster: string(w.Cluster), Reason: w.Why})
	}
	if e.Hop != nil {
		out.Hop = hop(e.Hop, func(b resolve.BackendKey) []string { return backendTLS(v.Result, b) })
	}
	return out, nil
}

func source(s *causewayv1.Source) (explain.Source, error) {
	out := explain.Source{Cluster: cluster.ID(s.GetCluster()), Namespace: s.GetNamespace()}
	if g := s.GetGateway(); g != nil {
		out.Namespace, out.Gateway = g.GetNamespace(), g.GetName()
		if out.Gateway == "" {
			return out, invalidf("source.gateway.name is missing")
		}
	}
	if out.Cluster == "" || out.Namespace == "" {
		return out, invalidf("source needs a cluster, and a namespace or a gateway")
	}
	if len(out.Cluster) > maxName || len(out.Namespace) > maxName || len(out.Gateway) > maxName {
		return out, invalidf("a name in source is longer than %d bytes", maxName)
	}
	return out, nil
}

func requestURL(r explain.Request) string {
	u := r.Scheme + "://" + hostPort(r.Scheme, r.Host, r.Port) + r.Path
	if r.Query != "" {
		u += "?" + r.Query
	}
	return u
}

// hostPort leaves out the port where it is the scheme's.
func hostPort(scheme, host string, port int32) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if s, _ := explain.SchemeOf(scheme); s.Port == port {
		return host
	}
	return fmt.Sprintf("%s:%d", host, port)
}

// staleness compares what was read, which may be the past, with what is now.
func (r *reading) staleness(v View, s explain.Staleness, now []View) *causewayv1.Staleness {
	out := &causewayv1.Staleness{Revision: s.Revision, NewestRevision: s.Revision, Confirmed: timestamp(v.Confirmed)}
	for _, other := range now {
		if other.Result != nil {
			out.NewestRevision = max(out.NewestRevision, other.Result.Snapshot.Revision)
		}
	}
	for _, i := range s.Clusters {
		c := &causewayv1.InvolvedCluster{
			Cluster: string(i.Cluster), Liveness: liveness(i.Liveness), LivenessReason: i.Reason, Routes: i.Routes, Serves: i.Serves,
			Drained: int32(i.Drained), DrainTarget: int32(i.DrainTarget),
		}
		if own, ok := r.views[i.Cluster]; ok {
			c.Revision = own.Result.Snapshot.Revision
		}
		out.Clusters = append(out.Clusters, c)
	}
	return out
}

// hop changes the form of one decision and of those that follow.
func hop(h *explain.Hop, tls func(resolve.BackendKey) []string) *causewayv1.Hop {
	out := &causewayv1.Hop{
		Port: h.Port, Group: groups[h.Group], Reason: h.Why,
		Status: int32(h.Status), Closed: h.Closed, StatusReason: h.Reason, Location: h.Location,
		RequestTimeout: duration(h.RequestTimeout), BackendTimeout: duration(h.BackendTimeout),
	}
	if f := h.Frontend; f != nil {
		out.At, out.AtCluster = objectRef(f.Kind, f.Namespace, f.Name), string(f.Cluster)
	}
	if l := h.Listener; l != nil {
		out.At, out.Listener, out.Hostname = objectRef(cluster.KindGateway, l.Namespace, l.Gateway), l.Name, l.Hostname
	}
	for i, x := range h.Rules {
		out.Rules = append(out.Rules, &causewayv1.RuleVerdict{
			Route: x.Rule.Route.String(), Rule: int32(x.Rule.RuleIndex), Match: int32(x.Rule.MatchIndex), RuleName: x.Rule.RuleName,
			Condition: condition(x.Rule.Match), Chosen: i == h.Chosen, Lost: x.Lost,
		})
	}
	if f := h.Forward; f != nil {
		out.Forward = &causewayv1.RuleVerdict{Route: f.Route.String(), Rule: int32(f.RuleIndex), RuleName: f.RuleName, Chosen: true}
	}
	if h.Chosen >= 0 {
		out.Changes = ruleChanges(h.Rules[h.Chosen].Rule)
	}
	for i, b := range h.Branches {
		x := branch(b, tls)
		// A rule's branches are its backends, in their order; plain delivery has no rule.
		if h.Chosen >= 0 && i < len(h.Rules[h.Chosen].Rule.Backends) {
			x.Changes = append(changes(h.Rules[h.Chosen].Rule.Backends[i].Filters), x.Changes...)
		}
		out.Branches = append(out.Branches, x)
	}
	return out
}

var groups = map[explain.GroupKind]causewayv1.RouteGroup{
	explain.GroupConsumer: causewayv1.RouteGroup_ROUTE_GROUP_CONSUMER,
	explain.GroupProducer: causewayv1.RouteGroup_ROUTE_GROUP_PRODUCER,
	explain.GroupPlain:    causewayv1.RouteGroup_ROUTE_GROUP_PLAIN,
	explain.GroupGateway:  causewayv1.RouteGroup_ROUTE_GROUP_GATEWAY,
}

func branch(b explain.Branch, tls func(resolve.BackendKey) []string) *causewayv1.Branch {
	out := &causewayv1.Branch{Backend: backend(b.Backend), Weight: b.Weight, Share: b.Share, Status: int32(b.Status), Closed: b.Closed, StatusReason: b.Reason, Location: b.Location}
	for _, m := range b.Mirrors {
		out.Mirrors = append(out.Mirrors, &causewayv1.Mirror{Backend: backend(m.Backend), Share: float64(m.Numerator) / float64(m.Denominator), Groups: destination(m.Destination)})
	}
	if b.Chain != nil {
		out.Chain = hop(b.Chain, tls)
	}
	if b.Destination != nil && !b.Raw {
		out.Changes = tls(b.Backend)
	}
	out.Groups = destination(b.Destination)
	return out
}

// backendTLS words what BackendTLSPolicies do to requests for a backend.
func backendTLS(r *resolve.Result, key resolve.BackendKey) []string {
	b, ok := r.Backends.Get([]byte(key.String()))
	if !ok {
		return nil
	}
	var out []string
	for _, t := range b.Config.TLS {
		text := fmt.Sprintf("TLS with %s to the endpoints of cluster %s", t.Hostname, t.Cluster)
		if t.Invalid != "" {
			text = fmt.Sprintf("no request gets to the endpoints of cluster %s (503): its BackendTLSPolicy can't be obeyed: %s", t.Cluster, t.Invalid)
		}
		out = append(out, text)
	}
	for _, c := range b.Config.Crossings {
		if c.TLS {
			out = append(out, fmt.Sprintf("TLS from the crossing gateways of cluster %s to its endpoints", c.Cluster))
		}
	}
	return out
}

func destination(d *explain.Destination) (out []*causewayv1.DestinationGroup) {
	if d == nil {
		return nil
	}
	for _, g := range d.Groups {
		x := &causewayv1.DestinationGroup{
			Cluster: string(g.Cluster), Region: g.Region, Zone: g.Zone, Priority: g.Priority, Share: g.Share,
			ViaCrossing: g.Crossing, Healthy: int32(g.Healthy),
		}
		for _, e := range g.Endpoints {
			switch {
			case e.Counted():
				x.Total += int32(e.Behind)
			case !e.Missing:
				x.Total++
			}
			x.Endpoints = append(x.Endpoints, &causewayv1.DestinationEndpoint{
				Address: address(e.Endpoint), Pod: e.Pod, Weight: e.Weight, Healthy: e.Healthy, Share: e.Share, Missing: e.Missing, Behind: int32(e.Behind),
			})
		}
		out = append(out, x)
	}
	return out
}

func duration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}
