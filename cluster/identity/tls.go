package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// SVIDSource gives the SVID to present; it is asked at each handshake. A
// Rotator and a Credential are ones.
type SVIDSource = x509svid.Source

// BundleSource gives the roots of a trust domain; it is asked at each
// handshake. A BundleSet is one, and an Authority for its own trust domain.
type BundleSource = x509bundle.Source

// Authorizer decides whether a peer whose certificate is genuine may connect.
// Its error goes to the log of this side, not to the peer.
type Authorizer func(Identity) error

// Exactly admits one id.
func Exactly(want spiffeid.ID) Authorizer {
	return func(got Identity) error {
		if id, err := got.ID(); err != nil || id != want {
			return fmt.Errorf("peer is %s, wanted %s", got, want)
		}
		return nil
	}
}

// Genuine admits every identity that is genuine: for servers that decide by
// request, with PeerIdentity.
func Genuine(Identity) error { return nil }

// String gives the id, or a description of one that isn't valid.
func (i Identity) String() string {
	id, err := i.ID()
	if err != nil {
		return fmt.Sprintf("no identity (%v)", err)
	}
	return id.String()
}

// ServerConfig makes a server that presents svid, requires a client certificate
// of a trust domain in bundles, and admits whom authorize admits. The xDS server
// and the query API use it; they must give NextProtos themselves where their
// library does not. The caller owns the result.
//
// TLS 1.2 is the least, since Envoy's upstream connections stay there by
// default. Session tickets are off: a client proves itself each time.
func ServerConfig(svid SVIDSource, bundles BundleSource, authorize Authorizer) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS12,
		ClientAuth:             tls.RequireAnyClientCert, // VerifyConnection verifies it
		SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return certificate(svid)
		},
		VerifyConnection: verifier(bundles, authorize, x509.ExtKeyUsageClientAuth),
	}
}

// OptionalServerConfig is ServerConfig for a server that also takes clients without a
// certificate, who must prove themselves by other means. A certificate that is shown
// must be good.
func OptionalServerConfig(svid SVIDSource, bundles BundleSource, authorize Authorizer) *tls.Config {
	cfg := ServerConfig(svid, bundles, authorize)
	cfg.ClientAuth = tls.RequestClientCert
	verify := cfg.VerifyConnection
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return nil
		}
		return verify(state)
	}
	return cfg
}

// AnyoneServerConfig makes a server that presents svid and takes clients without a
// certificate: they must prove themselves by other means.
func AnyoneServerConfig(svid SVIDSource) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate(svid) },
	}
}

// ClientConfig makes a client that presents svid and speaks to servers that
// authorize admits, by Exactly as a rule; DNS names and addresses don't matter.
// A nil svid presents none. The caller owns the result and may set ServerName
// for SNI.
func ClientConfig(svid SVIDSource, bundles BundleSource, authorize Authorizer) *tls.Config {
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS12,
		// Verification is by SPIFFE id, in VerifyConnection, instead of by host name.
		InsecureSkipVerify: true,
		VerifyConnection:   verifier(bundles, authorize, x509.ExtKeyUsageServerAuth),
	}
	if svid != nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return certificate(svid)
		}
	}
	return cfg
}

// PeerIdentity gives the identity of the peer of a connection that was made
// with ServerConfig or ClientConfig, whose handshake has verified it.
func PeerIdentity(state tls.ConnectionState) (Identity, error) {
	if len(state.PeerCertificates) == 0 {
		return Identity{}, errors.New("peer presented no certificate")
	}
	id, err := x509svid.IDFromCert(state.PeerCertificates[0])
	if err != nil {
		return Identity{}, fmt.Errorf("certificate of peer: %w", err)
	}
	return Parse(id)
}

// verifier checks the peer's SVID. It is a VerifyConnection, not a
// VerifyPeerCertificate, because the latter isn't called when a session resumes.
func verifier(bundles BundleSource, authorize Authorizer, usage x509.ExtKeyUsage) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		identity, err := PeerIdentity(state)
		if err != nil {
			return err
		}
		if err := verifySVID(state.PeerCertificates, identity.TrustDomain, bundles, usage); err != nil {
			return fmt.Errorf("certificate of %s: %w", identity, err)
		}
		return authorize(identity)
	}
}

func verifySVID(chain []*x509.Certificate, td spiffeid.TrustDomain, bundles BundleSource, usage x509.ExtKeyUsage) error {
	// The standard's rules for leaves, and the chain up to a root of td.
	if _, _, err := x509svid.Verify(chain, bundles); err != nil {
		return err
	}
	// That leaves out the extended key usage; RFC 5280, 4.2.1.12: if present, it binds.
	leaf := chain[0]
	if len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0 {
		return nil
	}
	for _, u := range leaf.ExtKeyUsage {
		if u == usage || u == x509.ExtKeyUsageAny {
			return nil
		}
	}
	return errors.New("its extended key usage is not that of this side of a connection")
}

func certificate(svid SVIDSource) (*tls.Certificate, error) {
	s, err := svid.GetX509SVID()
	if err != nil {
		return nil, err
	}
	c := &tls.Certificate{PrivateKey: s.PrivateKey, Leaf: s.Certificates[0]}
	for _, cert := range s.Certificates {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return c, nil
}

// StoreClientConfig makes the TLS side of a client of etcd. It asks for the
// certificate (a Rotator's Current, as a rule) and for the roots (BundlePEM of
// the StoreAuthority, or a file's) at each handshake, so both may rotate. Hosts
// are the names and addresses of the store's members: a server is genuine if its
// certificate is for one of them.
func StoreClientConfig(current func() (*Credential, error), rootsPEM func() []byte, hosts []string) (*tls.Config, error) {
	if len(hosts) == 0 {
		return nil, errors.New("TLS of the store's client: give the names of its members")
	}
	hosts = slices.Clone(hosts)
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			c, err := current()
			if err != nil {
				return nil, err
			}
			cert := c.TLSCertificate()
			return &cert, nil
		},
		// Instead of RootCAs, which can't change: VerifyConnection does it all.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			return verifyStore(state.PeerCertificates, rootsPEM(), hosts)
		},
	}, nil
}

func verifyStore(chain []*x509.Certificate, rootsPEM []byte, hosts []string) error {
	if len(chain) == 0 {
		return errors.New("the store's server presented no certificate")
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	if !roots.AppendCertsFromPEM(rootsPEM) {
		return errors.New("no root certificate of the store is known")
	}
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates}); err != nil {
		return fmt.Errorf("certificate of the store's server: %w", err)
	}
	for _, h := range hosts {
		if chain[0].VerifyHostname(h) == nil {
			return nil
		}
	}
	return fmt.Errorf("certificate of the store's server is for none of %q", hosts)
}

// expired reports whether the credential can't be presented any more.
func (c *Credential) expired(now time.Time) bool { return !now.Before(c.NotAfter()) }
