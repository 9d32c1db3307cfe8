package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
	"github.com/holdfast-sessions/holdfast/migrations"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sqlbackend/postgres"
)

// soon is far longer than a notification takes and far shorter than anything else
// that might ring.
const soon = 5 * time.Second

// A listener listens until its context ends.
type listener struct {
	rings chan struct{}
	ended chan error
	stop  context.CancelFunc
}

func listen(t *testing.T, b *postgres.Backend) *listener {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &listener{make(chan struct{}, 1000), make(chan error, 1), cancel}
	go func() { l.ended <- b.Listen(ctx, func() { l.rings <- struct{}{} }) }()
	t.Cleanup(cancel)
	l.want(t, "listening begins")
	return l
}

func (l *listener) want(t *testing.T, what string) {
	t.Helper()
	select {
	case <-l.rings:
	case err := <-l.ended:
		t.Fatalf("%s: Listen returned %v", what, err)
	case <-time.After(soon):
		t.Fatalf("%s: no ring", what)
	}
}

func (l *listener) wantEnd(t *testing.T) error {
	t.Helper()
	select {
	case err := <-l.ended:
		return err
	case <-time.After(soon):
		t.Fatal("Listen did not return")
		return nil
	}
}

// silent rings the doorbell of b once more and expects that ring to be the only one.
func (l *listener) silent(t *testing.T, what string, ring func()) {
	t.Helper()
	ring()
	l.want(t, what)
	if n := len(l.rings); n != 0 {
		t.Errorf("%s rang %d times more", what, n)
	}
}

func announcedUpdate(t *testing.T, b *postgres.Backend, rec *sessionstore.Record) {
	t.Helper()
	rec.Version++
	cond := sessionstore.Condition{Version: rec.Version, SecretHash: rec.SecretHash, Announce: true}
	if err := b.Update(t.Context(), rec, cond); err != nil {
		t.Fatal(err)
	}
}

func TestDoorbellRings(t *testing.T) {
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
		pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
	} {
		t.Run(mode.String(), func(t *testing.T) {
			ctx, url := t.Context(), dbtest.MigratedPostgres(t)
			b := newBackend(t, dbtest.Pool(t, url, dbtest.ExecMode(mode)), nil)
			// Its pool has one connection, and that is busy.
			pool := dbtest.Pool(t, url, dbtest.ExecMode(mode), func(c *pgxpool.Config) { c.MaxConns = 1 })
			other := newBackend(t, pool, nil)
			busy, err := pool.Acquire(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer busy.Release()
			l := listen(t, other)

			rec := newRecord("shop", "Bob")
			if _, err := b.Create(ctx, rec, sessionstore.Condition{}); err != nil {
				t.Fatal(err)
			}
			announcedUpdate(t, b, rec)
			l.want(t, "announced Update")

			renewed := newRecord("shop", "Bob")
			renewed.Key, renewed.SecretHash = rec.Key, sessionstore.NewToken(rec.Key.ID, "").SecretHash()
			err = b.Update(ctx, renewed, sessionstore.Condition{Version: 2, SecretHash: rec.SecretHash})
			if err != nil {
				t.Fatal(err)
			}
			l.want(t, "renewal")

			// What stores nothing does not ring, and a transaction rings once.
			for range 40 {
				if _, err := b.Create(ctx, newRecord("shop", "Eve"), sessionstore.Condition{}); err != nil {
					t.Fatal(err)
				}
			}
			err = b.Update(ctx, renewed, sessionstore.Condition{Version: 2, SecretHash: renewed.SecretHash, Announce: true})
			if !errors.Is(err, sessionstore.ErrConflict) {
				t.Fatal(err)
			}
			if err := b.Update(ctx, renewed, sessionstore.Condition{Version: 3, SecretHash: renewed.SecretHash}); err != nil {
				t.Fatal(err)
			}
			l.silent(t, "Delete of one", func() {
				if _, err := b.Delete(ctx, sessionstore.Selector{ID: rec.Key.ID}); err != nil {
					t.Fatal(err)
				}
			})
			if _, err := b.Delete(ctx, sessionstore.Selector{Principal: "Eve"}); err != nil {
				t.Fatal(err)
			}
			l.want(t, "Delete of 40, first transaction")
			l.want(t, "Delete of 40, second transaction")
			if n := len(l.rings); n != 0 {
				t.Errorf("Delete of 40 in two transactions rang %d times more", n)
			}

			l.stop()
			if err := l.wantEnd(t); !errors.Is(err, context.Canceled) {
				t.Errorf("Listen returned %v", err)
			}
		})
	}
}

func TestDoorbellsOfOtherTablesAreOthers(t *testing.T) {
	url := dbtest.MigratedPostgres(t)
	pool := dbtest.Pool(t, url)
	elsewhere := &postgres.Config{Schema: "elsewhere"}
	if err := migrations.Up(t.Context(), dbtest.DB(t, pool), migrations.Postgres, &migrations.Config{Schema: "elsewhere"}); err != nil {
		t.Fatal(err)
	}
	// The same table, however it was found.
	b, same, other := newBackend(t, pool, nil), newBackend(t, pool, &postgres.Config{Schema: "public"}), newBackend(t, pool, elsewhere)
	l := listen(t, same)
	for _, writer := range []*postgres.Backend{other, b} {
		rec := newRecord("shop", "")
		if _, err := writer.Create(t.Context(), rec, sessionstore.Condition{}); err != nil {
			t.Fatal(err)
		}
		announcedUpdate(t, writer, rec)
	}
	l.want(t, "an event of this table")
	if n := len(l.rings); n != 0 {
		t.Errorf("it also rang for another table")
	}
}

func TestListenEndsWithItsConnection(t *testing.T) {
	pool := dbtest.Pool(t, dbtest.MigratedPostgres(t))
	b := newBackend(t, pool, nil)
	for range 3 { // listening again works
		l := listen(t, b)
		var ended int
		err := pool.QueryRow(t.Context(), `
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND query LIKE 'LISTEN%'`).Scan(&ended)
		if err != nil || ended != 1 {
			t.Fatalf("ended %d connections, error %v", ended, err)
		}
		if err := l.wantEnd(t); err == nil || errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "listen for events") {
			t.Errorf("Listen returned %v", err)
		}
	}
}

