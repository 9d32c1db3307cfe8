package middleware_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/middleware"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	visits = sessionstore.NewAttr[int]("visits")
	name   = sessionstore.NewAttr[string]("name")
	color  = sessionstore.NewAttr[string]("color")
	errDB  = errors.New("database pgsql://root:hunter2@db is away")
)

// A hooked backend lets a test step in before a call, to make a race happen or a
// database fail.
type hooked struct {
	*membackend.Backend
	mu     sync.Mutex
	before func(method string) error // guarded by mu; may be nil
	ctxs   []context.Context         // guarded by mu; of every call
}

func (h *hooked) set(f func(method string) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before = f
}

// fail makes calls of these methods fail, all of them if there is none.
func (h *hooked) fail(methods ...string) {
	h.set(func(method string) error {
		if len(methods) == 0 || slices.Contains(methods, method) {
			return errDB
		}
		return nil
	})
}

func (h *hooked) call(ctx context.Context, method string) error {
	h.mu.Lock()
	h.ctxs = append(h.ctxs, ctx)
	f := h.before
	h.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(method)
}

func (h *hooked) Load(ctx context.Context, key sessionstore.Key, known sessionstore.Version) (*sessionstore.Record, error) {
	if err := h.call(ctx, "Load"); err != nil {
		return nil, err
	}
	return h.Backend.Load(ctx, key, known)
}

func (h *hooked) Create(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error) {
	if err := h.call(ctx, "Create"); err != nil {
		return time.Time{}, err
	}
	return h.Backend.Create(ctx, rec, cond)
}

func (h *hooked) Update(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
	if err := h.call(ctx, "Update"); err != nil {
		return err
	}
	return h.Backend.Update(ctx, rec, cond)
}

func (h *hooked) Delete(ctx context.Context, sel sessionstore.Selector) ([]*sessionstore.Record, error) {
	if err := h.call(ctx, "Delete"); err != nil {
		return nil, err
	}
	return h.Backend.Delete(ctx, sel)
}

// logs collects what is logged.
type logs struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// A site is one process with one application, and its handler.
type site struct {
	memory   *membackend.Backend
	backend  *hooked
	ids      *idmanager.Manager
	manager  *sessionstore.Manager
	sessions *middleware.Sessions
	logs     *logs
}

// options are what tests vary; the zero value is a shop over plain HTTP.
type options struct {
	memory *membackend.Backend // shared with other nodes, or nil
	node   string
	app    string
	store  sessionstore.Config
	cookie middleware.Config
	secure bool // leave InsecureCookie off
	idle   bool // nobody runs the ID manager
}

