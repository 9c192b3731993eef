package gossip

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// KeySize is the size of a Key in bytes: AES-256.
const KeySize = 32

// Key encrypts all gossip of a clusterset. It redacts itself however it is
// printed; only Reveal gives it away. The zero value is no key.
type Key struct {
	// Two pointers, so that printing a struct that holds a Key in an unexported
	// field shows an address, never the key: fmt calls no methods there, and
	// follows one pointer where the verb doesn't suit pointers.
	p *keyBytes
}

type keyBytes struct{ b *[KeySize]byte }

// bytes gives the key itself, nil if there is none.
func (k Key) bytes() []byte {
	if k.p == nil {
		return nil
	}
	return k.p.b[:]
}

// NewKey makes a random key.
func NewKey() Key {
	k := Key{p: &keyBytes{b: new([KeySize]byte)}}
	_, _ = rand.Read(k.bytes()) // never fails (crypto/rand)
	return k
}

// ParseKey reads what Reveal wrote: base64 of 32 bytes, white space around it
// ignored. The error doesn't repeat the input.
func ParseKey(s string) (Key, error) {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(s))
	if err != nil {
		return Key{}, errors.New("gossip key is not base64: make one with `head -c 32 /dev/urandom | base64`")
	}
	if len(raw) != KeySize {
		return Key{}, fmt.Errorf("gossip key has %d bytes, not %d: make one with `head -c 32 /dev/urandom | base64`", len(raw), KeySize)
	}
	return Key{p: &keyBytes{b: (*[KeySize]byte)(raw)}}, nil
}

// Reveal gives the key in base64, for a file or a Secret. Secret.
func (k Key) Reveal() string {
	return base64.StdEncoding.EncodeToString(k.bytes())
}

// IsZero reports whether there is no key.
func (k Key) IsZero() bool { return k.p == nil }

// String never gives the key.
func (k Key) String() string {
	if k.p == nil {
		return "no gossip key"
	}
	return "gossip key (redacted)"
}

// GoString is String.
func (k Key) GoString() string { return k.String() }

// Format prints String whatever the verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue is String.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText is String, for JSON and YAML alike.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }
