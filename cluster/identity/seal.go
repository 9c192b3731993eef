package identity

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Sealing is HPKE (RFC 9180) in its base mode, with X25519, HKDF-SHA256 and AES-256-GCM. An
// authority's keys for it follow from the key of its root, so that all who share the
// authority have them, and they rotate with it.
func suite() (hpke.KEM, hpke.KDF, hpke.AEAD) {
	return hpke.DHKEM(ecdh.X25519()), hpke.HKDFSHA256(), hpke.AES256GCM()
}

// sealing is what is kept apart from each other of what follows from a root's key.
const (
	sealingKeys  = "causeway sealing key v1"
	sealingMarks = "causeway sealing mark v1"
)

// derive gives 32 bytes that follow from the generation's key; nil if it has none any more.
func (g generation) derive(use string) []byte {
	if g.key == nil {
		return nil
	}
	secret, err := g.key.Bytes()
	if err != nil {
		return nil
	}
	out, err := hkdf.Key(sha256.New, secret, nil, use, 32)
	if err != nil {
		return nil
	}
	return out
}

func (g generation) sealing() (hpke.PrivateKey, error) {
	seed := g.derive(sealingKeys)
	if seed == nil {
		return nil, errors.New("the key of the root is gone")
	}
	kem, _, _ := suite()
	return kem.DeriveKeyPair(seed)
}

// SealingKey is the public key to which others seal what is for this trust domain's
// authority alone. It changes with the root, of which WatchBundle tells.
func (a *Authority) SealingKey() ([]byte, error) {
	k, _ := a.roots.current()
	key, err := k.signer(time.Now()).sealing()
	if err != nil {
		return nil, fmt.Errorf("sealing key of %s: %w", a.td.Name(), err)
	}
	return key.PublicKey().Bytes(), nil
}

// Seal encrypts a text to a SealingKey. Only its authority can Unseal it, and only when it
// gives the same context, which nobody can change unnoticed.
func Seal(to []byte, context string, text []byte) ([]byte, error) {
	kem, kdf, aead := suite()
	key, err := kem.NewPublicKey(to)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", context, err)
	}
	out, err := hpke.Seal(key, kdf, aead, []byte(context), text)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", context, err)
	}
	return out, nil
}

// Unseal opens what Seal made for one of the authority's keys, which to names.
func (a *Authority) Unseal(to []byte, context string, sealed []byte) ([]byte, error) {
	_, kdf, aead := suite()
	k, _ := a.roots.current()
	for _, g := range k {
		key, err := g.sealing()
		if err != nil || !bytes.Equal(key.PublicKey().Bytes(), to) {
			continue
		}
		text, err := hpke.Open(key, kdf, aead, []byte(context), sealed)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", context, err)
		}
		return text, nil
	}
	return nil, fmt.Errorf("open %s: it was sealed for a key that %s doesn't have, or no more", context, a.td.Name())
}

// Mark is a code by which the authority knows again what it has seen, in this process or in
// another that shares it. It tells nobody else anything.
func (a *Authority) Mark(parts ...[]byte) []byte {
	k, _ := a.roots.current()
	return k.signer(time.Now()).mark(parts)
}

// Marked reports whether a code is Mark's of these parts, with one of the authority's roots.
func (a *Authority) Marked(mark []byte, parts ...[]byte) bool {
	k, _ := a.roots.current()
	for _, g := range k {
		if m := g.mark(parts); m != nil && hmac.Equal(m, mark) {
			return true
		}
	}
	return false
}

func (g generation) mark(parts [][]byte) []byte {
	key := g.derive(sealingMarks)
	if key == nil {
		return nil
	}
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p))))
		h.Write(p)
	}
	return h.Sum(nil)
}
