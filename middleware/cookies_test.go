package middleware_test

import (
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

func unknownToken(route string) string {
	return sessionstore.NewToken(sessionstore.ID(uuid.Must(uuid.NewV7())), route).Reveal()
}

// with returns a browser that sends exactly these cookies.
func with(s *site, header string) reply {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Cookie", header)
	rec := httptest.NewRecorder()
	s.sessions.Handler(handler(func(w http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
		v, _ := name.Get(s)
		w.Write([]byte(v))
	})).ServeHTTP(rec, r)
	return newBrowser().read(rec.Result())
}

// Anonymous traffic is free (P9, K1, N8): neither statement nor cookie.
func TestNoStatementForNoOrMalformedCookies(t *testing.T) {
	s := newSite(t, options{})
	valid := s.started(t).cookie("session")
	for what, header := range map[string]string{
		"no cookies":       "",
		"other cookies":    "theme=dark; lang=de",
		"name only":        "session",
		"empty":            "session=",
		"truncated":        "session=" + valid[:42],
		"one too long":     "session=" + valid + "A",
		"oversized":        "session=" + strings.Repeat("A", 1<<16),
		"wrong alphabet":   "session=" + strings.Replace(valid, valid[10:11], "*", 1),
		"standard base64":  "session=" + valid[:41] + "+/",
		"spare bits":       "session=" + valid[:42] + "_",
		"empty route":      "session=" + valid + ".",
		"two dots":         "session=" + valid + ".a.b",
		"quoted":           `session="` + valid + `"`,
		"a version only":   "session-v-shop=7.aaaaaaaa",
		"garbage version":  "session-v-shop=\x7f\x00",
		"another case":     "Session=" + valid,
		"URL escaped":      "session=%41" + valid[1:],
		"hundreds of them": strings.Repeat("session=x; ", 500),
	} {
		n := s.statements(func() {
			rep := with(s, header)
			if rep.StatusCode != http.StatusOK || rep.body != "" || len(rep.Header["Set-Cookie"]) != 0 {
				t.Errorf("%s: %s %q, %q", what, rep.Status, rep.body, rep.Header["Set-Cookie"])
			}
		})
		if n != 0 {
			t.Errorf("%s: %d statements", what, n)
		}
	}
}

// A refused token is never adopted (P7), costs one statement, and is left with
// the client: a parallel response may just have set a new one.
func TestUnknownTokensAreNeitherAdoptedNorCleared(t *testing.T) {
	s := newSite(t, options{})
	b := s.started(t)
	valid := b.cookie("session")
	unknown := unknownToken("")
	for what, token := range map[string]string{
		"unknown":      unknown,
		"wrong secret": valid[:22] + unknown[22:42] + "A",
		"with route":   unknownToken("node7"),
	} {
		n := s.statements(func() {
			rep := with(s, "session="+token)
			if rep.StatusCode != http.StatusOK || rep.body != "" || len(rep.Header["Set-Cookie"]) != 0 {
				t.Errorf("%s: %s %q, %q", what, rep.Status, rep.body, rep.Header["Set-Cookie"])
			}
		})
		want(t, what+": statements", n, 1)

		fixed := newBrowser()
		fixed.cookies["session"] = token
		rep := fixed.record(s.sessions.Handler(handler(func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) { name.Set(s, "bob") })), "/")
		c := rep.set["session"]
		if what == "wrong secret" { // of a session in use: this may be a request from before a login
			want(t, what+": Set-Cookie lines", len(rep.Header["Set-Cookie"]), 0)
		} else if c == nil || c.Value == token || c.Value[:21] == token[:21] {
			t.Errorf("%s: token adopted: %v", what, c)
		}
	}
	want(t, "the session's name", s.name(b), "ann")
}

