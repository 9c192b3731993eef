package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// clockSkew is how far in the past certificates begin, for readers whose clock is behind.
const clockSkew = 5 * time.Minute

const (
	maxGenerations = 16
	maxKeyringFile = 1 << 20
)

// generation is one root in the life of an authority.
type generation struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey // nil once a later root signs
	// activeFrom is when it begins to sign: later than it entered the bundle, so
	// that all readers know it by then.
	activeFrom time.Time
	// retireAt is when the last leaf that it can have signed has expired; zero in
	// the newest generation.
	retireAt time.Time
}

// keyring is the roots of an authority, oldest first, never empty. Immutable:
// each change makes a new one, and what it says depends on the time asked about
// alone.
type keyring []generation

// signer gives the root that signs at now: the newest that is active.
func (k keyring) signer(now time.Time) generation {
	for i := len(k) - 1; i > 0; i-- {
		if !now.Before(k[i].activeFrom) {
			return k[i]
		}
	}
	return k[0]
}

// trusted gives the roots that verifiers must accept at now.
func (k keyring) trusted(now time.Time) []*x509.Certificate {
	var out []*x509.Certificate
	for _, g := range k {
		if !g.retired(now) {
			out = append(out, g.cert)
		}
	}
	return out
}

func (g generation) retired(now time.Time) bool {
	return !g.retireAt.IsZero() && !now.Before(g.retireAt) || !now.Before(g.cert.NotAfter)
}

// rotated adds a root that signs from now+ahead on; no leaf lives longer than maxTTL.
func (k keyring) rotated(next generation, now time.Time, ahead, maxTTL time.Duration) (keyring, error) {
	newest := k[len(k)-1]
	if now.Before(newest.activeFrom) {
		return nil, fmt.Errorf("a rotation is under way: the next root signs from %s on", newest.activeFrom.UTC().Format(time.RFC3339))
	}
	out := slices.Clone(k.pruned(now))
	if len(out) >= maxGenerations {
		return nil, fmt.Errorf("%d roots are in use already: wait until the oldest has expired", len(out))
	}
	next.activeFrom = now.Add(ahead)
	out[len(out)-1].retireAt = next.activeFrom.Add(maxTTL)
	return append(out, next), nil
}

// pruned drops retired roots, and the keys of those that sign no more.
func (k keyring) pruned(now time.Time) keyring {
	signer := k.signer(now)
	var out keyring
	for _, g := range k {
		if g.retired(now) && g.cert != signer.cert {
			continue
		}
		if g.activeFrom.Before(signer.activeFrom) {
			g.key = nil
		}
		out = append(out, g)
	}
	return out
}

// nextChange is the first moment after now at which signer, trusted or pruned
// say something else; zero if none is to come.
func (k keyring) nextChange(now time.Time) time.Time {
	var next time.Time
	for _, g := range k {
		for _, t := range []time.Time{g.activeFrom, g.retireAt, g.cert.NotAfter} {
			if t.After(now) && (next.IsZero() || t.Before(next)) {
				next = t
			}
		}
	}
	return next
}

func (k keyring) equal(o keyring) bool {
	return slices.EqualFunc(k, o, func(a, b generation) bool {
		return a.cert == b.cert && a.key == b.key && a.activeFrom.Equal(b.activeFrom) && a.retireAt.Equal(b.retireAt)
	})
}

// same is equal for keyrings that were read from a storage: they share no pointers.
func (k keyring) same(o keyring) bool {
	return slices.EqualFunc(k, o, func(a, b generation) bool {
		return a.cert.Equal(b.cert) && (a.key == nil) == (b.key == nil) && a.activeFrom.Equal(b.activeFrom) && a.retireAt.Equal(b.retireAt)
	})
}

// newRoot makes a self-signed root from template, which gives what is particular
// to the kind of authority. Its leaves hang on it directly.
func newRoot(template x509.Certificate, now time.Time, ttl time.Duration) (generation, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return generation{}, fmt.Errorf("make key of root: %w", err)
	}
	template.NotBefore = now.Add(-clockSkew)
	template.NotAfter = now.Add(ttl)
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	template.BasicConstraintsValid = true
	template.IsCA = true
	template.MaxPathLen = 0
	template.MaxPathLenZero = true
	cert, err := sign(&template, &template, &key.PublicKey, key)
	if err != nil {
		return generation{}, fmt.Errorf("sign root: %w", err)
	}
	return generation{cert: cert, key: key, activeFrom: now}, nil
}

// issue makes a key and has the root that signs at now certify it.
func (k keyring) issue(template x509.Certificate, now time.Time, ttl time.Duration) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	cert, err := k.certify(template, &key.PublicKey, now, ttl)
	return cert, key, err
}

