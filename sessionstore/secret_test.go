package sessionstore_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

func TestRenew_P7(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	old := *c
	r := c.do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("bob") })
	if r.Token.IsZero() || r.Token.ID() != old.token.ID() || r.Token.SecretHash() == old.token.SecretHash() {
		t.Fatalf("receipt %+v, want a new secret for the same ID", r)
	}
	c.do(t, n.Manager, func(s *sessionstore.Session) { // M1
		want(t, "principal", s.Principal(), "bob")
		if v, _ := count.Get(s); v != 1 {
			t.Errorf("count is %d", v)
		}
	})
	old.do(t, n.Manager, func(s *sessionstore.Session) { // U4
		want(t, "principal under the old secret", s.Principal(), "")
		want(t, "new under the old secret", s.IsNew(), true)
	})
	old = *c
	c.do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("alice") })
	old.do(t, n.Manager, func(s *sessionstore.Session) { want(t, "new under bob's secret", s.IsNew(), true) })
	old = *c
	c.do(t, n.Manager, func(s *sessionstore.Session) { s.Renew() })
	old.do(t, n.Manager, func(s *sessionstore.Session) { want(t, "new under the old secret", s.IsNew(), true) })
	c.do(t, n.Manager, func(s *sessionstore.Session) { want(t, "principal", s.Principal(), "alice") })
}

func TestUnknownTokenIsNeverAdopted_P7(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	made := n.ids.NewToken()
	c := &client{token: made}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	if c.token.ID() == made.ID() {
		t.Error("a token that the client made up became a session")
	}
	want(t, "refused", n.Stats().Refused, 1)
}

func TestLoginDuringAnAnonymousRequest_P7(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	slow := *c
	r := slow.do(t, n.Manager, func(s *sessionstore.Session) {
		name.Set(s, "slow")
		c.do(t, n.Manager, func(s *sessionstore.Session) {
			s.SetPrincipal("bob")
			count.Set(s, 42)
		})
		if err := s.Save(t.Context()); err != nil {
			t.Fatal(err)
		}
		// Its secret is worth nothing now: it must not see what came after.
		want(t, "principal in the slow request", s.Principal(), "")
		v, _ := count.Get(s)
		want(t, "count in the slow request", v, 1)
		own, _ := name.Get(s)
		want(t, "own change", own, "slow")
		if err := s.Refresh(t.Context()); !errors.Is(err, sessionstore.ErrNotFound) {
			t.Errorf("refresh: %v, want ErrNotFound", err)
		}
	})
	if r != (sessionstore.Receipt{}) {
		t.Errorf("the slow request's client was told %+v", r)
	}
	c.do(t, n.Manager, func(s *sessionstore.Session) {
		want(t, "principal", s.Principal(), "bob")
		v, _ := name.Get(s)
		want(t, "the slow request's change (P2)", v, "slow")
	})
	slow.do(t, n.Manager, func(s *sessionstore.Session) { want(t, "new", s.IsNew(), true) })
}

func TestAnOldSecretCannotTakeOverByRenewal_P7(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	for what, takeOver := range map[string]func(*sessionstore.Session){
		"renewal":       func(s *sessionstore.Session) { s.Renew() },
		"another login": func(s *sessionstore.Session) { s.SetPrincipal("mallory") },
	} {
		thief := *c
		s, err := n.Begin(t.Context(), thief.claim())
		if err != nil {
			t.Fatal(err)
		}
		takeOver(s)
		c.do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("bob") })
		r, err := n.Commit(t.Context(), s)
		n.Release(s)
		if !r.Token.IsZero() {
			t.Errorf("%s: an outdated secret was exchanged for a valid one", what)
		}
		if what == "another login" && !errors.Is(err, sessionstore.ErrConflict) {
			t.Errorf("%s: %v, want ErrConflict", what, err)
		}
		c.do(t, n.Manager, func(s *sessionstore.Session) { want(t, what+": principal", s.Principal(), "bob") })
		c.do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("") })
	}
}

