package sqlbackend

import (
	"context"
	"fmt"
	"math"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// A swept collects the rows that a sweep has looked at and locked. They are judged
// as they were after they were locked: none can have come alive again.
type swept struct{ expired, live []*sessionstore.Record }

func (s *swept) add(scan Scan) error {
	r, err := scanRecord(scan)
	if err != nil {
		return err
	}
	if r.ExpiresAt.IsZero() || r.Now.Before(r.ExpiresAt) {
		s.live = append(s.live, r)
	} else {
		s.expired = append(s.expired, r)
	}
	return nil
}

// DeleteExpired implements [sessionstore.Backend] with one short transaction. It
// passes over rows that others have locked: a save of theirs, which keeps the
// session alive, or a sweep of theirs, which announces its end (P11).
func (b *Backend) DeleteExpired(ctx context.Context, sweep sessionstore.Sweep) (removed []*sessionstore.Record, more bool, err error) {
	a := args{
		"id": b.dialect.ID(sweep.ID), "apps": b.listTexts(sweep.Apps),
		"orphans": int64(math.MaxInt64), "limit": int64(max(sweep.Limit, 1)), "omits": sweep.OmitData,
	}
	if sweep.Orphans > 0 {
		a["orphans"] = sweep.Orphans.Microseconds()
	}
	var rows swept
	switch {
	case !sweep.ID.IsZero():
		rows, err = b.sweepRows(ctx, b.sql.selectExpired, a)
	case b.sql.sweepDue == nil:
		rows, err = b.sweepRows(ctx, b.sql.selectDue, a)
	default:
		err = b.atOnce(ctx, nil, []*statement{b.sql.sweepDue}, a,
			func() { rows = swept{} }, func(scan Scan) error { return rows.add(scan) })
	}
	if err != nil {
		return nil, false, fmt.Errorf("delete expired sessions: %w", err)
	}
	return rows.expired, int64(len(rows.expired)+len(rows.live)) == a["limit"], nil
}

// sweepRows deletes the rows that due answers and locks, or moves the slots of those
// that are live.
func (b *Backend) sweepRows(ctx context.Context, due *statement, a args) (rows swept, err error) {
	err = b.inTx(ctx, nil, func(ctx context.Context, q session) error {
		rows = swept{}
		if err := q.query(ctx, due, a, rows.add); err != nil {
			return err
		}
		if err := b.deleteRows(ctx, q, rows.expired); err != nil || len(rows.live) == 0 {
			return err
		}
		_, err := q.exec(ctx, b.sql.moveSlots, b.listRecords(rows.live))
		return err
	})
	return rows, err
}
