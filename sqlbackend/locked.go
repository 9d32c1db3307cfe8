package sqlbackend

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// A statement that concerns several sessions waits for nobody's lock. If it did, one row
// that somebody keeps locked would fail what is to happen to the others, and it would
// keep those locked that it has come to already: on MySQL for long after its caller has
// given up, since the server does not notice while it waits (innodb_lock_wait_timeout,
// 50 s). What was passed over is tried again after a while, by callers who wait for their
// turn and hold no connection. Only a call that met no other may wait in the database,
// for its own session, and not many of these at a time.

// errPassedOver is what becomes of something that concerns a row which somebody has
// locked, because it does not wait. Saves also hear it if they conflict: a group cannot
// tell.
var errPassedOver = errors.New("sqlbackend: passed over because others have locked it")

// mayWait reports whether a call that travels alone may wait in the database. That is
// the cheaper statement, and usually there is nothing to wait for; but if a few did wait,
// they would take all the flights that there may be.
func mayWait[T groupable](late bool, g *grouper[T]) bool { return !late && !g.delayed() }

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
func unlocked[T any](items []T, do func([]T) error) (locked []T, err error) {
	err = do(items)
	if !errors.Is(err, errPassedOver) {
		return nil, err
	}
	if len(items) == 1 {
		return items, nil
	}
	half := len(items) / 2
	for _, some := range [][]T{items[:half], items[half:]} {
		passed, err := unlocked(some, do)
		locked = append(locked, passed...)
		if err != nil {
			return locked, err
		}
	}
	return locked, nil
}

// retryLocked has do do something with items that were locked, until none is any more.
func retryLocked[T any](ctx context.Context, b *Backend, items []T, do func([]T) error) error {
	if len(items) == 0 {
		return nil
	}
	return b.whileLocked(ctx, func(context.Context) (err error) {
		if items, err = unlocked(items, do); err == nil && len(items) > 0 {
			err = errPassedOver
		}
		return err
	})
}

// whileLocked repeats do, with pauses, while it returns errPassedOver, for as long as a
// statement may take.
func (b *Backend) whileLocked(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	for wait := firstWait; ; wait = min(2*wait, longestWait) {
		err := do(ctx)
		if !errors.Is(err, errPassedOver) {
			return err
		}
		timer := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("others keep it locked: %w", ctx.Err())
		case <-timer.C:
		}
	}
}
