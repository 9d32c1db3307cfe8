package sessionstore_test

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	count = sessionstore.NewAttr[int]("count")
	name  = sessionstore.NewAttr[string]("name")
	tags  = sessionstore.NewAttr[map[string]int]("tags")
)

func increment(n int) int { return n + 1 }

// A hooked backend lets a test step in before a call, to make a race happen or a
// database fail.
type hooked struct {
	sessionstore.Backend
	mu     sync.Mutex
	before func(method string) error // guarded by mu; may be nil
}

func (h *hooked) set(f func(method string) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before = f
}

func (h *hooked) call(method string) error {
	h.mu.Lock()
	f := h.before
	h.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(method)
}

func (h *hooked) Load(ctx context.Context, key sessionstore.Key, known sessionstore.Version) (*sessionstore.Record, error) {
	if err := h.call("Load"); err != nil {
		return nil, err
	}
	return h.Backend.Load(ctx, key, known)
}

func (h *hooked) Create(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error) {
	if err := h.call("Create"); err != nil {
		return time.Time{}, err
	}
	return h.Backend.Create(ctx, rec, cond)
}

func (h *hooked) Update(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
	if err := h.call("Update"); err != nil {
		return err
	}
	return h.Backend.Update(ctx, rec, cond)
}

func (h *hooked) Touch(ctx context.Context, touches []sessionstore.Touch) error {
	if err := h.call("Touch"); err != nil {
		return err
	}
	return h.Backend.Touch(ctx, touches)
}

func (h *hooked) Delete(ctx context.Context, sel sessionstore.Selector) ([]*sessionstore.Record, error) {
	if err := h.call("Delete"); err != nil {
		return nil, err
	}
	return h.Backend.Delete(ctx, sel)
}

// An afterUpdate calls f after each Update, which it lets through.
type afterUpdate struct {
	sessionstore.Backend
	f   func()
	err error // what is returned in place of success
}

func (b *afterUpdate) Update(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
	err := b.Backend.Update(ctx, rec, cond)
	b.f()
	return cmp.Or(b.err, err)
}

// A node is one process: an ID manager and one application, on a backend that
// other nodes may share.
type node struct {
	*sessionstore.Manager
	ids     *idmanager.Manager
	backend *hooked
	memory  *membackend.Backend
}

func newNode(t *testing.T, memory *membackend.Backend, name string, cfg *sessionstore.Config) *node {
	t.Helper()
	n := &node{memory: memory, backend: &hooked{Backend: memory}}
	var err error
	n.ids, err = idmanager.New(n.backend, &idmanager.Config{Node: name, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	n.Manager = n.application(t, "shop", cfg)
	return n
}

// twoNodes returns two nodes on one backend, neither hearing of the other's events.
func twoNodes(t *testing.T) (*node, *node) {
	memory := membackend.New()
	return newNode(t, memory, "n1", nil), newNode(t, memory, "n2", nil)
}

func (n *node) application(t *testing.T, app string, cfg *sessionstore.Config) *sessionstore.Manager {
	t.Helper()
	var c sessionstore.Config
	if cfg != nil {
		c = *cfg
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := sessionstore.New(n.ids, app, &c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// run runs the ID manager until the test ends.
func (n *node) run(t *testing.T) *node {
	t.Helper()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		if err := n.ids.Run(context.Background()); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(func() {
		if err := n.ids.Shutdown(context.Background()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		<-stopped
	})
	for !n.ids.Live() {
		// Run sets it right away.
		<-time.After(time.Microsecond)
	}
	return n
}

// A client holds what cookies would.
type client struct {
	token   sessionstore.Token
	version sessionstore.Version
}

func (c *client) claim() sessionstore.Claim {
	return sessionstore.Claim{Token: c.token, Version: c.version}
}

func (c *client) accept(r sessionstore.Receipt) {
	if r.Clear {
		c.token, c.version = sessionstore.Token{}, 0
	}
	if !r.Token.IsZero() {
		c.token = r.Token
	}
	if r.Version != 0 {
		c.version = r.Version
	}
}

// try is one request: begin, f, commit.
func (c *client) try(m *sessionstore.Manager, f func(*sessionstore.Session)) (sessionstore.Receipt, error) {
	s, err := m.Begin(context.Background(), c.claim())
	if err != nil {
		return sessionstore.Receipt{}, err
	}
	defer m.Release(s)
	if f != nil {
		f(s)
	}
	r, err := m.Commit(context.Background(), s)
	if err == nil {
		c.accept(r)
	}
	return r, err
}

// do is a request that must succeed.
func (c *client) do(t *testing.T, m *sessionstore.Manager, f func(*sessionstore.Session)) sessionstore.Receipt {
	t.Helper()
	r, err := c.try(m, f)
	if err != nil {
		t.Fatalf("request: %v", err)
	}
	return r
}

// get reads an attribute in a request of its own.
func get[T any](t *testing.T, c *client, m *sessionstore.Manager, a sessionstore.Attr[T]) (v T, ok bool) {
	t.Helper()
	c.do(t, m, func(s *sessionstore.Session) { v, ok = a.Get(s) })
	return v, ok
}

func want[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}
