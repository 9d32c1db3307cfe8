package migrations_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
	"github.com/holdfast-sessions/holdfast/migrations"
)

func TestVersionAndDownMakeNothing(t *testing.T) {
	count := map[migrations.Dialect]string{
		migrations.Postgres: "SELECT (SELECT count(*) FROM pg_class) + (SELECT count(*) FROM pg_namespace)",
		migrations.MySQL:    "SELECT count(*) FROM information_schema.tables WHERE table_schema = DATABASE()",
		migrations.SQLite:   "SELECT count(*) FROM sqlite_master",
	}
	for _, d := range databases {
		t.Run(d.name, func(t *testing.T) {
			db := d.open(t)
			things := func() (n int) {
				t.Helper()
				if err := db.QueryRowContext(t.Context(), count[d.dialect]).Scan(&n); err != nil {
					t.Fatal(err)
				}
				return n
			}
			cfgs := []*migrations.Config{nil}
			if d.dialect == migrations.Postgres {
				cfgs = append(cfgs, &migrations.Config{Schema: "fresh"})
			}
			before := things()
			for _, cfg := range cfgs {
				if v := version(t, db, d.dialect, cfg); v != 0 {
					t.Errorf("the version is %d", v)
				}
				if err := migrations.Down(t.Context(), db, d.dialect, cfg, 0); err != nil {
					t.Error(err)
				}
				if err := migrations.Down(t.Context(), db, d.dialect, cfg, 1); err == nil || !strings.Contains(err.Error(), "the schema has version 0") {
					t.Errorf("Down to version 1 returned %v", err)
				}
			}
			if n := things(); n != before {
				t.Errorf("the database holds %d things, before it were %d", n, before)
			}

			if err := migrations.Up(t.Context(), db, d.dialect, nil); err != nil {
				t.Fatal(err)
			}
			exec(t, db, "DELETE FROM holdfast_migrations")
			if v := version(t, db, d.dialect, nil); v != 0 {
				t.Errorf("with nothing recorded the version is %d", v)
			}
		})
	}
}

