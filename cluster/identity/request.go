package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// maxCSR bounds a certificate request, maxChain the answer to one.
const (
	maxCSR   = 4 << 10
	maxChain = 64 << 10
)

// KeyRequest is a private key that never leaves this process, and the request to
// certify it. It redacts itself as a Credential does.
type KeyRequest struct{ p *keyRequest }

type keyRequest struct {
	key *ecdsa.PrivateKey
	csr []byte
	at  time.Time
}

// NewKeyRequest makes a key and its request. The request names nobody: who the
// bearer is, the certifier has to find out by other means.
func NewKeyRequest() (*KeyRequest, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return &KeyRequest{p: &keyRequest{key: key, csr: csr, at: time.Now()}}, nil
}

// CSR gives the request in DER. It is no secret.
func (k *KeyRequest) CSR() []byte { return k.p.csr }

// String shows nothing of the key.
func (k *KeyRequest) String() string { return "key request (key redacted)" }

// GoString is String.
func (k *KeyRequest) GoString() string { return k.String() }

// Credential joins the key with the certificate chain (PEM, leaf first) that was
// issued for it, and fails on one that is for another key, or no SVID of want.
func (k *KeyRequest) Credential(chainPEM []byte, want spiffeid.ID) (*Credential, error) {
	if len(chainPEM) > maxChain {
		return nil, fmt.Errorf("a certificate chain of %d bytes is longer than %d", len(chainPEM), maxChain)
	}
	var chain []*x509.Certificate
	for rest := chainPEM; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate chain: %w", err)
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, errors.New("certificate chain: no certificate in it")
	}
	if !k.p.key.PublicKey.Equal(chain[0].PublicKey) {
		return nil, errors.New("certificate chain: the certificate is for another key")
	}
	id, err := x509svid.IDFromCert(chain[0])
	if err != nil {
		return nil, fmt.Errorf("certificate chain: %w", err)
	}
	if id != want {
		return nil, fmt.Errorf("certificate chain: it is for %q, wanted %q", id, want)
	}
	return newCredential(id, chain, k.p.key, k.p.at), nil
}

// Certify makes an SVID for the key of a certificate request (DER), of which it
// believes the key alone. It gives the chain in PEM, leaf first.
func (a *Authority) Certify(req SVIDRequest, csr []byte) ([]byte, error) {
	chain, err := a.certify(req, csr)
	if err != nil {
		return nil, fmt.Errorf("certify SVID %q: %w", shorten(req.ID.String()), err)
	}
	return chain, nil
}

func (a *Authority) certify(req SVIDRequest, csr []byte) ([]byte, error) {
	if len(csr) > maxCSR {
		return nil, fmt.Errorf("a certificate request of %d bytes is longer than %d", len(csr), maxCSR)
	}
	parsed, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	if err := parsed.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	key, ok := parsed.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("certificate request: the key is not ECDSA P-256")
	}
	template, err := a.template(req)
	if err != nil {
		return nil, err
	}
	ttl, err := a.roots.complete(&template, req.TTL, req.DNSNames, req.IPs)
	if err != nil {
		return nil, err
	}
	k, _ := a.roots.current()
	cert, err := k.certify(template, key, time.Now(), ttl)
	if err != nil {
		return nil, err
	}
	return bytes.Clone(encodeCerts([]*x509.Certificate{cert})), nil
}
