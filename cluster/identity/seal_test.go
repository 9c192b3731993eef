package identity

import (
	"bytes"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/causeway-mesh/causeway/cluster"
)

func sealer(t *testing.T, td string, storage Storage) *Authority {
	t.Helper()
	a, err := OpenAuthority(AuthorityConfig{TrustDomain: spiffeid.RequireTrustDomainFromString(td), RootConfig: RootConfig{Storage: storage}})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// keep is a Storage in memory.
type keep struct{ data []byte }

func (k *keep) Load() ([]byte, error)    { return k.data, nil }
func (k *keep) Create(data []byte) error { k.data = data; return nil }
func (k *keep) Save(data []byte) error   { k.data = data; return nil }

// What is sealed for an authority is read by those who share it, under the context that it
// was sealed with, and by nobody else.
func TestSeal(t *testing.T) {
	first := sealer(t, "east.isles", nil)
	k, _ := first.roots.current()
	raw, err := k.encode()
	if err != nil {
		t.Fatal(err)
	}
	second, other := sealer(t, "east.isles", &keep{raw}), sealer(t, "west.isles", nil)
	to, err := first.SealingKey()
	if err != nil || len(to) != cluster.SealingKeyBytes {
		t.Fatalf("a key of %d bytes: %v", len(to), err)
	}
	text := []byte("the key to the shop")
	sealed, err := Seal(to, "for east", text)
	if err != nil || bytes.Contains(sealed, text) {
		t.Fatalf("%q (%v)", sealed, err)
	}
	for _, a := range []*Authority{first, second} {
		if got, err := a.Unseal(to, "for east", sealed); err != nil || !bytes.Equal(got, text) {
			t.Errorf("opened: %q (%v)", got, err)
		}
	}
	if err := first.Rotate(); err != nil { // the next root does not sign yet
		t.Fatal(err)
	}
	if again, err := first.SealingKey(); err != nil || !bytes.Equal(again, to) {
		t.Errorf("the key has changed before all know the root (%v)", err)
	}
	if got, err := first.Unseal(to, "for east", sealed); err != nil || !bytes.Equal(got, text) {
		t.Errorf("after a rotation: %q (%v)", got, err)
	}
	changed := bytes.Clone(sealed)
	changed[len(changed)-1] ^= 1
	for name, open := range map[string]func() ([]byte, error){
		"another context":   func() ([]byte, error) { return first.Unseal(to, "for west", sealed) },
		"another authority": func() ([]byte, error) { return other.Unseal(to, "for east", sealed) },
		"a changed byte":    func() ([]byte, error) { return first.Unseal(to, "for east", changed) },
		"nothing":           func() ([]byte, error) { return first.Unseal(to, "for east", nil) },
	} {
		if got, err := open(); err == nil {
			t.Errorf("%s: it was opened: %q", name, got)
		}
	}
	if _, err := Seal(to[1:], "for east", text); err == nil {
		t.Error("sealed for no key")
	}
}

// A mark is known by those who share the authority, and stands for nothing else.
func TestMark(t *testing.T) {
	a, other := sealer(t, "east.isles", nil), sealer(t, "west.isles", nil)
	m := a.Mark([]byte("ab"), []byte("c"))
	if !a.Marked(m, []byte("ab"), []byte("c")) {
		t.Error("the authority doesn't know its mark")
	}
	if err := a.Rotate(); err != nil {
		t.Fatal(err)
	}
	if !a.Marked(m, []byte("ab"), []byte("c")) {
		t.Error("nor after a rotation")
	}
	if a.Marked(m, []byte("a"), []byte("bc")) || a.Marked(m, []byte("ab")) || a.Marked(nil, []byte("ab"), []byte("c")) || other.Marked(m, []byte("ab"), []byte("c")) {
		t.Error("a mark stands for something else")
	}
}
