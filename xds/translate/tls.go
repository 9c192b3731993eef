package translate

import (
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

// tls12 is what Gateways offer clients, and ask of backends, at least: TLS 1.2 with
// the cipher suites that keep what was said secret later (RFC 9325).
func tls12() *tlsv3.TlsParameters {
	return &tlsv3.TlsParameters{
		TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
	}
}

// listenerTLS ends clients' TLS at a Gateway's listener. Certificates and client
// authorities come as secrets: a new certificate changes no listener.
func listenerTLS(l *resolve.Listener, alpn []string) *corev3.TransportSocket {
	common := &tlsv3.CommonTlsContext{TlsParams: tls12(), AlpnProtocols: alpn}
	for _, c := range l.TLS.Certificates {
		common.TlsCertificateSdsSecretConfigs = append(common.TlsCertificateSdsSecretConfigs, &tlsv3.SdsSecretConfig{Name: certificateName(c), SdsConfig: ads()})
	}
	out := &tlsv3.DownstreamTlsContext{CommonTlsContext: common}
	if len(l.TLS.ClientCAs) > 0 {
		out.RequireClientCertificate = yes()
		if l.TLS.AllowInsecure {
			out.RequireClientCertificate = no()
		}
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{
			ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: clientsName(l), SdsConfig: ads()},
		}
	}
	return &corev3.TransportSocket{Name: transportTLS, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(out)}}
}

// listenerSecrets are what listenerTLS refers to.
func listenerSecrets(subject string, l *resolve.Listener) []*Resource {
	var out []*Resource
	for _, c := range l.TLS.Certificates {
		out = append(out, certificateSecret(subject, c))
	}
	if len(l.TLS.ClientCAs) > 0 {
		v := &tlsv3.CertificateValidationContext{TrustedCa: inline(l.TLS.ClientCAs)}
		if l.TLS.AllowInsecure {
			v.TrustChainVerification = tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED
		}
		out = append(out, newResource(clientsName(l), subject, &tlsv3.Secret{Name: clientsName(l), Type: &tlsv3.Secret_ValidationContext{ValidationContext: v}}))
	}
	return out
}

func certificateSecret(subject string, c *resolve.Certificate) *Resource {
	cert, key := c.PEM()
	name := certificateName(c)
	return newResource(name, subject, &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{
		TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: inline(cert), PrivateKey: inline(key)},
	}})
}

// backendTLS reaches endpoints by TLS as a BackendTLSPolicy says (GEP-1897). client
// is what the proxy shows if asked, or nil. A policy that can't be obeyed trusts
// nobody: no request goes there. roots is the file with the system's authorities.
func backendTLS(t *resolve.BackendTLS, h2 bool, client *resolve.Certificate, roots string) *corev3.TransportSocket {
	v := &tlsv3.CertificateValidationContext{}
	match := func(kind tlsv3.SubjectAltNameMatcher_SanType, name string) {
		v.MatchTypedSubjectAltNames = append(v.MatchTypedSubjectAltNames, &tlsv3.SubjectAltNameMatcher{
			SanType: kind, Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: name}, IgnoreCase: kind == tlsv3.SubjectAltNameMatcher_DNS},
		})
	}
	switch {
	case t.Invalid != "" || len(t.CAs) == 0 && (!t.System || roots == ""):
		v.TrustedCa, v.VerifyCertificateHash = inline([]byte(nobodyCA)), []string{nobodyHash}
	case t.System:
		v.TrustedCa = &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: roots}}
	default:
		v.TrustedCa = inline(t.CAs)
	}
	for _, n := range t.DNSNames {
		match(tlsv3.SubjectAltNameMatcher_DNS, n)
	}
	for _, n := range t.URIs {
		match(tlsv3.SubjectAltNameMatcher_URI, n)
	}
	if len(v.MatchTypedSubjectAltNames) == 0 && t.Hostname != "" {
		match(tlsv3.SubjectAltNameMatcher_DNS, t.Hostname)
	}
	common := &tlsv3.CommonTlsContext{
		TlsParams:             tls12(),
		AlpnProtocols:         []string{"http/1.1"},
		ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: v},
	}
	if h2 {
		common.AlpnProtocols = []string{"h2"}
	}
	if client != nil {
		common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{{Name: certificateName(client), SdsConfig: ads()}}
	}
	return &corev3.TransportSocket{Name: transportTLS, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(&tlsv3.UpstreamTlsContext{
		Sni: t.Hostname, CommonTlsContext: common,
	})}}
}

// tlsOf finds how a cluster's endpoints are reached by TLS, nil for plain text.
func tlsOf(c *resolve.BackendConfig, g *resolve.EndpointGroup) *resolve.BackendTLS {
	i := slices.IndexFunc(c.TLS, func(t resolve.BackendTLS) bool { return t.Cluster == g.Cluster })
	if i < 0 || g.Crossing {
		return nil
	}
	return &c.TLS[i]
}
