package resolve

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
)

// caKey is where a ConfigMap holds its certificate authorities.
const caKey = "ca.crt"

// maxAuthorities bounds the PEM that one reference brings into a proxy.
const maxAuthorities = 512 << 10

// granted tells whether a ReferenceGrant in a namespace of one cluster lets objects
// of a kind and namespace refer to another.
func (r *reader) granted(id cluster.ID, from cluster.Kind, fromNamespace, group, kind, ns, name string) bool {
	for _, g := range r.grants(id, ns) {
		may := slices.ContainsFunc(g.Spec.From, func(f gatewayv1.ReferenceGrantFrom) bool {
			return string(f.Group) == gatewayv1.GroupName && string(f.Kind) == string(from) && string(f.Namespace) == fromNamespace
		})
		if may && slices.ContainsFunc(g.Spec.To, func(t gatewayv1.ReferenceGrantTo) bool {
			return string(t.Group) == group && string(t.Kind) == kind && (t.Name == nil || *t.Name == "" || string(*t.Name) == name)
		}) {
			return true
		}
	}
	return false
}

// kindText names a kind in a message.
func kindText(group, kind string) string {
	if group != "" {
		kind = group + "/" + kind
	}
	return clip(kind)
}

// found is what a reference to a Secret or ConfigMap leads to.
type found struct {
	certificate *Certificate
	authorities []byte // PEM
	problem     *problem
}

// certificate finds the certificate that an object of this cluster's view refers
// to: in a Secret of the cluster that runs the Gateway, which is this one; else in one
// that has come from the cluster where the object was written. The grants are those of the
// Secret's cluster. badRef is the reason for what can't be used.
func (r *reader) certificate(from *cluster.Object, ref gatewayv1.SecretObjectReference, badRef string) found {
	group, kind, ns, name := string(deref(ref.Group, "")), string(deref(ref.Kind, gatewayv1.Kind(cluster.KindSecret))), from.Namespace, string(ref.Name)
	if ref.Namespace != nil {
		ns = string(*ref.Namespace)
	}
	part := fmt.Sprintf("certificate %q %q %q %q by %s/%s", group, kind, ns, name, from.Kind, from.Namespace)
	if from.Cluster != r.local {
		part += " of " + string(from.Cluster)
	}
	kindOf, namespace, home := from.Kind, from.Namespace, from.Cluster
	f := r.sub(part, func(r *reader) any {
		no := func(reason, format string, a ...any) found {
			return found{problem: &problem{reason, fmt.Sprintf(format, a...)}}
		}
		if group != "" || kind != string(cluster.KindSecret) {
			return no("", "certificates of kind %s are not supported: use a Secret of the core group", kindText(group, kind))
		}
		o, owner := r.get(r.local, cluster.KindSecret, ns, name), r.local
		if o == nil && home != r.local {
			o, owner = r.get(home, cluster.KindSecret, ns, name), home
		}
		if ns != namespace && !r.granted(owner, kindOf, namespace, "", kind, ns, name) {
			return no(string(gatewayv1.ListenerReasonRefNotPermitted), "no ReferenceGrant in namespace %s of cluster %s lets %ss of namespace %s refer to Secret %s", ns, owner, kindOf, namespace, name)
		}
		switch {
		case o == nil && home != r.local:
			return no("", "there is no Secret %s/%s in cluster %s, and none has come from cluster %s: make one, or annotate that of cluster %s with %s to let it travel here", ns, name, r.local, home, home, cluster.AnnotationTravel)
		case o == nil:
			return no("", "there is no Secret %s/%s in cluster %s", ns, name, r.local)
		}
		s, _ := o.Value.(*corev1.Secret)
		c, err := NewCertificate(ns, name, s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey])
		if err != nil {
			return no("", "%v", err)
		}
		return found{certificate: c}
	}).(found)
	if f.problem != nil && f.problem.reason == "" {
		f.problem = &problem{badRef, f.problem.message}
	}
	return f
}

// authorities reads the certificate authorities of a ConfigMap of a cluster.
func (r *reader) authorities(id cluster.ID, ns, name string) ([]byte, error) {
	o := r.get(id, cluster.KindConfigMap, ns, name)
	if o == nil {
		return nil, fmt.Errorf("there is no ConfigMap %s/%s in cluster %s", ns, name, id)
	}
	m, _ := o.Value.(*corev1.ConfigMap)
	raw := []byte(m.Data[caKey])
	if len(raw) == 0 {
		raw = m.BinaryData[caKey]
	}
	if len(raw) > maxAuthorities {
		return nil, fmt.Errorf("%s of ConfigMap %s/%s has %d bytes: at most %d are taken", caKey, ns, name, len(raw), maxAuthorities)
	}
	return readAuthorities(raw, ns, name)
}

// readAuthorities gives the certificates of a PEM bundle, and those alone.
func readAuthorities(raw []byte, ns, name string) ([]byte, error) {
	var out bytes.Buffer
	for len(raw) > 0 {
		var block *pem.Block
		if block, raw = pem.Decode(raw); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("%s of ConfigMap %s/%s holds a certificate that can't be read: %w", caKey, ns, name, err)
		}
		_ = pem.Encode(&out, &pem.Block{Type: block.Type, Bytes: block.Bytes})
	}
	if out.Len() == 0 {
		return nil, fmt.Errorf("ConfigMap %s/%s holds no certificate as PEM under %s", ns, name, caKey)
	}
	return out.Bytes(), nil
}

