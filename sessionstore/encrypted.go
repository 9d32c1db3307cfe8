package sessionstore

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	// sealedFormat begins every sealed value: format byte, key ID, nonce,
	// ciphertext and tag.
	sealedFormat = 1
	keyIDBytes   = 4
	// EncryptionKeyBytes is the length of the keys that [Encrypted] takes.
	EncryptionKeyBytes = 32
)

// Encrypted returns a codec that seals what inner encodes with AES-256-GCM. The
// first key seals, every key opens. Keys are 32 random bytes each, and are copied.
//
// To rotate keys, give every node the new key behind the old one first. Only when all
// have it put it in front, and drop the old one when no session sealed under it is left,
// after the application's Lifetime. A node that has not got the key yet would take the
// others' values for not set, and [Attr.Update] would begin anew.
//
// A sealed value is bound to its session, application and attribute: moved
// anywhere else, or back under another name, it does not open ([ErrUndecryptable],
// and so counts as not set). Each session is sealed under a key of its own,
// derived by HKDF-SHA256 (RFC 5869), so that random nonces stay far from the
// limit of 2^32 values a key (NIST SP 800-38D, section 8.3). The names of
// attributes, the principal and the length of values are not hidden.
func Encrypted(inner Codec, keys ...[]byte) (Codec, error) {
	if inner == nil {
		return nil, errors.New("sessionstore: codec to encrypt is nil")
	}
	if len(keys) == 0 {
		return nil, errors.New("sessionstore: no encryption key")
	}
	e := &encrypted{inner: inner}
	for i, key := range keys {
		if len(key) != EncryptionKeyBytes {
			return nil, fmt.Errorf("sessionstore: encryption key %d has %d bytes, want %d", i, len(key), EncryptionKeyBytes)
		}
		k := encryptionKey{key: [EncryptionKeyBytes]byte(key)}
		id := sha256.Sum256(append([]byte("holdfast key id:"), key...))
		copy(k.id[:], id[:])
		for j, other := range e.keys {
			if other.key == k.key {
				return nil, fmt.Errorf("sessionstore: encryption keys %d and %d are the same", j, i)
			}
		}
		e.keys = append(e.keys, k)
	}
	return e, nil
}

type encrypted struct {
	inner Codec
	keys  []encryptionKey
}

type encryptionKey struct {
	id  [keyIDBytes]byte
	key [EncryptionKeyBytes]byte
}

// String names the codec and keeps fmt away from the keys.
func (e *encrypted) String() string {
	return fmt.Sprintf("Encrypted(%T, %d keys)", e.inner, len(e.keys))
}

// GoString is String.
func (e *encrypted) GoString() string { return e.String() }

// Encode implements [Codec].
func (e *encrypted) Encode(at Place, v any) ([]byte, error) {
	plain, err := e.inner.Encode(at, v)
	if err != nil {
		return nil, err
	}
	k := e.keys[0]
	aead, err := k.aead(at.Key)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, 1+keyIDBytes+aead.Overhead()+len(plain))
	out = append(out, sealedFormat)
	out = append(out, k.id[:]...)
	return aead.Seal(out, nil, plain, additionalData(at)), nil
}

// Decode implements [Codec].
func (e *encrypted) Decode(at Place, data []byte, v any) error {
	const header = 1 + keyIDBytes
	if len(data) < header || data[0] != sealedFormat {
		return fmt.Errorf("%w: not a sealed value", ErrUndecryptable)
	}
	for _, k := range e.keys {
		if k.id != [keyIDBytes]byte(data[1:header]) {
			continue
		}
		aead, err := k.aead(at.Key)
		if err != nil {
			return err
		}
		if plain, err := aead.Open(nil, nil, data[header:], additionalData(at)); err == nil {
			return e.inner.Decode(at, plain, v)
		}
	}
	return ErrUndecryptable
}

// aead returns the cipher of one application's view of one session. Its nonces
// are random, and part of what it seals.
func (k encryptionKey) aead(at Key) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, k.key[:], at.ID[:], "holdfast attribute v1:"+at.App, EncryptionKeyBytes)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// additionalData names the place unambiguously: lengths before what they measure.
func additionalData(at Place) []byte {
	b := make([]byte, 0, 32+len(at.Key.App)+len(at.Attr))
	b = append(b, at.Key.ID[:]...)
	b = binary.AppendUvarint(b, uint64(len(at.Key.App)))
	b = append(b, at.Key.App...)
	return append(b, at.Attr...)
}
