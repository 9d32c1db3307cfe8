package sqlbackend_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// A reader reads events as a node does.
type reader struct {
	t      testing.TB
	b      backend
	cursor sessionstore.Cursor
}

func newReader(t testing.TB, b backend) *reader {
	t.Helper()
	r := &reader{t: t, b: b}
	if events := r.read(); len(events) != 0 {
		t.Errorf("the zero Cursor returned %d events", len(events))
	}
	return r
}

func (r *reader) read() []sessionstore.Event {
	r.t.Helper()
	events, next, err := r.b.Events(r.t.Context(), r.cursor)
	if err != nil {
		r.t.Fatal(err)
	}
	if next == 0 || next < r.cursor {
		r.t.Errorf("after cursor %d comes %d", r.cursor, next)
	}
	r.cursor = next
	return events
}

// readIDs is what was read, without what was returned before.
func (r *reader) readIDs(seen map[int64]bool) (ids []sessionstore.ID) {
	r.t.Helper()
	for _, e := range r.read() {
		if !seen[e.Seq] {
			ids = append(ids, e.Key.ID)
		}
		seen[e.Seq] = true
	}
	return ids
}

// TestEachWriteStoresItsEventsAndNoOthers looks at the table, where nothing is ever
// returned twice, and counts the statements.
func TestEachWriteStoresItsEventsAndNoOthers(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		ctx, b := t.Context(), db.open(t)
		r := newReader(t, db.open(t))
		seen := make(map[int64]bool)
		id := newID()
		shop, office := newRecord(id, "shop", "Bob"), newRecord(id, "office", "")
		other := newRecord(newID(), "shop", "Bob")
		office.SecretHash = shop.SecretHash
		cond := func(v sessionstore.Version) sessionstore.Condition {
			return sessionstore.Condition{Version: v, SecretHash: shop.SecretHash}
		}
		announced := func(v sessionstore.Version, limit int) sessionstore.Condition {
			c := cond(v)
			c.Announce, c.MaxSessions = true, limit
			return c
		}
		type want map[string]sessionstore.Version
		renew := func(rec *sessionstore.Record, v sessionstore.Version, limit int) error {
			renewed := *rec
			renewed.SecretHash = newHash()
			c := cond(v)
			c.MaxSessions = limit
			err := b.Update(ctx, &renewed, c)
			if err == nil {
				shop.SecretHash, office.SecretHash = renewed.SecretHash, renewed.SecretHash
			}
			return err
		}
		for _, step := range []struct {
			what string
			do   func() error
			fail error
			want want
		}{
			{"Create", func() error { _, err := b.Create(ctx, shop, sessionstore.Condition{}); return err }, nil, nil},
			{"Create of another", func() error { _, err := b.Create(ctx, other, sessionstore.Condition{}); return err }, nil, nil},
			{"Update", func() error { return b.Update(ctx, shop, cond(1)) }, nil, nil},
			{"announced Update", func() error { return b.Update(ctx, shop, announced(2, 0)) }, nil, want{"shop": 3}},
			{"announced Update in conflict", func() error { return b.Update(ctx, shop, announced(2, 0)) }, sessionstore.ErrConflict, nil},
			{"announced Update within the limit", func() error { return b.Update(ctx, shop, announced(3, 2)) }, nil, want{"shop": 4}},
			{"announced Update over the limit", func() error { return b.Update(ctx, shop, announced(4, 1)) }, sessionstore.ErrLimit, nil},
			{"renewal, no sibling", func() error { return renew(shop, 4, 0) }, nil, want{"shop": 5}},
			{"join", func() error { _, err := b.Create(ctx, office, cond(0)); return err }, nil, nil},
			{"renewal", func() error { return renew(shop, 5, 0) }, nil, want{"shop": 6, "office": 2}},
			{"renewal in conflict", func() error { return renew(shop, 5, 0) }, sessionstore.ErrConflict, nil},
			{"renewal over the limit", func() error { return renew(shop, 6, 1) }, sessionstore.ErrLimit, nil},
			{"join with renewal", func() error {
				joining := newRecord(id, "press", "Bob")
				_, err := b.Create(ctx, joining, cond(0))
				shop.SecretHash = joining.SecretHash
				return err
			}, nil, want{"shop": 7, "office": 3, "press": 1}},
			{"join with renewal over the limit", func() error {
				if _, err := b.Create(ctx, newRecord(newID(), "jobs", "Bob"), sessionstore.Condition{}); err != nil {
					return err
				}
				c := cond(0)
				c.MaxSessions = 1
				_, err := b.Create(ctx, newRecord(id, "jobs", "Bob"), c)
				return err
			}, sessionstore.ErrLimit, nil},
			{"Touch", func() error { return b.Touch(ctx, []sessionstore.Touch{{Key: shop.Key}}) }, nil, nil},
			{"Delete", func() error { _, err := b.Delete(ctx, sessionstore.Selector{ID: id}); return err }, nil, want{"": 0}},
			{"Delete of nothing", func() error { _, err := b.Delete(ctx, sessionstore.Selector{ID: id}); return err }, nil, nil},
			{"expiry", func() error {
				dbtest.Age(t, db.raw, "holdfast_sessions", 2*time.Hour)
				removed, _, err := b.DeleteExpired(ctx, sessionstore.Sweep{Apps: []string{"shop"}, Limit: 10})
				if len(removed) != 1 {
					t.Errorf("%d sessions expired", len(removed))
				}
				return err
			}, nil, nil},
		} {
			statements, polls := b.Statements(), b.Polls()
			if err := step.do(); !errors.Is(err, step.fail) {
				t.Fatalf("%s returned %v, want %v", step.what, err, step.fail)
			}
			t.Logf("%s: %d statements", step.what, b.Statements()-statements)
			if b.Polls() != polls {
				t.Errorf("%s counts as a poll", step.what)
			}
			got := want{}
			for _, e := range r.read() {
				if !seen[e.Seq] && e.Key.ID == id {
					got[e.Key.App] = e.Version
				} else if !seen[e.Seq] {
					t.Errorf("%s: event %+v", step.what, e)
				}
				seen[e.Seq] = true
			}
			if fmt.Sprint(got) != fmt.Sprint(map[string]sessionstore.Version(step.want)) {
				t.Errorf("%s stored %v, want %v", step.what, got, step.want)
			}
		}
		var rows int
		if err := db.raw.QueryRow("SELECT count(*) FROM holdfast_events").Scan(&rows); err != nil || rows != len(seen) {
			t.Errorf("the table has %d rows, error %v, want %d", rows, err, len(seen))
		}
		if r.b.Statements() != 1 || r.b.Polls() == 0 { // New asks for the schema's version
			t.Errorf("reading counted %d statements and %d polls", r.b.Statements(), r.b.Polls())
		}
	})
}

