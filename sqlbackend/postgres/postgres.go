// Package postgres keeps sessions in PostgreSQL, through pgx's native pool.
//
//	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
//	…
//	defer pool.Close()
//	backend, err := postgres.New(ctx, pool, nil)
//
// It works in every pgx.QueryExecMode, also through a pooler in transaction mode,
// with any search_path, and whatever the connections' default isolation is. [New]
// returns an error that says what to change if default_transaction_read_only is on and
// the server is no standby, if the server converts from a client_encoding that is not
// UTF8, or if bytea_output is escape in a mode in which values come as text,
// pgx.QueryExecModeExec or pgx.QueryExecModeSimpleProtocol; none of that is a server's
// default. Package migrations makes the tables. PostgreSQL must be of version 14 or
// later.
package postgres

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/holdfast-sessions/holdfast/migrations"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sqlbackend"
)

// A Config configures a Backend. The zero Config is valid. [New] copies it.
type Config struct {
	// TablePrefix begins the names of all tables, as it did for migrations.Up.
	// Defaults to migrations.DefaultTablePrefix.
	TablePrefix string

	// Schema is the schema of the tables, as it was for migrations.Up. Defaults to "",
	// what the connection's search_path finds.
	Schema string

	// StatementTimeout bounds each statement, and each transaction as a whole,
	// with its retries and its wait for a connection of the pool. It must be at least
	// 1ms and at most sqlbackend.MaxStatementTimeout. Defaults to
	// sqlbackend.DefaultStatementTimeout.
	StatementTimeout time.Duration

	// DisableDoorbell leaves out NOTIFY and LISTEN, so that nodes hear of each other
	// when they poll. Databases that speak PostgreSQL's protocol but lack NOTIFY need
	// it, and a pooler in transaction mode makes LISTEN useless. Besides, PostgreSQL
	// commits transactions that notify one after the other, in all databases of the
	// server together, which bounds how many logins and logouts there can be at
	// once; saves that announce nothing are not concerned. All nodes should agree.
	// Defaults to false.
	DisableDoorbell bool

	// Doorbell is how to connect for LISTEN, where the pool leads to a pooler in
	// transaction mode: directly to the same database, with a search_path that finds
	// the same tables. Its hooks such as OnNotification must not be set. Defaults to
	// the configuration of the pool.
	Doorbell *pgx.ConnConfig
}

// A Backend is a [sessionstore.Backend] on PostgreSQL, and a
// [sessionstore.Doorbell]. It is safe for concurrent use, starts no goroutines and
// never closes the pool it was given. Use [New]; the zero Backend is not usable.
type Backend struct {
	*sqlbackend.Backend
	pool    *pgxpool.Pool
	channel string // a query for the name of the doorbell; "" if there is none
	direct  *pgx.ConnConfig
}

var _ sessionstore.Doorbell = (*Backend)(nil)

// New returns a Backend that stores sessions through pool, which it never closes.
// A nil cfg is the zero Config. It returns an error if the database does not answer
// or a connection is not set up as it must be, and migrations.ErrSchemaMissing,
// ErrSchemaOlder or ErrSchemaNewer if the tables are not those of this version of the
// library.
func New(ctx context.Context, pool *pgxpool.Pool, cfg *Config) (*Backend, error) {
	if pool == nil {
		return nil, errors.New("postgres: pool is nil")
	}
	if cfg == nil {
		cfg = new(Config)
	}
	snippets := maps.Clone(snippets)
	b := &Backend{pool: pool}
	if cfg.Doorbell != nil {
		b.direct = cfg.Doorbell.Copy()
	}
	if cfg.DisableDoorbell {
		snippets["and_ring"] = ""
	} else if err := b.nameChannel(cfg); err != nil {
		return nil, err
	}
	var err error
	b.Backend, err = sqlbackend.New(ctx, &database{pool: pool}, &sqlbackend.Dialect{
		Name:       migrations.Postgres,
		Numbered:   "$",
		Snippets:   snippets,
		Statements: statements,
		Arrays:     true,
		SideBySide: true,
		Classify:   classify,
		ID:         func(id sessionstore.ID) any { return id.String() },
		Text:       func(s string) any { return s },
	}, &sqlbackend.Config{TablePrefix: cfg.TablePrefix, Schema: cfg.Schema, StatementTimeout: cfg.StatementTimeout})
	if err != nil {
		return nil, err
	}
	if err := checkConnection(ctx, pool); err != nil {
		return nil, err
	}
	return b, nil
}
