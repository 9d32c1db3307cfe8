package sessionstore_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

func TestInvalidate(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	old := *c
	r := c.do(t, n.Manager, func(s *sessionstore.Session) {
		id := s.ID()
		count.Set(s, 2)
		s.Invalidate() // D10, K7
		if _, ok := count.Get(s); ok || !s.IsNew() || s.ID() == id {
			t.Error("the ended session is still visible")
		}
		s.Invalidate()
	})
	if r != (sessionstore.Receipt{Clear: true}) {
		t.Errorf("receipt %+v, want Clear", r)
	}
	old.do(t, n.Manager, func(s *sessionstore.Session) {
		want(t, "new", s.IsNew(), true)
		want(t, "a new ID (A10)", s.ID() != old.token.ID(), true)
	})
}

func TestCreateInvalidateCreate_K6(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	old := c.token.ID()
	r := c.do(t, n.Manager, func(s *sessionstore.Session) {
		s.Invalidate()
		name.Set(s, "bye")
	})
	if r.Clear || r.Token.IsZero() || r.Token.ID() == old {
		t.Errorf("receipt %+v, want a new session's token only", r)
	}
	if v, _ := get(t, c, n.Manager, name); v != "bye" {
		t.Errorf("parting message %q", v)
	}
	if _, ok := get(t, c, n.Manager, count); ok {
		t.Error("an attribute of the ended session survived")
	}
}

func TestGoneIsGone_P3(t *testing.T) {
	for what, end := range map[string]func(n *node, c *client) error{
		"invalidated here": func(n *node, c *client) error {
			_, err := c.try(n.Manager, func(s *sessionstore.Session) { s.Invalidate() })
			return err
		},
		"revoked": func(n *node, c *client) error { return n.Invalidate(context.Background(), c.token.ID()) },
		"expired": func(n *node, c *client) error { n.memory.Advance(48 * time.Hour); return nil },
		"deleted behind our back": func(n *node, c *client) error {
			_, err := n.memory.Delete(context.Background(), sessionstore.Selector{ID: c.token.ID()})
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			n := newNode(t, membackend.New(), "n1", nil)
			c := &client{}
			c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
			other := *c
			r, err := c.try(n.Manager, func(s *sessionstore.Session) {
				count.Set(s, 2)
				if err := end(n, &other); err != nil {
					t.Fatal(err)
				}
			})
			if !errors.Is(err, sessionstore.ErrNotFound) || r != (sessionstore.Receipt{}) {
				t.Errorf("%+v, %v; want ErrNotFound, and the cookie left alone", r, err)
			}
			if _, ok := get(t, c, n.Manager, count); ok {
				t.Error("revived")
			}
			if _, err := n.memory.Load(t.Context(), sessionstore.Key{ID: c.token.ID(), App: "shop"}, 0); !errors.Is(err, sessionstore.ErrNotFound) {
				t.Errorf("row: %v", err)
			}
		})
	}
}

