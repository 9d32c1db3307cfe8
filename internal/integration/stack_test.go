package integration_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/internal/dbtest"
	"github.com/holdfast-sessions/holdfast/middleware"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	holdfastmysql "github.com/holdfast-sessions/holdfast/sqlbackend/mysql"
	"github.com/holdfast-sessions/holdfast/sqlbackend/postgres"
	"github.com/holdfast-sessions/holdfast/sqlbackend/sqlite"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

var (
	counter = sessionstore.NewAttr[int]("counter")
	text    = sessionstore.NewAttr[string]("text")
	note    = sessionstore.NewAttr[string]("note")
)

// A backend is a real one, which counts its statements.
type backend interface {
	sessionstore.Backend
	Statements() int64
}

// A database is one of the four, freshly migrated and empty.
type database struct {
	// open returns a backend on it, as a process of its own would have.
	open func() backend
	// raw is for looking at the rows behind the library's back.
	raw *sql.DB
	// proxy stands between the backends opened after it was asked for and the
	// server; nil for SQLite, which has none.
	proxy func() *proxy
}

// onEachDatabase runs a test on each of the four databases.
func onEachDatabase(t *testing.T, test func(t *testing.T, db database)) {
	t.Run("SQLite", func(t *testing.T) { test(t, newSQLite(t)) })
	onEachServer(t, test)
}

// onEachServer runs a test on each database that is a process of its own.
func onEachServer(t *testing.T, test func(t *testing.T, db database)) {
	t.Run("PostgreSQL", func(t *testing.T) { test(t, newPostgres(t)) })
	t.Run("MySQL", func(t *testing.T) { test(t, newMySQL(t, dbtest.MigratedMySQL(t))) })
	t.Run("MariaDB", func(t *testing.T) { test(t, newMySQL(t, dbtest.MigratedMariaDB(t))) })
}

