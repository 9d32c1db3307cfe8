package main

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"
	"github.com/holdfast-sessions/holdfast/examples/frameworks/hello"
	"github.com/holdfast-sessions/holdfast/middleware"
)

// A site is the shop on nodes of both versions.
type site struct {
	http.Handler
	old  *scs.SessionManager
	slow chan chan struct{} // requests of /slow, and what each waits for
}

func newSite(t *testing.T) *site {
	t.Helper()
	app, err := hello.App()
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := middleware.New(app, &middleware.Config{InsecureCookie: true})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{old: oldSessions(), slow: make(chan chan struct{})}
	shop := shop(s.old, app)
	mux := http.NewServeMux()
	mux.Handle("/", shop)
	mux.HandleFunc("GET /slow", func(w http.ResponseWriter, r *http.Request) {
		proceed := make(chan struct{})
		s.slow <- proceed
		<-proceed
		r.URL.Path = "/"
		shop.ServeHTTP(w, r)
	})
	mux.HandleFunc("GET /panic", func(http.ResponseWriter, *http.Request) { panic("oops") })
	both := http.NewServeMux()
	both.Handle("/old/", oldShop(s.old))
	both.Handle("/", s.old.LoadAndSave(sessions.Handler(carryOver(s.old, mux))))
	s.Handler = both
	return s
}

// A browser is the cookies of one.
type browser map[string]string

