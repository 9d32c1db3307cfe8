package sessionstore_test

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
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

func TestAttributes(t *testing.T) {
	n := newNode(t, membackend.New(), "", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) {
		count.Set(s, 1)
		tags.Set(s, map[string]int{"a": 1})
		if v, ok := count.Get(s); !ok || v != 1 {
			t.Errorf("own change: %d, %t", v, ok)
		}
		want(t, "new", s.IsNew(), true)
	})
	c.do(t, n.Manager, func(s *sessionstore.Session) { // K3
		want(t, "new", s.IsNew(), false)
		name.Set(s, "x")
		v, _ := tags.Get(s)
		v["a"] = 99 // X17: what Get hands out is the caller's
		v, _ = tags.Get(s)
		want(t, "stored map", v["a"], 1)
	})
	c.do(t, n.Manager, func(s *sessionstore.Session) {
		if got := slices.Collect(s.Names()); !slices.Equal(got, []string{"count", "name", "tags"}) {
			t.Errorf("names %v", got)
		}
		if v, ok := name.Take(s); !ok || v != "x" {
			t.Errorf("take: %q, %t", v, ok)
		}
		if _, ok := name.Take(s); ok {
			t.Error("taken twice")
		}
		count.Delete(s)
		if got := slices.Collect(s.Names()); !slices.Equal(got, []string{"tags"}) {
			t.Errorf("names %v", got)
		}
	})
	if _, ok := get(t, c, n.Manager, name); ok {
		t.Error("taken value is still there")
	}
	if _, ok := get(t, c, n.Manager, count); ok { // F9
		t.Error("deleted value is still there")
	}
	before := c.version
	c.do(t, n.Manager, func(s *sessionstore.Session) { tags.Set(s, map[string]int{"a": 1}) })
	want(t, "version after setting what was set", c.version, before) // L5: no change, no write
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

func TestIdleTimeoutAndLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", &sessionstore.Config{IdleTimeout: 10 * time.Minute, Lifetime: time.Hour}).run(t)
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		created := time.Now()
		for time.Since(created) < 55*time.Minute { // activity keeps it
			time.Sleep(5 * time.Minute)
			if _, ok := get(t, c, n.Manager, count); !ok {
				t.Fatalf("gone after %v of use", time.Since(created))
			}
		}
		c.do(t, n.Manager, func(s *sessionstore.Session) {
			want(t, "expiry", s.Info().ExpiresAt, created.Add(time.Hour).UTC())
			s.Renew() // does not extend the lifetime
		})
		time.Sleep(6 * time.Minute)
		if _, ok := get(t, c, n.Manager, count); ok {
			t.Error("alive beyond its lifetime")
		}

		c = &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		time.Sleep(10*time.Minute + time.Second)
		if _, ok := get(t, c, n.Manager, count); ok {
			t.Error("alive beyond its idle timeout")
		}
	})
}

func TestTimeoutsOfOneSession_H(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", nil).run(t)
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) {
			count.Set(s, 1)
			s.SetIdleTimeout(2 * time.Second)
		})
		for range 10 { // in use, although its timeout is far below the touch interval
			time.Sleep(time.Second)
			if _, ok := get(t, c, n.Manager, count); !ok {
				t.Fatal("expired while in use")
			}
		}
		c.do(t, n.Manager, func(s *sessionstore.Session) {
			want(t, "idle", s.Info().Idle, 2*time.Second)
			s.SetIdleTimeout(time.Hour) // H3, H8
		})
		time.Sleep(10 * time.Second)
		c.do(t, n.Manager, func(s *sessionstore.Session) {
			want(t, "idle", s.Info().Idle, time.Hour)
			s.SetIdleTimeout(time.Second) // H2
		})
		time.Sleep(2 * time.Second)
		if _, ok := get(t, c, n.Manager, count); ok {
			t.Error("alive beyond the shorter timeout")
		}

		c = &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) {
			count.Set(s, 1)
			s.SetIdleTimeout(-1) // H9, H10
			s.SetLifetime(-1)
		})
		time.Sleep(10 * 24 * time.Hour)
		c.do(t, n.Manager, func(s *sessionstore.Session) {
			want(t, "new", s.IsNew(), false)
			want(t, "expiry", s.Info().ExpiresAt, time.Time{})
			s.SetLifetime(0) // the application's again, long past
		})
		if _, ok := get(t, c, n.Manager, count); ok {
			t.Error("alive beyond its lifetime")
		}
		c = &client{}
		if _, err := c.try(n.Manager, func(s *sessionstore.Session) { s.Start(); s.SetIdleTimeout(time.Microsecond) }); err == nil {
			t.Error("an absurd timeout was stored")
		}
	})
}