// K1, K2, A7: lazily created, one Set-Cookie, none with the next request.
func TestSessionIsCreatedLazilyAndToldOnce(t *testing.T) {
	s := newSite(t, options{node: "node1"})
	b := newBrowser()
	var id sessionstore.ID
	n := s.statements(func() {
		rep := b.record(s.sessions.Handler(handler(func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
			if _, ok := name.Get(s); ok || !s.IsNew() || s.Claimed() {
				t.Error("a session without having one")
			}
			id = s.ID() // asking stores nothing
		})), "/")
		want(t, "Set-Cookie lines", len(rep.Header["Set-Cookie"]), 0)
		want(t, "Cache-Control", rep.Header.Get("Cache-Control"), "")
	})
	want(t, "statements", n, 0)

	rep := b.record(s.sessions.Handler(handler(func(w http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
		name.Set(s, "ann")
		id = s.ID()
		w.Header().Set("Cache-Control", "public, max-age=60")
		http.SetCookie(w, &http.Cookie{Name: "theme", Value: "dark"})
	})), "/")
	want(t, "Set-Cookie lines", len(rep.Header["Set-Cookie"]), 3)
	want(t, "the handler's own cookie", rep.set["theme"].Value, "dark")
	want(t, "Cache-Control with a token", rep.Header.Get("Cache-Control"), "no-store")
	token := rep.set["session"].Value
	if !strings.HasSuffix(token, ".node1") || len(token) != 43+len(".node1") { // A7
		t.Errorf("token has %d bytes", len(token))
	}
	if strings.Contains(id.String(), "node1") {
		t.Error("the ID names the node")
	}
	if v := rep.set["session-v-shop"].Value; v != "1."+id.String()[28:] {
		t.Errorf("version cookie is %q", v)
	}

	rep = b.record(s.sessions.Handler(handler(func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
		if v, _ := name.Get(s); v != "ann" || s.IsNew() || s.ID() != id {
			t.Errorf("name %q, new %t", v, s.IsNew())
		}
	})), "/")
	want(t, "Set-Cookie lines", len(rep.Header["Set-Cookie"]), 0)

	// A change tells of the new version only, and leaves caching to the handler.
	rep = b.record(s.sessions.Handler(handler(func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) { color.Set(s, "red") })), "/")
	want(t, "Set-Cookie lines", len(rep.Header["Set-Cookie"]), 1)
	want(t, "Cache-Control", rep.Header.Get("Cache-Control"), "")
	if v := rep.set["session-v-shop"].Value; !strings.HasPrefix(v, "2.") {
		t.Errorf("version cookie is %q", v)
	}
	want(t, "name (K3)", s.name(b), "ann")
}

// K4, K6, L10: what is begun and ended within one request.
func TestCreateInvalidateCreate(t *testing.T) {
	s := newSite(t, options{})
	b := newBrowser()
	n := s.statements(func() {
		rep := b.record(s.sessions.Handler(handler(func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
			name.Set(s, "ann")
			s.Invalidate()
		})), "/")
		want(t, "Set-Cookie lines (K4)", len(rep.Header["Set-Cookie"]), 0)
	})
	want(t, "statements (K4)", n, 0)

	b = s.started(t)
	old := b.cookie("session")
	rep := b.record(s.sessions.Handler(handler(func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
		s.Invalidate()
		if _, ok := name.Get(s); ok || !s.IsNew() || s.Claimed() { // N10
			t.Error("still the old session")
		}
		name.Set(s, "bob")
	})), "/")
	lines := 0
	for _, line := range rep.Header["Set-Cookie"] {
		if strings.HasPrefix(line, "session=") {
			lines++
		}
	}
	want(t, "Set-Cookie lines for the token (K6)", lines, 1)
	if b.cookie("session") == old {
		t.Error("the token stays")
	}
	want(t, "name", s.name(b), "bob")
	want(t, "name by the old cookie", with(s, "session="+old).body, "")
}

// A logout clears both cookies, and the old ones are worth nothing (P3, K10).
func TestInvalidateClearsTheCookies(t *testing.T) {
	s := newSite(t, options{})
	b := s.started(t)
	stolen := b.clone()
	rep := b.record(s.sessions.Handler(handler(func(w http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
		s.Invalidate()
		w.Header().Set("Cache-Control", "public")
	})), "/")
	want(t, "Set-Cookie lines", len(rep.Header["Set-Cookie"]), 2)
	want(t, "cookies left", b.header(), "")
	want(t, "Cache-Control", rep.Header.Get("Cache-Control"), "no-store")
	want(t, "name by the old cookies", s.name(stolen), "")
}

