package shop_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/internal/shop"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
	"github.com/holdfast-sessions/holdfast/sqlbackend/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A backend is what the site is run on: it counts statements.
type backend interface {
	sessionstore.Backend
	Statements() int64
}

// onEach runs a test on the site over each backend.
func onEach(t *testing.T, test func(t *testing.T, site *site)) {
	t.Run("memory", func(t *testing.T) { test(t, newSite(t, membackend.New())) })
	t.Run("sqlite", func(t *testing.T) {
		b, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "sessions.db"), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		test(t, newSite(t, b))
	})
}

// A site is one node of the shop, served.
type site struct {
	t       *testing.T
	url     string
	backend *faulty
}

func newSite(t *testing.T, b backend) *site {
	t.Helper()
	db := &faulty{backend: b}
	quiet := slog.New(slog.DiscardHandler)
	ids, err := idmanager.New(db, &idmanager.Config{Node: "node1", Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	handler, err := shop.New(ids, &shop.Config{Statements: b.Statements, InsecureCookie: true, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	running := make(chan error, 1)
	go func() { running <- ids.Run(context.Background()) }()
	server := httptest.NewServer(handler)
	t.Cleanup(func() {
		server.Close()
		db.down.Store(false)
		if err := ids.Shutdown(context.Background()); err != nil {
			t.Errorf("shut down: %v", err)
		}
		if err := <-running; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	for !ids.Live() { // until then every request asks the database
		<-time.After(time.Millisecond)
	}
	return &site{t: t, url: server.URL, backend: db}
}

// A faulty backend answers nothing while it is down.
type faulty struct {
	backend
	down atomic.Bool
}

var errDown = errors.New("connection to 10.1.2.3 refused, password hunter2")

func (f *faulty) Load(ctx context.Context, key sessionstore.Key, known sessionstore.Version) (*sessionstore.Record, error) {
	if f.down.Load() {
		return nil, errDown
	}
	return f.backend.Load(ctx, key, known)
}

func (f *faulty) Create(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error) {
	if f.down.Load() {
		return time.Time{}, errDown
	}
	return f.backend.Create(ctx, rec, cond)
}

func (f *faulty) Update(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
	if f.down.Load() {
		return errDown
	}
	return f.backend.Update(ctx, rec, cond)
}

func (f *faulty) Delete(ctx context.Context, sel sessionstore.Selector) ([]*sessionstore.Record, error) {
	if f.down.Load() {
		return nil, errDown
	}
	return f.backend.Delete(ctx, sel)
}

func (f *faulty) List(ctx context.Context, sel sessionstore.Selector) iter.Seq2[sessionstore.Info, error] {
	if f.down.Load() {
		return func(yield func(sessionstore.Info, error) bool) { yield(sessionstore.Info{}, errDown) }
	}
	return f.backend.List(ctx, sel)
}

// A client is one visitor with a cookie jar. It follows no redirects.
type client struct {
	t    *testing.T
	url  string
	http *http.Client
}

func (s *site) client() *client {
	jar, _ := cookiejar.New(nil)
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &client{t: s.t, url: s.url, http: &http.Client{
		Jar: jar, Transport: transport, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// An answer is a response that was read.
type answer struct {
	t *testing.T
	*http.Response
	body []byte
}

func (c *client) do(method, path, body string, header ...string) answer {
	c.t.Helper()
	a, err := c.try(method, path, body, header...)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// try is do for goroutines that must not end the test.
func (c *client) try(method, path, body string, header ...string) (answer, error) {
	req, err := http.NewRequest(method, c.url+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{c.t, resp, b}, err
}

// post posts a form as a browser does.
func (c *client) post(path, form string) answer {
	c.t.Helper()
	return c.do("POST", path, form, "Content-Type", "application/x-www-form-urlencoded",
		"Sec-Fetch-Site", "same-origin", "Origin", c.url)
}

// wants fails the test unless the answer has this status and is JSON.
func (a answer) wants(status int) answer {
	a.t.Helper()
	if a.StatusCode != status {
		a.t.Fatalf("%s %s: status %d, want %d: %s", a.Request.Method, a.Request.URL, a.StatusCode, status, a.body)
	}
	if got := a.Header.Get("Content-Type"); got != "application/json" {
		a.t.Fatalf("%s %s: content type %q", a.Request.Method, a.Request.URL, got)
	}
	if a.Request.Method != "HEAD" && !json.Valid(a.body) {
		a.t.Fatalf("%s %s: not JSON: %s", a.Request.Method, a.Request.URL, a.body)
	}
	return a
}

// fails is wants for an error, whose text must contain each of the words.
func (a answer) fails(status int, words ...string) {
	a.t.Helper()
	a.wants(status)
	message := decode[struct{ Error string }](a).Error
	for _, word := range append(words, "") {
		if message == "" || !strings.Contains(message, word) {
			a.t.Errorf("%s %s: error %q does not say %q", a.Request.Method, a.Request.URL, message, word)
		}
	}
}

func decode[T any](a answer) (v T) {
	a.t.Helper()
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		a.t.Fatalf("%s %s: %v: %s", a.Request.Method, a.Request.URL, err, a.body)
	}
	return v
}

// A state is what GET /api/session answers.
type state struct {
	Node       string
	ID         string
	New        *bool
	Principal  *string
	Version    *int64
	Source     string
	CreatedAt  *time.Time `json:"created_at"`
	AccessedAt *time.Time `json:"accessed_at"`
	ExpiresAt  *time.Time `json:"expires_at"`
	Attributes map[string]json.RawMessage
}

func (c *client) state(app string) state {
	c.t.Helper()
	s := decode[state](c.do("GET", app+"/api/session", "").wants(200))
	if s.New == nil || s.Principal == nil || s.Version == nil || s.Attributes == nil {
		c.t.Fatalf("GET %s/api/session lacks a field: %+v", app, s)
	}
	return s
}

func (c *client) stat(name string) int64 {
	c.t.Helper()
	n, err := decode[map[string]any](c.do("GET", "/api/stats", "").wants(200))[name].(json.Number).Int64()
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// token returns the value of the client's token cookie.
func (c *client) token() string {
	for _, cookie := range c.http.Jar.Cookies(must(http.NewRequest("GET", c.url, nil)).URL) {
		if cookie.Name == "session" {
			return cookie.Value
		}
	}
	return ""
}
