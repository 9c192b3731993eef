package echo

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"math/big"
	"slices"
	"time"
)

func base64Text(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// selfSigned is how long a certificate of our own making lasts: longer than any trial.
const selfSigned = 10 * 365 * 24 * time.Hour

// SelfSigned makes a certificate for names that nobody vouches for.
func SelfSigned(names []string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "causeway built-in workload"}, DNSNames: names,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(selfSigned),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// tlsConfig is that of one connection. It asks for a client's certificate and
// takes any, and speaks whatever the client wants to inside.
func (s *Server) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			cert, err := s.certificate()
			if err != nil {
				return nil, err
			}
			return &tls.Config{
				MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*cert}, ClientAuth: tls.RequestClientCert,
				NextProtos: nextProtos(hello.SupportedProtos), SessionTicketsDisabled: true,
			}, nil
		},
	}
}

// nextProtos takes HTTP if the client offers it, else whatever it offers.
func nextProtos(offered []string) []string {
	ours := []string{"h2", "http/1.1"}
	if slices.ContainsFunc(offered, func(p string) bool { return slices.Contains(ours, p) }) {
		return ours
	}
	return offered
}

// certificate is the one that the settings give, else one of our own for their names.
func (s *Server) certificate() (*tls.Certificate, error) {
	set := s.settings.Load()
	if set.Certificate != nil {
		return set.Certificate, nil
	}
	s.own.Lock()
	defer s.own.Unlock()
	if s.own.cert == nil || !slices.Equal(s.own.names, set.Names) {
		cert, err := SelfSigned(set.Names)
		if err != nil {
			return nil, err
		}
		s.own.cert, s.own.names = cert, set.Names
	}
	return s.own.cert, nil
}
