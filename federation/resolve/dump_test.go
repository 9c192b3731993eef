package resolve

import (
	"encoding/json"
	"fmt"
	"reflect"
	"sort"
	"strings"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster/parameters"
)

// dump writes every exported field of a Result for people to read.
func dump(r *Result) string {
	var d dumper
	each(r.Imports, func(_ string, i *Import) { d.imp(i) })
	each(r.Frontends, func(_ string, f *Frontend) { d.frontend("frontend", f) })
	each(r.Remotes, func(_ string, f *Frontend) { d.frontend("remote", f) })
	each(r.Gateways, func(_ string, g *Gateway) { d.gateway(g) })
	each(r.Backends, func(_ string, b *Backend) { d.backend(b) })
	each(r.Reports, func(k string, o *ObjectReport) { d.report(k, o) })
	each(r.Travels, func(k string, t *Travel) {
		for _, c := range t.Certificates {
			d.line(0, "%s travels for gateway %s to %v %s", c.Certificate, k, c.Clusters, c.Problem)
		}
	})
	each(r.Runs, func(_ string, g *GatewayRuns) { d.runs(g) })
	return d.String()
}

func each[T any](t *iradix.Tree[T], do func(string, T)) {
	t.Root().Walk(func(k []byte, v T) bool { do(string(k), v); return false })
}

type dumper struct{ strings.Builder }

func (d *dumper) line(depth int, format string, a ...any) {
	d.WriteString(strings.Repeat("  ", depth) + strings.TrimRight(fmt.Sprintf(format, a...), " ") + "\n")
}

func (d *dumper) imp(i *Import) {
	d.line(0, "import %s/%s%s%s", i.Namespace, i.Name, flagged(i.Headless, " headless"), flagged(i.Even, " even")+flagged(i.ClientIP, " clients stay for "+i.AffinityTimeout.String()))
	if c := i.AffinityConfig; c != nil && c.ClientIP != nil {
		d.line(1, "affinity for %d s", deref(c.ClientIP.TimeoutSeconds, 0))
	}
	if p := i.InternalTrafficPolicy; p != nil {
		d.line(1, "internal traffic policy %s", *p)
	}
	if p := i.TrafficDistribution; p != nil {
		d.line(1, "traffic distribution %s", *p)
	}
	if len(i.IPFamilies) > 0 {
		d.line(1, "families %v", i.IPFamilies)
	}
	if len(i.Labels)+len(i.Annotations) > 0 {
		d.line(1, "labels %v annotations %v", i.Labels, i.Annotations)
	}
	for _, p := range i.Ports {
		d.line(1, "port %d/%s %q %q from %v%s", p.Port, p.Protocol, p.Name, p.AppProtocol, p.Clusters, flagged(p.Declared != "", " declared "+p.Declared))
	}
	for _, e := range i.Exporters {
		w := ""
		if e.Weight != nil {
			w = fmt.Sprintf(" weight %d", *e.Weight)
		}
		d.line(1, "exporter %s revision %d%s", e.Cluster, e.Seniority.Revision, w)
	}
}

func (d *dumper) frontend(word string, f *Frontend) {
	d.line(0, "%s %s%s", word, f.Key, flagged(f.Headless, " headless"))
	for _, p := range f.Ports {
		d.line(1, "port %d/%s %q %q -> %s", p.Port, p.Protocol, p.Name, p.AppProtocol, p.Backend)
		if p.Producer != nil {
			d.line(2, "producers")
			d.table(3, p.Producer)
		}
		for _, c := range p.Consumers {
			d.line(2, "consumers of %s", c.Namespace)
			d.table(3, c.Table)
		}
	}
}

func (d *dumper) gateway(g *Gateway) {
	d.line(0, "gateway %s home %s class %s%s", g.Key(), g.Home, g.Class, flagged(g.Refused, " refused"))
	if p := g.Infrastructure.Parameters; !reflect.DeepEqual(p, parameters.Parameters{}) {
		raw, _ := json.Marshal(p)
		d.line(1, "parameters %s", raw)
	}
	if g.ClientCertificate != nil {
		d.line(1, "client certificate %s", g.ClientCertificate)
	}
	for _, l := range g.Listeners {
		d.line(1, "listener %s %d/%s %q", l.Key(), l.Port, l.Protocol, l.Hostname)
		if t := l.TLS; t != nil {
			d.line(2, "tls %v%s%s", t.Certificates, flagged(len(t.ClientCAs) > 0, fmt.Sprintf(" clients of %d authorities", strings.Count(string(t.ClientCAs), "BEGIN CERTIFICATE"))), flagged(t.AllowInsecure, " or any"))
		}
		for _, h := range l.Hosts {
			d.line(2, "host %s", h.Hostname)
			d.table(3, h.Table)
		}
		d.forward(2, l.Forward)
	}
}