// certify has the root that signs at now certify somebody's key.
func (k keyring) certify(template x509.Certificate, key *ecdsa.PublicKey, now time.Time, ttl time.Duration) (*x509.Certificate, error) {
	root := k.signer(now)
	if root.key == nil {
		return nil, errors.New("the key of the root is missing")
	}
	notAfter := now.Add(ttl)
	if root.cert.NotAfter.Before(notAfter) {
		notAfter = root.cert.NotAfter // a leaf that outlives its root is no use to anyone
	}
	if !notAfter.After(now) {
		return nil, fmt.Errorf("the root expired at %s: rotate it", root.cert.NotAfter.UTC().Format(time.RFC3339))
	}
	template.NotBefore = now.Add(-clockSkew)
	template.NotAfter = notAfter
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	return sign(&template, root.cert, key, root.key)
}

func sign(template, parent *x509.Certificate, key *ecdsa.PublicKey, signer *ecdsa.PrivateKey) (*x509.Certificate, error) {
	serial := make([]byte, 16)
	if _, err := rand.Read(serial); err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	serial[0] = serial[0]&0x7f | 0x40 // positive and of constant length (RFC 5280, 4.1.2.2)
	template.SerialNumber = new(big.Int).SetBytes(serial)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// PEM headers of a generation's certificate in the keyring's file.
const (
	headerActive = "Active-From"
	headerRetire = "Retire-At"
)

// encode gives the file: for each root its certificate and, while it signs or is
// to sign, its key. One file, so that a crash can't part a key from its certificate.
func (k keyring) encode() ([]byte, error) {
	var b bytes.Buffer
	for _, g := range k {
		headers := map[string]string{headerActive: g.activeFrom.UTC().Format(time.RFC3339Nano)}
		if !g.retireAt.IsZero() {
			headers[headerRetire] = g.retireAt.UTC().Format(time.RFC3339Nano)
		}
		if err := pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Headers: headers, Bytes: g.cert.Raw}); err != nil {
			return nil, err
		}
		if g.key == nil {
			continue
		}
		der, err := x509.MarshalPKCS8PrivateKey(g.key)
		if err != nil {
			return nil, err
		}
		if err := pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: der}); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

func decodeKeyring(data []byte) (keyring, error) {
	var k keyring
	for {
		var block *pem.Block
		block, data = pem.Decode(data)
		if block == nil {
			break
		}
		switch block.Type {
		case "CERTIFICATE":
			g, err := decodeGeneration(block)
			if err != nil {
				return nil, err
			}
			if len(k) == maxGenerations {
				return nil, fmt.Errorf("more than %d roots", maxGenerations)
			}
			k = append(k, g)
		case "PRIVATE KEY":
			if len(k) == 0 {
				return nil, errors.New("a private key comes before any certificate")
			}
			parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("private key: %w", err)
			}
			key, ok := parsed.(*ecdsa.PrivateKey)
			if !ok || !key.PublicKey.Equal(k[len(k)-1].cert.PublicKey) {
				return nil, errors.New("a private key is not that of the certificate before it")
			}
			k[len(k)-1].key = key
		default:
			return nil, fmt.Errorf("unexpected PEM block %q", shorten(block.Type))
		}
	}
	switch {
	case len(bytes.TrimSpace(data)) > 0:
		return nil, errors.New("there is something else than PEM at the end")
	case len(k) == 0:
		return nil, errors.New("no certificate in it")
	case k[len(k)-1].key == nil:
		return nil, errors.New("the newest root has no private key")
	}
	if !slices.IsSortedFunc(k, func(a, b generation) int { return a.activeFrom.Compare(b.activeFrom) }) {
		return nil, errors.New("the roots are not in order of age")
	}
	return k, nil
}

func decodeGeneration(block *pem.Block) (generation, error) {
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return generation{}, fmt.Errorf("certificate: %w", err)
	}
	if !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return generation{}, fmt.Errorf("certificate %q is not a CA's", shorten(cert.Subject.String()))
	}
	g := generation{cert: cert}
	if g.activeFrom, err = time.Parse(time.RFC3339Nano, block.Headers[headerActive]); err != nil {
		return generation{}, fmt.Errorf("header %s: %w", headerActive, err)
	}
	if at, ok := block.Headers[headerRetire]; ok {
		if g.retireAt, err = time.Parse(time.RFC3339Nano, at); err != nil {
			return generation{}, fmt.Errorf("header %s: %w", headerRetire, err)
		}
	}
	return g, nil
}

func rootSubject(name string) pkix.Name {
	return pkix.Name{Organization: []string{"Causeway"}, CommonName: name}
}