func TestLogoutWhileASaveIsInFlight_P3(t *testing.T) {
	// The save commits first, the logout right after it, and only then the saving
	// request goes on: its copy must not come back into the cache.
	n := newNode(t, membackend.New(), "n1", nil).run(t)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	s, err := n.Begin(t.Context(), c.claim())
	if err != nil {
		t.Fatal(err)
	}
	count.Set(s, 2)
	after := &afterUpdate{Backend: n.memory, f: func() {
		if err := n.Invalidate(context.Background(), c.token.ID()); err != nil {
			t.Error(err)
		}
	}}
	n.backend.Backend = after
	if _, err := n.Commit(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	n.Release(s)
	want(t, "cached sessions", n.Stats().CachedSessions, 0)
	if _, ok := get(t, c, n.Manager, count); ok {
		t.Error("a logged out session answers")
	}
}

// A handler may invalidate the session while another goroutine of its request saves:
// what is being stored is to end too.
func TestInvalidateDuringASave(t *testing.T) {
	for what, change := range map[string]func(*sessionstore.Session){
		"of an attribute": func(s *sessionstore.Session) { count.Set(s, 2) },
		"of a login":      func(s *sessionstore.Session) { s.SetPrincipal("ann") },
	} {
		t.Run(what, func(t *testing.T) {
			n := newNode(t, membackend.New(), "n1", nil).run(t)
			c := &client{}
			c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
			s, err := n.Begin(t.Context(), c.claim())
			if err != nil {
				t.Fatal(err)
			}
			defer n.Release(s)
			n.backend.set(func(method string) error {
				if method == "Update" {
					s.Invalidate() // as from another goroutine
				}
				return nil
			})
			change(s)
			if err := s.Save(t.Context()); err != nil {
				t.Error(err)
			}
			want(t, "new after the save", s.IsNew(), true)
			receipt, err := n.Commit(t.Context(), s)
			if err != nil || !receipt.Clear {
				t.Errorf("Commit returned %+v, %v", receipt, err)
			}
			if _, err := n.memory.Load(t.Context(), sessionstore.Key{ID: c.token.ID(), App: "shop"}, 0); !errors.Is(err, sessionstore.ErrNotFound) {
				t.Errorf("stored: %v", err)
			}
		})
	}
}

func TestInvalidateDuringTheFirstSave(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil).run(t)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) {
		n.backend.set(func(method string) error {
			if method == "Create" {
				s.Invalidate()
			}
			return nil
		})
		s.SetPrincipal("ann")
		if err := s.Save(t.Context()); err != nil {
			t.Error(err)
		}
		n.backend.set(nil)
	})
	for info, err := range n.Sessions(t.Context(), "ann") {
		t.Errorf("after Invalidate there is %+v, %v", info, err)
	}
}

func TestLogoutOfWhatBecameSomebodysSession_P7(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	old := *c
	r, err := old.try(n.Manager, func(s *sessionstore.Session) {
		s.Invalidate()
		c.do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("bob") })
	})
	if !errors.Is(err, sessionstore.ErrConflict) || r.Clear {
		t.Errorf("an anonymous request's logout after the login: %+v, %v", r, err)
	}
	office := n.application(t, "office", nil)
	anonymous := &client{}
	anonymous.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	old = *anonymous
	r, err = old.try(n.Manager, func(s *sessionstore.Session) {
		s.Invalidate()
		(&client{token: anonymous.token}).do(t, office, func(s *sessionstore.Session) { s.SetPrincipal("admin") })
	})
	if !errors.Is(err, sessionstore.ErrConflict) || r.Clear {
		t.Errorf("an anonymous request's logout after the login in another application: %+v, %v", r, err)
	}
	// A mere renewal meanwhile does not save bob's session from bob's logout.
	tab := *c
	tab.do(t, n.Manager, func(s *sessionstore.Session) {
		want(t, "principal", s.Principal(), "bob")
		s.Invalidate()
		c.do(t, n.Manager, func(s *sessionstore.Session) { s.Renew() })
	})
	c.do(t, n.Manager, func(s *sessionstore.Session) { want(t, "new after the logout", s.IsNew(), true) })
}

// What ends nothing tells nobody of an end.
func TestAnEndThatMatchesNothing(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil).run(t)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("bob") })
	c.do(t, n.Manager, func(s *sessionstore.Session) {
		done := s.Done()
		removed, err := n.ids.End(context.Background(), sessionstore.Selector{ID: c.token.ID(), Principal: "ann"}, sessionstore.CauseRevoked)
		if err != nil || len(removed) != 0 {
			t.Fatal(removed, err)
		}
		select {
		case <-done:
			t.Error("Done is closed, nothing was removed")
		default:
		}
	})
	c.do(t, n.Manager, func(s *sessionstore.Session) { want(t, "principal", s.Principal(), "bob") })
}
