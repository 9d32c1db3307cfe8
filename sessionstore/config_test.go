package sessionstore_test

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

func TestContradictoryConfigurations(t *testing.T) {
	ids, err := idmanager.New(membackend.New(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for field, cfg := range map[string]sessionstore.Config{
		"IdleTimeout":        {IdleTimeout: -2},
		"IdleTimeout 48h":    {IdleTimeout: 48 * time.Hour},
		"IdleTimeout 30m":    {IdleTimeout: 30 * time.Minute, Lifetime: 10 * time.Minute},
		"Lifetime":           {Lifetime: time.Microsecond},
		"TouchInterval":      {TouchInterval: -1},
		"TouchInterval 1m0s": {TouchInterval: time.Minute, IdleTimeout: 90 * time.Second},
		"MaxStale":           {MaxStale: -1},
		"Timeout":            {Timeout: -1},
		"Timeout is 5ns":     {Timeout: 5},
		"Freshness":          {Freshness: 7},
		"CacheBytes":         {CacheBytes: -2},
		"MaxDataBytes":       {MaxDataBytes: 1 << 24},
		"MaxSessions":        {MaxSessions: -1},
		"LimitPolicy":        {LimitPolicy: 7},
		"LimitPolicy is EvictOldest but MaxSessions": {LimitPolicy: sessionstore.EvictOldest},
	} {
		if _, err := sessionstore.New(ids, "app", &cfg); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: error %v does not name it", field, err)
		}
	}
	for _, app := range []string{"", strings.Repeat("x", 256), "\xff", "a\x00"} {
		if _, err := sessionstore.New(ids, app, nil); err == nil {
			t.Errorf("application name %q accepted", app)
		}
	}
	if _, err := sessionstore.New(nil, "app", nil); err == nil {
		t.Error("nil ID manager accepted")
	}
	cfg := sessionstore.Config{}
	if _, err := sessionstore.New(ids, "app", &cfg); err != nil {
		t.Error(err)
	}
	if cfg.IdleTimeout != 0 {
		t.Error("New wrote to the caller's config")
	}
	if _, err := sessionstore.New(ids, "app", nil); err == nil {
		t.Error("the same application twice")
	}
}

func TestIdleTimeoutDefaultsToAShorterLifetime(t *testing.T) {
	for _, c := range []struct{ lifetime, want time.Duration }{
		{10 * time.Minute, 10 * time.Minute},
		{time.Hour, 30 * time.Minute},
		{0, 30 * time.Minute},
		{-1, 30 * time.Minute},
	} {
		memory := membackend.New()
		n := newNode(t, memory, "a", &sessionstore.Config{Lifetime: c.lifetime})
		(&client{}).do(t, n.Manager, func(s *sessionstore.Session) {
			if got := s.Info().Idle; got != c.want {
				t.Errorf("with a lifetime of %v the idle timeout is %v, want %v", c.lifetime, got, c.want)
			}
		})
	}
}

// Where MaxDataBytes was made smaller, larger sessions can log in, and shrink.
func TestASmallerLimitAndLargerSessions(t *testing.T) {
	memory := membackend.New()
	before := newNode(t, memory, "a", nil)
	after := newNode(t, memory, "b", &sessionstore.Config{MaxDataBytes: 100})
	c := &client{}
	c.do(t, before.Manager, func(s *sessionstore.Session) {
		name.Set(s, strings.Repeat("x", 200))
		tags.Set(s, map[string]int{strings.Repeat("y", 200): 1})
	})
	if _, err := c.try(after.Manager, func(s *sessionstore.Session) { s.SetPrincipal("ann") }); err != nil {
		t.Errorf("login, which changes no attribute: %v", err)
	}
	if _, err := c.try(after.Manager, func(s *sessionstore.Session) { name.Delete(s) }); err != nil {
		t.Errorf("an attribute is deleted: %v", err)
	}
}
