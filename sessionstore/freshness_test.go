package sessionstore_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

func TestReadsAreFree_P10(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", nil).run(t)
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		before := n.memory.Statements()
		for range 1000 {
			c.do(t, n.Manager, func(s *sessionstore.Session) {
				count.Get(s)
				want(t, "source", s.Source(), sessionstore.SourceCache)
			})
			time.Sleep(30 * time.Millisecond)
		}
		want(t, "statements of 1,000 reads", n.memory.Statements()-before, 0)
		time.Sleep(75 * time.Second)
		// The touches, and the sweeps that saw nothing to do.
		want(t, "touches", n.Stats().Touched, 1)
		want(t, "loads", n.Stats().Loads, 0)
	})
}

func TestFreshnessRules_P4_P5_P6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := membackend.New()
		a, b := newNode(t, memory, "a", nil).run(t), newNode(t, memory, "b", nil).run(t)
		c := &client{}
		c.do(t, a.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		source := func(n *node, c *client) (src sessionstore.Source, v int) {
			c.do(t, n.Manager, func(s *sessionstore.Session) { src, v = s.Source(), first(count.Get(s)) })
			return src, v
		}
		check := func(what string, n *node, c *client, src sessionstore.Source, v int) {
			t.Helper()
			gotSrc, got := source(n, c)
			want(t, what+": source", gotSrc, src)
			want(t, what+": value", got, v)
		}
		check("the node that wrote", a, c, sessionstore.SourceCache, 1)
		check("another node, first", b, c, sessionstore.SourceDatabase, 1)
		check("another node, then", b, c, sessionstore.SourceCache, 1)
		c.do(t, a.Manager, func(s *sessionstore.Session) { count.Set(s, 2) })
		check("rule 2: told of a newer version (P4)", b, c, sessionstore.SourceDatabase, 2)
		check("rule 2, then", b, c, sessionstore.SourceCache, 2)

		api := &client{token: c.token}
		check("no version: asked each time", b, &client{token: api.token}, sessionstore.SourceDatabase, 2)
		check("no version: asked each time", b, &client{token: api.token}, sessionstore.SourceDatabase, 2)
		liar := &client{token: c.token, version: 1 << 40}
		check("a version that the database does not have, or has lost", b, liar, sessionstore.SourceDatabase, 2)
		check("that version, then", b, liar, sessionstore.SourceCache, 2)

		time.Sleep(61 * time.Second)
		check("rule 4: MaxStale (P6)", b, c, sessionstore.SourceDatabase, 2)
		check("rule 4, then", b, c, sessionstore.SourceCache, 2)

		s, err := b.Begin(t.Context(), sessionstore.Claim{Token: c.token, Version: c.version, Fresh: true})
		if err != nil {
			t.Fatal(err)
		}
		want(t, "Fresh", s.Source(), sessionstore.SourceDatabase)
		b.Release(s)

		wrong := &client{token: sessionstore.NewToken(c.token.ID(), ""), version: c.version}
		before := memory.Statements()
		wrong.do(t, b.Manager, func(s *sessionstore.Session) { want(t, "new", s.IsNew(), true) })
		want(t, "rule 1: the database refuses a wrong secret (P5), and is asked for other uses of the session", memory.Statements()-before, 2)
		check("the right secret is not impressed", b, c, sessionstore.SourceCache, 2)
	})
}

func first[T any](v T, _ bool) T { return v }

func TestMonotonicReads_P4(t *testing.T) {
	memory := membackend.New()
	a, b := newNode(t, memory, "a", nil).run(t), newNode(t, memory, "b", nil).run(t)
	c := &client{}
	c.do(t, a.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	get(t, c, b.Manager, count)
	tab := *c
	tab.do(t, a.Manager, func(s *sessionstore.Session) { count.Set(s, 2) })
	// Having read version 2 on a, c is told of it, so that b cannot show it version 1.
	if v, _ := get(t, c, a.Manager, count); v != 2 {
		t.Fatalf("on a: %d", v)
	}
	if v, _ := get(t, c, b.Manager, count); v != 2 {
		t.Errorf("on b: %d, after 2 was read on a", v)
	}
}

func TestWithoutRunEverythingIsRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := membackend.New()
		a, b := newNode(t, memory, "a", nil), newNode(t, memory, "b", nil)
		c := &client{}
		c.do(t, a.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		for range 120 { // two hours of use, every minute
			time.Sleep(time.Minute)
			if _, ok := get(t, c, b.Manager, count); !ok {
				t.Fatal("expired while in use")
			}
		}
		if err := a.Invalidate(t.Context(), c.token.ID()); err != nil {
			t.Fatal(err)
		}
		if _, ok := get(t, c, b.Manager, count); ok {
			t.Error("a revoked session answers on another node")
		}
		if n := b.Stats().Touched; n < 100 || n > 121 {
			t.Errorf("%d touches in two hours, want about one a minute", n)
		}
	})
}

