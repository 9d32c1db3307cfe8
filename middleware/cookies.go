package middleware

import (
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

const (
	// maxTokenCookies is how many cookies of the token's name are looked at in one
	// request. A browser sends one for each Path and Domain they were set with;
	// more than a few are an attack, which should cost no more than a few.
	maxTokenCookies = 16
	// maxClaims is how many of them the database is asked about (P9).
	maxClaims = 4
	// maxVersionBytes is the longest version cookie: 19 digits, dot and tag.
	maxVersionBytes = 19 + 1 + tagChars
	// tagChars is how much of its session's ID a version cookie carries: enough
	// that a version left over from another session is known as such.
	tagChars = 8
)

// cookieNames are the names of an application's cookies.
type cookieNames struct{ token, version string }

// versionCookieName returns the name of an application's version cookie. Bytes of
// the application's name other than A-Z a-z 0-9 - are written as _ and two hex
// digits, so that no two applications share one.
func versionCookieName(token, app string) string {
	var b strings.Builder
	b.WriteString(token)
	b.WriteString("-v-")
	for i := range len(app) {
		c := app[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' {
			b.WriteByte(c)
			continue
		}
		const digits = "0123456789ABCDEF"
		b.Write([]byte{'_', digits[c>>4], digits[c&15]})
	}
	return b.String()
}

// presented is what a request's cookies claim. It holds no more than it needs,
// whatever a client sends.
type presented struct {
	tokens   [maxClaims]sessionstore.Token // well-formed and different from each other
	n        int
	versions [maxClaims]string // version cookies, not parsed
	nv       int
	clash    bool // several cookies of the token's name, with different values
}

// read collects the cookies with our names from a request's Cookie headers.
// Names must match exactly, and quotes mean nothing: a token and a version have
// one spelling, and leniency here would only let others plant cookies.
func (p *presented) read(headers []string, names cookieNames) {
	var first string // value of the first token cookie
	looked := 0
	for _, header := range headers {
		for header != "" {
			var pair string
			pair, header, _ = strings.Cut(header, ";")
			name, value, ok := strings.Cut(trimBlanks(pair), "=")
			switch {
			case !ok:
			case name == names.token && looked < maxTokenCookies:
				if looked++; looked == 1 {
					first = value
				} else if value == first {
					continue
				} else {
					p.clash = true
				}
				p.addToken(value)
			case name == names.version && p.nv < maxClaims && len(value) <= maxVersionBytes:
				p.versions[p.nv] = value
				p.nv++
			}
		}
	}
}

// trimBlanks is strings.Trim(s, " \t"), which takes five times as long.
func trimBlanks(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

func (p *presented) addToken(value string) {
	// The first comparison spares most malformed values the making of an error.
	if len(value) < tokenChars || p.n == maxClaims {
		return
	}
	token, err := sessionstore.ParseToken(value)
	if err != nil {
		return // P9: as good as absent
	}
	for _, other := range p.tokens[:p.n] {
		if other.ID() == token.ID() && other.SecretHash() == token.SecretHash() {
			return // the same claim, perhaps with another route
		}
	}
	p.tokens[p.n] = token
	p.n++
}

// version returns the latest version that the client says it was told of for this
// session, 0 if none.
func (p *presented) version(id sessionstore.ID) (latest sessionstore.Version) {
	for _, value := range p.versions[:p.nv] {
		if v, ok := parseVersion(value, id); ok {
			latest = max(latest, v)
		}
	}
	return latest
}

// formatVersion writes a version cookie's value: the version and the session's tag.
func formatVersion(v sessionstore.Version, id sessionstore.ID) string {
	buf := make([]byte, 0, maxVersionBytes)
	buf = strconv.AppendInt(buf, int64(v), 10)
	buf = append(buf, '.')
	return string(appendTag(buf, id))
}

// parseVersion reads what formatVersion writes, and refuses what it wrote for
// another session.
func parseVersion(value string, id sessionstore.ID) (sessionstore.Version, bool) {
	digits, tag, _ := strings.Cut(value, ".")
	if digits == "" || digits[0] < '1' || digits[0] > '9' {
		return 0, false // versions start at 1; no sign, no leading zero
	}
	var buf [tagChars]byte
	if tag != string(appendTag(buf[:0], id)) {
		return 0, false
	}
	v, err := strconv.ParseInt(digits, 10, 64)
	return sessionstore.Version(v), err == nil
}

// appendTag appends the end of the ID's string, which is random in every kind of UUID.
func appendTag(dst []byte, id sessionstore.ID) []byte {
	return hex.AppendEncode(dst, id[len(id)-tagChars/2:])
}

// tell puts into h what the client must hold from now on.
func (s *Sessions) tell(h http.Header, receipt sessionstore.Receipt) {
	if receipt.Clear {
		s.expire(h, s.names.token)
		s.expire(h, s.names.version)
	}
	if !receipt.Token.IsZero() {
		c := s.cfg.cookie(s.names.token)
		c.Value = receipt.Token.Reveal()
		h.Add("Set-Cookie", c.String())
	}
	if receipt.Version > 0 { // with each save, so it is not made from scratch
		h.Add("Set-Cookie", s.versionCookie.with(formatVersion(receipt.Version, receipt.ID)))
	}
	if receipt.Clear || !receipt.Token.IsZero() {
		// A cache that keeps this response would hand the token, or the end of the
		// session, to others. A version is of no use to them.
		h.Set("Cache-Control", "no-store")
	}
}

// A cookieTemplate is a cookie as a header carries it, around its value.
type cookieTemplate struct{ before, after string }

// template returns c without its value.
func template(c http.Cookie) cookieTemplate {
	const value = "0"
	c.Value = value
	before, after, _ := strings.Cut(c.String(), "="+value)
	return cookieTemplate{before + "=", after}
}

// with returns the cookie with a value that needs no quotes.
func (t cookieTemplate) with(value string) string { return t.before + value + t.after }

func (s *Sessions) expire(h http.Header, name string) {
	c := s.cfg.cookie(name)
	c.MaxAge = -1 // written as Max-Age=0
	h.Add("Set-Cookie", c.String())
}
