package idmanager_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

var color = sessionstore.NewAttr[string]("color")

// A feedline is one node's connection to a shared backend, whose events can be cut
// off, and whose doorbell the test rings.
type feedline struct {
	*membackend.Backend
	bell chan struct{} // nil: it has no doorbell

	mu   sync.Mutex // guards what follows
	cut  bool
	hang bool
}

func (f *feedline) set(cut, hang bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut, f.hang = cut, hang
}

func (f *feedline) Events(ctx context.Context, after sessionstore.Cursor) ([]sessionstore.Event, sessionstore.Cursor, error) {
	f.mu.Lock()
	cut, hang := f.cut, f.hang
	f.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, 0, ctx.Err()
	}
	if cut {
		return nil, 0, errors.New("feed is cut")
	}
	return f.Backend.Events(ctx, after)
}

func (f *feedline) Listen(ctx context.Context, ring func()) error {
	if f.bell == nil {
		return errors.New("no doorbell here")
	}
	for {
		select {
		case _, ok := <-f.bell:
			if !ok {
				return errors.New("connection lost")
			}
			ring()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// A host is one process of a cluster.
type host struct {
	line *feedline
	ids  *idmanager.Manager
	app  *sessionstore.Manager
}

// newCluster starts n processes on one backend, inside a bubble.
func newCluster(t *testing.T, n int, cfg idmanager.Config) []*host {
	t.Helper()
	memory := membackend.New()
	var hosts []*host
	for range n {
		h := &host{line: &feedline{Backend: memory}}
		h.ids = newManager(t, h.line, cfg)
		var err error
		if h.app, err = sessionstore.New(h.ids, "app", &sessionstore.Config{Logger: quiet}); err != nil {
			t.Fatal(err)
		}
		go h.ids.Run(context.Background())
		t.Cleanup(func() { h.ids.Shutdown(context.Background()) })
		hosts = append(hosts, h)
	}
	synctest.Wait()
	return hosts
}

// A visitor holds what cookies would.
type visitor struct {
	token   sessionstore.Token
	version sessionstore.Version
}

func (v *visitor) visit(t *testing.T, h *host, f func(*sessionstore.Session)) (source sessionstore.Source, isNew bool, seen string) {
	t.Helper()
	s, err := h.app.Begin(t.Context(), sessionstore.Claim{Token: v.token, Version: v.version})
	if err != nil {
		t.Fatal(err)
	}
	defer h.app.Release(s)
	source, isNew = s.Source(), s.IsNew()
	seen, _ = color.Get(s)
	if f != nil {
		f(s)
	}
	r, err := h.app.Commit(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Token.IsZero() {
		v.token = r.Token
	}
	if r.Version > 0 {
		v.version = r.Version
	}
	return source, isNew, seen
}

func paint(c string) func(*sessionstore.Session) {
	return func(s *sessionstore.Session) { color.Set(s, c) }
}

func TestOtherNodesHearOfEndsAndRenewals_P6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := newCluster(t, 3, idmanager.Config{})
		a, b := hosts[0], hosts[1]
		for what, end := range map[string]func(v *visitor){
			"invalidated": func(v *visitor) { v.visit(t, a, (*sessionstore.Session).Invalidate) },
			"revoked":     func(v *visitor) { a.ids.Invalidate(t.Context(), v.token.ID()) },
			"renewed":     func(v *visitor) { v.visit(t, a, (*sessionstore.Session).Renew) },
			"logged in":   func(v *visitor) { v.visit(t, a, func(s *sessionstore.Session) { s.SetPrincipal("bob") }) },
		} {
			v := &visitor{}
			v.visit(t, a, paint("red"))
			v.visit(t, b, nil)
			old := *v
			if source, _, _ := old.visit(t, b, nil); source != sessionstore.SourceCache {
				t.Fatalf("%s: b has no copy", what)
			}
			end(v)
			time.Sleep(idmanager.DefaultPollInterval + time.Millisecond)
			if _, isNew, _ := old.visit(t, b, nil); !isNew {
				t.Errorf("%s: b honours the old state after a poll interval", what)
			}
		}
	})
}

func TestStreamsCloseOnOtherNodes_P6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := newCluster(t, 2, idmanager.Config{})
		v := &visitor{}
		v.visit(t, hosts[0], paint("red"))
		v.visit(t, hosts[1], func(s *sessionstore.Session) {
			if err := hosts[0].ids.Invalidate(t.Context(), s.ID()); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			<-s.Done()
			if d := time.Since(start); d > idmanager.DefaultPollInterval {
				t.Errorf("closed after %v", d)
			}
			s.Invalidate() // nothing is left to be committed
		})
	})
}

func TestSavesThatFollowAnotherNodesAreHeard_P6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := newCluster(t, 2, idmanager.Config{})
		a, b := hosts[0], hosts[1]
		v := &visitor{}
		v.visit(t, a, paint("red"))
		v.visit(t, b, paint("green")) // b stored it last
		late := *v                    // a tab that never hears of what follows
		v.visit(t, a, paint("blue"))
		time.Sleep(idmanager.DefaultPollInterval + time.Millisecond)
		if _, _, seen := late.visit(t, b, nil); seen != "blue" {
			t.Errorf("b still shows %q", seen)
		}
		// a heard of its own save too, and keeps its copy.
		if source, _, _ := v.visit(t, a, nil); source != sessionstore.SourceCache {
			t.Errorf("a's own event cost it its copy: %v", source)
		}
	})
}

func TestOneNodesSavesAreNotAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newCluster(t, 1, idmanager.Config{})[0]
		_, start, err := h.line.Backend.Events(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		v := &visitor{}
		for range 10 {
			v.visit(t, h, func(s *sessionstore.Session) {
				c, _ := color.Get(s)
				color.Set(s, c+"x")
			})
		}
		events, _, err := h.line.Backend.Events(t.Context(), start)
		if err != nil || len(events) != 0 {
			t.Errorf("%d events, %v", len(events), err)
		}
		v.visit(t, h, func(s *sessionstore.Session) { // overlapping requests of one session
			color.Set(s, "outer")
			tab := *v
			tab.visit(t, h, paint("inner"))
		})
		if events, _, _ = h.line.Backend.Events(t.Context(), start); len(events) == 0 {
			t.Error("overlapping saves were not announced")
		}
	})
}

func TestFeedCutOff_P6(t *testing.T) {
	for what, hang := range map[string]bool{"refused": false, "blocked": true} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hosts := newCluster(t, 2, idmanager.Config{})
				a, b := hosts[0], hosts[1]
				v := &visitor{}
				v.visit(t, a, paint("red"))
				v.visit(t, b, nil)
				b.line.set(true, hang)
				a.ids.Invalidate(t.Context(), v.token.ID())
				time.Sleep(idmanager.DefaultFeedTimeout + time.Millisecond)
				if b.ids.Live() {
					t.Error("live without events")
				}
				if _, isNew, _ := v.visit(t, b, nil); !isNew {
					t.Error("an ended session answers although the feed has been silent for FeedTimeout")
				}
				b.line.set(false, false)
				time.Sleep(idmanager.DefaultTimeout + idmanager.DefaultPollInterval)
				if !b.ids.Live() {
					t.Error("not live again")
				}
			})
		})
	}
}

func TestNothingIsMissedWhileTheFeedWasCut_P6(t *testing.T) {
	for what, away := range map[string]time.Duration{
		"shortly":                         4 * time.Second, // copies answered all the while
		"so long that events were pruned": time.Hour,
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hosts := newCluster(t, 2, idmanager.Config{})
				a, b := hosts[0], hosts[1]
				// A copy that would answer for a day, were it not for events.
				patient, err := sessionstore.New(b.ids, "patient", &sessionstore.Config{MaxStale: 24 * time.Hour, IdleTimeout: -1, Lifetime: -1, Logger: quiet})
				if err != nil {
					t.Fatal(err)
				}
				b.app = patient
				v := &visitor{}
				v.visit(t, b, paint("red"))
				b.line.set(true, false)
				a.ids.Invalidate(t.Context(), v.token.ID())
				time.Sleep(away)
				b.line.set(false, false)
				time.Sleep(2 * idmanager.DefaultPollInterval)
				if !b.ids.Live() {
					t.Fatal("not live again")
				}
				if _, isNew, _ := v.visit(t, b, nil); !isNew {
					t.Error("an event was missed")
				}
			})
		})
	}
}

func TestDoorbell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := membackend.New()
		line := &feedline{Backend: memory, bell: make(chan struct{})}
		m := newManager(t, line, idmanager.Config{PollInterval: time.Hour, FeedTimeout: 3 * time.Hour, EventRetention: 12 * time.Hour})
		app, err := sessionstore.New(m, "app", &sessionstore.Config{Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		go m.Run(t.Context())
		defer m.Shutdown(t.Context())
		synctest.Wait()
		v, h := &visitor{}, &host{line, m, app}
		v.visit(t, h, paint("red"))
		if _, err := memory.Delete(t.Context(), sessionstore.Selector{ID: v.token.ID()}); err != nil {
			t.Fatal(err)
		}
		if _, isNew, _ := v.visit(t, h, nil); isNew {
			t.Fatal("heard before the bell rang")
		}
		line.bell <- struct{}{}
		synctest.Wait()
		if _, isNew, _ := v.visit(t, h, nil); !isNew {
			t.Error("the bell did not make it poll")
		}
	})
}

func TestEventsArePruned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newCluster(t, 1, idmanager.Config{})[0]
		_, start, err := h.line.Backend.Events(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			v := &visitor{}
			v.visit(t, h, paint("red"))
			v.visit(t, h, (*sessionstore.Session).Invalidate)
		}
		events, _, _ := h.line.Backend.Events(t.Context(), start)
		if len(events) != 100 {
			t.Fatalf("%d events", len(events))
		}
		time.Sleep(idmanager.DefaultEventRetention + 2*time.Minute)
		if events, _, _ = h.line.Backend.Events(t.Context(), start); len(events) != 0 {
			t.Errorf("%d events left", len(events))
		}
	})
}

func TestFeedConfig(t *testing.T) {
	for field, cfg := range map[string]idmanager.Config{
		"PollInterval":   {PollInterval: -1},
		"FeedTimeout":    {FeedTimeout: time.Second},
		"EventRetention": {EventRetention: time.Second},
	} {
		if _, err := idmanager.New(membackend.New(), &cfg); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: error %v does not name it", field, err)
		}
	}
}
