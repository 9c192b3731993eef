package translate

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// Identity is what a proxy proves who it is with: its SVID. Immutable. It never
// shows its key, however it is printed.
type Identity struct{ p *svid }

type svid struct {
	cert, key []byte
	err       error
}

// NewIdentity takes a certificate chain and its private key as PEM. That they
// belong together is checked when they are used: a bad identity becomes a Problem
// and a proxy without one.
func NewIdentity(certPEM, keyPEM []byte) *Identity {
	i := &svid{cert: bytes.Clone(certPEM), key: bytes.Clone(keyPEM)}
	if _, err := tls.X509KeyPair(i.cert, i.key); err != nil {
		i.err = fmt.Errorf("the identity can't be used: %w", err)
	}
	return &Identity{p: i}
}

// String tells that there is an identity, not which.
func (i Identity) String() string { return "identity (private key hidden)" }

// GoString is String.
func (i Identity) GoString() string { return i.String() }

// Format is String for every verb.
func (i Identity) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, i.String()) }

// LogValue is String.
func (i Identity) LogValue() slog.Value { return slog.StringValue(i.String()) }

// MarshalText is String.
func (i Identity) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// Bundles holds the authorities of all trust domains that are trusted. Immutable;
// make a new one only when something changed, for it is compared by pointer.
type Bundles struct {
	domains  []bundle // sorted by domain
	problems []Problem
}

type bundle struct {
	domain string
	pem    []byte
}

// NewBundles takes the authorities (DER) by trust domain, as
// federation.Snapshot.Trust gives them. What is no certificate is left out and
// reported.
func NewBundles(trust map[string][][]byte) *Bundles {
	b := &Bundles{}
	for domain, list := range trust {
		subject := "trust domain " + clip(domain)
		if !trustDomain(domain) {
			b.problems = append(b.problems, Problem{Subject: subject, Message: "is no trust domain's name"})
			continue
		}
		var certs [][]byte
		for i, der := range list {
			if _, err := x509.ParseCertificate(der); err != nil {
				b.problems = append(b.problems, Problem{Subject: subject, Message: fmt.Sprintf("authority %d is no certificate: %v", i, err)})
				continue
			}
			certs = append(certs, der)
		}
		if len(certs) == 0 {
			continue
		}
		slices.SortFunc(certs, bytes.Compare)
		var text bytes.Buffer
		for _, der := range slices.CompactFunc(certs, bytes.Equal) {
			_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // a Buffer never fails
		}
		b.domains = append(b.domains, bundle{domain, text.Bytes()})
	}
	slices.SortFunc(b.domains, func(x, y bundle) int { return strings.Compare(x.domain, y.domain) })
	sortProblems(b.problems)
	return b
}

func (b *Bundles) has(domain string) bool {
	if b == nil {
		return false
	}
	_, ok := slices.BinarySearchFunc(b.domains, domain, func(x bundle, d string) int { return strings.Compare(x.domain, d) })
	return ok
}

