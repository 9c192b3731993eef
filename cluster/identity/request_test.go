package identity

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"io/fs"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"
)

// A key that never leaves its process gets a certificate under the name that the
// authority knows its bearer by, whatever the request says.
func TestCertify(t *testing.T) {
	a, err := OpenAuthority(AuthorityConfig{TrustDomain: mustDomain(t, "west")})
	if err != nil {
		t.Fatal(err)
	}
	id, err := ProxyID(a.TrustDomain(), RoleCrossing, "causeway-system", "crossing")
	if err != nil {
		t.Fatal(err)
	}
	k, err := NewKeyRequest()
	if err != nil {
		t.Fatal(err)
	}
	chain, err := a.Certify(SVIDRequest{ID: id, TTL: time.Hour}, k.CSR())
	if err != nil {
		t.Fatal(err)
	}
	c, err := k.Credential(chain, id)
	if err != nil {
		t.Fatal(err)
	}
	if err := verifySVID([]*x509.Certificate{c.Leaf()}, a.TrustDomain(), a, x509.ExtKeyUsageClientAuth); err != nil {
		t.Error(err)
	}
	other, err := NewKeyRequest()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Credential(chain, id); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("a certificate for another key: %v", err)
	}
	agent, err := AgentID(a.TrustDomain())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Credential(chain, agent); err == nil {
		t.Error("a certificate for another id is taken")
	}
	raw, err := k.p.key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprintf("%v %+v %#v", k, *k, k); strings.Contains(s, new(big.Int).SetBytes(raw).String()) {
		t.Errorf("the key shows: %s", s)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, weak)
	if err != nil {
		t.Fatal(err)
	}
	broken := append([]byte{}, k.CSR()...)
	broken[len(broken)-1] ^= 1
	for what, bad := range map[string][]byte{"another kind of key": csr, "a broken signature": broken, "nothing": nil, "too much": make([]byte, maxCSR+1)} {
		if _, err := a.Certify(SVIDRequest{ID: id}, bad); err == nil {
			t.Errorf("%s is certified", what)
		}
	}
	if _, err := a.Certify(SVIDRequest{ID: id, TTL: 48 * time.Hour}, k.CSR()); err == nil {
		t.Error("a longer life than the authority's is granted")
	}
}

// memory is a Storage that processes share.
type memory struct {
	mu   sync.Mutex
	data []byte
}

func (m *memory) Load() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.data == nil {
		return nil, fs.ErrNotExist
	}
	return m.data, nil
}

func (m *memory) Create(data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.data != nil {
		return fs.ErrExist
	}
	m.data = data
	return nil
}

func (m *memory) Save(data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.data = data
	return nil
}

// Two processes with one Storage have one authority, and the one that doesn't
// rotate it follows.
func TestSharedStorage(t *testing.T) {
	shared := &memory{}
	open := func() *Authority {
		a, err := OpenAuthority(AuthorityConfig{TrustDomain: mustDomain(t, "west"), RootConfig: RootConfig{Storage: shared}})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a, b := open(), open()
	if !a.Bundle().Equal(b.Bundle()) {
		t.Fatal("two authorities from one storage")
	}
	if err := a.Rotate(); err != nil {
		t.Fatal(err)
	}
	_, changed := b.WatchBundle()
	if err := b.Reload(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	default:
		t.Error("nobody was told of the new root")
	}
	if !a.Bundle().Equal(b.Bundle()) || len(b.Bundle().X509Authorities()) != 2 {
		t.Error("the new root did not arrive")
	}
	_, changed = b.WatchBundle()
	if err := b.Reload(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
		t.Error("a reload of the same is taken for a change")
	default:
	}
}
