package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// newRecord returns a session that was not stored yet.
func newRecord(app, principal string) *sessionstore.Record {
	return dbtest.Record(app, principal, []byte(strings.Repeat("x", 400)))
}

// TestSavesAndTouchesAreHOT is what expiry_slot is for.
func TestSavesAndTouchesAreHOT(t *testing.T) {
	ctx := t.Context()
	// One connection, because each reports its statistics for itself.
	pool := dbtest.Pool(t, dbtest.MigratedPostgres(t), func(c *pgxpool.Config) { c.MaxConns = 1 })
	b := newBackend(t, pool, nil)
	var records []*sessionstore.Record
	for i := range 100 {
		rec := newRecord("shop", fmt.Sprintf("user %d", i))
		if _, err := b.Create(ctx, rec, sessionstore.Condition{}); err != nil {
			t.Fatal(err)
		}
		records = append(records, rec)
	}
	for round := range 20 {
		var touches []sessionstore.Touch
		for _, rec := range records {
			rec.Version++
			rec.Data = fmt.Appendf(nil, "%0400d", round)
			cond := sessionstore.Condition{Version: rec.Version, SecretHash: rec.SecretHash, Announce: round%2 == 0}
			err := b.Update(ctx, rec, cond)
			if err != nil {
				t.Fatal(err)
			}
			touches = append(touches, sessionstore.Touch{Key: rec.Key})
		}
		if err := b.Touch(ctx, touches); err != nil {
			t.Fatal(err)
		}
	}
	var updates, hot int64
	if _, err := pool.Exec(ctx, "SELECT pg_stat_force_next_flush()"); err != nil {
		t.Fatal(err)
	}
	err := pool.QueryRow(ctx, "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'holdfast_sessions'").Scan(&updates, &hot)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d of %d updates were HOT (%.1f %%)", hot, updates, 100*float64(hot)/float64(updates))
	if updates < 4000 || hot*100 < updates*95 {
		t.Errorf("%d of %d updates were HOT, want 95 %% of 4000", hot, updates)
	}
}

func TestPlansUseTheIndexes(t *testing.T) {
	ctx := t.Context()
	seen := &recorder{table: "holdfast_sessions"}
	url := dbtest.MigratedPostgres(t)
	plain := dbtest.Pool(t, url)
	b := newBackend(t, dbtest.Pool(t, url, func(c *pgxpool.Config) { c.ConnConfig.Tracer = seen }), nil)
	if _, err := plain.Exec(ctx, `
INSERT INTO holdfast_sessions (id, app, secret_hash, version, principal, node, created_at, accessed_at,
	expires_at, expiry_slot, idle, lifetime, data)
SELECT gen_random_uuid(), CASE n % 3 WHEN 0 THEN 'shop' ELSE 'office' END, sha256(n::text::bytea), 1, 'user ' || n / 5, '', n, n,
	CASE WHEN n % 2 = 0 THEN n ELSE 1::bigint << 61 END, CASE WHEN n % 2 = 0 THEN n ELSE 1::bigint << 61 END,
	1::bigint << 61, 1::bigint << 61, ''
FROM generate_series(1, 50000) AS n`); err != nil {
		t.Fatal(err)
	}
	if _, err := plain.Exec(ctx, "ANALYZE holdfast_sessions"); err != nil {
		t.Fatal(err)
	}
	var touches []sessionstore.Touch
	for range 256 {
		touches = append(touches, sessionstore.Touch{Key: newRecord("shop", "").Key})
	}
	const expiry, principal, key = "holdfast_sessions_expiry_idx", "holdfast_sessions_principal_idx", "holdfast_sessions_pkey"
	for name, test := range map[string]struct {
		index string
		call  func() error
	}{
		"Load": {key, func() error { b.Load(ctx, touches[0].Key, 0); return nil }},
		"DeleteExpired": {expiry, func() error { // with a backlog of half the table
			_, _, err := b.DeleteExpired(ctx, sessionstore.Sweep{Apps: []string{"shop"}, Orphans: time.Hour, Limit: 100})
			return err
		}},
		"List": {principal, func() error {
			for _, err := range b.List(ctx, sessionstore.Selector{Principal: "user 77"}) {
				return err
			}
			return nil
		}},
		"Delete":      {key, func() error { _, err := b.Delete(ctx, sessionstore.Selector{ID: touches[0].Key.ID}); return err }},
		"Delete user": {principal, func() error { _, err := b.Delete(ctx, sessionstore.Selector{Principal: "user 7"}); return err }},
		"Loads": {key, func() error {
			return together(seen, "r.place\nFROM", func(rec *sessionstore.Record) error {
				if _, err := b.Load(ctx, rec.Key, 0); !errors.Is(err, sessionstore.ErrNotFound) {
					return fmt.Errorf("Load returned %w", err)
				}
				return nil
			})
		}},
		"Updates": {key, func() error {
			return together(seen, "SELECT place FROM updated", func(rec *sessionstore.Record) error {
				err := b.Update(ctx, rec, sessionstore.Condition{Version: 1, SecretHash: rec.SecretHash})
				if !errors.Is(err, sessionstore.ErrConflict) {
					return fmt.Errorf("Update returned %w", err)
				}
				return nil
			})
		}},
		"Touch": {key, func() error { return b.Touch(ctx, touches) }},
	} {
		t.Run(name, func(t *testing.T) {
			for _, generic := range []string{"force_custom_plan", "force_generic_plan"} {
				seen.reset()
				if err := test.call(); err != nil {
					t.Fatal(err)
				}
				used := false
				for _, q := range seen.queries() {
					plan := explain(t, plain, generic, q)
					used = used || strings.Contains(plan, test.index)
					if strings.Contains(plan, "Seq Scan on holdfast_sessions") {
						t.Errorf("%s reads the whole table:\n%s\n%s", generic, q.SQL, plan)
					}
					if name == "DeleteExpired" && strings.Contains(q.SQL, "SKIP LOCKED") && strings.Contains(plan, "Sort") {
						t.Errorf("%s sorts the backlog:\n%s", generic, plan)
					}
				}
				if !used {
					t.Errorf("%s: no plan uses %s", generic, test.index)
				}
			}
		})
	}
}

