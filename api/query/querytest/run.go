package querytest

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"

	"github.com/causeway-mesh/causeway/api/query"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// Clusterset is the world's name.
const Clusterset = "isles"

// Running is a query server of a World.
type Running struct {
	Addr       string
	Registry   *prometheus.Registry
	Clusterset *identity.Authority
	East       *identity.Authority
	t          testing.TB
}

// Config is a query.Config that reads the world; a test may change it before Run.
func (w *World) Config() query.Config {
	return query.Config{
		Views: w.Views, Changed: w.Changed, Proxies: w.Proxies, Problems: w.Problems, History: w,
		Bindings:  func(translate.Proxy) query.Bindings { return w },
		Authorize: query.AuthorizeMembers(Clusterset),
		Logger:    slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	}
}

// Run serves the configuration on loopback, as a hub, until the test ends.
func Run(t testing.TB, cfg query.Config) *Running {
	t.Helper()
	return RunAs(t, cfg, func(a *identity.Authority) identity.SVIDRequest {
		hub, err := identity.HubID(a.TrustDomain())
		if err != nil {
			t.Fatal(err)
		}
		return identity.SVIDRequest{ID: hub}
	})
}

// RunAs is Run for a server with another identity, which the clusterset's
// authority certifies for 127.0.0.1.
func RunAs(t testing.TB, cfg query.Config, as func(*identity.Authority) identity.SVIDRequest) *Running {
	t.Helper()
	open := func(name string) *identity.Authority {
		td, err := identity.ClustersetDomain(name)
		if err != nil {
			t.Fatal(err)
		}
		a, err := identity.OpenAuthority(identity.AuthorityConfig{TrustDomain: td, RootConfig: identity.RootConfig{Dir: filepath.Join(t.TempDir(), "ca")}})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	registry := prometheus.NewRegistry()
	r := &Running{Registry: registry, Clusterset: open(Clusterset), East: open("east." + Clusterset), t: t}
	bundles := &identity.BundleSet{}
	bundles.Replace([]*x509bundle.Bundle{r.Clusterset.Bundle(), r.East.Bundle()})
	req := as(r.Clusterset)
	req.DNSNames, req.IPs = []string{"localhost"}, []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	svid, err := r.Clusterset.Issue(req)
	if err != nil {
		t.Fatal(err)
	}
	cfg.SVID, cfg.Bundles, cfg.Registerer = svid, bundles, registry
	s, err := query.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.Addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return r
}

// User issues a person's certificate and gives the directory with its files,
// named as identity.Files has it, and with the server's roots.
func (r *Running) User(a *identity.Authority, name string) string {
	id, err := identity.UserID(a.TrustDomain(), name)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.Files(a, identity.SVIDRequest{ID: id})
}

// Files is User for any identity.
func (r *Running) Files(a *identity.Authority, req identity.SVIDRequest) string {
	c, err := a.Issue(req)
	if err != nil {
		r.t.Fatal(err)
	}
	dir := r.t.TempDir()
	if err := identity.WriteDir(dir, identity.Files(c, identity.BundlePEM(r.Clusterset.Bundle()))); err != nil {
		r.t.Fatal(err)
	}
	return dir
}
