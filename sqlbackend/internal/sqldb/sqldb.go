// Package sqldb is package sqlbackend's way to databases behind [database/sql].
package sqldb

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"sync/atomic"
	"time"

	"github.com/holdfast-sessions/holdfast/sqlbackend"
)

// A DB is a [sqlbackend.DB]. Write and Begin are required.
type DB struct {
	Write *sql.DB
	Read  *sql.DB // for queries outside of transactions; may be Write
	// Begin are the statements that begin a transaction. BeginTx would leave its
	// COMMIT without a deadline, and has no words for SQLite's BEGIN IMMEDIATE.
	Begin []string
	// Commit and Rollback are the statements that end it. They default to COMMIT and
	// ROLLBACK.
	Commit, Rollback string
	// NoTransaction reports that an error of Rollback means that there was nothing
	// to roll back. If nil, no error does.
	NoTransaction func(error) bool
	// Lock and Unlock take mutexes that belong to a connection, in the order given,
	// and release them, if it has them. Nil where Begin lets only one transaction run at a
	// time anyway.
	Lock   func(ctx context.Context, conn *sql.Conn, mutexes []string) error
	Unlock func(ctx context.Context, conn *sql.Conn, mutexes []string) error
	// Refused reports that an error is of class sqlbackend.Refused: its connection
	// leads to the wrong server. Nil where no server is.
	Refused func(error) bool

	// Lost reports that an error means that the connection is lost, as driver.ErrBadConn
	// does. Nil where no other error means it.
	Lost func(error) bool

	// Closing reports that the server closes a connection after it has answered with an
	// error. Nil where it keeps them all.
	Closing func(error) bool

	epoch atomic.Int64 // counts the servers that refused
}

// cleanupWait bounds the statements that leave a connection fit for its next user.
const cleanupWait = time.Second

// Exec implements [sqlbackend.Querier].
func (d *DB) Exec(ctx context.Context, query string, args []any) (affected int64, err error) {
	if d.Refused == nil {
		return querier{d.Write}.Exec(ctx, query, args)
	}
	err = d.with(ctx, func(conn *sql.Conn) (sent bool, err error) {
		affected, err = querier{conn}.Exec(ctx, query, args)
		return !errors.Is(err, driver.ErrBadConn), err
	})
	return affected, err
}

// Query implements [sqlbackend.Querier].
func (d *DB) Query(ctx context.Context, query string, args []any, row func(sqlbackend.Scan) error) error {
	if d.Refused == nil {
		return querier{d.Read}.Query(ctx, query, args, row)
	}
	return d.with(ctx, func(conn *sql.Conn) (sent bool, err error) {
		err = querier{conn}.Query(ctx, query, args, row)
		return !errors.Is(err, driver.ErrBadConn), err
	})
}

// InTx implements [sqlbackend.DB].
func (d *DB) InTx(ctx context.Context, do func(sqlbackend.Tx) error) error {
	return d.with(ctx, func(conn *sql.Conn) (begun bool, err error) {
		t := &tx{querier: querier{conn}, db: d, conn: conn}
		defer t.unlock(ctx) // when it is over
		return d.transact(ctx, t, do)
	})
}

// with lends a connection of the pool that writes. After a restart of the server
// that is full of dead connections: it passes over those on which do has sent nothing.
func (d *DB) with(ctx context.Context, do func(*sql.Conn) (sent bool, err error)) error {
	for stale := 0; ; stale++ {
		sent, err := d.lend(ctx, do)
		if sent || stale == maxDead || !errors.Is(err, driver.ErrBadConn) {
			return err
		}
	}
}

func (d *DB) lend(ctx context.Context, do func(*sql.Conn) (sent bool, err error)) (sent bool, err error) {
	epoch := d.epoch.Load()
	conn, err := d.Write.Conn(ctx)
	if err != nil {
		return true, &sqlbackend.ConnectError{Err: err}
	}
	defer conn.Close()
	sent, err = do(conn)
	if err != nil && d.Refused != nil && d.Refused(err) && d.epoch.CompareAndSwap(epoch, epoch+1) {
		d.leave(ctx)
	}
	if d.epoch.Load() != epoch || err != nil && d.Closing != nil && d.Closing(err) {
		discard(conn)
	}
	return sent, err
}

// leave gives up the idle connections, after one turned out to lead to a server that
// refuses: they do too, and would answer reads from data that another server has gone
// beyond. Those that are in use are discarded when they are given back.
func (d *DB) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, cleanupWait)
	defer cancel()
	for range d.Write.Stats().Idle {
		conn, err := d.Write.Conn(ctx)
		if err != nil {
			return
		}
		discard(conn)
	}
}

// maxDead bounds the dead connections that are passed over.
const maxDead = 100

func (d *DB) transact(ctx context.Context, t *tx, do func(sqlbackend.Tx) error) (begun bool, err error) {
	conn, committed := t.conn, false
	defer func() { // also if do panics
		if committed {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupWait)
		defer cancel()
		_, rollbackErr := conn.ExecContext(ctx, cmp.Or(d.Rollback, "ROLLBACK"))
		if rollbackErr != nil && (d.NoTransaction == nil || !d.NoTransaction(rollbackErr)) {
			discard(conn)
		}
	}()
	for _, statement := range d.Begin {
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			return false, err
		}
	}
	if err := do(t); err != nil {
		if errors.Is(err, driver.ErrBadConn) || d.Lost != nil && d.Lost(err) {
			err = &sqlbackend.LostError{Err: err}
		}
		return true, err
	}
	if _, err = conn.ExecContext(ctx, cmp.Or(d.Commit, "COMMIT")); err != nil {
		return true, &sqlbackend.CommitError{Err: err}
	}
	committed = true
	return true, nil
}

// A tx is a transaction on a connection.
type tx struct {
	querier
	db      *DB
	conn    *sql.Conn
	mutexes []string // that the connection may have
}

// Lock implements [sqlbackend.Tx].
func (t *tx) Lock(ctx context.Context, mutexes []string) error {
	if t.db.Lock == nil {
		return nil
	}
	// First, because it may get them and be interrupted on the way back.
	t.mutexes = append(t.mutexes, mutexes...)
	return t.db.Lock(ctx, t.conn, mutexes)
}

// unlock releases the mutexes after the transaction has been committed or rolled back.
func (t *tx) unlock(ctx context.Context) {
	if len(t.mutexes) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupWait)
	defer cancel()
	if t.db.Unlock(ctx, t.conn, t.mutexes) != nil {
		discard(t.conn)
	}
}

// discard keeps a connection whose state is unknown out of the pool; the server
// rolls back and unlocks when it closes.
func discard(conn *sql.Conn) {
	_ = conn.Raw(func(any) error { return driver.ErrBadConn })
}

// A querier runs statements on a pool or a connection.
type querier struct {
	on interface {
		ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
		QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	}
}

func (q querier) Exec(ctx context.Context, query string, args []any) (int64, error) {
	result, err := q.on.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

func (q querier) Query(ctx context.Context, query string, args []any, row func(sqlbackend.Scan) error) error {
	rows, err := q.on.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return errors.Join(rows.Err(), rows.Close())
}
