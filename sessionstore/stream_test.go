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

// A besideStream is a session with a stream that began after the session had left the
// cache, either in peace or while another request was held up between its look at the
// cache and its entering.
type besideStream struct {
	*client
	m      *sessionstore.Manager
	stream *sessionstore.Session
	evict  func() // from the cache, as it may happen at any time
}

func beginBeside(t *testing.T, heldUp bool) *besideStream {
	n := newNode(t, membackend.New(), "n1", nil).run(t)
	ids := &slowLive{IDManager: n.ids}
	m, err := sessionstore.New(ids, "stream", &sessionstore.Config{MaxStale: time.Hour, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	b := &besideStream{client: &client{}, m: m}
	b.evict = func() {
		if _, err := n.ids.End(context.Background(), sessionstore.Selector{ID: b.token.ID(), Principal: "nobody"}, sessionstore.CauseEvicted); err != nil {
			t.Error(err)
		}
	}
	begin := func() {
		b.evict()
		if b.stream, err = m.Begin(context.Background(), b.claim()); err != nil {
			t.Error(err)
		}
	}
	b.do(t, m, func(s *sessionstore.Session) { count.Set(s, 1) })
	time.Sleep(10 * time.Minute) // written back
	if heldUp {
		ids.hold = begin
	}
	b.do(t, m, nil)
	if !heldUp {
		begin()
	}
	return b
}

func TestAStreamBesideAHeldUpRequest(t *testing.T) {
	for _, heldUp := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := beginBeside(t, heldUp)
			defer b.m.Release(b.stream)
			time.Sleep(2 * sessionstore.DefaultIdleTimeout)
			b.do(t, b.m, func(s *sessionstore.Session) {
				if s.IsNew() {
					t.Errorf("held up %t: the session expired under a request in flight", heldUp)
				}
			})
		})
	}
}

func TestAStreamBesideAHeldUpRequestHearsTheEnd_P6(t *testing.T) {
	for _, heldUp := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := beginBeside(t, heldUp)
			defer b.m.Release(b.stream)
			done := b.stream.Done()
			b.evict()
			if err := b.m.Invalidate(context.Background(), b.token.ID()); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Minute)
			select {
			case <-done:
			default:
				t.Errorf("held up %t: Done is open a minute after the end", heldUp)
			}
		})
	}
}
