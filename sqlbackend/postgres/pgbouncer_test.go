package postgres_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/backendtest"
	"github.com/holdfast-sessions/holdfast/sqlbackend/postgres"
)

// TestPgBouncer holds the backend to its specification through PgBouncer in
// transaction mode, in the modes that work with one.
func TestPgBouncer(t *testing.T) {
	url := dbtest.MigratedPostgres(t)
	for _, pooler := range []struct {
		name    string
		setting string
		modes   []pgx.QueryExecMode
	}{
		{"without prepared statements", "max_prepared_statements = 0", []pgx.QueryExecMode{
			pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeExec,
		}},
		{"with prepared statements", "max_prepared_statements = 200", []pgx.QueryExecMode{
			pgx.QueryExecModeCacheStatement,
		}},
	} {
		t.Run(pooler.name, func(t *testing.T) {
			through := dbtest.PgBouncer(t, url, pooler.setting)
			for _, mode := range pooler.modes {
				t.Run(mode.String(), func(t *testing.T) { runThroughPooler(t, url, through, mode) })
			}
		})
	}
}

func runThroughPooler(t *testing.T, url, through string, mode pgx.QueryExecMode) {
	direct := dbtest.DB(t, dbtest.Pool(t, url))
	open := func(t *testing.T) *postgres.Backend {
		return newBackend(t, dbtest.Pool(t, through, dbtest.ExecMode(mode)), nil)
	}
	backendtest.Run(t, backendtest.Options{
		New: func(t *testing.T) sessionstore.Backend {
			if _, err := direct.Exec("TRUNCATE holdfast_sessions, holdfast_events, holdfast_nodes"); err != nil {
				t.Fatal(err)
			}
			return open(t)
		},
		Second: func(t *testing.T, _ sessionstore.Backend) sessionstore.Backend { return open(t) },
		Advance: func(t *testing.T, _ sessionstore.Backend, d time.Duration) {
			dbtest.Age(t, direct, "holdfast_sessions", d)
			dbtest.AgeEvents(t, direct, "holdfast_events", d)
			dbtest.AgeNodes(t, direct, "holdfast_nodes", d)
		},
	})
	if n := serversUsed(t, dbtest.Pool(t, through, dbtest.ExecMode(mode))); n < 2 {
		t.Errorf("all statements ran on %d server connection, so this has proven nothing", n)
	}
}

func serversUsed(t *testing.T, pool *pgxpool.Pool) int {
	t.Helper()
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	pids := make(map[int]bool)
	for range 16 {
		var pid int
		if err := conn.QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
			t.Fatal(err)
		}
		pids[pid] = true
	}
	return len(pids)
}

// Through a pooler a doorbell hears nothing; with a connection of its own it does.
func TestDoorbellPastAPooler(t *testing.T) {
	url := dbtest.MigratedPostgres(t)
	through := dbtest.PgBouncer(t, url)
	pool := dbtest.Pool(t, through, dbtest.ExecMode(pgx.QueryExecModeCacheDescribe))
	direct, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]*postgres.Config{"through": nil, "past": {Doorbell: direct}} {
		t.Run(name, func(t *testing.T) {
			b := newBackend(t, pool, cfg)
			ctx, cancel := context.WithCancel(t.Context())
			rung, done := make(chan struct{}, 16), make(chan error)
			go func() { done <- b.Listen(ctx, func() { rung <- struct{}{} }) }()
			<-rung // it listens
			_, after, err := b.Events(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			rec := newRecord("shop", "")
			if _, err := b.Create(t.Context(), rec, sessionstore.Condition{}); err != nil {
				t.Fatal(err)
			}
			if _, err := b.Delete(t.Context(), sessionstore.Selector{ID: rec.Key.ID}); err != nil {
				t.Fatal(err)
			}
			if cfg != nil {
				<-rung
			}
			if events, _, err := b.Events(t.Context(), after); err != nil || len(events) != 1 {
				t.Errorf("%d events, error %v", len(events), err)
			}
			cancel()
			<-done
		})
	}
}