// clientAuthorities finds the authorities that a Gateway's frontend validation
// refers to.
func (r *reader) clientAuthorities(from *cluster.Object, ref gatewayv1.ObjectReference) found {
	group, kind, ns, name := string(ref.Group), string(ref.Kind), from.Namespace, string(ref.Name)
	if ref.Namespace != nil {
		ns = string(*ref.Namespace)
	}
	part := fmt.Sprintf("authorities %q %q %q %q by %s", group, kind, ns, name, from.Namespace)
	namespace := from.Namespace
	return r.sub(part, func(r *reader) any {
		no := func(reason gatewayv1.ListenerConditionReason, format string, a ...any) found {
			return found{problem: &problem{string(reason), fmt.Sprintf(format, a...)}}
		}
		if group != "" || kind != string(cluster.KindConfigMap) {
			return no(gatewayv1.ListenerReasonInvalidCACertificateKind, "authorities of kind %s are not supported: use a ConfigMap of the core group", kindText(group, kind))
		}
		if ns != namespace && !r.granted(r.local, cluster.KindGateway, namespace, "", kind, ns, name) {
			return no(gatewayv1.ListenerReasonRefNotPermitted, "no ReferenceGrant in namespace %s of cluster %s lets Gateways of namespace %s refer to ConfigMap %s", ns, r.local, namespace, name)
		}
		pem, err := r.authorities(r.local, ns, name)
		if err != nil {
			return no(gatewayv1.ListenerReasonInvalidCACertificateRef, "%v", err)
		}
		return found{authorities: pem}
	}).(found)
}

// validationOf finds the frontend validation for a port: that of the port, else
// the default; nil for none.
func validationOf(g *gatewayView, port int32) *gatewayv1.FrontendTLSValidation {
	t := g.spec.Spec.TLS
	if t == nil || t.Frontend == nil {
		return nil
	}
	for i := range t.Frontend.PerPort {
		if p := &t.Frontend.PerPort[i]; p.Port == port {
			return p.TLS.Validation
		}
	}
	return t.Frontend.Default.Validation
}

// secure reads what a listener needs to terminate TLS. A listener with one good
// certificate of several works with that one.
func (r *reader) secure(g *gatewayView, l *placed) {
	if !l.terminates || l.refused != nil {
		return
	}
	note := func(p *problem, where string) {
		if l.unresolved == nil {
			l.unresolved = &problem{reason: p.reason}
		}
		if l.unresolved.reason == p.reason {
			l.unresolved.message = joinMessage(l.unresolved.message, where+": "+p.message)
		}
	}
	l.tls = &ListenerTLS{}
	for i, ref := range l.refs {
		f := r.certificate(l.parent.obj, ref, string(gatewayv1.ListenerReasonInvalidCertificateRef))
		switch {
		case f.problem != nil:
			note(f.problem, fmt.Sprintf("tls.certificateRefs[%d]", i))
		case !slices.Contains(l.tls.Certificates, f.certificate):
			l.tls.Certificates = append(l.tls.Certificates, f.certificate)
		}
	}
	v := validationOf(g, l.port)
	if v == nil || l.protocol != gatewayv1.HTTPSProtocolType {
		return
	}
	l.tls.AllowInsecure = v.Mode == gatewayv1.AllowInsecureFallback
	for i, ref := range v.CACertificateRefs {
		f := r.clientAuthorities(g.obj, ref)
		if f.problem != nil {
			note(f.problem, fmt.Sprintf("the Gateway's tls.frontend for port %d, caCertificateRefs[%d]", l.port, i))
			continue
		}
		l.tls.ClientCAs = append(l.tls.ClientCAs, f.authorities...)
	}
	if len(l.tls.ClientCAs) == 0 {
		l.noCA = &problem{string(gatewayv1.ListenerReasonNoValidCACertificate), fmt.Sprintf("clients' certificates can't be checked: none of the authorities of the Gateway's tls.frontend for port %d can be used", l.port)}
	}
}

// insecureFrontend tells whether the Gateway lets clients in without a certificate
// that it asks for.
func insecureFrontend(g *gatewayView) bool {
	t := g.spec.Spec.TLS
	if t == nil || t.Frontend == nil {
		return false
	}
	insecure := func(c gatewayv1.TLSConfig) bool {
		return c.Validation != nil && c.Validation.Mode == gatewayv1.AllowInsecureFallback
	}
	return insecure(t.Frontend.Default) || slices.ContainsFunc(t.Frontend.PerPort, func(p gatewayv1.TLSPortConfig) bool { return insecure(p.TLS) })
}

// clientCertificate finds what a Gateway shows to backends.
func (r *reader) clientCertificate(g *gatewayView) (*Certificate, *problem) {
	t := g.spec.Spec.TLS
	if t == nil || t.Backend == nil || t.Backend.ClientCertificateRef == nil {
		return nil, nil
	}
	f := r.certificate(g.obj, *t.Backend.ClientCertificateRef, string(gatewayv1.GatewayReasonInvalidClientCertificateRef))
	if f.problem != nil {
		f.problem = &problem{f.problem.reason, "tls.backend.clientCertificateRef: " + f.problem.message}
	}
	return f.certificate, f.problem
}
