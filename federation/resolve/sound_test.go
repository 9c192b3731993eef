package resolve

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"sort"
	"strings"

	"github.com/causeway-mesh/causeway/cluster"
)

// unsound holds a Result to what the middle form promises of rules, however odd
// the routes were that they were made of. It gives the first broken promise.
func unsound(res *Result) (why string) {
	say := func(format string, a ...any) {
		if why == "" {
			why = fmt.Sprintf(format, a...)
		}
	}
	known := func(where string, k BackendKey) {
		if _, ok := res.Backends.Get([]byte(k.String())); !ok {
			say("%s: there is no backend %s", where, k)
		}
	}
	forward := func(f *ForwardRule) {
		if f == nil {
			return
		}
		takes := false
		for j, b := range f.Backends {
			at := fmt.Sprintf("%s backend %d", f.Route, j)
			if b.Weight > maxWeightOfBackend || b.Redirect != nil || !reflect.DeepEqual(b.Filters, Filters{}) {
				say("%s: %+v", at, b)
			}
			// A backendRef of another kind than ours names no backend at all.
			if nowhere := b.Backend == (BackendKey{}) && b.Invalid != ""; !nowhere && (b.Backend.Protocol == udp) != (f.Route.Kind == cluster.KindUDPRoute) {
				say("%s: %s is of the wrong protocol", at, b.Backend)
			}
			if b.Invalid == "" {
				known(at, b.Backend)
			}
			takes = takes || b.Weight > 0
		}
		if takes == (f.Invalid != "") {
			say("%s: takes connections %v, but invalid for %q", f.Route, takes, f.Invalid)
		}
	}
	table := func(t *RouteTable) {
		if t == nil {
			return
		}
		forward(t.Forward)
		if t.Forward != nil && len(t.Rules) > 0 {
			say("a table has both rules and a %s", t.Forward.Route)
		}
		for i, r := range t.Rules {
			where := fmt.Sprintf("%s rule %d match %d", r.Route, r.RuleIndex, r.MatchIndex)
			if r.Route.Kind != t.Rules[0].Route.Kind {
				say("%s: rules of %s are in the same table", where, t.Rules[0].Route.Kind)
			}
			if s := unsoundMatch(&r.Match, r.Route.Kind); s != "" {
				say("%s: %s", where, s)
			}
			if i > 0 && r.Route == t.Rules[i-1].Route && r.Match.PathType == t.Rules[i-1].Match.PathType && r.Match.Path == t.Rules[i-1].Match.Path && r.Route.Kind == cluster.KindHTTPRoute {
				a, b := t.Rules[i-1], r
				if n := httpBefore(&a.Match, &b.Match); n < 0 || n == 0 && (a.RuleIndex > b.RuleIndex || a.RuleIndex == b.RuleIndex && a.MatchIndex > b.MatchIndex) {
					say("%s: stands before its time", where)
				}
			}
			takes := slices.ContainsFunc(r.Backends, func(b WeightedBackend) bool { return b.Weight > 0 })
			if (r.Redirect != nil) == takes && r.Invalid == "" {
				say("%s: redirect %v and backends %v", where, r.Redirect, r.Backends)
			}
			if r.RequestTimeout < 0 || r.BackendTimeout < 0 || r.RequestTimeout > 0 && r.BackendTimeout > r.RequestTimeout {
				say("%s: timeouts %s and %s", where, r.RequestTimeout, r.BackendTimeout)
			}
			if x := r.Retry; x != nil && (x.Attempts < 0 || x.Backoff <= 0 || !sort.IntsAreSorted(x.Codes) || len(x.Codes) > 0 && (x.Codes[0] < 400 || x.Codes[len(x.Codes)-1] > 599)) {
				say("%s: retry %+v", where, x)
			}
			if x := r.Session; x != nil && (!IsToken(x.Name) || x.Permanent && x.AbsoluteTimeout <= 0 || x.Header && x.Permanent) {
				say("%s: session %+v", where, x)
			}
			filters := func(where string, f Filters, d *Redirect) {
				if s := unsoundFilters(&f, d, &r.Match); s != "" {
					say("%s: %s", where, s)
				}
				for _, m := range f.Mirrors {
					known(where, m.Backend)
				}
				if f.Auth != nil {
					known(where, f.Auth.Backend)
				}
			}
			filters(where, r.Filters, r.Redirect)
			for j, b := range r.Backends {
				at := fmt.Sprintf("%s backend %d", where, j)
				if b.Weight > maxWeightOfBackend {
					say("%s: weight %d", at, b.Weight)
				}
				if b.Invalid == "" {
					known(at, b.Backend)
				}
				filters(at, b.Filters, b.Redirect)
			}
		}
	}
	for _, fs := range []func(func(string, *Frontend)){func(do func(string, *Frontend)) { each(res.Frontends, do) }, func(do func(string, *Frontend)) { each(res.Remotes, do) }} {
		fs(func(_ string, f *Frontend) {
			for _, p := range f.Ports {
				known(f.Key.String(), p.Backend)
				table(p.Producer)
				for _, c := range p.Consumers {
					table(c.Table)
				}
			}
		})
	}
	each(res.Gateways, func(_ string, g *Gateway) {
		if s := unsoundListeners(g); s != "" {
			say("Gateway %s: %s", g.Key(), s)
		}
		for _, l := range g.Listeners {
			forward(l.Forward)
			for _, h := range l.Hosts {
				table(h.Table)
			}
		}
	})
	each(res.Backends, func(k string, b *Backend) {
		if b.Key.HTTP2 && b.Config.AppProtocol != AppH2C {
			say("backend %s speaks %q", k, b.Config.AppProtocol)
		}
	})
	return why
}

