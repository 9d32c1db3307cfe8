package middleware

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/uuid"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

func newToken(route string) sessionstore.Token {
	return sessionstore.NewToken(sessionstore.ID(uuid.Must(uuid.NewV7())), route)
}

// Applications never share a version cookie (X25).
func TestVersionCookieNamesAreDistinctTokens(t *testing.T) {
	seen := make(map[string]string)
	for _, app := range []string{"shop", "Shop", "shop-v-office", "/a/b", "/a_b", "_2Fa_2Fb", "a b", "a=b", "ü", "\x01", "a.b", "a_2Eb", "_", "__", "-"} {
		name := versionCookieName("session", app)
		if other, ok := seen[name]; ok {
			t.Errorf("%q and %q share %s", app, other, name)
		}
		seen[name] = app
		for _, r := range name {
			if !isTokenRune(r) {
				t.Errorf("%q makes %q, which is no cookie name", app, name)
			}
		}
	}
	for app, want := range map[string]string{"shop": "session-v-shop", "/a/b": "session-v-_2Fa_2Fb", "/a_b": "session-v-_2Fa_5Fb"} {
		if got := versionCookieName("session", app); got != want {
			t.Errorf("version cookie of %s is %s, want %s", app, got, want)
		}
	}
}

func TestVersionCookieOfThisSessionOnly(t *testing.T) {
	id, other := newToken("").ID(), newToken("").ID()
	for _, v := range []sessionstore.Version{1, 9, 10, 12345, math.MaxInt64} {
		value := formatVersion(v, id)
		if got, ok := parseVersion(value, id); !ok || got != v {
			t.Errorf("%s reads %d, %t", value, got, ok)
		}
		if len(value) > maxVersionBytes {
			t.Errorf("%s takes %d bytes", value, len(value))
		}
		if _, ok := parseVersion(value, other); ok {
			t.Errorf("%s counts for another session", value)
		}
	}
	tag := string(appendTag(nil, id))
	for _, bad := range []string{"", ".", "1", "1.", "." + tag, "0." + tag, "-1." + tag, "+1." + tag, "01." + tag, " 1." + tag,
		"1_0." + tag, "1e3." + tag, "0x1." + tag, "1." + tag + "0", "1." + tag[1:], "1." + strings.ToUpper(tag) + "!", "1." + tag + ".2",
		"9223372036854775808." + tag, "99999999999999999999." + tag, strings.Repeat("9", 4000) + "." + tag} {
		if v, ok := parseVersion(bad, id); ok {
			t.Errorf("%q reads %d", bad, v)
		}
	}
}

func TestCookieHeadersAreRead(t *testing.T) {
	names := cookieNames{token: "session", version: "session-v-shop"}
	a, b := newToken(""), newToken("node1")
	ta, tb := a.Reveal(), b.Reveal()
	for what, test := range map[string]struct {
		headers  []string
		tokens   []string
		versions []string
		clash    bool
	}{
		"nothing":                 {nil, nil, nil, false},
		"others only":             {[]string{"theme=dark; session2=" + ta + "; Session=" + ta}, nil, nil, false},
		"token":                   {[]string{"session=" + ta}, []string{ta}, nil, false},
		"token with route":        {[]string{"x=1; session=" + tb + "; y=2"}, []string{tb}, nil, false},
		"both":                    {[]string{"session-v-shop=3.aa; session=" + ta}, []string{ta}, []string{"3.aa"}, false},
		"no spaces, many":         {[]string{"a=1;session=" + ta + ";\tb=2 ;; ;"}, []string{ta}, nil, false},
		"two headers":             {[]string{"session=" + ta, "session-v-shop=1.bb"}, []string{ta}, []string{"1.bb"}, false},
		"empty, and bare name":    {[]string{"session; session="}, nil, nil, false},
		"quoted":                  {[]string{`session="` + ta + `"`}, nil, nil, false},
		"malformed and valid":     {[]string{"session=garbage; session=" + ta}, []string{ta}, nil, true},
		"identical":               {[]string{"session=" + ta + "; session=" + ta}, []string{ta}, nil, false},
		"same claim, other route": {[]string{"session=" + ta + "; session=" + a.WithRoute("n2").Reveal()}, []string{ta}, nil, true},
		"different":               {[]string{"session=" + ta + "; session=" + tb}, []string{ta, tb}, nil, true},
		"planted name":            {[]string{" session =" + ta + "; \u2003session=" + ta}, nil, nil, false},
		"huge version":            {[]string{"session-v-shop=" + strings.Repeat("1", 50)}, nil, nil, false},
		"value with =":            {[]string{"session=" + ta + "=="}, nil, nil, false},
	} {
		var p presented
		p.read(test.headers, names)
		var tokens []string
		for _, token := range p.tokens[:p.n] {
			tokens = append(tokens, token.Reveal())
		}
		if !slices.Equal(tokens, test.tokens) || !slices.Equal(p.versions[:p.nv], test.versions) || p.clash != test.clash {
			t.Errorf("%s: %d tokens, versions %q, clash %t", what, p.n, p.versions[:p.nv], p.clash)
		}
	}
}

