package sessionstore_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

func TestApplicationsShareIDAndFate_Q(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil).run(t)
	office := n.application(t, "office", nil)
	shop := n.Manager
	// Each application tells its own version; the token is one.
	inShop, inOffice := &client{}, &client{}
	share := func(from, to *client) { to.token = from.token }

	inShop.do(t, shop, func(s *sessionstore.Session) { count.Set(s, 1) })
	share(inShop, inOffice)
	inOffice.do(t, office, func(s *sessionstore.Session) {
		want(t, "ID (Q2)", s.ID(), inShop.token.ID())
		if _, ok := count.Get(s); ok {
			t.Error("the office sees the shop's attribute")
		}
		count.Set(s, 2)
	})
	want(t, "token after joining", inOffice.token.SecretHash(), inShop.token.SecretHash())
	v, _ := get(t, inShop, shop, count)
	want(t, "the shop's count", v, 1)
	v, _ = get(t, inOffice, office, count)
	want(t, "the office's count", v, 2)

	old := *inShop
	inOffice.do(t, office, func(s *sessionstore.Session) { s.SetPrincipal("boss") }) // M5
	old.do(t, shop, func(s *sessionstore.Session) { want(t, "new under the old secret", s.IsNew(), true) })
	share(inOffice, inShop)
	inShop.do(t, shop, func(s *sessionstore.Session) {
		want(t, "new under the new secret", s.IsNew(), false)
		want(t, "the shop's principal", s.Principal(), "") // each application has its own
		v, _ := count.Get(s)
		want(t, "the shop's count", v, 1)
	})

	done := make(chan struct{})
	inShop.do(t, shop, func(s *sessionstore.Session) {
		ended := s.Done()
		go func() { <-ended; close(done) }()
		inOffice.do(t, office, func(s *sessionstore.Session) { s.Invalidate() }) // Q4
	})
	<-done
	inShop.do(t, shop, func(s *sessionstore.Session) { want(t, "new after the office's logout", s.IsNew(), true) })
}

func TestALoginThatJoinsRenewsAll_P7(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil).run(t)
	office := n.application(t, "office", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	old := *c
	inOffice := &client{token: c.token}
	inOffice.do(t, office, func(s *sessionstore.Session) { s.SetPrincipal("boss") })
	if inOffice.token.SecretHash() == old.token.SecretHash() || inOffice.token.ID() != old.token.ID() {
		t.Fatal("the login kept the secret")
	}
	old.do(t, n.Manager, func(s *sessionstore.Session) { want(t, "new under the old secret", s.IsNew(), true) })
	c.token = inOffice.token
	v, _ := get(t, c, n.Manager, count)
	want(t, "count", v, 1)
}

func TestJoiningWhatEnds_P3(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil).run(t)
	office := n.application(t, "office", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	_, err := (&client{token: c.token}).try(office, func(s *sessionstore.Session) {
		count.Set(s, 2)
		c.do(t, n.Manager, func(s *sessionstore.Session) { s.Invalidate() })
	})
	if !errors.Is(err, sessionstore.ErrNotFound) {
		t.Errorf("join of a session that ended meanwhile: %v", err)
	}
}

func TestTwoRequestsJoinAtOnce_P2(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil).run(t)
	office := n.application(t, "office", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	a, b := client{token: c.token}, client{token: c.token}
	a.do(t, office, func(s *sessionstore.Session) {
		count.Update(s, func(n int) int { return n + 1 })
		b.do(t, office, func(s *sessionstore.Session) {
			count.Update(s, func(n int) int { return n + 10 })
			name.Set(s, "b")
		})
	})
	v, _ := get(t, &a, office, count)
	want(t, "count", v, 11)
}

func TestExpiryIsPerApplication_X22(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended []string
		var mu sync.Mutex
		listener := sessionstore.Listener{Destroyed: func(_ context.Context, e sessionstore.SessionEvent) {
			mu.Lock()
			defer mu.Unlock()
			v, _ := count.Get(e.Session)
			ended = append(ended, fmt.Sprintf("%s %v %d", e.Info.Key.App, e.Cause, v))
		}}
		n := newNode(t, membackend.New(), "n1", &sessionstore.Config{Listeners: []sessionstore.Listener{listener}}).run(t)
		office := n.application(t, "office", &sessionstore.Config{
			IdleTimeout: 10 * time.Minute, Listeners: []sessionstore.Listener{listener}})
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		inOffice := &client{token: c.token}
		inOffice.do(t, office, func(s *sessionstore.Session) { count.Set(s, 2); s.SetPrincipal("boss") })
		c.token = inOffice.token
		for range 4 {
			time.Sleep(5 * time.Minute)
			get(t, c, n.Manager, count)
		}
		inOffice.version = 0
		inOffice.do(t, office, func(s *sessionstore.Session) {
			want(t, "principal after the office's timeout", s.Principal(), "")
			want(t, "ID", s.ID(), c.token.ID())
			count.Set(s, 3) // joins anew
		})
		v, _ := get(t, inOffice, office, count)
		want(t, "the office's count", v, 3)
		v, _ = get(t, c, n.Manager, count)
		want(t, "the shop's count", v, 1)
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(ended, []string{"office expired 2"}) { // P11
			t.Errorf("announced %q", ended)
		}
	})
}

