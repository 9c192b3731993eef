package identity

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Bounds of a bundle that came from another cluster.
const (
	maxBundleBytes = 64 << 10
	maxBundleRoots = maxGenerations
)

// ParseBundle reads the roots of td in PEM, as another cluster published them.
// It refuses what is no CA, and a root that bears another trust domain's id.
func ParseBundle(td spiffeid.TrustDomain, data []byte) (*x509bundle.Bundle, error) {
	roots, err := parseRoots(td, data)
	if err != nil {
		return nil, fmt.Errorf("trust bundle of %q: %w", td.Name(), err)
	}
	return x509bundle.FromX509Authorities(td, roots), nil
}

// BundleOf is ParseBundle for roots in DER, as a federation.Snapshot has them.
func BundleOf(td spiffeid.TrustDomain, ders [][]byte) (*x509bundle.Bundle, error) {
	var data []byte
	for _, der := range ders {
		data = append(data, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return ParseBundle(td, data)
}

func parseRoots(td spiffeid.TrustDomain, data []byte) ([]*x509.Certificate, error) {
	if len(data) > maxBundleBytes {
		return nil, fmt.Errorf("%d bytes are more than %d", len(data), maxBundleBytes)
	}
	var roots []*x509.Certificate
	for {
		var block *pem.Block
		block, data = pem.Decode(data)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block %q is not a certificate", shorten(block.Type))
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		if !c.BasicConstraintsValid || !c.IsCA {
			return nil, fmt.Errorf("certificate %q is not a CA's", shorten(c.Subject.String()))
		}
		for _, u := range c.URIs {
			if id, err := spiffeid.FromURI(u); err == nil && id.TrustDomain() != td {
				return nil, fmt.Errorf("certificate %q is the root of another trust domain, %q", shorten(c.Subject.String()), id.TrustDomain().Name())
			}
		}
		if len(roots) == maxBundleRoots {
			return nil, fmt.Errorf("more than %d roots", maxBundleRoots)
		}
		roots = append(roots, c)
	}
	switch {
	case len(bytes.TrimSpace(data)) > 0:
		return nil, fmt.Errorf("something else than PEM at the end")
	case len(roots) == 0:
		return nil, fmt.Errorf("no certificate in it")
	}
	return roots, nil
}

// BundlePEM gives the roots of bundles in PEM, sorted by trust domain: the
// inverse of ParseBundle for one, and a CA file for several.
//
// A CA file of several trust domains is for readers that check the id's trust
// domain by the roots' name constraints. Envoys get them apart, by domain.
func BundlePEM(bundles ...*x509bundle.Bundle) []byte {
	sorted := slices.SortedFunc(slices.Values(bundles), func(a, b *x509bundle.Bundle) int {
		return strings.Compare(a.TrustDomain().Name(), b.TrustDomain().Name())
	})
	var out []byte
	for _, b := range sorted {
		out = append(out, encodeCerts(b.X509Authorities())...)
	}
	return out
}

func encodeCerts(certs []*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.Bytes()
}

// BundleSet is the bundles of all trust domains that a part of Causeway
// believes in, and changes while it runs. It is an x509bundle.Source. The zero
// value holds none.
type BundleSet struct {
	mu      sync.Mutex
	bundles map[spiffeid.TrustDomain]*x509bundle.Bundle // replaced, never mutated
	changed chan struct{}
}

// Replace makes bundles the whole set. The set owns them from now on. What is
// equal to the set as it is wakes no one.
func (s *BundleSet) Replace(bundles []*x509bundle.Bundle) {
	next := make(map[spiffeid.TrustDomain]*x509bundle.Bundle, len(bundles))
	for _, b := range bundles {
		next[b.TrustDomain()] = b
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if maps.EqualFunc(next, s.bundles, (*x509bundle.Bundle).Equal) {
		return
	}
	s.bundles = next
	if s.changed != nil {
		close(s.changed)
	}
	s.changed = nil
}

// Watch gives the bundles sorted by trust domain, shared, and a channel that is
// closed when the set changes.
func (s *BundleSet) Watch() ([]*x509bundle.Bundle, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	out := slices.SortedFunc(maps.Values(s.bundles), func(a, b *x509bundle.Bundle) int {
		return strings.Compare(a.TrustDomain().Name(), b.TrustDomain().Name())
	})
	return out, s.changed
}

// GetX509BundleForTrustDomain is what go-spiffe's verification calls at each handshake.
func (s *BundleSet) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.bundles[td]
	if !ok {
		return nil, fmt.Errorf("trust domain %q is none that this process knows", td.Name())
	}
	return b, nil
}
