package idmanager_test

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

func newManager(t *testing.T, b sessionstore.Backend, cfg idmanager.Config) *idmanager.Manager {
	t.Helper()
	cfg.Logger = quiet
	m, err := idmanager.New(b, &cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestConfig(t *testing.T) {
	b := membackend.New()
	for field, cfg := range map[string]idmanager.Config{
		"Node":           {Node: "node.1"},
		"SweepInterval":  {SweepInterval: -2},
		"SweepBatch":     {SweepBatch: -1},
		"SweepTime":      {SweepTime: time.Microsecond},
		"OrphanAge":      {OrphanAge: -2},
		"Timeout":        {Timeout: -1},
		"Timeout is 5ns": {Timeout: 5},

		"HeartbeatInterval":    {HeartbeatInterval: -2},
		"NodeTTL":              {NodeTTL: idmanager.DefaultHeartbeatInterval * 2},
		"HeartbeatInterval -1": {HeartbeatInterval: -1, NodeTTL: time.Minute},
	} {
		if _, err := idmanager.New(b, &cfg); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: error %v does not name it", field, err)
		}
	}
	if _, err := idmanager.New(nil, nil); err == nil { // B1
		t.Error("nil backend accepted")
	}
}

func TestTokensAreUnique_A1(t *testing.T) {
	for _, random := range []bool{false, true} {
		m := newManager(t, membackend.New(), idmanager.Config{Node: "n1", RandomIDs: random})
		ids, secrets := map[sessionstore.ID]bool{}, map[sessionstore.SecretHash]bool{}
		for range 10_000 {
			token := m.NewToken()
			ids[token.ID()], secrets[token.SecretHash()] = true, true
			if v := uuid.UUID(token.ID()).Version(); v != 7 && !random || v != 4 && random {
				t.Fatalf("UUID version %d with RandomIDs %t", v, random)
			}
			if token.Route() != "n1" {
				t.Fatalf("route %q", token.Route())
			}
		}
		if len(ids) != 10_000 || len(secrets) != 10_000 {
			t.Errorf("%d IDs, %d secrets", len(ids), len(secrets))
		}
	}
}

func TestRunAndShutdownInAnyOrder(t *testing.T) {
	for range 10 {
		m := newManager(t, membackend.New(), idmanager.Config{})
		if _, err := sessionstore.New(m, "app", nil); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				for range 50 {
					ctx, cancel := context.WithCancel(t.Context())
					wg.Go(func() { m.Run(ctx) })
					cancel()
				}
			})
			wg.Go(func() {
				for range 50 {
					if err := m.Shutdown(t.Context()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if err := m.Run(t.Context()); !errors.Is(err, sessionstore.ErrClosed) {
			t.Errorf("Run after Shutdown: %v", err)
		}
		if m.Live() {
			t.Error("live after Shutdown")
		}
		if _, err := sessionstore.New(m, "late", nil); !errors.Is(err, sessionstore.ErrClosed) {
			t.Errorf("attach after Shutdown: %v", err)
		}
	}
}

func TestRunTwiceIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, membackend.New(), idmanager.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		go m.Run(ctx)
		synctest.Wait()
		if err := m.Run(t.Context()); err == nil || errors.Is(err, sessionstore.ErrClosed) {
			t.Errorf("second Run: %v", err)
		}
		cancel()
		synctest.Wait()
		go m.Run(t.Context()) // stopped by its context, it may run again
		synctest.Wait()
		if !m.Live() {
			t.Error("not running again")
		}
		if err := m.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// use begins, changes and commits one session.
func use(t *testing.T, m *sessionstore.Manager, token sessionstore.Token) sessionstore.Token {
	t.Helper()
	s, err := m.Begin(t.Context(), sessionstore.Claim{Token: token})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Release(s)
	s.Start()
	r, err := m.Commit(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Token.IsZero() {
		return r.Token
	}
	return token
}

// A failing backend refuses to touch until told otherwise.
type failing struct {
	sessionstore.Backend
	mu  sync.Mutex
	err error // guarded by mu
}

func (f *failing) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *failing) Touch(ctx context.Context, touches []sessionstore.Touch) error {
	f.mu.Lock()
	err := f.err
	f.mu.Unlock()
	if err != nil {
		return err
	}
	return f.Backend.Touch(ctx, touches)
}

func (f *failing) DeleteExpired(ctx context.Context, sweep sessionstore.Sweep) ([]*sessionstore.Record, bool, error) {
	f.mu.Lock()
	err := f.err
	f.mu.Unlock()
	if err != nil {
		return nil, false, err
	}
	return f.Backend.DeleteExpired(ctx, sweep)
}

func TestShutdownWritesBack_P14(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := membackend.New()
		b := &failing{Backend: memory}
		m := newManager(t, b, idmanager.Config{SweepInterval: -1})
		app, err := sessionstore.New(m, "app", &sessionstore.Config{Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		var tokens []sessionstore.Token
		for range 600 { // more than one batch
			tokens = append(tokens, use(t, app, sessionstore.Token{}))
		}
		go m.Run(t.Context())
		synctest.Wait()
		time.Sleep(90 * time.Second) // past the first flush: nothing was used since
		down := errors.New("database is down")
		b.set(down)
		for _, token := range tokens {
			s, err := app.Begin(t.Context(), sessionstore.Claim{Token: token, Version: 1})
			if err != nil {
				t.Fatal(err)
			}
			app.Release(s)
		}
		used := time.Now().UTC()
		time.Sleep(10 * time.Minute) // every flush fails, nothing is lost
		err = m.Shutdown(t.Context())
		if !errors.Is(err, down) || !strings.Contains(err.Error(), "600 access times of application app") {
			t.Errorf("shutdown: %v; want what could not be written", err)
		}
		b.set(nil)
		if err := m.Shutdown(t.Context()); err != nil {
			t.Errorf("second try: %v", err)
		}
		for _, token := range tokens {
			rec, err := memory.Load(t.Context(), sessionstore.Key{ID: token.ID(), App: "app"}, 0)
			if err != nil {
				t.Fatal(err)
			}
			if !rec.AccessedAt.Equal(used) {
				t.Fatalf("access time %v, want %v", rec.AccessedAt, used)
			}
		}
	})
}

// A holding backend keeps touches until told otherwise.
type holding struct {
	sessionstore.Backend
	came, release chan struct{}
}

func (h *holding) Touch(ctx context.Context, touches []sessionstore.Touch) error {
	close(h.came)
	<-h.release
	return h.Backend.Touch(ctx, touches)
}

// Shutdown waits no longer than its context for somebody else who is writing back: a
// request may do that while nobody calls Run.
func TestShutdownBesideAnotherFlush_P14(t *testing.T) {
	b := &holding{Backend: membackend.New(), came: make(chan struct{}), release: make(chan struct{})}
	m := newManager(t, b, idmanager.Config{SweepInterval: -1})
	app, err := sessionstore.New(m, "app", &sessionstore.Config{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	s, err := app.Begin(t.Context(), sessionstore.Claim{Token: use(t, app, sessionstore.Token{}), Version: 1})
	if err != nil {
		t.Fatal(err)
	}
	app.Release(s)
	shutdown := func(ctx context.Context) <-chan error {
		result := make(chan error, 1)
		go func() { result <- m.Shutdown(ctx) }()
		return result
	}
	first := shutdown(t.Context())
	<-b.came
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	second, late := shutdown(ctx), time.NewTimer(10*time.Second)
	defer late.Stop()
	select {
	case err := <-second:
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "access times of application app") {
			t.Errorf("shutdown beside another one: %v; want what could not be written", err)
		}
	case <-late.C:
		t.Error("shutdown waits for longer than its context")
	}
	close(b.release)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func TestSweepAnnouncesOnce_P11(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := membackend.New()
		var mu sync.Mutex
		announced := map[sessionstore.ID]int{} // guarded by mu
		listener := sessionstore.Listener{Destroyed: func(_ context.Context, e sessionstore.SessionEvent) {
			mu.Lock()
			defer mu.Unlock()
			announced[e.Info.Key.ID]++
		}}
		var apps []*sessionstore.Manager
		for range 3 { // three nodes sweep
			m := newManager(t, memory, idmanager.Config{SweepBatch: 7})
			app, err := sessionstore.New(m, "app", &sessionstore.Config{Listeners: []sessionstore.Listener{listener}, Logger: quiet})
			if err != nil {
				t.Fatal(err)
			}
			apps = append(apps, app)
			go m.Run(t.Context())
			defer m.Shutdown(t.Context())
		}
		for i := range 500 {
			use(t, apps[i%3], sessionstore.Token{})
		}
		kept := use(t, apps[0], sessionstore.Token{})
		for range 10 {
			time.Sleep(10 * time.Minute)
			use(t, apps[0], kept)
		}
		mu.Lock()
		defer mu.Unlock()
		for id, n := range announced {
			if n != 1 {
				t.Errorf("session %s announced %d times", id, n)
			}
		}
		if len(announced) != 500 || announced[kept.ID()] != 0 {
			t.Errorf("%d sessions announced, want 500", len(announced))
		}
	})
}

// A slow backend commits a second after it was asked, and by then tells only those who
// still want to know.
type slow struct{ sessionstore.Backend }

func (b slow) Delete(ctx context.Context, sel sessionstore.Selector) ([]*sessionstore.Record, error) {
	time.Sleep(time.Second)
	removed, err := b.Backend.Delete(context.WithoutCancel(ctx), sel)
	return removed, cmp.Or(err, ctx.Err())
}

func (b slow) DeleteExpired(ctx context.Context, sweep sessionstore.Sweep) ([]*sessionstore.Record, bool, error) {
	time.Sleep(time.Second)
	removed, more, err := b.Backend.DeleteExpired(context.WithoutCancel(ctx), sweep)
	return removed, more, cmp.Or(err, ctx.Err())
}

// Who gives up while sessions end is not told, but the listeners are.
func TestEndsAreAnnouncedWhoeverGivesUp_P11(t *testing.T) {
	for name, test := range map[string]struct {
		age, patience time.Duration
		end           func(context.Context, *idmanager.Manager, sessionstore.ID) error
	}{
		"Invalidate": {0, time.Second / 2, func(ctx context.Context, m *idmanager.Manager, id sessionstore.ID) error {
			return m.Invalidate(ctx, id)
		}},
		"Expire":    {time.Hour, time.Second / 2, func(ctx context.Context, m *idmanager.Manager, id sessionstore.ID) error { return m.Expire(ctx, id) }},
		"the sweep": {time.Hour, 3 * time.Second / 2, func(ctx context.Context, m *idmanager.Manager, _ sessionstore.ID) error { return m.Run(ctx) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newManager(t, slow{membackend.New()}, idmanager.Config{SweepInterval: time.Second})
				ended := 0
				listener := sessionstore.Listener{Destroyed: func(ctx context.Context, _ sessionstore.SessionEvent) {
					if ended++; ctx.Err() != nil {
						t.Errorf("the listener's context: %v", ctx.Err())
					}
				}}
				app, err := sessionstore.New(m, "app", &sessionstore.Config{Listeners: []sessionstore.Listener{listener}, Logger: quiet})
				if err != nil {
					t.Fatal(err)
				}
				token := use(t, app, sessionstore.Token{})
				time.Sleep(test.age)
				ctx, cancel := context.WithTimeout(t.Context(), test.patience)
				defer cancel()
				if err := test.end(ctx, m, token.ID()); err != nil {
					t.Error(err)
				}
				if ended != 1 {
					t.Errorf("%d ends announced", ended)
				}
			})
		})
	}
}

func TestSweepOutlivesTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := membackend.New()
		b := &failing{Backend: memory}
		m := newManager(t, b, idmanager.Config{})
		app, err := sessionstore.New(m, "app", &sessionstore.Config{Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		token := use(t, app, sessionstore.Token{})
		go m.Run(t.Context())
		defer m.Shutdown(t.Context())
		b.set(errors.New("down"))
		time.Sleep(time.Hour)
		b.set(nil)
		time.Sleep(2 * time.Minute)
		memory.Advance(-time.Hour) // were it still there, it would be live again
		if _, err := memory.Load(t.Context(), sessionstore.Key{ID: token.ID(), App: "app"}, 0); !errors.Is(err, sessionstore.ErrNotFound) {
			t.Errorf("expired row: %v", err)
		}
	})
}

func TestOrphansAreSweptLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := membackend.New()
		gone := newManager(t, memory, idmanager.Config{})
		abandoned, err := sessionstore.New(gone, "abandoned", &sessionstore.Config{Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		token := use(t, abandoned, sessionstore.Token{})
		m := newManager(t, memory, idmanager.Config{})
		go m.Run(t.Context())
		defer m.Shutdown(t.Context())
		exists := func() bool {
			memory.Advance(-2 * time.Hour)
			defer memory.Advance(2 * time.Hour)
			_, err := memory.Load(t.Context(), sessionstore.Key{ID: token.ID(), App: "abandoned"}, 0)
			return err == nil
		}
		time.Sleep(80 * time.Minute) // expired, but its application may announce it
		if !exists() {
			t.Error("another application's expired session was swept at once")
		}
		time.Sleep(15 * time.Minute)
		if exists() {
			t.Error("an orphan was never swept")
		}
	})
}

func TestAnApplicationAttachedLaterIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := membackend.New()
		m := newManager(t, memory, idmanager.Config{})
		go m.Run(t.Context())
		defer m.Shutdown(t.Context())
		synctest.Wait()
		app, err := sessionstore.New(m, "late", &sessionstore.Config{Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		token := use(t, app, sessionstore.Token{})
		time.Sleep(time.Second)
		s, err := app.Begin(t.Context(), sessionstore.Claim{Token: token, Version: 1})
		if err != nil {
			t.Fatal(err)
		}
		app.Release(s)
		time.Sleep(2 * time.Minute)
		if n := app.Stats().Touched; n != 1 {
			t.Errorf("%d touches", n)
		}
	})
}
