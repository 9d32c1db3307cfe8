// Package dbtest gives tests real databases: one container per test binary and
// kind of server, started when a test first asks for it, and one database per
// test, dropped when the test ends.
//
//	func TestMain(m *testing.M) { dbtest.Main(m) }
//
//	func TestSomething(t *testing.T) {
//		pool := dbtest.Pool(t, dbtest.Postgres(t))
//		…
//	}
//
// Where there is no Docker, HOLDFAST_TEST_POSTGRES, HOLDFAST_TEST_MYSQL and
// HOLDFAST_TEST_MARIADB name servers to use, as a PostgreSQL URL and as DSNs of
// go-sql-driver/mysql, whose users may create databases. Without either the test
// is skipped, or fails if HOLDFAST_REQUIRE_DB=1.
package dbtest

import (
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

// Main runs m's tests, removes the containers they started, checks that no
// goroutine is left, and exits. Call it from TestMain.
func Main(m *testing.M) {
	code := m.Run()
	if err := purge(); err != nil {
		fmt.Fprintln(os.Stderr, "dbtest:", err)
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "dbtest: leaked goroutines:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// Postgres returns the URL of an empty PostgreSQL database of the test's own.
func Postgres(t testing.TB) string {
	t.Helper()
	server := postgresServer.url(t)
	name := databaseName()
	onPostgres(t, server, "CREATE DATABASE "+name)
	t.Cleanup(func() { onPostgres(t, server, "DROP DATABASE "+name+" WITH (FORCE)") })

	u, err := url.Parse(server)
	if err != nil {
		t.Fatalf("dbtest: the PostgreSQL server is not given as a URL")
	}
	u.Path = "/" + name
	return u.String()
}

func onPostgres(t testing.TB, server, statement string) {
	t.Helper()
	ctx := t.Context()
	if ctx.Err() != nil { // in a cleanup
		var cancel func()
		ctx, cancel = cleanupContext()
		defer cancel()
	}
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, statement); err != nil {
		t.Fatalf("dbtest: %s: %v", statement, err)
	}
}

// MySQL returns the DSN of an empty MySQL database of the test's own. Parse it
// with mysql.ParseDSN to change parameters.
func MySQL(t testing.TB) string {
	t.Helper()
	return mysqlDatabase(t, mysqlServer.url(t))
}

// MariaDB returns the DSN of an empty MariaDB database of the test's own.
func MariaDB(t testing.TB) string {
	t.Helper()
	return mysqlDatabase(t, mariadbServer.url(t))
}

func mysqlDatabase(t testing.TB, server string) string {
	t.Helper()
	cfg, err := mysql.ParseDSN(server)
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	name := databaseName()
	onMySQL(t, server, "CREATE DATABASE "+name)
	t.Cleanup(func() { onMySQL(t, server, "DROP DATABASE "+name) })
	cfg.DBName = name
	return cfg.FormatDSN()
}

func onMySQL(t testing.TB, server, statement string) {
	t.Helper()
	db, err := sql.Open("mysql", server)
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	defer db.Close()
	ctx, cancel := cleanupContext()
	defer cancel()
	if _, err := db.ExecContext(ctx, statement); err != nil {
		t.Fatalf("dbtest: %s: %v", statement, err)
	}
}

var databases atomic.Int64

// databaseName is unique also among test binaries that share a server.
func databaseName() string {
	return fmt.Sprintf("holdfast_test_%d_%d_%d", os.Getpid(), time.Now().UnixNano()%1e9, databases.Add(1))
}