func TestListenGivesItsConnectionBack(t *testing.T) {
	pool := dbtest.Pool(t, dbtest.MigratedPostgres(t))
	b := newBackend(t, pool, nil)
	for range 10 {
		l := listen(t, b)
		l.stop()
		if err := l.wantEnd(t); !errors.Is(err, context.Canceled) {
			t.Errorf("Listen returned %v", err)
		}
	}
	for left := 1; left > 0; { // the server closes them in its own time
		err := pool.QueryRow(t.Context(), `
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'`).Scan(&left)
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestListenWithoutDatabase(t *testing.T) {
	pool := dbtest.Pool(t, dbtest.MigratedPostgres(t))
	b := newBackend(t, pool, nil)
	if err := migrations.Down(t.Context(), dbtest.DB(t, pool), migrations.Postgres, nil, 0); err != nil {
		t.Fatal(err)
	}
	err := b.Listen(t.Context(), func() { t.Error("it rang") })
	if err == nil || !strings.Contains(err.Error(), "holdfast_events") {
		t.Errorf("Listen returned %v", err)
	}
}

func TestDisableDoorbell(t *testing.T) {
	ctx, url := t.Context(), dbtest.MigratedPostgres(t)
	statements := new(recorder)
	b := newBackend(t, dbtest.Pool(t, url, func(c *pgxpool.Config) { c.ConnConfig.Tracer = statements }), &postgres.Config{DisableDoorbell: true})
	if err := b.Listen(ctx, func() { t.Error("it rang") }); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "DisableDoorbell") {
		t.Errorf("Listen returned %v", err)
	}
	_, cursor, err := b.Events(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	rec := newRecord("shop", "")
	if _, err := b.Create(ctx, rec, sessionstore.Condition{}); err != nil {
		t.Fatal(err)
	}
	announcedUpdate(t, b, rec)
	if _, err := b.Delete(ctx, sessionstore.Selector{ID: rec.Key.ID}); err != nil {
		t.Fatal(err)
	}
	if events, _, err := b.Events(ctx, cursor); err != nil || len(events) != 2 {
		t.Errorf("read %d events, error %v, want 2", len(events), err)
	}
	for _, q := range statements.queries() {
		if strings.Contains(q.SQL, "notify") {
			t.Errorf("with DisableDoorbell:%s", q.SQL)
		}
	}
}

// TestAnnouncingIsOneRoundTrip also holds for what a login does: nothing is sent
// beside the statement.
func TestAnnouncingIsOneRoundTrip(t *testing.T) {
	var sent everything
	pool := dbtest.Pool(t, dbtest.MigratedPostgres(t), func(c *pgxpool.Config) { c.ConnConfig.Tracer = &sent })
	b := newBackend(t, pool, nil)
	rec := newRecord("shop", "")
	if _, err := b.Create(t.Context(), rec, sessionstore.Condition{}); err != nil {
		t.Fatal(err)
	}
	statements := b.Statements()
	sent = nil
	announcedUpdate(t, b, rec)
	if len(sent) != 1 || b.Statements()-statements != 1 {
		t.Errorf("sent %q", sent)
	}
}

// everything is a tracer that keeps all statements of one goroutine.
type everything []string

func (e *everything) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	*e = append(*e, data.SQL)
	return ctx
}

func (e *everything) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func TestPollsUseTheIndexes(t *testing.T) {
	ctx, url := t.Context(), dbtest.MigratedPostgres(t)
	seen := &recorder{table: "holdfast_events"}
	plain := dbtest.Pool(t, url)
	b := newBackend(t, dbtest.Pool(t, url, func(c *pgxpool.Config) { c.ConnConfig.Tracer = seen }), nil)
	for range 5 {
		_, err := plain.Exec(ctx, `
INSERT INTO holdfast_events (id, app, version, at)
SELECT gen_random_uuid(), '', 0, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM generate_series(1, 20000)`)
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := plain.Exec(ctx, "ANALYZE holdfast_events"); err != nil {
		t.Fatal(err)
	}
	_, cursor, err := b.Events(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	for index, poll := range map[string]func() error{
		"holdfast_events_xid_idx": func() error { _, _, err := b.Events(ctx, cursor); return err },
		"holdfast_events_pkey":    func() error { return b.PruneEvents(ctx, time.Hour) },
	} {
		for _, generic := range []string{"force_custom_plan", "force_generic_plan"} {
			seen.reset()
			if err := poll(); err != nil {
				t.Fatal(err)
			}
			for _, q := range seen.queries() {
				plan := explain(t, plain, generic, q)
				if !strings.Contains(plan, index) || strings.Contains(plan, "Seq Scan on holdfast_events") {
					t.Errorf("%s does not use %s:\n%s", generic, index, plan)
				}
				if strings.Contains(index, "xid") && !strings.Contains(plan, "Index Cond: (ROW(xid, seq) > ROW") {
					t.Errorf("%s reads the whole index:\n%s", generic, plan)
				}
			}
		}
	}
}

// A transaction of another program that writes for long delays nothing; what is
// read again meanwhile is only what came after it began.
func TestALongTransactionOfOthersDelaysNothing(t *testing.T) {
	ctx, url := t.Context(), dbtest.MigratedPostgres(t)
	pool := dbtest.Pool(t, url)
	b := newBackend(t, pool, nil)
	if _, err := pool.Exec(ctx, "CREATE TABLE other (n int)"); err != nil {
		t.Fatal(err)
	}
	_, cursor, err := b.Events(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if _, err := tx.Exec(ctx, "INSERT INTO other VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	read := func(want string) {
		t.Helper()
		var events []sessionstore.Event
		if events, cursor, err = b.Events(ctx, cursor); err != nil || fmt.Sprint(len(events)) != want {
			t.Errorf("read %d events, error %v, want %s", len(events), err, want)
		}
	}
	rec := newRecord("shop", "")
	if _, err := b.Create(ctx, rec, sessionstore.Condition{}); err != nil {
		t.Fatal(err)
	}
	announcedUpdate(t, b, rec)
	read("1")
	announcedUpdate(t, b, rec)
	read("2")
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	read("2")
	read("0")
}
