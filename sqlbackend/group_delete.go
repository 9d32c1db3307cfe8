package sqlbackend

import (
	"context"
	"errors"
	"slices"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// A deletion is a Delete of one session, which may travel with others.
type deletion struct {
	id      sessionstore.ID
	removed []*sessionstore.Record
	err     error
}

func (d *deletion) key() sessionstore.Key { return sessionstore.Key{ID: d.id} }
func (d *deletion) size() int             { return 0 }
func (d *deletion) keep()                 {}
func (d *deletion) fail(err error)        { d.removed, d.err = nil, err }

func (b *Backend) deleteID(ctx context.Context, id sessionstore.ID) ([]*sessionstore.Record, error) {
	d := &deletion{id: id}
	travel := func(ctx context.Context) error {
		if err := b.deletes.do(ctx, d); err != nil {
			return err
		}
		return d.err
	}
	err := travel(ctx)
	if errors.Is(err, errPassedOver) {
		err = b.untilFree(ctx, func(ctx context.Context) (err error) {
			if !b.mayWait() {
				return travel(ctx)
			}
			defer b.waited()
			d.removed, err = b.deleteIDs(ctx, locking{by: b.sql.lockIDs}, []sessionstore.ID{id}, anyRecord)
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	return d.removed, nil
}

func anyRecord(*sessionstore.Record) bool { return true }

// deleteGroup deletes different sessions.
func (b *Backend) deleteGroup(ctx context.Context, deletions []*deletion) {
	slices.SortFunc(deletions, func(x, y *deletion) int { return compareIDs(x.id, y.id) })
	lock := b.sql.lockFreeIDs
	if len(deletions) == 1 && b.mayWait() {
		defer b.waited()
		lock = b.sql.lockIDs
	}
	together(ctx, deletions, func(some []*deletion) error {
		ids := make([]sessionstore.ID, len(some))
		for i, d := range some {
			ids[i] = d.id
		}
		removed, err := b.deleteWhole(ctx, lock, ids)
		if err != nil {
			return err
		}
		byID := make(map[sessionstore.ID][]*sessionstore.Record, len(some))
		for _, r := range removed {
			byID[r.Key.ID] = append(byID[r.Key.ID], r)
		}
		for _, d := range some {
			d.removed, d.err = byID[d.id], nil
		}
		return nil
	}, func(err error) bool { return errors.Is(err, errPassedOver) || b.unfit(err) })
}

// deleteWhole deletes all live records under ids.
func (b *Backend) deleteWhole(ctx context.Context, lock *statement, ids []sessionstore.ID) (removed []*sessionstore.Record, err error) {
	if b.sql.deleteIDs == nil {
		return b.deleteIDs(ctx, locking{by: lock}, ids, anyRecord)
	}
	err = b.atOnce(ctx, nil, []*statement{lock, b.sql.deleteIDs}, args{"ids": b.listIDs(ids...)},
		func() { removed = nil },
		func(scan Scan) error {
			r, err := scanRecord(scan)
			removed = append(removed, r)
			return err
		})
	return removed, err
}
