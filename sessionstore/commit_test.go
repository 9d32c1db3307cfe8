package sessionstore_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

// twoNodes returns two nodes on one backend, neither hearing of the other's events.
func twoNodes(t *testing.T) (*node, *node) {
	memory := membackend.New()
	return newNode(t, memory, "n1", nil), newNode(t, memory, "n2", nil)
}

func TestNoLostUpdate_P2(t *testing.T) {
	for _, nodes := range []int{1, 2, 5} {
		t.Run(fmt.Sprintf("%d nodes", nodes), func(t *testing.T) {
			memory := membackend.New()
			var ns []*node
			for i := range nodes {
				ns = append(ns, newNode(t, memory, fmt.Sprintf("n%d", i), nil))
			}
			c := &client{}
			c.do(t, ns[0].Manager, func(s *sessionstore.Session) { count.Set(s, 0) })
			var (
				wg   sync.WaitGroup
				mu   sync.Mutex
				seen = map[int]bool{} // guarded by mu
			)
			for g := range 64 {
				wg.Go(func() {
					own := *c
					for i := range 200 {
						n := ns[(g+i)%nodes]
						_, err := own.try(n.Manager, func(s *sessionstore.Session) {
							count.Update(s, func(n int) int { return n + 1 })
							if i%2 == 0 {
								return
							}
							if err := s.Save(context.Background()); err != nil {
								t.Error(err)
							}
							v, _ := count.Get(s)
							mu.Lock()
							defer mu.Unlock()
							if seen[v] {
								t.Errorf("two requests saw the counter at %d after their own save", v)
							}
							seen[v] = true
						})
						if err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			for _, n := range ns {
				fresh := sessionstore.Claim{Token: c.token, Fresh: true}
				s, err := n.Begin(t.Context(), fresh)
				if err != nil {
					t.Fatal(err)
				}
				v, _ := count.Get(s)
				want(t, "counter", v, 12_800)
				n.Release(s)
			}
		})
	}
}

func TestDifferentAttributesSurvive_P2(t *testing.T) {
	a, b := twoNodes(t)
	c := &client{}
	c.do(t, a.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	onB := *c
	c.do(t, a.Manager, func(s *sessionstore.Session) { // X1
		name.Set(s, "from a")
		onB.do(t, b.Manager, func(s *sessionstore.Session) { tags.Set(s, map[string]int{"from b": 1}) })
	})
	for _, n := range []*node{a, b} {
		v, _ := get(t, c, n.Manager, name)
		want(t, "name", v, "from a")
		m, _ := get(t, c, n.Manager, tags)
		want(t, "tags", m["from b"], 1)
	}
}

func TestOnTheSameAttributeTheLaterCommitWins_P2(t *testing.T) {
	a, b := twoNodes(t)
	c := &client{}
	c.do(t, a.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	onB := *c
	c.do(t, a.Manager, func(s *sessionstore.Session) {
		count.Set(s, 2)
		onB.do(t, b.Manager, func(s *sessionstore.Session) { count.Set(s, 3) })
	})
	v, _ := get(t, c, b.Manager, count)
	want(t, "count", v, 2)
}

func TestGoneIsGone_P3(t *testing.T) {
	for what, end := range map[string]func(n *node, c *client) error{
		"invalidated here": func(n *node, c *client) error {
			_, err := c.try(n.Manager, func(s *sessionstore.Session) { s.Invalidate() })
			return err
		},
		"revoked": func(n *node, c *client) error { return n.Invalidate(context.Background(), c.token.ID()) },
		"expired": func(n *node, c *client) error { n.memory.Advance(48 * time.Hour); return nil },
		"deleted behind our back": func(n *node, c *client) error {
			_, err := n.memory.Delete(context.Background(), sessionstore.Selector{ID: c.token.ID()})
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			n := newNode(t, membackend.New(), "n1", nil)
			c := &client{}
			c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
			other := *c
			r, err := c.try(n.Manager, func(s *sessionstore.Session) {
				count.Set(s, 2)
				if err := end(n, &other); err != nil {
					t.Fatal(err)
				}
			})
			if !errors.Is(err, sessionstore.ErrNotFound) || r != (sessionstore.Receipt{}) {
				t.Errorf("%+v, %v; want ErrNotFound, and the cookie left alone", r, err)
			}
			if _, ok := get(t, c, n.Manager, count); ok {
				t.Error("revived")
			}
			if _, err := n.memory.Load(t.Context(), sessionstore.Key{ID: c.token.ID(), App: "shop"}, 0); !errors.Is(err, sessionstore.ErrNotFound) {
				t.Errorf("row: %v", err)
			}
		})
	}
}

func TestLogoutWhileASaveIsInFlight_P3(t *testing.T) {
	// The save commits first, the logout right after it, and only then the saving
	// request goes on: its copy must not come back into the cache.
	n := newNode(t, membackend.New(), "n1", nil).run(t)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	s, err := n.Begin(t.Context(), c.claim())
	if err != nil {
		t.Fatal(err)
	}
	count.Set(s, 2)
	after := &afterUpdate{Backend: n.memory, f: func() {
		if err := n.Invalidate(context.Background(), c.token.ID()); err != nil {
			t.Error(err)
		}
	}}
	n.backend.Backend = after
	if _, err := n.Commit(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	n.Release(s)
	want(t, "cached sessions", n.Stats().CachedSessions, 0)
	if _, ok := get(t, c, n.Manager, count); ok {
		t.Error("a logged out session answers")
	}
}

type afterUpdate struct {
	sessionstore.Backend
	f   func()
	err error // what is returned in place of success
}

func (b *afterUpdate) Update(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
	err := b.Backend.Update(ctx, rec, cond)
	b.f()
	return cmp.Or(b.err, err)
}

func TestLoginDuringAnAnonymousRequest_P7(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	slow := *c
	r := slow.do(t, n.Manager, func(s *sessionstore.Session) {
		name.Set(s, "slow")
		c.do(t, n.Manager, func(s *sessionstore.Session) {
			s.SetPrincipal("bob")
			count.Set(s, 42)
		})
		if err := s.Save(t.Context()); err != nil {
			t.Fatal(err)
		}
		// Its secret is worth nothing now: it must not see what came after.
		want(t, "principal in the slow request", s.Principal(), "")
		v, _ := count.Get(s)
		want(t, "count in the slow request", v, 1)
		own, _ := name.Get(s)
		want(t, "own change", own, "slow")
		if err := s.Refresh(t.Context()); !errors.Is(err, sessionstore.ErrNotFound) {
			t.Errorf("refresh: %v, want ErrNotFound", err)
		}
	})
	if r != (sessionstore.Receipt{}) {
		t.Errorf("the slow request's client was told %+v", r)
	}
	c.do(t, n.Manager, func(s *sessionstore.Session) {
		want(t, "principal", s.Principal(), "bob")
		v, _ := name.Get(s)
		want(t, "the slow request's change (P2)", v, "slow")
	})
	slow.do(t, n.Manager, func(s *sessionstore.Session) { want(t, "new", s.IsNew(), true) })
}

func TestAnOldSecretCannotTakeOverByRenewal_P7(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	for what, takeOver := range map[string]func(*sessionstore.Session){
		"renewal":       func(s *sessionstore.Session) { s.Renew() },
		"another login": func(s *sessionstore.Session) { s.SetPrincipal("mallory") },
	} {
		thief := *c
		s, err := n.Begin(t.Context(), thief.claim())
		if err != nil {
			t.Fatal(err)
		}
		takeOver(s)
		c.do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("bob") })
		r, err := n.Commit(t.Context(), s)
		n.Release(s)
		if !r.Token.IsZero() {
			t.Errorf("%s: an outdated secret was exchanged for a valid one", what)
		}
		if what == "another login" && !errors.Is(err, sessionstore.ErrConflict) {
			t.Errorf("%s: %v, want ErrConflict", what, err)
		}
		c.do(t, n.Manager, func(s *sessionstore.Session) { want(t, what+": principal", s.Principal(), "bob") })
		c.do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("") })
	}
}

// A secret is worth nothing after a renewal, whoever renewed it, in whatever application
// and whatever its holder does with it.
func TestAnOldSecretGetsNoNewOne_P7(t *testing.T) {
	renewals := map[string]func(t *testing.T, c *client, shop, office *sessionstore.Manager){
		"a renewal": func(t *testing.T, c *client, shop, _ *sessionstore.Manager) {
			c.do(t, shop, func(s *sessionstore.Session) { s.Renew() })
		},
		"a login": func(t *testing.T, c *client, shop, _ *sessionstore.Manager) {
			c.do(t, shop, func(s *sessionstore.Session) { s.SetPrincipal("ann") })
		},
		"a login as who it was": func(t *testing.T, c *client, shop, _ *sessionstore.Manager) {
			c.do(t, shop, func(s *sessionstore.Session) { s.SetPrincipal(s.Principal()) })
		},
		"a login in another application": func(t *testing.T, c *client, _, office *sessionstore.Manager) {
			inOffice := &client{token: c.token} // which has its own version cookie
			inOffice.do(t, office, func(s *sessionstore.Session) { s.SetPrincipal("admin") })
			c.token = inOffice.token
		},
	}
	uses := map[string]func(*sessionstore.Session){
		"renewal":                func(s *sessionstore.Session) { s.Renew() },
		"another login":          func(s *sessionstore.Session) { s.SetPrincipal("mallory") },
		"giving up":              func(s *sessionstore.Session) { s.SetPrincipal("") },
		"change":                 func(s *sessionstore.Session) { count.Set(s, 2) },
		"login with another use": func(s *sessionstore.Session) { s.SetPrincipal("mallory"); count.Set(s, 2) },
	}
	for renewal, renew := range renewals {
		for use, do := range uses {
			for _, was := range []string{"", "mallory"} {
				n := newNode(t, membackend.New(), "n1", nil).run(t)
				office := n.application(t, "office", nil)
				c := &client{}
				c.do(t, n.Manager, func(s *sessionstore.Session) {
					count.Set(s, 1)
					s.SetPrincipal(was)
				})
				what := fmt.Sprintf("%s by the holder of the old secret of %q, after %s", use, was, renewal)
				thief := *c
				s, err := n.Begin(t.Context(), thief.claim())
				if err != nil {
					t.Fatal(err)
				}
				do(s)
				renew(t, c, n.Manager, office)
				r, err := n.Commit(t.Context(), s)
				n.Release(s)
				if !r.Token.IsZero() || err != nil && !errors.Is(err, sessionstore.ErrConflict) {
					t.Errorf("%s: told %+v, %v", what, r, err)
				}
				thief.do(t, n.Manager, func(s *sessionstore.Session) { want(t, what+": new", s.IsNew(), true) })
				c.do(t, n.Manager, func(s *sessionstore.Session) { want(t, what+": the other's is new", s.IsNew(), false) })
			}
		}
	}
}

func TestNothingIsStoredThatCannotBe(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", &sessionstore.Config{MaxDataBytes: 1000})
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	nan := sessionstore.NewAttr[float64]("nan")
	odd := sessionstore.NewAttr[chan int]("chan")
	var zero sessionstore.Attr[int]
	for what, f := range map[string]func(*sessionstore.Session){
		"a value without encoding (F25)": func(s *sessionstore.Session) { nan.Set(s, math.NaN()) },
		"a type without encoding":        func(s *sessionstore.Session) { odd.Set(s, make(chan int)) },
		"an update without encoding":     func(s *sessionstore.Session) { nan.Update(s, func(float64) float64 { return math.Inf(1) }) },
		"a session over the limit":       func(s *sessionstore.Session) { name.Set(s, strings.Repeat("x", 1000)) },
		"a name that is empty":           func(s *sessionstore.Session) { zero.Set(s, 1) },
		"a principal over the limit":     func(s *sessionstore.Session) { s.SetPrincipal(strings.Repeat("x", 256)) },
		"a principal that is no UTF-8":   func(s *sessionstore.Session) { s.SetPrincipal("\xff") },
		"a principal with NUL":           func(s *sessionstore.Session) { s.SetPrincipal("a\x00b") },
	} {
		_, err := c.try(n.Manager, func(s *sessionstore.Session) {
			count.Set(s, 2)
			f(s)
		})
		if err == nil {
			t.Errorf("%s was stored", what)
		}
		if v, _ := get(t, c, n.Manager, count); v != 1 {
			t.Errorf("%s: the other change was stored, or what was there is lost: %d", what, v)
		}
	}
	want(t, "saves", n.Stats().Saved, 0)

	c.do(t, n.Manager, func(s *sessionstore.Session) {
		name.Set(s, strings.Repeat("x", 1000))
		if err := s.Save(t.Context()); !errors.Is(err, sessionstore.ErrTooLarge) {
			t.Errorf("save: %v, want ErrTooLarge", err)
		}
		s.Discard()
		count.Set(s, 3)
	})
	v, _ := get(t, c, n.Manager, count)
	want(t, "count after Discard", v, 3)
}

func TestAFailedSaveStaysPending_X12(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	down := errors.New("database is down")
	c.do(t, n.Manager, func(s *sessionstore.Session) {
		count.Set(s, 2)
		n.backend.set(func(string) error { return down })
		if err := s.Save(t.Context()); !errors.Is(err, down) {
			t.Errorf("save: %v", err)
		}
		v, _ := count.Get(s)
		want(t, "own view", v, 2)
		name.Set(s, "x")
		n.backend.set(nil)
	})
	v, _ := get(t, c, n.Manager, count)
	want(t, "count", v, 2)
}

// An increment of which nobody knows whether it was stored is not stored again, unless
// the handler says so.
func TestAFailedUpdateIsNotRepeated(t *testing.T) {
	down := errors.New("connection lost")
	for what, test := range map[string]struct {
		then  func(*sessionstore.Session) error
		fails bool
		want  int
	}{
		"nothing":   {func(*sessionstore.Session) error { return nil }, true, 2},
		"Set":       {func(s *sessionstore.Session) error { name.Set(s, "x"); return nil }, true, 2},
		"Discard":   {func(s *sessionstore.Session) error { s.Discard(); return nil }, false, 2},
		"Save":      {func(s *sessionstore.Session) error { return s.Save(t.Context()) }, false, 3},
		"Set count": {func(s *sessionstore.Session) error { count.Set(s, 7); return s.Save(t.Context()) }, false, 7},
	} {
		n := newNode(t, membackend.New(), "n1", nil)
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		_, err := c.try(n.Manager, func(s *sessionstore.Session) {
			count.Update(s, func(n int) int { return n + 1 })
			lost := &afterUpdate{Backend: n.memory, f: func() {}, err: down} // stored all the same
			n.backend.Backend = lost
			if err := s.Save(t.Context()); !errors.Is(err, down) {
				t.Errorf("save: %v", err)
			}
			n.backend.Backend = n.memory
			if err := test.then(s); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		})
		if errors.Is(err, down) != test.fails {
			t.Errorf("%s: commit returned %v", what, err)
		}
		c.version = 0
		v, _ := get(t, c, n.Manager, count)
		want(t, what+": count", v, test.want)
	}
}

func TestCommitsOfOneSessionTravelTogether(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", &sessionstore.Config{MaxDataBytes: 1000})
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 0) })
	started, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	n.backend.set(func(method string) error {
		if method == "Update" {
			once.Do(func() {
				close(started)
				<-release
			})
		}
		return nil
	})
	var wg sync.WaitGroup
	increment := func(s *sessionstore.Session) { count.Update(s, func(n int) int { return n + 1 }) }
	own := *c
	wg.Go(func() { own.try(n.Manager, increment) })
	<-started
	const others = 20
	errs := make([]error, others)
	for i := range others {
		own := *c
		s, err := n.Begin(t.Context(), own.claim())
		if err != nil {
			t.Fatal(err)
		}
		switch i {
		case 3: // one bad commit fails alone
			name.Set(s, strings.Repeat("x", 2000))
		case 4:
			count.Update(s, func(n int) int {
				if n > 0 {
					panic("replayed")
				}
				return n
			})
		default:
			increment(s)
		}
		wg.Go(func() {
			defer n.Release(s)
			_, errs[i] = n.Commit(context.Background(), s)
		})
	}
	close(release)
	wg.Wait()
	for i, err := range errs {
		switch {
		case i == 3 && !errors.Is(err, sessionstore.ErrTooLarge):
			t.Errorf("the too large one: %v", err)
		case i == 4 && err == nil: // it may have run first, alone
			t.Log("the panicking one was not replayed")
		case i != 3 && i != 4 && err != nil:
			t.Errorf("commit %d: %v", i, err)
		}
	}
	v, _ := get(t, c, n.Manager, count)
	want(t, "count", v, others-1)
	if st := n.Stats(); st.Saved+st.Merged < others-1 {
		t.Errorf("%d saves and %d merged", st.Saved, st.Merged)
	}
}

func TestAbandonedCommitDoesNotHoldUpOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", &sessionstore.Config{Timeout: time.Second})
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 0) })
		hang := true
		n.backend.set(func(method string) error {
			if method == "Update" && hang {
				time.Sleep(3 * time.Second) // a backend that ignores its context
				return context.DeadlineExceeded
			}
			return nil
		})
		var wg sync.WaitGroup
		for range 3 {
			own := *c
			wg.Go(func() {
				start := time.Now()
				_, err := own.try(n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 3*time.Second {
					t.Errorf("%v after %v", err, time.Since(start))
				}
			})
		}
		wg.Wait()
		hang = false
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 2) })
	})
}

func TestCancelledRequestStillCommits_P1(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	c := &client{}
	ctx, cancel := context.WithCancel(t.Context())
	s, err := n.Begin(ctx, c.claim())
	if err != nil {
		t.Fatal(err)
	}
	defer n.Release(s)
	count.Set(s, 1)
	cancel() // the client hangs up
	r, err := n.Commit(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	c.accept(r)
	v, _ := get(t, c, n.Manager, count)
	want(t, "count", v, 1)
}

func TestMovingNeverBringsAnOldTokenBack_P7(t *testing.T) {
	for what, meanwhile := range map[string]func(*sessionstore.Session){
		"login":   func(s *sessionstore.Session) { s.SetPrincipal("bob") },
		"renewal": func(s *sessionstore.Session) { s.Renew() },
		"logout":  func(s *sessionstore.Session) { s.Invalidate() },
		"nothing": func(*sessionstore.Session) {},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := twoNodes(t)
				c := &client{}
				c.do(t, a.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
				slow := *c
				r := slow.do(t, b.Manager, func(s *sessionstore.Session) {
					time.Sleep(time.Second)
					c.do(t, a.Manager, meanwhile)
				})
				if moved := !r.Token.IsZero(); moved != (what == "nothing") {
					t.Errorf("token sent again: %t", moved)
				} else if moved && (r.Token.Route() != "n2" || r.Token.SecretHash() != c.token.SecretHash()) {
					t.Errorf("route %q", r.Token.Route())
				}
			})
		})
	}
}