func TestDeleteOfManyStoresOneEventEach(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		b := db.open(t)
		r := newReader(t, db.open(t))
		var ids []sessionstore.ID
		for range 40 { // more than one transaction's
			rec := newRecord(newID(), "shop", "Bob")
			create(t, b, rec, sessionstore.Condition{})
			ids = append(ids, rec.Key.ID)
		}
		if _, err := b.Delete(t.Context(), sessionstore.Selector{Principal: "Bob"}); err != nil {
			t.Fatal(err)
		}
		if got := r.readIDs(make(map[int64]bool)); !slices.Equal(got, ids) {
			t.Errorf("%d events, want %d", len(got), len(ids))
		}
	})
}

func TestCursorsOutlivePruning(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		ctx, b := t.Context(), db.open(t)
		empty := newReader(t, b) // of a table that never had a row
		store := func(n int) {
			t.Helper()
			tx, err := db.raw.Begin()
			if err != nil {
				t.Fatal(err)
			}
			for range n {
				id := newID()
				if _, err := tx.Exec(db.insert(hex.EncodeToString(id[:]))); err != nil {
					t.Fatal(err)
				}
			}
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
		}
		rows := func() (n int) {
			t.Helper()
			if err := db.raw.QueryRow("SELECT count(*) FROM holdfast_events").Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		store(2500)
		if n := len(empty.read()); n != 2500 {
			t.Errorf("read %d events, want 2500", n)
		}
		r := newReader(t, b)
		if err := b.PruneEvents(ctx, 0); err != nil || rows() != 2500 {
			t.Errorf("PruneEvents of age 0 left %d events of this moment, error %v", rows(), err)
		}
		dbtest.AgeEvents(t, db.raw, "holdfast_events", 2*time.Hour)
		store(3)
		if err := b.PruneEvents(ctx, time.Hour); err != nil || rows() != 3 {
			t.Errorf("PruneEvents left %d events, error %v, want 3", rows(), err)
		}
		for _, r := range []*reader{r, empty} {
			if n := len(r.read()); n != 3 {
				t.Errorf("after pruning read %d events, want 3", n)
			}
		}
		for range 3 { // until the table is empty, but for what must stay
			dbtest.AgeEvents(t, db.raw, "holdfast_events", 2*time.Hour)
			if err := b.PruneEvents(ctx, time.Hour); err != nil {
				t.Fatal(err)
			}
			newReader(t, b)
			if n := len(r.read()); n != 0 {
				t.Errorf("nothing happened, read %d events", n)
			}
		}
		if n := rows(); n > 1 {
			t.Errorf("%d events stay for ever", n)
		}
		fresh := newReader(t, db.open(t))
		store(1)
		for _, r := range []*reader{r, empty, fresh} {
			if n := len(r.read()); n != 1 {
				t.Errorf("with an empty table behind it read %d events, want 1", n)
			}
		}
	})
}

