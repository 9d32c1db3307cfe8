package sessionstore_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

var errDown = errors.New("database is down")

// cut lets every call of the node's to the database fail, or none.
func (n *node) cut(down bool) {
	if !down {
		n.backend.set(nil)
		return
	}
	n.backend.set(func(string) error { return errDown })
}

func TestOutageConfig(t *testing.T) {
	for word, cfg := range map[string]sessionstore.Config{
		"Outage is 7":          {Outage: 7},
		"OutageGrace is -1ns":  {Outage: sessionstore.ServeCached, OutageGrace: -1},
		"Outage is FailClosed": {OutageGrace: time.Minute},
		"Strict":               {Outage: sessionstore.ServeCached, Freshness: sessionstore.Strict},
		"CacheBytes":           {Outage: sessionstore.ServeCached, CacheBytes: -1},
	} {
		ids := newNode(t, membackend.New(), "", nil).ids
		if _, err := sessionstore.New(ids, "other", &cfg); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%v does not say %q", err, word)
		}
	}
}

func TestFailClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", nil).run(t)
		c := &client{}
		c.do(t, n.Manager, (*sessionstore.Session).Start)
		n.cut(true)
		time.Sleep(sessionstore.DefaultMaxStale)
		c.do(t, n.Manager, nil) // P10
		time.Sleep(time.Nanosecond)
		if _, err := c.try(n.Manager, nil); !errors.Is(err, errDown) {
			t.Errorf("Begin returned %v", err)
		}
		n.cut(false)
		c.do(t, n.Manager, nil)
	})
}

func TestServeCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", &sessionstore.Config{Outage: sessionstore.ServeCached}).run(t)
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		confirmed := time.Now()
		n.cut(true)
		from := func(what string, source sessionstore.Source) {
			t.Helper()
			c.do(t, n.Manager, func(s *sessionstore.Session) {
				if v, _ := count.Get(s); v != 1 || s.Source() != source {
					t.Errorf("%s: %d from %v, want it from %v", what, v, s.Source(), source)
				}
			})
		}
		from("within MaxStale", sessionstore.SourceCache)
		time.Sleep(sessionstore.DefaultMaxStale + 1)
		from("after it", sessionstore.SourceOutage)

		fresh := c.claim()
		fresh.Fresh = true
		if _, err := n.Begin(t.Context(), fresh); !errors.Is(err, errDown) {
			t.Errorf("a claim that is Fresh was answered with %v", err)
		}
		wrong := client{token: sessionstore.NewToken(c.token.ID(), "n1"), version: c.version}
		if _, err := wrong.try(n.Manager, nil); !errors.Is(err, errDown) {
			t.Errorf("another secret was answered with %v", err)
		}
		later := client{token: c.token, version: c.version + 1}
		if _, err := later.try(n.Manager, nil); !errors.Is(err, errDown) { // P4
			t.Errorf("a client that was told of more was answered with %v", err)
		}
		stranger := client{token: sessionstore.NewToken(sessionstore.ID{1}, "n1")}
		if _, err := stranger.try(n.Manager, nil); !errors.Is(err, errDown) {
			t.Errorf("an unknown session was answered with %v", err)
		}
		(&client{}).do(t, n.Manager, nil) // P9
		s, err := n.Begin(t.Context(), c.claim())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Refresh(t.Context()); !errors.Is(err, errDown) {
			t.Errorf("Refresh returned %v", err)
		}
		n.Release(s)

		// A change fails, and takes nothing with it.
		if r, err := c.try(n.Manager, func(s *sessionstore.Session) { count.Set(s, 2) }); !errors.Is(err, errDown) || r != (sessionstore.Receipt{}) {
			t.Errorf("a save returned %+v and %v", r, err)
		}
		from("after a failed save", sessionstore.SourceOutage)
		want(t, "outage hits", n.Stats().OutageHits, 4)

		time.Sleep(time.Until(confirmed.Add(sessionstore.DefaultMaxStale + sessionstore.DefaultOutageGrace)))
		from("at the end of OutageGrace", sessionstore.SourceOutage)
		time.Sleep(time.Nanosecond)
		if _, err := c.try(n.Manager, nil); !errors.Is(err, errDown) {
			t.Errorf("after OutageGrace: %v", err)
		}
		n.cut(false)
		from("after the outage", sessionstore.SourceDatabase)
		from("confirmed", sessionstore.SourceCache)
	})
}

