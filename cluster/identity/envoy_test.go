package identity

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/causeway-mesh/causeway/xds/envoy/envoytest"
)

// The real Envoy reads what a Rotator writes, follows its changes without a
// restart, and holds clients to the root's name constraint.
func TestEnvoyReadsTheFiles(t *testing.T) {
	binary := envoytest.Binary(t)
	a := openAuthority(t, "east", "")
	dir := t.TempDir()
	svid, socket := filepath.Join(dir, "svid"), filepath.Join(dir, "s")
	id, _ := ProxyID(a.TrustDomain(), RoleCrossing, "causeway-system", "crossing")
	write := func() *Credential {
		t.Helper()
		c, err := a.Issue(SVIDRequest{ID: id, TTL: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		if err := WriteDir(svid, Files(c, BundlePEM(a.Bundle()))); err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := write()
	bootstrap := fmt.Sprintf(`
node: {id: test, cluster: test}
static_resources:
  listeners:
  - name: mtls
    address: {pipe: {path: "%[1]s/s"}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          delayed_close_timeout: 0s
          route_config:
            virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: hello}}}]}]
          http_filters:
          - {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
      transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            tls_certificate_sds_secret_configs:
            - {name: svid, sds_config: {path_config_source: {path: "%[1]s/svid.yaml"}, resource_api_version: V3}}
            validation_context_sds_secret_config:
              {name: roots, sds_config: {path_config_source: {path: "%[1]s/roots.yaml"}, resource_api_version: V3}}
`, dir)
	const secret = `resources: [{"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret, name: %s, %s}]`
	for name, data := range map[string]string{
		"envoy.yaml": bootstrap,
		"svid.yaml":  fmt.Sprintf(secret, "svid", fmt.Sprintf(`tls_certificate: {certificate_chain: {filename: "%[1]s/tls.crt"}, private_key: {filename: "%[1]s/tls.key"}, watched_directory: {path: "%[1]s"}}`, svid)),
		"roots.yaml": fmt.Sprintf(secret, "roots", fmt.Sprintf(`validation_context: {trusted_ca: {filename: "%[1]s/ca.crt"}, watched_directory: {path: "%[1]s"}}`, svid)),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var log bytes.Buffer
	cmd := exec.CommandContext(ctx, binary, "-c", filepath.Join(dir, "envoy.yaml"), "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning")
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("envoy: %s", log.String())
		}
	}()

	ask := func(client SVIDSource) (*x509.Certificate, error) {
		raw, err := net.Dial("unix", socket)
		if err != nil {
			return nil, err
		}
		defer func() { _ = raw.Close() }()
		_ = raw.SetDeadline(time.Now().Add(time.Minute))
		conn := tls.Client(raw, ClientConfig(client, a, Exactly(id)))
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
			return nil, err
		}
		body, err := io.ReadAll(conn)
		if err != nil {
			return nil, err
		}
		if !bytes.HasPrefix(body, []byte("HTTP/1.1 200")) {
			return nil, fmt.Errorf("answer %q", body)
		}
		return conn.ConnectionState().PeerCertificates[0], nil
	}
	agent := issueAgent(t, a, time.Hour)
	awaitServes := func(want *Credential) {
		t.Helper()
		deadline, tick := time.Now().Add(time.Minute), time.NewTicker(20*time.Millisecond)
		defer tick.Stop()
		for {
			got, err := ask(agent)
			if err == nil && got.Equal(want.Leaf()) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("Envoy serves %v, %v; want serial %v", got, err, want.Leaf().SerialNumber)
			}
			<-tick.C
		}
	}
	awaitServes(first)
	awaitServes(write())

	// A new root, and a leaf that only it vouches for, both by the same files.
	k, _ := a.roots.current()
	next, err := k.rotated(mustRoot(t, a), time.Now(), 0, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.roots.replace(func(keyring) (keyring, error) { return next, nil }); err != nil {
		t.Fatal(err)
	}
	awaitServes(write())
	if _, err := ask(agent); err != nil {
		t.Errorf("a leaf of the old root is refused: %v", err)
	}
	agent = issueAgent(t, a, time.Hour)
	if _, err := ask(agent); err != nil {
		t.Errorf("a leaf of the new root is refused: %v", err)
	}

	// The root's key can't certify another trust domain's ids for Envoy either.
	k, _ = a.roots.current()
	foreign, key, err := k.issue(x509.Certificate{URIs: []*url.URL{{Scheme: "spiffe", Host: "west.isles", Path: "/agent"}}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	forged := newCredential(spiffeid.RequireFromString("spiffe://west.isles/agent"), []*x509.Certificate{foreign}, key, time.Now())
	if _, err := ask(forged); err == nil {
		t.Error("Envoy takes an id of another trust domain from this root")
	}
	if _, err := ask(issueAgent(t, openAuthority(t, "east", ""), time.Hour)); err == nil {
		t.Error("Envoy takes an SVID of a root that it doesn't know")
	}
}

func mustRoot(t *testing.T, a *Authority) generation {
	t.Helper()
	g, err := newRoot(a.roots.template, time.Now(), a.roots.cfg.RootTTL)
	if err != nil {
		t.Fatal(err)
	}
	return g
}
