package sessionstore_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

func newToken(route string) sessionstore.Token {
	return sessionstore.NewToken(sessionstore.ID(uuid.Must(uuid.NewV7())), route)
}

func TestTokenRoundTrip(t *testing.T) {
	for _, route := range []string{"", "node1", "A-b_9", strings.Repeat("n", sessionstore.MaxRouteBytes)} {
		token := newToken(route)
		wire := token.Reveal()
		if n := len(wire); n < 43 || len("__Host-session=")+n >= 128 {
			t.Errorf("route %q: %d bytes", route, n)
		}
		got, err := sessionstore.ParseToken(wire)
		if err != nil {
			t.Fatal(err)
		}
		if got.ID() != token.ID() || got.SecretHash() != token.SecretHash() || got.Route() != route || got.Reveal() != wire {
			t.Errorf("route %q: round trip differs", route)
		}
		if moved := got.WithRoute("elsewhere"); moved.Route() != "elsewhere" || moved.SecretHash() != token.SecretHash() || got.Route() != route {
			t.Errorf("WithRoute changed more or less than the route")
		}
	}
	var zero sessionstore.Token
	if !zero.IsZero() || zero.Reveal() != "" || zero.ID() != (sessionstore.ID{}) || zero.SecretHash() != (sessionstore.SecretHash{}) || !zero.WithRoute("x").IsZero() {
		t.Error("the zero token is not zero")
	}
}

func TestMalformedTokens(t *testing.T) {
	good := newToken("").Reveal()
	spare := []byte(good) // the last character holds two spare bits, which must be zero
	spare[42] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", spare[42])|1]
	for what, s := range map[string]string{
		"empty":            "",
		"truncated":        good[:42],
		"one longer":       good + "A",
		"no route":         good + ".",
		"two dots":         good + ".a.b",
		"route of spaces":  good + ". ",
		"route too long":   good + "." + strings.Repeat("n", 64),
		"oversized":        good + "." + strings.Repeat("n", 1<<20),
		"standard base64":  strings.Repeat("+", 43),
		"padding":          good[:42] + "=",
		"line break":       good[:20] + "\n" + good[20:42],
		"NUL":              good[:42] + "\x00",
		"not ASCII":        good[:41] + "é",
		"spare bits":       string(spare),
		"quoted":           `"` + good + `"`,
		"space in front":   " " + good,
		"hexadecimal UUID": uuid.NewString(),
	} {
		_, err := sessionstore.ParseToken(s)
		if !errors.Is(err, sessionstore.ErrMalformedToken) {
			t.Errorf("%s: %v, want ErrMalformedToken", what, err)
		} else if len(s) > 20 && strings.Contains(err.Error(), s[:20]) {
			t.Errorf("%s: the error quotes the input", what)
		}
	}
}

func TestTokenIsRedacted_P8(t *testing.T) {
	token := newToken("node1")
	wire := token.Reveal()
	type outer struct {
		Exported sessionstore.Token
		hidden   sessionstore.Token
	}
	nested := outer{token, token}
	var buf bytes.Buffer
	log := slog.New(slog.NewTextHandler(&buf, nil))
	log.Info("x", "token", token, "nested", nested, "pointer", &nested, "slice", []sessionstore.Token{token})
	slog.New(slog.NewJSONHandler(&buf, nil)).Info("x", "token", token, "nested", nested)
	for _, v := range []any{token, &token, nested, &nested, []sessionstore.Token{token}, map[string]sessionstore.Token{"k": token}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"} {
			fmt.Fprintf(&buf, verb+"\n", v)
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		buf.Write(b)
	}
	raw, err := base64.RawURLEncoding.DecodeString(wire[:43])
	if err != nil {
		t.Fatal(err)
	}
	secret := raw[16:]
	for what, leak := range map[string]string{
		"token": wire[:43], "end of the token": wire[22:43],
		"secret in hex": fmt.Sprintf("%x", secret), "secret in decimals": fmt.Sprint(secret),
		"secret as Go bytes": strings.Trim(fmt.Sprintf("%#v", secret), "[]byte{}"),
	} {
		if strings.Contains(buf.String(), leak) {
			t.Errorf("%s was printed", what)
		}
	}
}

func TestID(t *testing.T) {
	id := newToken("").ID()
	got, err := sessionstore.ParseID(id.String())
	if err != nil || got != id {
		t.Errorf("%v, %v", got, err)
	}
	for _, s := range []string{"", "x", strings.ToUpper(id.String()), id.String()[:35], "{" + id.String() + "}", "urn:uuid:" + id.String(), strings.Repeat("g", 36)} {
		if _, err := sessionstore.ParseID(s); err == nil {
			t.Errorf("ParseID(%q) succeeded", s)
		}
	}
	b, _ := json.Marshal(id)
	var back sessionstore.ID
	if err := json.Unmarshal(b, &back); err != nil || back != id {
		t.Errorf("JSON round trip: %v, %v", back, err)
	}
}

func FuzzParseToken(f *testing.F) {
	for _, route := range []string{"", "node1"} {
		f.Add(newToken(route).Reveal())
	}
	f.Add("")
	f.Add(strings.Repeat("A", 43))
	f.Add(strings.Repeat("A", 43) + ".")
	f.Add(strings.Repeat("_", 43) + ".n.m")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := sessionstore.ParseToken(s)
		if err != nil {
			if !errors.Is(err, sessionstore.ErrMalformedToken) || !token.IsZero() {
				t.Errorf("%v, %t", err, token.IsZero())
			}
			return
		}
		if token.Reveal() != s {
			t.Errorf("accepted %q, which is spelled %q", s, token.Reveal())
		}
	})
}