func newSQLite(t *testing.T) database {
	path := filepath.Join(t.TempDir(), "sessions.db")
	open := func() backend {
		b, err := sqlite.Open(t.Context(), path, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		return b
	}
	open()
	raw, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	return database{open: open, raw: raw}
}

func newPostgres(t *testing.T) database {
	url := dbtest.MigratedPostgres(t)
	var p *proxy
	return database{
		open: func() backend {
			pool := dbtest.Pool(t, url, func(cfg *pgxpool.Config) {
				if p != nil {
					cfg.ConnConfig.Host, cfg.ConnConfig.Port = "127.0.0.1", p.port()
					cfg.ConnConfig.Fallbacks = nil
				}
			})
			b, err := postgres.New(t.Context(), pool, nil)
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
		raw: dbtest.DB(t, dbtest.Pool(t, url)),
		proxy: func() *proxy {
			cfg, err := pgxpool.ParseConfig(url)
			if err != nil {
				t.Fatal(err)
			}
			p = newProxy(t, fmt.Sprintf("%s:%d", cfg.ConnConfig.Host, cfg.ConnConfig.Port))
			return p
		},
	}
}

func newMySQL(t *testing.T, dsn string) database {
	direct := dsn
	var p *proxy
	return database{
		open: func() backend {
			b, err := holdfastmysql.New(t.Context(), dbtest.OpenMySQL(t, dsn), nil)
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
		raw: dbtest.OpenMySQL(t, direct),
		proxy: func() *proxy {
			cfg, err := mysql.ParseDSN(direct)
			if err != nil {
				t.Fatal(err)
			}
			p = newProxy(t, cfg.Addr)
			cfg.Addr = fmt.Sprintf("127.0.0.1:%d", p.port())
			dsn = cfg.FormatDSN()
			return p
		},
	}
}

// A process is one program on a database: an ID manager, one application and an
// HTTP server.
type process struct {
	ids    *idmanager.Manager
	app    *sessionstore.Manager
	server *httptest.Server
	stop   func()
}

// start starts a process whose requests handler serves. It is stopped when the
// test ends, or before.
func start(t *testing.T, b sessionstore.Backend, cfg *sessionstore.Config, handler http.Handler) *process {
	t.Helper()
	return startWith(t, b, idmanager.Config{}, cfg, handler)
}

func startWith(t *testing.T, b sessionstore.Backend, idsCfg idmanager.Config, cfg *sessionstore.Config, handler http.Handler) *process {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	idsCfg.Logger = quiet
	ids, err := idmanager.New(b, &idsCfg)
	if err != nil {
		t.Fatal(err)
	}
	var c sessionstore.Config
	if cfg != nil {
		c = *cfg
	}
	c.Logger = quiet
	app, err := sessionstore.New(ids, "shop", &c)
	if err != nil {
		t.Fatal(err)
	}
	mw, err := middleware.New(app, &middleware.Config{InsecureCookie: true, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	running := make(chan error, 1)
	go func() { running <- ids.Run(context.Background()) }()
	for !ids.Live() {
		<-time.After(time.Millisecond)
	}
	p := &process{ids: ids, app: app, server: httptest.NewServer(mw.Handler(handler))}
	stopped := false
	p.stop = func() {
		if stopped {
			return
		}
		stopped = true
		p.server.Close()
		if err := ids.Shutdown(context.Background()); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-running; err != nil {
			t.Errorf("run: %v", err)
		}
	}
	t.Cleanup(p.stop)
	return p
}

// A browser is an HTTP client with a cookie jar that holds across processes.
type browser struct{ *http.Client }

func newBrowser(t *testing.T) browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 128}
	t.Cleanup(transport.CloseIdleConnections)
	return browser{&http.Client{Jar: jar, Transport: transport}}
}

// tab is another client with a copy of the browser's cookies.
func (b browser) tab(t *testing.T, p *process) browser {
	other := newBrowser(t)
	u := p.url(t, "/")
	other.Jar.SetCookies(u, b.Jar.Cookies(u))
	return other
}

func (p *process) url(t *testing.T, path string) *url.URL {
	u, err := url.Parse(p.server.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// token is the session cookie's value.
func (b browser) token(t *testing.T, p *process) string {
	for _, c := range b.Jar.Cookies(p.url(t, "/")) {
		if c.Name == "session" {
			return c.Value
		}
	}
	return ""
}

// get asks for a page and returns its status and text.
func (b browser) get(t *testing.T, p *process, path string) (int, string) {
	t.Helper()
	resp, err := b.Get(p.server.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(body))
}

// expect asks for a page that must be exactly so.
func (b browser) expect(t *testing.T, p *process, path, want string) {
	t.Helper()
	if code, body := b.get(t, p, path); code != 200 || body != want {
		t.Errorf("GET %s: %d %q, want %q", path, code, body, want)
	}
}

// A site is a handler whose requests under /slow wait between loading and
// changing the session until the test lets them go on.
type site struct {
	mux     *http.ServeMux
	entered chan struct{}
	proceed chan struct{}
}

func newSite() *site {
	s := &site{mux: http.NewServeMux(), entered: make(chan struct{}), proceed: make(chan struct{})}
	handle := func(pattern string, h func(*sessionstore.Session, *http.Request) any) {
		serve := func(w http.ResponseWriter, r *http.Request) {
			json.NewEncoder(w).Encode(h(sessionstore.FromContext(r.Context()), r))
		}
		s.mux.HandleFunc("/"+pattern, serve)
		s.mux.HandleFunc("/slow/"+pattern, func(w http.ResponseWriter, r *http.Request) {
			s.entered <- struct{}{}
			<-s.proceed
			serve(w, r)
		})
	}
	handle("increment", func(s *sessionstore.Session, r *http.Request) any {
		counter.Update(s, func(n int) int { return n + 1 })
		return "done"
	})
	handle("counter", func(s *sessionstore.Session, _ *http.Request) any {
		n, _ := counter.Get(s)
		return n
	})
	handle("text", func(s *sessionstore.Session, r *http.Request) any {
		if v := r.FormValue("set"); v != "" {
			text.Set(s, v)
		}
		v, _ := text.Get(s)
		return v
	})
	handle("note", func(s *sessionstore.Session, r *http.Request) any {
		if v := r.FormValue("set"); v != "" {
			note.Set(s, v)
		}
		v, _ := note.Get(s)
		return v
	})
	handle("login", func(s *sessionstore.Session, r *http.Request) any {
		s.SetPrincipal(r.FormValue("user"))
		return r.FormValue("user")
	})
	handle("whoami", func(s *sessionstore.Session, _ *http.Request) any { return s.Principal() })
	handle("logout", func(s *sessionstore.Session, _ *http.Request) any { s.Invalidate(); return "bye" })
	return s
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// during runs f while a request of b to /slow/path waits, and returns what that
// request was answered.
func (s *site) during(t *testing.T, b browser, p *process, path string, f func()) (code int, body string) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		code, body = b.get(t, p, "/slow/"+path)
	}()
	<-s.entered
	f()
	s.proceed <- struct{}{}
	<-done
	return code, body
}