// unsoundListeners holds a Gateway to what Listener promises.
func unsoundListeners(g *Gateway) string {
	keys, protocols := map[string]bool{}, map[string]string{}
	names, hosts := map[string]bool{}, map[string]bool{}
	for i := range g.Listeners {
		l := &g.Listeners[i]
		transport, class := tcp, l.Protocol
		if l.Protocol == udp {
			transport = udp
		}
		if class == "TLS" {
			class = "HTTPS"
		}
		port := fmt.Sprint(l.Port, transport)
		switch had := protocols[port]; {
		case keys[l.Key()]:
			return "two listeners " + l.Key()
		case had != "" && (had != class || class == tcp || class == udp):
			return fmt.Sprintf("port %s is of %s and %s", port, had, class)
		case names[port+l.Hostname]:
			return fmt.Sprintf("port %s has %q twice", port, l.Hostname)
		case l.Protocol == "HTTPS" && l.TLS == nil, l.TLS != nil && len(l.TLS.Certificates) == 0, l.TLS != nil && class != "HTTPS":
			return fmt.Sprintf("listener %s of protocol %s has TLS %v", l.Key(), l.Protocol, l.TLS)
		case (class == tcp || class == udp) != (len(l.Hosts) == 0), class != tcp && class != udp && l.Forward != nil:
			return fmt.Sprintf("listener %s of protocol %s has %d hosts and forwards %v", l.Key(), l.Protocol, len(l.Hosts), l.Forward)
		}
		keys[l.Key()], protocols[port], names[port+l.Hostname] = true, class, true
		for k, h := range l.Hosts {
			if h.Table == nil || !HostCovers(l.Hostname, h.Hostname) || hosts[port+"/"+h.Hostname] || (l.Protocol == "TLS" && len(h.Table.Rules) > 0) || (l.Protocol != "TLS" && h.Table.Forward != nil) {
				return fmt.Sprintf("listener %s: host %s", l.Key(), h.Hostname)
			}
			if k > 0 && rankOf(h.Hostname).before(rankOf(l.Hosts[k-1].Hostname)) {
				return fmt.Sprintf("listener %s: host %s stands too late", l.Key(), h.Hostname)
			}
			hosts[port+"/"+h.Hostname] = true
		}
	}
	return ""
}

func unsoundMatch(m *Match, kind cluster.Kind) string {
	switch m.PathType {
	case PathExact, PathPrefix:
		if !strings.HasPrefix(m.Path, "/") || checkPath(m.Path) != nil || m.PathType == PathPrefix && m.Path != "/" && strings.HasSuffix(m.Path, "/") {
			return fmt.Sprintf("%s %q", m.PathType, m.Path)
		}
	case PathRegex:
		if _, err := regexp.Compile(m.Path); err != nil {
			return err.Error()
		}
	default:
		return fmt.Sprintf("path type %q", m.PathType)
	}
	if m.Method != "" && !IsToken(m.Method) {
		return fmt.Sprintf("method %q", m.Method)
	}
	if g := m.GRPC; g != nil && (kind != cluster.KindGRPCRoute || g.Service == "" && g.Method == "") {
		return fmt.Sprintf("a %s has gRPC match %+v", kind, g)
	}
	for _, list := range [][]ValueMatch{m.Headers, m.Query} {
		for i, v := range list {
			if !IsToken(v.Name) || v.Value == "" || i > 0 && list[i-1].Name >= v.Name {
				return fmt.Sprintf("values %+v", list)
			}
			if _, err := regexp.Compile(v.Value); v.Regex && err != nil {
				return err.Error()
			}
		}
	}
	return ""
}

func unsoundFilters(f *Filters, d *Redirect, m *Match) string {
	for _, mods := range []HeaderMods{f.Request, f.Response} {
		seen := map[string]bool{}
		name := func(n string) bool {
			bad := seen[n] || !IsToken(n) || strings.ToLower(n) != n
			seen[n] = true
			return bad
		}
		for _, h := range append(slices.Clone(mods.Set), mods.Add...) {
			if name(h.Name) || !IsFieldValue(h.Value) {
				return fmt.Sprintf("header modifier %+v", mods)
			}
		}
		if slices.ContainsFunc(mods.Remove, name) {
			return fmt.Sprintf("header modifier %+v", mods)
		}
	}
	if w := f.Rewrite; w != nil && (w.FullPath != nil && w.PrefixPath != nil || w.PrefixPath != nil && m.PathType != PathPrefix || w.Hostname != "" && !isHostname(w.Hostname) || d != nil) {
		return fmt.Sprintf("rewrite %+v", w)
	}
	if d != nil && (d.StatusCode < 301 || d.StatusCode > 308 || d.Port < 0 || d.Port > 65535 || !slices.Contains([]string{"", "http", "https"}, d.Scheme) || len(f.Mirrors) > 0) {
		return fmt.Sprintf("redirect %+v", d)
	}
	for _, x := range f.Mirrors {
		if x.Numerator < 1 || x.Numerator > x.Denominator {
			return fmt.Sprintf("mirror %+v", x)
		}
	}
	if c := f.CORS; c != nil {
		for _, list := range [][]string{c.AllowOrigins, c.AllowMethods, c.AllowHeaders} {
			if len(list) > 1 && slices.Contains(list, "*") {
				return fmt.Sprintf("cors %+v", c)
			}
		}
		if c.MaxAge <= 0 {
			return fmt.Sprintf("cors %+v", c)
		}
	}
	if a := f.Auth; a != nil && (a.Path != "" && (!strings.HasPrefix(a.Path, "/") || checkPath(a.Path) != nil) || !sort.StringsAreSorted(a.RequestHeaders) || !sort.StringsAreSorted(a.ResponseHeaders)) {
		return fmt.Sprintf("auth %+v", a)
	}
	return ""
}
