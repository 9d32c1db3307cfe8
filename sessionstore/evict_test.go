package sessionstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

const limit = 5

// An evicting backend lets a test step in before what evictions ask for.
type evicting struct {
	sessionstore.Backend
	list, end    func(ctx context.Context) error // may be nil
	lists, ended atomic.Int64                    // how often either was called
}

func (b *evicting) List(ctx context.Context, sel sessionstore.Selector) iter.Seq2[sessionstore.Info, error] {
	b.lists.Add(1)
	if b.list != nil {
		if err := b.list(ctx); err != nil {
			return func(yield func(sessionstore.Info, error) bool) { yield(sessionstore.Info{}, err) }
		}
	}
	return b.Backend.List(ctx, sel)
}

func (b *evicting) Delete(ctx context.Context, sel sessionstore.Selector) ([]*sessionstore.Record, error) {
	b.ended.Add(1)
	if b.end != nil {
		if err := b.end(ctx); err != nil {
			return nil, err
		}
	}
	return b.Backend.Delete(ctx, sel)
}

// asleep takes d, or until ctx ends.
func asleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A bouncer is a node whose principals may have limit sessions. It takes down what its
// listeners and its log are told.
type bouncer struct {
	*node
	asked *evicting

	mu      sync.Mutex // guards what follows
	log     bytes.Buffer
	history map[sessionstore.ID]string
}

func newBouncer(t *testing.T, memory *membackend.Backend, name string) *bouncer {
	b := &bouncer{history: make(map[sessionstore.ID]string), asked: &evicting{Backend: memory}}
	heard := func(what string) func(context.Context, sessionstore.SessionEvent) {
		return func(_ context.Context, e sessionstore.SessionEvent) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.history[e.Info.Key.ID] += what
		}
	}
	b.node = newNode(t, memory, name, &sessionstore.Config{
		MaxSessions: limit, LimitPolicy: sessionstore.EvictOldest,
		Listeners: []sessionstore.Listener{{Created: heard("created "), Destroyed: heard("destroyed ")}},
		Logger:    slog.New(slog.NewTextHandler(b, nil)),
	})
	b.backend.Backend = b.asked
	b.run(t)
	return b
}

// Write takes down what is logged.
func (b *bouncer) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.Write(line)
}

func (b *bouncer) logged() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.String()
}

// live returns bob's sessions.
func (b *bouncer) live(t *testing.T) (ids []sessionstore.ID) {
	t.Helper()
	for info, err := range b.memory.List(t.Context(), sessionstore.Selector{Principal: "bob"}) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, info.Key.ID)
	}
	return ids
}

// login logs bob in.
func (b *bouncer) login(t *testing.T) *client {
	t.Helper()
	c := &client{}
	if _, err := c.try(b.Manager, func(s *sessionstore.Session) { s.SetPrincipal("bob") }); err != nil {
		t.Errorf("login: %v", err)
	}
	return c
}

// logins logs bob in n times at once, and waits for it.
func (b *bouncer) logins(t *testing.T, n int) (ids []sessionstore.ID) {
	t.Helper()
	ids = make([]sessionstore.ID, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { ids[i] = b.login(t).token.ID() })
	}
	wg.Wait()
	return ids
}

func TestManyLoginsAtOnceKeepTheLimit(t *testing.T) {
	const n = 100
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprintf("on %d nodes", nodes), func(t *testing.T) {
			memory := membackend.New()
			var bs []*bouncer
			for i := range nodes {
				bs = append(bs, newBouncer(t, memory, fmt.Sprintf("n%d", i+1)))
			}
			before := memory.Statements()
			var wg sync.WaitGroup
			for _, b := range bs {
				wg.Go(func() { b.logins(t, n) })
			}
			wg.Wait()
			// Each creates its session, lists at most once, and has few others to end.
			if got := memory.Statements() - before; got > 3*n*int64(nodes) {
				t.Errorf("%d logins took %d statements", n*nodes, got)
			}
			live := bs[0].live(t)
			want(t, "live", len(live), limit)
			all, ended := 0, 0
			for _, b := range bs {
				want(t, "log", b.logged(), "")
				want(t, "principals whose sessions are being evicted", b.Evicting(), 0)
				for id, history := range b.history {
					all += strings.Count(history, "created")
					ended += strings.Count(history, "destroyed")
					if slices.Contains(live, id) {
						want(t, "history of a live session", history, "created ")
					}
				}
			}
			want(t, "created", all, n*nodes)
			want(t, "ended", ended, n*nodes-limit)
		})
	}
}

func TestLoginsAtOnceKeepTheirSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBouncer(t, membackend.New(), "n1")
		for range limit {
			b.login(t)
			time.Sleep(time.Millisecond)
		}
		b.asked.list = func(ctx context.Context) error { return asleep(ctx, 10*time.Millisecond) }
		ids := b.logins(t, limit)
		live := b.live(t)
		want(t, "live", len(live), limit)
		for _, id := range ids {
			if !slices.Contains(live, id) {
				t.Errorf("login %s was evicted in place of an older session", id)
			}
		}
	})
}

// Those who come while sessions are listed share the next round, however many they are,
// and hear of their end after their beginning.
func TestLoginsShareEvictions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBouncer(t, membackend.New(), "n1")
		b.asked.list = func(ctx context.Context) error { return asleep(ctx, time.Second) }
		start := time.Now()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { b.logins(t, 20) })
			time.Sleep(50 * time.Millisecond)
		}
		wg.Wait()
		want(t, "time", time.Since(start), 2*time.Second)
		want(t, "lists", b.asked.lists.Load(), 2)
		want(t, "calls that end sessions", b.asked.ended.Load(), 7)
		want(t, "live", len(b.live(t)), limit)
		want(t, "log", b.logged(), "")
		for id, history := range b.history {
			if history != "created " && history != "created destroyed " {
				t.Errorf("%s was %s", id, history)
			}
		}
	})
}

