package attest

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/causeway-mesh/causeway/cluster/identity"
)

// rig is an agent that gives certificates, and what its Envoys have.
type rig struct {
	authority *identity.Authority
	address   string
	roots     string
	log       *strings.Builder
}

func start(t *testing.T) *rig {
	t.Helper()
	td := spiffeid.RequireTrustDomainFromString("west.prod")
	a, err := identity.OpenAuthority(identity.AuthorityConfig{TrustDomain: td})
	if err != nil {
		t.Fatal(err)
	}
	id, err := identity.AgentID(td)
	if err != nil {
		t.Fatal(err)
	}
	svid, err := a.Issue(identity.SVIDRequest{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{authority: a, roots: filepath.Join(t.TempDir(), "ca.crt"), log: &strings.Builder{}}
	if err := os.WriteFile(r.roots, identity.BundlePEM(a.Bundle()), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := NewServer(Config{
		Authority: a, Server: svid, Entitled: Roles{
			Crossing: Crossing{Account: Account{"causeway-system", "causeway-crossing"}, Name: "crossing"},
			Gateway: func(ns, name string) (Account, error) {
				if name != "edge" {
					return Account{}, errors.New("there is no such Gateway")
				}
				return Account{ns, name + "-causeway"}, nil
			},
		}.Entitled,
		Logger: slog.New(slog.NewTextHandler(r.log, nil)),
		Review: func(_ context.Context, token string) (Account, error) {
			switch token {
			case "good":
				return Account{"causeway-system", "causeway-crossing"}, nil
			case "edge":
				return Account{"shop", "edge-causeway"}, nil
			case "other":
				return Account{"default", "somebody"}, nil
			case "away":
				return Account{}, errors.New("connection refused")
			}
			return Account{}, ErrRefused
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.address = l.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) client(t *testing.T, token string, change func(*ClientConfig)) *Client {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := ClientConfig{Address: r.address, TokenFile: file, RootsFile: r.roots, TrustDomain: r.authority.TrustDomain(), Role: identity.RoleCrossing, Namespace: "causeway-system", Name: "crossing"}
	change(&cfg)
	c, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The right account gets the right identity and the roots as they are; nobody else
// gets anything, and is told why.
func TestExchange(t *testing.T) {
	r := start(t)
	same := func(*ClientConfig) {}
	c := r.client(t, "good", same)
	if err := r.authority.Rotate(); err != nil {
		t.Fatal(err)
	}
	_, changed := c.Roots()
	cred, err := c.Issue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if cred.ID().String() != "spiffe://west.prod/ns/causeway-system/proxy/crossing/crossing" {
		t.Errorf("the certificate is for %s", cred.ID())
	}
	select {
	case <-changed:
	default:
		t.Error("nobody is told of a new root")
	}
	if roots, _ := c.Roots(); strings.Count(string(roots), "BEGIN CERTIFICATE") != 2 {
		t.Errorf("the roots are %s", roots)
	}
	stranger, err := identity.OpenAuthority(identity.AuthorityConfig{TrustDomain: r.authority.TrustDomain()})
	if err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(foreign, identity.BundlePEM(stranger.Bundle()), 0o600); err != nil {
		t.Fatal(err)
	}
	edge := func(c *ClientConfig) { c.Role, c.Namespace, c.Name = identity.RoleGateway, "shop", "edge" }
	if cred, err := r.client(t, "edge", edge).Issue(t.Context()); err != nil || cred.ID().String() != "spiffe://west.prod/ns/shop/proxy/gateway/edge" {
		t.Errorf("a Gateway's pod got %v, %v", cred, err)
	}
	for what, c := range map[string]struct {
		client *Client
		says   string
	}{
		"another account":             {r.client(t, "other", same), "default/somebody may not be a crossing gateway"},
		"a bad token":                 {r.client(t, "bad", same), "refused (401)"},
		"an API server that is away":  {r.client(t, "away", same), "refused (503)"},
		"an endless token":            {r.client(t, strings.Repeat("x", maxToken+1), same), ""},
		"another role":                {r.client(t, "good", func(c *ClientConfig) { c.Role = identity.RoleSidecar }), "role \"sidecar\""},
		"crossing for gateway":        {r.client(t, "good", edge), "shop/edge-causeway may"},
		"gateway for crossing":        {r.client(t, "edge", same), "may not be a crossing gateway"},
		"another namespace's gateway": {r.client(t, "edge", func(c *ClientConfig) { edge(c); c.Namespace = "bank" }), "bank/edge-causeway may"},
		"no gateway":                  {r.client(t, "edge", func(c *ClientConfig) { edge(c); c.Name = "other" }), "there is no such Gateway"},
		"another name":                {r.client(t, "good", func(c *ClientConfig) { c.Name = "other" }), "there is one crossing gateway"},
		"a server of other roots":     {r.client(t, "good", func(c *ClientConfig) { c.RootsFile = foreign }), ""},
		"no roots":                    {r.client(t, "good", func(c *ClientConfig) { c.RootsFile = "/nowhere" }), "the cluster's roots"},
	} {
		if _, err := c.client.Issue(t.Context()); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if log := r.log.String(); strings.Contains(log, "PRIVATE") || strings.Contains(log, "token=") || !strings.Contains(log, "default/somebody") {
		t.Errorf("the log is %s", log)
	}
}
