package sessionstore_test

import (
	"context"
	"errors"
	"iter"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

func TestPrincipals(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil).run(t)
	office := n.application(t, "office", nil)
	login := func(m *sessionstore.Manager, user string) *client {
		c := &client{}
		c.do(t, m, func(s *sessionstore.Session) { s.SetPrincipal(user) })
		return c
	}
	ids := func(user string) (ids []sessionstore.ID) {
		for info, err := range n.ids.Sessions(t.Context(), user) {
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, info.Key.ID)
		}
		return ids
	}
	a, b, other := login(n.Manager, "bob"), login(n.Manager, "bob"), login(n.Manager, "Bob")
	o := login(office, "bob")
	joined := &client{token: a.token}
	joined.do(t, office, func(s *sessionstore.Session) { s.SetPrincipal("bob") })
	a.token = joined.token
	if got := ids("bob"); len(got) != 3 {
		t.Errorf("%d sessions of bob, want 3", len(got))
	}
	mine := 0
	for _, err := range n.Sessions(t.Context(), "bob") {
		if err != nil {
			t.Fatal(err)
		}
		mine++
	}
	want(t, "sessions of bob in the shop", mine, 2)
	want(t, "sessions of the anonymous", len(ids("")), 0)

	ended, err := n.ids.InvalidatePrincipal(t.Context(), "bob", a.token.ID())
	if err != nil {
		t.Fatal(err)
	}
	want(t, "ended", ended, 2)
	want(t, "sessions of bob left", len(ids("bob")), 1)
	for what, c := range map[string]*client{"b": b, "o": o} {
		c.do(t, n.Manager, func(s *sessionstore.Session) { want(t, what+" is new", s.IsNew(), true) })
	}
	a.version = 0
	a.do(t, n.Manager, func(s *sessionstore.Session) { want(t, "principal of the one kept", s.Principal(), "bob") })
	other.do(t, n.Manager, func(s *sessionstore.Session) { want(t, "another principal", s.Principal(), "Bob") })
	if _, err := n.ids.InvalidatePrincipal(t.Context(), ""); err == nil {
		t.Error("the anonymous could be ended")
	}
	if err := n.Invalidate(t.Context(), a.token.ID()); err != nil {
		t.Fatal(err)
	}
	want(t, "sessions of bob at last", len(ids("bob")), 0)
}

// Who lists or ends the sessions of a principal that cannot be is told so.
func TestPrincipalsThatCannotBe(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	for _, principal := range []string{"a\x00b", "\xff", strings.Repeat("x", 256)} {
		for what, lists := range map[string]func(context.Context, string) iter.Seq2[sessionstore.Info, error]{
			"application": n.Sessions, "ID manager": n.ids.Sessions,
		} {
			listed := 0
			for _, err := range lists(t.Context(), principal) {
				if listed++; err == nil {
					t.Errorf("%s: %q has a session", what, principal)
				}
			}
			want(t, what+": listed", listed, 1)
		}
		if _, err := n.InvalidatePrincipal(t.Context(), principal); err == nil {
			t.Errorf("application: sessions of %q were ended", principal)
		}
		if _, err := n.ids.InvalidatePrincipal(t.Context(), principal); err == nil {
			t.Errorf("ID manager: sessions of %q were ended", principal)
		}
	}
}

func TestLimitRefusesNew(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", &sessionstore.Config{MaxSessions: 2})
	var wg sync.WaitGroup
	errs := make([]error, 10)
	for i := range errs {
		wg.Go(func() {
			c := &client{}
			_, errs[i] = c.try(n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("bob") })
		})
	}
	wg.Wait()
	refused := 0
	for _, err := range errs {
		if errors.Is(err, sessionstore.ErrLimit) {
			refused++
		} else if err != nil {
			t.Error(err)
		}
	}
	want(t, "refused", refused, 8)

	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	_, err := c.try(n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("bob"); count.Set(s, 2) })
	if !errors.Is(err, sessionstore.ErrLimit) {
		t.Errorf("login of an existing session: %v", err)
	}
	v, _ := get(t, c, n.Manager, count)
	want(t, "count after the refused login", v, 1)
}
