package middleware_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/holdfast-sessions/holdfast/middleware"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// K14: handlers within handlers see one session, committed once.
func TestNestedHandlersShareTheSession(t *testing.T) {
	s := newSite(t, options{})
	var outer *sessionstore.Session
	inner := s.sessions.Handler(handler(func(w http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
		want(t, "same session", s == outer, true)
		name.Set(s, "ann")
	}))
	b := newBrowser()
	rep := b.record(s.sessions.Handler(handler(func(w http.ResponseWriter, r *http.Request, s *sessionstore.Session) {
		outer = s
		inner.ServeHTTP(w, r)
		v, _ := name.Get(s)
		color.Set(s, v+"'s")
	})), "/")
	want(t, "Set-Cookie lines", len(rep.Header["Set-Cookie"]), 2)
	want(t, "created", s.manager.Stats().Created, 1)
	s.look(b, func(s *sessionstore.Session) {
		v, _ := color.Get(s)
		want(t, "set after the chain", v, "ann's")
	})
}

// Two applications in one chain each have their session, also with the first once
// more inside; each sets its own version cookie, and the token once.
func TestNestedApplications(t *testing.T) {
	shop := newSite(t, options{})
	office := shop.sibling(t, "office")
	b := shop.started(t)
	h := shop.sessions.Handler(handler(func(w http.ResponseWriter, r *http.Request, outer *sessionstore.Session) {
		office.sessions.Handler(handler(func(w http.ResponseWriter, r *http.Request, s *sessionstore.Session) {
			want(t, "office's session differs", s != outer, true)
			name.Set(s, "clerk")
			visits.Update(s, func(n int) int { return n + 1 })
			shop.sessions.Handler(handler(func(w http.ResponseWriter, r *http.Request, s *sessionstore.Session) {
				want(t, "shop's session again", s == outer, true)
				name.Set(s, "bob")
				visits.Update(s, func(n int) int { return n + 1 })
				w.Write([]byte("ok"))
			})).ServeHTTP(w, r)
		})).ServeHTTP(w, r)
	}))
	rep := b.record(h, "/")
	want(t, "Set-Cookie lines", len(rep.Header["Set-Cookie"]), 2)
	want(t, "name in the shop", shop.name(b), "bob")
	want(t, "name in the office", office.name(b), "clerk")

	// Where neither can commit, one error handler's answer gets out.
	shop.backend.fail("Update")
	rep = b.record(h, "/")
	want(t, "status", rep.StatusCode, http.StatusServiceUnavailable)
	want(t, "answers", strings.Count(rep.body, "Sessions are unavailable"), 1)
	want(t, "Set-Cookie lines", len(rep.Header["Set-Cookie"]), 0)
}

func TestRequirePrincipal(t *testing.T) {
	s := newSite(t, options{cookie: middleware.Config{Unauthorized: nil}})
	h := s.sessions.Handler(s.sessions.RequirePrincipal(handler(func(w http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
		w.Write([]byte("hello " + s.Principal()))
	})))
	b := newBrowser()
	rep := b.record(h, "/")
	want(t, "status", rep.StatusCode, http.StatusUnauthorized)
	want(t, "Cache-Control", rep.Header.Get("Cache-Control"), "no-store")
	s.do(b, func(s *sessionstore.Session) { s.SetPrincipal("ann") })
	want(t, "body", b.record(h, "/").body, "hello ann")
	s.do(b, func(s *sessionstore.Session) { s.SetPrincipal("") })
	want(t, "status after logout", b.record(h, "/").StatusCode, http.StatusUnauthorized)
}

// U1, U2, U4, U5: a login page that remembers where one wanted to go.
func TestRedirectionToTheLoginPage(t *testing.T) {
	s := newSite(t, options{cookie: middleware.Config{Unauthorized: handler(func(w http.ResponseWriter, r *http.Request, s *sessionstore.Session) {
		name.Set(s, r.URL.Path)
		http.Redirect(w, r, "/login", http.StatusSeeOther)
	})}})
	h := s.sessions.Handler(s.sessions.RequirePrincipal(handler(func(w http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
		w.Write([]byte("hello " + s.Principal()))
	})))
	b := newBrowser()
	rep := b.record(h, "/account")
	want(t, "status (U1)", rep.StatusCode, http.StatusSeeOther)
	want(t, "token told (U1)", rep.set["session"] != nil, true)
	before := b.clone()
	rep = b.record(h, "/orders")
	want(t, "token told again (U2)", rep.set["session"] != nil, false)
	rep = s.do(b, func(s *sessionstore.Session) {
		s.SetPrincipal("ann")
		path, _ := name.Take(s)
		want(t, "path kept (U5)", path, "/orders")
	})
	want(t, "new token (U4)", rep.set["session"] != nil, true)
	want(t, "body", b.record(h, "/orders").body, "hello ann")
	want(t, "status with the token before login (U4)", before.record(h, "/orders").StatusCode, http.StatusSeeOther)
}

