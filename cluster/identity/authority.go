package identity

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// maxSANs bounds the DNS names and the addresses of a certificate, each.
const maxSANs = 64

// AuthorityConfig makes an Authority.
type AuthorityConfig struct {
	TrustDomain spiffeid.TrustDomain
	RootConfig
}

// Authority is the certificate authority of one trust domain. It issues X.509
// SVIDs of that domain and of no other.
type Authority struct {
	td    spiffeid.TrustDomain
	roots *roots
}

// authorityFile is the name of an Authority's file in its directory.
const authorityFile = "authority.pem"

// OpenAuthority loads the authority that is kept in cfg.Dir, or makes it. It
// fails when the file there is damaged, is readable by others, or belongs to
// another trust domain.
func OpenAuthority(cfg AuthorityConfig) (*Authority, error) {
	if cfg.TrustDomain.IsZero() {
		return nil, errors.New("authority without a trust domain")
	}
	td := cfg.TrustDomain
	template := x509.Certificate{
		Subject: rootSubject(shortenName(td.Name())),
		URIs:    []*url.URL{td.ID().URL()},
		// Only URIs are constrained: the DNS names and addresses in an SVID are for
		// clients like grpcurl that know no SPIFFE, and name no workload.
		PermittedDNSDomainsCritical: true,
		PermittedURIDomains:         []string{td.Name()},
	}
	r, err := openRoots(cfg.RootConfig, authorityFile, td.Name(), template, func(c *x509.Certificate) error {
		if len(c.URIs) != 1 || c.URIs[0].String() != td.IDString() {
			return fmt.Errorf("the root there is not that of trust domain %s: give each cluster a directory of its own", td.Name())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &Authority{td: td, roots: r}, nil
}

// TrustDomain names the trust domain.
func (a *Authority) TrustDomain() spiffeid.TrustDomain { return a.td }

// SVIDRequest says what Issue is to certify.
type SVIDRequest struct {
	ID spiffeid.ID
	// TTL is the life of the SVID, MinTTL to the authority's MaxTTL; 0 means
	// MaxTTL. It is cut short where the root expires earlier.
	TTL time.Duration
	// DNSNames and IPs are for clients that know no SPIFFE; at most 64 each.
	DNSNames []string
	IPs      []netip.Addr
}

// Issue makes a key and an SVID for it. It refuses ids of other trust domains,
// and ids that Parse refuses.
func (a *Authority) Issue(req SVIDRequest) (*Credential, error) {
	c, err := a.issue(req)
	if err != nil {
		return nil, fmt.Errorf("issue SVID %q: %w", shorten(req.ID.String()), err)
	}
	return c, nil
}

func (a *Authority) issue(req SVIDRequest) (*Credential, error) {
	template, err := a.template(req)
	if err != nil {
		return nil, err
	}
	return a.roots.issue(req.ID, template, req.TTL, req.DNSNames, req.IPs)
}

// template is that of an SVID of this trust domain.
func (a *Authority) template(req SVIDRequest) (x509.Certificate, error) {
	if req.ID.TrustDomain() != a.td {
		return x509.Certificate{}, fmt.Errorf("this authority is that of trust domain %s alone", a.td.Name())
	}
	if _, err := Parse(req.ID); err != nil {
		return x509.Certificate{}, err
	}
	return x509.Certificate{
		URIs:        []*url.URL{req.ID.URL()},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, nil
}

// issue completes a leaf's template and certifies it with a new key.
func (r *roots) issue(id spiffeid.ID, template x509.Certificate, ttl time.Duration, names []string, ips []netip.Addr) (*Credential, error) {
	ttl, err := r.complete(&template, ttl, names, ips)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	k, _ := r.current()
	cert, key, err := k.issue(template, now, ttl)
	if err != nil {
		return nil, err
	}
	return newCredential(id, []*x509.Certificate{cert}, key, now), nil
}

// complete checks what is asked for and puts it into a leaf's template.
func (r *roots) complete(template *x509.Certificate, ttl time.Duration, names []string, ips []netip.Addr) (time.Duration, error) {
	if ttl == 0 {
		ttl = r.cfg.MaxTTL
	}
	if ttl < MinTTL || ttl > r.cfg.MaxTTL {
		return 0, fmt.Errorf("life of %s is not within %s to %s", ttl, MinTTL, r.cfg.MaxTTL)
	}
	if len(names) > maxSANs || len(ips) > maxSANs {
		return 0, fmt.Errorf("%d DNS names and %d addresses: at most %d of each", len(names), len(ips), maxSANs)
	}
	for _, n := range names {
		if len(n) > 253 || !validDomain(strings.TrimPrefix(n, "*.")) {
			return 0, fmt.Errorf("%q is not a DNS name", shorten(n))
		}
		template.DNSNames = append(template.DNSNames, n)
	}
	for _, ip := range ips {
		if !ip.IsValid() {
			return 0, errors.New("an IP address is not valid")
		}
		template.IPAddresses = append(template.IPAddresses, ip.Unmap().AsSlice())
	}
	return ttl, nil
}

// Bundle gives the roots that verifiers of this trust domain must accept now.
// The caller owns it.
func (a *Authority) Bundle() *x509bundle.Bundle {
	b, _ := a.WatchBundle()
	return b
}

// WatchBundle gives the bundle and a channel that is closed when it may have
// changed, as long as Run runs.
func (a *Authority) WatchBundle() (*x509bundle.Bundle, <-chan struct{}) {
	k, changed := a.roots.current()
	return x509bundle.FromX509Authorities(a.td, k.trusted(time.Now())), changed
}

// GetX509BundleForTrustDomain makes an Authority the x509bundle.Source of its own trust domain.
func (a *Authority) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	if td != a.td {
		return nil, fmt.Errorf("no bundle of trust domain %q here", td.Name())
	}
	return a.Bundle(), nil
}

// Rotate makes a new root. It is in the bundle at once, signs after the
// configured Ahead, and the old one leaves the bundle when its last leaf has
// expired. It fails while an earlier rotation hasn't come to signing.
func (a *Authority) Rotate() error { return a.roots.rotate() }

// Reload takes over what another process has saved in the Storage that both share.
func (a *Authority) Reload() error { return a.roots.reload() }

// Run rotates roots in time and tells watchers of the bundle, until ctx ends.
// Once at a time; a CA kept in one directory, or in one Storage, is run by one process.
func (a *Authority) Run(ctx context.Context) error { return a.roots.run(ctx) }

// StoreAuthorityConfig makes a StoreAuthority.
type StoreAuthorityConfig struct {
	// Clusterset names the clusterset whose store this is; it shows in the root's subject alone.
	Clusterset string
	RootConfig
}

// StoreAuthority is the plain CA of the store: etcd takes a client
// certificate's common name for the user, and knows no SPIFFE. Nothing but etcd
// and its clients may trust it.
type StoreAuthority struct {
	roots *roots
}

const storeAuthorityFile = "store-authority.pem"

// OpenStoreAuthority loads the authority that is kept in cfg.Dir, or makes it.
func OpenStoreAuthority(cfg StoreAuthorityConfig) (*StoreAuthority, error) {
	if _, err := ClustersetDomain(cfg.Clusterset); err != nil {
		return nil, err
	}
	subject := rootSubject(shortenName("store of " + cfg.Clusterset))
	r, err := openRoots(cfg.RootConfig, storeAuthorityFile, "the store of "+cfg.Clusterset, x509.Certificate{Subject: subject}, func(c *x509.Certificate) error {
		if c.Subject.CommonName != subject.CommonName {
			return fmt.Errorf("the root there is %q, not %q", shorten(c.Subject.CommonName), subject.CommonName)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &StoreAuthority{roots: r}, nil
}

// IssueServer certifies an etcd member under the names and addresses that its
// clients and peers dial. It is good for client authentication too, since etcd's
// own gateway and peers present it, and has no common name, so it is no user.
func (a *StoreAuthority) IssueServer(ttl time.Duration, names []string, ips []netip.Addr) (*Credential, error) {
	if len(names)+len(ips) == 0 {
		return nil, errors.New("issue certificate of the store's server: give at least one DNS name or address")
	}
	c, err := a.roots.issue(spiffeid.ID{}, x509.Certificate{
		Subject:     pkix.Name{Organization: []string{"Causeway store"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, ttl, names, ips)
	if err != nil {
		return nil, fmt.Errorf("issue certificate of the store's server: %w", err)
	}
	return c, nil
}

// IssueClient certifies the etcd user of that name, 1 to 128 letters, digits,
// ':', '.', '_' and '-'. (Common names of more than 64 bytes are beyond X.520, but
// both sides are Go, which takes them.)
func (a *StoreAuthority) IssueClient(ttl time.Duration, user string) (*Credential, error) {
	if !storeUserName.MatchString(user) {
		return nil, fmt.Errorf("issue certificate of store user %q: use 1 to 128 letters, digits, ':', '.', '_' and '-', the first a letter or digit", shorten(user))
	}
	c, err := a.roots.issue(spiffeid.ID{}, x509.Certificate{
		Subject:     pkix.Name{CommonName: user},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, ttl, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("issue certificate of store user %q: %w", user, err)
	}
	return c, nil
}

// BundlePEM gives the roots that clients and members of the store must accept
// now, and a channel that is closed when they may have changed, as long as Run runs.
func (a *StoreAuthority) BundlePEM() ([]byte, <-chan struct{}) {
	k, changed := a.roots.current()
	return encodeCerts(k.trusted(time.Now())), changed
}

// Rotate is Authority.Rotate.
func (a *StoreAuthority) Rotate() error { return a.roots.rotate() }

// Run is Authority.Run.
func (a *StoreAuthority) Run(ctx context.Context) error { return a.roots.run(ctx) }

// shortenName cuts a common name to X.520's bound of 64.
func shortenName(s string) string {
	return s[:min(len(s), 64)]
}