func TestJoiningWhereAnExpiredPartIsInTheWay_J3(t *testing.T) {
	memory := membackend.New()
	n := newNode(t, memory, "n1", nil) // nobody sweeps
	expired := 0
	office := n.application(t, "office", &sessionstore.Config{
		IdleTimeout: 10 * time.Minute,
		Listeners: []sessionstore.Listener{{Destroyed: func(_ context.Context, e sessionstore.SessionEvent) {
			want(t, "cause", e.Cause, sessionstore.CauseExpired)
			expired++
		}}},
	})
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	(&client{token: c.token}).do(t, office, func(s *sessionstore.Session) { count.Set(s, 2) })
	memory.Advance(20 * time.Minute)
	c.do(t, n.Manager, nil)
	inOffice := &client{token: c.token}
	inOffice.do(t, office, func(s *sessionstore.Session) {
		if _, ok := count.Get(s); ok {
			t.Error("an expired part answers")
		}
		count.Set(s, 3)
	})
	v, _ := get(t, inOffice, office, count)
	want(t, "count", v, 3)
	want(t, "expiries announced (P11)", expired, 1)
}

// Versions begin at 1 again, so a copy of a record that has expired looks like one of
// that which was begun in its place (P3).
func TestADeadRecordsDataDoNotReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := membackend.New()
		shopA, officeA := newPair(t, memory, "a", time.Minute)
		_, officeB := newPair(t, memory, "b", -1) // a sweeps

		c := &client{}
		c.do(t, shopA, func(s *sessionstore.Session) { count.Set(s, 1) })
		o := &client{token: c.token}
		o.do(t, officeA, func(s *sessionstore.Session) { name.Set(s, "of the old session") })
		get(t, o, officeB, name) // b holds a copy
		time.Sleep(time.Hour + 5*time.Minute)

		o.do(t, officeA, func(s *sessionstore.Session) { count.Set(s, 7) }) // begins anew
		o.do(t, officeB, func(s *sessionstore.Session) {
			if v, ok := name.Get(s); ok {
				t.Errorf("node b (source %v) answers with the expired session's data: %q", s.Source(), v)
			}
			if v, _ := count.Get(s); v != 7 {
				t.Errorf("count on b is %d, want 7: this client's own write (P4)", v)
			}
			tags.Set(s, map[string]int{"x": 1})
		})
		o.version = 0
		o.do(t, officeA, func(s *sessionstore.Session) {
			v, _ := count.Get(s)
			old, _ := name.Get(s)
			if v != 7 || old != "" {
				t.Errorf("stored now: count %d (want 7), name %q (want none)", v, old)
			}
		})
	})
}

// newPair is a node with events and two applications; the office's sessions last an hour.
func newPair(t *testing.T, memory *membackend.Backend, node string, sweep time.Duration) (shop, office *sessionstore.Manager) {
	t.Helper()
	ids, err := idmanager.New(memory, &idmanager.Config{Node: node, SweepInterval: sweep, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if shop, err = sessionstore.New(ids, "shop", &sessionstore.Config{IdleTimeout: -1}); err != nil {
		t.Fatal(err)
	}
	if office, err = sessionstore.New(ids, "office", &sessionstore.Config{IdleTimeout: -1, Lifetime: time.Hour}); err != nil {
		t.Fatal(err)
	}
	go ids.Run(context.Background())
	t.Cleanup(func() { ids.Shutdown(context.Background()) })
	for !ids.Live() {
		time.Sleep(time.Millisecond)
	}
	return shop, office
}

// A request that outlasts its record does not store it over the one begun since.
func TestASlowRequestDoesNotReviveItsRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := membackend.New()
		a := newNode(t, memory, "a", &sessionstore.Config{IdleTimeout: -1}).run(t)
		office := a.application(t, "office", &sessionstore.Config{IdleTimeout: -1, Lifetime: time.Hour})
		c := &client{}
		c.do(t, a.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		o := &client{token: c.token}
		o.do(t, office, func(s *sessionstore.Session) { s.SetPrincipal("boss") }) // joins, version 1
		time.Sleep(time.Hour - time.Second)
		slow := *o
		_, err := slow.try(office, func(s *sessionstore.Session) {
			time.Sleep(2 * time.Second)
			o.do(t, office, func(s *sessionstore.Session) { // begins anew: nobody is logged in
				want(t, "principal after the lifetime", s.Principal(), "")
				count.Set(s, 7)
			})
			name.Set(s, "slow")
		})
		if !errors.Is(err, sessionstore.ErrNotFound) {
			t.Errorf("the slow request's commit returned %v", err)
		}
		o.version = 0
		o.do(t, office, func(s *sessionstore.Session) {
			want(t, "principal, after a lifetime that has passed", s.Principal(), "")
			v, _ := count.Get(s)
			want(t, "count", v, 7)
		})
	})
}

// A join finds that another request has joined first, and that it was renewed since.
func TestAJoinIsOvertakenTwice(t *testing.T) {
	memory := membackend.New()
	n, elsewhere := newNode(t, memory, "n1", nil).run(t), newNode(t, memory, "n2", nil).run(t)
	office, officeElsewhere := n.application(t, "office", nil), elsewhere.application(t, "office", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	first, second := client{token: c.token}, client{token: c.token}
	first.do(t, office, func(s *sessionstore.Session) {
		second.do(t, office, func(s *sessionstore.Session) { count.Set(s, 2) }) // has joined first
		n.backend.set(func(method string) error {
			if method == "Update" { // the part that was joined is found, and renewed before it is updated
				n.backend.set(nil)
				second.do(t, officeElsewhere, func(s *sessionstore.Session) { s.Renew() })
			}
			return nil
		})
		name.Set(s, "first")
	})
	second.version = 0
	v, _ := get(t, &second, officeElsewhere, name)
	want(t, "what the first stored", v, "first")
}
