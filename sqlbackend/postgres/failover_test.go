package postgres_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
	"github.com/holdfast-sessions/holdfast/internal/dbtest/load"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sqlbackend"
	"github.com/holdfast-sessions/holdfast/sqlbackend/postgres"
)

// TestFailoverToTheStandby_P1 kills the primary under load and promotes its standby:
// the same pool goes on with it, and no acknowledged write is lost.
func TestFailoverToTheStandby_P1(t *testing.T) {
	r := dbtest.Replicated(t, false)
	b := newBackend(t, dbtest.Pool(t, r.URL), nil)
	w := load.Start(t, 16, b)
	w.Await(t, 500, 10*time.Second)
	standby := "postgres://postgres:holdfast@" + r.Standby.Address + "/postgres?sslmode=disable&default_transaction_read_only=on"
	newBackend(t, dbtest.Pool(t, standby), nil) // not refused: it may become the primary

	killed := time.Now()
	r.Primary.Kill(t)
	r.Promote(t)
	promoted := time.Now()
	w.Await(t, 1, 30*time.Second)
	t.Logf("first write %v after the kill, %v after the promotion", time.Since(killed), time.Since(promoted))
	w.Await(t, 500, 10*time.Second)
	acknowledged, lost := w.Stop(t, b)
	t.Logf("%d writes acknowledged, %d lost; errors:%s\n%+v", acknowledged, lost, w.Errors(), b.Availability())
	if lost != 0 {
		t.Errorf("%d acknowledged writes are lost", lost)
	}
	if state := b.Availability().Breaker; state != sqlbackend.BreakerClosed {
		t.Errorf("the breaker is %v", state)
	}
}

// A server that was made read-only under its connections is left at the first write
// that notices, with all connections, because its data grow old.
func TestReadOnlyConnectionsAreLeft(t *testing.T) {
	var old atomic.Bool
	pool := dbtest.Pool(t, dbtest.MigratedPostgres(t), readOnlyWhile(&old))
	b := newBackend(t, pool, nil)
	pool.Reset()
	old.Store(true)
	conns := make([]*pgxpool.Conn, 8)
	for i := range conns {
		var err error
		if conns[i], err = pool.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	old.Store(false)
	for _, conn := range conns {
		conn.Release()
	}
	// Only now, or it could go on with a connection made since, and never notice.
	w := load.Start(t, 1, b)
	w.Await(t, 20, 10*time.Second)
	if _, lost := w.Stop(t, b); lost != 0 || w.Errors() != "" {
		t.Errorf("%d writes lost; errors:%s", lost, w.Errors())
	}
	left := 0
	for _, conn := range pool.AcquireAllIdle(t.Context()) {
		var setting string
		if err := conn.QueryRow(t.Context(), "SHOW default_transaction_read_only").Scan(&setting); err != nil || setting != "off" {
			left++
		}
		conn.Release()
	}
	if left > 0 {
		t.Errorf("%d of %d connections of before are still in the pool", left, len(conns))
	}
}

// readOnlyWhile makes connections that are made meanwhile lead to a server that only
// reads.
func readOnlyWhile(old *atomic.Bool) func(*pgxpool.Config) {
	return func(cfg *pgxpool.Config) {
		cfg.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
			if !old.Load() {
				return nil
			}
			_, err := conn.Exec(ctx, "SET default_transaction_read_only = on")
			return err
		}
	}
}

// While nothing can be written, work waits for as long as its time lasts, and then
// says why. What comes next does not wait.
func TestReadOnlyServerIsAClearError(t *testing.T) {
	var old atomic.Bool
	pool := dbtest.Pool(t, dbtest.MigratedPostgres(t), readOnlyWhile(&old))
	b := newBackend(t, pool, &postgres.Config{StatementTimeout: time.Second})
	old.Store(true)
	pool.Reset()
	rec := newRecord("shop", "")
	cond := sessionstore.Condition{Version: 1, SecretHash: rec.SecretHash}
	err := b.Update(t.Context(), rec, cond)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "read-only transaction") {
		t.Errorf("the first Update returned %v", err)
	}
	err = b.Update(t.Context(), rec, cond) // fails at once, or is a trial
	if err == nil || errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "read-only transaction") {
		t.Errorf("the second Update returned %v", err)
	}
}
