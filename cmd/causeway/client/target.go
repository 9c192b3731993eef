package client

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/explain"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// parseSource reads --from.
func parseSource(from string) (explain.Source, error) {
	if from == "" {
		return explain.Source{}, errors.New("say where from: --from CLUSTER/NAMESPACE or --from CLUSTER/gateway/NAMESPACE/NAME")
	}
	src, err := explain.ParseSource(from)
	if err != nil {
		return explain.Source{}, fmt.Errorf("--from: %w", err)
	}
	return src, nil
}

func sourceMessage(s explain.Source) *causewayv1.Source {
	out := &causewayv1.Source{Cluster: string(s.Cluster)}
	if s.Gateway != "" {
		out.From = &causewayv1.Source_Gateway{Gateway: &causewayv1.GatewaySource{Namespace: s.Namespace, Name: s.Gateway}}
	} else {
		out.From = &causewayv1.Source_Namespace{Namespace: s.Namespace}
	}
	return out
}

// target is what the URL of a `request` calls for.
type target struct {
	explain.Scheme
	url  *url.URL
	port int32
}

// parseTarget reads the URL of a `request`, which may leave out its scheme.
func parseTarget(raw string) (target, error) {
	if !strings.Contains(raw, "://") {
		raw = "http://" + raw
	}
	u, err := url.Parse(raw)
	if err != nil {
		return target{}, fmt.Errorf("URL: %w", err)
	}
	scheme, known := explain.SchemeOf(u.Scheme)
	switch {
	case !known:
		return target{}, fmt.Errorf("URL %s: the scheme must be one of %s", raw, among(explain.Schemes()))
	case u.Hostname() == "":
		return target{}, fmt.Errorf("URL %s has no host", raw)
	case u.User != nil:
		return target{}, errors.New("a URL with user and password is not supported: give a header, -H \"Authorization: ...\"")
	case scheme.Speaks == explain.SpeaksBytes && (u.Path != "" && u.Path != "/" || u.RawQuery != ""):
		return target{}, fmt.Errorf("URL %s: %s has no paths; -d is the message", raw, u.Scheme)
	}
	t := target{Scheme: scheme, url: u, port: scheme.Port}
	if p := u.Port(); p != "" {
		port, err := strconv.Atoi(p)
		if err != nil || port < 1 || port > 65535 {
			return target{}, fmt.Errorf("URL %s: port %s is not from 1 to 65535", raw, p)
		}
		t.port = int32(port)
	}
	if t.port == 0 {
		return target{}, fmt.Errorf("URL %s needs a port: %s has none of its own", raw, u.Scheme)
	}
	return t, nil
}

// findProxy gets the Envoy through which requests of the source go.
func findProxy(ctx context.Context, c causewayv1.FederationClient, from explain.Source) (*causewayv1.Proxy, error) {
	role := causewayv1.ProxyRole_PROXY_ROLE_SIDECAR
	if from.Gateway != "" {
		role = causewayv1.ProxyRole_PROXY_ROLE_GATEWAY
	}
	_, all, err := pages(func(p *causewayv1.Page) ([]*causewayv1.Proxy, string, error) {
		r, err := c.ListProxies(ctx, &causewayv1.ListProxiesRequest{Filter: &causewayv1.Filter{Cluster: string(from.Cluster)}, Page: p, Role: role})
		return r.GetProxies(), r.GetNextPageToken(), err
	})
	if err != nil {
		return nil, err
	}
	var found *causewayv1.Proxy
	var names []string
	for _, p := range all {
		if from.Gateway != "" {
			names = append(names, p.GetCluster()+"/gateway/"+p.GetNamespace()+"/"+p.GetName())
		} else {
			names = append(names, p.GetCluster()+"/"+p.GetNamespace())
		}
		if p.GetNamespace() == from.Namespace && (from.Gateway == "" || p.GetName() == from.Gateway) &&
			(found == nil || p.GetConnected() && !found.GetConnected()) {
			found = p
		}
	}
	if found != nil {
		return found, nil
	}
	known, err := clusterNames(ctx, c, 0)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	names = slices.Compact(names)
	what := "sidecar Envoy"
	if from.Gateway != "" {
		what = "Gateway"
	}
	switch {
	case !slices.Contains(known, string(from.Cluster)):
		return nil, fmt.Errorf("no cluster %q; there are: %s", string(from.Cluster), among(known))
	case len(names) == 0:
		return nil, fmt.Errorf("no %s for %s: this server runs none in cluster %s", what, from, string(from.Cluster))
	}
	return nil, fmt.Errorf("no %s for %s; there are: %s", what, from, among(names))
}

// findListener chooses the address at which the Envoy takes requests for a URL.
func findListener(p *causewayv1.Proxy, from explain.Source, t target) (*causewayv1.ProxyListener, error) {
	host, port := t.url.Hostname(), t.port
	if from.Gateway != "" {
		var ports []string
		for _, l := range p.GetListeners() {
			if l.GetPort() == port && l.GetTransport() == t.Transport() {
				return l, nil
			}
			ports = append(ports, portName(l))
		}
		if len(ports) == 0 {
			return nil, fmt.Errorf("gateway %s has no listener that works: see `causeway get proxies %s/%s -o yaml`", from, from.Namespace, from.Gateway)
		}
		return nil, fmt.Errorf("gateway %s has no listener on %s port %d; its ports are: %s", from, t.Transport(), port, among(ports))
	}
	want, ok := explain.FrontendOf(host, from.Namespace)
	if !ok {
		return nil, fmt.Errorf("host %q is no Service's: use NAME, NAME.NAMESPACE, NAME.NAMESPACE.%s or NAME.NAMESPACE.%s",
			host, cluster.DomainCluster, cluster.DomainClusterset)
	}
	var ports, otherKinds, names []string
	for _, l := range p.GetListeners() {
		of := l.GetTarget()
		have := resolve.FrontendKey{Kind: cluster.Kind(of.GetKind()), Namespace: of.GetNamespace(), Name: of.GetName()}
		switch {
		case have == want && l.GetPort() == port && l.GetTransport() == t.Transport():
			return l, nil
		case have == want:
			ports = append(ports, portName(l))
		case have.Namespace == want.Namespace && have.Name == want.Name:
			otherKinds = append(otherKinds, have.Host())
		}
		names = append(names, have.Host())
	}
	slices.Sort(names)
	switch {
	case len(ports) > 0:
		return nil, fmt.Errorf("%s has no %s port %d in cluster %s; its ports are: %s", want, t.Transport(), port, string(from.Cluster), among(ports))
	case len(otherKinds) > 0:
		return nil, fmt.Errorf("no %s in cluster %s; did you mean %s?", want, string(from.Cluster), otherKinds[0])
	case len(names) == 0:
		return nil, fmt.Errorf("no %s in cluster %s: it has no service at all", want, string(from.Cluster))
	}
	return nil, fmt.Errorf("no %s in cluster %s; there are: %s", want, string(from.Cluster), among(slices.Compact(names)))
}

// portName is a listener's port as errors list it: "80", "53/UDP".
func portName(l *causewayv1.ProxyListener) string {
	if udp := "UDP"; l.GetTransport() == udp {
		return itoa(l.GetPort()) + "/" + udp
	}
	return itoa(l.GetPort())
}
