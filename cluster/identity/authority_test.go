package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

func openAuthority(t testing.TB, id cluster.ID, dir string) *Authority {
	t.Helper()
	a, err := OpenAuthority(AuthorityConfig{TrustDomain: mustDomain(t, id), RootConfig: RootConfig{Dir: dir}})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issueAgent(t testing.TB, a *Authority, ttl time.Duration) *Credential {
	t.Helper()
	id, err := AgentID(a.TrustDomain())
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.Issue(SVIDRequest{ID: id, TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func verify(c *Credential, source x509bundle.Source) error {
	_, _, err := x509svid.Verify([]*x509.Certificate{c.Leaf()}, source)
	return err
}

func TestIssue(t *testing.T) {
	a := openAuthority(t, "east", "")
	id, _ := ProxyID(a.TrustDomain(), RoleSidecar, "app", "web")
	c, err := a.Issue(SVIDRequest{ID: id, TTL: time.Hour, DNSNames: []string{"localhost"}, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(c, a); err != nil {
		t.Error(err)
	}
	for _, host := range []string{"localhost", "127.0.0.1"} {
		if err := c.Leaf().VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	if left := time.Until(c.NotAfter()); left > time.Hour || left < 59*time.Minute {
		t.Errorf("lives for %s, want an hour", left)
	}
	// What go-spiffe reads back from the files is the same identity.
	svid, err := x509svid.Parse(c.CertPEM(), c.KeyPEM())
	if err != nil || svid.ID != id {
		t.Errorf("files hold %v, %v", svid, err)
	}
}

func TestIssueRefuses(t *testing.T) {
	a := openAuthority(t, "east", "")
	own, _ := AgentID(a.TrustDomain())
	other, _ := AgentID(mustDomain(t, "west"))
	sub, _ := AgentID(spiffeid.RequireTrustDomainFromString("x.east.isles"))
	for name, req := range map[string]SVIDRequest{
		"another cluster's id": {ID: other, TTL: time.Hour},
		"a domain below":       {ID: sub, TTL: time.Hour},
		"no id":                {TTL: time.Hour},
		"an unknown path":      {ID: spiffeid.RequireFromString("spiffe://east.isles/root"), TTL: time.Hour},
		"too long a life":      {ID: own, TTL: 25 * time.Hour},
		"too short a life":     {ID: own, TTL: time.Second},
		"a bad DNS name":       {ID: own, DNSNames: []string{"a b"}},
		"too many DNS names":   {ID: own, DNSNames: make([]string, 65)},
		"an invalid address":   {ID: own, IPs: []netip.Addr{{}}},
	} {
		if c, err := a.Issue(req); err == nil {
			t.Errorf("%s: got %v, want an error", name, c)
		}
	}
}

// Even with the root's key in hand, a cluster can certify no id of another
// trust domain and make no sub-authority, for readers that trust its root.
func TestRootIsBounded(t *testing.T) {
	a := openAuthority(t, "east", "")
	k, _ := a.roots.current()
	root := k[0]
	pool := x509.NewCertPool()
	pool.AddCert(root.cert)
	opts := x509.VerifyOptions{Roots: pool, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}

	foreign, _, err := k.issue(x509.Certificate{URIs: []*url.URL{{Scheme: "spiffe", Host: "west.isles", Path: "/agent"}}}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := foreign.Verify(opts); err == nil {
		t.Error("a certificate for another trust domain is valid under this root")
	}

	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := x509.Certificate{NotBefore: root.cert.NotBefore, NotAfter: root.cert.NotAfter, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	sub, err := sign(&template, root.cert, &key.PublicKey, root.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, _, err := keyring{{cert: sub, key: key}}.issue(x509.Certificate{URIs: []*url.URL{{Scheme: "spiffe", Host: "east.isles", Path: "/agent"}}}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	opts.Intermediates.AddCert(sub)
	if _, err := leaf.Verify(opts); err == nil {
		t.Error("a sub-authority is valid under this root")
	}
}

func TestKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	// Several processes starting at once agree on one root.
	var wg sync.WaitGroup
	bundles := make([]*x509bundle.Bundle, 8)
	for i := range bundles {
		wg.Go(func() {
			if a, err := OpenAuthority(AuthorityConfig{TrustDomain: mustDomain(t, "east"), RootConfig: RootConfig{Dir: dir}}); err != nil {
				t.Error(err)
			} else {
				bundles[i] = a.Bundle()
			}
		})
	}
	wg.Wait()
	for _, b := range bundles {
		if !b.Equal(bundles[0]) {
			t.Fatal("authorities opened on one directory have different roots")
		}
	}

	path := filepath.Join(dir, authorityFile)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of %s is %v, %v; want 0600", path, info.Mode(), err)
	}
	a := openAuthority(t, "east", dir)
	if err := a.Rotate(); err != nil {
		t.Fatal(err)
	}
	again := openAuthority(t, "east", dir)
	if !again.Bundle().Equal(a.Bundle()) || len(again.Bundle().X509Authorities()) != 2 {
		t.Error("a rotation isn't there after a restart")
	}
	if err := verify(issueAgent(t, again, time.Hour), a); err != nil {
		t.Errorf("issued after a restart: %v", err)
	}
	if err := again.Rotate(); err == nil {
		t.Error("a rotation begins while another is under way")
	}

	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the directory holds %v, %v; want one file", entries, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	open := func(id cluster.ID, dir string) error {
		_, err := OpenAuthority(AuthorityConfig{TrustDomain: mustDomain(t, id), RootConfig: RootConfig{Dir: dir}})
		return err
	}
	fresh := func() (string, string, []byte) {
		dir := t.TempDir()
		openAuthority(t, "east", dir)
		path := filepath.Join(dir, authorityFile)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return dir, path, data
	}

	dir, path, data := fresh()
	if err := open("west", dir); err == nil || !strings.Contains(err.Error(), "east.isles") && !strings.Contains(err.Error(), "west.isles") {
		t.Errorf("another cluster's directory: %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := open("east", dir); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that all may read: %v", err)
	}

	_, _, foreign := fresh()
	cert, _, _ := strings.Cut(string(data), "-----BEGIN PRIVATE")
	_, key, _ := strings.Cut(string(foreign), "-----BEGIN PRIVATE")
	for name, bad := range map[string]string{
		"empty":            "",
		"not PEM":          "hello",
		"cut short":        string(data[:len(data)/2]),
		"no key":           cert,
		"key of another":   cert + "-----BEGIN PRIVATE" + key,
		"rubbish at end":   string(data) + "rubbish",
		"larger than 1 MB": string(data) + strings.Repeat("\n", maxKeyringFile),
	} {
		dir, path, _ := fresh()
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := open("east", dir); err == nil {
			t.Errorf("%s: opened, want an error", name)
		} else if now, _ := os.ReadFile(path); string(now) != bad {
			t.Errorf("%s: the file was overwritten", name)
		}
	}
	if _, err := OpenAuthority(AuthorityConfig{TrustDomain: mustDomain(t, "east"), RootConfig: RootConfig{RootTTL: 24 * time.Hour, MaxTTL: 24 * time.Hour}}); err == nil {
		t.Error("a root that lives no longer than its leaves was accepted")
	}
}

// Over a year and more in which leaves are issued day by day, every leaf is
// valid under the bundle of its whole life, also for a reader that has the bundle
// late by no more than Ahead; and old roots do go.
func TestRotationOverlaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		const ahead = 3 * time.Hour
		a, err := OpenAuthority(AuthorityConfig{TrustDomain: mustDomain(t, "east"), RootConfig: RootConfig{
			Dir: t.TempDir(), RootTTL: 30 * 24 * time.Hour, MaxTTL: 24 * time.Hour, Ahead: ahead,
		}})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()

		first := a.Bundle()
		late := a.Bundle() // as a reader has it who is almost Ahead behind
		leaves := []*Credential{}
		seen := map[string]bool{}
		for range 100 * 8 {
			time.Sleep(ahead - time.Minute)
			now := a.Bundle()
			for _, c := range now.X509Authorities() {
				seen[string(c.Raw)] = true
			}
			if len(now.X509Authorities()) > 2 {
				t.Fatalf("%d roots at once", len(now.X509Authorities()))
			}
			leaf := issueAgent(t, a, 24*time.Hour)
			leaves = append(leaves, leaf)
			if err := verify(leaf, late); err != nil {
				t.Fatalf("a reader %s behind: %v", ahead-time.Minute, err)
			}
			for len(leaves) > 0 && leaves[0].expired(time.Now()) {
				leaves = leaves[1:]
			}
			for _, l := range leaves {
				if err := verify(l, now); err != nil {
					t.Fatalf("%v under the bundle of now: %v", l, err)
				}
			}
			late = now
		}
		if len(seen) < 4 {
			t.Errorf("%d roots in 100 days of 30-day roots", len(seen))
		}
		if a.Bundle().HasX509Authority(first.X509Authorities()[0]) {
			t.Error("the first root is still there")
		}
		// Of the keys only that which signs, or is to sign, is kept.
		k, err := a.roots.load()
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range k {
			if g.activeFrom.Before(k.signer(time.Now()).activeFrom) && g.key != nil {
				t.Error("the key of an old root is kept")
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestWatchBundle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := openAuthority(t, "east", "")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()
		b, changed := a.WatchBundle()
		if err := a.Rotate(); err != nil {
			t.Fatal(err)
		}
		<-changed
		counts := []int{len(b.X509Authorities())}
		for len(counts) < 3 {
			b, changed = a.WatchBundle()
			if n := len(b.X509Authorities()); n != counts[len(counts)-1] {
				counts = append(counts, n)
				continue
			}
			select {
			case <-changed:
			case <-time.After(48 * time.Hour):
				t.Fatalf("roots in the bundle went %v and then nobody was told", counts)
			}
		}
		if counts[1] != 2 || counts[2] != 1 {
			t.Errorf("roots in the bundle went %v, want 1, 2, 1", counts)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestSaveFails(t *testing.T) {
	dir := t.TempDir()
	a := openAuthority(t, "east", dir)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	before := a.Bundle()
	if err := a.Rotate(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("rotation without a disk: %v", err)
	}
	if !a.Bundle().Equal(before) {
		t.Error("a root that could not be saved is in the bundle")
	}
}

func TestParseBundle(t *testing.T) {
	east, west := openAuthority(t, "east", ""), openAuthority(t, "west", "")
	if err := east.Rotate(); err != nil {
		t.Fatal(err)
	}
	if b, err := ParseBundle(east.TrustDomain(), BundlePEM(east.Bundle())); err != nil || !b.Equal(east.Bundle()) {
		t.Errorf("round trip: %v", err)
	}
	leaf := issueAgent(t, east, time.Hour)
	for name, data := range map[string][]byte{
		"nothing":             nil,
		"another's root":      BundlePEM(west.Bundle()),
		"both":                BundlePEM(west.Bundle(), east.Bundle()),
		"a leaf":              leaf.CertPEM(),
		"a key":               leaf.KeyPEM(),
		"rubbish":             []byte("rubbish"),
		"more than the bound": []byte(strings.Repeat(string(BundlePEM(east.Bundle())), 9)),
	} {
		if _, err := ParseBundle(east.TrustDomain(), data); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