func TestLogoutOfWhatBecameSomebodysSession_P7(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	old := *c
	r, err := old.try(n.Manager, func(s *sessionstore.Session) {
		s.Invalidate()
		c.do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("bob") })
	})
	if !errors.Is(err, sessionstore.ErrConflict) || r.Clear {
		t.Errorf("an anonymous request's logout after the login: %+v, %v", r, err)
	}
	office := n.application(t, "office", nil)
	anonymous := &client{}
	anonymous.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	old = *anonymous
	r, err = old.try(n.Manager, func(s *sessionstore.Session) {
		s.Invalidate()
		(&client{token: anonymous.token}).do(t, office, func(s *sessionstore.Session) { s.SetPrincipal("admin") })
	})
	if !errors.Is(err, sessionstore.ErrConflict) || r.Clear {
		t.Errorf("an anonymous request's logout after the login in another application: %+v, %v", r, err)
	}
	// A mere renewal meanwhile does not save bob's session from bob's logout.
	tab := *c
	tab.do(t, n.Manager, func(s *sessionstore.Session) {
		want(t, "principal", s.Principal(), "bob")
		s.Invalidate()
		c.do(t, n.Manager, func(s *sessionstore.Session) { s.Renew() })
	})
	c.do(t, n.Manager, func(s *sessionstore.Session) { want(t, "new after the logout", s.IsNew(), true) })
}

