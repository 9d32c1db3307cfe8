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
