package sessionstore_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

func TestADrainingNodeAttractsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := membackend.New()
		n1, n2 := newNode(t, memory, "n1", nil).run(t), newNode(t, memory, "n2", nil).run(t)
		here, there, nowhere := &client{}, &client{}, &client{}
		here.do(t, n1.Manager, (*sessionstore.Session).Start)
		there.do(t, n2.Manager, (*sessionstore.Session).Start)
		nowhere.do(t, n1.Manager, (*sessionstore.Session).Start)
		nowhere.token = nowhere.token.WithRoute("")
		time.Sleep(time.Second) // longer than a confirmation lasts
		n1.ids.Drain()

		// The client whose token leads here is told to go anywhere, once.
		statements, secret := memory.Statements(), here.token.SecretHash()
		r := here.do(t, n1.Manager, nil)
		if r.Token.IsZero() || here.token.Route() != "" || here.token.SecretHash() != secret {
			t.Errorf("told %t, route %q", !r.Token.IsZero(), here.token.Route())
		}
		want(t, "statements for the first request", memory.Statements()-statements, 1)
		r = here.do(t, n1.Manager, func(s *sessionstore.Session) { want(t, "source", s.Source(), sessionstore.SourceCache) })
		want(t, "receipt of the second request", r, sessionstore.Receipt{})
		want(t, "statements for the second one", memory.Statements()-statements, 1)

		// Others are not told to come here.
		for _, c := range []*client{there, nowhere} {
			route := c.token.Route()
			if r := c.do(t, n1.Manager, nil); !r.Token.IsZero() || c.token.Route() != route {
				t.Errorf("route %q became %q", route, c.token.Route())
			}
		}

		// Neither are new sessions nor renewed ones.
		fresh := &client{}
		for _, change := range []func(*sessionstore.Session){(*sessionstore.Session).Start, (*sessionstore.Session).Renew} {
			if r := fresh.do(t, n1.Manager, change); r.Token.IsZero() || r.Token.Route() != "" {
				t.Errorf("a new token: %t, route %q", !r.Token.IsZero(), r.Token.Route())
			}
		}

		// They all are at home where they go next.
		for _, c := range []*client{here, nowhere, fresh} {
			c.do(t, n2.Manager, nil)
			want(t, "route on the next node", c.token.Route(), "n2")
		}
	})
}

// A response that was on its way for long must not bring a token back that a login
// has replaced meanwhile.
func TestADrainingNodeBringsNoOldTokenBack_P7(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := membackend.New()
		n1, n2 := newNode(t, memory, "n1", nil).run(t), newNode(t, memory, "n2", nil).run(t)
		c := &client{}
		c.do(t, n1.Manager, (*sessionstore.Session).Start)
		time.Sleep(time.Second)
		n1.ids.Drain()
		slow, err := n1.Begin(t.Context(), c.claim())
		if err != nil {
			t.Fatal(err)
		}
		defer n1.Release(slow)
		c.do(t, n2.Manager, func(s *sessionstore.Session) { s.SetPrincipal("ann") })
		if r, err := n1.Commit(t.Context(), slow); err != nil || !r.Token.IsZero() {
			t.Errorf("the slow response sets a token: %t, %v", !r.Token.IsZero(), err)
		}

		// Nor is it told anything while the database cannot confirm.
		c = &client{}
		c.do(t, n1.Manager, (*sessionstore.Session).Start)
		c.token = c.token.WithRoute("n1")
		time.Sleep(time.Second)
		n1.backend.set(func(string) error { return errors.New("down") })
		if r := c.do(t, n1.Manager, nil); !r.Token.IsZero() {
			t.Error("a token was set that nobody has confirmed")
		}
		n1.backend.set(nil)
	})
}