func newSite(t testing.TB, o options) *site {
	t.Helper()
	s := &site{memory: o.memory, logs: &logs{}}
	if s.memory == nil {
		s.memory = membackend.New()
	}
	s.backend = &hooked{Backend: s.memory}
	logger := slog.New(slog.NewTextHandler(s.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if s.ids, err = idmanager.New(s.backend, &idmanager.Config{Node: o.node, SweepInterval: -1, Logger: logger}); err != nil {
		t.Fatal(err)
	}
	if !o.idle {
		s.run(t)
	}
	if o.app == "" {
		o.app = "shop"
	}
	o.store.Logger = logger
	if s.manager, err = sessionstore.New(s.ids, o.app, &o.store); err != nil {
		t.Fatal(err)
	}
	o.cookie.Logger = logger
	o.cookie.InsecureCookie = !o.secure
	if s.sessions, err = middleware.New(s.manager, &o.cookie); err != nil {
		t.Fatal(err)
	}
	return s
}

// sibling is another application under the same ID manager.
func (s *site) sibling(t testing.TB, app string) *site {
	t.Helper()
	c := *s
	var err error
	if c.manager, err = sessionstore.New(s.ids, app, nil); err != nil {
		t.Fatal(err)
	}
	if c.sessions, err = middleware.New(c.manager, &middleware.Config{InsecureCookie: true}); err != nil {
		t.Fatal(err)
	}
	return &c
}

// run runs the ID manager until the test ends.
func (s *site) run(t testing.TB) {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		if err := s.ids.Run(context.Background()); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(func() {
		s.backend.set(nil)
		if err := s.ids.Shutdown(context.Background()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		<-stopped
	})
	for !s.ids.Live() {
		<-time.After(time.Microsecond) // Run sets it right away
	}
}

// statements returns how many statements f makes the database run.
func (s *site) statements(f func()) int64 {
	before := s.memory.Statements()
	f()
	return s.memory.Statements() - before
}

// A handler is what tests are about: it gets its session as a parameter.
type handler func(w http.ResponseWriter, r *http.Request, s *sessionstore.Session)

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h(w, r, sessionstore.FromContext(r.Context()))
}

// serve starts a server whose only handler is h.
func (s *site) serve(t testing.TB, h handler) *httptest.Server {
	t.Helper()
	return listen(t, s.sessions.Handler(h))
}

func listen(t testing.TB, h http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.Start()
	// A server that waits for a stuck handler would hide why the test failed.
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return server
}

// A browser keeps cookies by name. It is safe for concurrent use.
type browser struct {
	mu      sync.Mutex // guards cookies
	cookies map[string]string
}

func newBrowser() *browser { return &browser{cookies: make(map[string]string)} }

func (b *browser) header() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(b.cookies)) {
		pairs = append(pairs, name+"="+b.cookies[name])
	}
	return strings.Join(pairs, "; ")
}

func (b *browser) cookie(name string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cookies[name]
}

func (b *browser) clone() *browser {
	b.mu.Lock()
	defer b.mu.Unlock()
	return &browser{cookies: maps.Clone(b.cookies)}
}

func (b *browser) keep(set []*http.Cookie) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range set {
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
			continue
		}
		b.cookies[c.Name] = c.Value
	}
}

// A reply is a response that was read to its end.
type reply struct {
	*http.Response
	body string
	set  map[string]*http.Cookie
}

// record is one request without a network.
func (b *browser) record(h http.Handler, target string) reply {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	if cookies := b.header(); cookies != "" {
		r.Header.Set("Cookie", cookies)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return b.read(rec.Result())
}

func (b *browser) read(resp *http.Response) reply {
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	rep := reply{Response: resp, body: string(body), set: make(map[string]*http.Cookie)}
	for _, c := range resp.Cookies() {
		rep.set[c.Name] = c
	}
	b.keep(resp.Cookies())
	return rep
}

// try is one request to a server.
func (b *browser) try(ctx context.Context, server *httptest.Server, method, path string) (reply, error) {
	r, err := http.NewRequestWithContext(ctx, method, server.URL+path, nil)
	if err != nil {
		return reply{}, err
	}
	if cookies := b.header(); cookies != "" {
		r.Header.Set("Cookie", cookies)
	}
	resp, err := server.Client().Transport.RoundTrip(r) // follows no redirections
	if err != nil {
		return reply{}, err
	}
	return b.read(resp), nil
}

// get is one request to a server that must be answered.
func (b *browser) get(t testing.TB, server *httptest.Server, path string) reply {
	t.Helper()
	rep, err := b.try(t.Context(), server, http.MethodGet, path)
	if err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	return rep
}

// started returns a browser that holds a session in which name is "ann".
func (s *site) started(t testing.TB) *browser {
	t.Helper()
	b := newBrowser()
	b.record(s.sessions.Handler(handler(func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) {
		name.Set(s, "ann")
	})), "/")
	if b.cookie("session") == "" {
		t.Fatal("no session cookie")
	}
	return b
}

// look returns what a request of this browser sees.
func (s *site) look(b *browser, f func(s *sessionstore.Session)) {
	b.record(s.sessions.Handler(handler(func(_ http.ResponseWriter, _ *http.Request, s *sessionstore.Session) { f(s) })), "/")
}

func (s *site) name(b *browser) (v string) {
	s.look(b, func(s *sessionstore.Session) { v, _ = name.Get(s) })
	return v
}

func want[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}
