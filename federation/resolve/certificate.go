package resolve

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// NewCertificate takes a certificate chain and its private key as PEM, as the
// Secret of that name holds them. The error says why they can't be used together.
func NewCertificate(namespace, name string, certPEM, keyPEM []byte) (*Certificate, error) {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err == nil {
		err = showable(pair)
	}
	if err != nil {
		return nil, fmt.Errorf("no certificate with its key is in Secret %s/%s: %w", namespace, name, err)
	}
	key := bytes.Clone(keyPEM)
	return &Certificate{Namespace: namespace, Name: name, cert: bytes.Clone(certPEM), key: &key}, nil
}

// minRSA is the least length of RSA keys, in bits, with which Envoy ends TLS.
const minRSA = 2048

// mustStaple is the extension by which a certificate asks for OCSP (RFC 7633).
var mustStaple = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}

// showable tells why Envoy would not take a certificate that fits its key. One that it
// does not take would hold up every listener of the port.
func showable(pair tls.Certificate) error {
	for i, der := range pair.Certificate {
		if _, err := x509.ParseCertificate(der); err != nil {
			return fmt.Errorf("tls.crt: certificate %d of the chain can't be read: %w", i, err)
		}
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return err
	}
	switch key := leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n < minRSA {
			return fmt.Errorf("its RSA key has %d bits: use one of %d at least, or ECDSA", n, minRSA)
		}
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() && key.Curve != elliptic.P384() && key.Curve != elliptic.P521() {
			return fmt.Errorf("its ECDSA key is on curve %s: use P-256, P-384 or P-521", key.Params().Name)
		}
	}
	if leaf.Subject.CommonName == "" && len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.URIs)+len(leaf.EmailAddresses) == 0 {
		return errors.New("it names nobody: it needs a subjectAltName or a common name")
	}
	for _, e := range leaf.Extensions {
		if e.Id.Equal(mustStaple) {
			return errors.New("it asks for OCSP stapling (must-staple), which Gateways don't do: use one without")
		}
	}
	return nil
}

// PEM gives the chain and the private key. The caller must change neither, nor
// let the key appear anywhere but in an Envoy's Secret, and sealed for another cluster.
func (c *Certificate) PEM() (cert, key []byte) { return c.cert, *c.key }

// Equal reports whether both are the same Secret with the same content.
func (c *Certificate) Equal(o *Certificate) bool {
	if c == nil || o == nil {
		return c == o
	}
	return c.Namespace == o.Namespace && c.Name == o.Name && bytes.Equal(c.cert, o.cert) && bytes.Equal(*c.key, *o.key)
}

// String names the Secret.
func (c Certificate) String() string {
	return "Secret " + c.Namespace + "/" + c.Name + " (private key hidden)"
}

// GoString is String.
func (c Certificate) GoString() string { return c.String() }

// Format is String for every verb.
func (c Certificate) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// LogValue is String.
func (c Certificate) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText is String.
func (c Certificate) MarshalText() ([]byte, error) { return []byte(c.String()), nil }
