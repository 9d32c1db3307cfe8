package idmanager_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

// A slowline holds up the answer of one Load that the database has given.
type slowline struct {
	*membackend.Backend

	mu   sync.Mutex
	hold chan struct{}
}

func (l *slowline) Load(ctx context.Context, key sessionstore.Key, known sessionstore.Version) (*sessionstore.Record, error) {
	rec, err := l.Backend.Load(ctx, key, known)
	l.mu.Lock()
	hold := l.hold
	l.hold = nil
	l.mu.Unlock()
	if hold != nil {
		<-hold
	}
	return rec, err
}

func (l *slowline) holdNext() (release func()) {
	c := make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hold = c
	return func() { close(c) }
}

func newSlowHost(t *testing.T, memory *membackend.Backend) (*host, *slowline) {
	t.Helper()
	line := &slowline{Backend: memory}
	h := &host{ids: newManager(t, line, idmanager.Config{})}
	var err error
	if h.app, err = sessionstore.New(h.ids, "app", &sessionstore.Config{Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	go h.ids.Run(context.Background())
	t.Cleanup(func() { h.ids.Shutdown(context.Background()) })
	synctest.Wait()
	return h, line
}

func login(s *sessionstore.Session) { s.SetPrincipal("ann") }

// Requests that begin after this node has revoked a session, or has heard of its end or
// renewal, are not let in by the answer to a question that was asked before.
func TestAnswersOnTheirWay_P6(t *testing.T) {
	for what, end := range map[string]func(t *testing.T, a, b *host, v *visitor){
		"revoked here": func(t *testing.T, a, b *host, v *visitor) {
			if n, err := b.app.InvalidatePrincipal(t.Context(), "ann"); err != nil || n != 1 {
				t.Fatal(n, err)
			}
		},
		"logged out elsewhere": func(t *testing.T, a, b *host, v *visitor) {
			out := *v
			out.visit(t, a, (*sessionstore.Session).Invalidate)
		},
		"renewed elsewhere": func(t *testing.T, a, b *host, v *visitor) {
			renewed := *v
			renewed.visit(t, a, (*sessionstore.Session).Renew)
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newCluster(t, 1, idmanager.Config{})[0]
				b, line := newSlowHost(t, a.line.Backend)
				v := &visitor{}
				v.visit(t, a, login)
				release := line.holdNext()
				begin := func() (principal string) {
					s, err := b.app.Begin(context.Background(), sessionstore.Claim{Token: v.token, Version: v.version})
					if err != nil {
						t.Error(err)
						return
					}
					defer b.app.Release(s)
					return s.Principal()
				}
				var wg sync.WaitGroup
				wg.Go(func() { begin() })
				synctest.Wait() // the database has answered it, the answer is on its way
				end(t, a, b, v)
				time.Sleep(3 * time.Second) // three polls
				wg.Go(func() {
					if p := begin(); p != "" {
						t.Errorf("%s: a request that began 3 s later has the principal %q", what, p)
					}
				})
				synctest.Wait()
				release()
				wg.Wait()
			})
		})
	}
}

// A session ends while a stream's Begin waits for the database's answer.
func TestAStreamThatBeganDuringTheEnd_P6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newCluster(t, 1, idmanager.Config{})[0]
		b, line := newSlowHost(t, a.line.Backend)
		v := &visitor{}
		v.visit(t, a, login)
		release := line.holdNext()
		var stream *sessionstore.Session
		var wg sync.WaitGroup
		wg.Go(func() {
			var err error
			if stream, err = b.app.Begin(context.Background(), sessionstore.Claim{Token: v.token, Version: v.version}); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if err := a.ids.Invalidate(t.Context(), v.token.ID()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second) // b hears of it
		release()
		wg.Wait()
		defer b.app.Release(stream)
		if !stream.Claimed() {
			return // fine
		}
		time.Sleep(time.Hour)
		select {
		case <-stream.Done():
		default:
			t.Errorf("a stream of %s, whose session was revoked an hour ago, is open, and Done is not closed", stream.Principal())
		}
	})
}
