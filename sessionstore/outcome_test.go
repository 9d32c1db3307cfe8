package sessionstore_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

// What a join stores is not stored twice if its outcome is unknown.
func TestAJoinOfUnknownOutcomeIsNotRepeated(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	l := &lossy{Backend: n.memory}
	n.backend.Backend = l
	office := n.application(t, "office", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 100) })
	in := &client{token: c.token}
	l.set("Create")
	_, err := in.try(office, func(s *sessionstore.Session) {
		count.Update(s, func(n int) int { return n + 1 })
		if err := s.Save(t.Context()); !errors.Is(err, errCut) {
			t.Errorf("save: %v", err)
		}
	})
	if !errors.Is(err, errCut) {
		t.Errorf("commit: %v", err)
	}
	v, _ := get(t, &client{token: c.token}, office, count)
	want(t, "count", v, 1)
}

// A login of which the handler was not told that it took place is told to the client when
// it is tried again.
func TestALoginOfUnknownOutcome(t *testing.T) {
	for _, again := range []bool{true, false} {
		n := newNode(t, membackend.New(), "n1", nil)
		l := &lossy{Backend: n.memory}
		n.backend.Backend = l
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 100) })
		l.set("Update")
		r, err := c.try(n.Manager, func(s *sessionstore.Session) {
			s.SetPrincipal("alice")
			if err := s.Save(t.Context()); !errors.Is(err, errCut) {
				t.Errorf("save: %v", err)
			}
			if again {
				if err := s.Save(t.Context()); err != nil {
					t.Errorf("save again: %v", err)
				}
			}
		})
		if err != nil || r.Token.IsZero() {
			t.Errorf("commit: told %+v, %v", r, err)
		}
		c.do(t, n.Manager, func(s *sessionstore.Session) {
			want(t, "principal after an acknowledged login", s.Principal(), "alice")
			want(t, "claimed", s.Claimed(), true)
		})
	}
}

var errCut = errors.New("connection lost after the statement")

// A lossy backend loses the answers of some calls that took place.
type lossy struct {
	sessionstore.Backend

	mu   sync.Mutex // guards lose
	lose string     // the method whose next answer is lost
}

func (l *lossy) loses(what string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lose != what {
		return false
	}
	l.lose = ""
	return true
}

func (l *lossy) set(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lose = what
}

func (l *lossy) Create(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error) {
	at, err := l.Backend.Create(ctx, rec, cond)
	if err == nil && l.loses("Create") {
		return time.Time{}, errCut
	}
	return at, err
}

func (l *lossy) Update(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
	err := l.Backend.Update(ctx, rec, cond)
	if err == nil && l.loses("Update") {
		return errCut
	}
	return err
}

// A login form that is sent twice: the browser drops the first response and follows the
// second, which must not say that all is well and leave it with an old token.
func TestALoginFormSentTwice(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	aborted := *c
	_, err := c.try(n.Manager, func(s *sessionstore.Session) {
		aborted.do(t, n.Manager, func(s *sessionstore.Session) { s.SetPrincipal("alice") })
		s.SetPrincipal("alice")
	})
	if !errors.Is(err, sessionstore.ErrConflict) {
		t.Errorf("commit: %v", err)
	}
}

// A backend that panics in the middle of a group acknowledges nobody's save.
func TestAPanicAcknowledgesNothing_P1(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", nil)
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 0) })
		var mu sync.Mutex
		calls, acknowledged, inFirst, goOn := 0, 0, make(chan struct{}), make(chan struct{})
		n.backend.set(func(method string) error {
			if method != "Update" {
				return nil
			}
			mu.Lock()
			calls++
			i := calls
			mu.Unlock()
			switch i {
			case 1:
				close(inFirst)
				<-goOn
			case 2:
				panic("backend bug")
			}
			return nil
		})
		var wg sync.WaitGroup
		run := func(i int) {
			own := *c
			wg.Go(func() {
				defer func() {
					if p := recover(); p != nil {
						t.Logf("request %d panicked: %v", i, p) // its own
					}
				}()
				_, err := own.try(n.Manager, func(s *sessionstore.Session) { count.Update(s, func(n int) int { return n + 1 }) })
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					acknowledged++
				}
			})
		}
		run(1)
		<-inFirst
		run(2)
		run(3)
		synctest.Wait() // both gather behind it
		close(goOn)
		wg.Wait()
		n.backend.set(nil)
		v, _ := get(t, &client{token: c.token}, n.Manager, count)
		want(t, "count", v, acknowledged)
	})
}

// Config.Timeout bounds each commit, but that who leads a group waits for the last.
func TestTimeoutBoundsEachSaveOfAGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = 10 * time.Second
		n := newNode(t, membackend.New(), "n1", &sessionstore.Config{Timeout: timeout})
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		n.backend.Backend = &slowFailure{n.memory, []time.Duration{9 * time.Second, time.Hour, time.Hour}}
		var wg sync.WaitGroup
		for i := range 3 {
			own := *c
			time.Sleep(10 * time.Millisecond)
			wg.Go(func() {
				began := time.Now()
				_, err := own.try(n.Manager, func(s *sessionstore.Session) { count.Set(s, 2+i) })
				if took := time.Since(began); took > timeout+time.Second {
					t.Errorf("request %d took %s: %v", i, took, err)
				}
			})
		}
		wg.Wait()
	})
}

