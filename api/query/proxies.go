package query

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/xds/translate"
)

var proxyRoles = map[translate.Role]causewayv1.ProxyRole{
	translate.RoleSidecar:  causewayv1.ProxyRole_PROXY_ROLE_SIDECAR,
	translate.RoleGateway:  causewayv1.ProxyRole_PROXY_ROLE_GATEWAY,
	translate.RoleCrossing: causewayv1.ProxyRole_PROXY_ROLE_CROSSING,
}

// ListProxies implements causeway.v1.Federation.
func (s service) ListProxies(ctx context.Context, req *causewayv1.ListProxiesRequest) (*causewayv1.ListProxiesResponse, error) {
	if err := checkFilter(req.GetFilter()); err != nil {
		return nil, err
	}
	r, err := s.read(ctx, 0, need{})
	if err != nil {
		return nil, err
	}
	out, next, err := paginate(req.GetPage(), sealOf("proxies", req.GetFilter(), 0, req.GetRole().String()),
		s.proxyRows(r, req.GetFilter(), req.GetRole()))
	if err != nil {
		return nil, err
	}
	return &causewayv1.ListProxiesResponse{Proxies: out, Revision: r.revision, NextPageToken: next}, nil
}

func (s *Server) proxyRows(r *reading, f *causewayv1.Filter, role causewayv1.ProxyRole) rows[*causewayv1.Proxy] {
	var list []row[*causewayv1.Proxy]
	for _, p := range s.cfg.Proxies() {
		if !matches(f.GetCluster(), string(p.Cluster)) || !matches(f.GetNamespace(), p.Namespace) || !matches(f.GetName(), p.Name) ||
			(role != 0 && role != proxyRoles[p.Role]) || !r.scope.Sees(p.Cluster, p.Namespace) {
			continue
		}
		list = append(list, row[*causewayv1.Proxy]{p.ID(), func() *causewayv1.Proxy { return s.proxy(r, p) }})
	}
	return sorted(list)
}

func (s *Server) proxy(r *reading, p Proxy) *causewayv1.Proxy {
	out := &causewayv1.Proxy{
		Id: p.ID(), Cluster: string(p.Cluster), Role: proxyRoles[p.Role], Namespace: p.Namespace, Name: p.Name,
		Connected: p.Connected, InSync: p.inSync(), Revision: p.Revision, AckedRevision: p.Acked, EnvoyVersion: p.Envoy,
		RejectionsTotal: int32(p.RejectedTotal),
	}
	if p.Connected {
		out.ConnectedSince = timestamp(p.Since)
	}
	if p.Lag > 0 {
		out.Lag = durationpb.New(p.Lag)
	}
	for _, t := range p.Types {
		out.Types = append(out.Types, &causewayv1.ProxyType{
			Type: shortType(t.TypeURL), SentVersion: t.Sent, AckedVersion: t.Acked, Resources: int32(t.Resources), Pending: int32(t.Pending),
		})
	}
	for _, x := range p.Rejected[:min(len(p.Rejected), maxStatusRows)] {
		out.Rejections = append(out.Rejections, &causewayv1.Rejection{
			Type: shortType(x.TypeURL), Resource: x.Resource, Subject: x.Subject, Version: x.Version, Message: x.Message,
			HeldBack: x.HeldBack, Time: timestamp(x.Time),
		})
	}
	if v, ok := r.views[p.Cluster]; ok {
		out.Listeners = listeners(v.Result, s.cfg.Bindings(p.Proxy), p.Proxy)
	}
	return out
}

// shortType is the last part of a type URL, "ClusterLoadAssignment".
func shortType(url string) string { return url[strings.LastIndexByte(url, '.')+1:] }

// listeners puts together what a proxy is there for and where it binds.
func listeners(r *resolve.Result, b Bindings, p translate.Proxy) []*causewayv1.ProxyListener {
	if b == nil {
		return nil
	}
	var out []*causewayv1.ProxyListener
	add := func(at netip.AddrPort, ok bool, target *causewayv1.ObjectRef, t translate.Transport, port int32) *causewayv1.ProxyListener {
		if !ok {
			return nil
		}
		l := &causewayv1.ProxyListener{Address: at.String(), Target: target, Transport: string(t), Port: port, Moved: port != 0 && int32(at.Port()) != port}
		out = append(out, l)
		return l
	}
	switch p.Role {
	case translate.RoleSidecar:
		r.Frontends.Root().Walk(func(_ []byte, f *resolve.Frontend) bool {
			if f.Headless {
				return false
			}
			for i := range f.Ports {
				port := &f.Ports[i]
				t, ok := translate.FrontendTransport(port)
				if !ok {
					continue // a question may bind: ask only for what a sidecar offers
				}
				at, ok := b.Frontend(p, f.Key, t, port.Port)
				add(at, ok, objectRef(f.Key.Kind, f.Key.Namespace, f.Key.Name), t, port.Port)
			}
			return false
		})
	case translate.RoleGateway:
		g, ok := r.Gateways.Get([]byte(p.Namespace + "/" + p.Name))
		if !ok {
			return nil
		}
		type socket struct {
			transport translate.Transport
			port      int32
		}
		seen := map[socket]*causewayv1.ProxyListener{}
		for i := range g.Listeners {
			l := &g.Listeners[i]
			t, ok := translate.ListenerTransport(l)
			if !ok {
				continue
			}
			shown, ok := seen[socket{t, l.Port}]
			if !ok {
				at, bound := b.Gateway(p, t, l.Port)
				shown = add(at, bound, objectRef(cluster.KindGateway, g.Namespace, g.Name), t, l.Port)
				seen[socket{t, l.Port}] = shown
			}
			if shown == nil {
				continue
			}
			shown.ListenerNames = append(shown.ListenerNames, l.Key())
			if !slices.Contains(shown.Protocols, l.Protocol) {
				shown.Protocols = append(shown.Protocols, l.Protocol)
				slices.Sort(shown.Protocols)
			}
		}
		for at, shown := range seen {
			if shown != nil {
				shown.Hostnames = hostnames(g, at.transport, at.port)
			}
		}
	case translate.RoleCrossing:
		at, ok := b.Crossing(p)
		add(at, ok, nil, translate.TransportTCP, 0)
	}
	slices.SortFunc(out, func(a, b *causewayv1.ProxyListener) int {
		return cmp.Or(strings.Compare(a.GetTarget().GetKind(), b.GetTarget().GetKind()), strings.Compare(a.GetTarget().GetNamespace(), b.GetTarget().GetNamespace()),
			strings.Compare(a.GetTarget().GetName(), b.GetTarget().GetName()), cmp.Compare(a.GetPort(), b.GetPort()), strings.Compare(a.GetTransport(), b.GetTransport()))
	})
	return out
}

// hostnames lists those of a Gateway's listeners on a port; none if one of them takes any.
func hostnames(g *resolve.Gateway, transport translate.Transport, port int32) []string {
	var out []string
	for i := range g.Listeners {
		l := &g.Listeners[i]
		if t, ok := translate.ListenerTransport(l); !ok || t != transport || l.Port != port {
			continue
		}
		if l.Hostname == "" {
			return nil
		}
		out = append(out, l.Hostname)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
