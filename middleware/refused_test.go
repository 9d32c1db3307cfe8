package middleware_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/holdfast-sessions/holdfast/middleware"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// The error handler that answers a refused login sees a session that is not logged in.
func TestARefusedLoginsErrorHandler(t *testing.T) {
	var s *site
	s = newSite(t, options{store: sessionstore.Config{MaxSessions: 1}, cookie: middleware.Config{
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			s.sessions.RequirePrincipal(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Write([]byte("secrets of " + sessionstore.FromContext(r.Context()).Principal()))
			})).ServeHTTP(w, r)
		}}})
	login := s.sessions.Handler(handler(func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) { s.SetPrincipal("ann") }))
	want(t, "first login", newBrowser().record(login, "/").StatusCode, http.StatusOK)
	rep := s.started(t).record(login, "/")
	if strings.Contains(rep.body, "secrets") {
		t.Errorf("a login that was refused is answered with %d %q", rep.StatusCode, rep.body)
	}
}

// A late request that has stored something and then logs out takes no cookie away.
func TestALateLogoutAndTheLoginsCookie_P7(t *testing.T) {
	s := newSite(t, options{})
	b := s.started(t)
	late := b.clone() // the same browser, a request on its way
	s.do(b, func(s *sessionstore.Session) { s.SetPrincipal("ann") })
	rep := late.record(s.sessions.Handler(handler(func(w http.ResponseWriter, r *http.Request, session *sessionstore.Session) {
		name.Set(session, "x")
		if err := session.Save(r.Context()); err != nil {
			t.Error(err)
		}
		session.Invalidate()
	})), "/")
	want(t, "status", rep.StatusCode, http.StatusConflict)
	if c := rep.Header["Set-Cookie"]; len(c) > 0 {
		t.Errorf("the login's cookies are taken away: %q", c)
	}
}