// What makes no difference to an outdated copy makes one to what is stored, and the later
// commit wins.
func TestSavesOfWhatAnOutdatedCopyHolds_P1(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := membackend.New()
		a, b := newNode(t, memory, "a", nil).run(t), newNode(t, memory, "b", nil).run(t)
		desk := &client{}
		desk.do(t, a.Manager, func(s *sessionstore.Session) {
			name.Set(s, "dark")
			count.Set(s, 10)
			s.SetPrincipal("ann")
		})
		phone := *desk
		phone.do(t, b.Manager, nil)
		desk.do(t, a.Manager, func(s *sessionstore.Session) {
			name.Set(s, "light")
			count.Set(s, 0)
			tags.Set(s, map[string]int{"beta": 1})
		})
		phone.do(t, b.Manager, func(s *sessionstore.Session) {
			if n, _ := name.Get(s); n != "dark" {
				t.Errorf("the other node's copy is not outdated: %q", n)
			}
			name.Set(s, "dark")
			count.Update(s, func(n int) int { return max(n, 10) })
			tags.Delete(s)
		})
		phone.do(t, a.Manager, func(s *sessionstore.Session) {
			n, _ := name.Get(s)
			c, _ := count.Get(s)
			_, ok := tags.Get(s)
			if n != "dark" || c != 10 || ok {
				t.Errorf("stored are %q, %d and tags: %t, want dark, 10 and none", n, c, ok)
			}
		})

		saved := b.Stats().Saved
		phone.do(t, b.Manager, func(s *sessionstore.Session) { name.Set(s, "dark") })
		want(t, "saves of what is stored", b.Stats().Saved-saved, 0)
		if err := a.ids.Invalidate(t.Context(), desk.token.ID()); err != nil {
			t.Fatal(err)
		}
		_, err := phone.try(b.Manager, func(s *sessionstore.Session) { name.Set(s, "dark") })
		want(t, "a save of an ended session", errors.Is(err, sessionstore.ErrNotFound) || phone.token.ID() != desk.token.ID(), true)
	})
}

func TestStrictReadsWhatWasCommittedBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in which no time passes that would call for another look
		memory := membackend.New()
		strict := &sessionstore.Config{Freshness: sessionstore.Strict}
		a, b := newNode(t, memory, "a", strict).run(t), newNode(t, memory, "b", strict).run(t)
		c := &client{}
		c.do(t, a.Manager, func(s *sessionstore.Session) { count.Set(s, 0) })
		for i := range 100 {
			tab := *c
			tab.do(t, a.Manager, func(s *sessionstore.Session) { count.Set(s, i) })
			v, _ := get(t, c, b.Manager, count)
			want(t, "value", v, i)
		}
		if st := b.Stats(); st.CacheHits != 0 || st.NotModified != 0 {
			t.Errorf("%+v", st)
		}
		for range 10 {
			get(t, c, b.Manager, count)
		}
		want(t, "answered not modified", b.Stats().NotModified, 10)
	})
}

func TestConcurrentLoadsShareQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", nil)
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 7) })
		var loads atomic.Int64
		var release chan struct{}
		n.backend.set(func(method string) error {
			if method == "Load" {
				loads.Add(1)
				<-release
			}
			return nil
		})
		for what, test := range map[string]struct {
			client *client
			most   int64
		}{
			"told of a version": {c, 1},
			"told of none":      {&client{token: c.token}, 2},
		} {
			loads.Store(0)
			release = make(chan struct{})
			var wg sync.WaitGroup
			for range 200 {
				wg.Go(func() {
					own := *test.client
					if v, _ := get(t, &own, n.Manager, count); v != 7 {
						t.Errorf("value %d", v)
					}
				})
			}
			// A caller that gives up gives up only for itself.
			ctx, cancel := context.WithCancel(t.Context())
			wg.Go(func() {
				if _, err := n.Begin(ctx, sessionstore.Claim{Token: c.token, Version: c.version}); err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("cancelled: %v", err)
				}
			})
			synctest.Wait() // all wait for the one that was first
			cancel()
			synctest.Wait()
			close(release)
			wg.Wait()
			if got := loads.Load(); got > test.most {
				t.Errorf("%s: %d loads for 200 readers, want at most %d", what, got, test.most)
			}
		}
	})
}

