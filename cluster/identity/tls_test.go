package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
)

func matches(certPEM, keyPEM []byte) error {
	_, err := tls.X509KeyPair(certPEM, keyPEM)
	return err
}

// outcome is what the two sides of a handshake found.
type outcome struct {
	client, server error
	peer           tls.ConnectionState // as the server sees it
}

func (o outcome) ok() bool { return o.client == nil && o.server == nil }

// handshake connects client and server over a loopback connection, sends a byte
// each way (a client's certificate is judged after its handshake in TLS 1.3), and
// gives what each side found.
func handshake(t testing.TB, client, server *tls.Config) outcome {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	type result struct {
		err   error
		state tls.ConnectionState
	}
	served := make(chan result, 1)
	go func() {
		raw, err := ln.Accept()
		if err != nil {
			served <- result{err: err}
			return
		}
		defer func() { _ = raw.Close() }()
		conn := tls.Server(raw, server)
		err = conn.Handshake()
		if err == nil {
			_, err = conn.Write([]byte{1})
		}
		served <- result{err, conn.ConnectionState()}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, clientErr := (&tls.Dialer{Config: client}).DialContext(ctx, "tcp", ln.Addr().String())
	if clientErr == nil {
		_, clientErr = conn.Read(make([]byte, 1))
		_ = conn.Close()
	}
	r := <-served
	return outcome{clientErr, r.err, r.state}
}

// swap is an SVIDSource whose credential a test replaces.
type swap struct{ *Credential }

func TestTLS(t *testing.T) {
	east, west := openAuthority(t, "east", ""), openAuthority(t, "west", "")
	var both, eastOnly BundleSet
	both.Replace([]*x509bundle.Bundle{east.Bundle(), west.Bundle()})
	eastOnly.Replace([]*x509bundle.Bundle{east.Bundle()})
	agent := issueAgent(t, east, time.Hour)
	userID, _ := UserID(west.TrustDomain(), "ada")
	user, err := west.Issue(SVIDRequest{ID: userID})
	if err != nil {
		t.Fatal(err)
	}
	other, _ := AgentID(west.TrustDomain())
	noUsers := func(i Identity) error {
		if i.Kind == KindUser {
			return errors.New("no people here")
		}
		return nil
	}

	for name, c := range map[string]struct {
		client     *tls.Config
		server     *tls.Config
		clientFail string
		serverFail string
	}{
		"both genuine": {
			client: ClientConfig(user, &both, Exactly(agent.ID())), server: ServerConfig(agent, &both, Genuine),
		},
		"TLS 1.2": {
			client: limit(ClientConfig(user, &both, Exactly(agent.ID()))), server: ServerConfig(agent, &both, Genuine),
		},
		"client without certificate": {
			client: ClientConfig(nil, &both, Exactly(agent.ID())), server: ServerConfig(agent, &both, Genuine),
			serverFail: "didn't provide a certificate",
		},
		"client of an unknown trust domain": {
			client: ClientConfig(user, &both, Exactly(agent.ID())), server: ServerConfig(agent, &eastOnly, Genuine),
			serverFail: "west.isles",
		},
		"client who may not": {
			client: ClientConfig(user, &both, Exactly(agent.ID())), server: ServerConfig(agent, &both, noUsers),
			serverFail: "no people here",
		},
		"server with another id": {
			client: ClientConfig(user, &both, Exactly(other)), server: ServerConfig(agent, &both, Genuine),
			clientFail: "wanted spiffe://west.isles/agent",
		},
		"server of an unknown trust domain": {
			client: ClientConfig(agent, &eastOnly, Genuine), server: ServerConfig(user, &both, Genuine),
			clientFail: "west.isles",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := handshake(t, c.client, c.server)
			clientErr, serverErr, state := got.client, got.server, got.peer
			if got := text(clientErr); c.clientFail == "" && c.serverFail == "" && got != "" || !strings.Contains(got, c.clientFail) {
				t.Errorf("client: %q, want %q", got, c.clientFail)
			}
			if got := text(serverErr); c.clientFail == "" && c.serverFail == "" && got != "" || !strings.Contains(got, c.serverFail) {
				t.Errorf("server: %q, want %q", got, c.serverFail)
			}
			if c.clientFail == "" && c.serverFail == "" {
				if peer, err := PeerIdentity(state); err != nil || peer.Name != "ada" || peer.TrustDomain != west.TrustDomain() {
					t.Errorf("peer is %v, %v", peer, err)
				}
			}
		})
	}
}