func TestMoreEventsThanOneStatementReturns(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		b := db.open(t)
		r := newReader(t, b)
		const n = 3*4096 + 17
		tx, err := db.raw.Begin()
		if err != nil {
			t.Fatal(err)
		}
		const values = "VALUES "
		insert, _, _ := strings.Cut(db.insert(""), values)
		var want []sessionstore.ID
		var rows []string
		for range n {
			id := newID()
			want = append(want, id)
			_, row, _ := strings.Cut(db.insert(hex.EncodeToString(id[:])), values)
			rows = append(rows, row)
		}
		for some := range slices.Chunk(rows, 1000) { // one by one they would take longer than the test
			if _, err := tx.Exec(insert + values + strings.Join(some, ", ")); err != nil {
				t.Fatal(err)
			}
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		before := b.Polls()
		events := r.read()
		if polls := b.Polls() - before; polls != 4 {
			t.Errorf("it took %d statements, want 4", polls)
		}
		var got []sessionstore.ID
		for _, e := range events {
			got = append(got, e.Key.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("read %d events, want %d in their order", len(got), len(want))
		}
		before = b.Polls()
		if events := r.read(); len(events) != 0 || b.Polls()-before != 1 {
			t.Errorf("then read %d events in %d statements", len(events), b.Polls()-before)
		}
	})
}

// TestACursorOfAnotherDatabase is what a node has after the database was restored
// from a backup under it.
func TestACursorOfAnotherDatabase(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		b := db.open(t)
		for range 5 {
			id := newID()
			if _, err := db.raw.Exec(db.insert(hex.EncodeToString(id[:]))); err != nil {
				t.Fatal(err)
			}
		}
		events, next, err := b.Events(t.Context(), 1<<60)
		if err != nil || len(events) != 5 || next <= 0 || next >= 1<<60 {
			t.Fatalf("read %d events up to %d, error %v, want all 5", len(events), next, err)
		}
		r := &reader{t: t, b: b, cursor: next}
		if events := r.read(); len(events) != 0 {
			t.Errorf("then read %d events", len(events))
		}
	})
}

func TestReadingEventsHonoursTheContext(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		b := db.open(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, next, err := b.Events(ctx, 7); !errors.Is(err, context.Canceled) || next != 0 {
			t.Errorf("Events returned cursor %d and %v", next, err)
		}
		if err := b.PruneEvents(ctx, time.Hour); !errors.Is(err, context.Canceled) {
			t.Errorf("PruneEvents returned %v", err)
		}
	})
}

// BenchmarkUpdate measures what Announce costs, a session at a time and many at once.
func BenchmarkUpdate(b *testing.B) {
	for name, open := range databases {
		for _, announce := range []bool{false, true} {
			for _, writers := range []int{1, 16} {
				b.Run(fmt.Sprintf("%s/announce=%t/writers=%d", name, announce, writers), func(b *testing.B) {
					back := open(b).open(b)
					var recs []*sessionstore.Record
					for range writers {
						rec := newRecord(newID(), "shop", "")
						create(b, back, rec, sessionstore.Condition{})
						recs = append(recs, rec)
					}
					b.ResetTimer()
					var wg sync.WaitGroup
					for _, rec := range recs {
						wg.Go(func() {
							for v := range sessionstore.Version((b.N + writers - 1) / writers) {
								cond := sessionstore.Condition{Version: v + 1, SecretHash: rec.SecretHash, Announce: announce}
								if err := back.Update(b.Context(), rec, cond); err != nil {
									b.Error(err)
									return
								}
							}
						})
					}
					wg.Wait()
				})
			}
		}
	}
}
