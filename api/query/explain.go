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
	if e.Hop != nil {
		out.Hop = hop(e.Hop)
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
	if scheme == "http" && port == 80 || scheme == "https" && port == 443 {
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
		}
		if own, ok := r.views[i.Cluster]; ok {
			c.Revision = own.Result.Snapshot.Revision
		}
		out.Clusters = append(out.Clusters, c)
	}
	return out
}

// hop changes the form of one decision and of those that follow.
func hop(h *explain.Hop) *causewayv1.Hop {
	out := &causewayv1.Hop{
		Port: h.Port, Group: groups[h.Group], Reason: h.Why,
		Status: int32(h.Status), StatusReason: h.Reason, Location: h.Location,
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
	if h.Chosen >= 0 {
		out.Changes = changes(h.Rules[h.Chosen].Rule.Filters)
	}
	for i, b := range h.Branches {
		x := branch(b)
		// A rule's branches are its backends, in their order; plain delivery has no rule.
		if h.Chosen >= 0 && i < len(h.Rules[h.Chosen].Rule.Backends) {
			x.Changes = changes(h.Rules[h.Chosen].Rule.Backends[i].Filters)
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

func branch(b explain.Branch) *causewayv1.Branch {
	out := &causewayv1.Branch{Backend: backend(b.Backend), Weight: b.Weight, Share: b.Share, Status: int32(b.Status), StatusReason: b.Reason}
	if b.Chain != nil {
		out.Chain = hop(b.Chain)
	}
	if b.Destination == nil {
		return out
	}
	for _, g := range b.Destination.Groups {
		x := &causewayv1.DestinationGroup{
			Cluster: string(g.Cluster), Region: g.Region, Zone: g.Zone, Priority: g.Priority, Share: g.Share,
			ViaCrossing: g.Crossing, Healthy: int32(g.Healthy),
		}
		for _, e := range g.Endpoints {
			if !e.Missing {
				x.Total++
			}
			x.Endpoints = append(x.Endpoints, &causewayv1.DestinationEndpoint{
				Address: address(e.Endpoint), Pod: e.Pod, Weight: e.Weight, Healthy: e.Healthy, Share: e.Share, Missing: e.Missing,
			})
		}
		out.Groups = append(out.Groups, x)
	}
	return out
}

func duration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// condition words a match.
func condition(m resolve.Match) string {
	var parts []string
	switch m.PathType {
	case resolve.PathExact:
		parts = append(parts, "path is "+m.Path)
	case resolve.PathPrefix:
		parts = append(parts, "path prefix "+m.Path)
	case resolve.PathRegex:
		parts = append(parts, "path matches "+m.Path)
	}
	if m.Method != "" {
		parts = append(parts, "method "+m.Method)
	}
	values := func(what string, list []resolve.ValueMatch) {
		for _, x := range list {
			verb := "is"
			if x.Regex {
				verb = "matches"
			}
			parts = append(parts, fmt.Sprintf("%s %s %s %s", what, x.Name, verb, x.Value))
		}
	}
	values("header", m.Headers)
	values("query", m.Query)
	return strings.Join(parts, ", ")
}

// changes words what filters do.
func changes(f resolve.Filters) []string {
	var out []string
	mods := func(what string, m resolve.HeaderMods) {
		for _, n := range m.Remove {
			out = append(out, fmt.Sprintf("remove %s header %s", what, n))
		}
		for _, h := range m.Set {
			out = append(out, fmt.Sprintf("set %s header %s to %q", what, h.Name, h.Value))
		}
		for _, h := range m.Add {
			out = append(out, fmt.Sprintf("add %s header %s: %q", what, h.Name, h.Value))
		}
	}
	mods("request", f.Request)
	if w := f.Rewrite; w != nil {
		if w.Hostname != "" {
			out = append(out, "rewrite the host to "+w.Hostname)
		}
		if w.FullPath != nil {
			out = append(out, "rewrite the path to "+*w.FullPath)
		}
		if w.PrefixPath != nil {
			out = append(out, "rewrite the matched prefix to "+*w.PrefixPath)
		}
	}
	mods("response", f.Response)
	return out
}
