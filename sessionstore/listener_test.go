package sessionstore_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

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

// A logout is stored, and then the backend panics over the parting message.
func TestAnEndBeforeAPanicIsAnnounced_P11(t *testing.T) {
	told := 0
	n := newNode(t, membackend.New(), "n1", &sessionstore.Config{Listeners: []sessionstore.Listener{{
		Destroyed: func(context.Context, sessionstore.SessionEvent) { told++ },
	}}})
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	n.backend.Backend = panicky{n.memory}
	func() {
		defer func() { want(t, "panic", recover(), any("driver")) }()
		c.try(n.Manager, func(s *sessionstore.Session) {
			s.Invalidate()
			name.Set(s, "bye")
		})
	}()
	want(t, "times announced", told, 1)
}

type panicky struct{ sessionstore.Backend }

func (panicky) Create(context.Context, *sessionstore.Record, sessionstore.Condition) (time.Time, error) {
	panic("driver")
}
