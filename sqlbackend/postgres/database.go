package postgres

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/holdfast-sessions/holdfast/sqlbackend"
)

// A database is a [sqlbackend.DB] on a pool.
type database struct {
	pool *pgxpool.Pool

	mu    sync.Mutex // guards reset
	reset time.Time
}

func (d *database) Exec(ctx context.Context, query string, args []any) (affected int64, err error) {
	err = d.with(ctx, func(conn *pgxpool.Conn) (err error) {
		affected, err = querier{conn}.Exec(ctx, query, args)
		return err
	})
	return affected, err
}

func (d *database) Query(ctx context.Context, query string, args []any, row func(sqlbackend.Scan) error) error {
	return d.with(ctx, func(conn *pgxpool.Conn) error { return querier{conn}.Query(ctx, query, args, row) })
}

func (d *database) InTx(ctx context.Context, do func(sqlbackend.Tx) error) error {
	return d.with(ctx, func(conn *pgxpool.Conn) error {
		done := false
		err := pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{
			// Not left to the connection's default: under a stricter level the statement
			// after a lock would not see what was committed during the wait.
			IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite,
		}, func(tx pgx.Tx) error {
			err := do(transaction{querier{tx}})
			done = err == nil
			return err
		})
		if err != nil && done {
			err = &sqlbackend.CommitError{Err: err}
		}
		return err
	})
}

// Pipeline implements [sqlbackend.Pipeliner]: one round trip.
func (d *database) Pipeline(ctx context.Context, mutexes []string, queries []sqlbackend.Query, row func(sqlbackend.Scan) error) error {
	var batch pgx.Batch
	batch.Queue("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
	if len(mutexes) > 0 {
		batch.Queue(lockMutexes, mutexes)
	}
	for _, q := range queries {
		batch.Queue(q.Text, q.Args...)
	}
	done := false
	batch.QueuedQueries[batch.Len()-1].Query(func(rows pgx.Rows) error {
		for rows.Next() {
			if err := row(rows.Scan); err != nil {
				return err
			}
		}
		done = rows.Err() == nil
		return rows.Err()
	})
	batch.Queue("COMMIT")
	return d.with(ctx, func(conn *pgxpool.Conn) error { // which closes one that is still in a transaction
		err := conn.SendBatch(ctx, &batch).Close()
		if err != nil && done {
			err = &sqlbackend.CommitError{Err: err}
		}
		if err != nil && conn.Conn().PgConn().TxStatus() == 'E' {
			_, rollbackErr := conn.Exec(ctx, "ROLLBACK")
			err = errors.Join(err, rollbackErr)
		}
		return err
	})
}

// with lends a connection of the pool.
func (d *database) with(ctx context.Context, do func(*pgxpool.Conn) error) error {
	start := time.Now()
	conn, err := d.pool.Acquire(ctx)
	if err != nil {
		return &sqlbackend.ConnectError{Err: err}
	}
	defer conn.Release()
	if err = do(conn); err != nil && classify(err) == sqlbackend.Refused {
		_ = conn.Conn().Close(ctx) // it may be newer than the others that were left
		d.leave(start)
	}
	return err
}

// leave gives up all connections, after one that was acquired at the time start
// turned out to lead to a server that refuses: the others do too, and would answer
// reads from data that a new primary has gone beyond. It does so once, however many
// notice. Those that are in use are closed when they are given back.
func (d *database) leave(start time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !start.Before(d.reset) {
		d.pool.Reset()
		d.reset = time.Now()
	}
}

// A transaction is a [sqlbackend.Tx].
type transaction struct{ querier }

// Lock implements [sqlbackend.Tx]. The server releases the mutexes when others see what
// was committed.
func (t transaction) Lock(ctx context.Context, mutexes []string) error {
	_, err := t.on.Exec(ctx, lockMutexes, mutexes)
	return err
}

// A querier runs statements on a connection or in a transaction.
type querier struct {
	on interface {
		Exec(ctx context.Context, sql string, arguments ...any) (pgconn.CommandTag, error)
		Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	}
}

func (q querier) Exec(ctx context.Context, query string, args []any) (int64, error) {
	tag, err := q.on.Exec(ctx, query, args...)
	return tag.RowsAffected(), err
}

func (q querier) Query(ctx context.Context, query string, args []any, row func(sqlbackend.Scan) error) error {
	rows, err := q.on.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}
