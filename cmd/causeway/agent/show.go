package agent

import (
	"github.com/causeway-mesh/causeway/api/query"
	"github.com/causeway-mesh/causeway/xds/server"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// Proxies tells how the wanted proxies fare, also those that have never connected: of several
// Envoys of one, how that fares which is connected and furthest behind. The agent may be nil:
// then nobody serves them.
func Proxies(a *Agent, wanted []translate.Proxy) []query.Proxy {
	status := map[string]server.ProxyStatus{}
	if a != nil {
		for _, p := range a.XDS().Proxies() {
			if old, ok := status[p.Proxy]; !ok || p.Connected && (!old.Connected || old.InSync() && !p.InSync()) {
				status[p.Proxy] = p
			}
		}
	}
	var out []query.Proxy
	for _, p := range wanted {
		out = append(out, shown(p, status[p.ID()]))
	}
	return out
}

// shown maps the server's status of a proxy to the query API's.
func shown(p translate.Proxy, st server.ProxyStatus) query.Proxy {
	out := query.Proxy{
		Proxy: p, Envoy: st.Envoy, Connected: st.Connected, Since: st.Since,
		Revision: st.Revision, Acked: st.Acked, Lag: st.Lag, RejectedTotal: st.RejectedTotal,
	}
	for _, t := range st.Types {
		out.Types = append(out.Types, query.ProxyType{TypeURL: t.TypeURL, Sent: t.Sent, Acked: t.Acked, Resources: t.Resources, Pending: t.Pending})
	}
	for _, r := range st.Rejected {
		out.Rejected = append(out.Rejected, query.Rejection{
			TypeURL: r.TypeURL, Resource: r.Name, Subject: r.Subject, Version: r.Version, Message: r.Message, HeldBack: r.HeldBack, Time: r.At,
		})
	}
	return out
}
