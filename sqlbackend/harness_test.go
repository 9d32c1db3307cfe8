package sqlbackend_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sqlbackend"
	"github.com/holdfast-sessions/holdfast/sqlbackend/mysql"
	"github.com/holdfast-sessions/holdfast/sqlbackend/postgres"
	"github.com/holdfast-sessions/holdfast/sqlbackend/sqlite"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

type backend interface {
	sessionstore.Backend
	sessionstore.EventSource
	Statements() int64
	Polls() int64
}

// groupBackend is a backend with its groups laid open.
type groupBackend interface {
	backend
	Groups() sqlbackend.Groups
	UpdateAlone(context.Context, *sessionstore.Record, sessionstore.Condition) error
	LoadAlone(context.Context, sessionstore.Key, sessionstore.Version) (*sessionstore.Record, error)
	LoadTogether(context.Context, sessionstore.Key, sessionstore.Version, ...sessionstore.Key) (*sessionstore.Record, error)
	UpdateTogether(context.Context, []*sessionstore.Record, []sessionstore.Condition) []error
	CreateAlone(context.Context, *sessionstore.Record, sessionstore.Condition) (time.Time, error)
	CreateTogether(context.Context, []*sessionstore.Record) ([]time.Time, []error)
	DeleteTogether(context.Context, []sessionstore.ID) ([][]*sessionstore.Record, []error)
}

// A database is one of the four, freshly migrated and empty.
type database struct {
	name string
	url  string                     // of PostgreSQL
	open func(t testing.TB) backend // as a process of its own would
	raw  *sql.DB
	// insert stores an event that ends a session, with the ID in hexadecimal.
	insert func(id string) string
	serial bool // has one writer at a time
	gaps   bool // cannot tell a gap from a transaction under way
	// openInterpolating is open where values may be sent within a statement's text.
	openInterpolating func(t testing.TB) backend
}

