package sessionstore_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

// A request with the secret from before a login has no session, and must not have one of
// its own take the place of the login's in the browser.
func TestALateRequestReplacesNoLogin_P7(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", nil).run(t)
		office := n.application(t, "office", nil) // has no part of the session
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		late := *c
		c.do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("ann") })
		for app, m := range map[string]*sessionstore.Manager{"the application of the login": n.Manager, "a sibling": office} {
			for what, f := range map[string]func(*sessionstore.Session){
				"set":   func(s *sessionstore.Session) { count.Set(s, 2) },
				"start": (*sessionstore.Session).Start,
			} {
				r := late.do(t, m, func(s *sessionstore.Session) {
					want(t, "claimed in "+app, s.Claimed(), false)
					f(s)
					if err := s.Save(t.Context()); err != nil {
						t.Errorf("%s, %s: %v", app, what, err)
					}
				})
				want(t, "told after a "+what+" in "+app, r, sessionstore.Receipt{})
			}
			want(t, "told after a read in "+app, late.do(t, m, nil), sessionstore.Receipt{})
		}

		again := late
		again.do(t, n.Manager, func(s *sessionstore.Session) {
			count.Set(s, 2)
			if err := s.Save(t.Context()); err != nil {
				t.Error(err)
			}
			s.SetPrincipal("ann")
		})
		want(t, "the second login has a session of its own", again.token.ID() != c.token.ID(), true)
		_, err := late.try(n.Manager, func(s *sessionstore.Session) {
			s.Invalidate()
			name.Set(s, "good-bye")
		})
		want(t, "a logout is refused, since it does not end the login", errors.Is(err, sessionstore.ErrConflict), true)

		time.Sleep(time.Minute) // nobody was told of the login's secret, it seems
		late.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 2) })
		want(t, "the new session is another", late.token.ID() != c.token.ID(), true)
	})
}

// However long ago the database was told that the session is used here: a login in a
// sibling application has just used it.
func TestALateRequestReplacesNoLoginInASibling_P7(t *testing.T) {
	for _, gap := range []time.Duration{20 * time.Second, 40 * time.Second, 10 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			n := newNode(t, membackend.New(), "n1", nil).run(t)
			office := n.application(t, "office", nil)
			c := &client{}
			c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
			in := &client{token: c.token}
			in.do(t, office, func(s *sessionstore.Session) { count.Set(s, 1) })
			time.Sleep(gap)
			c.do(t, n.Manager, nil)
			late := *c
			in.do(t, office, func(s *sessionstore.Session) { s.SetPrincipal("ann") })
			r := late.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 2) })
			want(t, "told after "+gap.String(), r, sessionstore.Receipt{})
		})
	}
}

// A request that learns of the login by Refresh is late too.
func TestARefreshReplacesNoLogin_P7(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", nil).run(t)
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		late := *c
		r := late.do(t, n.Manager, func(s *sessionstore.Session) {
			c.do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("ann") })
			want(t, "superseded before it knows", s.Superseded(), false)
			want(t, "refreshed", errors.Is(s.Refresh(t.Context()), sessionstore.ErrNotFound), true)
			want(t, "superseded", s.Superseded(), true)
			count.Set(s, 2)
		})
		want(t, "told", r, sessionstore.Receipt{})

		// Nor does a Refresh of what a late request has stored.
		r = late.do(t, n.Manager, func(s *sessionstore.Session) {
			count.Set(s, 2)
			if err := s.Save(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := s.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.Renew()
		})
		want(t, "told after another save", r, sessionstore.Receipt{})
	})
}

// A logout with a secret that was replaced meanwhile does not end the session, and so it
// is not acknowledged.
func TestALateLogoutIsRefused(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("ann") })
	late := *c
	c.do(t, n.Manager, func(s *sessionstore.Session) { s.Renew() })
	_, err := late.try(n.Manager, (*sessionstore.Session).Invalidate)
	want(t, "refused", errors.Is(err, sessionstore.ErrConflict), true)

	// Unless it has logged in meanwhile: then that is what it ends.
	late.do(t, n.Manager, func(s *sessionstore.Session) {
		s.SetPrincipal("ann")
		if err := s.Save(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.Invalidate()
	})
	c.do(t, n.Manager, func(s *sessionstore.Session) { want(t, "principal", s.Principal(), "ann") })
}

// A login that first ends whatever was there is one, also with an outdated secret.
func TestALateLoginMayBeginAnew(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	lost := *c
	lost.do(t, n.Manager, func(s *sessionstore.Session) { s.Renew() }) // of which c never hears
	c.do(t, n.Manager, func(s *sessionstore.Session) {
		s.Invalidate()
		s.SetPrincipal("ann")
	})
	c.do(t, n.Manager, func(s *sessionstore.Session) { want(t, "principal", s.Principal(), "ann") })
}

// A late request that has stored something and then logs out is refused, and clears no
// cookie: it would be that of the login.
func TestALateLogoutAfterASave_P7(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	late := *c
	c.do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("ann") })
	r, err := late.try(n.Manager, func(s *sessionstore.Session) {
		count.Set(s, 2)
		if err := s.Save(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.Invalidate()
	})
	want(t, "refused", errors.Is(err, sessionstore.ErrConflict), true)
	want(t, "told", r, sessionstore.Receipt{})
	c.do(t, n.Manager, func(s *sessionstore.Session) { want(t, "principal", s.Principal(), "ann") })
}

// A request that joins, and finds by a Save that the session has another secret by now, goes
// on with a new session, of which it tells the browser nothing: that has the login's.
func TestALateJoinThatSaves_P7(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	office := n.application(t, "office", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	late := &client{token: c.token}
	r := late.do(t, office, func(s *sessionstore.Session) {
		want(t, "claimed", s.Claimed(), true)
		c.do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("ann") })
		count.Set(s, 1)
		if err := s.Save(t.Context()); !errors.Is(err, sessionstore.ErrNotFound) {
			t.Errorf("save: %v", err)
		}
		want(t, "superseded", s.Superseded(), true)
		count.Set(s, 2)
	})
	want(t, "told", r, sessionstore.Receipt{})
}
