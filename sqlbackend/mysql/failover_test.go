package mysql_test

import (
	"database/sql"
	"strings"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
	"github.com/holdfast-sessions/holdfast/internal/dbtest/load"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sqlbackend/mysql"
)

// readOnly makes a whole server read-only, for users without privileges, or not.
func readOnly(t *testing.T, admin *sql.DB, on string) {
	t.Helper()
	if _, err := admin.Exec("SET GLOBAL read_only = " + on); err != nil {
		t.Fatal(err)
	}
}

// asUser returns the DSN with a user to whom read_only applies.
func asUser(t *testing.T, admin *sql.DB, dsn string) string {
	t.Helper()
	cfg, err := driver.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	cfg.User, cfg.Passwd = cfg.DBName, "pass" // a name nobody else has
	if len(cfg.User) > 32 {
		cfg.User = cfg.User[len(cfg.User)-32:]
	}
	for _, statement := range []string{
		"CREATE USER '" + cfg.User + "'@'%' IDENTIFIED BY 'pass'",
		"GRANT ALL ON " + cfg.DBName + ".* TO '" + cfg.User + "'@'%'",
	} {
		if _, err := admin.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { admin.Exec("DROP USER '" + cfg.User + "'@'%'") })
	return cfg.FormatDSN()
}

// A primary that is read-only for a moment, as in a planned switch, costs time and no
// errors; for longer, it costs clear errors, and nothing need be restarted.
func TestReadOnlyForAWhile(t *testing.T) {
	for name, database := range servers {
		t.Run(name, func(t *testing.T) {
			dsn := database(t)
			admin := dbtest.OpenMySQL(t, dsn)
			t.Cleanup(func() { admin.Exec("SET GLOBAL read_only = OFF") })
			user := asUser(t, admin, dsn)
			b := newBackend(t, dbtest.OpenMySQL(t, user), nil)
			rec := newRecord("shop", "")
			if _, err := b.Create(t.Context(), rec, sessionstore.Condition{}); err != nil {
				t.Fatal(err)
			}
			readOnly(t, admin, "ON")
			done := make(chan error)
			go func() {
				done <- b.Update(t.Context(), rec, sessionstore.Condition{Version: 1, SecretHash: rec.SecretHash})
			}()
			for b.Availability().Err == nil { // until it was refused
				<-time.After(time.Millisecond)
			}
			if _, err := b.Load(t.Context(), rec.Key, 0); err != nil && !strings.Contains(err.Error(), "unavailable") {
				t.Errorf("Load meanwhile: %v", err)
			}
			readOnly(t, admin, "OFF")
			if err := <-done; err != nil {
				t.Errorf("Update during a read-only moment: %v", err)
			}

			impatient := newBackend(t, dbtest.OpenMySQL(t, user), &mysql.Config{StatementTimeout: 500 * time.Millisecond})
			readOnly(t, admin, "ON")
			_, err := impatient.Create(t.Context(), newRecord("shop", ""), sessionstore.Condition{})
			if err == nil || !strings.Contains(err.Error(), "read-only") && !strings.Contains(err.Error(), "read_only") {
				t.Errorf("Create on a read-only server returned %v", err)
			}
			readOnly(t, admin, "OFF")
			w := load.Start(t, 1, b)
			w.Await(t, 10, 10*time.Second)
			if _, lost := w.Stop(t, b); lost != 0 || w.Errors() != "" {
				t.Errorf("%d writes lost; errors:%s", lost, w.Errors())
			}
		})
	}
}