func onEachDatabase(t *testing.T, test func(t *testing.T, db database)) {
	for name, open := range databases {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

// onEachServer leaves SQLite out, where writers take turns and none is ever late.
func onEachServer(t *testing.T, test func(t *testing.T, db database)) {
	for name, open := range databases {
		if name != "SQLite" {
			t.Run(name, func(t *testing.T) { test(t, open(t)) })
		}
	}
}

var databases = map[string]func(testing.TB) database{
	"PostgreSQL": func(t testing.TB) database {
		url := dbtest.MigratedPostgres(t)
		return database{
			name: "PostgreSQL", url: url, raw: dbtest.DB(t, dbtest.Pool(t, url)),
			open: func(t testing.TB) backend {
				b, err := postgres.New(t.Context(), dbtest.Pool(t, url), nil)
				if err != nil {
					t.Fatal(err)
				}
				return b
			},
			insert: func(id string) string {
				return fmt.Sprintf(`INSERT INTO holdfast_events (id, app, version, at)
					VALUES ('%s', '', 0, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)`, id)
			},
		}
	},
	"MySQL":   func(t testing.TB) database { return mysqlDatabase(t, "MySQL", dbtest.MigratedMySQL(t)) },
	"MariaDB": func(t testing.TB) database { return mysqlDatabase(t, "MariaDB", dbtest.MigratedMariaDB(t)) },
	"SQLite": func(t testing.TB) database {
		path := filepath.Join(t.TempDir(), "sessions.db")
		open := func(t testing.TB) backend {
			// As long as it takes: a busy disk may be slow to sync.
			b, err := sqlite.Open(t.Context(), path, &sqlite.Config{StatementTimeout: 30 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { b.Close() })
			return b
		}
		open(t)
		raw, err := sql.Open("sqlite", path+"?_pragma=busy_timeout(5000)")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { raw.Close() })
		return database{
			name: "SQLite", open: open, raw: raw, serial: true,
			insert: func(id string) string {
				return fmt.Sprintf(`INSERT INTO holdfast_events (id, app, version, at)
					VALUES (x'%s', '', 0, CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000)`, id)
			},
		}
	},
}

func mysqlDatabase(t testing.TB, name, dsn string) database {
	return database{
		name: name, raw: dbtest.OpenMySQL(t, dsn), gaps: true,
		open: func(t testing.TB) backend { return openMySQL(t, dsn) },
		openInterpolating: func(t testing.TB) backend {
			return openMySQL(t, dsn+"?interpolateParams=true")
		},
		insert: func(id string) string {
			return fmt.Sprintf(`INSERT INTO holdfast_events (id, app, version, at)
				VALUES (x'%s', '', 0, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)))`, id)
		},
	}
}

func openMySQL(t testing.TB, dsn string) backend {
	b, err := mysql.New(t.Context(), dbtest.OpenMySQL(t, dsn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newID() sessionstore.ID { return sessionstore.ID(uuid.Must(uuid.NewV7())) }

func newRecord(id sessionstore.ID, app, principal string) *sessionstore.Record {
	return &sessionstore.Record{
		Info: sessionstore.Info{
			Key: sessionstore.Key{ID: id, App: app}, Principal: principal, Idle: time.Hour, Lifetime: 12 * time.Hour,
		},
		SecretHash: newHash(), Data: make([]byte, 400),
	}
}

func newHash() sessionstore.SecretHash {
	return sessionstore.NewToken(newID(), "").SecretHash()
}

func create(t testing.TB, b backend, rec *sessionstore.Record, cond sessionstore.Condition) {
	t.Helper()
	if _, err := b.Create(t.Context(), rec, cond); err != nil {
		t.Fatal(err)
	}
}

func stored(t *testing.T, b backend, rec *sessionstore.Record) *sessionstore.Record {
	t.Helper()
	got, err := b.Load(t.Context(), rec.Key, 0)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func load(t *testing.T, b groupBackend, key sessionstore.Key) error {
	_, err := b.Load(t.Context(), key, 0)
	return err
}

// createMany creates sessions in the order of their IDs.
func createMany(t *testing.T, b backend, principal string) (recs []*sessionstore.Record) {
	t.Helper()
	for range 24 {
		recs = append(recs, newRecord(newID(), "shop", principal))
	}
	if _, errs := b.(groupBackend).CreateTogether(t.Context(), recs); errors.Join(errs...) != nil {
		t.Fatal(errors.Join(errs...))
	}
	return recs
}

var lockRow = map[string]string{
	"PostgreSQL": "SELECT 1 FROM holdfast_sessions WHERE id = $1 FOR UPDATE",
	"MySQL":      "SELECT 1 FROM holdfast_sessions WHERE id = ? FOR UPDATE",
	"MariaDB":    "SELECT 1 FROM holdfast_sessions WHERE id = ? FOR UPDATE",
}

func lockArg(database string, id sessionstore.ID) any {
	if database == "PostgreSQL" {
		return id.String()
	}
	return id[:]
}

// keepLocked locks sessions, and no gaps between them, until release is called, or the test
// is over.
func keepLocked(t *testing.T, db database, ids ...sessionstore.ID) (release func()) {
	t.Helper()
	tx, err := db.raw.BeginTx(context.Background(), &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tx.Rollback() })
	for _, id := range ids {
		if _, err := tx.Exec(lockRow[db.name], lockArg(db.name, id)); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
	}
}

// holdUpEvents lets everybody wait who stores an event, until the transaction that it
// returns ends.
func holdUpEvents(t *testing.T, db database) *sql.Tx {
	t.Helper()
	hold := "SELECT 1 FROM holdfast_events FOR UPDATE" // and the gap behind them
	if db.name == "PostgreSQL" {
		hold = "SELECT pg_advisory_xact_lock(1)"
		for _, statement := range []string{
			`CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
				'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END'`,
			`CREATE TRIGGER wait AFTER INSERT ON holdfast_events FOR EACH STATEMENT EXECUTE FUNCTION wait()`,
		} {
			if _, err := db.raw.Exec(statement); err != nil {
				t.Fatal(err)
			}
		}
	}
	tx, err := db.raw.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tx.Rollback() })
	if _, err := tx.Exec(hold); err != nil {
		t.Fatal(err)
	}
	return tx
}

// waiters are the connections to a test's database that wait for a lock.
var waiters = map[string]string{
	"PostgreSQL": `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
	"MySQL": `SELECT DISTINCT p.processlist_id FROM performance_schema.data_lock_waits AS w JOIN performance_schema.threads AS p
		ON p.thread_id = w.requesting_thread_id WHERE p.processlist_db = DATABASE()`,
	"MariaDB": `SELECT p.id FROM information_schema.innodb_trx AS t JOIN information_schema.processlist AS p
		ON p.id = t.trx_mysql_thread_id WHERE p.db = DATABASE() AND t.trx_state = 'LOCK WAIT'`,
}

func findWaiters(t *testing.T, db database) (ids []int64) {
	t.Helper()
	if db.name == "MariaDB" { // shows the same again to who asks more often
		if _, err := db.raw.Exec("DO SLEEP(0.11)"); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := db.raw.Query(waiters[db.name])
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		t.Fatal(err)
	}
	return ids
}

// killWaiters ends them.
func killWaiters(t *testing.T, db database) (killed int) {
	t.Helper()
	for _, id := range findWaiters(t, db) {
		kill := fmt.Sprintf("KILL %d", id)
		if db.name == "PostgreSQL" {
			kill = fmt.Sprintf("SELECT pg_terminate_backend(%d)", id)
		}
		if _, err := db.raw.Exec(kill); err == nil { // else it has just ended
			killed++
		}
	}
	return killed
}
