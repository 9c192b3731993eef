package embedded

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// files are the paths of the TLS material, which etcd wants in files.
type files struct{ ca, cert, key, peerCert, peerKey string }

// writeFiles writes the TLS material into the data directory, readable by its
// owner alone. The peer port gets a fresh certificate that is its own and only
// CA: a client's certificate is not enough to speak raft to this member.
func (s *Server) writeFiles() (files, error) {
	dir := filepath.Join(s.cfg.Dir, "tls")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return files{}, err
	}
	peerCert, peerKey, err := peerCertificate()
	if err != nil {
		return files{}, fmt.Errorf("certificate of the peer port: %w", err)
	}
	var f files
	for _, w := range []struct {
		path *string
		name string
		data []byte
	}{
		{&f.ca, "ca.pem", s.cfg.CA},
		{&f.cert, "server.pem", s.cfg.Cert},
		{&f.key, "server-key.pem", s.cfg.Key},
		{&f.peerCert, "peer.pem", peerCert},
		{&f.peerKey, "peer-key.pem", peerKey},
	} {
		*w.path = filepath.Join(dir, w.name)
		// A file of a former run may have another mode, which WriteFile would keep.
		if err := os.Remove(*w.path); err != nil && !os.IsNotExist(err) {
			return files{}, err
		}
		if err := os.WriteFile(*w.path, w.data, 0o600); err != nil {
			return files{}, err
		}
	}
	return f, nil
}

func peerCertificate() (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber:          big.NewInt(now.UnixNano()),
		Subject:               pkix.Name{CommonName: "causeway embedded etcd peer"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.AddDate(10, 0, 0),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}