// trustDomain reports whether s is a name by the SPIFFE ID standard, section 2.1.
func trustDomain(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// anyProxy is the ids that crossing gateways let in: any proxy of any trusted domain.
const anyProxy = `spiffe://[^/]+/ns/[^/]+/proxy/[^/]+/[^/]+`

// nobodyHash is a certificate hash that no certificate has, and nobodyCA an
// authority whose key was thrown away when it was made: Envoy refuses to check
// names where there is no authority at all.
var nobodyHash = strings.Repeat("00", 32)

const nobodyCA = `-----BEGIN CERTIFICATE-----
MIIBbjCCARSgAwIBAgIBATAKBggqhkjOPQQDAjAcMRowGAYDVQQDExFub2JvZHkg
aXMgdHJ1c3RlZDAgFw0yNjAxMDEwMDAwMDBaGA85OTk5MTIzMTIzNTk1OVowHDEa
MBgGA1UEAxMRbm9ib2R5IGlzIHRydXN0ZWQwWTATBgcqhkjOPQIBBggqhkjOPQMB
BwNCAASE/DpBDUg61EAoKLSHe76MAavOG5eHXTon5Y2y024XY1KG/49BPi3BgYRp
eUT6qdJIcXmXbQ+IViDqUEvU8q5Io0UwQzAOBgNVHQ8BAf8EBAMCAgQwEgYDVR0T
AQH/BAgwBgEB/wIBADAdBgNVHQ4EFgQU/lRrgE2/XYWLK9CgSABoxSykldcwCgYI
KoZIzj0EAwIDSAAwRQIgBZZkSpw1nu9kcPIp/K52ycRCnacwa21eL6dp12OENrkC
IQDPbQMDWOUAQGRUGE57h3d97DRgqI6FVNnj58y8Jk3PzA==
-----END CERTIFICATE-----
`

// secrets translates a proxy's identity and whom it trusts. known lists the trust
// domains that clusters claim: those without authorities get a secret that trusts
// nobody, so that what refers to them is complete, and mended as soon as the
// authorities are there, without a change to anything but the secret.
func secrets(role Role, id *Identity, b *Bundles, known []string) ([]*Resource, []Problem) {
	var out []*Resource
	var problems []Problem
	switch {
	case id == nil || id.p == nil:
		problems = append(problems, Problem{Subject: nameIdentity, Message: "the proxy has no identity: it can neither enter other networks nor let others in"})
	case id.p.err != nil:
		problems = append(problems, Problem{Subject: nameIdentity, Message: id.p.err.Error()})
	default:
		out = append(out, newResource(nameIdentity, nameIdentity, &tlsv3.Secret{
			Name: nameIdentity,
			Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: inline(id.p.cert), PrivateKey: inline(id.p.key)}},
		}))
	}
	if b != nil {
		problems = append(problems, b.problems...)
	}
	if role == RoleCrossing {
		if b == nil || len(b.domains) == 0 {
			return out, append(problems, Problem{Subject: nameBundles, Message: "no trust domain has authorities: nobody can enter"})
		}
		out = append(out, newResource(nameBundles, nameBundles, &tlsv3.Secret{
			Name: nameBundles,
			Type: &tlsv3.Secret_ValidationContext{ValidationContext: spiffeValidation(b)},
		}))
	}
	all := slices.Clone(known)
	if b != nil {
		for _, d := range b.domains {
			all = append(all, d.domain)
		}
	}
	slices.Sort(all)
	for _, domain := range slices.Compact(all) {
		v := &tlsv3.CertificateValidationContext{TrustedCa: inline([]byte(nobodyCA)), VerifyCertificateHash: []string{nobodyHash}}
		if b.has(domain) {
			i, _ := slices.BinarySearchFunc(b.domains, domain, func(x bundle, d string) int { return strings.Compare(x.domain, d) })
			v = &tlsv3.CertificateValidationContext{TrustedCa: inline(b.domains[i].pem)}
		} else {
			problems = append(problems, Problem{Subject: "trust domain " + domain, Message: "has no authorities: its crossing gateways are not trusted"})
		}
		name := prefixBundle + domain
		out = append(out, newResource(name, "trust domain "+domain, &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_ValidationContext{ValidationContext: v}}))
	}
	return out, problems
}

// spiffeValidation checks each client against the authorities of its own trust
// domain, as SPIFFE asks: an authority of one domain can't speak for another.
func spiffeValidation(b *Bundles) *tlsv3.CertificateValidationContext {
	cfg := &tlsv3.SPIFFECertValidatorConfig{}
	for _, d := range b.domains {
		cfg.TrustDomains = append(cfg.TrustDomains, &tlsv3.SPIFFECertValidatorConfig_TrustDomain{Name: d.domain, TrustBundle: inline(d.pem)})
	}
	return &tlsv3.CertificateValidationContext{
		CustomValidatorConfig: &corev3.TypedExtensionConfig{Name: "envoy.tls.cert_validator.spiffe", TypedConfig: pack(cfg)},
		MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{
			SanType: tlsv3.SubjectAltNameMatcher_URI,
			Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: anyProxy}}},
		}},
	}
}

func inline(b []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
}
