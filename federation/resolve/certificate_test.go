package resolve

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/causeway-mesh/causeway/federation/resolve/resolvetest"
)

// TestCertificatesHideTheirKeys: however a certificate, or what holds it, is
// printed, marshalled or logged, its private key does not come out.
func TestCertificatesHideTheirKeys(t *testing.T) {
	cert, key := resolvetest.PEM(t, "a.example.com")
	c, err := NewCertificate("app", "a", cert, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, k := c.PEM(); !bytes.Equal(k, key) {
		t.Fatal("the key is lost")
	}
	holders := []any{c, *c, []*Certificate{c}, []Certificate{*c}, &ListenerTLS{Certificates: []*Certificate{c}}, Gateway{ClientCertificate: c}, found{certificate: c}}
	var out strings.Builder
	log := slog.New(slog.NewJSONHandler(&out, nil))
	text := slog.New(slog.NewTextHandler(&out, nil))
	for _, h := range holders {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&out, verb+"\n", h)
		}
		raw, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(raw)
		log.Info("x", "holder", h)
		text.Info("x", "holder", h)
	}
	// The key as it is, and as %d, %x and base64 would write its beginning.
	for _, secret := range []string{string(key[30:60]), strings.Trim(fmt.Sprint(key[30:40]), "[]"), fmt.Sprintf("%x", key[30:60])} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("the key is shown: %q", secret)
		}
	}
	if raw, _ := json.Marshal(key[30:60]); strings.Contains(out.String(), strings.Trim(string(raw), `"=`)) {
		t.Error("the key is shown in base64")
	}
}

// TestCertificateRefusesStrangers: a certificate without its own key is none.
func TestCertificateRefusesStrangers(t *testing.T) {
	cert, key := resolvetest.PEM(t)
	for name, pair := range map[string][2][]byte{"no certificate": {nil, key}, "no key": {cert, nil}, "swapped": {key, cert}, "garbage": {[]byte("Hello world\n"), []byte("Hello world\n")}} {
		if _, err := NewCertificate("app", "a", pair[0], pair[1]); err == nil || !strings.Contains(err.Error(), "app/a") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCertificateRefusesWhatEnvoyDoes: what Go reads and Envoy doesn't is told of, for an
// Envoy that waits for a certificate serves no listener of the port.
func TestCertificateRefusesWhatEnvoyDoes(t *testing.T) {
	staple := pkix.Extension{Id: mustStaple, Value: []byte{0x30, 3, 2, 1, 5}}
	for name, c := range map[string]struct {
		key      crypto.Signer
		template x509.Certificate
		says     string // empty: it is good
	}{
		"RSA 1024":   {key: rsaKey(t, 1024), says: "its RSA key has 1024 bits"},
		"RSA 2048":   {key: rsaKey(t, 2048)},
		"P-224":      {key: ecKey(t, elliptic.P224()), says: "curve P-224"},
		"P-384":      {key: ecKey(t, elliptic.P384())},
		"P-521":      {key: ecKey(t, elliptic.P521())},
		"Ed25519":    {key: edKey(t)},
		"expired":    {key: ecKey(t, elliptic.P256()), template: x509.Certificate{NotAfter: time.Now().Add(-time.Hour)}},
		"nameless":   {key: ecKey(t, elliptic.P256()), template: x509.Certificate{Subject: pkix.Name{Organization: []string{"no name"}}}, says: "it names nobody"},
		"mustStaple": {key: ecKey(t, elliptic.P256()), template: x509.Certificate{ExtraExtensions: []pkix.Extension{staple}}, says: "OCSP"},
	} {
		if c.template.Subject.Organization == nil {
			c.template.DNSNames = []string{"a.example.com"}
		}
		cert, key := resolvetest.Sign(t, c.template, c.key)
		checkCertificate(t, name, cert, key, c.says)
	}
	cert, key := resolvetest.PEM(t, "a.example.com")
	checkCertificate(t, "garbage behind it", append(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("no certificate")})...), key, "certificate 1 of the chain can't be read")
}

func checkCertificate(t *testing.T, name string, cert, key []byte, says string) {
	t.Helper()
	switch _, err := NewCertificate("app", "a", cert, key); {
	case says == "" && err != nil:
		t.Errorf("%s: %v", name, err)
	case says != "" && (err == nil || !strings.Contains(err.Error(), says)):
		t.Errorf("%s: %v, should say %q", name, err, says)
	}
}

func rsaKey(t *testing.T, bits int) crypto.Signer {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func ecKey(t *testing.T, c elliptic.Curve) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func edKey(t *testing.T) crypto.Signer {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