func TestRequestInFlightIsUse_H7(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", &sessionstore.Config{IdleTimeout: 3 * time.Second}).run(t)
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		c.do(t, n.Manager, func(s *sessionstore.Session) {
			for range 60 {
				time.Sleep(time.Second)
				if err := s.Refresh(t.Context()); err != nil {
					t.Fatalf("in flight: %v", err)
				}
			}
			count.Set(s, 2)
		})
		time.Sleep(2 * time.Second)
		if v, _ := get(t, c, n.Manager, count); v != 2 {
			t.Errorf("count is %d", v)
		}
	})
}

// The touch that would tell of such a use comes after the idle timeout.
func TestUseShortlyBeforeTheIdleTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const idle = 30 * time.Minute
		n := newNode(t, membackend.New(), "n1", &sessionstore.Config{IdleTimeout: idle}).run(t)
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		for range 10 {
			time.Sleep(idle - time.Second)
			if _, ok := get(t, c, n.Manager, count); !ok {
				t.Fatal("the session has ended although it was used in time")
			}
			before := n.memory.Statements()
			get(t, c, n.Manager, count)
			want(t, "statements of the next read", n.memory.Statements()-before, 0)
		}
		time.Sleep(idle + time.Minute)
		if _, ok := get(t, c, n.Manager, count); ok {
			t.Error("the session outlives its timeout")
		}
	})
}

// A timeout of the session's own may be shorter than the application's touch interval.
func TestRequestInFlightIsUseUnderAnOwnTimeout_H7(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", nil).run(t)
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) {
			count.Set(s, 1)
			s.SetIdleTimeout(2 * time.Second)
			if err := s.Save(t.Context()); err != nil {
				t.Fatal(err)
			}
			for range 60 {
				time.Sleep(time.Second)
				if err := s.Refresh(t.Context()); err != nil {
					t.Fatalf("in the request that set it: %v", err)
				}
			}
		})
		c.do(t, n.Manager, func(s *sessionstore.Session) {
			time.Sleep(time.Minute)
			count.Set(s, 2)
		})
		if v, _ := get(t, c, n.Manager, count); v != 2 {
			t.Errorf("count is %d", v)
		}
		time.Sleep(3 * time.Second)
		if _, ok := get(t, c, n.Manager, count); ok {
			t.Error("the session outlives its timeout after the request")
		}
	})
}

