package sqlbackend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// deleteBatch bounds how many sessions one transaction of Delete ends: their data
// come back, up to a megabyte each by default.
const deleteBatch = 32

// Delete implements [sessionstore.Backend]. It ends a principal's sessions in
// transactions of 32 sessions each. If one fails, it returns the records that the
// earlier ones removed beside the error, so that they can be announced (P11).
func (b *Backend) Delete(ctx context.Context, sel sessionstore.Selector) ([]*sessionstore.Record, error) {
	if sel.Principal == "" && !sel.ID.IsZero() && !spares(sel, sel.ID) {
		removed, err := b.deleteID(ctx, sel.ID)
		if err != nil {
			return nil, fmt.Errorf("delete session %s: %w", sel.ID, err)
		}
		return removed, nil
	}
	ids, err := b.findIDs(ctx, sel)
	if err != nil {
		return nil, fmt.Errorf("delete sessions: %w", err)
	}
	removed, err := b.deleteSelected(ctx, ids, func(r *sessionstore.Record) bool { return selects(sel, r) })
	if err != nil {
		return removed, fmt.Errorf("delete sessions: %w", err)
	}
	return removed, nil
}

// deleteSelected deletes the sessions among ids of which a live record matches, those
// that others have locked last. For each it waits in the database once at most: MySQL goes
// on waiting for what was given up.
func (b *Backend) deleteSelected(ctx context.Context, ids []sessionstore.ID, matches func(*sessionstore.Record) bool) (removed []*sessionstore.Record, err error) {
	del := func(ctx context.Context, lock locking, some []sessionstore.ID) error {
		records, err := b.deleteIDs(ctx, lock, some, matches)
		if err == nil {
			removed = append(removed, records...)
		}
		return err
	}
	unless := func(ctx context.Context, some []sessionstore.ID) error {
		return del(ctx, locking{by: b.sql.lockFreeIDs}, some)
	}
	locked, err := free(ctx, b, ids, deleteBatch, unless)
	if err != nil || len(locked) == 0 {
		return removed, err
	}
	waitedFor := make(map[sessionstore.ID]bool)
	err = b.untilFree(ctx, func(ctx context.Context) (err error) {
		next := slices.IndexFunc(locked, func(id sessionstore.ID) bool { return !waitedFor[id] })
		if len(locked) <= maxWaiting && next >= 0 && b.mayWait() {
			// Each for its part of the time: one may be locked for longer than that.
			defer b.waited()
			deadline, _ := ctx.Deadline()
			id, wait := locked[next], time.Until(deadline)/time.Duration(len(locked))
			waitedFor[id] = true
			if err = del(ctx, locking{b.sql.lockIDs, wait}, []sessionstore.ID{id}); errors.Is(err, errPassedOver) {
				err = nil
			} else {
				locked = slices.Delete(locked, next, next+1)
			}
		} else {
			locked, err = free(ctx, b, locked, deleteBatch, unless)
		}
		if err == nil && len(locked) > 0 {
			err = errPassedOver
		}
		return err
	})
	return removed, err
}

// findIDs returns the IDs that sel matches at the moment, in the order in which
// they are locked.
func (b *Backend) findIDs(ctx context.Context, sel sessionstore.Selector) ([]sessionstore.ID, error) {
	var ids []sessionstore.ID
	switch {
	case sel.Principal == "":
		return nil, nil
	case !sel.ID.IsZero():
		ids = []sessionstore.ID{sel.ID}
	case sel.Only != nil:
		ids = slices.Clone(sel.Only)
	default:
		err := b.read(ctx, &b.ran, b.sql.findIDs, b.selectorArgs(sel), func() { ids = nil }, func(scan Scan) error {
			var id storedID
			err := scan(&id)
			ids = append(ids, sessionstore.ID(id))
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	ids = slices.DeleteFunc(ids, func(id sessionstore.ID) bool { return spares(sel, id) })
	slices.SortFunc(ids, compareIDs)
	return slices.Compact(ids), nil
}

// deleteIDs deletes the sessions among ids of which a live record matches, in one
// transaction. Beside an error it returns nothing that counts.
func (b *Backend) deleteIDs(ctx context.Context, lock locking, ids []sessionstore.ID, matches func(*sessionstore.Record) bool) (removed []*sessionstore.Record, err error) {
	err = b.inTx(ctx, nil, func(ctx context.Context, q runner) error {
		removed = nil
		// Waits for sessions that are just joining, so that the next statement sees
		// them. Joins that come later wait for us, and find no proof (P3).
		a := args{"ids": b.listIDs(ids...)}
		if err := b.lock(ctx, q, lock, a, skipRow); err != nil {
			return err
		}
		var records []*sessionstore.Record
		matched := make(map[sessionstore.ID]bool)
		err := q.query(ctx, b.sql.selectIDs, a, func(scan Scan) error {
			r, err := scanRecord(scan)
			if err != nil {
				return err
			}
			records = append(records, r)
			if matches(r) { // still: it may be another principal's by now
				matched[r.Key.ID] = true
			}
			return nil
		})
		if err != nil {
			return err
		}
		removed = slices.DeleteFunc(records, func(r *sessionstore.Record) bool { return !matched[r.Key.ID] })
		if err := b.deleteRows(ctx, q, removed); err != nil {
			return err
		}
		var events []sessionstore.Event
		for _, r := range removed { // which are in order of IDs
			if n := len(events); n == 0 || events[n-1].Key.ID != r.Key.ID {
				events = append(events, sessionstore.Event{Key: sessionstore.Key{ID: r.Key.ID}})
			}
		}
		return b.storeEvents(ctx, q, events)
	})
	return removed, err
}

// deleteRows deletes rows that the transaction has locked.
func (b *Backend) deleteRows(ctx context.Context, q runner, records []*sessionstore.Record) error {
	if len(records) == 0 {
		return nil
	}
	n, err := q.exec(ctx, b.sql.deleteRows, b.listRecords(records))
	if err == nil && n != int64(len(records)) {
		err = fmt.Errorf("%d of %d locked rows were deleted", n, len(records))
	}
	return err
}
