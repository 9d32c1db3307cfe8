package sqlbackend

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

const (
	// eventWindow is how long an event waits, on databases that cannot tell which
	// transactions are under way, until no transaction can commit any more that was
	// given a smaller number. Transactions end within MaxStatementTimeout; the rest
	// is for the server to notice that one was abandoned, for clocks that are set, and
	// for the delay between the nodes of a cluster.
	eventWindow = 2 * MaxStatementTimeout

	// eventPageRows bounds the events of one statement, some 60 bytes each.
	eventPageRows = 4096

	// pruneRows bounds the events that one statement removes.
	pruneRows = 1000
)

// Events implements [sessionstore.EventSource]. It returns all events that are due,
// with a statement for every 4,096, or one if there are none.
//
// A cursor older than anything that was stored since the database was replaced, by a
// backup for instance, is noticed if the new database has not come as far: Events
// then returns everything that it holds.
func (b *Backend) Events(ctx context.Context, after sessionstore.Cursor) ([]sessionstore.Event, sessionstore.Cursor, error) {
	events, next, err := b.events(ctx, int64(after))
	if err != nil {
		return nil, 0, fmt.Errorf("read events: %w", err)
	}
	return events, sessionstore.Cursor(next), nil
}

func (b *Backend) events(ctx context.Context, after int64) (events []sessionstore.Event, next int64, err error) {
	if after == 0 {
		page, err := b.eventPage(ctx, math.MaxInt64, 0)
		if err == nil && b.dialect.Consecutive { // go as far as there is no gap, once
			_, page.cursor, err = b.events(ctx, page.cursor)
		}
		return nil, page.cursor, err
	}
	page, err := b.eventPage(ctx, after, 0)
	if err == nil && page.last < after {
		// Cursors only grow: this is not the database that returned it.
		after = 0
		page, err = b.eventPage(ctx, after, 0)
	}
	// From the first statement: what the later ones see may have been committed while
	// they ran, beside what they do not see.
	next = max(after, page.cursor)
	for ; err == nil; page, err = b.eventPage(ctx, page.position, page.events[eventPageRows-1].Seq) {
		events = append(events, page.events...)
		if len(page.events) < eventPageRows {
			break
		}
	}
	if err != nil {
		return nil, 0, err
	}
	if b.dialect.Consecutive {
		for _, e := range events {
			if e.Seq == next {
				next++
			}
		}
	}
	return events, next, nil
}

// A page is what one statement answers.
type page struct {
	cursor, last int64
	position     int64 // of the last event
	events       []sessionstore.Event
}

func (b *Backend) eventPage(ctx context.Context, position, seq int64) (p page, err error) {
	a := args{"position": position, "seq": seq, "limit": int64(eventPageRows), "window": eventWindow.Microseconds()}
	err = b.read(ctx, &b.polled, b.sql.events, a, func() { p = page{} }, func(scan Scan) error {
		var (
			position, seq, version *int64
			id                     *storedID
			app                    *string
		)
		if err := scan(&p.cursor, &p.last, &position, &seq, &id, &app, &version); err != nil || seq == nil {
			return err
		}
		p.position = *position
		p.events = append(p.events, sessionstore.Event{
			Seq: *seq, Key: sessionstore.Key{ID: sessionstore.ID(*id), App: *app}, Version: sessionstore.Version(*version),
		})
		return nil
	})
	if err == nil && p.cursor == 0 {
		err = fmt.Errorf("the database has no cursor")
	}
	return p, err
}

// PruneEvents implements [sessionstore.EventSource], in short transactions. It takes
// an age of less than a minute for a minute: what other nodes have not read yet, and
// what tells them how far they can go, must stay.
func (b *Backend) PruneEvents(ctx context.Context, age time.Duration) error {
	a := args{"age": max(age, eventWindow).Microseconds(), "limit": int64(pruneRows)}
	for removed := int64(pruneRows); removed == pruneRows; {
		err := b.retry(ctx, func(ctx context.Context) error {
			return b.db.InTx(ctx, func(tx Tx) (err error) {
				removed, err = runner{tx, tx, &b.polled}.exec(ctx, b.sql.pruneEvents, a)
				return err
			})
		})
		if err != nil {
			return fmt.Errorf("prune events: %w", err)
		}
	}
	return nil
}

// storeChange stores an event for key's record, and one for each of its siblings if
// they were renewed with it. Their versions are read after the renewal, because a
// statement before it may not have seen a row that was just joining.
func (b *Backend) storeChange(ctx context.Context, q runner, key sessionstore.Key, version sessionstore.Version, siblings bool) error {
	events := []sessionstore.Event{{Key: key, Version: version}}
	if siblings {
		a := args{"id": b.dialect.ID(key.ID), "app": b.dialect.Text(key.App)}
		err := q.query(ctx, b.sql.siblingVersions, a, func(scan Scan) error {
			e := sessionstore.Event{Key: sessionstore.Key{ID: key.ID}}
			err := scan(&e.Key.App, &e.Version)
			events = append(events, e)
			return err
		})
		if err != nil {
			return err
		}
	}
	return b.storeEvents(ctx, q, events)
}

// storeEvents is the last thing that a transaction does, so that numbers are
// seldom given out that are never stored.
func (b *Backend) storeEvents(ctx context.Context, q runner, events []sessionstore.Event) error {
	for batch := range slices.Chunk(events, batchRows) {
		var err error
		if b.sql.storeEvents.row != "" {
			rows := make([]args, len(batch))
			for i, e := range batch {
				rows[i] = args{"id": b.dialect.ID(e.Key.ID), "app": b.dialect.Text(e.Key.App), "version": int64(e.Version)}
			}
			_, err = q.execRows(ctx, b.sql.storeEvents, rows, nil)
		} else {
			rows := make([]listedRow, len(batch))
			for i, e := range batch {
				rows[i] = listedRow{key: e.Key, version: e.Version}
			}
			_, err = q.exec(ctx, b.sql.storeEvents, b.listRows(rows))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
