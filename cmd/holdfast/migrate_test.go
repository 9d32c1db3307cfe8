package main

import (
	"bytes"
	"database/sql"
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
)

// migrates makes the tables of a database that has none, and then has a node use them.
func migrates(t *testing.T, database string) {
	t.Helper()
	needsMigration(t, database)
	out, errs, code := runCommand(t, "migrate", "--database", database)
	if code != 0 || out != "The schema has version 3 now, it was 0.\n" {
		t.Fatalf("exit code %d: %q %q", code, out, errs)
	}
	if out, errs, code = runCommand(t, "migrate", "--database", database); code != 0 || out != "Nothing to do: the schema has version 3.\n" {
		t.Fatalf("again: exit code %d: %q %q", code, out, errs)
	}
	node := start(t, "serve", "--node", "n", "--listen", "127.0.0.1:0", "--drain", "0", "--database", database)
	wantContains(t, fetch(t, newClient(t), "POST", node.url+"/api/counters/n", ""), `{"value":1}`)
	node.stop(syscall.SIGTERM)
}

func TestMigratePostgres(t *testing.T) {
	t.Parallel()
	database := dbtest.Postgres(t)
	migrates(t, database)

	// In a schema of its own, with the address where no other user of the machine sees it.
	cmd := command(t, "migrate", "--schema", "elsewhere", "--table-prefix", "my_")
	cmd.Env = append(cmd.Env, databaseVariable+"="+database)
	out, err := cmd.Output()
	if err != nil || string(out) != "The schema has version 3 now, it was 0.\n" {
		t.Fatalf("%v: %q", err, out)
	}
	db, err := sql.Open("pgx", database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "SELECT FROM elsewhere.my_sessions"); err != nil {
		t.Error(err)
	}
}

func TestMigrateMySQL(t *testing.T) {
	t.Parallel()
	database := mysqlURL(t, "mysql", dbtest.MySQL(t))
	migrates(t, database)
	_, errs, code := runCommand(t, "migrate", "--schema", "elsewhere", "--database", database)
	wantContains(t, errs, `Schema "elsewhere"`, "only PostgreSQL has schemas")
	if code != 2 {
		t.Errorf("exit code %d", code)
	}
}

// Nodes of this build will refuse the tables, so whoever deploys it must not go on.
func TestMigrateANewerSchema(t *testing.T) {
	t.Parallel()
	database := dbtest.MigratedPostgres(t)
	db := dbtest.DB(t, dbtest.Pool(t, database))
	if _, err := db.ExecContext(t.Context(), "INSERT INTO holdfast_migrations (version_id, is_applied) VALUES (9, true)"); err != nil {
		t.Fatal(err)
	}
	out, errs, code := runCommand(t, "migrate", "--database", database)
	if code != 1 || out != "" {
		t.Errorf("exit code %d: %q", code, out)
	}
	wantContains(t, errs, "newer than the library", "has version 9", "knows 3")
}

func TestMigrateWithoutRights(t *testing.T) {
	t.Parallel()
	database := dbtest.Postgres(t)
	db := dbtest.DB(t, dbtest.Pool(t, database))
	// A role that PostgreSQL comes with, and that may do next to nothing.
	without := database + "&role=pg_monitor"
	for schema, words := range map[string][]string{
		"fresh": {"migrate up: ", "create schema fresh", "permission denied"},
		"":      {"migrate up: ", "create version table", "permission denied"},
	} {
		out, errs, code := runCommand(t, "migrate", "--database", without, "--schema", schema)
		if code != 1 || out != "" {
			t.Errorf("exit code %d: %q", code, out)
		}
		wantContains(t, errs, words...)
		if strings.Contains(errs, "read the schema's version") {
			t.Errorf("does not say what it tried: %s", errs)
		}
	}
	var made int
	err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM pg_namespace WHERE nspname = 'fresh'").Scan(&made)
	if err != nil || made != 0 {
		t.Errorf("%d schemas made, error %v", made, err)
	}
}

func TestMigrateBadInput(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args  []string
		code  int
		words []string
	}{
		{nil, 2, []string{"--database", databaseVariable, "postgres://"}},
		{[]string{"extra"}, 2, []string{`"extra"`}},
		{[]string{"--database", "sqlite:x"}, 2, []string{"SQLite"}},
		{[]string{"--database", "oracle://db/x"}, 2, []string{`"oracle"`}},
		{[]string{"--database", "postgres://u:secret@127.0.0.1:1/x"}, 1, []string{"postgres://u@127.0.0.1:1/x", "cannot connect"}},
	} {
		cmd := command(t, append([]string{"migrate"}, c.args...)...)
		cmd.Env = append(cmd.Env, databaseVariable+"=")
		var errs bytes.Buffer
		cmd.Stderr = &errs
		err := cmd.Run()
		wantContains(t, errs.String(), c.words...)
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != c.code {
			t.Errorf("%q: %v, want exit code %d", c.args, err, c.code)
		}
		if strings.Contains(errs.String(), "secret") {
			t.Errorf("%q: tells the password: %s", c.args, errs.String())
		}
	}
}
