package middleware_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/middleware"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

func TestConfigContradictionsAreRefused(t *testing.T) {
	s := newSite(t, options{idle: true})
	for what, test := range map[string]struct {
		cfg  middleware.Config
		want []string // the error names these
	}{
		"name with a space":        {middleware.Config{CookieName: "my session"}, []string{"CookieName", "my session"}},
		"name with =":              {middleware.Config{CookieName: "a=b"}, []string{"CookieName"}},
		"name with ;":              {middleware.Config{CookieName: "a;b"}, []string{"CookieName"}},
		"name not ASCII":           {middleware.Config{CookieName: "sitzung-ü"}, []string{"CookieName"}},
		"name with line break":     {middleware.Config{CookieName: "a\r\nb"}, []string{"CookieName"}},
		"name too long":            {middleware.Config{CookieName: strings.Repeat("n", 100)}, []string{"CookieName", "127"}},
		"__Host- and Domain":       {middleware.Config{CookieName: "__Host-s", Domain: "example.org"}, []string{"__Host-s", "Domain"}},
		"__Host- and Path":         {middleware.Config{CookieName: "__Host-s", Path: "/app"}, []string{"__Host-s", "Path"}},
		"__host- in lower case":    {middleware.Config{CookieName: "__host-s", Path: "/app"}, []string{"__host-s", "Path"}},
		"__Host- and insecure":     {middleware.Config{CookieName: "__Host-s", InsecureCookie: true}, []string{"__Host-s", "InsecureCookie"}},
		"__Secure- and insecure":   {middleware.Config{CookieName: "__Secure-s", InsecureCookie: true}, []string{"__Secure-s", "InsecureCookie"}},
		"None and insecure":        {middleware.Config{SameSite: http.SameSiteNoneMode, InsecureCookie: true}, []string{"SameSite", "InsecureCookie"}},
		"Partitioned and insecure": {middleware.Config{Partitioned: true, InsecureCookie: true}, []string{"Partitioned", "InsecureCookie"}},
		"SameSite left out":        {middleware.Config{SameSite: http.SameSiteDefaultMode}, []string{"SameSite"}},
		"SameSite unknown":         {middleware.Config{SameSite: 9}, []string{"SameSite", "9"}},
		"relative Path":            {middleware.Config{Path: "app"}, []string{"Path", "app"}},
		"Path with ;":              {middleware.Config{Path: "/a;b"}, []string{"Path"}},
		"Domain is no name":        {middleware.Config{Domain: "exa mple.org"}, []string{"Domain"}},
		"negative MaxAge":          {middleware.Config{MaxAge: -time.Second}, []string{"MaxAge"}},
		"MaxAge not in seconds":    {middleware.Config{MaxAge: 1500 * time.Millisecond}, []string{"MaxAge"}},
		"MaxAge of years":          {middleware.Config{MaxAge: 1000 * 24 * time.Hour}, []string{"MaxAge"}},
	} {
		_, err := middleware.New(s.manager, &test.cfg)
		if err == nil {
			t.Errorf("%s: no error", what)
			continue
		}
		for _, part := range append(test.want, "middleware: ") {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: error %q does not name %q", what, err, part)
			}
		}
	}
	if _, err := middleware.New(nil, nil); err == nil {
		t.Error("no error without a manager")
	}
}

// The cookies' attributes (O1-O4), on the token cookie and the version cookie.
func TestCookieAttributes(t *testing.T) {
	for what, test := range map[string]struct {
		cfg  middleware.Config
		name string
		want []string
		not  []string
	}{
		"default": {middleware.Config{}, "__Host-session",
			[]string{"Path=/", "HttpOnly", "Secure", "SameSite=Lax"}, []string{"Domain", "Max-Age", "Expires", "Partitioned"}},
		"insecure": {middleware.Config{InsecureCookie: true}, "session",
			[]string{"Path=/", "HttpOnly", "SameSite=Lax"}, []string{"Secure", "Domain"}},
		"with Domain": {middleware.Config{Domain: "example.org"}, "__Secure-session",
			[]string{"Path=/", "Domain=example.org", "Secure"}, nil},
		"with Path": {middleware.Config{Path: "/app", CookieName: "s"}, "__Secure-s",
			[]string{"Path=/app", "Secure"}, []string{"Domain"}},
		"prefix of its own": {middleware.Config{CookieName: "__Secure-id"}, "__Secure-id", []string{"Path=/", "Secure"}, nil},
		"all of O4": {middleware.Config{CookieName: "SPECIAL", Domain: "universe.com", Path: "/foo", MaxAge: 99 * time.Second, Partitioned: true, SameSite: http.SameSiteStrictMode},
			"__Secure-SPECIAL", []string{"Path=/foo", "Domain=universe.com", "Max-Age=99", "HttpOnly", "Secure", "SameSite=Strict", "Partitioned"}, nil},
		"None": {middleware.Config{SameSite: http.SameSiteNoneMode}, "__Host-session", []string{"SameSite=None", "Secure"}, nil},
	} {
		t.Run(what, func(t *testing.T) {
			s := newSite(t, options{node: "node1"})
			sessions, err := middleware.New(s.manager, &test.cfg)
			if err != nil {
				t.Fatal(err)
			}
			b := newBrowser()
			rep := b.record(sessions.Handler(handler(func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) { s.Start() })), "/")
			lines := rep.Header["Set-Cookie"]
			if len(lines) != 2 {
				t.Fatalf("Set-Cookie: %q, want token and version", lines)
			}
			for i, name := range []string{test.name, test.name + "-v-shop"} {
				if !strings.HasPrefix(lines[i], name+"=") {
					t.Errorf("cookie %q, want name %s", lines[i], name)
				}
				if pair, _, _ := strings.Cut(lines[i], ";"); len(pair) >= 128 {
					t.Errorf("cookie takes %d bytes", len(pair))
				}
				for _, attribute := range test.want {
					if !strings.Contains(lines[i]+";", "; "+attribute+";") {
						t.Errorf("cookie %q lacks %s", lines[i], attribute)
					}
				}
				for _, attribute := range test.not {
					if strings.Contains(lines[i], "; "+attribute) {
						t.Errorf("cookie %q has %s", lines[i], attribute)
					}
				}
			}

			// Ending the session expires the same cookies: same name, Path and Domain.
			rep = b.record(sessions.Handler(handler(func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) { s.Invalidate() })), "/")
			for _, name := range []string{test.name, test.name + "-v-shop"} {
				c := rep.set[name]
				if c == nil || c.MaxAge != -1 || c.Value != "" || c.Domain != test.cfg.Domain || c.Path != pathOf(lines[0]) {
					t.Errorf("%s after Invalidate: %v", name, c)
				}
			}
			want(t, "Cache-Control", rep.Header.Get("Cache-Control"), "no-store")
		})
	}
}

func pathOf(line string) string {
	c, _ := http.ParseSetCookie(line)
	return c.Path
}