// A slowFailure is a backend whose updates fail late, unless their context ends.
type slowFailure struct {
	sessionstore.Backend
	takes []time.Duration
}

func (b *slowFailure) Update(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
	d := b.takes[0]
	b.takes = b.takes[1:]
	select {
	case <-time.After(d):
		return errCut
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A new session whose first save got no answer can be saved again, and is told.
func TestANewSessionOfUnknownOutcome(t *testing.T) {
	for _, what := range []string{"a new session", "a join", "a login that joins"} {
		n := newNode(t, membackend.New(), "n1", nil)
		office := n.application(t, "office", nil)
		l := &lossy{Backend: n.memory}
		n.backend.Backend = l
		c := &client{}
		if what != "a new session" {
			c.do(t, office, func(s *sessionstore.Session) { count.Set(s, 1) })
			c.version = 0
		}
		l.set("Create")
		c.do(t, n.Manager, func(s *sessionstore.Session) {
			count.Set(s, 100)
			if what == "a login that joins" {
				s.SetPrincipal("ann")
			}
			if err := s.Save(t.Context()); !errors.Is(err, errCut) {
				t.Fatalf("%s: %v", what, err)
			}
			if err := s.Save(t.Context()); err != nil {
				t.Errorf("%s, saved again: %v", what, err)
			}
			count.Update(s, increment)
		})
		c.do(t, n.Manager, func(s *sessionstore.Session) {
			got, _ := count.Get(s)
			want(t, "count in "+what, got, 101)
		})
	}
}

// However often the answer is lost, one session is stored.
func TestARepeatedCreateStoresOneSession(t *testing.T) {
	for _, lost := range []string{"Create", ""} {
		n := newNode(t, membackend.New(), "n1", &sessionstore.Config{MaxSessions: 1, LimitPolicy: sessionstore.RefuseNew})
		l := &lossy{Backend: n.memory}
		n.backend.Backend = l
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) {
			s.SetPrincipal("ann")
			for _, method := range []string{"Create", lost} {
				l.set(method)
				if err := s.Save(t.Context()); method == "" && err != nil {
					t.Errorf("repeated: %v", err)
				}
			}
			l.set("")
			if err := s.Save(t.Context()); err != nil {
				t.Errorf("saved again: %v", err)
			}
		})
		c.do(t, n.Manager, func(s *sessionstore.Session) { want(t, "principal", s.Principal(), "ann") })
		sessions := 0
		for range n.memory.List(t.Context(), sessionstore.Selector{Principal: "ann"}) {
			sessions++
		}
		want(t, "sessions", sessions, 1)
	}
}

// A request finds out by Refresh that its own login, of unknown outcome, has taken place.
func TestRefreshAfterALoginOfUnknownOutcome(t *testing.T) {
	n := newNode(t, membackend.New(), "n1", nil)
	l := &lossy{Backend: n.memory}
	n.backend.Backend = l
	c := &client{}
	c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
	l.set("Update")
	c.do(t, n.Manager, func(s *sessionstore.Session) {
		s.SetPrincipal("ann")
		if err := s.Save(t.Context()); !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		if err := s.Refresh(t.Context()); err != nil {
			t.Errorf("refresh: %v", err)
		}
	})
	c.do(t, n.Manager, func(s *sessionstore.Session) { want(t, "principal", s.Principal(), "ann") })
}

// The client is told of what a request has saved, also if the request fails then.
func TestWhatWasSavedIsToldBesideAnError(t *testing.T) {
	ends := map[string]func(*node, *sessionstore.Session) (sessionstore.Receipt, error){
		"a commit that fails": func(n *node, s *sessionstore.Session) (sessionstore.Receipt, error) {
			name.Set(s, strings.Repeat("x", 200))
			return n.Commit(t.Context(), s)
		},
		"a panic": func(n *node, s *sessionstore.Session) (sessionstore.Receipt, error) {
			name.Set(s, "dropped")
			return n.Abandon(s), sessionstore.ErrTooLarge
		},
	}
	for what, end := range ends {
		n := newNode(t, membackend.New(), "n1", &sessionstore.Config{MaxDataBytes: 100})
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		s, err := n.Begin(t.Context(), c.claim())
		if err != nil {
			t.Fatal(err)
		}
		s.SetPrincipal("ann")
		if err := s.Save(t.Context()); err != nil {
			t.Fatal(err)
		}
		r, err := end(n, s)
		n.Release(s)
		want(t, "the error after "+what, errors.Is(err, sessionstore.ErrTooLarge), true)
		c.accept(r)
		c.do(t, n.Manager, func(s *sessionstore.Session) {
			want(t, "principal after "+what, s.Principal(), "ann")
			_, present := name.Get(s)
			want(t, "what was not saved is there after "+what, present, false)
		})
	}
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
