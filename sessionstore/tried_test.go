package sessionstore_test

import (
	"context"
	"errors"
	"testing"

	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

// A login whose answer was lost, and whose second attempt failed, succeeds at the third.
func TestALoginTriedThrice(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	b := &script{Backend: n.memory}
	n.backend.Backend = b
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	b.updates = []string{"lost", "failed"}
	_, err := c.try(n.Manager, func(s *sessionstore.Session) {
		s.SetPrincipal("ann")
		for range 2 {
			if err := s.Save(t.Context()); !errors.Is(err, errCut) {
				t.Fatal(err)
			}
		}
	})
	if err != nil {
		t.Errorf("third attempt: %v", err)
	}
	c.do(t, n.Manager, func(s *sessionstore.Session) { want(t, "principal", s.Principal(), "ann") })
}

// So does a renewal, and the client is told of the secret that was stored.
func TestARenewalTriedThrice(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	b := &script{Backend: n.memory}
	n.backend.Backend = b
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("ann") })
	b.updates = []string{"lost", "failed"}
	c.do(t, n.Manager, func(s *sessionstore.Session) {
		s.Renew()
		for range 2 {
			if err := s.Save(t.Context()); !errors.Is(err, errCut) {
				t.Fatal(err)
			}
		}
	})
	c.do(t, n.Manager, func(s *sessionstore.Session) { want(t, "principal", s.Principal(), "ann") })
}

// Changes whose Save panics are not acknowledged, though the handler recovers.
func TestASaveThatPanics_P1(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	n.backend.set(func(method string) error {
		if method == "Update" {
			n.backend.set(nil)
			panic("driver")
		}
		return nil
	})
	_, err := c.try(n.Manager, func(s *sessionstore.Session) {
		count.Set(s, 2)
		func() {
			defer func() { recover() }()
			s.Save(t.Context())
		}()
		got, _ := count.Get(s)
		t.Logf("the request reads %d", got)
	})
	got, _ := get(t, &client{token: c.token}, n.Manager, count)
	if err == nil && got != 2 {
		t.Errorf("acknowledged, and count is %d", got)
	}
}

// Created is told once of a part whose first save has failed, and that another request has
// stored meanwhile.
func TestCreatedIsToldOnce(t *testing.T) {
	created := 0
	n := newNode(t, membackend.New(), "n1", nil)
	office := n.application(t, "office", &sessionstore.Config{Listeners: []sessionstore.Listener{{
		Created: func(context.Context, sessionstore.SessionEvent) { created++ },
	}}})
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	first, second := client{token: c.token}, client{token: c.token}
	first.do(t, office, func(s *sessionstore.Session) {
		count.Set(s, 1)
		n.backend.set(func(method string) error {
			if method == "Create" {
				return errCut
			}
			return nil
		})
		if err := s.Save(t.Context()); !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		n.backend.set(nil)
		second.do(t, office, func(s *sessionstore.Session) { name.Set(s, "x") })
		if err := s.Save(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	want(t, "times that Created was called", created, 1)
}

// A script is a backend of which the next calls fail, after or before they took place.
type script struct {
	sessionstore.Backend
	updates []string // "lost", "failed" or ""
}

func (b *script) Update(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
	what := ""
	if len(b.updates) > 0 {
		what, b.updates = b.updates[0], b.updates[1:]
	}
	if what == "failed" {
		return errCut
	}
	err := b.Backend.Update(ctx, rec, cond)
	if err == nil && what == "lost" {
		return errCut
	}
	return err
}