func (d *dumper) forward(depth int, f *ForwardRule) {
	if f == nil {
		return
	}
	d.line(depth, "%s rule %d%s%s", f.Route, f.RuleIndex, flagged(f.RuleName != "", " "+f.RuleName), flagged(f.Invalid != "", " closed: "+f.Invalid))
	d.backends(depth+1, f.Backends)
}

func (d *dumper) backends(depth int, list []WeightedBackend) {
	for _, b := range list {
		chain := ""
		if b.Chain != nil {
			chain = " then routes of " + b.Chain.String() + flagged(b.ChainRaw, " raw")
		}
		d.line(depth, "-> %d %s%s%s", b.Weight, b.Backend, chain, flagged(b.Invalid != "", " 500: "+b.Invalid))
		d.filters(depth+1, b.Filters)
		d.redirect(depth+1, b.Redirect)
	}
}

func (d *dumper) table(depth int, t *RouteTable) {
	for _, r := range t.Rules {
		d.line(depth, "%s rule %d%s match %d: %s", r.Route, r.RuleIndex, flagged(r.RuleName != "", " "+r.RuleName), r.MatchIndex, matchText(r.Match))
		d.filters(depth+1, r.Filters)
		if r.RequestTimeout+r.BackendTimeout > 0 {
			d.line(depth+1, "timeouts request %s backend %s", r.RequestTimeout, r.BackendTimeout)
		}
		if x := r.Retry; x != nil {
			d.line(depth+1, "retry %d times after %s on %v", x.Attempts, x.Backoff, x.Codes)
		}
		if x := r.Session; x != nil {
			d.line(depth+1, "session by %s %s timeout %s%s", map[bool]string{true: "header", false: "cookie"}[x.Header], x.Name, x.AbsoluteTimeout, flagged(x.Permanent, " permanent"))
		}
		d.redirect(depth+1, r.Redirect)
		if r.Invalid != "" {
			d.line(depth+1, "500: %s", r.Invalid)
		}
		d.backends(depth+1, r.Backends)
	}
	d.forward(depth, t.Forward)
}

func (d *dumper) redirect(depth int, x *Redirect) {
	if x != nil {
		d.line(depth, "redirect %d scheme %q host %q port %d%s", x.StatusCode, x.Scheme, x.Hostname, x.Port, pathText(x.FullPath, x.PrefixPath))
	}
}

func matchText(m Match) string {
	s := string(m.PathType) + " " + m.Path
	if m.Method != "" {
		s += " " + m.Method
	}
	for _, h := range m.Headers {
		s += fmt.Sprintf(" header %s=%q%s", h.Name, h.Value, flagged(h.Regex, " regex"))
	}
	for _, h := range m.Query {
		s += fmt.Sprintf(" query %s=%q%s", h.Name, h.Value, flagged(h.Regex, " regex"))
	}
	if g := m.GRPC; g != nil {
		s += fmt.Sprintf(" grpc service %q method %q%s", g.Service, g.Method, flagged(g.Regex, " regex"))
	}
	return s
}

func (d *dumper) filters(depth int, f Filters) {
	mods := func(word string, m HeaderMods) {
		if !m.Empty() {
			d.line(depth, "%s headers remove %v set %v add %v", word, m.Remove, m.Set, m.Add)
		}
	}
	mods("request", f.Request)
	mods("response", f.Response)
	if w := f.Rewrite; w != nil {
		d.line(depth, "rewrite host %q%s", w.Hostname, pathText(w.FullPath, w.PrefixPath))
	}
	for _, m := range f.Mirrors {
		d.line(depth, "mirror %d/%d to %s", m.Numerator, m.Denominator, m.Backend)
	}
	if c := f.CORS; c != nil {
		d.line(depth, "cors origins %v methods %v headers %v expose %v age %s%s", c.AllowOrigins, c.AllowMethods, c.AllowHeaders, c.ExposeHeaders, c.MaxAge, flagged(c.AllowCredentials, " credentials"))
	}
	if a := f.Auth; a != nil {
		d.line(depth, "auth by %s%s path %q request %v response %v body %d", a.Backend, flagged(a.GRPC, " grpc"), a.Path, a.RequestHeaders, a.ResponseHeaders, a.MaxBody)
	}
}

