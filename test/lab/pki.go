package lab

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// lifetime is that of a lab's certificates.
const lifetime = 365 * 24 * time.Hour

// authority is a cluster's certificate authority. Its files are below dir.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newAuthority makes one and writes ca.crt and ca.key.
func newAuthority(dir, name string) (*authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	a := &authority{dir: dir}
	var err error
	if a.key, err = a.newKey("ca"); err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(lifetime),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("make the CA %s: %w", name, err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	return a, a.write("ca.crt", "CERTIFICATE", der)
}

func (a *authority) path(file string) string { return filepath.Join(a.dir, file) }

func (a *authority) write(file, kind string, der []byte) error {
	return os.WriteFile(a.path(file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// newKey makes a key and writes name.key and, for who checks signatures alone, name.pub.
func (a *authority) newKey(name string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key of %s: %w", name, err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := a.write(name+".key", "EC PRIVATE KEY", der); err != nil {
		return nil, err
	}
	if der, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
		return nil, err
	}
	return key, a.write(name+".pub", "PUBLIC KEY", der)
}

// issue makes a certificate for a client and, where hosts are given, a server, and
// writes name.crt and name.key. A host is a DNS name or an address.
func (a *authority) issue(name string, subject pkix.Name, hosts ...string) error {
	key, err := a.newKey(name)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if addr, err := netip.ParseAddr(h); err == nil {
			template.IPAddresses = append(template.IPAddresses, net.IP(addr.AsSlice()))
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("make the certificate of %s: %w", name, err)
	}
	return a.write(name+".crt", "CERTIFICATE", der)
}

// kubeconfig writes a kubeconfig for the user whose certificate is user.crt, with
// all that it refers to inside.
func (a *authority) kubeconfig(file, context, server, user string) error {
	var data [3][]byte
	for i, f := range []string{"ca.crt", user + ".crt", user + ".key"} {
		b, err := os.ReadFile(a.path(f))
		if err != nil {
			return err
		}
		data[i] = bytes.Clone(b)
	}
	return clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{context: {Server: server, CertificateAuthorityData: data[0]}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{context: {ClientCertificateData: data[1], ClientKeyData: data[2]}},
		Contexts:       map[string]*clientcmdapi.Context{context: {Cluster: context, AuthInfo: context}},
		CurrentContext: context,
	}, file)
}

// nodeSubject is whom the node authorizer and the node restriction know as that Node.
func nodeSubject(hostname string) pkix.Name {
	return pkix.Name{CommonName: "system:node:" + hostname, Organization: []string{"system:nodes"}}
}
