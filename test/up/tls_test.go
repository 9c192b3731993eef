package up_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// issuer is a certificate authority of a story.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// authority NAME makes a certificate authority, and NAME.pem of its certificate.
func (s *story) authority(neg bool, args []string) {
	s.plain(neg, "authority", len(args) == 1)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: args[0]},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.Check(err)
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	s.Check(err)
	cert, err := x509.ParseCertificate(der)
	s.Check(err)
	if s.issuers == nil {
		s.issuers = map[string]issuer{}
	}
	s.issuers[args[0]] = issuer{cert, key}
	s.write(args[0]+".pem", pemOf("CERTIFICATE", der))
}

// certificate AUTHORITY NAME DNSNAME... issues NAME.pem and NAME-key.pem, for servers
// and for clients.
func (s *story) certificate(neg bool, args []string) {
	s.plain(neg, "certificate", len(args) >= 3)
	ca, ok := s.issuers[args[0]]
	s.plain(neg, "certificate", ok)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	s.Check(err)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: args[1]}, DNSNames: args[2:],
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(12 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.Check(err)
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, &key.PublicKey, ca.key)
	s.Check(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	s.Check(err)
	s.write(args[1]+".pem", pemOf("CERTIFICATE", der))
	s.write(args[1]+"-key.pem", pemOf("PRIVATE KEY", private))
}

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// tls-secret FILE NAMESPACE/NAME CERTIFICATE writes the Secret of a certificate.
func (s *story) tlsSecret(neg bool, args []string) {
	s.plain(neg, "tls-secret", len(args) == 3)
	ns, name, _ := strings.Cut(args[1], "/")
	text := func(file string) string { return base64.StdEncoding.EncodeToString([]byte(s.ReadFile(file))) }
	s.write(args[0], fmt.Sprintf(`apiVersion: v1
kind: Secret
metadata: {name: %s, namespace: %s}
type: kubernetes.io/tls
data:
  tls.crt: %s
  tls.key: %s
`, name, ns, text(args[2]+".pem"), text(args[2]+"-key.pem")))
}

// ca-configmap FILE NAMESPACE/NAME AUTHORITY writes the ConfigMap of an authority.
func (s *story) caConfigMap(neg bool, args []string) {
	s.plain(neg, "ca-configmap", len(args) == 3)
	ns, name, _ := strings.Cut(args[1], "/")
	s.write(args[0], fmt.Sprintf(`apiVersion: v1
kind: ConfigMap
metadata: {name: %s, namespace: %s}
data:
  ca.crt: |
    %s
`, name, ns, strings.ReplaceAll(strings.TrimSpace(s.ReadFile(args[2]+".pem")), "\n", "\n    ")))
}