func pathText(full, prefix *string) string {
	switch {
	case full != nil:
		return fmt.Sprintf(" path %q", *full)
	case prefix != nil:
		return fmt.Sprintf(" prefix %q", *prefix)
	}
	return ""
}

func (d *dumper) backend(b *Backend) {
	d.line(0, "backend %s %s %q", b.Key, b.Config.Protocol, b.Config.AppProtocol)
	for _, t := range b.Config.TLS {
		d.line(1, "tls to %s as %s dns %v uris %v system %v authorities %d%s", t.Cluster, t.Hostname, t.DNSNames, t.URIs, t.System, strings.Count(string(t.CAs), "BEGIN CERTIFICATE"), flagged(t.Invalid != "", " 500: "+t.Invalid))
	}
	if b.Config.ClientIP {
		d.line(1, "clients stay for %s", b.Config.AffinityTimeout)
	}
	for _, c := range b.Config.Crossings {
		d.line(1, "crossing %s of trust domain %q", c.Cluster, c.TrustDomain)
	}
	for _, g := range b.Groups {
		d.line(1, "priority %d %s (%s/%s)%s", g.Priority, g.Cluster, g.Region, g.Zone, flagged(g.Crossing, " crossing"))
		for _, e := range g.Endpoints {
			at := e.Host
			switch {
			case e.Addr.IsValid():
				at = e.Addr.String()
			case e.Counted():
				at = fmt.Sprintf("(%d of unknown address)", e.Behind)
			}
			d.line(2, "%s weight %d%s%s%s", at, e.Weight, flagged(!e.Healthy, " unhealthy"), flagged(e.Pod != "", " pod "+e.Pod), flagged(e.Missing, " missing")+flagged(g.Crossing, fmt.Sprintf(" before %d", e.Behind)))
		}
	}
}

func (d *dumper) report(key string, o *ObjectReport) {
	d.line(0, "report %s", key)
	d.conditions(1, o.Conditions)
	if n := o.AttachedListenerSets; n != nil && *n > 0 {
		d.line(1, "%d listener sets", *n)
	}
	for _, a := range o.Ancestors {
		d.line(1, "ancestor %s", refText(a.ParentRef))
		d.conditions(2, a.Conditions)
	}
	for _, l := range o.Listeners {
		kinds := make([]string, len(l.SupportedKinds))
		for i, k := range l.SupportedKinds {
			kinds[i] = string(k.Kind)
		}
		d.line(1, "listener %s: %d routes, kinds %v", l.Name, l.AttachedRoutes, kinds)
		d.conditions(2, l.Conditions)
	}
	for _, p := range o.Parents {
		d.line(1, "parent %s", refText(p.ParentRef))
		d.conditions(2, p.Conditions)
	}
}

func (d *dumper) conditions(depth int, list []metav1.Condition) {
	if !sort.SliceIsSorted(list, func(i, j int) bool { return list[i].Type < list[j].Type }) {
		d.line(depth, "NOT SORTED")
	}
	for _, c := range list {
		d.line(depth, "%s=%s %s %s", c.Type, c.Status, c.Reason, c.Message)
	}
}

func refText(r gatewayv1.ParentReference) string {
	s := string(deref(r.Kind, "Gateway")) + "/" + string(deref(r.Namespace, "")) + "/" + string(r.Name)
	if r.SectionName != nil {
		s += " section " + string(*r.SectionName)
	}
	if r.Port != nil {
		s += fmt.Sprintf(" port %d", *r.Port)
	}
	return s
}

func flagged(on bool, s string) string {
	if on {
		return s
	}
	return ""
}

func (d *dumper) runs(g *GatewayRuns) {
	d.line(0, "runs of gateway %s/%s of %s, generation %d", g.Namespace, g.Name, g.Home, g.Generation)
	for _, c := range g.Clusters {
		d.line(1, "%s %s%s", c.Cluster, c.Liveness, flagged(c.Run == nil, " says nothing"))
		if c.Run == nil {
			continue
		}
		for _, x := range c.Run.Conditions {
			d.line(2, "%s=%s %s %s", x.Type, x.Status, x.Reason, x.Message)
		}
		for _, a := range c.Run.Addresses {
			d.line(2, "address %s", a.Value)
		}
		for _, l := range c.Run.Listeners {
			for _, x := range l.Conditions {
				d.line(2, "listener %s %s=%s %s %s", l.Name, x.Type, x.Status, x.Reason, x.Message)
			}
		}
	}
}