// Functions that wait for their commit are replayed on what Refresh and Save bring.
func TestUpdateBesideRefreshAndSave_P2(t *testing.T) {
	n1, n2 := twoNodes(t)
	c := &client{}
	c.do(t, n1.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	other := *c
	c.do(t, n1.Manager, func(s *sessionstore.Session) {
		count.Update(s, func(n int) int { return n + 10 })
		other.do(t, n2.Manager, func(s *sessionstore.Session) { count.Set(s, 2) })
		if err := s.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if v, _ := count.Get(s); v != 12 {
			t.Errorf("count is %d after Refresh, want 12", v)
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 200 {
					count.Update(s, func(n int) int { return n + 1 })
					if err := s.Save(t.Context()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	})
	if v, _ := get(t, c, n1.Manager, count); v != 812 {
		t.Errorf("count is %d, want 812", v)
	}
}

// The cost of an Update does not grow with the number of those before it.
func TestManyUpdatesInOneRequest_P2(t *testing.T) {
	n1, n2 := twoNodes(t)
	c := &client{}
	c.do(t, n1.Manager, func(s *sessionstore.Session) { count.Set(s, 0) })
	other := *c
	const many = 20_000
	c.do(t, n1.Manager, func(s *sessionstore.Session) {
		other.do(t, n2.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		for range many {
			count.Update(s, func(n int) int { return n + 1 })
		}
	})
	if v, _ := get(t, c, n1.Manager, count); v != many+1 {
		t.Errorf("count is %d, want %d", v, many+1)
	}
}

func TestAccessTimeIsThePreviousRequests_K7(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", nil).run(t)
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		created := time.Now().UTC()
		previous := created
		for range 5 {
			time.Sleep(7 * time.Second)
			c.do(t, n.Manager, func(s *sessionstore.Session) {
				want(t, "access", s.Info().AccessedAt, previous)
				want(t, "creation", s.Info().CreatedAt, created)
				want(t, "expiry", s.Info().ExpiresAt, time.Now().Add(30*time.Minute).UTC())
			})
			previous = time.Now().UTC()
		}
	})
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

func TestDone(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	c.do(t, n.Manager, func(s *sessionstore.Session) {
		done := s.Done()
		select {
		case <-done:
			t.Fatal("done while the session lives")
		default:
		}
		if err := n.Invalidate(t.Context(), s.ID()); err != nil {
			t.Fatal(err)
		}
		<-done
		<-s.Done()
		if err := s.Refresh(t.Context()); !errors.Is(err, sessionstore.ErrNotFound) {
			t.Errorf("refresh: %v", err)
		}
		want(t, "new", s.IsNew(), true)
	})
	// A session that asks before it is stored hears of its end as well.
	c = &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) {
		done := s.Done()
		count.Set(s, 1)
		if err := s.Save(t.Context()); err != nil {
			t.Fatal(err)
		}
		id := s.ID()
		if err := n.Invalidate(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		<-done
	})
}

func TestEvictedSessionsHearOfTheirEnd(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", &sessionstore.Config{CacheBytes: -1})
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	c.do(t, n.Manager, func(s *sessionstore.Session) {
		if err := n.Invalidate(t.Context(), s.ID()); err != nil {
			t.Fatal(err)
		}
		<-s.Done()
	})
}

// A write-back that fails leaves the use that began meanwhile in its place.
func TestAFailedTouchKeepsNobodyFromHearingTheEnd(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", &sessionstore.Config{CacheBytes: -1})
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	touching, fail := make(chan struct{}), make(chan struct{})
	n.backend.set(func(method string) error {
		if method == "Touch" {
			close(touching)
			<-fail
			return errors.New("lost connection")
		}
		return nil
	})
	time.Sleep(time.Millisecond)
	get(t, c, n.Manager, count)
	flushed := make(chan struct{})
	go func() { defer close(flushed); n.ids.Shutdown(context.Background()) }() // flushes
	<-touching
	stream, err := n.Begin(t.Context(), c.claim())
	if err != nil {
		t.Fatal(err)
	}
	ended := stream.Done()
	close(fail)
	<-flushed
	n.backend.set(nil)
	if err := n.Invalidate(t.Context(), c.token.ID()); err != nil { // on this very node
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(time.Second):
		t.Error("the session has ended, its stream was not told (Done)")
	}
	n.Release(stream)
}

func TestAFailedTouchLetsNoStreamExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", &sessionstore.Config{CacheBytes: -1}).run(t)
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		touching, fail := make(chan struct{}), make(chan struct{})
		var once sync.Once
		n.backend.set(func(method string) (err error) {
			if method == "Touch" {
				once.Do(func() { close(touching); <-fail; err = errors.New("lost connection") })
			}
			return err
		})
		time.Sleep(time.Millisecond)
		get(t, c, n.Manager, count)
		<-touching
		stream, err := n.Begin(t.Context(), c.claim())
		if err != nil {
			t.Fatal(err)
		}
		close(fail)
		time.Sleep(2 * time.Hour)
		if err := stream.Refresh(t.Context()); err != nil {
			t.Errorf("after two hours of a request in flight: %v", err)
		}
		n.Release(stream)
	})
}

// A session that has become somebody else's is not evicted.
func TestEvictionEndsOnlyThePrincipals(t *testing.T) {
	cfg := &sessionstore.Config{MaxSessions: 1, LimitPolicy: sessionstore.EvictOldest}
	n := newNode(t, membackend.New(), "n1", cfg).run(t)
	old := &client{}
	old.do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("ann") })
	time.Sleep(time.Millisecond)
	n.backend.set(func(method string) error {
		if method == "Delete" { // listed, not yet ended
			n.backend.set(nil)
			old.do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("bob") })
		}
		return nil
	})
	(&client{}).do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("ann") })
	old.do(t, n.Manager, func(s *sessionstore.Session) { want(t, "bob's session", s.Principal(), "bob") })
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

// Where nobody runs the ID manager, requests write back what others have left, so that
// what is to be written back does not become more and more.
func TestUsesAreWrittenBackWhereNobodyRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", &sessionstore.Config{TouchInterval: time.Minute})
		use := func() {
			c := &client{}
			c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
			time.Sleep(time.Millisecond)
			get(t, c, n.Manager, count)
		}
		const left = 200
		for range left {
			use()
		}
		time.Sleep(5 * time.Minute)
		want(t, "written back before the next request", n.Stats().Touched, 0)
		for range 10 * left { // enough to meet the others' shards
			use()
		}
		if got := n.Stats().Touched; got < left {
			t.Errorf("%d of %d uses were written back", got, left)
		}
	})
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