func TestVersionWaitsForNoMigration(t *testing.T) {
	for _, d := range databases {
		t.Run(d.name, func(t *testing.T) {
			db := d.open(t)
			locked := func(ctx context.Context, what string, want int64) {
				t.Helper()
				conn, err := db.Conn(ctx)
				if err != nil {
					t.Fatal(err)
				}
				// The lock ends with the connection, which this takes out of the pool.
				defer conn.Raw(func(any) error { return driver.ErrBadConn })
				if err := migrations.Lock(ctx, conn, d.dialect); err != nil {
					t.Fatal(err)
				}
				if v, err := migrations.Version(ctx, db, d.dialect, nil); err != nil || v != want {
					t.Errorf("%s: version %d, error %v", what, v, err)
				}
				if err := migrations.Down(ctx, db, d.dialect, nil, want); err != nil {
					t.Errorf("%s: Down with nothing to do: %v", what, err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			locked(ctx, "without tables", 0)
			if err := migrations.Up(ctx, db, d.dialect, nil); err != nil {
				t.Fatal(err)
			}
			locked(ctx, "with tables", migrations.Latest)
		})
	}
}

func TestVersionNeedsTheRightToSelect(t *testing.T) {
	t.Run("postgres", func(t *testing.T) {
		url := dbtest.Postgres(t)
		owner := dbtest.DB(t, dbtest.Pool(t, url))
		role := user(t, owner, "current_database()")
		exec(t, owner, "CREATE ROLE "+role)
		t.Cleanup(func() {
			for _, q := range []string{"DROP OWNED BY " + role, "DROP ROLE " + role} {
				if _, err := owner.Exec(q); err != nil {
					t.Error(err)
				}
			}
		})
		reader := dbtest.DB(t, dbtest.Pool(t, url, func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["role"] = role }))
		cfg := &migrations.Config{Schema: "web"}

		wantVersion(t, reader, migrations.Postgres, cfg, 0)
		if err := migrations.Up(t.Context(), owner, migrations.Postgres, cfg); err != nil {
			t.Fatal(err)
		}
		wantDenied(t, reader, migrations.Postgres, cfg, "schema web")
		exec(t, owner, "GRANT USAGE ON SCHEMA web TO "+role)
		wantDenied(t, reader, migrations.Postgres, cfg, "table holdfast_migrations")
		exec(t, owner, "GRANT SELECT ON web.holdfast_migrations TO "+role)
		wantVersion(t, reader, migrations.Postgres, cfg, migrations.Latest)
	})
	for name, open := range map[string]func(testing.TB) string{"mysql": dbtest.MySQL, "mariadb": dbtest.MariaDB} {
		t.Run(name, func(t *testing.T) {
			dsn := open(t)
			owner := dbtest.OpenMySQL(t, dsn)
			reader := user(t, owner, "DATABASE()")
			exec(t, owner, "CREATE USER "+reader+" IDENTIFIED BY 'p'")
			t.Cleanup(func() {
				if _, err := owner.Exec("DROP USER " + reader); err != nil {
					t.Error(err)
				}
			})
			exec(t, owner, "CREATE TABLE other (n INT)")
			exec(t, owner, "GRANT SELECT ON other TO "+reader)
			cfg, err := mysql.ParseDSN(dsn)
			if err != nil {
				t.Fatal(err)
			}
			cfg.User, cfg.Passwd = reader, "p"
			db := dbtest.OpenMySQL(t, cfg.FormatDSN())

			// Whoever has no rights to a table is not told whether there is one.
			wantDenied(t, db, migrations.MySQL, nil, "holdfast_migrations")
			if err := migrations.Up(t.Context(), owner, migrations.MySQL, nil); err != nil {
				t.Fatal(err)
			}
			wantDenied(t, db, migrations.MySQL, nil, "holdfast_migrations")
			exec(t, owner, "GRANT INSERT ON holdfast_migrations TO "+reader)
			wantDenied(t, db, migrations.MySQL, nil, "holdfast_migrations")
			exec(t, owner, "GRANT SELECT ON holdfast_migrations TO "+reader)
			wantVersion(t, db, migrations.MySQL, nil, migrations.Latest)
			exec(t, owner, "GRANT SELECT ON "+cfg.DBName+".* TO "+reader) // which connections learn when they begin
			wantVersion(t, dbtest.OpenMySQL(t, cfg.FormatDSN()), migrations.MySQL, &migrations.Config{TablePrefix: "other_"}, 0)
		})
	}
}

// user returns a name for a user of the test's own.
func user(t *testing.T, db *sql.DB, database string) (name string) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), "SELECT "+database).Scan(&name); err != nil {
		t.Fatal(err)
	}
	return strings.Replace(name, "holdfast_test", "u", 1) // MySQL wants at most 32 bytes
}

func wantVersion(t *testing.T, db *sql.DB, dialect migrations.Dialect, cfg *migrations.Config, want int64) {
	t.Helper()
	if v, err := migrations.Version(t.Context(), db, dialect, cfg); err != nil || v != want {
		t.Errorf("version %d, error %v, want version %d", v, err, want)
	}
}

func wantDenied(t *testing.T, db *sql.DB, dialect migrations.Dialect, cfg *migrations.Config, what string) {
	t.Helper()
	_, err := migrations.Version(t.Context(), db, dialect, cfg)
	if err == nil || !strings.HasPrefix(err.Error(), "read the schema's version: ") ||
		!strings.Contains(err.Error(), "denied") || !strings.Contains(err.Error(), what) {
		t.Errorf("error is %v, want one that says what was denied, %s", err, what)
	}
}

// PgBouncer in statement mode refuses transactions too.
func TestVersionThroughAPooler(t *testing.T) {
	url := dbtest.MigratedPostgres(t)
	for _, setting := range []string{"pool_mode = session", "pool_mode = transaction", "pool_mode = statement"} {
		t.Run(setting, func(t *testing.T) {
			through := dbtest.PgBouncer(t, url, setting)
			for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
				db := dbtest.DB(t, dbtest.Pool(t, through, dbtest.ExecMode(mode)))
				wantVersion(t, db, migrations.Postgres, nil, migrations.Latest)
				wantVersion(t, db, migrations.Postgres, &migrations.Config{Schema: "elsewhere"}, 0)
			}
		})
	}
}
