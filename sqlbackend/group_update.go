package sqlbackend

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// A save is an Update that may travel with others, because it concerns one row.
type save struct {
	rec  *sessionstore.Record
	cond sessionstore.Condition
	late bool // passed over before
	err  error
}

func (s *save) key() sessionstore.Key { return s.rec.Key }
func (s *save) size() int             { return len(s.rec.Data) }
func (s *save) fail(err error)        { s.err = err }

// event is what announces the save.
func (s *save) event() sessionstore.Event {
	return sessionstore.Event{Key: s.rec.Key, Version: s.cond.Version + 1}
}

func (s *save) keep() {
	rec := *s.rec
	rec.Data = bytes.Clone(rec.Data)
	s.rec = &rec
}

// saveGroup stores saves of different records. One that cannot be stored fails alone.
func (b *Backend) saveGroup(ctx context.Context, saves []*save) {
	locks := b.sql.updateMany != nil || b.sql.lockMany != nil
	switch s := saves[0]; {
	case len(saves) > 1:
	case !locks:
		s.err = b.updateAlone(ctx, s.rec, s.cond, b.sql.lockIDs)
		return
	case !s.late && b.mayWait(): // the cheaper statement; usually there is nothing to wait for
		defer b.waited()
		s.err = b.updateAlone(ctx, s.rec, s.cond, b.sql.lockIDs)
		return
	}
	slices.SortFunc(saves, func(x, y *save) int { return compareKeys(x.rec.Key, y.rec.Key) })
	together(ctx, saves, func(some []*save) error {
		switch {
		case b.sql.updateMany != nil:
			return b.updateMany(ctx, some)
		case b.sql.lockMany == nil:
			return b.updateEach(ctx, some)
		}
		done, err := b.updateAll(ctx, some)
		if done || err != nil {
			return err
		}
		return b.lockAndWrite(ctx, some)
	}, b.unfit)
}

// settle tells the saves which of them were stored, and gives missed to the others.
func settle(saves []*save, stored func(i int) bool, missed error) {
	for i, s := range saves {
		if s.err = nil; !stored(i) {
			s.err = missed
		}
	}
}

// updateMany stores saves with one statement.
func (b *Backend) updateMany(ctx context.Context, saves []*save) error {
	a, err := b.saveLists(saves)
	if err != nil {
		return err
	}
	var stored []bool
	err = b.alone(ctx, func(ctx context.Context, q runner) error {
		stored = make([]bool, len(saves))
		return q.query(ctx, b.sql.updateMany, a, scanPlaces(stored))
	})
	if err == nil {
		settle(saves, func(i int) bool { return stored[i] }, errPassedOver)
	}
	return err
}

// scanPlaces marks the places in a list that a statement answers.
func scanPlaces(places []bool) func(Scan) error {
	return func(scan Scan) error {
		var place int64
		if err := scan(&place); err != nil {
			return err
		}
		if place < 1 || place > int64(len(places)) {
			return fmt.Errorf("answered place %d of %d", place, len(places))
		}
		places[place-1] = true
		return nil
	}
}

// saveLists are the parameters of UpdateMany.
func (b *Backend) saveLists(saves []*save) (args, error) {
	n := len(saves)
	rows := make([]listedRow, n)
	proofs, announced := make([][]byte, n), make([]bool, n)
	starts, sizes, total := make([]int32, n), make([]int32, n), 0
	principals, nodes := make([]string, n), make([]string, n)
	idles, lifetimes := make([]int64, n), make([]int64, n)
	var err error
	for i, s := range saves {
		rows[i] = listedRow{key: s.rec.Key, version: s.cond.Version}
		proofs[i], announced[i] = s.cond.SecretHash[:], s.cond.Announce
		starts[i], sizes[i] = int32(total+1), int32(len(s.rec.Data))
		total += len(s.rec.Data)
		principals[i], nodes[i] = s.rec.Principal, s.rec.Node
		if idles[i], err = fromDuration("Idle", s.rec.Idle); err != nil {
			return nil, &unwritten{err}
		}
		if lifetimes[i], err = fromDuration("Lifetime", s.rec.Lifetime); err != nil {
			return nil, &unwritten{err}
		}
	}
	data := make([]byte, 0, total)
	for _, s := range saves {
		data = append(data, s.rec.Data...)
	}
	a := b.listRows(rows)
	a["proofs"], a["announced"], a["principals"], a["nodes"] = proofs, announced, principals, nodes
	a["bytes"], a["starts"], a["sizes"] = data, starts, sizes
	a["idles"], a["lifetimes"], a["slack"] = idles, lifetimes, slotSlack.Microseconds()
	return a, nil
}

