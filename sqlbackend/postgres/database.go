package postgres

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/holdfast-sessions/holdfast/sqlbackend"
)

// classify tells what an error of pgx means.
func classify(err error) sqlbackend.Class {
	_, connecting := errors.AsType[*sqlbackend.ConnectError](err)
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok && connecting && strings.HasSuffix(err.Error(), "closed pool"): // puddle.ErrClosedPool
		return sqlbackend.Other
	case !ok && connecting:
		return sqlbackend.Refused
	case !ok && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
		return sqlbackend.Other
	case !ok && pgconn.SafeToRetry(err): // a dead connection, on which nothing was sent
		return sqlbackend.Refused
	case !ok && isBroken(err):
		return sqlbackend.Unreachable
	case !ok:
		return sqlbackend.Other
	}
	switch pgErr.Code {
	case "40001", // serialization_failure
		"40P01": // deadlock_detected
		return sqlbackend.Retryable
	case "55P03": // lock_not_available
		return sqlbackend.Locked
	case "23505": // unique_violation
		return sqlbackend.Duplicate
	case "42P01", // undefined_table
		"3F000": // invalid_schema_name
		return sqlbackend.NoTable
	case "25006", // read_only_sql_transaction: a standby, or a primary that was demoted
		"57P01", // admin_shutdown
		"57P03", // cannot_connect_now
		"53300": // too_many_connections
		return sqlbackend.Refused
	case "57P02", // crash_shutdown, which may come at any time
		"08P01", // protocol_violation, what PgBouncer calls a server that is gone
		"08006", // connection_failure
		"08003": // connection_does_not_exist
		return sqlbackend.Unreachable
	}
	switch pgErr.Code[:min(2, len(pgErr.Code))] {
	case "22", // data_exception, a NUL in text for instance
		"23", // integrity_constraint_violation
		"54": // program_limit_exceeded
		return sqlbackend.Unfit
	}
	if connecting {
		return sqlbackend.Unreachable // a wrong password, say: waiting does not help
	}
	return sqlbackend.Other
}

// isBroken reports whether err is one of a connection, and not of what was asked on it.
func isBroken(err error) bool {
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

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