// TestPlansMadeEarly is about plans that PostgreSQL remembers: one that reads the whole
// table would be quick now, and slow as the table grows.
func TestPlansMadeEarly(t *testing.T) {
	ctx := t.Context()
	seen := &recorder{table: "holdfast_sessions"}
	url := dbtest.MigratedPostgres(t)
	plain := dbtest.Pool(t, url)
	b := newBackend(t, dbtest.Pool(t, url, func(c *pgxpool.Config) { c.ConnConfig.Tracer = seen }), nil)
	for _, state := range []struct {
		name string
		make func() error
	}{
		{"empty", func() error { return nil }},
		{"a hundred sessions, analyzed", func() error {
			for range 100 {
				rec := newRecord("shop", "")
				rec.Data = []byte(strings.Repeat("x", 1000))
				if _, err := b.Create(ctx, rec, sessionstore.Condition{}); err != nil {
					return err
				}
			}
			_, err := plain.Exec(ctx, "VACUUM ANALYZE holdfast_sessions")
			return err
		}},
	} {
		t.Run(state.name, func(t *testing.T) {
			if err := state.make(); err != nil {
				t.Fatal(err)
			}
			seen.reset()
			if err := together(seen, "r.place\nFROM", func(rec *sessionstore.Record) error {
				b.Load(ctx, rec.Key, 0)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if err := together(seen, "SELECT place FROM updated", func(rec *sessionstore.Record) error {
				b.Update(ctx, rec, sessionstore.Condition{Version: 1, SecretHash: rec.SecretHash})
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if err := b.Touch(ctx, []sessionstore.Touch{{Key: newRecord("shop", "").Key}}); err != nil {
				t.Fatal(err)
			}
			for _, q := range seen.queries() {
				if plan := explain(t, plain, "force_generic_plan", q); strings.Contains(plan, "Seq Scan on holdfast_sessions") {
					t.Errorf("reads the whole table:\n%s\n%s", q.SQL, plan)
				}
			}
		})
	}
}

// together has many call at once, until a group of them has run the statement with text.
func together(seen *recorder, text string, call func(*sessionstore.Record) error) error {
	for {
		errs := make([]error, 64)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = call(newRecord("shop", "")) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
		for _, q := range seen.queries() {
			if strings.Contains(q.SQL, text) {
				return nil
			}
		}
	}
}

func explain(t *testing.T, pool *pgxpool.Pool, planCacheMode string, q pgx.TraceQueryStartData) string {
	t.Helper()
	var plan strings.Builder
	err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "SET LOCAL plan_cache_mode = "+planCacheMode); err != nil {
			return err
		}
		rows, err := tx.Query(t.Context(), "EXPLAIN "+q.SQL, q.Args...)
		if err != nil {
			return err
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		plan.WriteString(strings.Join(lines, "\n"))
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v", q.SQL, err)
	}
	return plan.String()
}

// A recorder is a tracer that keeps the statements on a table, or all.
type recorder struct {
	table string
	mu    sync.Mutex // guards everything below
	seen  []pgx.TraceQueryStartData
}

func (r *recorder) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	r.mu.Lock()
	defer r.mu.Unlock()
	if strings.Contains(data.SQL, r.table) {
		r.seen = append(r.seen, data)
	}
	return ctx
}

func (r *recorder) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}

func (r *recorder) TraceBatchQuery(ctx context.Context, conn *pgx.Conn, data pgx.TraceBatchQueryData) {
	r.TraceQueryStart(ctx, conn, pgx.TraceQueryStartData{SQL: data.SQL, Args: data.Args})
}

func (r *recorder) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

func (r *recorder) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (r *recorder) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = nil
}

func (r *recorder) queries() []pgx.TraceQueryStartData {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen
}