// A handler may invalidate the session while another goroutine of its request saves:
// what is being stored is to end too.
func TestInvalidateDuringASave(t *testing.T) {
	for what, change := range map[string]func(*sessionstore.Session){
		"of an attribute": func(s *sessionstore.Session) { count.Set(s, 2) },
		"of a login":      func(s *sessionstore.Session) { s.SetPrincipal("ann") },
	} {
		t.Run(what, func(t *testing.T) {
			n := newNode(t, membackend.New(), "n1", nil).run(t)
			c := &client{}
			c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
			s, err := n.Begin(t.Context(), c.claim())
			if err != nil {
				t.Fatal(err)
			}
			defer n.Release(s)
			n.backend.set(func(method string) error {
				if method == "Update" {
					s.Invalidate() // as from another goroutine
				}
				return nil
			})
			change(s)
			if err := s.Save(t.Context()); err != nil {
				t.Error(err)
			}
			want(t, "new after the save", s.IsNew(), true)
			receipt, err := n.Commit(t.Context(), s)
			if err != nil || !receipt.Clear {
				t.Errorf("Commit returned %+v, %v", receipt, err)
			}
			if _, err := n.memory.Load(t.Context(), sessionstore.Key{ID: c.token.ID(), App: "shop"}, 0); !errors.Is(err, sessionstore.ErrNotFound) {
				t.Errorf("stored: %v", err)
			}
		})
	}
}

