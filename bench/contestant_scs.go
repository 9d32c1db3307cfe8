package main

import (
	"context"
	"encoding/gob"
	"net/http"
	"time"

	"github.com/alexedwards/scs/mysqlstore"
	"github.com/alexedwards/scs/pgxstore"
	"github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"
)

// The tables that the stores of the other contestants want, with the indexes that
// their documentation asks for.
var (
	postgresTables = []string{
		`CREATE TABLE sessions (token TEXT PRIMARY KEY, data BYTEA NOT NULL, expiry TIMESTAMPTZ NOT NULL)`,
		`CREATE INDEX sessions_expiry_idx ON sessions (expiry)`,
		`CREATE TABLE hand_written (id uuid PRIMARY KEY, version bigint NOT NULL, data bytea NOT NULL, expires_at timestamptz NOT NULL)`,
	}
	mysqlTables = []string{
		`CREATE TABLE sessions (token CHAR(43) PRIMARY KEY, data BLOB NOT NULL, expiry TIMESTAMP(6) NOT NULL)`,
		`CREATE INDEX sessions_expiry_idx ON sessions (expiry)`,
		`CREATE TABLE hand_written (id BINARY(16) PRIMARY KEY, version BIGINT NOT NULL, data BLOB NOT NULL, expires_at DATETIME NOT NULL)`,
	}
)

type scsVisit struct {
	sm  *scs.SessionManager
	ctx context.Context
}

func (v scsVisit) start(c Content) {
	v.sm.Put(v.ctx, "user", c.User)
	v.sm.Put(v.ctx, "count", c.Count)
	v.sm.Put(v.ctx, "cart", c.Cart)
}
func (v scsVisit) user() string { return v.sm.GetString(v.ctx, "user") }
func (v scsVisit) count() int   { return v.sm.GetInt(v.ctx, "count") }
func (v scsVisit) cart() Cart   { c, _ := v.sm.Get(v.ctx, "cart").(Cart); return c }
func (v scsVisit) increment()   { v.sm.Put(v.ctx, "count", v.count()+1) }
func (v scsVisit) store() error { return nil }

// newSCS returns the shop on alexedwards/scs.
func newSCS(store scs.Store, idle time.Duration) http.Handler {
	gob.Register(Cart{})
	sm := scs.New()
	sm.Store = store
	sm.IdleTimeout = idle
	return sm.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shop(w, r.URL.Path, scsVisit{sm, r.Context()})
	}))
}

// The stores' own sweeps are off: they are not what is compared here.

func scsMemory() http.Handler { return newSCS(memstore.NewWithCleanupInterval(0), 0) }

func (d *database) scs(ctx context.Context, idle time.Duration) (http.Handler, error) {
	if d.kind == onMySQL {
		return newSCS(mysqlstore.NewWithCleanupInterval(d.openSQL(), 0), idle), nil
	}
	pool, err := d.openPool(ctx)
	if err != nil {
		return nil, err
	}
	return newSCS(pgxstore.NewWithCleanupInterval(pool, 0), idle), nil
}
