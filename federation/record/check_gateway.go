package record

import (
	"fmt"
	"regexp"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
)

// protocolName is HTTP, HTTPS, TLS, TCP, UDP, or one of an implementation's own.
var protocolName = regexp.MustCompile(`^([a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/[A-Za-z0-9]+)$`)

func checkGateway(s *gatewayv1.GatewaySpec) error {
	if err := checkBounds(s); err != nil {
		return err
	}
	if err := checkListeners(s.Listeners); err != nil {
		return err
	}
	if a := s.AllowedListeners; a != nil && a.Namespaces != nil {
		if err := checkSelector(a.Namespaces.Selector); err != nil {
			return fmt.Errorf("spec.allowedListeners: %w", err)
		}
	}
	if s.TLS == nil {
		return nil
	}
	if b := s.TLS.Backend; b != nil && b.ClientCertificateRef != nil {
		if err := checkRef(string(b.ClientCertificateRef.Name), b.ClientCertificateRef.Namespace, nil); err != nil {
			return fmt.Errorf("spec.tls.backend.clientCertificateRef: %w", err)
		}
	}
	if f := s.TLS.Frontend; f != nil {
		if err := checkFrontend(f); err != nil {
			return fmt.Errorf("spec.tls.frontend: %w", err)
		}
	}
	return nil
}

func checkListenerSet(s *gatewayv1.ListenerSetSpec) error {
	if err := checkBounds(s); err != nil {
		return err
	}
	if err := checkRef(string(s.ParentRef.Name), s.ParentRef.Namespace, nil); err != nil {
		return fmt.Errorf("spec.parentRef: %w", err)
	}
	listeners := make([]gatewayv1.Listener, len(s.Listeners))
	for i, l := range s.Listeners {
		listeners[i] = gatewayv1.Listener(l)
	}
	return checkListeners(listeners)
}

func checkListeners(listeners []gatewayv1.Listener) error {
	seen := make(map[gatewayv1.SectionName]bool, len(listeners))
	for i := range listeners {
		l := &listeners[i]
		if err := checkListener(l); err != nil {
			return fmt.Errorf("spec.listeners[%d]: %w", i, err)
		}
		if seen[l.Name] {
			return fmt.Errorf("spec.listeners[%d]: name %q is given twice", i, l.Name)
		}
		seen[l.Name] = true
	}
	return nil
}

func checkListener(l *gatewayv1.Listener) error {
	if len(validation.IsDNS1123Subdomain(string(l.Name))) > 0 {
		return fmt.Errorf("name %q is not a DNS name", shorten(string(l.Name)))
	}
	if err := checkPortNumber(l.Port); err != nil {
		return err
	}
	if len(l.Protocol) > 255 || !protocolName.MatchString(string(l.Protocol)) {
		return fmt.Errorf("protocol %q is none by Gateway API", shorten(string(l.Protocol)))
	}
	if l.Hostname != nil && *l.Hostname != "" {
		if err := checkHostname(string(*l.Hostname)); err != nil {
			return err
		}
	}
	if l.TLS != nil {
		if m := l.TLS.Mode; m != nil && *m != gatewayv1.TLSModeTerminate && *m != gatewayv1.TLSModePassthrough {
			return fmt.Errorf("tls.mode %q is not Terminate or Passthrough", shorten(string(*m)))
		}
		for i, c := range l.TLS.CertificateRefs {
			if err := checkRef(string(c.Name), c.Namespace, nil); err != nil {
				return fmt.Errorf("tls.certificateRefs[%d]: %w", i, err)
			}
		}
	}
	if a := l.AllowedRoutes; a != nil && a.Namespaces != nil {
		return checkSelector(a.Namespaces.Selector)
	}
	return nil
}

func checkFrontend(f *gatewayv1.FrontendTLSConfig) error {
	validate := func(c gatewayv1.TLSConfig) error {
		if c.Validation == nil {
			return nil
		}
		switch c.Validation.Mode {
		case "", gatewayv1.AllowValidOnly, gatewayv1.AllowInsecureFallback:
		default:
			return fmt.Errorf("validation.mode %q is unknown", shorten(string(c.Validation.Mode)))
		}
		for i, r := range c.Validation.CACertificateRefs {
			if err := checkRef(string(r.Name), r.Namespace, nil); err != nil {
				return fmt.Errorf("validation.caCertificateRefs[%d]: %w", i, err)
			}
		}
		return nil
	}
	if err := validate(f.Default); err != nil {
		return fmt.Errorf("default: %w", err)
	}
	seen := make(map[gatewayv1.PortNumber]bool, len(f.PerPort))
	for i, p := range f.PerPort {
		err := checkPortNumber(p.Port)
		if err == nil && seen[p.Port] {
			err = fmt.Errorf("port %d is given twice", p.Port)
		}
		if err == nil {
			err = validate(p.TLS)
		}
		if err != nil {
			return fmt.Errorf("perPort[%d]: %w", i, err)
		}
		seen[p.Port] = true
	}
	return nil
}

// checkReferenceGrant lets any kinds pass, as the CRD does: a grant for one that
// nobody knows grants nothing.
func checkReferenceGrant(s *gatewayv1beta1.ReferenceGrantSpec) error {
	if err := checkBounds(s); err != nil {
		return err
	}
	for i, f := range s.From {
		if len(validation.IsDNS1123Label(string(f.Namespace))) > 0 {
			return fmt.Errorf("spec.from[%d]: namespace %q is not a DNS label", i, shorten(string(f.Namespace)))
		}
	}
	return nil
}

func checkSelector(s *metav1.LabelSelector) error {
	if s == nil {
		return nil
	}
	return first(metav1validation.ValidateLabelSelector(s, metav1validation.LabelSelectorValidationOptions{}, field.NewPath("selector")))
}

func checkPrecise(h *gatewayv1.PreciseHostname) error {
	if h != nil && len(validation.IsDNS1123Subdomain(string(*h))) > 0 {
		return fmt.Errorf("hostname %q is not a DNS name", shorten(string(*h)))
	}
	return nil
}

func checkHostname(h string) error {
	if len(validation.IsDNS1123Subdomain(strings.TrimPrefix(h, "*."))) > 0 {
		return fmt.Errorf("hostname %q is not a DNS name, nor one behind '*.'", shorten(h))
	}
	return nil
}

func checkRef(name string, namespace *gatewayv1.Namespace, port *gatewayv1.PortNumber) error {
	if name == "" || len(name) > 253 {
		return fmt.Errorf("name %q has no or too many letters", shorten(name))
	}
	if namespace != nil && len(validation.IsDNS1123Label(string(*namespace))) > 0 {
		return fmt.Errorf("namespace %q is not a DNS label", shorten(string(*namespace)))
	}
	if port != nil {
		return checkPortNumber(*port)
	}
	return nil
}

func checkPortNumber(p gatewayv1.PortNumber) error {
	if p < 1 || p > 65535 {
		return fmt.Errorf("port %d is not from 1 to 65535", p)
	}
	return nil
}
