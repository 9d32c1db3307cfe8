package sqlbackend

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// Update implements [sessionstore.Backend]. Unless it renews, counts sessions or,
// on some databases, announces, it is one conditional statement, and concurrent
// calls share statements.
func (b *Backend) Update(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
	if err := b.update(ctx, rec, cond); err != nil {
		return fmt.Errorf("update session %s: %w", rec.Key.ID, err)
	}
	return nil
}

func (b *Backend) update(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
	if rec.SecretHash != cond.SecretHash || limits(rec, cond) {
		return b.inTurn(ctx, func(ctx context.Context, lock *statement) error {
			return b.updateAlone(ctx, rec, cond, lock)
		})
	}
	s := &save{rec: rec, cond: cond}
	if err := b.saves.do(ctx, s); err != nil {
		return err
	}
	if errors.Is(s.err, errPassedOver) {
		return b.updateLate(ctx, s)
	}
	return s.err
}

// lateBytes bounds the data of saves that were passed over and are sent again, perhaps in
// vain, so that they do not slow down the others.
const lateBytes = 1 << 20

// updateLate is for a save that a group has passed over. A load waits for nobody and
// tells whether it conflicts.
func (b *Backend) updateLate(ctx context.Context, s *save) error {
	s.late = true
	size := int64(s.size())
	return b.untilFree(ctx, func(ctx context.Context) error {
		found, err := b.load(ctx, s.rec.Key, s.cond.Version)
		if err != nil {
			return err
		}
		if found == nil || found.Key != s.rec.Key || found.Version != s.cond.Version || found.SecretHash != s.cond.SecretHash {
			return sessionstore.ErrConflict
		}
		defer b.late.Add(-size)
		if n := b.late.Add(size); n > lateBytes && n > size { // a large one goes alone
			return errPassedOver
		}
		if err := b.saves.do(ctx, s); err != nil {
			return err
		}
		return s.err
	})
}

// updateAlone is an Update that travels with no other. It locks rows with lock, where it
// has to.
func (b *Backend) updateAlone(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition, lock *statement) error {
	a, err := b.updateArgs(rec, cond)
	if err != nil {
		return err
	}
	renews := rec.SecretHash != cond.SecretHash
	update, announces := b.sql.update, cond.Announce && !renews
	if announces && b.sql.updateAnnounced != nil {
		update, announces = b.sql.updateAnnounced, false
	}

	write := func(ctx context.Context, q runner) (err error) {
		if renews || lock.noWait {
			// Waits for a session that is just joining, so that it is renewed too.
			if err := b.lock(ctx, q, locking{by: lock}, args{"ids": b.listIDs(rec.Key.ID)}, skipRow); err != nil {
				return err
			}
		}
		deadline, _ := ctx.Deadline() // there is one
		a["patience"] = time.Until(deadline).Microseconds()
		// P3: no row, no write. The version always changes, so a row that matches is
		// affected also where the database counts only rows that changed.
		if n, err := q.exec(ctx, update, a); err != nil {
			return err
		} else if n == 0 {
			return sessionstore.ErrConflict
		}
		var siblings int64
		if renews {
			if siblings, err = q.exec(ctx, b.sql.renewSiblings, a); err != nil {
				return err
			}
		}
		if err := b.checkLimit(ctx, q, rec, cond, a); err != nil {
			return err
		}
		if renews || announces {
			return b.storeChange(ctx, q, rec.Key, cond.Version+1, siblings > 0)
		}
		return nil
	}
	if renews || announces || limits(rec, cond) {
		return b.inTx(ctx, nil, write)
	}
	return b.alone(ctx, write)
}

func (b *Backend) updateArgs(rec *sessionstore.Record, cond sessionstore.Condition) (args, error) {
	a, err := b.recordArgs(rec)
	if err != nil {
		return nil, err
	}
	a["version"], a["proof"] = int64(cond.Version), cond.SecretHash[:]
	return a, nil
}

func skipRow(Scan) error { return nil }
