package resolve

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
)

// NewCertificate takes a certificate chain and its private key as PEM, as the
// Secret of that name holds them. The error says why they can't be used together.
func NewCertificate(namespace, name string, certPEM, keyPEM []byte) (*Certificate, error) {
	if _, err := tls.X509KeyPair(certPEM, keyPEM); err != nil {
		return nil, fmt.Errorf("no certificate with its key is in Secret %s/%s: %w", namespace, name, err)
	}
	key := bytes.Clone(keyPEM)
	return &Certificate{Namespace: namespace, Name: name, cert: bytes.Clone(certPEM), key: &key}, nil
}

// PEM gives the chain and the private key. The caller must change neither, nor
// let the key appear anywhere but in an Envoy's Secret.
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
