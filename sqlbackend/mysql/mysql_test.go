package mysql_test

import (
	"database/sql"
	"fmt"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/backendtest"
	"github.com/holdfast-sessions/holdfast/sqlbackend"
	"github.com/holdfast-sessions/holdfast/sqlbackend/mysql"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// servers are the two kinds of server that this package is for.
var servers = map[string]func(testing.TB) string{
	"MySQL":   dbtest.MigratedMySQL,
	"MariaDB": dbtest.MigratedMariaDB,
}

func TestBackend(t *testing.T) {
	for name, database := range servers {
		for _, found := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/clientFoundRows=%t", name, found), func(t *testing.T) {
				runSuite(t, database, func(cfg *driver.Config) {
					cfg.ClientFoundRows = found
					cfg.InterpolateParams = found // so that both protocols are tested
				})
			})
		}
	}
}

// Only the statements that run alone are left to the connection's default.
func TestBackendWhateverTheDefaultIsolation(t *testing.T) {
	for name, database := range servers {
		t.Run(name, func(t *testing.T) {
			runSuite(t, database, func(cfg *driver.Config) {
				cfg.InterpolateParams = true
				cfg.Params = map[string]string{"transaction_isolation": "'SERIALIZABLE'"}
			})
		})
	}
}

func runSuite(t *testing.T, database func(testing.TB) string, configure func(*driver.Config)) {
	open := func(t *testing.T, dsn string) *sql.DB {
		return dbtest.OpenMySQL(t, withDSN(t, dsn, configure))
	}
	type store struct {
		dsn string
		db  *sql.DB
	}
	stores := make(map[sessionstore.Backend]store)
	backendtest.Run(t, backendtest.Options{
		New: func(t *testing.T) sessionstore.Backend {
			dsn := database(t)
			db := open(t, dsn)
			b := newBackend(t, db, nil)
			stores[b] = store{dsn, db}
			return b
		},
		Second: func(t *testing.T, b sessionstore.Backend) sessionstore.Backend {
			return newBackend(t, open(t, stores[b].dsn), nil)
		},
		Advance: func(t *testing.T, b sessionstore.Backend, d time.Duration) {
			dbtest.Age(t, stores[b].db, "holdfast_sessions", d)
			dbtest.AgeEvents(t, stores[b].db, "holdfast_events", d)
			dbtest.AgeNodes(t, stores[b].db, "holdfast_nodes", d)
		},
	})
}

func newBackend(t *testing.T, db *sql.DB, cfg *mysql.Config) *sqlbackend.Backend {
	t.Helper()
	b, err := mysql.New(t.Context(), db, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// withDSN changes a DSN's parameters.
func withDSN(t *testing.T, dsn string, change func(*driver.Config)) string {
	t.Helper()
	cfg, err := driver.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	change(cfg)
	return cfg.FormatDSN()
}