// A9, A10: an expired session's cookie begins another session.
func TestExpiredSessionBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, options{store: sessionstore.Config{IdleTimeout: time.Minute}})
		b := s.started(t)
		old := b.cookie("session")
		time.Sleep(2 * time.Minute)
		rep := b.record(s.sessions.Handler(handler(func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {})), "/")
		want(t, "Set-Cookie lines", len(rep.Header["Set-Cookie"]), 0)
		b.record(s.sessions.Handler(handler(func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
			if _, ok := name.Get(s); ok {
				t.Error("expired data")
			}
			color.Set(s, "red")
		})), "/")
		if b.cookie("session")[:20] == old[:20] {
			t.Error("same ID")
		}
	})
}

// The first valid one of several session cookies is used (P1-P6 of the
// reference's scenarios), each claim is asked about once, and the clash is logged
// and counted.
func TestDuplicateCookies(t *testing.T) {
	s := newSite(t, options{})
	b := s.started(t)
	v, d := b.cookie("session"), b.cookie("session-v-shop")
	other := s.started(t).cookie("session")
	u1, u2, u3, u4 := unknownToken(""), unknownToken(""), unknownToken(""), unknownToken("")
	for what, test := range map[string]struct {
		tokens     []string
		body       string
		statements int64
		clash      int64
	}{
		"P1 unknown, valid":          {[]string{u1, v}, "ann", 1, 1},
		"P2 valid first":             {[]string{v, u1, u2}, "ann", 0, 1},
		"P3 valid last":              {[]string{u1, u2, v}, "ann", 2, 1},
		"P4 valid between":           {[]string{u1, v, u2}, "ann", 1, 1},
		"P5 two valid, the first":    {[]string{v, other}, "ann", 0, 1},
		"P6 identical":               {[]string{v, v, v}, "ann", 0, 0},
		"malformed, valid":           {[]string{"junk", v}, "ann", 0, 1},
		"the same unknown again":     {[]string{u1, u1, u1, v}, "ann", 1, 1},
		"all unknown":                {[]string{u1, u2}, "", 2, 1},
		"too many unknown before it": {[]string{u1, u2, u3, u4, v}, "", 4, 1},
		"all malformed":              {[]string{"a", "b"}, "", 0, 1},
	} {
		clashes := s.sessions.Stats().CookieClashes
		n := s.statements(func() {
			rep := with(s, "session="+strings.Join(test.tokens, "; session=")+"; session-v-shop="+d)
			want(t, what+": name", rep.body, test.body)
			want(t, what+": Set-Cookie lines", len(rep.Header["Set-Cookie"]), 0)
		})
		want(t, what+": statements", n, test.statements)
		want(t, what+": clashes", s.sessions.Stats().CookieClashes-clashes, test.clash)
		want(t, what+": requests in flight", s.manager.Stats().ActiveRequests, 0)
	}
	if n := strings.Count(s.logs.String(), "several session cookies"); n == 0 || n > 5 { // anybody can cause them
		t.Errorf("logged %d times", n)
	}
	if log := s.logs.String(); !strings.Contains(log, "several session cookies") || strings.Contains(log, v) || strings.Contains(log, u1) { // P8
		t.Errorf("log: %s", log)
	}
}

// P4: a version cookie of another session, or garbage, costs a question and
// never an error; without it the answer is told again.
func TestVersionCookieFromElsewhereCountsAsAbsent(t *testing.T) {
	s := newSite(t, options{})
	b, other := s.started(t), s.started(t)
	own := b.cookie("session-v-shop")
	for what, test := range map[string]struct {
		version    string
		statements int64
		told       int
	}{
		"own":              {own, 0, 0},
		"another's":        {other.cookie("session-v-shop"), 1, 1},
		"absent":           {"", 1, 1},
		"garbage":          {"garbage", 1, 1},
		"oversized":        {strings.Repeat("1", 5000), 1, 1},
		"zero":             {strings.Replace(own, "1.", "0.", 1), 1, 1},
		"from the future":  {strings.Replace(own, "1.", "9.", 1), 1, 1},
		"own among others": {"x; session-v-shop=" + own + "; session-v-shop=" + other.cookie("session-v-shop"), 0, 0},
	} {
		n := s.statements(func() {
			rep := with(s, "session="+b.cookie("session")+"; session-v-shop="+test.version)
			want(t, what+": name", rep.body, "ann")
			want(t, what+": Set-Cookie lines", len(rep.Header["Set-Cookie"]), test.told)
		})
		want(t, what+": statements", n, test.statements)
	}
}

