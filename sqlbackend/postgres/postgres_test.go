package postgres_test

import (
	"database/sql"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/backendtest"
	"github.com/holdfast-sessions/holdfast/sqlbackend/postgres"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

var modes = []pgx.QueryExecMode{
	pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
	pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
}

func TestBackend(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) { runSuite(t, dbtest.ExecMode(mode)) })
	}
}

// Only the statements that run alone are left to the connection's default.
func TestBackendWhateverTheDefaultIsolation(t *testing.T) {
	for _, isolation := range []string{"repeatable read", "serializable"} {
		t.Run(isolation, func(t *testing.T) {
			runSuite(t, func(c *pgxpool.Config) {
				c.ConnConfig.RuntimeParams["default_transaction_isolation"] = isolation
			})
		})
	}
}

// Rows have no place that is theirs alone in a table of several partitions: each counts
// its own.
func TestBackendOnPartitions(t *testing.T) {
	runSuite(t, func(*pgxpool.Config) {},
		"CREATE TABLE partitioned (LIKE holdfast_sessions INCLUDING ALL) PARTITION BY HASH (id)",
		"CREATE TABLE holdfast_even PARTITION OF partitioned FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
		"CREATE TABLE holdfast_odd PARTITION OF partitioned FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
		"DROP TABLE holdfast_sessions",
		"ALTER TABLE partitioned RENAME TO holdfast_sessions",
	)
}

// runSuite runs the suite on databases in which statements have run.
func runSuite(t *testing.T, configure func(*pgxpool.Config), statements ...string) {
	type store struct {
		url string
		db  *sql.DB
	}
	stores := make(map[sessionstore.Backend]store)
	backendtest.Run(t, backendtest.Options{
		New: func(t *testing.T) sessionstore.Backend {
			url := dbtest.MigratedPostgres(t)
			pool := dbtest.Pool(t, url, configure)
			db := dbtest.DB(t, pool)
			for _, statement := range statements {
				if _, err := db.ExecContext(t.Context(), statement); err != nil {
					t.Fatal(err)
				}
			}
			b := newBackend(t, pool, nil)
			stores[b] = store{url, db}
			return b
		},
		Second: func(t *testing.T, b sessionstore.Backend) sessionstore.Backend {
			return newBackend(t, dbtest.Pool(t, stores[b].url, configure), nil)
		},
		Advance: func(t *testing.T, b sessionstore.Backend, d time.Duration) {
			dbtest.Age(t, stores[b].db, "holdfast_sessions", d)
			dbtest.AgeEvents(t, stores[b].db, "holdfast_events", d)
			dbtest.AgeNodes(t, stores[b].db, "holdfast_nodes", d)
		},
	})
}

func newBackend(t *testing.T, pool *pgxpool.Pool, cfg *postgres.Config) *postgres.Backend {
	t.Helper()
	b, err := postgres.New(t.Context(), pool, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
