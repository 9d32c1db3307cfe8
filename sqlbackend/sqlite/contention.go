package sqlite

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/holdfast-sessions/holdfast/sqlbackend"
	"github.com/holdfast-sessions/holdfast/sqlbackend/internal/sqldb"
)

const (
	// maxLockPause bounds the pause between two tries for the lock that another
	// process holds. SQLite's own wait soon tries only ten times a second, and so
	// seldom meets the moment between two transactions of a process that writes all
	// the time; a try costs some microseconds.
	maxLockPause = 2 * time.Millisecond

	// longestRun is how long a process may write without a break that others notice.
	// Between its transactions there are only microseconds: whoever waits would meet
	// one of them by luck alone, and not for seconds where the disk is slow.
	longestRun = 100 * time.Millisecond

	// lockBreak is that break: long enough that all who wait try in it.
	lockBreak = maxLockPause + time.Millisecond
)

// A contender is a [sqldb.DB] whose writes take turns within the process, in order,
// and try for SQLite's one write lock, often and at random times, until they get it or
// their context ends. It is safe for concurrent use.
type contender struct {
	*sqldb.DB
	alone bool          // nobody else can have the database open
	turn  chan struct{} // holds a value while a write has its turn, and guards what follows
	began time.Time     // of the run of writes that met no break
	ended time.Time     // of the last write
}

func newContender(db *sqldb.DB, alone bool) *contender {
	return &contender{DB: db, alone: alone, turn: make(chan struct{}, 1)}
}

// Exec implements [sqlbackend.Querier].
func (c *contender) Exec(ctx context.Context, query string, args []any) (affected int64, err error) {
	err = c.whileBusy(ctx, func() error {
		affected, err = c.DB.Exec(ctx, query, args)
		return err
	})
	return affected, err
}

// InTx implements [sqlbackend.DB]. It is BEGIN IMMEDIATE that meets the lock, so
// do seldom runs twice; and if it does, the database has undone it.
func (c *contender) InTx(ctx context.Context, do func(sqlbackend.Tx) error) error {
	return c.whileBusy(ctx, func() error { return c.DB.InTx(ctx, do) })
}

func (c *contender) whileBusy(ctx context.Context, write func() error) error {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() {
		c.ended = time.Now()
		<-c.turn
	}()
	if err := c.makeRoom(ctx); err != nil {
		return err
	}
	for {
		err := write()
		if err == nil || classify(err) != sqlbackend.Retryable {
			return err
		}
		if pauseErr := pause(ctx, rand.N(maxLockPause)); pauseErr != nil {
			return fmt.Errorf("%w: %w", pauseErr, err)
		}
		c.began = time.Now() // another process is having its turn
	}
}

// makeRoom leaves other processes a break after a long run of writes. The caller has
// the turn.
func (c *contender) makeRoom(ctx context.Context) error {
	now := time.Now()
	switch {
	case c.alone:
		return nil
	case now.Sub(c.ended) >= lockBreak:
		c.began = now
		return nil
	case now.Sub(c.began) < longestRun:
		return nil
	}
	err := pause(ctx, lockBreak)
	c.began = time.Now()
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
