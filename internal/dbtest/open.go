package dbtest

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/holdfast-sessions/holdfast/migrations"
)

// Pool opens a pool on a PostgreSQL URL and closes it when the test ends.
// Configure, if any, may change the configuration first.
func Pool(t testing.TB, url string, configure ...func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	cfg.MaxConns = 32
	for _, f := range configure {
		f(cfg)
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// ExecMode is an argument for [Pool].
func ExecMode(mode pgx.QueryExecMode) func(*pgxpool.Config) {
	return func(cfg *pgxpool.Config) { cfg.ConnConfig.DefaultQueryExecMode = mode }
}

// DB makes a database/sql handle of a pool and closes the handle when the test ends.
func DB(t testing.TB, pool *pgxpool.Pool) *sql.DB {
	t.Helper()
	db := stdlib.OpenDBFromPool(pool)
	t.Cleanup(func() { db.Close() })
	return db
}

// OpenMySQL opens a MySQL or MariaDB DSN and closes it when the test ends.
func OpenMySQL(t testing.TB, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	db.SetMaxOpenConns(32)
	db.SetMaxIdleConns(32)
	t.Cleanup(func() { db.Close() })
	return db
}

// MigratedPostgres is [Postgres] with the tables of the library, under the
// default prefix.
func MigratedPostgres(t testing.TB) string {
	t.Helper()
	url := Postgres(t)
	migratePostgres(t, url)
	return url
}

func migratePostgres(t testing.TB, url string) {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	defer pool.Close()
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	migrate(t, db, migrations.Postgres)
}

// MigratedMySQL is [MySQL] with the tables of the library, under the default
// prefix.
func MigratedMySQL(t testing.TB) string {
	t.Helper()
	dsn := MySQL(t)
	migrateMySQL(t, dsn)
	return dsn
}

// MigratedMariaDB is [MariaDB] with the tables of the library, under the default
// prefix.
func MigratedMariaDB(t testing.TB) string {
	t.Helper()
	dsn := MariaDB(t)
	migrateMySQL(t, dsn)
	return dsn
}

func migrateMySQL(t testing.TB, dsn string) {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	defer db.Close()
	migrate(t, db, migrations.MySQL)
}

func migrate(t testing.TB, db *sql.DB, dialect migrations.Dialect) {
	t.Helper()
	if err := migrations.Up(t.Context(), db, dialect, nil); err != nil {
		t.Fatalf("dbtest: %v", err)
	}
}

// Age makes every row of table, holdfast_sessions for instance, d older: what d
// of waiting would do, without waiting. d is cut to whole microseconds.
func Age(t testing.TB, db *sql.DB, table string, d time.Duration) {
	t.Helper()
	us := d.Microseconds()
	age(t, db, fmt.Sprintf(
		"UPDATE %s SET created_at = created_at - %d, accessed_at = accessed_at - %d, expires_at = expires_at - %d, expiry_slot = expiry_slot - %d",
		table, us, us, us, us))
}

// AgeEvents is [Age] for a table of events, holdfast_events for instance.
func AgeEvents(t testing.TB, db *sql.DB, table string, d time.Duration) {
	t.Helper()
	age(t, db, fmt.Sprintf("UPDATE %s SET at = at - %d", table, d.Microseconds()))
}

// AgeNodes is [Age] for a table of nodes, holdfast_nodes for instance.
func AgeNodes(t testing.TB, db *sql.DB, table string, d time.Duration) {
	t.Helper()
	us := d.Microseconds()
	age(t, db, fmt.Sprintf("UPDATE %s SET started_at = started_at - %d, seen_at = seen_at - %d", table, us, us))
}

func age(t testing.TB, db *sql.DB, statement string) {
	t.Helper()
	_, err := db.ExecContext(context.Background(), statement)
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
}