// A copy on which a save was based that may have taken place answers nothing that
// the database could answer.
func TestADoubtfulCopyIsConfirmed_P1(t *testing.T) {
	for what, outage := range map[string]sessionstore.OutagePolicy{"fail closed": sessionstore.FailClosed, "serve cached": sessionstore.ServeCached} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, membackend.New(), "n1", &sessionstore.Config{Outage: outage}).run(t)
				other := newNode(t, n.memory, "n2", nil).run(t)
				c := &client{}
				c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
				lost := *c
				n.cut(true)
				if _, err := c.try(n.Manager, func(s *sessionstore.Session) { count.Set(s, 2) }); err == nil {
					t.Fatal("saved without a database")
				}
				// It did take place, it turns out.
				c.do(t, other.Manager, func(s *sessionstore.Session) { count.Set(s, 2) })
				n.cut(false)
				lost.do(t, n.Manager, func(s *sessionstore.Session) {
					if v, _ := count.Get(s); v != 2 || s.Source() != sessionstore.SourceDatabase {
						t.Errorf("%d from %v", v, s.Source())
					}
				})
				// And if it did not, the copy is as good as ever.
				n.cut(true)
				if _, err := lost.try(n.Manager, func(s *sessionstore.Session) { count.Set(s, 3) }); err == nil {
					t.Fatal("saved without a database")
				}
				n.cut(false)
				before := n.Stats().NotModified
				for _, source := range []sessionstore.Source{sessionstore.SourceDatabase, sessionstore.SourceCache} {
					lost.do(t, n.Manager, func(s *sessionstore.Session) {
						if v, _ := count.Get(s); v != 2 || s.Source() != source {
							t.Errorf("%d from %v, want it from %v", v, s.Source(), source)
						}
					})
				}
				want(t, "answers without data", n.Stats().NotModified-before, 1)
			})
		})
	}
}

func TestAFailedLogoutIsNotServedFromACopy(t *testing.T) {
	for what, logout := range map[string]func(*sessionstore.Session){
		"Invalidate":   (*sessionstore.Session).Invalidate,
		"SetPrincipal": func(s *sessionstore.Session) { s.SetPrincipal("") },
		"Renew":        (*sessionstore.Session).Renew,
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, membackend.New(), "n1", &sessionstore.Config{Outage: sessionstore.ServeCached}).run(t)
				c := &client{}
				c.do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("ann") })
				n.cut(true)
				if _, err := c.try(n.Manager, logout); !errors.Is(err, errDown) {
					t.Errorf("logout returned %v", err)
				}
				if _, err := c.try(n.Manager, nil); !errors.Is(err, errDown) {
					t.Errorf("the next request was answered with %v", err)
				}
				n.cut(false)
				c.do(t, n.Manager, logout)
			})
		})
	}
}

func TestACopyExpiresDuringAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", &sessionstore.Config{
			Outage: sessionstore.ServeCached, OutageGrace: time.Hour, IdleTimeout: 10 * time.Minute,
		}).run(t)
		c := &client{}
		c.do(t, n.Manager, (*sessionstore.Session).Start)
		n.cut(true)
		for range 9 { // in use, but nothing of that reaches the database
			time.Sleep(time.Minute)
			c.do(t, n.Manager, nil)
		}
		time.Sleep(time.Minute)
		if _, err := c.try(n.Manager, nil); !errors.Is(err, errDown) {
			t.Errorf("after the idle timeout: %v", err)
		}
		n.cut(false)
	})
}

// What was used during an outage is written back after it, each session once.
func TestTouchesSurviveAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", &sessionstore.Config{Outage: sessionstore.ServeCached}).run(t)
		clients := make([]*client, 300) // more than a batch
		for i := range clients {
			clients[i] = &client{}
			clients[i].do(t, n.Manager, (*sessionstore.Session).Start)
		}
		time.Sleep(2 * time.Minute)
		before := n.Stats().Touched
		n.cut(true)
		for range 10 {
			for _, c := range clients {
				c.do(t, n.Manager, nil)
			}
			time.Sleep(20 * time.Second)
		}
		used := time.Now().Add(-20 * time.Second)
		want(t, "touches written during the outage", n.Stats().Touched-before, 0)
		n.cut(false)
		time.Sleep(2 * time.Minute)
		want(t, "touches written after it", n.Stats().Touched-before, int64(len(clients)))
		for _, c := range clients {
			rec, err := n.memory.Load(t.Context(), sessionstore.Key{ID: c.token.ID(), App: "shop"}, 0)
			if err != nil || used.Sub(rec.AccessedAt).Abs() > time.Microsecond {
				t.Fatalf("accessed at %v, want %v: %v", rec.AccessedAt, used, err)
			}
		}
	})
}

func TestNoCopyIsTooOldWithoutABound(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", &sessionstore.Config{MaxStale: math.MaxInt64, Outage: sessionstore.ServeCached})
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	n.backend.set(func(string) error { return errors.New("away") })
	if _, err := c.try(n.Manager, func(s *sessionstore.Session) { count.Get(s) }); err != nil {
		t.Errorf("a copy a moment old does not stand in: %v", err)
	}
}