// updateAll stores saves with one statement if all of them match, without a
// transaction if none is to be announced. If one does not match, it stores none and
// reports false. So it does if the statement cannot be sent as text: of what a list of
// placeholders holds, the server would have to guess the types.
func (b *Backend) updateAll(ctx context.Context, saves []*save) (done bool, err error) {
	// Of a list of one MySQL reads the row before it executes the statement, and waits.
	if b.sql.updateAll == nil || len(saves) == 1 {
		return false, nil
	}
	rows := make([]args, len(saves))
	var events []sessionstore.Event
	for i, s := range saves {
		if rows[i], err = b.updateArgs(s.rec, s.cond); err != nil {
			return false, &unwritten{err}
		}
		if s.cond.Announce {
			events = append(events, s.event())
		}
	}
	text, values, err := b.sql.updateAll.withRows(rows, args{"slack": slotSlack.Microseconds(), "count": int64(len(saves))})
	if err != nil || len(values) > 0 {
		return false, err
	}
	write := func(ctx context.Context, q runner) error {
		n, err := q.execText(ctx, text)
		if done = n > 0; err != nil || !done {
			return err
		}
		if want := int64(len(saves)); n != want { // P3
			return fmt.Errorf("changing %d rows or none affected %d", want, n)
		}
		return b.storeEvents(ctx, q, events)
	}
	if len(events) == 0 {
		err = b.alone(ctx, write)
	} else {
		err = b.inGroupTx(ctx, nil, write)
	}
	if err != nil || !done {
		return false, err
	}
	settle(saves, func(int) bool { return true }, nil)
	return true, nil
}

// lockAndWrite stores saves in a transaction that first locks the rows that match.
func (b *Backend) lockAndWrite(ctx context.Context, saves []*save) error {
	rows, values := make([]listedRow, len(saves)), make([]args, len(saves))
	var err error
	for i, s := range saves {
		rows[i] = listedRow{key: s.rec.Key, version: s.cond.Version, proof: s.cond.SecretHash}
		if values[i], err = b.recordArgs(s.rec); err != nil {
			return &unwritten{err}
		}
	}
	list := b.listRows(rows)
	var matched []bool
	err = b.inGroupTx(ctx, nil, func(ctx context.Context, q runner) error {
		matched = make([]bool, len(saves))
		if err := q.query(ctx, b.sql.lockMany, list, scanPlaces(matched)); err != nil {
			return err
		}
		var write []args
		var events []sessionstore.Event
		for i, s := range saves {
			if !matched[i] {
				continue
			}
			write = append(write, values[i])
			if s.cond.Announce {
				events = append(events, s.event())
			}
		}
		if len(write) == 0 {
			return nil
		}
		n, err := q.execRows(ctx, b.sql.writeMany, write, args{"slack": slotSlack.Microseconds()})
		if err != nil {
			return err
		}
		if want := int64(len(write)) * b.dialect.WriteAffects; n != want { // P3
			return fmt.Errorf("writing %d locked rows affected %d, want %d", len(write), n, want)
		}
		return b.storeEvents(ctx, q, events)
	})
	if err == nil {
		settle(saves, func(i int) bool { return matched[i] }, errPassedOver)
	}
	return err
}

// updateEach stores saves in one transaction, with a statement for each.
func (b *Backend) updateEach(ctx context.Context, saves []*save) error {
	var stored []bool
	err := b.inGroupTx(ctx, nil, func(ctx context.Context, q runner) error {
		stored = make([]bool, len(saves))
		var events []sessionstore.Event
		for i, s := range saves {
			a, err := b.updateArgs(s.rec, s.cond)
			if err != nil {
				return err
			}
			n, err := q.exec(ctx, b.sql.update, a)
			if err != nil {
				return err
			}
			if stored[i] = n > 0; stored[i] && s.cond.Announce {
				events = append(events, s.event())
			}
		}
		return b.storeEvents(ctx, q, events)
	})
	if err == nil {
		settle(saves, func(i int) bool { return stored[i] }, sessionstore.ErrConflict)
	}
	return err
}
