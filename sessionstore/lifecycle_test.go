package sessionstore_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

func TestNothingStoredCostsNothing_P9(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	for what, f := range map[string]func(*sessionstore.Session){
		"nothing":                          nil,
		"reading":                          func(s *sessionstore.Session) { count.Get(s); s.ID(); s.Info(); s.Principal() },
		"deleting what is not set":         func(s *sessionstore.Session) { count.Delete(s) },
		"set and deleted (K4)":             func(s *sessionstore.Session) { count.Set(s, 1); count.Delete(s) },
		"set and invalidated (K4)":         func(s *sessionstore.Session) { count.Set(s, 1); s.Invalidate() },
		"renewing nothing":                 func(s *sessionstore.Session) { s.Renew() },
		"being anonymous":                  func(s *sessionstore.Session) { s.SetPrincipal("") },
		"a timeout alone":                  func(s *sessionstore.Session) { s.SetIdleTimeout(time.Minute) },
		"saving nothing":                   func(s *sessionstore.Session) { s.Save(context.Background()) },
		"refreshing nothing":               func(s *sessionstore.Session) { s.Refresh(context.Background()) },
		"waiting for the end of a nothing": func(s *sessionstore.Session) { s.Done() },
	} {
		c := &client{}
		if r := c.do(t, n.Manager, f); r != (sessionstore.Receipt{}) {
			t.Errorf("%s: receipt %+v, want none", what, r)
		}
	}
	want(t, "statements", n.memory.Statements(), 0)
}

func TestStoredOnFirstUse(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	for what, f := range map[string]func(*sessionstore.Session){
		"an attribute": func(s *sessionstore.Session) { count.Set(s, 1) },
		"a principal":  func(s *sessionstore.Session) { s.SetPrincipal("bob") },
		"a call":       func(s *sessionstore.Session) { s.Start() },
	} {
		before := n.memory.Statements()
		c := &client{}
		r := c.do(t, n.Manager, f)
		if r.Token.IsZero() || r.Version != 1 || r.Clear || r.ID != r.Token.ID() {
			t.Errorf("%s: receipt %+v, want a token and version 1", what, r)
		}
		want(t, what+": statements", n.memory.Statements()-before, 1)
		if r := c.do(t, n.Manager, nil); r != (sessionstore.Receipt{}) { // K2
			t.Errorf("%s: the next request got %+v, want nothing new", what, r)
		}
	}
}

func TestSaveThenGetSeesWhatWasStored_P2(t *testing.T) {
	n := newNode(t, membackend.New(), "", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 10) })
	c.do(t, n.Manager, func(s *sessionstore.Session) {
		count.Update(s, func(n int) int { return n + 1 })
		other := *c
		other.do(t, n.Manager, func(s *sessionstore.Session) { count.Update(s, func(n int) int { return n + 100 }) })
		if v, _ := count.Get(s); v != 11 {
			t.Errorf("before Save: %d, want 11", v)
		}
		if err := s.Save(t.Context()); err != nil {
			t.Fatal(err)
		}
		if v, _ := count.Get(s); v != 111 {
			t.Errorf("after Save: %d, want 111", v)
		}
		count.Update(s, func(n int) int { return n + 1 })
	})
	if v, _ := get(t, c, n.Manager, count); v != 112 {
		t.Errorf("at last: %d, want 112", v)
	}
}

func TestSave(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	c := &client{}
	r := c.do(t, n.Manager, func(s *sessionstore.Session) {
		count.Set(s, 1)
		if err := s.Save(t.Context()); err != nil {
			t.Fatal(err)
		}
		want(t, "version", s.Version(), 1)
		want(t, "new", s.IsNew(), false)
		count.Set(s, 2)
		if err := s.Save(t.Context()); err != nil {
			t.Fatal(err)
		}
		want(t, "version", s.Version(), 2)
	})
	if r.Token.IsZero() || r.Version != 2 {
		t.Errorf("receipt %+v, want the token and version 2", r)
	}
}

func TestLateChanges_P1(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	begin := func(c *client) *sessionstore.Session {
		s, err := n.Begin(t.Context(), c.claim())
		if err != nil {
			t.Fatal(err)
		}
		r, err := n.Commit(t.Context(), s) // the first byte leaves
		if err != nil {
			t.Fatal(err)
		}
		c.accept(r)
		return s
	}
	c := &client{}
	s := begin(c)
	count.Set(s, 1)
	if _, err := n.Commit(t.Context(), s); !errors.Is(err, sessionstore.ErrTooLate) {
		t.Errorf("late new session: %v, want ErrTooLate", err)
	}
	n.Release(s)
	want(t, "statements", n.memory.Statements(), 0)

	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	s = begin(c)
	count.Set(s, 2)
	if r, err := n.Commit(t.Context(), s); err != nil || r != (sessionstore.Receipt{}) {
		t.Errorf("late attribute: %+v, %v", r, err)
	}
	count.Set(s, 3)
	s.SetPrincipal("bob")
	if _, err := n.Commit(t.Context(), s); !errors.Is(err, sessionstore.ErrTooLate) {
		t.Errorf("late login: %v, want ErrTooLate", err)
	}
	n.Release(s)
	c.do(t, n.Manager, func(s *sessionstore.Session) {
		want(t, "principal", s.Principal(), "") // P7: never under the old secret
		v, _ := count.Get(s)
		want(t, "count", v, 3)
	})
	want(t, "too late", n.Stats().TooLate, 2)

	c.do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("bob") })
	s = begin(c)
	s.SetPrincipal("")
	if _, err := n.Commit(t.Context(), s); err != nil {
		t.Errorf("late giving up of the principal: %v", err)
	}
	n.Release(s)
	c.do(t, n.Manager, func(s *sessionstore.Session) { want(t, "principal", s.Principal(), "") })
}
