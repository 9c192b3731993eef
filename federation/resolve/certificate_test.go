package resolve

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

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
