package migrations_test

import (
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
	"github.com/holdfast-sessions/holdfast/migrations"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

var update = flag.Bool("update", false, "write the golden files anew")

// databases are all kinds of database, each an empty one of the test's own.
var databases = []struct {
	name    string
	dialect migrations.Dialect
	open    func(t *testing.T) *sql.DB
}{
	{"postgres", migrations.Postgres, func(t *testing.T) *sql.DB { return dbtest.DB(t, dbtest.Pool(t, dbtest.Postgres(t))) }},
	{"mysql", migrations.MySQL, func(t *testing.T) *sql.DB { return dbtest.OpenMySQL(t, dbtest.MySQL(t)) }},
	{"mariadb", migrations.MySQL, func(t *testing.T) *sql.DB { return dbtest.OpenMySQL(t, dbtest.MariaDB(t)) }},
	{"sqlite", migrations.SQLite, func(t *testing.T) *sql.DB {
		return openSQLite(t, filepath.Join(t.TempDir(), "test.db"))
	}},
}

func openSQLite(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestUpDownUpMatchesTheGoldenSchema(t *testing.T) {
	for _, d := range databases {
		t.Run(d.name, func(t *testing.T) {
			ctx, db := t.Context(), d.open(t)
			if v := version(t, db, d.dialect, nil); v != 0 {
				t.Fatalf("an empty database has version %d", v)
			}
			for range 2 {
				if err := migrations.Up(ctx, db, d.dialect, nil); err != nil {
					t.Fatal(err)
				}
				if v := version(t, db, d.dialect, nil); v != migrations.Latest {
					t.Fatalf("after Up the version is %d, want %d", v, migrations.Latest)
				}
				compareGolden(t, filepath.Join("testdata", d.name+".golden"), schema(t, db, d.dialect))

				for _, version := range []int64{-1, migrations.Latest + 1} {
					if err := migrations.Down(ctx, db, d.dialect, nil, version); err == nil || !strings.Contains(err.Error(), "the schema has version") {
						t.Errorf("Down to version %d returned %v", version, err)
					}
				}
				if err := migrations.Down(ctx, db, d.dialect, nil, 0); err != nil {
					t.Fatal(err)
				}
				if v := version(t, db, d.dialect, nil); v != 0 {
					t.Fatalf("after Down the version is %d", v)
				}
				if left := schema(t, db, d.dialect); left != "" {
					t.Fatalf("Down left:\n%s", left)
				}
			}
			if err := migrations.Up(ctx, db, d.dialect, nil); err != nil {
				t.Fatal(err)
			}
			if err := migrations.Up(ctx, db, d.dialect, nil); err != nil {
				t.Fatalf("Up with nothing to do: %v", err)
			}
		})
	}
}

func TestDialectsHaveTheSameColumns(t *testing.T) {
	var want []string
	var wantName string
	for _, d := range databases {
		t.Run(d.name, func(t *testing.T) {
			db := d.open(t)
			if err := migrations.Up(t.Context(), db, d.dialect, nil); err != nil {
				t.Fatal(err)
			}
			var columns []string
			for line := range strings.Lines(schema(t, db, d.dialect)) {
				// Only PostgreSQL has numbers of transactions to store.
				if fields := strings.Fields(line); fields[0] == "column" && fields[1] != "events.xid" {
					columns = append(columns, fields[1])
				}
			}
			slices.Sort(columns) // PostgreSQL's stand in an order of their own
			if want == nil {
				want, wantName = columns, d.name
			}
			if !slices.Equal(columns, want) {
				t.Errorf("columns are %v, but those of %s are %v", columns, wantName, want)
			}
		})
	}
}

func TestEightProcessesMayStartAtOnce(t *testing.T) {
	for _, d := range databases {
		t.Run(d.name, func(t *testing.T) {
			var handles []*sql.DB
			switch path := filepath.Join(t.TempDir(), "shared.db"); d.dialect {
			case migrations.SQLite: // as processes do: each with connections of its own
				for range 8 {
					handles = append(handles, openSQLite(t, path))
				}
			default:
				db := d.open(t)
				db.SetMaxOpenConns(16)
				handles = slices.Repeat([]*sql.DB{db}, 8)
			}
			var wg sync.WaitGroup
			for _, db := range handles {
				wg.Go(func() {
					if err := migrations.Up(t.Context(), db, d.dialect, nil); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if v := version(t, handles[0], d.dialect, nil); v != migrations.Latest {
				t.Errorf("version is %d, want %d", v, migrations.Latest)
			}
			var recorded int
			err := handles[0].QueryRow("SELECT count(*) FROM holdfast_migrations WHERE version_id = 1").Scan(&recorded)
			if err != nil || recorded != 1 {
				t.Errorf("version 1 is recorded %d times, error %v", recorded, err)
			}
		})
	}
}

func TestUpWorksWithOneConnection(t *testing.T) {
	for _, d := range databases {
		t.Run(d.name, func(t *testing.T) {
			db := d.open(t)
			db.SetMaxOpenConns(1)
			if err := migrations.Up(t.Context(), db, d.dialect, nil); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestPrefixAndSchemaOfTheUsersChoice(t *testing.T) {
	for _, d := range databases {
		t.Run(d.name, func(t *testing.T) {
			ctx, db := t.Context(), d.open(t)
			one := &migrations.Config{TablePrefix: "shop_"}
			two := &migrations.Config{TablePrefix: "office_"}
			table := "shop_sessions"
			if d.dialect == migrations.Postgres {
				one.Schema, two.Schema = "user", "user" // a reserved word, to see that it is quoted
				table = `"user".shop_sessions`
			}
			for _, cfg := range []*migrations.Config{one, two} {
				if err := migrations.Up(ctx, db, d.dialect, cfg); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := db.ExecContext(ctx, "SELECT id FROM "+table); err != nil {
				t.Error(err)
			}
			if v := version(t, db, d.dialect, nil); v != 0 {
				t.Errorf("the default prefix has version %d", v)
			}
			if err := migrations.Down(ctx, db, d.dialect, one, 0); err != nil {
				t.Fatal(err)
			}
			if v := version(t, db, d.dialect, two); v != migrations.Latest {
				t.Errorf("taking down one prefix took the other to version %d", v)
			}
		})
	}
}

func TestFailedMigrationLeavesNothingBehind(t *testing.T) {
	for _, d := range databases {
		if d.dialect == migrations.MySQL {
			continue // has no transactions for changes of the schema, hence one statement per migration
		}
		t.Run(d.name, func(t *testing.T) {
			ctx, db := t.Context(), d.open(t)
			exec(t, db, "CREATE TABLE other (n INTEGER)")
			exec(t, db, "CREATE INDEX holdfast_sessions_principal_idx ON other (n)") // in the way of the last statements
			if err := migrations.Up(ctx, db, d.dialect, nil); err == nil {
				t.Fatal("Up succeeded")
			}
			if v := version(t, db, d.dialect, nil); v != 0 {
				t.Errorf("the version is %d", v)
			}
			exec(t, db, "DROP TABLE other")
			if left := schema(t, db, d.dialect); left != "" {
				t.Errorf("the failed migration left:\n%s", left)
			}
			if err := migrations.Up(ctx, db, d.dialect, nil); err != nil {
				t.Errorf("Up after the obstacle is gone: %v", err)
			}
		})
	}
}

func TestConfigThatIsNoIdentifier(t *testing.T) {
	db := openSQLite(t, filepath.Join(t.TempDir(), "test.db"))
	for _, test := range []struct {
		dialect migrations.Dialect
		cfg     migrations.Config
		want    string
	}{
		{migrations.SQLite, migrations.Config{TablePrefix: "a b"}, `TablePrefix "a b"`},
		{migrations.SQLite, migrations.Config{TablePrefix: `x"; DROP TABLE y; --`}, "TablePrefix"},
		{migrations.SQLite, migrations.Config{TablePrefix: "1st_"}, "TablePrefix"},
		{migrations.SQLite, migrations.Config{TablePrefix: "Upper_"}, "TablePrefix"},
		{migrations.SQLite, migrations.Config{TablePrefix: "ünder_"}, "TablePrefix"},
		{migrations.SQLite, migrations.Config{TablePrefix: strings.Repeat("x", 33)}, "TablePrefix"},
		{migrations.SQLite, migrations.Config{TablePrefix: "ok_\n"}, "TablePrefix"},
		{migrations.SQLite, migrations.Config{Schema: "web"}, "only PostgreSQL has schemas"},
		{migrations.MySQL, migrations.Config{Schema: "web"}, "only PostgreSQL has schemas"},
		{migrations.Postgres, migrations.Config{Schema: "web.x"}, `Schema "web.x"`},
		{"oracle", migrations.Config{}, `unknown dialect "oracle"`},
	} {
		err := migrations.Up(t.Context(), db, test.dialect, &test.cfg)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %+v: error is %v, want one with %s", test.dialect, test.cfg, err, test.want)
		}
	}
}

func version(t *testing.T, db *sql.DB, dialect migrations.Dialect, cfg *migrations.Config) int64 {
	t.Helper()
	v, err := migrations.Version(t.Context(), db, dialect, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func exec(t *testing.T, db *sql.DB, statement string) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// schema describes the tables of the default prefix, a line for each column and
// index, without the table that records the version.
func schema(t *testing.T, db *sql.DB, dialect migrations.Dialect) string {
	t.Helper()
	return describe(t, db, dialect, "sessions", "") + describe(t, db, dialect, "events", "events.") +
		describe(t, db, dialect, "nodes", "nodes.")
}

// describe describes a table. Before begins the names of its columns.
func describe(t *testing.T, db *sql.DB, dialect migrations.Dialect, table, before string) string {
	t.Helper()
	queries := map[migrations.Dialect][]string{
		migrations.Postgres: {
			`SELECT 'column', column_name, data_type || ' ' || coalesce(collation_name, '-') || ' null=' || is_nullable
			 FROM information_schema.columns WHERE table_name = 'holdfast_{table}' ORDER BY ordinal_position`,
			`SELECT 'index', indexname, indexdef FROM pg_indexes WHERE tablename = 'holdfast_{table}' ORDER BY indexname`,
			`SELECT 'options', relname, coalesce(reloptions::text, '-') FROM pg_class WHERE relname = 'holdfast_{table}'`,
		},
		migrations.MySQL: {
			`SELECT 'column', column_name, CONCAT(column_type, ' ', COALESCE(collation_name, '-'), ' null=', is_nullable)
			 FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 'holdfast_{table}' ORDER BY ordinal_position`,
			`SELECT 'index', index_name, GROUP_CONCAT(column_name ORDER BY seq_in_index)
			 FROM information_schema.statistics WHERE table_schema = DATABASE() AND table_name = 'holdfast_{table}'
			 GROUP BY index_name ORDER BY index_name`,
			`SELECT 'engine', table_name, engine FROM information_schema.tables
			 WHERE table_schema = DATABASE() AND table_name = 'holdfast_{table}'`,
		},
		migrations.SQLite: {
			`SELECT 'column', name, type || ' notnull=' || "notnull" || ' pk=' || pk FROM pragma_table_info('holdfast_{table}') ORDER BY cid`,
			`SELECT 'index', name, coalesce(sql, '-') FROM sqlite_master WHERE type = 'index' AND tbl_name = 'holdfast_{table}' ORDER BY name`,
			`SELECT 'strict', name, strict FROM pragma_table_list WHERE name = 'holdfast_{table}'`,
		},
	}
	var lines strings.Builder
	for _, q := range queries[dialect] {
		rows, err := db.QueryContext(t.Context(), strings.ReplaceAll(q, "{table}", table))
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var kind, name, what string
			if err := rows.Scan(&kind, &name, &what); err != nil {
				t.Fatal(err)
			}
			if kind == "column" {
				name = before + name
			}
			fmt.Fprintln(&lines, kind, name, what)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return lines.String()
}

func compareGolden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the schema is\n%sbut %s says\n%s(after a change that is meant, run the test with -update)", got, path, want)
	}
}