func TestInvalidateDuringTheFirstSave(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil).run(t)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) {
		n.backend.set(func(method string) error {
			if method == "Create" {
				s.Invalidate()
			}
			return nil
		})
		s.SetPrincipal("ann")
		if err := s.Save(t.Context()); err != nil {
			t.Error(err)
		}
		n.backend.set(nil)
	})
	for info, err := range n.Sessions(t.Context(), "ann") {
		t.Errorf("after Invalidate there is %+v, %v", info, err)
	}
}

// Who has waited longest leads, and has least time left.
func TestCompanionsHaveTheirOwnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", &sessionstore.Config{Timeout: 5 * time.Second}).run(t)
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 0) })
		slow := &slowUpdate{Backend: n.memory, takes: 3 * time.Second} // less than Timeout
		n.backend.Backend = slow
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				tab := *c
				time.Sleep([]time.Duration{0, 100 * time.Millisecond, 2900 * time.Millisecond}[i])
				start := time.Now()
				_, err := tab.try(n.Manager, func(s *sessionstore.Session) { count.Update(s, func(n int) int { return n + 1 }) })
				if err != nil {
					t.Errorf("save %d, after %v: %v", i, time.Since(start), err)
				}
			})
		}
		wg.Wait()
	})
}

type slowUpdate struct {
	sessionstore.Backend
	takes time.Duration
}

