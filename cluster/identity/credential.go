package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Credential is a leaf certificate with its private key: an X.509 SVID, or a
// certificate for etcd. Immutable. It redacts itself however it is printed; only
// the methods named for it give the key away.
type Credential struct {
	// p leads to the key by two pointers, so that printing a struct that holds a
	// Credential in an unexported field shows an address, never the key: fmt calls
	// no methods there, and follows one pointer where the verb doesn't suit pointers.
	p *credential
}

type credential struct {
	id     spiffeid.ID // zero in certificates for etcd
	chain  []*x509.Certificate
	key    *ecdsa.PrivateKey
	issued time.Time
}

func newCredential(id spiffeid.ID, chain []*x509.Certificate, key *ecdsa.PrivateKey, issued time.Time) *Credential {
	return &Credential{p: &credential{id: id, chain: chain, key: key, issued: issued}}
}

// ID gives the SPIFFE id, zero for a certificate that is no SVID.
func (c *Credential) ID() spiffeid.ID { return c.p.id }

// Leaf gives the certificate. Shared: don't modify it.
func (c *Credential) Leaf() *x509.Certificate { return c.p.chain[0] }

// NotAfter is when the certificate expires.
func (c *Credential) NotAfter() time.Time { return c.p.chain[0].NotAfter }

// RenewAt is when two thirds of the lifetime are over.
func (c *Credential) RenewAt() time.Time {
	return c.p.issued.Add(c.p.chain[0].NotAfter.Sub(c.p.issued) * 2 / 3)
}

// CertPEM gives the chain in PEM, leaf first, without the root.
func (c *Credential) CertPEM() []byte {
	var b bytes.Buffer
	for _, cert := range c.p.chain {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	}
	return b.Bytes()
}

// KeyPEM gives the private key, PKCS#8 in PEM. Secret.
func (c *Credential) KeyPEM() []byte {
	der, err := x509.MarshalPKCS8PrivateKey(c.p.key)
	if err != nil {
		panic(fmt.Sprintf("identity: a P-256 key that this package made can't be encoded: %v", err))
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// TLSCertificate gives the credential in the form that crypto/tls takes. Secret.
func (c *Credential) TLSCertificate() tls.Certificate {
	t := tls.Certificate{PrivateKey: c.p.key, Leaf: c.p.chain[0]}
	for _, cert := range c.p.chain {
		t.Certificate = append(t.Certificate, cert.Raw)
	}
	return t
}

// GetX509SVID makes a Credential an x509svid.Source. It fails on a certificate
// that is no SVID. Secret: the result doesn't redact itself.
func (c *Credential) GetX509SVID() (*x509svid.SVID, error) {
	if c.p.id.IsZero() {
		return nil, errors.New("certificate is not a SPIFFE SVID")
	}
	return &x509svid.SVID{ID: c.p.id, Certificates: c.p.chain, PrivateKey: c.p.key}, nil
}

// String names the subject and the expiry, never the key.
func (c Credential) String() string {
	if c.p == nil {
		return "no credential"
	}
	who := c.p.id.String()
	if c.p.id.IsZero() {
		who = "CN=" + c.p.chain[0].Subject.CommonName
	}
	return fmt.Sprintf("%s until %s (key redacted)", who, c.p.chain[0].NotAfter.UTC().Format(time.RFC3339))
}

// GoString is String.
func (c Credential) GoString() string { return c.String() }

// Format prints String whatever the verb.
func (c Credential) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// LogValue is String.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText is String, for JSON and YAML alike.
func (c Credential) MarshalText() ([]byte, error) { return []byte(c.String()), nil }
