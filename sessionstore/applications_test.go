package sessionstore_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
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

// The other device is used between a login and the look at who is the oldest.
func TestALoginDoesNotEvictItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", &sessionstore.Config{MaxSessions: 1, LimitPolicy: sessionstore.EvictOldest}).run(t)
		other, c := &client{}, &client{}
		other.do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("ann") })
		n.backend.Backend = &beforeList{n.memory, func() {
			time.Sleep(time.Millisecond)
			other.do(t, n.Manager, func(s *sessionstore.Session) { count.Update(s, increment) })
		}}
		c.do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("ann") })
		n.backend.Backend = n.memory
		c.do(t, n.Manager, func(s *sessionstore.Session) { want(t, "the login's principal", s.Principal(), "ann") })
	})
}

type beforeList struct {
	sessionstore.Backend
	f func()
}

func (b *beforeList) List(ctx context.Context, sel sessionstore.Selector) iter.Seq2[sessionstore.Info, error] {
	b.f()
	return b.Backend.List(ctx, sel)
}

func TestLimitEvictsOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var evicted []sessionstore.ID
		n := newNode(t, membackend.New(), "n1", &sessionstore.Config{
			MaxSessions: 2, LimitPolicy: sessionstore.EvictOldest,
			Listeners: []sessionstore.Listener{{Destroyed: func(_ context.Context, e sessionstore.SessionEvent) {
				want(t, "cause", e.Cause, sessionstore.CauseEvicted)
				evicted = append(evicted, e.Info.Key.ID)
			}}},
		}).run(t)
		var cs []*client
		for range 2 {
			c := &client{}
			c.do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("bob") })
			cs = append(cs, c)
			time.Sleep(2 * time.Minute)
		}
		get(t, cs[0], n.Manager, count) // the older one is used again
		time.Sleep(2 * time.Minute)
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("bob") })
		if !slices.Equal(evicted, []sessionstore.ID{cs[1].token.ID()}) {
			t.Errorf("evicted %v, want the least recently used %v", evicted, cs[1].token.ID())
		}
		c.do(t, n.Manager, func(s *sessionstore.Session) { want(t, "the new login", s.Principal(), "bob") })
	})
}

func TestListeners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			mu      sync.Mutex
			history []string // guarded by mu
		)
		add := func(format string, args ...any) {
			mu.Lock()
			defer mu.Unlock()
			history = append(history, fmt.Sprintf(format, args...))
		}
		clear := func() {
			mu.Lock()
			defer mu.Unlock()
			history = nil
		}
		note := func(what string) func(context.Context, sessionstore.SessionEvent) {
			return func(ctx context.Context, e sessionstore.SessionEvent) {
				v, _ := count.Get(e.Session)
				add("%s v%d count=%d %v", what, e.Info.Version, v, e.Cause)
				if ctx.Value(contextValue{}) == nil && what != "destroyed" { // S5
					t.Errorf("%s: the request's context value is missing", what)
				}
			}
		}
		all := sessionstore.Listener{
			Created: note("created"), Renewed: note("renewed"), Destroyed: note("destroyed"),
			AttributeChanged: func(_ context.Context, e sessionstore.AttributeEvent) {
				before, was := count.Get(e.Before)
				after, is := count.Get(e.After)
				add("%s %d,%t to %d,%t", e.Name, before, was, after, is)
			},
		}
		panics := sessionstore.Listener{Destroyed: func(context.Context, sessionstore.SessionEvent) { panic("listener") }}
		n := newNode(t, membackend.New(), "n1", &sessionstore.Config{Listeners: []sessionstore.Listener{panics, all}}).run(t)
		c := &client{}
		request := func(f func(*sessionstore.Session)) {
			t.Helper()
			ctx := context.WithValue(t.Context(), contextValue{}, 1)
			s, err := n.Begin(ctx, c.claim())
			if err != nil {
				t.Fatal(err)
			}
			defer n.Release(s)
			f(s)
			r, err := n.Commit(ctx, s)
			if err != nil {
				t.Fatal(err)
			}
			c.accept(r)
		}
		expect := func(what string, lines ...string) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(history, lines) {
				t.Errorf("%s: history\n%q, want\n%q", what, history, lines)
			}
			history = nil
		}
		request(func(s *sessionstore.Session) { count.Set(s, 1) })
		expect("create (L1)", "created v1 count=1 unknown", "count 0,false to 1,true")
		request(func(s *sessionstore.Session) { count.Set(s, 1) })
		expect("set the same (L5)")
		request(func(s *sessionstore.Session) { count.Set(s, 2); s.Renew() })
		expect("change and renew (L6, M)", "renewed v2 count=2 unknown", "count 1,true to 2,true")
		request(func(s *sessionstore.Session) { count.Delete(s) })
		expect("delete", "count 2,true to 0,false")
		request(func(s *sessionstore.Session) { count.Set(s, 9) })
		clear()
		request(func(s *sessionstore.Session) { s.Invalidate() })
		expect("invalidate (L8: a listener panics)", "destroyed v4 count=9 invalidated")
		want(t, "panics", n.Stats().ListenerPanics, 1)
		request(func(s *sessionstore.Session) { s.Start(); s.Renew(); s.Invalidate() })
		expect("never stored (L10)")

		request(func(s *sessionstore.Session) { count.Set(s, 5) })
		clear()
		time.Sleep(40 * time.Minute)
		synctest.Wait()
		expect("expired (I3, P11)", "destroyed v1 count=5 expired")
	})
}

