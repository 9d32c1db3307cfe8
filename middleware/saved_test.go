package middleware_test

import (
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/middleware"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// What a handler has stored with Save its client is told, whatever becomes of the rest.
func TestASavedLoginIsToldBesideAnError(t *testing.T) {
	for what, rest := range map[string]struct {
		after  func(*site, *sessionstore.Session)
		status int
	}{
		"too large":           {func(_ *site, s *sessionstore.Session) { name.Set(s, strings.Repeat("x", 200)) }, http.StatusRequestEntityTooLarge},
		"unstorable":          {func(_ *site, s *sessionstore.Session) { s.SetPrincipal("\xff") }, http.StatusInternalServerError},
		"database away":       {func(site *site, s *sessionstore.Session) { site.backend.fail("Update"); name.Set(s, "x") }, http.StatusServiceUnavailable},
		"panic and recovered": {func(_ *site, s *sessionstore.Session) { name.Set(s, "x"); panic("oops") }, http.StatusTeapot},
	} {
		t.Run(what, func(t *testing.T) {
			s := newSite(t, options{store: sessionstore.Config{MaxDataBytes: 100}})
			b := s.started(t)
			inner := s.sessions.Handler(handler(func(w http.ResponseWriter, r *http.Request, session *sessionstore.Session) {
				session.SetPrincipal("ann")
				if err := session.Save(r.Context()); err != nil {
					t.Fatal(err)
				}
				rest.after(s, session)
				io.WriteString(w, "welcome")
			}))
			rep := b.record(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer func() {
					if recover() != nil {
						w.WriteHeader(http.StatusTeapot)
					}
				}()
				inner.ServeHTTP(w, r)
			}), "/")
			want(t, "status", rep.StatusCode, rest.status)
			s.backend.set(nil)
			s.look(b, func(session *sessionstore.Session) {
				want(t, "principal", session.Principal(), "ann")
				v, _ := name.Get(session)
				want(t, "name", v, "ann")
			})
		})
	}
}

// A login is told to the browser beside whichever cookies; a request with the one from
// before it, and another one, is late.
func TestALateRequestWithSeveralCookies_P7(t *testing.T) {
	s := newSite(t, options{})
	b := s.started(t)
	old := b.cookie("session")
	s.do(b, func(s *sessionstore.Session) { s.SetPrincipal("ann") })
	unknown := unknownToken("")
	for _, cookies := range []string{old, old + "; session=" + unknown, unknown + "; session=" + old} {
		late := newBrowser()
		late.cookies["session"] = cookies
		rep := s.do(late, func(s *sessionstore.Session) { name.Set(s, "x") })
		want(t, "cookies set for "+cookies, len(rep.set), 0)
	}
}

// An error handler may render its page through parts of the site that need the session.
func TestAnErrorHandlerThatNeedsTheSession(t *testing.T) {
	var s *site
	s = newSite(t, options{cookie: middleware.Config{ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
		s.sessions.RequireFresh(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusTeapot)
		})).ServeHTTP(w, r)
	}}})
	b := s.started(t)
	s.backend.fail("Update")
	rep := s.do(b, func(s *sessionstore.Session) { name.Set(s, "x") })
	want(t, "status while the session can be confirmed", rep.StatusCode, http.StatusTeapot)
	s.backend.fail("Update", "Load")
	rep = s.do(b, func(s *sessionstore.Session) { name.Set(s, "x") })
	want(t, "status while it cannot", rep.StatusCode, http.StatusServiceUnavailable)
}

// Requests of one session change it, answer, and change it again, all at once.
func TestChangesAfterTheFirstByte_P2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 50 {
			s := newSite(t, options{idle: true})
			b := s.started(t)
			s.backend.set(func(string) error { time.Sleep(time.Millisecond); return nil })
			var wg sync.WaitGroup
			for range 8 {
				own := b.clone()
				wg.Go(func() {
					own.record(s.sessions.Handler(handler(func(w http.ResponseWriter, _ *http.Request, session *sessionstore.Session) {
						visits.Update(session, increment)
						io.WriteString(w, "first")
						time.Sleep(rand.N(20 * time.Millisecond))
						visits.Update(session, increment)
					})), "/")
				})
			}
			wg.Wait()
			want(t, "late errors", s.sessions.Stats().LateErrors, 0)
			s.look(b, func(session *sessionstore.Session) {
				if err := session.Refresh(t.Context()); err != nil {
					t.Error(err)
				}
				n, _ := visits.Get(session)
				want(t, "visits", n, 16)
			})
		}
	})
}

func increment(n int) int { return n + 1 }