// P4: of several versions told for one session, the latest must be read.
func TestLatestVersionCounts(t *testing.T) {
	id, other := newToken("").ID(), newToken("").ID()
	var p presented
	p.read([]string{"v=" + formatVersion(2, id) + "; v=" + formatVersion(5, id) + "; v=" + formatVersion(3, id) + "; v=" + formatVersion(9, other)},
		cookieNames{token: "s", version: "v"})
	if got := p.version(id); got != 5 {
		t.Errorf("version %d, want 5", got)
	}
}

// Whatever a client sends, few cookies are looked at and fewer tried (P9).
func TestReadingCookiesIsBounded(t *testing.T) {
	names := cookieNames{token: "s", version: "v"}
	var many strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&many, "s=%s; v=%d.aaaaaaaa; ", newToken("").Reveal(), i+1)
	}
	var p presented
	p.read([]string{many.String()}, names)
	if p.n != maxClaims || p.nv != maxClaims || !p.clash {
		t.Errorf("%d tokens, %d versions, clash %t", p.n, p.nv, p.clash)
	}

	// A valid one behind a few malformed ones is found, behind very many not.
	valid := newToken("").Reveal()
	for n, want := range map[int]int{maxTokenCookies - 1: 1, maxTokenCookies: 0} {
		var header strings.Builder
		for i := range n {
			fmt.Fprintf(&header, "s=junk%d; ", i)
		}
		var p presented
		p.read([]string{header.String() + "s=" + valid}, names)
		if p.n != want {
			t.Errorf("behind %d: %d tokens, want %d", n, p.n, want)
		}
	}
}

func TestReadingCookiesDoesNotAllocate(t *testing.T) {
	token := newToken("node1")
	header := []string{"theme=dark; session=" + token.Reveal() + "; session-v-shop=" + formatVersion(7, token.ID())}
	names := cookieNames{token: "session", version: "session-v-shop"}
	got := testing.AllocsPerRun(100, func() {
		var p presented
		p.read(header, names)
		if p.version(p.tokens[0].ID()) != 7 {
			t.Error("version not read")
		}
	})
	if got > 2 { // the token itself and its route
		t.Errorf("%v allocations, want at most 2", got)
	}
}

func FuzzCookieHeader(f *testing.F) {
	token := newToken("node1")
	f.Add("session=" + token.Reveal() + "; session-v-shop=" + formatVersion(7, token.ID()))
	f.Add("session=; session; =; ;;session==")
	f.Add("session=" + strings.Repeat("A", 43) + "; session=" + strings.Repeat("A", 42) + "B")
	f.Add("\x00session=\xff; session-v-shop=9223372036854775807.")
	names := cookieNames{token: "session", version: "session-v-shop"}
	f.Fuzz(func(t *testing.T, header string) {
		var p presented
		p.read([]string{header}, names)
		if p.n > maxClaims || p.nv > maxClaims {
			t.Fatalf("%d tokens, %d versions", p.n, p.nv)
		}
		for i, token := range p.tokens[:p.n] {
			if !strings.Contains(header, token.Reveal()) {
				t.Fatal("a token that was not presented")
			}
			for _, other := range p.tokens[:i] {
				if other.Reveal() == token.Reveal() {
					t.Fatal("a token twice")
				}
			}
			_ = p.version(token.ID())
		}
		// What net/http finds first and is well-formed, this finds too, but for the
		// control characters that no header it has received can hold.
		if strings.ContainsFunc(header, unicode.IsControl) {
			return
		}
		for _, c := range (&http.Request{Header: http.Header{"Cookie": {header}}}).CookiesNamed("session") {
			if c.Quoted || p.n > 0 || strings.Count(header, "session") > maxTokenCookies {
				break
			}
			if _, err := sessionstore.ParseToken(c.Value); err == nil && strings.Contains(header, "session="+c.Value) && !strings.Contains(header, "session= ") {
				t.Fatalf("net/http reads a token in %q", header)
			}
		}
	})
}

func FuzzVersionCookie(f *testing.F) {
	id := sessionstore.ID(uuid.MustParse("0198f6a4-7f3e-7c1b-9e58-3f0d8a6b2c11"))
	f.Add("1.8a6b2c11")
	f.Add("9223372036854775807.8a6b2c11")
	f.Add("9223372036854775808.8a6b2c11")
	f.Add("-0.8a6b2c11")
	f.Fuzz(func(t *testing.T, value string) {
		v, ok := parseVersion(value, id)
		if ok && (v < 1 || formatVersion(v, id) != value) {
			t.Fatalf("%q reads %d, written %q", value, v, formatVersion(v, id))
		}
	})
}
