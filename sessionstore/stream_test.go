package sessionstore_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

// A slowLive lets a request be held up between its look at the cache and its entering.
type slowLive struct {
	sessionstore.IDManager

	mu   sync.Mutex // guards hold
	hold func()
}

func (s *slowLive) Live() bool {
	s.mu.Lock()
	f := s.hold
	s.hold = nil
	s.mu.Unlock()
	if f != nil {
		f()
	}
	return s.IDManager.Live()
}

// A stream that begins while another request is held up, of a session that has left the
// cache, keeps the session alive.
func TestAStreamBesideAHeldUpRequest(t *testing.T) {
	for _, disturbed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := newNode(t, membackend.New(), "n1", nil).run(t)
			ids := &slowLive{IDManager: n.ids}
			m, err := sessionstore.New(ids, "stream", &sessionstore.Config{MaxStale: time.Hour, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			c := &client{}
			c.do(t, m, func(s *sessionstore.Session) { count.Set(s, 1) })
			time.Sleep(10 * time.Minute) // written back

			var stream *sessionstore.Session
			begin := func() { // a stream begins, of a session that has left the cache
				if _, err := n.ids.End(context.Background(), sessionstore.Selector{ID: c.token.ID(), Principal: "nobody"}, sessionstore.CauseEvicted); err != nil {
					t.Error(err)
				}
				if stream, err = m.Begin(context.Background(), c.claim()); err != nil {
					t.Error(err)
				}
			}
			if disturbed {
				ids.hold = begin
			}
			c.do(t, m, nil)
			if !disturbed {
				begin()
			}
			time.Sleep(2 * sessionstore.DefaultIdleTimeout)
			c.do(t, m, func(s *sessionstore.Session) {
				if s.IsNew() {
					t.Errorf("disturbed %t: the session expired under a request in flight", disturbed)
				}
			})
			m.Release(stream)
		})
	}
}

// It is told of the end, too.
func TestAStreamBesideAHeldUpRequestHearsTheEnd_P6(t *testing.T) {
	for _, disturbed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := newNode(t, membackend.New(), "n1", nil).run(t)
			ids := &slowLive{IDManager: n.ids}
			m, err := sessionstore.New(ids, "stream", &sessionstore.Config{MaxStale: time.Hour, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			c := &client{}
			c.do(t, m, func(s *sessionstore.Session) { count.Set(s, 1) })
			time.Sleep(10 * time.Minute) // written back
			evict := func() {
				if _, err := n.ids.End(context.Background(), sessionstore.Selector{ID: c.token.ID(), Principal: "nobody"}, sessionstore.CauseEvicted); err != nil {
					t.Error(err)
				}
			}
			var stream *sessionstore.Session
			begin := func() {
				evict()
				if stream, err = m.Begin(context.Background(), c.claim()); err != nil {
					t.Error(err)
				}
			}
			if disturbed {
				ids.hold = begin
			}
			c.do(t, m, nil)
			if !disturbed {
				begin()
			}
			done := stream.Done()
			evict() // from the cache, as it may happen at any time
			if err := m.Invalidate(context.Background(), c.token.ID()); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Minute)
			select {
			case <-done:
			default:
				t.Errorf("disturbed %t: Done is open a minute after the end", disturbed)
			}
			m.Release(stream)
		})
	}
}