type contextValue struct{}

func TestListenerThatUsesTheSession_L12(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", &sessionstore.Config{Listeners: []sessionstore.Listener{{
		Created: func(ctx context.Context, e sessionstore.SessionEvent) {
			s := sessionstore.FromContext(ctx)
			name.Set(s, "from the listener")
			count.Set(e.Session, 99) // never stored
		},
	}}})
	c := &client{}
	s, err := n.Begin(t.Context(), c.claim())
	if err != nil {
		t.Fatal(err)
	}
	defer n.Release(s)
	ctx := sessionstore.NewContext(t.Context(), s)
	count.Set(s, 1)
	if err := s.Save(ctx); err != nil {
		t.Fatal(err)
	}
	r, err := n.Commit(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	c.accept(r)
	v, _ := get(t, c, n.Manager, name)
	want(t, "the listener's attribute", v, "from the listener")
	w, _ := get(t, c, n.Manager, count)
	want(t, "count", w, 1)
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

// Done of a record that was begun anew is its own, not that of the one before.
func TestDoneOfARecordBegunAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := membackend.New()
		a := newNode(t, memory, "a", &sessionstore.Config{IdleTimeout: -1}).run(t)
		office := a.application(t, "office", &sessionstore.Config{IdleTimeout: -1, Lifetime: time.Hour})
		c := &client{}
		c.do(t, a.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		o := &client{token: c.token}
		o.do(t, office, func(s *sessionstore.Session) { count.Set(s, 1) })
		time.Sleep(time.Hour - time.Second)
		get(t, o, office, count)
		time.Sleep(2 * time.Second)
		o.do(t, office, func(s *sessionstore.Session) { count.Set(s, 2) }) // begins anew
		for _, later := range []time.Duration{0, 10 * time.Minute} {
			time.Sleep(later)
			o.do(t, office, func(s *sessionstore.Session) {
				v, ok := count.Get(s)
				select {
				case <-s.Done():
					t.Errorf("%v later: Done is closed, though the session lives (%v, %v, new %v)", later, v, ok, s.IsNew())
				default:
				}
			})
		}
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

// Who asks for Done before anything is stored does not get that of a part that expired.
func TestDoneOfAPartThatIsNotStoredYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", nil)
		office := n.application(t, "office", &sessionstore.Config{IdleTimeout: time.Minute, Lifetime: time.Minute})
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		in := &client{token: c.token}
		in.do(t, office, func(s *sessionstore.Session) { count.Set(s, 2) })
		time.Sleep(2 * time.Minute)
		n.memory.Advance(2 * time.Minute)
		in = &client{token: c.token}
		in.do(t, office, func(s *sessionstore.Session) {
			want(t, "claimed", s.Claimed(), true)
			want(t, "new", s.IsNew(), true)
			select {
			case <-s.Done():
				t.Error("Done of a session of which nothing is stored yet is closed")
			default:
			}
			count.Set(s, 3)
			if err := s.Save(context.Background()); err != nil {
				t.Error(err)
			}
		})
	})
}
