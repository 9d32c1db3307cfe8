package idmanager_test

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

// A cable is one node's connection to a shared backend, with events and registry.
type cable struct {
	feedline
	err error // guarded by feedline.mu
}

func (c *cable) cut(err error) {
	c.set(err != nil, false)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

func (c *cable) Load(ctx context.Context, key sessionstore.Key, known sessionstore.Version) (*sessionstore.Record, error) {
	c.mu.Lock()
	err := c.err
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return c.Backend.Load(ctx, key, known)
}

// TestServeCachedWithinItsBounds_P6 cuts one of two nodes off, ends a session on the
// other, and says how long the first one honours it.
func TestServeCachedWithinItsBounds_P6(t *testing.T) {
	const grace = 3 * time.Minute
	down := errors.New("down")
	for what, outage := range map[string]time.Duration{
		"shorter than the grace": time.Minute,
		"longer than the grace":  2 * grace,
		// So that what the node has missed was pruned.
		"longer than events are kept": 2 * idmanager.DefaultEventRetention,
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := membackend.New()
				a := &host{ids: newManager(t, memory, idmanager.Config{})}
				line := &cable{feedline: feedline{Backend: memory}}
				b := &host{line: &line.feedline, ids: newManager(t, line, idmanager.Config{})}
				var err error
				if a.app, err = sessionstore.New(a.ids, "app", &sessionstore.Config{Logger: quiet, Lifetime: -1, IdleTimeout: -1}); err != nil {
					t.Fatal(err)
				}
				if b.app, err = sessionstore.New(b.ids, "app", &sessionstore.Config{
					Logger: quiet, Lifetime: -1, IdleTimeout: -1, Outage: sessionstore.ServeCached, OutageGrace: grace,
				}); err != nil {
					t.Fatal(err)
				}
				for _, h := range []*host{a, b} {
					go h.ids.Run(context.Background())
					defer h.ids.Shutdown(context.Background())
				}
				synctest.Wait()

				v := &visitor{}
				v.visit(t, a, paint("red"))
				v.visit(t, b, nil)
				old, confirmed := *v, time.Now()
				line.cut(down)
				v.visit(t, a, (*sessionstore.Session).Invalidate)
				for time.Since(confirmed) < min(outage, sessionstore.DefaultMaxStale+grace) {
					if source, _, seen := old.visit(t, b, nil); source != sessionstore.SourceCache && source != sessionstore.SourceOutage || seen != "red" {
						t.Fatalf("after %v: %q from %v", time.Since(confirmed), seen, source)
					}
					time.Sleep(10 * time.Second)
				}
				for time.Since(confirmed) < outage {
					time.Sleep(10 * time.Second)
					if _, err := b.app.Begin(t.Context(), sessionstore.Claim{Token: old.token, Version: old.version}); !errors.Is(err, down) {
						t.Fatalf("after %v: %v", time.Since(confirmed), err)
					}
				}
				line.cut(nil)
				if source, isNew, _ := old.visit(t, b, nil); !isNew {
					t.Errorf("after the outage the session is served from %v", source)
				}
			})
		})
	}
}
