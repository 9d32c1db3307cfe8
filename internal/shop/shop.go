// Package shop is the web application of the Holdfast demo: a small shop and its
// back office, two applications under one ID manager, with server-rendered pages
// and a JSON interface.
//
// The shop's pages are at /, its JSON interface at /api; the office's at /office
// and /office/api. Both share the session's ID, secret and fate; attributes and
// principals are separate.
//
//	ids, err := idmanager.New(backend, &idmanager.Config{Node: "node1"})
//	site, err := shop.New(ids, &shop.Config{Statements: backend.Statements})
//	err = http.ListenAndServe("127.0.0.1:8080", site)
//
// The pages work without JavaScript and load nothing from other hosts. Every POST
// answers with a redirect. [net/http.CrossOriginProtection] guards them, which
// needs no token in the forms and lets scripts pass.
package shop

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/middleware"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// Config configures a [Site]. The zero Config, or nil, is the default.
type Config struct {
	// Statements returns how many statements this process has run on the
	// database since it started. Defaults to a func that returns 0.
	Statements func() int64

	// InsecureCookie lets browsers send the session's cookies over plain HTTP.
	// For a demo on one's own machine only. Defaults to false.
	InsecureCookie bool

	// Cluster is what the visitor may stop and start from the pages. Defaults to
	// nil: nothing.
	Cluster Cluster

	// Outage says what answers while the database does not. Defaults to
	// [sessionstore.FailClosed].
	Outage sessionstore.OutagePolicy

	// Freshness says when a cached copy of a session may answer. Defaults to
	// [sessionstore.Causal].
	Freshness sessionstore.Freshness

	// Listeners hear of what happens to the sessions of both applications.
	// Defaults to none.
	Listeners []sessionstore.Listener

	// Logger hears of requests that failed. Defaults to [slog.Default].
	Logger *slog.Logger
}

// A Site is the shop with its office. It is an [http.Handler] that is safe for
// concurrent use, and needs no closing.
type Site struct {
	ids     *idmanager.Manager
	cfg     Config
	shop    *application
	office  *application
	handler http.Handler
}

// An application is one of the two: an attached session manager, the middleware
// over it, and where it is mounted.
type application struct {
	site     *Site
	base     string // prefix of its paths
	sessions *sessionstore.Manager
	wrap     *middleware.Sessions
}

// New returns the site, whose applications "shop" and "office" it attaches to
// ids. It starts nothing; the caller runs ids and shuts it down. A nil cfg means
// the defaults; cfg is copied.
func New(ids *idmanager.Manager, cfg *Config) (*Site, error) {
	if ids == nil {
		return nil, errors.New("shop: ID manager is nil")
	}
	site := &Site{ids: ids}
	if cfg != nil {
		site.cfg = *cfg
	}
	if site.cfg.Statements == nil {
		site.cfg.Statements = func() int64 { return 0 }
	}
	if site.cfg.Logger == nil {
		site.cfg.Logger = slog.Default()
	}
	var err error
	if site.shop, err = site.attach("shop", ""); err != nil {
		return nil, err
	}
	if site.office, err = site.attach("office", "/office"); err != nil {
		return nil, err
	}
	site.handler = site.routes()
	return site, nil
}

func (site *Site) attach(name, base string) (*application, error) {
	a := &application{site: site, base: base}
	var err error
	if a.sessions, err = sessionstore.New(site.ids, name, &sessionstore.Config{
		Outage: site.cfg.Outage, Freshness: site.cfg.Freshness, Listeners: site.cfg.Listeners, Logger: site.cfg.Logger,
	}); err != nil {
		return nil, err
	}
	// Both applications use one token cookie, so it must reach all paths.
	a.wrap, err = middleware.New(a.sessions, &middleware.Config{
		InsecureCookie: site.cfg.InsecureCookie,
		ErrorHandler:   a.fail,
		Logger:         site.cfg.Logger,
	})
	return a, err
}

// ServeHTTP answers a request.
func (site *Site) ServeHTTP(w http.ResponseWriter, r *http.Request) { site.handler.ServeHTTP(w, r) }

// Touched returns how many access times were written back so far, for a last
// word at shutdown.
func (site *Site) Touched() int64 {
	return site.shop.sessions.Stats().Touched + site.office.sessions.Stats().Touched
}

func (site *Site) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", site.shop.wrap.Handler(site.shopRoutes()))
	mux.Handle("/office/", site.office.wrap.Handler(site.officeRoutes()))

	// What follows has no session, and so costs no statement whatever cookies come.
	mux.Handle("/none", methods{http.MethodGet: plain(site.none)})
	mux.Handle("/healthz", methods{http.MethodGet: delayed(site.health)})
	mux.Handle("/api/stats", methods{http.MethodGet: plain(site.shop.stats)})
	mux.Handle("/office/api/stats", methods{http.MethodGet: plain(site.office.stats)})
	mux.Handle("GET /static/", http.HandlerFunc(serveStatic))
	mux.Handle("GET /favicon.ico", http.RedirectHandler(asset("favicon.svg"), http.StatusFound))
	if site.cfg.Cluster != nil {
		mux.Handle("POST /nodes/{node}/{command}", commander{
			cluster: site.cfg.Cluster, self: site.ids.Node(), fail: site.shop.deny,
		})
	}

	guard := http.NewCrossOriginProtection()
	guard.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		site.application(r).deny(w, r, http.StatusForbidden, crossOrigin)
	}))
	return secured(guard.Handler(mux))
}

// crossOrigin is what a forged request is told.
const crossOrigin = "this request came from another website"

// application returns the one that r is for.
func (site *Site) application(r *http.Request) *application {
	if isBelow(r.URL.Path, site.office.base) {
		return site.office
	}
	return site.shop
}

// secured sets the headers that all answers share.
func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

func (site *Site) none(context.Context) any {
	return map[string]any{"node": site.ids.Node(), "session": "not involved"}
}

// health tells balancers whether to send clients here: 200, or 503 once the node
// drains. It costs no statement and says nothing of the database. When that is away
// it is so for all nodes: a balancer that took them all out could show nobody an error
// page, anonymous visitors would be turned away too, and no copy could stand in.
func (site *Site) health(w http.ResponseWriter, _ *http.Request) {
	code, status := http.StatusOK, "ok"
	if site.ids.Draining() {
		code, status = http.StatusServiceUnavailable, "draining"
	}
	writeJSON(w, code, map[string]any{"node": site.ids.Node(), "status": status})
}
