package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/middleware"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	holdfastmysql "github.com/holdfast-sessions/holdfast/sqlbackend/mysql"
	"github.com/holdfast-sessions/holdfast/sqlbackend/postgres"
)

var (
	userAttr  = sessionstore.NewAttr[string]("user")
	countAttr = sessionstore.NewAttr[int]("count")
	cartAttr  = sessionstore.NewAttr[Cart]("cart")
)

type holdfastVisit struct{ *sessionstore.Session }

func (v holdfastVisit) start(c Content) {
	userAttr.Set(v.Session, c.User)
	countAttr.Set(v.Session, c.Count)
	cartAttr.Set(v.Session, c.Cart)
}
func (v holdfastVisit) user() string { s, _ := userAttr.Get(v.Session); return s }
func (v holdfastVisit) count() int   { n, _ := countAttr.Get(v.Session); return n }
func (v holdfastVisit) cart() Cart   { c, _ := cartAttr.Get(v.Session); return c }
func (v holdfastVisit) increment()   { countAttr.Update(v.Session, func(n int) int { return n + 1 }) }
func (v holdfastVisit) store() error { return nil }

// A node is what a process of the library consists of.
type node struct {
	backend sessionstore.Backend
	ids     *idmanager.Manager
	manager *sessionstore.Manager
	handler http.Handler
	running chan error
}

// startNode starts a node whose requests next serves.
func startNode(b sessionstore.Backend, ids *idmanager.Config, cfg *sessionstore.Config, next http.HandlerFunc) (*node, error) {
	n := &node{backend: b, running: make(chan error, 1)}
	quiet := slog.New(slog.DiscardHandler)
	idsCfg := idmanager.Config{}
	if ids != nil {
		idsCfg = *ids
	}
	idsCfg.Logger = quiet
	c := sessionstore.Config{}
	if cfg != nil {
		c = *cfg
	}
	c.Logger = quiet
	var err error
	if n.ids, err = idmanager.New(b, &idsCfg); err != nil {
		return nil, err
	}
	if n.manager, err = sessionstore.New(n.ids, "shop", &c); err != nil {
		return nil, err
	}
	mw, err := middleware.New(n.manager, &middleware.Config{InsecureCookie: true, Logger: quiet})
	if err != nil {
		return nil, err
	}
	n.handler = mw.Handler(next)
	go func() { n.running <- n.ids.Run(context.Background()) }()
	for deadline := time.Now().Add(10 * time.Second); !n.ids.Live(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			n.stop()
			return nil, fmt.Errorf("the node hears no events")
		}
	}
	return n, nil
}

func (n *node) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := n.ids.Shutdown(ctx); err != nil {
		return err
	}
	return <-n.running
}

func holdfastShop(w http.ResponseWriter, r *http.Request) {
	shop(w, r.URL.Path, holdfastVisit{sessionstore.FromContext(r.Context())})
}

// A countingBackend counts its statements.
type countingBackend interface {
	sessionstore.Backend
	Statements() int64
}

// backend returns a backend with a pool of its own, as a process would have.
func (d *database) backend(ctx context.Context) (countingBackend, error) {
	if d.kind == onMySQL {
		return holdfastmysql.New(ctx, d.openSQL(), nil)
	}
	pool, err := d.openPool(ctx)
	if err != nil {
		return nil, err
	}
	return postgres.New(ctx, pool, nil)
}

// node starts a node on the database.
func (d *database) node(ctx context.Context, ids *idmanager.Config, cfg *sessionstore.Config, next http.HandlerFunc) (*node, error) {
	b, err := d.backend(ctx)
	if err != nil {
		return nil, err
	}
	n, err := startNode(b, ids, cfg, next)
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, func() { n.stop() })
	return n, nil
}
