package sessionstore_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

// A request waits for the end of a session that only a sibling application has stored: other
// requests of its client here end nothing.
func TestDoneOfASiblingsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", nil).run(t)
		office := n.application(t, "office", nil)
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		stream, err := office.Begin(t.Context(), c.claim())
		if err != nil {
			t.Fatal(err)
		}
		defer office.Release(stream)
		want(t, "claimed", stream.Claimed(), true)
		done := stream.Done()
		in := &client{token: c.token}
		in.do(t, office, nil) // any other request
		select {
		case <-done:
			t.Error("Done is closed, though nothing has ended")
		default:
		}
		c.do(t, n.Manager, func(s *sessionstore.Session) { want(t, "alive", s.Claimed(), true) })
	})
}

// Nor does a sweep of the part that an earlier visit has left here.
func TestDoneOfASiblingsSessionBesideASweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", &sessionstore.Config{IdleTimeout: -1}).run(t)
		office := n.application(t, "office", &sessionstore.Config{IdleTimeout: time.Minute, Lifetime: time.Minute})
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		in := &client{token: c.token}
		in.do(t, office, func(s *sessionstore.Session) { count.Set(s, 1) })
		time.Sleep(time.Minute + time.Millisecond)
		stream, err := office.Begin(t.Context(), sessionstore.Claim{Token: c.token})
		if err != nil {
			t.Fatal(err)
		}
		defer office.Release(stream)
		want(t, "new", stream.IsNew(), true)
		done := stream.Done()
		time.Sleep(3 * time.Minute)
		select {
		case <-done:
			t.Error("Done is closed, though nothing has ended since it was asked for")
		default:
		}
	})
}
