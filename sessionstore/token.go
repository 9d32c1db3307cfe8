package sessionstore

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
)

const (
	// secretBytes is 128 bits: beyond guessing, and what OWASP asks of a session
	// identifier twice over.
	secretBytes = 16
	// tokenChars is base64url, without padding, of 16 bytes of ID and 16 of secret.
	tokenChars = 43
	// MaxRouteBytes bounds a node's route name, so that a whole token stays under
	// 108 bytes and its cookie under 128.
	MaxRouteBytes = 63

	redacted = "REDACTED"
)

// tokenEncoding refuses the two bits that 43 characters have to spare, so that a
// token has exactly one spelling.
var tokenEncoding = base64.RawURLEncoding.Strict()

// A SecretHash is the SHA-256 of a token's secret: what the database stores of
// it (P8). The zero SecretHash stands for "none".
type SecretHash [sha256.Size]byte

// IsZero reports whether h is the zero SecretHash, "none".
func (h SecretHash) IsZero() bool { return h == SecretHash{} }

// A Token is the secret a client presents to claim its session: the session's
// [ID], 128 random bits, and the route name of the node that issued it.
//
// It prints as REDACTED under fmt, slog, JSON and text encoding, also when it is
// a field of another struct; [Token.Reveal] is the one method that puts it on the
// wire (P8). The zero Token claims nothing. A Token is immutable and safe for
// concurrent use; compare tokens by [Token.ID] and [Token.SecretHash], not by ==.
type Token struct {
	fields *tokenFields
}

// tokenFields hold the secret behind a second pointer. fmt prints the unexported
// fields of an enclosing struct without asking their methods: behind one pointer
// it finds an address, but follows it for a verb that does not suit a pointer.
type tokenFields struct {
	id     ID
	route  string
	secret *[secretBytes]byte
}

// newTokenFields makes room for both with one allocation.
func newTokenFields(id ID, route string) *tokenFields {
	f := &struct {
		tokenFields
		secret [secretBytes]byte
	}{tokenFields: tokenFields{id: id, route: route}}
	f.tokenFields.secret = &f.secret
	return &f.tokenFields
}

// NewToken returns a token for id with a new random secret. The route names the
// issuing node and may be empty; it panics if [ValidateRoute] refuses it.
func NewToken(id ID, route string) Token {
	if route != "" {
		if err := ValidateRoute(route); err != nil {
			panic(err)
		}
	}
	f := newTokenFields(id, route)
	rand.Read(f.secret[:]) // never fails since Go 1.24
	return Token{f}
}

// ParseToken reads the form that [Token.Reveal] writes: 43 characters of
// base64url and, if a node issued it, a dot and the node's route name. It judges
// the form only; whether such a session exists the database knows. Errors wrap
// [ErrMalformedToken] and never quote the input.
func ParseToken(s string) (Token, error) {
	if len(s) < tokenChars {
		return Token{}, fmt.Errorf("%w: %d bytes, want at least %d", ErrMalformedToken, len(s), tokenChars)
	}
	if len(s) > tokenChars+1+MaxRouteBytes {
		return Token{}, fmt.Errorf("%w: %d bytes, want at most %d", ErrMalformedToken, len(s), tokenChars+1+MaxRouteBytes)
	}
	var raw [32]byte
	// The decoder skips line breaks, and then has too few characters for 32 bytes.
	if n, err := tokenEncoding.Decode(raw[:], []byte(s[:tokenChars])); err != nil || n < len(raw) {
		for i := range tokenChars {
			if !isRouteByte(s[i]) {
				return Token{}, fmt.Errorf("%w: byte %d is outside the base64url alphabet", ErrMalformedToken, i)
			}
		}
		return Token{}, fmt.Errorf("%w: not base64url of 32 bytes", ErrMalformedToken)
	}
	route := ""
	if len(s) > tokenChars {
		if s[tokenChars] != '.' {
			return Token{}, fmt.Errorf("%w: byte %d is not the dot before the route", ErrMalformedToken, tokenChars)
		}
		route = s[tokenChars+1:]
		if ValidateRoute(route) != nil {
			return Token{}, fmt.Errorf("%w: invalid route", ErrMalformedToken)
		}
	}
	f := newTokenFields(ID(raw[:16]), route)
	copy(f.secret[:], raw[16:])
	return Token{f}, nil
}

// ValidateRoute reports why route cannot be a node's route name: it must be 1 to
// [MaxRouteBytes] bytes of A-Z a-z 0-9 _ and -. A dot is refused because some
// balancers cut a cookie at its first dot and some at its last.
func ValidateRoute(route string) error {
	if route == "" || len(route) > MaxRouteBytes {
		return fmt.Errorf("sessionstore: route name has %d bytes, want 1 to %d", len(route), MaxRouteBytes)
	}
	for i := range len(route) {
		if !isRouteByte(route[i]) {
			return fmt.Errorf("sessionstore: route name %q: only A-Z a-z 0-9 _ - are allowed", route)
		}
	}
	return nil
}

func isRouteByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// ID returns the session's public ID, the zero ID for the zero Token.
func (t Token) ID() ID {
	if t.fields == nil {
		return ID{}
	}
	return t.fields.id
}

// Route returns the route name of the node that issued t, "" if none.
func (t Token) Route() string {
	if t.fields == nil {
		return ""
	}
	return t.fields.route
}

// IsZero reports whether t is the zero Token, which claims nothing.
func (t Token) IsZero() bool { return t.fields == nil }

// SecretHash returns the SHA-256 of the secret, the zero hash for the zero Token.
func (t Token) SecretHash() SecretHash {
	if t.fields == nil {
		return SecretHash{}
	}
	return sha256.Sum256(t.fields.secret[:])
}

// WithRoute returns the same claim with another route name, which may be empty.
// It panics if [ValidateRoute] refuses it, and returns the zero Token unchanged.
func (t Token) WithRoute(route string) Token {
	if t.fields == nil || t.fields.route == route {
		return t
	}
	if route != "" {
		if err := ValidateRoute(route); err != nil {
			panic(err)
		}
	}
	f := newTokenFields(t.fields.id, route)
	*f.secret = *t.fields.secret
	return Token{f}
}

// Reveal returns the token as the client holds it. It is the only way to see the
// secret: whoever has this string has the session. "" for the zero Token.
func (t Token) Reveal() string {
	if t.fields == nil {
		return ""
	}
	var raw [32]byte
	copy(raw[:16], t.fields.id[:])
	copy(raw[16:], t.fields.secret[:])
	buf := make([]byte, 0, tokenChars+1+len(t.fields.route))
	buf = tokenEncoding.AppendEncode(buf, raw[:])
	if t.fields.route != "" {
		buf = append(buf, '.')
		buf = append(buf, t.fields.route...)
	}
	return string(buf)
}

// String returns "REDACTED".
func (t Token) String() string { return redacted }

// GoString returns "REDACTED".
func (t Token) GoString() string { return redacted }

// Format writes "REDACTED" for every verb.
func (t Token) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue returns "REDACTED".
func (t Token) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "REDACTED", for JSON too.
func (t Token) MarshalText() ([]byte, error) { return []byte(redacted), nil }