// P6: a route that must not live with a stale copy asks the database each time.
func TestRequireFresh(t *testing.T) {
	one := newSite(t, options{})
	two := newSite(t, options{memory: one.memory})
	b := one.started(t)
	two.name(b) // has a copy now
	stale := b.clone()
	one.do(b, func(s *sessionstore.Session) { name.Set(s, "bob") })

	read := handler(func(w http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
		v, _ := name.Get(s)
		w.Write([]byte(v + " " + s.Source().String()))
	})
	want(t, "stale read", stale.record(two.sessions.Handler(read), "/").body, "ann cache")
	fresh := two.sessions.Handler(two.sessions.RequireFresh(read))
	want(t, "fresh read", stale.clone().record(fresh, "/").body, "bob database")

	n := two.statements(func() { b.record(fresh, "/"); b.record(fresh, "/") })
	want(t, "statements for two", n, 2)

	// An ended session is a new, empty one; the cookie is left alone.
	one.do(b.clone(), func(s *sessionstore.Session) { s.Invalidate() })
	rep := b.record(fresh, "/")
	want(t, "after the end", rep.body, " new")
	want(t, "Set-Cookie lines", len(rep.Header["Set-Cookie"]), 0)

	// The database away: the error handler, whatever the copy says.
	b = one.started(t)
	one.backend.fail()
	called := false
	rep = b.record(one.sessions.Handler(one.sessions.RequireFresh(handler(func(http.ResponseWriter, *http.Request, *sessionstore.Session) { called = true }))), "/")
	want(t, "status", rep.StatusCode, http.StatusServiceUnavailable)
	want(t, "handler called", called, false)
	want(t, "errors", one.sessions.Stats().Errors, 1)
	// Without a session there is nothing to confirm.
	want(t, "status without session", newBrowser().record(one.sessions.Handler(one.sessions.RequireFresh(read)), "/").StatusCode, http.StatusOK)

	// After the response has begun it is too late to answer otherwise.
	one.backend.set(nil)
	b = one.started(t)
	begun := handler(func(w http.ResponseWriter, r *http.Request, _ *sessionstore.Session) {
		w.Write([]byte("begun"))
		one.backend.fail()
		one.sessions.RequireFresh(read).ServeHTTP(w, r)
	})
	want(t, "body", b.record(one.sessions.Handler(begun), "/").body, "begun")
	want(t, "errors", one.sessions.Stats().Errors, 1)
	want(t, "logged", strings.Contains(one.logs.String(), "not confirmed after the response had begun"), true)
}

// A handler outside of its middleware is a programmer's mistake, shown at once.
func TestRequireOutsideOfHandlerPanics(t *testing.T) {
	shop := newSite(t, options{})
	office := shop.sibling(t, "office")
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	for what, h := range map[string]http.Handler{
		"principal":       shop.sessions.RequirePrincipal(ok),
		"fresh":           shop.sessions.RequireFresh(ok),
		"another manager": office.sessions.Handler(shop.sessions.RequirePrincipal(ok)),
	} {
		func() {
			defer func() {
				if p, _ := recover().(string); !strings.Contains(p, "shop") {
					t.Errorf("%s: panic %q", what, p)
				}
			}()
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
		}()
	}
}

// S5: what is stored for a request sees the request's context values.
func TestBackendSeesTheRequestsValues(t *testing.T) {
	type key struct{}
	s := newSite(t, options{idle: true})
	b := s.started(t)
	s.backend.mu.Lock()
	s.backend.ctxs = nil
	s.backend.mu.Unlock()
	r := httptest.NewRequest("GET", "/", nil)
	ctx, cancel := context.WithCancel(context.WithValue(r.Context(), key{}, "trace-1"))
	cancel() // X29: hung up, and committed all the same
	r = r.WithContext(ctx)
	r.Header.Set("Cookie", b.header())
	s.sessions.Handler(handler(func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) { color.Set(s, "red") })).
		ServeHTTP(httptest.NewRecorder(), r)
	s.backend.mu.Lock()
	defer s.backend.mu.Unlock()
	want(t, "calls", len(s.backend.ctxs), 2)
	for _, ctx := range s.backend.ctxs {
		want(t, "value", ctx.Value(key{}), any("trace-1"))
		if _, ok := ctx.Deadline(); !ok || errors.Is(context.Cause(ctx), errDB) {
			t.Error("call without deadline")
		}
	}
}
