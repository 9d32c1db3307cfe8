package sessionstore_test

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

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
		time.Sleep(2 * sessionstore.DefaultLifetime) // and many idle timeouts
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