// send returns the answer to a request, which has not reached the browser yet.
func (b browser) send(s *site, method, path string, form ...string) *http.Response {
	values := url.Values{}
	for i := 0; i < len(form); i += 2 {
		values.Set(form[i], form[i+1])
	}
	r := httptest.NewRequest(method, path, strings.NewReader(values.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for name, value := range b {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	rec := httptest.NewRecorder()
	s.ServeHTTP(rec, r)
	return rec.Result()
}

// receive takes the cookies of an answer.
func (b browser) receive(resp *http.Response) {
	for _, c := range resp.Cookies() {
		if c.MaxAge < 0 {
			delete(b, c.Name)
		} else {
			b[c.Name] = c.Value
		}
	}
}

func (b browser) post(t *testing.T, s *site, path string, form ...string) {
	t.Helper()
	resp := b.send(s, "POST", path, form...)
	if resp.StatusCode != http.StatusSeeOther {
		t.Fatalf("POST %s: %s", path, resp.Status)
	}
	b.receive(resp)
}

// want looks at a page, "/" or "/old/".
func (b browser) want(t *testing.T, s *site, path, want string) {
	t.Helper()
	resp := b.send(s, "GET", path)
	if got := text(t, resp); got != want {
		t.Errorf("%s shows %s, want %s", path, got, want)
	}
	b.receive(resp)
}

func text(t *testing.T, resp *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`<p>(?:new|old): (.*)</p>`).FindSubmatch(body)
	if m == nil {
		t.Fatalf("%s: %s", resp.Status, body)
	}
	return string(m[1])
}

// ann returns a browser that the old version has logged in, with a rope in the cart.
func ann(t *testing.T, s *site) browser {
	t.Helper()
	b := browser{}
	b.post(t, s, "/old/login", "user", "ann")
	b.post(t, s, "/old/cart", "item", "rope")
	return b
}

func (b browser) has(name string) bool { _, ok := b[name]; return ok }

// Whoever was logged in before stays so, with another cookie, and the old session is
// over as soon as the browser has presented the new one.
func TestCarryOver(t *testing.T) {
	s := newSite(t)
	b := browser{}
	b.want(t, s, "/", "user nobody, cart map[]")
	if len(b) > 0 {
		t.Errorf("a visitor has the cookies %v", b)
	}
	b = ann(t, s)
	stolen := maps.Clone(b)
	b.want(t, s, "/", "user ann, cart map[rope:1]")
	if !b.has("session") || !b.has("old_session") {
		t.Errorf("after one answer the cookies are %v, want both", b)
	}
	b.post(t, s, "/cart", "item", "rope")
	if b.has("old_session") {
		t.Error("the old cookie is still there")
	}
	b.want(t, s, "/", "user ann, cart map[rope:2]")
	stolen.want(t, s, "/old/", "user nobody, cart map[]")
}

// A client that has not received the answer begins again.
func TestLostAnswer(t *testing.T) {
	s := newSite(t)
	b := ann(t, s)
	b.send(s, "GET", "/")
	func() {
		defer func() { _ = recover() }()
		b.send(s, "GET", "/panic")
	}()
	b.want(t, s, "/", "user ann, cart map[rope:1]")
	b.send(s, "GET", "/") // ends the old session, and is not received either
	b.want(t, s, "/", "user ann, cart map[rope:1]")
}

// Of two first requests at the same time each is served as logged in, and so is the
// browser, whichever answer arrives last.
func TestParallelFirstRequests(t *testing.T) {
	s := newSite(t)
	for _, slowLast := range []bool{true, false} {
		b := ann(t, s)
		answer := make(chan *http.Response)
		go func(b browser) { answer <- b.send(s, "GET", "/slow") }(maps.Clone(b))
		proceed := <-s.slow
		quick := b.send(s, "GET", "/")
		close(proceed)
		slow := <-answer
		for _, resp := range []*http.Response{quick, slow} {
			if got, want := text(t, resp), "user ann, cart map[rope:1]"; got != want {
				t.Errorf("one shows %s, want %s", got, want)
			}
		}
		b.receive(quick)
		b.receive(slow)
		if !slowLast {
			b.receive(quick)
		}
		b.want(t, s, "/", "user ann, cart map[rope:1]")
		b.want(t, s, "/", "user ann, cart map[rope:1]")
	}
}

// A login on a node of the old version is later than the new session, and wins. The same
// user's does not undo what he did here.
func TestOldLoginWins(t *testing.T) {
	s := newSite(t)
	b := ann(t, s)
	b.want(t, s, "/", "user ann, cart map[rope:1]")
	b.want(t, s, "/", "user ann, cart map[rope:1]")
	before := maps.Clone(b)
	b.want(t, s, "/old/", "user nobody, cart map[]")
	b.post(t, s, "/old/login", "user", "bob")
	b.want(t, s, "/", "user bob, cart map[]")
	b.want(t, s, "/", "user bob, cart map[]")
	before.want(t, s, "/", "user nobody, cart map[]")

	b.post(t, s, "/cart", "item", "lantern")
	b.post(t, s, "/old/login", "user", "bob")
	b.want(t, s, "/", "user bob, cart map[lantern:1]")
	if b.has("old_session") {
		t.Error("the old cookie is still there")
	}
}

// A login here, be it the first request, is not undone by the old session.
func TestLogin(t *testing.T) {
	for _, carried := range []bool{false, true} {
		s := newSite(t)
		b := ann(t, s)
		if carried {
			b.want(t, s, "/", "user ann, cart map[rope:1]")
		}
		b.post(t, s, "/login", "user", "bob")
		b.want(t, s, "/", "user bob, cart map[]")
		b.want(t, s, "/", "user bob, cart map[]")
	}
}

// A logout ends both, be it the first request.
func TestLogout(t *testing.T) {
	for _, carried := range []bool{false, true} {
		s := newSite(t)
		b := ann(t, s)
		if carried {
			b.want(t, s, "/", "user ann, cart map[rope:1]")
		}
		before := maps.Clone(b)
		b.post(t, s, "/logout")
		for _, b := range []browser{b, before} {
			b.want(t, s, "/", "user nobody, cart map[]")
			b.want(t, s, "/old/", "user nobody, cart map[]")
		}
	}
}

// A user's other devices are logged out, whether they were carried over or not, and
// nobody else's.
func TestLogoutEverywhere(t *testing.T) {
	s := newSite(t)
	laptop, phone, tablet := ann(t, s), ann(t, s), ann(t, s)
	bob := browser{}
	bob.post(t, s, "/old/login", "user", "bob")
	phone.want(t, s, "/", "user ann, cart map[rope:1]")
	laptop.post(t, s, "/logout-everywhere")
	for _, b := range []browser{laptop, phone, tablet} {
		b.want(t, s, "/", "user nobody, cart map[]")
	}
	bob.want(t, s, "/", "user bob, cart map[]")
}

// A guest keeps the cart, also through a login.
func TestGuest(t *testing.T) {
	s := newSite(t)
	b := browser{}
	b.post(t, s, "/old/cart", "item", "rope")
	other := maps.Clone(b)
	b.want(t, s, "/", "user nobody, cart map[rope:1]")
	b.want(t, s, "/", "user nobody, cart map[rope:1]")
	if b.has("old_session") {
		t.Error("the old cookie is still there")
	}
	other.want(t, s, "/old/", "user nobody, cart map[]")

	b = browser{}
	b.post(t, s, "/old/cart", "item", "rope")
	b.post(t, s, "/login", "user", "ann")
	b.want(t, s, "/", "user ann, cart map[rope:1]")
}

// What cannot end an old session does not say that it has logged out.
func TestOldStoreFails(t *testing.T) {
	s := newSite(t)
	store := &failingStore{MemStore: memstore.NewWithCleanupInterval(0)}
	s.old.Store = store
	b := ann(t, s)
	b.want(t, s, "/", "user ann, cart map[rope:1]")
	store.fails = true
	b.want(t, s, "/", "user ann, cart map[rope:1]")
	for _, path := range []string{"/logout", "/login", "/logout-everywhere"} {
		if resp := b.send(s, "POST", path, "user", "bob"); resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	store.fails = false
	b.post(t, s, "/logout")
	b.want(t, s, "/", "user nobody, cart map[]")
}

// A failingStore cannot delete.
type failingStore struct {
	*memstore.MemStore
	fails bool
}

func (f *failingStore) Delete(token string) error {
	if f.fails {
		return errors.New("no database")
	}
	return f.MemStore.Delete(token)
}

// A slow request does not store an old session again that ended meanwhile, as it would
// with the old library's idle timeout.
func TestOldSessionsAreNotRevived(t *testing.T) {
	s := newSite(t)
	b := ann(t, s)
	b.want(t, s, "/", "user ann, cart map[rope:1]")
	answer := make(chan *http.Response)
	go func(b browser) { answer <- b.send(s, "GET", "/slow") }(browser{"old_session": b["old_session"]})
	proceed := <-s.slow
	old := browser{"old_session": b["old_session"]}
	b.want(t, s, "/", "user ann, cart map[rope:1]") // ends the old one
	close(proceed)
	<-answer
	old.want(t, s, "/old/", "user nobody, cart map[]")
}
