package sqlbackend

import (
	"bytes"
	"context"
	"slices"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// A creation is a Create that may travel with others, because it depends on no row.
type creation struct {
	rec     *sessionstore.Record
	created int64
	err     error
}

// key is the ID alone, of which one application only may create a session.
func (c *creation) key() sessionstore.Key { return sessionstore.Key{ID: c.rec.Key.ID} }
func (c *creation) size() int             { return len(c.rec.Data) }
func (c *creation) fail(err error)        { c.created, c.err = 0, err }

func (c *creation) keep() {
	rec := *c.rec
	rec.Data = bytes.Clone(rec.Data)
	c.rec = &rec
}

// createGroup creates sessions under different IDs.
func (b *Backend) createGroup(ctx context.Context, creations []*creation) {
	if c := creations[0]; len(creations) == 1 {
		c.created, c.err = b.createAlone(ctx, c.rec, sessionstore.Condition{}, nil)
		return
	}
	// In this order, everybody takes the mutexes of IDs.
	slices.SortFunc(creations, func(x, y *creation) int { return compareIDs(x.rec.Key.ID, y.rec.Key.ID) })
	together(ctx, creations, func(some []*creation) error {
		mutexes := make([]string, len(some))
		for i, c := range some {
			mutexes[i] = b.mutex("id", c.rec.Key.ID.String())
		}
		if b.sql.createMany != nil {
			return b.createMany(ctx, mutexes, some)
		}
		return b.createEach(ctx, mutexes, some)
	}, b.unfit)
}

// createMany creates sessions with one statement.
func (b *Backend) createMany(ctx context.Context, mutexes []string, creations []*creation) error {
	saves := make([]*save, len(creations))
	for i, c := range creations {
		saves[i] = &save{rec: c.rec, cond: sessionstore.Condition{SecretHash: c.rec.SecretHash}}
	}
	a, err := b.saveLists(saves)
	if err != nil {
		return err
	}
	created := make(map[sessionstore.ID]int64, len(creations))
	err = b.atOnce(ctx, mutexes, []*statement{b.sql.createMany}, a, func() { clear(created) }, func(scan Scan) error {
		var id storedID
		var at int64
		err := scan(&id, &at)
		created[sessionstore.ID(id)] = at
		return err
	})
	if err == nil {
		tell(creations, created)
	}
	return err
}

// tell tells creations which of them were stored, and when.
func tell(creations []*creation, created map[sessionstore.ID]int64) {
	for _, c := range creations {
		if c.created, c.err = created[c.rec.Key.ID], nil; c.created == 0 {
			c.err = sessionstore.ErrExists
		}
	}
}

// createEach creates sessions in one transaction, with a statement for all of them
// where there can be.
func (b *Backend) createEach(ctx context.Context, mutexes []string, creations []*creation) error {
	ids, rows := make([]sessionstore.ID, len(creations)), make([]args, len(creations))
	var err error
	for i, c := range creations {
		if rows[i], err = b.recordArgs(c.rec); err != nil {
			return &unwritten{err}
		}
		ids[i] = c.rec.Key.ID
	}
	var created map[sessionstore.ID]int64
	err = b.inGroupTx(ctx, mutexes, func(ctx context.Context, q runner) error {
		created = make(map[sessionstore.ID]int64, len(creations))
		taken := make(map[sessionstore.ID]bool)
		err := q.query(ctx, b.sql.takenIDs, args{"ids": b.listIDs(ids...)}, func(scan Scan) error {
			var id storedID
			err := scan(&id)
			taken[sessionstore.ID(id)] = true
			return err
		})
		if err != nil || len(taken) == len(creations) {
			return err
		}
		var now int64
		var exists bool
		if _, err := q.queryRow(ctx, b.sql.clock, rows[0], &now, &exists); err != nil {
			return err
		}
		var fresh []args
		for i, row := range rows {
			if !taken[ids[i]] {
				row["now"], created[ids[i]] = now, now
				fresh = append(fresh, row)
			}
		}
		return b.insertRows(ctx, q, fresh)
	})
	if err == nil {
		tell(creations, created)
	}
	return err
}
