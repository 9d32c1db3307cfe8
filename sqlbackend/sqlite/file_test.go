package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
	"github.com/holdfast-sessions/holdfast/migrations"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sqlbackend"
)

// newRecord returns a session that was not stored yet.
func newRecord(app, principal string) *sessionstore.Record {
	return dbtest.Record(app, principal, []byte("data"))
}

func TestSessionsSurviveReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	first, err := Open(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	rec := newRecord("shop", "Bob")
	if _, err := first.Create(t.Context(), rec, sessionstore.Condition{}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // Close may be called more than once
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := first.Load(t.Context(), rec.Key, 0); err == nil {
		t.Error("Load after Close succeeded")
	}
	got, err := openTest(t, path, nil).Load(t.Context(), rec.Key, 0)
	if err != nil || got.Principal != "Bob" {
		t.Errorf("Load after reopening returned %+v, %v", got, err)
	}
}

func TestConnectionsAreSetUp(t *testing.T) {
	for relaxed, want := range map[bool]int{false: 2, true: 1} { // FULL, NORMAL
		b := openTest(t, filepath.Join(t.TempDir(), "sessions.db"), &Config{RelaxedDurability: relaxed})
		var synchronous int
		var journal string
		if err := b.write.QueryRow("PRAGMA synchronous").Scan(&synchronous); err != nil || synchronous != want {
			t.Errorf("relaxed %t: synchronous is %d, error %v", relaxed, synchronous, err)
		}
		if err := b.write.QueryRow("PRAGMA journal_mode").Scan(&journal); err != nil || journal != "wal" {
			t.Errorf("journal mode is %s, error %v", journal, err)
		}
		if _, err := b.read.Exec("DELETE FROM holdfast_sessions"); err == nil {
			t.Error("a reading connection writes")
		}
		for db, want := range map[*sql.DB]time.Duration{b.write: 0, b.read: sqlbackend.DefaultStatementTimeout} {
			var busy int64
			if err := db.QueryRow("PRAGMA busy_timeout").Scan(&busy); err != nil || busy != want.Milliseconds() {
				t.Errorf("SQLite waits %d ms for locks, error %v, want %v", busy, err, want)
			}
		}
	}
}

func TestOpenBringsAnOlderFileUpToDate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	b, err := Open(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(migrations.Down(t.Context(), b.write, migrations.SQLite, nil, 1), b.Close()); err != nil {
		t.Fatal(err)
	}
	if b, err = Open(t.Context(), path, nil); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, _, err := b.Events(t.Context(), 0); err != nil {
		t.Errorf("a table of the newer schema: %v", err)
	}
}

func TestOpenRefusesAFileOfANewerLibrary(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	b := openTest(t, path, nil)
	if _, err := b.write.Exec("INSERT INTO holdfast_migrations (version_id, is_applied) VALUES (99, 1)"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path, nil); !errors.Is(err, migrations.ErrSchemaNewer) || !strings.Contains(err.Error(), "99") {
		t.Errorf("Open returned %v", err)
	}
}

func TestOpenRefusesWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("this is no database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		path string
		cfg  *Config
		want string
	}{
		"prefix":       {Memory, &Config{TablePrefix: `x"y`}, "TablePrefix"},
		"timeout":      {Memory, &Config{StatementTimeout: -1}, "StatementTimeout"},
		"no unit":      {Memory, &Config{StatementTimeout: 5}, "at least 1ms"},
		"long":         {Memory, &Config{StatementTimeout: time.Minute}, "at most 30s"},
		"readers":      {Memory, &Config{Readers: -1}, "Readers"},
		"no path":      {"", nil, "path is empty"},
		"no directory": {filepath.Join(dir, "none", "sessions.db"), nil, "its directory"},
		"a directory":  {dir, nil, "is a directory"},
		"a URI":        {"file:x.db?mode=ro", nil, "URI"},
		"no database":  {text, nil, "not a database"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		b, err := Open(ctx, test.path, test.cfg)
		cancel()
		if err == nil {
			b.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: Open returned %v", name, err)
		}
	}
}

func TestManyMayOpenANewFileAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			b, err := Open(t.Context(), path, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer b.Close()
			if _, err := b.Create(t.Context(), newRecord("shop", ""), sessionstore.Condition{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// A memory database lives in its one connection, which therefore must survive
// whatever goes wrong.
func TestMemorySurvivesInterruption(t *testing.T) {
	b := openTest(t, Memory, nil)
	rec := newRecord("shop", "Bob")
	if _, err := b.Create(t.Context(), rec, sessionstore.Condition{}); err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*5*time.Microsecond)
		b.Create(ctx, newRecord("shop", "Bob"), sessionstore.Condition{MaxSessions: 1000})
		b.Delete(ctx, sessionstore.Selector{Principal: "nobody"})
		cancel()
	}
	if _, err := b.Load(t.Context(), rec.Key, 0); err != nil {
		t.Errorf("Load returned %v", err)
	}
	if err := b.Update(t.Context(), rec, sessionstore.Condition{Version: 1, SecretHash: rec.SecretHash}); err != nil {
		t.Errorf("Update returned %v", err)
	}
}

func TestPlansUseTheIndexes(t *testing.T) {
	ctx := t.Context()
	b := openTest(t, Memory, nil)
	seen := &recorder{DB: b.database()}
	recorded, err := sqlbackend.New(ctx, seen, dialect(), nil)
	if err != nil {
		t.Fatal(err)
	}
	key := newRecord("shop", "").Key
	recorded.Load(ctx, key, 0)
	for range recorded.List(ctx, sessionstore.Selector{Principal: "user 7"}) {
	}
	if err := recorded.Touch(ctx, []sessionstore.Touch{{Key: key}}); err != nil {
		t.Fatal(err)
	}
	if _, err := recorded.Delete(ctx, sessionstore.Selector{Principal: "user 7"}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := recorded.DeleteExpired(ctx, sessionstore.Sweep{Apps: []string{"shop"}, Orphans: time.Hour, Limit: 10}); err != nil {
		t.Fatal(err)
	}
	plans := ""
	for _, q := range seen.queries {
		rows, err := b.write.Query("EXPLAIN QUERY PLAN "+q.text, q.args...)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var id, parent, unused int
			var detail string
			if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
				t.Fatal(err)
			}
			plans += detail + "\n"
			if strings.HasPrefix(detail, "SCAN s") || strings.HasPrefix(detail, "SCAN holdfast_sessions") {
				t.Errorf("%s in\n%s", detail, q.text)
			}
			if strings.Contains(q.text, "expiry_slot <=") && strings.Contains(detail, "USE TEMP B-TREE") {
				t.Errorf("the sweep sorts the backlog: %s", detail)
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for _, index := range []string{"holdfast_sessions_expiry_idx", "holdfast_sessions_principal_idx", "sqlite_autoindex_holdfast_sessions_1"} {
		if !strings.Contains(plans, index) {
			t.Errorf("no plan uses %s:\n%s", index, plans)
		}
	}
}

// A recorder is a database that keeps the statements that run on it.
type recorder struct {
	sqlbackend.DB
	queries []recordedQuery
}

type recordedQuery struct {
	text string
	args []any
}

func (r *recorder) Exec(ctx context.Context, query string, args []any) (int64, error) {
	r.queries = append(r.queries, recordedQuery{query, args})
	return r.DB.Exec(ctx, query, args)
}

func (r *recorder) Query(ctx context.Context, query string, args []any, row func(sqlbackend.Scan) error) error {
	r.queries = append(r.queries, recordedQuery{query, args})
	return r.DB.Query(ctx, query, args, row)
}

func (r *recorder) InTx(ctx context.Context, do func(sqlbackend.Tx) error) error {
	return r.DB.InTx(ctx, func(tx sqlbackend.Tx) error {
		inner := &recorder{DB: inTx{tx}}
		err := do(inner)
		r.queries = append(r.queries, inner.queries...)
		return err
	})
}

func (r *recorder) Lock(context.Context, []string) error { return nil } // SQLite has no mutexes

// inTx is a transaction as a DB that begins no other one.
type inTx struct{ sqlbackend.Querier }

func (inTx) InTx(context.Context, func(sqlbackend.Tx) error) error {
	return errors.ErrUnsupported
}