func TestEvictionThatRunsOutOfTimeSaysSoOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBouncer(t, membackend.New(), "n1")
		b.login(t)
		b.asked.list = func(ctx context.Context) error { return asleep(ctx, time.Hour) }
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() { b.login(t) })
		time.Sleep(time.Second)
		wg.Go(func() { b.logins(t, 100) })
		wg.Wait()
		want(t, "time", time.Since(start), time.Second+sessionstore.DefaultTimeout)
		// The first one's, and that of all others.
		want(t, "lines of the log", strings.Count(b.logged(), "not ended"), 2)
		want(t, "live, since nothing can be ended", len(b.live(t)), 102)
		want(t, "principals whose sessions are being evicted", b.Evicting(), 0)

		b.asked.list = nil
		b.login(t)
		want(t, "live after the next login", len(b.live(t)), limit)
	})
}

// A call that ends sessions is not cut short, but nobody waits for it longer than a commit
// may take.
func TestLoginsThatCannotWaitForAnEviction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBouncer(t, membackend.New(), "n1")
		for range limit {
			b.login(t)
		}
		b.asked.list = func(ctx context.Context) error { return asleep(ctx, 3*time.Second) }
		b.asked.end = func(ctx context.Context) error { return asleep(ctx, 4*time.Second) }
		var wg sync.WaitGroup
		wg.Go(func() { b.login(t) })
		time.Sleep(time.Second)
		start := time.Now()
		b.logins(t, 10)
		want(t, "time", time.Since(start), sessionstore.DefaultTimeout)
		want(t, "log before the end", b.logged(), "")
		wg.Wait()
		want(t, "lines of the log", strings.Count(b.logged(), "not ended"), 1)
		if !strings.Contains(b.logged(), "10 logins have come since") {
			t.Errorf("the log says %s", b.logged())
		}
		want(t, "principals whose sessions are being evicted", b.Evicting(), 0)
	})
}

func TestEvictionThatFails(t *testing.T) {
	for name, fail := range map[string]func(*evicting, func(context.Context) error){
		"List":   func(b *evicting, f func(context.Context) error) { b.list = f },
		"Delete": func(b *evicting, f func(context.Context) error) { b.end = f },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBouncer(t, membackend.New(), "n1")
				b.logins(t, limit)
				fail(b.asked, func(ctx context.Context) error {
					return errors.Join(asleep(ctx, time.Millisecond), errors.New("no such luck"))
				})
				b.logins(t, 50)
				want(t, "lines of the log", strings.Count(b.logged(), "not ended"), 2)
				want(t, "live", len(b.live(t)), limit+50)
				fail(b.asked, nil)
				b.login(t)
				want(t, "live after the next login", len(b.live(t)), limit)
				for id, history := range b.history {
					if history != "created " && history != "created destroyed " {
						t.Errorf("%s was %s", id, history)
					}
				}
			})
		})
	}
}

// A backend that panics takes one login down, and the others are served.
func TestEvictionThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBouncer(t, membackend.New(), "n1")
		b.logins(t, limit)
		time.Sleep(time.Millisecond)
		b.asked.end = func(ctx context.Context) error {
			if asleep(ctx, time.Second); b.asked.ended.Load() == 1 {
				panic("no such luck")
			}
			return nil
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			defer func() { want(t, "panic", recover(), any("no such luck")) }()
			b.login(t)
		})
		time.Sleep(time.Millisecond)
		b.logins(t, 10)
		wg.Wait()
		want(t, "live", len(b.live(t)), limit)
		want(t, "principals whose sessions are being evicted", b.Evicting(), 0)
	})
}

// A login is evicted if there are enough that are newer, which nobody else will end: their
// node may have died. The listeners hear of it last.
func TestLoginThatIsBeyondTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBouncer(t, membackend.New(), "n1")
		b.asked.list = func(ctx context.Context) error {
			time.Sleep(time.Millisecond)
			for range limit {
				id := b.ids.NewToken().ID()
				rec := &sessionstore.Record{Info: sessionstore.Info{Key: sessionstore.Key{ID: id, App: "shop"}, Principal: "bob"}}
				if _, err := b.memory.Create(ctx, rec, sessionstore.Condition{}); err != nil {
					t.Error(err)
				}
			}
			return nil
		}
		id := b.login(t).token.ID()
		want(t, "live", len(b.live(t)), limit)
		want(t, "history", b.history[id], "created destroyed ")
	})
}

// What another node has ended first is no error, and copies of it answer nothing.
func TestEvictionOfWhatHasEndedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBouncer(t, membackend.New(), "n1")
		old := b.login(t)
		for range limit - 1 {
			time.Sleep(time.Millisecond)
			b.login(t)
		}
		time.Sleep(time.Millisecond)
		b.asked.end = func(ctx context.Context) error {
			_, err := b.memory.Delete(ctx, sessionstore.Selector{ID: old.token.ID()})
			return err
		}
		b.login(t)
		want(t, "log", b.logged(), "")
		want(t, "live", len(b.live(t)), limit)
		old.version = 1
		s, err := b.Begin(t.Context(), old.claim())
		if err != nil {
			t.Fatal(err)
		}
		defer b.Release(s)
		want(t, "source of the one that has ended", s.Source(), sessionstore.SourceNew)
		want(t, "history", b.history[old.token.ID()], "created ")
	})
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

// A session that has become somebody else's is not evicted.
func TestEvictionEndsOnlyThePrincipals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
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
	})
}