// P4: with the cookies it was last given, a client reads its own writes on any node.
func TestReadYourWritesAcrossNodes(t *testing.T) {
	one := newSite(t, options{node: "node1"})
	two := newSite(t, options{node: "node2", memory: one.memory})
	b, first := newBrowser(), ""
	for i := range 20 {
		s := []*site{one, two}[i%2]
		rep := b.record(s.sessions.Handler(handler(func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
			if n, _ := visits.Get(s); n != i {
				t.Errorf("request %d reads %d", i, n)
			}
			visits.Set(s, i+1)
		})), "/")
		want(t, "status", rep.StatusCode, http.StatusOK)
		if i == 0 {
			first = b.cookie("session")[:43]
		}
		want(t, "token without route", b.cookie("session")[:43], first)
	}
}

// Applications share the token cookie and keep version cookies apart.
func TestApplicationsShareTheToken(t *testing.T) {
	shop := newSite(t, options{})
	office := shop.sibling(t, "/back/office")
	b := shop.started(t)
	token := b.cookie("session")
	rep := with(office, "session="+token+"; session="+unknownToken(""))
	want(t, "Set-Cookie lines", len(rep.Header["Set-Cookie"]), 0)
	// A claim that a sibling proves is accepted: the next cookie is not tried.
	both := newBrowser()
	both.cookies["session"] = unknownToken("") + "; session=" + token + "; session=" + unknownToken("")
	n := shop.statements(func() {
		office.look(both, func(s *sessionstore.Session) { want(t, "claimed", s.Claimed(), true) })
	})
	want(t, "statements", n, 2)
	rep = b.record(office.sessions.Handler(handler(func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
		if _, ok := name.Get(s); ok || !s.IsNew() || !s.Claimed() {
			t.Errorf("attributes shared, or claim refused: %t", s.Claimed())
		}
		name.Set(s, "clerk")
	})), "/")
	if rep.set["session"] != nil || rep.set["session-v-_2Fback_2Foffice"] == nil || b.cookie("session") != token {
		t.Errorf("Set-Cookie %q", rep.Header["Set-Cookie"])
	}
	want(t, "name in the shop", shop.name(b), "ann")
	want(t, "name in the office", office.name(b), "clerk")

	// Renewed in one, renewed in all; the other's version cookie is none the worse.
	b.record(shop.sessions.Handler(handler(func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) { s.SetPrincipal("ann") })), "/")
	want(t, "token renewed", b.cookie("session") != token, true)
	want(t, "name in the office", office.name(b), "clerk")
	b.record(office.sessions.Handler(handler(func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) { s.Invalidate() })), "/")
	want(t, "name in the shop", shop.name(b), "")
}

// A jar that checks what browsers check accepts the default cookies, over TLS.
func TestDefaultCookiesInARealJar(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		s := newSite(t, options{secure: true, node: "node1"})
		server := httptest.NewUnstartedServer(s.sessions.Handler(handler(func(w http.ResponseWriter, r *http.Request, s *sessionstore.Session) {
			visits.Update(s, func(n int) int { return n + 1 })
			w.Write([]byte(r.Proto))
		})))
		server.EnableHTTP2 = http2
		server.StartTLS()
		t.Cleanup(server.Close)
		client := server.Client()
		client.Jar, _ = cookiejar.New(nil)
		for range 3 {
			resp, err := client.Get(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			rep := newBrowser().read(resp)
			want(t, "HTTP/2", rep.body == "HTTP/2.0", http2)
		}
		want(t, "sessions created", s.manager.Stats().Created, 1)
		want(t, "saves", s.manager.Stats().Saved, 2)
	}
}