func TestDatabaseTroubleIsAnError(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	down := errors.New("down")
	n.backend.set(func(string) error { return down })
	if _, err := n.Begin(t.Context(), c.claim()); !errors.Is(err, down) { // X11
		t.Errorf("begin: %v", err)
	}
	if s, err := n.Begin(t.Context(), sessionstore.Claim{}); err != nil || !s.IsNew() {
		t.Errorf("a request without a session: %v", err)
	}
	n.backend.set(nil)
	v, _ := get(t, c, n.Manager, count)
	want(t, "value afterwards", v, 1)
}

func TestCorruptDataIsKept_P13(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	key := sessionstore.Key{ID: c.token.ID(), App: "shop"}
	rec, err := n.memory.Load(t.Context(), key, 0)
	if err != nil {
		t.Fatal(err)
	}
	good := rec.Data
	store := func(data []byte) {
		rec.Data = data
		if err := n.memory.Update(t.Context(), rec, sessionstore.Condition{Version: rec.Version, SecretHash: rec.SecretHash}); err != nil {
			t.Fatal(err)
		}
		rec.Version++
	}
	for _, data := range [][]byte{{9}, {1, 200}, {1, 0, 0}, append([]byte{2}, good...), good[:len(good)-1]} {
		store(data)
		c.version = 0 // stored behind the cache's back
		c.do(t, n.Manager, func(s *sessionstore.Session) {
			if _, ok := count.Get(s); ok || s.IsNew() {
				t.Errorf("data %x: the attribute was read, or the session not found", data)
			}
		})
		if _, err := c.try(n.Manager, func(s *sessionstore.Session) { count.Set(s, 2) }); !errors.Is(err, sessionstore.ErrCorrupt) {
			t.Errorf("data %x: setting an attribute: %v, want ErrCorrupt", data, err)
		}
		c.do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("bob") }) // logging in works
		after, err := n.memory.Load(t.Context(), key, 0)
		if err != nil || string(after.Data) != string(data) {
			t.Errorf("data %x became %x, %v", data, after.Data, err)
		}
		rec = after
	}
	c.version = 0
	store(good)
	v, _ := get(t, c, n.Manager, count)
	want(t, "value", v, 1)

	// A bad value costs one attribute, and its bytes stay until overwritten.
	text := sessionstore.NewAttr[string]("count")
	c.do(t, n.Manager, func(s *sessionstore.Session) {
		if v, ok := text.Get(s); ok {
			t.Errorf("a number decoded as the string %q", v)
		}
		name.Set(s, "other")
	})
	v, _ = get(t, c, n.Manager, count)
	want(t, "value", v, 1)
	if n.Stats().DecodeErrors == 0 {
		t.Error("nothing was counted")
	}
	c.do(t, n.Manager, func(s *sessionstore.Session) { text.Update(s, func(v string) string { return v + "now text" }) })
	got, _ := get(t, c, n.Manager, text)
	want(t, "overwritten", got, "now text")
}

// P12: a node whose clock differs from the database's neither shows nor decides
// anything by its own.
func TestTheDatabasesClockDecides_P12(t *testing.T) {
	for _, off := range []time.Duration{10 * time.Minute, -10 * time.Minute, 48 * time.Hour, -48 * time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := membackend.New()
				memory.Advance(off) // the database's clock is off from this node's
				n := newNode(t, memory, "n1", nil).run(t)
				c := &client{}
				c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
				created := time.Now().Add(off).UTC()
				for range 3 {
					time.Sleep(20 * time.Minute) // less than the idle timeout
					c.do(t, n.Manager, func(s *sessionstore.Session) {
						want(t, "new", s.IsNew(), false)
						want(t, "creation", s.Info().CreatedAt, created)
						want(t, "expiry", s.Info().ExpiresAt, time.Now().Add(off+30*time.Minute).UTC())
					})
				}
				rec, err := memory.Load(t.Context(), sessionstore.Key{ID: c.token.ID(), App: "shop"}, 0)
				if err != nil {
					t.Fatal(err)
				}
				want(t, "stored creation", rec.CreatedAt, created)
				time.Sleep(31 * time.Minute)
				c.do(t, n.Manager, func(s *sessionstore.Session) { want(t, "new after the idle timeout", s.IsNew(), true) })
			})
		})
	}
}

