package sessionstore_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

// A request waits for the end of a session that only a sibling application has stored: other
// requests of its client here end nothing.
func TestDoneOfASiblingsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", nil).run(t)
		office := n.application(t, "office", nil)
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		stream, err := office.Begin(t.Context(), c.claim())
		if err != nil {
			t.Fatal(err)
		}
		defer office.Release(stream)
		want(t, "claimed", stream.Claimed(), true)
		done := stream.Done()
		in := &client{token: c.token}
		in.do(t, office, nil) // any other request
		select {
		case <-done:
			t.Error("Done is closed, though nothing has ended")
		default:
		}
		c.do(t, n.Manager, func(s *sessionstore.Session) { want(t, "alive", s.Claimed(), true) })
	})
}

// Nor does a sweep of the part that an earlier visit has left here.
func TestDoneOfASiblingsSessionBesideASweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", &sessionstore.Config{IdleTimeout: -1}).run(t)
		office := n.application(t, "office", &sessionstore.Config{IdleTimeout: time.Minute, Lifetime: time.Minute})
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		in := &client{token: c.token}
		in.do(t, office, func(s *sessionstore.Session) { count.Set(s, 1) })
		time.Sleep(time.Minute + time.Millisecond)
		stream, err := office.Begin(t.Context(), sessionstore.Claim{Token: c.token})
		if err != nil {
			t.Fatal(err)
		}
		defer office.Release(stream)
		want(t, "new", stream.IsNew(), true)
		done := stream.Done()
		time.Sleep(3 * time.Minute)
		select {
		case <-done:
			t.Error("Done is closed, though nothing has ended since it was asked for")
		default:
		}
	})
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
	synctest.Test(t, func(t *testing.T) {
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

// Nor does a sweep that has removed the part of before when a request begins it anew.
func TestDoneOfAPartBegunAnewDuringItsSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, membackend.New(), "n1", nil)
		b := &sweeping{Backend: n.memory}
		n.backend.Backend = b
		office := n.application(t, "office", &sessionstore.Config{IdleTimeout: 10 * time.Second})
		c := &client{}
		c.do(t, n.Manager, func(s *sessionstore.Session) { count.Set(s, 1) })
		in := &client{token: c.token}
		in.do(t, office, func(s *sessionstore.Session) { count.Set(s, 1) })
		begun := make(chan *sessionstore.Session, 1)
		b.removed = func() {
			in.do(t, office, func(s *sessionstore.Session) { count.Set(s, 2) })
			stream, err := office.Begin(t.Context(), in.claim())
			if err != nil {
				t.Error(err)
			}
			begun <- stream
		}
		n.run(t)
		time.Sleep(2 * idmanager.DefaultSweepInterval)
		stream := <-begun
		defer office.Release(stream)
		want(t, "stored", stream.IsNew(), false)
		select {
		case <-stream.Done():
			t.Error("Done is closed, though the session lives")
		default:
		}
		got, _ := get(t, in, office, count)
		want(t, "count, after the idle timeout, in which the stream has used it", got, 2)
	})
}

// A sweeping backend lets a test step in when the first records are removed, and the node
// does not know yet.
type sweeping struct {
	sessionstore.Backend
	removed func()
}

func (b *sweeping) DeleteExpired(ctx context.Context, sweep sessionstore.Sweep) ([]*sessionstore.Record, bool, error) {
	removed, more, err := b.Backend.DeleteExpired(ctx, sweep)
	if f := b.removed; f != nil && len(removed) > 0 {
		b.removed = nil
		f()
	}
	return removed, more, err
}
