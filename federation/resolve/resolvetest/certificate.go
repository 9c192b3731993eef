package resolvetest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// certificate is a short way to write a Secret of type kubernetes.io/tls with a
// certificate that can be used. Its content differs from run to run.
type certificate struct {
	metav1.ObjectMeta `json:"metadata"`
	Hosts             []string `json:"hosts"`
}

// authority is a short way to write a ConfigMap with a certificate authority.
type authority struct {
	metav1.ObjectMeta `json:"metadata"`
}

var signingKey = sync.OnceValues(func() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) })

// Failer is what PEM and Sign need of a test, be it testing's or rapid's.
type Failer interface {
	Helper()
	Fatal(args ...any)
}

// PEM makes a self-signed certificate for the hosts, with its private key.
func PEM(t Failer, hosts ...string) (cert, key []byte) {
	t.Helper()
	k, err := signingKey()
	if err != nil {
		t.Fatal(err)
	}
	return Sign(t, x509.Certificate{Subject: pkix.Name{CommonName: "test"}, DNSNames: hosts,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true}, k)
}

// Sign makes a certificate of a template that is signed with its own key. One that does
// not say when it ends ends in an hour.
func Sign(t Failer, template x509.Certificate, key crypto.Signer) (certPEM, keyPEM []byte) {
	t.Helper()
	template.SerialNumber = big.NewInt(1)
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

func (c *certificate) secret(t testing.TB) *corev1.Secret {
	t.Helper()
	cert, key := PEM(t, c.Hosts...)
	return &corev1.Secret{ObjectMeta: c.ObjectMeta, Type: corev1.SecretTypeTLS, Data: map[string][]byte{corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key}}
}

func (a *authority) configMap(t testing.TB) *corev1.ConfigMap {
	t.Helper()
	cert, _ := PEM(t)
	return &corev1.ConfigMap{ObjectMeta: a.ObjectMeta, Data: map[string]string{"ca.crt": string(cert)}}
}
