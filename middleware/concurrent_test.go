package middleware_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

// P2: 64 clients at once, 200 increments each, one session, on one node and on two.
func TestIncrementsThroughHTTPAreNeverLost(t *testing.T) {
	const clients, increments = 64, 200
	for nodes := 1; nodes <= 2; nodes++ {
		t.Run(fmt.Sprintf("%d nodes", nodes), func(t *testing.T) {
			memory := membackend.New()
			var sites []*site
			for range nodes {
				sites = append(sites, newSite(t, options{memory: memory}))
			}
			b := sites[0].started(t)
			var wg sync.WaitGroup
			for i := range clients {
				// A server for each client, whose transport keeps one connection.
				server := sites[i%nodes].serve(t, func(w http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
					visits.Update(s, func(n int) int { return n + 1 })
					w.Write([]byte("ok"))
				})
				own := b.clone()
				wg.Go(func() {
					for range increments {
						rep, err := own.try(t.Context(), server, http.MethodGet, "/")
						if err != nil || rep.StatusCode != http.StatusOK {
							t.Errorf("%v %q: %v", rep.Response, rep.body, err)
							return
						}
					}
				})
			}
			wg.Wait()
			for _, s := range sites {
				fresh := newBrowser()
				fresh.cookies["session"] = b.cookie("session") // no version: asks the database
				s.look(fresh, func(s *sessionstore.Session) {
					n, _ := visits.Get(s)
					want(t, "visits", n, 12_800)
				})
			}
		})
	}
}

// slow starts a request that has begun and waits, and returns what lets it go on
// and waits for its reply.
func slow(t *testing.T, s *site, b *browser, then handler) (finish func() reply) {
	t.Helper()
	entered, proceed, replied := make(chan struct{}), make(chan struct{}), make(chan reply, 1)
	h := s.sessions.Handler(handler(func(w http.ResponseWriter, r *http.Request, s *sessionstore.Session) {
		name.Get(s)
		close(entered)
		<-proceed
		then(w, r, s)
	}))
	server := listen(t, h)
	go func() {
		rep, err := b.try(t.Context(), server, http.MethodGet, "/")
		if err != nil {
			t.Error(err)
		}
		replied <- rep
	}()
	<-entered
	return func() reply {
		close(proceed)
		return <-replied
	}
}

func (s *site) do(b *browser, f func(s *sessionstore.Session)) reply {
	return b.record(s.sessions.Handler(handler(func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) { f(s) })), "/")
}

// P3: a logout during a slow request stays a logout: page, row and cookie.
func TestLogoutDuringASlowRequest(t *testing.T) {
	for what, test := range map[string]struct {
		then   handler
		status int
	}{
		"change": {func(w http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
			color.Set(s, "red")
			w.Write([]byte("welcome back"))
		}, http.StatusConflict},
		"update": {func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
			visits.Update(s, func(n int) int { return n + 1 })
		}, http.StatusConflict},
		"login": {func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) { s.SetPrincipal("ann") }, http.StatusConflict},
		"renew": {func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) { s.Renew() }, http.StatusConflict},
		"read":  {func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) { name.Get(s) }, http.StatusOK},
	} {
		for _, across := range []bool{false, true} {
			s := newSite(t, options{})
			other := s
			if across {
				other = newSite(t, options{memory: s.memory})
			}
			b := s.started(t)
			stolen := b.clone()
			finish := slow(t, s, b, test.then)
			other.do(b, func(s *sessionstore.Session) { s.Invalidate() })
			want(t, what+": cookies after logout", b.header(), "")
			rep := finish()
			want(t, what+": status", rep.StatusCode, test.status)
			want(t, what+": Set-Cookie lines", len(rep.Header["Set-Cookie"]), 0)
			want(t, what+": cookies", b.header(), "")
			if !across { // the event feed comes with the cluster
				s.look(stolen, func(s *sessionstore.Session) { want(t, what+": revived", s.Claimed(), false) })
			}
			want(t, what+": requests in flight", s.manager.Stats().ActiveRequests, 0)
		}
	}
}