// Neither rotation of the SVID, nor of a root, nor a new or a lost trust domain
// needs another tls.Config; a session that could be resumed helps nobody.
func TestTLSFollowsChanges(t *testing.T) {
	east, west := openAuthority(t, "east", ""), openAuthority(t, "west", "")
	var bundles BundleSet
	bundles.Replace([]*x509bundle.Bundle{east.Bundle()})
	presented := &swap{issueAgent(t, west, time.Hour)}
	server := ServerConfig(issueAgent(t, east, time.Hour), &bundles, Genuine)
	client := ClientConfig(presented, &bundles, Genuine)
	client.ClientSessionCache = tls.NewLRUClientSessionCache(4)

	step := func(name string, ok bool) {
		t.Helper()
		if got := handshake(t, client, server); got.ok() != ok {
			t.Errorf("%s: client %v, server %v; want success: %v", name, got.client, got.server, ok)
		}
	}
	step("trust domain unknown", false)
	bundles.Replace([]*x509bundle.Bundle{east.Bundle(), west.Bundle()})
	step("trust domain added", true)
	step("again", true)
	bundles.Replace([]*x509bundle.Bundle{east.Bundle()})
	step("trust domain removed", false)
	presented.Credential = issueAgent(t, east, time.Hour)
	step("SVID replaced", true)
}

func TestBundleSetWatch(t *testing.T) {
	east := openAuthority(t, "east", "")
	var s BundleSet
	_, changed := s.Watch()
	s.Replace([]*x509bundle.Bundle{east.Bundle()})
	if !woken(changed) {
		t.Error("a change woke no one")
	}
	b, changed := s.Watch()
	if len(b) != 1 {
		t.Errorf("%d bundles, want 1", len(b))
	}
	s.Replace([]*x509bundle.Bundle{east.Bundle()})
	if woken(changed) {
		t.Error("an equal set woke a watcher")
	}
}

func TestStoreTLS(t *testing.T) {
	a, err := OpenStoreAuthority(StoreAuthorityConfig{Clusterset: "isles", RootConfig: RootConfig{Dir: t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	server, err := a.IssueServer(0, []string{"etcd-0.example"}, []netip.Addr{netip.MustParseAddr("127.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	user, err := a.IssueClient(0, "east")
	if err != nil {
		t.Fatal(err)
	}
	if server.Leaf().Subject.CommonName != "" {
		t.Error("the server's certificate names a user")
	}
	if _, err := user.GetX509SVID(); err == nil {
		t.Error("an etcd user's certificate passes for an SVID")
	}
	roots := func() []byte { pem, _ := a.BundlePEM(); return pem }
	pool, err := parseRoots(mustDomain(t, "east"), roots())
	if err != nil {
		t.Fatal(err)
	}
	serverConfig := &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, Certificates: []tls.Certificate{server.TLSCertificate()}, ClientCAs: certPool(pool)}
	current := func(c *Credential) func() (*Credential, error) {
		return func() (*Credential, error) { return c, nil }
	}

	client, err := StoreClientConfig(current(user), roots, []string{"other.example", "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	got := handshake(t, client, serverConfig)
	if !got.ok() {
		t.Fatalf("client %v, server %v", got.client, got.server)
	}
	if cn := got.peer.PeerCertificates[0].Subject.CommonName; cn != "east" {
		t.Errorf("etcd would take the user for %q", cn)
	}

	if c, err := StoreClientConfig(current(user), roots, []string{"other.example"}); err != nil {
		t.Fatal(err)
	} else if err := handshake(t, c, serverConfig).client; err == nil || !strings.Contains(err.Error(), "other.example") {
		t.Errorf("server under another name: %v", err)
	}
	// A user's certificate can't stand in for a server.
	serverConfig.Certificates = []tls.Certificate{user.TLSCertificate()}
	if handshake(t, client, serverConfig).client == nil {
		t.Error("an etcd user passes for the server")
	}
	// A cluster's own CA has no say in the store.
	serverConfig.Certificates = []tls.Certificate{issueAgent(t, openAuthority(t, "east", ""), time.Hour).TLSCertificate()}
	if handshake(t, client, serverConfig).client == nil {
		t.Error("a cluster's SVID passes for the store's server")
	}
	for _, name := range []string{"", "a b", "../x", strings.Repeat("a", 129), "a,CN=root", ":a"} {
		if _, err := a.IssueClient(0, name); err == nil {
			t.Errorf("user %q was certified", name)
		}
	}
	// The longest user that an agent can have: "agent:" and a DNS label.
	if _, err := a.IssueClient(0, "agent:"+strings.Repeat("a", 63)); err != nil {
		t.Error(err)
	}
	if _, err := a.IssueServer(0, nil, nil); err == nil {
		t.Error("a server without a name was certified")
	}
}
