package sqlbackend

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// A statement that concerns several sessions waits for nobody's lock. If it did, one row
// that somebody keeps locked would fail what is to happen to the others, and it would
// keep those locked that it has come to already: on MySQL for long after its caller has
// given up, since the server does not notice while it waits (innodb_lock_wait_timeout,
// 50 s). What was passed over is tried again after a while, and holds no connection
// meanwhile.
//
// But whoever only tries may try in vain for ever: the database hands a row on to those
// that wait for it, and a session may be saved all the time. A logout must come to its
// turn. So a call that concerns one session may wait in the database, if few others do.

// maxWaiting is how many calls may wait in the database for rows that others have
// locked, so that there are connections left for other work.
const maxWaiting = 3

// errPassedOver is what becomes of something that concerns a row which somebody has
// locked, because it does not wait. Saves also hear it if they conflict: a group cannot
// tell.
var errPassedOver = errors.New("sqlbackend: passed over because others have locked it")

// mayWait reports whether the caller may wait in the database, for the rows of one session.
// Then it must call waited afterwards.
func (b *Backend) mayWait() bool {
	select {
	case b.waiting <- struct{}{}:
		return true
	default:
		return false
	}
}

func (b *Backend) waited() { <-b.waiting }

// A locking is how the rows of a session, or of several, are locked.
type locking struct {
	by   *statement
	wait time.Duration // the longest that by may take until they count as passed over, 0 if there is none
}

// A lockWait is the error of a transaction that has begun and whose time ended while it
// waited for a lock or a mutex. It says nothing about the database.
type lockWait struct{ error }

func (e *lockWait) Unwrap() error { return e.error }

// lock locks rows, as the first thing in a transaction.
func (b *Backend) lock(ctx context.Context, q runner, lock locking, a args, row func(Scan) error) error {
	own, cancel := ctx, context.CancelFunc(func() {})
	if lock.wait > 0 {
		own, cancel = context.WithTimeout(ctx, lock.wait)
	}
	defer cancel()
	err := q.query(own, lock.by, a, row)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return &lockWait{err}
	case own.Err() != nil:
		return fmt.Errorf("%w: %v", errPassedOver, err)
	}
	return b.passedOver(lock.by, err)
}

// inTurn has do lock the rows of one session with the statement that it is given. Do
// waits for them, if few others wait, and is else repeated until they are free.
func (b *Backend) inTurn(ctx context.Context, do func(ctx context.Context, lock *statement) error) error {
	return b.untilFree(ctx, func(ctx context.Context) error {
		if !b.mayWait() {
			return do(ctx, b.sql.lockFreeIDs)
		}
		defer b.waited()
		return do(ctx, b.sql.lockIDs)
	})
}

// passedOver turns the error of a statement that met a lock and does not wait into
// errPassedOver, so that the statement is not repeated.
func (b *Backend) passedOver(st *statement, err error) error {
	if err != nil && st.noWait && b.dialect.Classify(err) == Locked {
		return fmt.Errorf("%w: %v", errPassedOver, err)
	}
	return err
}

// unlocked has do do something with items, all at once, and in halves where it fails with
// errPassedOver. It returns those that are locked.
func unlocked[T any](ctx context.Context, items []T, do func(context.Context, []T) error) (locked []T, err error) {
	err = do(ctx, items)
	if !errors.Is(err, errPassedOver) {
		return nil, err
	}
	if len(items) == 1 {
		return items, nil
	}
	half := len(items) / 2
	for _, some := range [][]T{items[:half], items[half:]} {
		passed, err := unlocked(ctx, some, do)
		locked = append(locked, passed...)
		if err != nil {
			return locked, err
		}
	}
	return locked, nil
}

// free has do do something with items, in batches of at most n, and returns those that
// others have locked. A batch and its halves take no longer than a statement may.
func free[T any](ctx context.Context, b *Backend, items []T, n int, do func(context.Context, []T) error) (locked []T, err error) {
	for batch := range slices.Chunk(items, n) {
		own, cancel := context.WithTimeout(ctx, b.timeout)
		passed, err := unlocked(own, batch, do)
		cancel()
		locked = append(locked, passed...)
		if err != nil {
			return locked, err
		}
	}
	return locked, nil
}

// untilFree repeats do, with pauses, while it returns errPassedOver, for as long as a
// statement may take.
func (b *Backend) untilFree(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	for wait := firstWait; ; wait = min(2*wait, longestWait) {
		err := do(ctx)
		if !errors.Is(err, errPassedOver) {
			return err
		}
		if err := pause(ctx, wait/2+rand.N(wait)); err != nil {
			return fmt.Errorf("others keep it locked: %w", err)
		}
	}
}
