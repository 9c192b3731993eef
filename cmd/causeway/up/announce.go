package up

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/cmd/causeway/client"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// announce writes the clients' context file as soon as the API can be asked, and
// prints what is served where once everything is in place, and again when that
// has changed.
func (s *supervisor) announce(ctx context.Context) error {
	if _, err := s.hub.person.Wait(ctx); err != nil {
		return nil
	}
	dir := s.dir.join("client")
	c := client.Context{
		Server: s.api.Addr().String(),
		CACert: filepath.Join(dir, identity.FileBundle), Cert: filepath.Join(dir, identity.FileCert), Key: filepath.Join(dir, identity.FileKey),
	}
	if err := client.WriteContext(s.dir.path, c); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "causeway up: clusters %s; state and logs in %s\n", strings.Join(s.names(), ", "), s.dir.path)
	fmt.Fprintln(s.out, "starting the Envoys; `causeway status --wait=60s` returns when all is in place")
	last, greeted := "", false
	for {
		changed := s.waiting()
		if s.settled() {
			if text := s.summary(); text != last {
				fmt.Fprint(s.out, "\n"+text)
				last = text
			}
			if !greeted {
				greeted = true
				s.greet(c)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// settled reports whether every agent has resolved something and every Envoy is
// connected and up to date.
func (s *supervisor) settled() bool {
	for _, m := range s.list() {
		a := m.current()
		if a == nil || a.Result() == nil || len(m.proxies()) == 0 {
			return false
		}
	}
	for _, p := range s.hub.proxies() {
		if !p.Connected || p.Revision == 0 || p.Acked != p.Revision {
			return false
		}
	}
	return true
}

// summary says what is served where.
func (s *supervisor) summary() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CLUSTER\tWHAT\tWHERE")
	moved := false
	for _, m := range s.list() {
		var sidecars []string
		for _, p := range m.proxies() {
			switch p.Role {
			case translate.RoleSidecar:
				sidecars = append(sidecars, p.Namespace)
			case translate.RoleCrossing:
				if at, ok := m.bindings.Crossing(p); ok {
					fmt.Fprintf(w, "%s\tcrossing gateway\t%s\n", m.id, at)
				}
			case translate.RoleGateway:
				moved = s.gatewayLines(w, m, p) || moved
			}
		}
		fmt.Fprintf(w, "%s\tsidecars of\t%s\n", m.id, strings.Join(sidecars, ", "))
	}
	w.Flush()
	if moved {
		fmt.Fprintln(&b, "Ports that may not be bound here, or are taken, are moved: a listener's 80 is 10080 at its address.")
	}
	return b.String()
}

// gatewayLines prints a Gateway's listeners and reports whether one was moved.
func (s *supervisor) gatewayLines(w *tabwriter.Writer, m *member, p translate.Proxy) (moved bool) {
	a := m.current()
	if a == nil || a.Result() == nil {
		return false
	}
	g, ok := a.Result().Gateways.Get([]byte(p.Namespace + "/" + p.Name))
	if !ok {
		return false
	}
	for i := range g.Listeners {
		l := &g.Listeners[i]
		t, offered := translate.ListenerTransport(l)
		if !offered {
			continue // a question may bind
		}
		at, ok := m.bindings.Gateway(p, t, l.Port)
		if !ok {
			continue
		}
		note := ""
		if int32(at.Port()) != l.Port {
			note, moved = fmt.Sprintf(" (port %d, moved)", l.Port), true
		}
		fmt.Fprintf(w, "%s\tGateway %s/%s, listener %s\t%s%s\n", m.id, p.Namespace, p.Name, l.Key(), listenerAddress(l, at), note)
	}
	return moved
}

// listenerAddress is where a listener can be called, as a URL, and for which hosts.
func listenerAddress(l *resolve.Listener, at netip.AddrPort) string {
	where := strings.ToLower(l.Protocol) + "://" + at.String()
	switch l.Protocol {
	case "TCP", "UDP":
		return where // they have no hosts
	case "TLS":
		if l.TLS == nil {
			where += " passed through,"
		}
	}
	if l.Hostname == "" {
		return where + " host *"
	}
	return where + " host " + l.Hostname
}

// greet tells what to do next.
func (s *supervisor) greet(c client.Context) {
	state := ""
	if def, err := client.StateDir("", os.Getenv); err != nil || def != s.dir.path {
		state = " --state " + s.dir.path
	}
	fmt.Fprintf(s.out, `
Ask, from another shell:
  causeway get clusters%[1]s        (imports, routes, endpoints, proxies, problems)
  causeway request --from CLUSTER/NAMESPACE http://SERVICE.NAMESPACE.svc.clusterset.local/%[1]s
  causeway explain --from CLUSTER/NAMESPACE http://SERVICE.NAMESPACE.svc.clusterset.local/%[1]s
  grpcurl -cacert %[2]s -cert %[3]s -key %[4]s %[5]s causeway.v1.Federation/ListClusters
`, state, c.CACert, c.Cert, c.Key, c.Server)
	if at := s.metricsAddr.Load(); at != nil {
		fmt.Fprintf(s.out, "  curl --cacert %s --cert %s --key %s https://%s/metrics\n", c.CACert, c.Cert, c.Key, *at)
	}
	fmt.Fprintln(s.out, "Edit the manifests, or stop with Ctrl-C.")
}