// A claim is not refused by an answer to a question that was asked before its secret was
// set (P5): here by a login in one application while the other asks.
func TestAnOlderAnswerRefusesNoNewSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", nil) // not run: each request asks
		gate := &afterLoad{Backend: n.memory}
		n.backend.Backend = gate
		shop, office := n.Manager, n.application(t, "office", nil)
		c := &client{}
		c.do(t, shop, func(s *sessionstore.Session) { count.Set(s, 1) })
		inOffice := &client{token: c.token}
		inOffice.do(t, office, func(s *sessionstore.Session) { count.Set(s, 2) })
		get(t, inOffice, office, count)

		read, release := make(chan struct{}), make(chan struct{})
		var once sync.Once
		gate.set(func(key sessionstore.Key) {
			if key.App == "office" {
				once.Do(func() { close(read); <-release })
			}
		})
		done := make(chan struct{})
		early := *inOffice
		go func() { defer close(done); early.try(office, nil) }() // its answer is on the way
		<-read
		c.do(t, shop, func(s *sessionstore.Session) { s.SetPrincipal("ann") }) // the login is over
		inOffice.token = c.token                                               // one token cookie, a version cookie per application
		go func() { synctest.Wait(); close(release) }()                        // once the other request waits too
		inOffice.do(t, office, func(s *sessionstore.Session) {
			if !s.Claimed() {
				t.Error("the secret that the login has set is refused")
			}
			name.Set(s, "x") // and now the browser's token is replaced
		})
		<-done
		want(t, "session after the request", inOffice.token.ID(), c.token.ID())
	})
}

// afterLoad steps in after the database has answered a Load.
type afterLoad struct {
	sessionstore.Backend

	mu    sync.Mutex // guards after
	after func(key sessionstore.Key)
}

func (a *afterLoad) set(f func(sessionstore.Key)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.after = f
}

func (a *afterLoad) Load(ctx context.Context, key sessionstore.Key, known sessionstore.Version) (*sessionstore.Record, error) {
	rec, err := a.Backend.Load(ctx, key, known)
	a.mu.Lock()
	f := a.after
	a.mu.Unlock()
	if f != nil {
		f(key)
	}
	return rec, err
}

// An outdated copy does not refuse what the database would take.
func TestAnOutdatedCopyRefusesNothing_P5(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, cfg := membackend.New(), &sessionstore.Config{MaxDataBytes: 100}
		a, b := newNode(t, memory, "a", cfg).run(t), newNode(t, memory, "b", cfg).run(t)
		c := &client{}
		c.do(t, a.Manager, func(s *sessionstore.Session) { name.Set(s, strings.Repeat("x", 80)) })
		c.do(t, b.Manager, nil)
		other := *c
		c.do(t, a.Manager, func(s *sessionstore.Session) { name.Delete(s) })
		other.do(t, b.Manager, func(s *sessionstore.Session) { tags.Set(s, map[string]int{strings.Repeat("y", 50): 1}) })
	})
}

// A touch that the database ignores, because it comes too late, prolongs no copy.
func TestALateTouchRevivesNothing_P3(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", &sessionstore.Config{IdleTimeout: 20 * time.Second}).run(t)
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		n.backend.set(func(method string) error {
			if method == "Touch" {
				return errors.New("away")
			}
			return nil
		})
		time.Sleep(18 * time.Second)
		c.do(t, n.Manager, nil) // used, which is not written back
		time.Sleep(3 * time.Second)
		n.backend.set(nil)
		time.Sleep(6 * time.Second) // it is now, in vain
		c.do(t, n.Manager, func(s *sessionstore.Session) { want(t, "claimed 7 s after its end", s.Claimed(), false) })
	})
}

// A copy of a record whose timeout was shortened elsewhere, which has expired and was
// begun anew, answers nobody.
func TestShorterTimeoutsAreAnnounced_P3_P4(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := membackend.New()
		open := func(node string) (shop, office *sessionstore.Manager) {
			n := newNode(t, memory, node, nil)
			n.ids = manager(t, memory, node)
			n.Manager = n.application(t, "shop", nil)
			n.run(t)
			return n.Manager, n.application(t, "office", nil)
		}
		shopA, officeA := open("a")
		shopB, _ := open("b")
		c := &client{}
		c.do(t, shopA, func(s *sessionstore.Session) { name.Set(s, "dead"); count.Set(s, 1) })
		in := &client{token: c.token}
		in.do(t, officeA, func(s *sessionstore.Session) { count.Set(s, 1) }) // keeps the ID alive
		c.do(t, shopB, nil)                                                  // has a copy now
		c.do(t, shopA, func(s *sessionstore.Session) { s.SetIdleTimeout(10 * time.Second) })
		time.Sleep(20 * time.Second)
		c.do(t, shopA, func(s *sessionstore.Session) { count.Set(s, 7) })
		c.do(t, shopB, func(s *sessionstore.Session) {
			_, present := name.Get(s)
			want(t, "the dead record's name is there", present, false)
			got, _ := count.Get(s)
			want(t, "count", got, 7)
		})
	})
}

// manager returns an ID manager that hears of events.
func manager(t *testing.T, memory *membackend.Backend, node string) *idmanager.Manager {
	t.Helper()
	ids, err := idmanager.New(memory, &idmanager.Config{Node: node, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}