// A secret is worth nothing after a renewal, whoever renewed it, in whatever application
// and whatever its holder does with it.
func TestAnOldSecretGetsNoNewOne_P7(t *testing.T) {
	renewals := map[string]func(t *testing.T, c *client, shop, office *sessionstore.Manager){
		"a renewal": func(t *testing.T, c *client, shop, _ *sessionstore.Manager) {
			c.do(t, shop, func(s *sessionstore.Session) { s.Renew() })
		},
		"a login": func(t *testing.T, c *client, shop, _ *sessionstore.Manager) {
			c.do(t, shop, func(s *sessionstore.Session) { s.SetPrincipal("ann") })
		},
		"a login as who it was": func(t *testing.T, c *client, shop, _ *sessionstore.Manager) {
			c.do(t, shop, func(s *sessionstore.Session) { s.SetPrincipal(s.Principal()) })
		},
		"a login in another application": func(t *testing.T, c *client, _, office *sessionstore.Manager) {
			inOffice := &client{token: c.token} // which has its own version cookie
			inOffice.do(t, office, func(s *sessionstore.Session) { s.SetPrincipal("admin") })
			c.token = inOffice.token
		},
	}
	uses := map[string]func(*sessionstore.Session){
		"renewal":                func(s *sessionstore.Session) { s.Renew() },
		"another login":          func(s *sessionstore.Session) { s.SetPrincipal("mallory") },
		"giving up":              func(s *sessionstore.Session) { s.SetPrincipal("") },
		"change":                 func(s *sessionstore.Session) { count.Set(s, 2) },
		"login with another use": func(s *sessionstore.Session) { s.SetPrincipal("mallory"); count.Set(s, 2) },
	}
	for renewal, renew := range renewals {
		for use, do := range uses {
			for _, was := range []string{"", "mallory"} {
				n := newNode(t, membackend.New(), "n1", nil).run(t)
				office := n.application(t, "office", nil)
				c := &client{}
				c.do(t, n.Manager, func(s *sessionstore.Session) {
					count.Set(s, 1)
					s.SetPrincipal(was)
				})
				what := fmt.Sprintf("%s by the holder of the old secret of %q, after %s", use, was, renewal)
				thief := *c
				s, err := n.Begin(t.Context(), thief.claim())
				if err != nil {
					t.Fatal(err)
				}
				do(s)
				renew(t, c, n.Manager, office)
				r, err := n.Commit(t.Context(), s)
				n.Release(s)
				if !r.Token.IsZero() || err != nil && !errors.Is(err, sessionstore.ErrConflict) {
					t.Errorf("%s: told %+v, %v", what, r, err)
				}
				thief.do(t, n.Manager, func(s *sessionstore.Session) { want(t, what+": new", s.IsNew(), true) })
				c.do(t, n.Manager, func(s *sessionstore.Session) { want(t, what+": the other's is new", s.IsNew(), false) })
			}
		}
	}
}

func TestMovingNeverBringsAnOldTokenBack_P7(t *testing.T) {
	for what, meanwhile := range map[string]func(*sessionstore.Session){
		"login":   func(s *sessionstore.Session) { s.SetPrincipal("bob") },
		"renewal": func(s *sessionstore.Session) { s.Renew() },
		"logout":  func(s *sessionstore.Session) { s.Invalidate() },
		"nothing": func(*sessionstore.Session) {},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := twoNodes(t)
				c := &client{}
				c.do(t, a.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
				slow := *c
				r := slow.do(t, b.Manager, func(s *sessionstore.Session) {
					time.Sleep(time.Second)
					c.do(t, a.Manager, meanwhile)
				})
				if moved := !r.Token.IsZero(); moved != (what == "nothing") {
					t.Errorf("token sent again: %t", moved)
				} else if moved && (r.Token.Route() != "n2" || r.Token.SecretHash() != c.token.SecretHash()) {
					t.Errorf("route %q", r.Token.Route())
				}
			})
		})
	}
}
