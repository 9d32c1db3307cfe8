package middleware

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

const (
	// DefaultCookieName is the token cookie's name before its prefix.
	DefaultCookieName = "session"

	hostPrefix   = "__Host-"
	securePrefix = "__Secure-"

	// maxCookieBytes bounds name and value of the token cookie, which every
	// request carries.
	maxCookieBytes = 127
	// tokenChars is what a token takes without its route.
	tokenChars = 43
	// maxMaxAge is what browsers cut a cookie's lifetime to (RFC 6265bis).
	maxMaxAge = 400 * 24 * time.Hour
)

// Config configures [Sessions]. The zero value, or nil, is the default and the
// secure choice. Applications that share an ID manager, and so sessions, need the
// same CookieName, Path and Domain.
type Config struct {
	// CookieName names the token cookie. It is sent with the prefix "__Host-", or
	// "__Secure-" if Domain or another Path than "/" rules that out, unless it
	// begins with one of them already. Defaults to "session".
	CookieName string

	// Path is the path below which the client presents the cookies. Defaults to "/".
	Path string

	// Domain lets the hosts below it see the cookies too. Defaults to none: this
	// host only.
	Domain string

	// SameSite says whether the cookies come along when another site links here
	// (Lax), never (Strict), or also with its forms and scripts (None).
	// Defaults to Lax.
	SameSite http.SameSite

	// MaxAge is how long the client keeps the token cookie after it was set, that
	// is after the session was created, renewed or moved from a node that is gone; use does
	// not prolong it, so it should be no less than the session's lifetime. Whole
	// seconds, at most 400 days. Defaults to 0: until the browser is closed.
	MaxAge time.Duration

	// Partitioned gives the cookies a jar of their own for each site this one is
	// embedded in (CHIPS). Defaults to false.
	Partitioned bool

	// InsecureCookie is for development over plain HTTP: no Secure attribute and
	// no prefix, so that anybody on the network can read and set the cookies.
	// Defaults to false.
	InsecureCookie bool

	// ErrorHandler answers a request whose session could not be loaded or
	// committed. w has the headers it had before the wrapped handler ran, and the
	// session's cookies if that handler had stored something with Save; nothing of that
	// handler's own output precedes or follows. It is called at most once for a request,
	// must write a response, and need not log: err is logged already. Its text is not for
	// clients. Defaults to [DefaultErrorHandler].
	ErrorHandler func(w http.ResponseWriter, r *http.Request, err error)

	// Unauthorized answers in [Sessions.RequirePrincipal] where nobody is logged
	// in: a redirection to the login page, for example. It may use the session.
	// Defaults to a plain 401.
	Unauthorized http.Handler

	// Logger hears of cookie clashes, of errors given to ErrorHandler (of a database
	// that does not answer once a second), and of what could not be stored or told
	// after the response had begun. Defaults to [slog.Default].
	Logger *slog.Logger
}

// resolved returns a copy of c with every default in place. node is this node's
// route name, which every token carries.
func (c *Config) resolved(node string) (Config, error) {
	if c == nil {
		c = &Config{}
	}
	r := *c
	r.CookieName = cmp.Or(c.CookieName, DefaultCookieName)
	r.Path = cmp.Or(c.Path, "/")
	r.SameSite = cmp.Or(c.SameSite, http.SameSiteLaxMode)
	if r.ErrorHandler == nil {
		r.ErrorHandler = DefaultErrorHandler
	}
	if r.Unauthorized == nil {
		r.Unauthorized = http.HandlerFunc(unauthorized)
	}
	if r.Logger == nil {
		r.Logger = slog.Default()
	}
	prefixed := hasPrefixFold(r.CookieName, hostPrefix) || hasPrefixFold(r.CookieName, securePrefix)
	if !r.InsecureCookie && !prefixed {
		if r.Domain == "" && r.Path == "/" {
			r.CookieName = hostPrefix + r.CookieName
		} else {
			r.CookieName = securePrefix + r.CookieName
		}
	}
	return r, r.validate(node)
}

func (c *Config) validate(node string) error {
	if i := strings.IndexFunc(c.CookieName, func(r rune) bool { return !isTokenRune(r) }); i >= 0 {
		return fmt.Errorf("middleware: CookieName %q: byte %d is not allowed in a cookie's name", c.CookieName, i)
	}
	longest := len(c.CookieName) + len("=") + tokenChars
	if node != "" {
		longest += len(".") + len(node)
	}
	host := hasPrefixFold(c.CookieName, hostPrefix)
	switch {
	case longest > maxCookieBytes:
		return fmt.Errorf("middleware: CookieName %q makes the cookie %d bytes long, want at most %d", c.CookieName, longest, maxCookieBytes)
	case c.InsecureCookie && (host || hasPrefixFold(c.CookieName, securePrefix)):
		return fmt.Errorf("middleware: CookieName %q has a prefix that needs Secure, which InsecureCookie leaves off", c.CookieName)
	case host && c.Domain != "":
		return fmt.Errorf("middleware: CookieName %q is for one host only, which Domain %q contradicts", c.CookieName, c.Domain)
	case host && c.Path != "/":
		return fmt.Errorf(`middleware: CookieName %q needs Path "/", which Path %q contradicts`, c.CookieName, c.Path)
	case !strings.HasPrefix(c.Path, "/"):
		return fmt.Errorf(`middleware: Path is %q, want one that begins with "/"`, c.Path)
	case c.SameSite != http.SameSiteLaxMode && c.SameSite != http.SameSiteStrictMode && c.SameSite != http.SameSiteNoneMode:
		return fmt.Errorf("middleware: SameSite is %d, want Lax, Strict or None", c.SameSite)
	case c.SameSite == http.SameSiteNoneMode && c.InsecureCookie:
		return errors.New("middleware: SameSite None needs Secure, which InsecureCookie leaves off")
	case c.Partitioned && c.InsecureCookie:
		return errors.New("middleware: Partitioned needs Secure, which InsecureCookie leaves off")
	case c.MaxAge < 0 || c.MaxAge > maxMaxAge || c.MaxAge%time.Second != 0:
		return fmt.Errorf("middleware: MaxAge is %v, want whole seconds, at most %v, or 0 until the browser is closed", c.MaxAge, maxMaxAge)
	}
	probe := c.cookie(c.CookieName)
	if err := probe.Valid(); err != nil { // what is left: Path and Domain
		return fmt.Errorf("middleware: Path %q, Domain %q: %w", c.Path, c.Domain, err)
	}
	return nil
}

// cookie returns a cookie with the attributes that all of ours have.
func (c *Config) cookie(name string) http.Cookie {
	return http.Cookie{
		Name: name, Path: c.Path, Domain: c.Domain,
		MaxAge: int(c.MaxAge / time.Second), Secure: !c.InsecureCookie, HttpOnly: true,
		SameSite: c.SameSite, Partitioned: c.Partitioned,
	}
}

// hasPrefixFold compares as browsers do for these prefixes: without regard to case.
func hasPrefixFold(name, prefix string) bool {
	return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
}

// isTokenRune reports whether r may stand in a token of RFC 9110, such as a cookie's name.
func isTokenRune(r rune) bool {
	return r > ' ' && r < 0x7f && !strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
}