// P7: a login during a slow anonymous request keeps the new cookie, and the old
// token is worth nothing (U4).
func TestLoginDuringASlowAnonymousRequest(t *testing.T) {
	for what, then := range map[string]handler{
		"read":   func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) { name.Get(s) },
		"change": func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) { color.Set(s, "red") },
		"renew":  func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) { s.Renew() },
	} {
		s := newSite(t, options{})
		b := s.started(t)
		old := b.clone()
		finish := slow(t, s, b, then)
		s.do(b, func(s *sessionstore.Session) { s.SetPrincipal("ann") })
		token := b.cookie("session")
		want(t, what+": token renewed", token != old.cookie("session"), true)
		rep := finish()
		want(t, what+": status", rep.StatusCode, http.StatusOK)
		want(t, what+": token cookie touched", rep.set["session"] != nil, false)
		want(t, what+": token kept", b.cookie("session") == token, true)
		s.look(b, func(s *sessionstore.Session) {
			want(t, what+": principal", s.Principal(), "ann")
			v, _ := color.Get(s)
			want(t, what+": change kept", v == "red", what == "change")
		})
		s.look(old, func(s *sessionstore.Session) {
			want(t, what+": old token's principal", s.Principal(), "")
			want(t, what+": old token accepted", s.Claimed(), false)
		})
	}

	// Without any session, a slow request that stores nothing sets no cookie over it.
	s := newSite(t, options{})
	b := newBrowser()
	finish := slow(t, s, b, func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) { name.Get(s) })
	s.do(b, func(s *sessionstore.Session) { s.SetPrincipal("ann") })
	want(t, "Set-Cookie lines", len(finish().Header["Set-Cookie"]), 0)
	s.look(b, func(s *sessionstore.Session) { want(t, "principal", s.Principal(), "ann") })
}

// P2: two requests that set different attributes at once keep both.
func TestDifferentAttributesAtOnceAreBothKept(t *testing.T) {
	s := newSite(t, options{})
	b := s.started(t)
	finish := slow(t, s, b, func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) { color.Set(s, "red") })
	s.do(b, func(s *sessionstore.Session) { name.Set(s, "bob") })
	want(t, "status", finish().StatusCode, http.StatusOK)
	s.look(b, func(s *sessionstore.Session) {
		n, _ := name.Get(s)
		c, _ := color.Get(s)
		want(t, "attributes", n+" "+c, "bob red")
	})
}

// P10: a burst of reads runs no statement beyond one touch.
func TestABurstOfReadsRunsNoStatementButOneTouch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, options{})
		b := s.started(t)
		time.Sleep(2 * time.Minute) // what begun writes has been touched; the copy is too old to answer
		s.name(b)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		h := s.sessions.Handler(handler(func(w http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
			v, _ := name.Get(s)
			fmt.Fprint(w, v)
		}))
		n := s.statements(func() {
			var wg sync.WaitGroup
			for range 1000 {
				wg.Go(func() {
					rep := b.record(h, "/")
					if rep.body != "ann" || len(rep.Header["Set-Cookie"]) != 0 {
						t.Errorf("%q, %q", rep.body, rep.Header["Set-Cookie"])
					}
				})
			}
			wg.Wait()
		})
		want(t, "statements during the burst", n, 0)
		n = s.statements(func() {
			time.Sleep(5 * time.Minute)
			synctest.Wait()
		})
		want(t, "statements after it", n, 1)
	})
}

// P14: Shutdown writes back the use that requests made of their sessions.
func TestShutdownWritesBackWhatRequestsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, options{idle: true})
		b := s.started(t)
		ran := make(chan struct{})
		go func() { defer close(ran); s.ids.Run(t.Context()) }()
		synctest.Wait()
		time.Sleep(20 * time.Second)
		s.name(b)
		if err := s.ids.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		<-ran
		want(t, "touches", s.manager.Stats().Touched, 1)
		want(t, "name after Shutdown", s.name(b), "ann")
	})
}

// A long request counts as use until it ends (H7): its session does not expire.
func TestARequestInFlightKeepsItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, options{store: sessionstore.Config{IdleTimeout: time.Minute}})
		b := s.started(t)
		s.do(b, func(s *sessionstore.Session) {
			time.Sleep(10 * time.Minute)
			color.Set(s, "red")
		})
		s.look(b, func(s *sessionstore.Session) {
			v, _ := color.Get(s)
			want(t, "color", v, "red")
		})
		time.Sleep(2 * time.Minute)
		want(t, "name after idling", s.name(b), "")
	})
}
