package record

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// MaxCABytes bounds what crosses of a ConfigMap: some forty certificates.
const MaxCABytes = 64 << 10

var absoluteURI = regexp.MustCompile(`^[^:/?#]+://[^/?#]*[^?#]*(\?[^#]*)?(#.*)?$`)

func checkBackendTLSPolicy(s *gatewayv1.BackendTLSPolicySpec) error {
	if err := checkBounds(s); err != nil {
		return err
	}
	for i, t := range s.TargetRefs {
		if err := checkRef(string(t.Name), nil, nil); err != nil {
			return fmt.Errorf("spec.targetRefs[%d]: %w", i, err)
		}
	}
	v := &s.Validation
	if err := checkPrecise(&v.Hostname); err != nil {
		return fmt.Errorf("spec.validation: %w", err)
	}
	for i, r := range v.CACertificateRefs {
		if err := checkRef(string(r.Name), nil, nil); err != nil {
			return fmt.Errorf("spec.validation.caCertificateRefs[%d]: %w", i, err)
		}
	}
	// An unknown set of well-known certificates passes: the resolver reports it.
	if known := v.WellKnownCACertificates != nil && *v.WellKnownCACertificates != ""; known == (len(v.CACertificateRefs) > 0) {
		return fmt.Errorf("spec.validation needs one of caCertificateRefs and wellKnownCACertificates")
	}
	for i := range v.SubjectAltNames {
		if err := checkAltName(&v.SubjectAltNames[i]); err != nil {
			return fmt.Errorf("spec.validation.subjectAltNames[%d]: %w", i, err)
		}
	}
	return nil
}

func checkAltName(n *gatewayv1.SubjectAltName) error {
	switch {
	case n.Type == gatewayv1.HostnameSubjectAltNameType && n.URI == "":
		return checkHostname(string(n.Hostname))
	case n.Type == gatewayv1.URISubjectAltNameType && n.Hostname == "":
		if len(n.URI) > 253 || !absoluteURI.MatchString(string(n.URI)) {
			return fmt.Errorf("URI %q is not absolute", shorten(string(n.URI)))
		}
		return nil
	}
	return fmt.Errorf("type %q is not Hostname with a hostname alone, or URI with a uri alone", shorten(string(n.Type)))
}

// HasCA tells whether a ConfigMap has anything that could cross: certificates
// under CAKey.
func HasCA(v *corev1.ConfigMap) bool {
	return strings.Contains(certificates(v), "-----BEGIN CERTIFICATE-----")
}

// certificates reads CAKey where the resolver does: kubectl puts a file that isn't
// UTF-8 throughout into binaryData.
func certificates(v *corev1.ConfigMap) string {
	if text := v.Data[CAKey]; text != "" {
		return text
	}
	return string(v.BinaryData[CAKey])
}

// checkCA looks at the certificates that a ConfigMap gives away. Whether they are
// any good is the resolver's question, where the policy that names them is
// reported on; that no key goes with them is asked here.
func checkCA(v *corev1.ConfigMap) error {
	text := certificates(v)
	switch {
	case !HasCA(v):
		return fmt.Errorf("has no certificate in PEM in data[%s]", CAKey)
	case len(text) > MaxCABytes:
		return fmt.Errorf("data[%s] has %d bytes, at most %d are published: leave certificates out that no backend needs", CAKey, len(text), MaxCABytes)
	case strings.Contains(text, "PRIVATE KEY"):
		return fmt.Errorf("data[%s] holds a private key, which must not leave the cluster: keep certificates alone in it", CAKey)
	}
	for i := range len(text) {
		if c := text[i]; c < 0x20 && c != '\n' && c != '\r' && c != '\t' || c == 0x7f {
			return fmt.Errorf("data[%s] has control characters", CAKey)
		}
	}
	if !utf8.ValidString(text) {
		return fmt.Errorf("data[%s] is not UTF-8", CAKey)
	}
	return nil
}