func (b *slowUpdate) Update(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
	select {
	case <-time.After(b.takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	return b.Backend.Update(ctx, rec, cond)
}

// Who hears of a logout may use the session of the request that logs out.
func TestListenersToEndsUseTheSession(t *testing.T) {
	for _, what := range []string{"Save", "Refresh"} {
		t.Run(what, func(t *testing.T) {
			listener := sessionstore.Listener{Destroyed: func(ctx context.Context, e sessionstore.SessionEvent) {
				s := sessionstore.FromContext(ctx)
				if deadline, ok := ctx.Deadline(); ok {
					t.Errorf("its context ends in %v", time.Until(deadline).Round(time.Second))
				}
				if what == "Refresh" {
					s.Refresh(ctx)
					return
				}
				name.Set(s, "goodbye")
				if err := s.Save(ctx); err != nil {
					t.Error(err)
				}
			}}
			n := newNode(t, membackend.New(), "n1", &sessionstore.Config{Listeners: []sessionstore.Listener{listener}, Timeout: time.Second}).run(t)
			c := &client{}
			c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
			s, err := n.Begin(context.Background(), c.claim())
			if err != nil {
				t.Fatal(err)
			}
			s.Invalidate()
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, err := n.Commit(sessionstore.NewContext(context.Background(), s), s)
				t.Log("commit:", err)
			}()
			select {
			case <-done:
			case <-time.After(5 * time.Second):
				t.Fatal("Commit hangs, five times as long as Config.Timeout")
			}
		})
	}
}

// The context of listeners carries the request's values, but not its cancellation.
func TestListenersOutliveTheirRequest(t *testing.T) {
	heard := false
	ctx, cancel := context.WithCancel(context.Background())
	listener := sessionstore.Listener{Destroyed: func(lctx context.Context, _ sessionstore.SessionEvent) {
		heard = true
		cancel() // the client hangs up
		if lctx.Err() != nil {
			t.Errorf("the listener's context ends with the caller's: %v", lctx.Err())
		}
	}}
	n := newNode(t, membackend.New(), "n1", &sessionstore.Config{Listeners: []sessionstore.Listener{listener}}).run(t)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("bob") })
	if _, err := n.InvalidatePrincipal(ctx, "bob"); err != nil || !heard {
		t.Error(err, heard)
	}
}

// A message that is set while another one is taken is not taken unseen.
func TestTakeLeavesWhatIsSetMeanwhile(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { name.Set(s, "first") })
	tab := *c
	c.do(t, n.Manager, func(s *sessionstore.Session) {
		v, _ := name.Take(s)
		want(t, "taken", v, "first")
		_, ok := name.Get(s)
		want(t, "there after it was taken", ok, false)
		tab.do(t, n.Manager, func(s *sessionstore.Session) { name.Set(s, "second") })
	})
	v, _ := get(t, c, n.Manager, name)
	want(t, "left", v, "second")
}
