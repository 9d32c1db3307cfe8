package sqlbackend_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/backendtest"
	"github.com/holdfast-sessions/holdfast/sqlbackend"
)

// A crowd is a Backend whose calls never travel alone.
type crowd struct {
	groupBackend
	t testing.TB
}

// Update travels with one that succeeds and two that must not, around it in the order
// of keys.
func (c *crowd) Update(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
	if rec.SecretHash != cond.SecretHash || cond.MaxSessions > 0 && rec.Principal != "" {
		return c.groupBackend.Update(ctx, rec, cond)
	}
	lives, conflicts, missing := c.stranger(), c.stranger(), newRecord(sessionstore.ID{}, "crowd", "")
	first := sessionstore.Condition{Version: 1, SecretHash: lives.SecretHash}
	errs := c.UpdateTogether(ctx,
		[]*sessionstore.Record{lives, rec, conflicts, missing},
		[]sessionstore.Condition{first, cond, {Version: 2, SecretHash: conflicts.SecretHash}, {Version: 1, SecretHash: missing.SecretHash}})
	if errs[1] == nil && (errs[0] != nil || !errors.Is(errs[2], sessionstore.ErrConflict) || !errors.Is(errs[3], sessionstore.ErrConflict)) {
		c.t.Errorf("the companions of an update returned %v, %v and %v", errs[0], errs[2], errs[3])
	}
	if errs[1] != nil {
		return fmt.Errorf("in a crowd: %w", errs[1])
	}
	return nil
}

// Load travels with two that find nothing, and one that asks for the same session in
// the name of another application.
func (c *crowd) Load(ctx context.Context, key sessionstore.Key, known sessionstore.Version) (*sessionstore.Record, error) {
	return c.LoadTogether(ctx, key, known, sessionstore.Key{ID: newID(), App: key.App}, sessionstore.Key{App: key.App},
		sessionstore.Key{ID: key.ID, App: key.App + "'s neighbour"})
}

// Create travels with one that succeeds and one that exists.
func (c *crowd) Create(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error) {
	if cond.SecretHash != (sessionstore.SecretHash{}) || cond.MaxSessions > 0 && rec.Principal != "" {
		return c.groupBackend.Create(ctx, rec, cond)
	}
	fresh := newRecord(newID(), "crowd", "")
	fresh.Idle, fresh.Lifetime = 0, 0
	created, errs := c.CreateTogether(ctx, []*sessionstore.Record{c.stranger(), rec, fresh})
	if errs[1] == nil && (!errors.Is(errs[0], sessionstore.ErrExists) || errs[2] != nil) {
		c.t.Errorf("the companions of a creation returned %v and %v", errs[0], errs[2])
	}
	if errs[1] != nil {
		return time.Time{}, fmt.Errorf("in a crowd: %w", errs[1])
	}
	return created[1], nil
}

// Delete travels with one that finds something and one that does not.
func (c *crowd) Delete(ctx context.Context, sel sessionstore.Selector) ([]*sessionstore.Record, error) {
	if sel.Principal != "" || sel.ID.IsZero() || len(sel.Except) > 0 || sel.Only != nil {
		return c.groupBackend.Delete(ctx, sel)
	}
	stranger := c.stranger()
	removed, errs := c.DeleteTogether(ctx, []sessionstore.ID{newID(), sel.ID, stranger.Key.ID})
	if errs[1] == nil && (errs[0] != nil || errs[2] != nil || len(removed[0]) != 0 || len(removed[2]) != 1 || removed[2][0].Key != stranger.Key) {
		c.t.Errorf("the companions of a deletion returned %v and %v, and %d and %d records", errs[0], errs[2], len(removed[0]), len(removed[2]))
	}
	if errs[1] != nil {
		return nil, fmt.Errorf("in a crowd: %w", errs[1])
	}
	return removed[1], nil
}

// stranger stores a session that no sweep ever finds.
func (c *crowd) stranger() *sessionstore.Record {
	rec := newRecord(newID(), "crowd", "")
	rec.Idle, rec.Lifetime = 0, 0
	if rand.N(2) == 0 {
		rec.Key.ID[0] = 0xff // behind
	}
	if _, err := c.groupBackend.Create(context.Background(), rec, sessionstore.Condition{}); err != nil {
		c.t.Error(err)
	}
	return rec
}

func TestBackendInCrowds(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		stores := make(map[sessionstore.Backend]database)
		backendtest.Run(t, backendtest.Options{
			New: func(t *testing.T) sessionstore.Backend {
				db := databases[db.name](t)
				b := &crowd{db.open(t).(groupBackend), t}
				stores[b] = db
				return b
			},
			Second: func(t *testing.T, b sessionstore.Backend) sessionstore.Backend {
				return &crowd{stores[b].open(t).(groupBackend), t}
			},
			Advance: func(t *testing.T, b sessionstore.Backend, d time.Duration) {
				dbtest.Age(t, stores[b].raw, "holdfast_sessions", d)
				dbtest.AgeEvents(t, stores[b].raw, "holdfast_events", d)
				dbtest.AgeNodes(t, stores[b].raw, "holdfast_nodes", d)
			},
		})
	})
}

// TestManyWritersEachWriteOnce has many callers save sessions of their own and some
// that they share, on two handles. Every success is a version, and nothing else is.
// Some databases store those that are not to be announced in another way.
func TestManyWritersEachWriteOnce(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		t.Run("some announced", func(t *testing.T) { writeMany(t, db, true) })
		t.Run("none announced", func(t *testing.T) { writeMany(t, db, false) })
	})
}

func writeMany(t *testing.T, db database, announce bool) {
	const writers, each, shared = 48, 25, 8
	nodes := []groupBackend{db.open(t).(groupBackend), db.open(t).(groupBackend)}
	records := make([]*sessionstore.Record, writers+shared)
	for i := range records {
		records[i] = newRecord(newID(), "shop", "")
		create(t, nodes[0], records[i], sessionstore.Condition{})
	}
	stored := make([]atomic.Int64, len(records))
	var conflicts atomic.Int64
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := range each {
				i := w
				if n%3 == 0 {
					i = writers + rand.N(shared)
				}
				on, rec := nodes[(w+n)%2], *records[i]
				now, err := on.Load(t.Context(), rec.Key, 0)
				if err != nil {
					t.Error(err)
					return
				}
				rec.Data = fmt.Appendf(nil, "%d %d %d", i, now.Version+1, w)
				cond := sessionstore.Condition{Version: now.Version, SecretHash: rec.SecretHash, Announce: announce && n%2 == 0}
				err = on.Update(t.Context(), &rec, cond)
				switch {
				case err == nil:
					stored[i].Add(1)
				case errors.Is(err, sessionstore.ErrConflict):
					conflicts.Add(1)
					if i < writers {
						t.Errorf("nobody else saves this session, but Update returned %v", err)
					}
				default:
					t.Error(err)
				}
				rec.Data[0] = 'x' // is the caller's again
			}
		})
	}
	wg.Wait()
	for i, rec := range records {
		got, err := nodes[0].Load(t.Context(), rec.Key, 0)
		if err != nil {
			t.Fatal(err)
		}
		if want := sessionstore.Version(stored[i].Load()) + 1; got.Version != want {
			t.Errorf("version is %d, want %d", got.Version, want)
		}
		if want := fmt.Sprintf("%d %d ", i, got.Version); got.Version > 1 && !strings.HasPrefix(string(got.Data), want) {
			t.Errorf("data are %q, want %q and the writer", got.Data, want)
		}
	}
	t.Logf("%d conflicts, groups %+v", conflicts.Load(), nodes[0].Groups().Updates)
}

// TestGroupsStoreWhatLoneSavesDo compares groups in which all saves fit the rows, which
// some databases store with one statement, with those in which one does not, and with
// saves that travel alone.
func TestGroupsStoreWhatLoneSavesDo(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		b := db.open(t).(groupBackend)
		for _, test := range []struct {
			what             string
			spoilt, announce bool
			statements       int64 // on MySQL; the last is that of the save that was passed over
		}{
			{"all fit", false, false, 1},
			{"one does not", true, false, 4},
			{"all fit and are announced", false, true, 2},
			{"one does not and they are announced", true, true, 5},
		} {
			const n = 9
			var recs []*sessionstore.Record
			var conds []sessionstore.Condition
			for i := range 2 * n {
				rec := newRecord(newID(), "shop", "")
				create(t, b, rec, sessionstore.Condition{})
				rec.Principal, rec.Node = strings.Repeat("p", i%n), fmt.Sprintf("node %d", i%n)
				rec.Idle, rec.Lifetime = time.Duration(i%n)*time.Minute, time.Duration(i%n)*time.Hour // 0 is without
				rec.Data = bytes.Repeat([]byte("'?\\\x00\xff{now}@id"), i%n)
				recs, conds = append(recs, rec), append(conds, sessionstore.Condition{Version: 1, SecretHash: rec.SecretHash, Announce: test.announce})
			}
			const bad = n / 2
			if test.spoilt {
				conds[bad].Version, conds[n+bad].Version = 2, 2
			}
			r, before := newReader(t, b), b.Statements()
			errs := b.UpdateTogether(t.Context(), recs[:n], conds[:n])
			if got := b.Statements() - before; db.name == "MySQL" && got != test.statements {
				t.Errorf("%s: %d statements, want %d", test.what, got, test.statements)
			}
			events := 0
			if test.announce {
				events = n
			}
			if test.announce && test.spoilt {
				events--
			}
			if got := len(r.read()); got != events {
				t.Errorf("%s: %d events, want %d", test.what, got, events)
			}
			for i, rec := range recs[n:] {
				errs = append(errs, b.Update(t.Context(), rec, conds[n+i]))
			}
			for i, err := range errs {
				if want := test.spoilt && i%n == bad; errors.Is(err, sessionstore.ErrConflict) != want || !want && err != nil {
					t.Errorf("%s: save %d returned %v", test.what, i, err)
				}
			}
			for i := range n {
				grouped, alone := stored(t, b, recs[i]), stored(t, b, recs[n+i])
				if diff := alone.AccessedAt.Sub(grouped.AccessedAt).Abs(); diff > time.Minute {
					t.Errorf("%s: save %d of the group was used %s apart from the lone one", test.what, i, diff)
				}
				if !grouped.ExpiresAt.IsZero() {
					if want := minTime(grouped.CreatedAt.Add(grouped.Lifetime), grouped.AccessedAt.Add(grouped.Idle)); !grouped.ExpiresAt.Equal(want) {
						t.Errorf("%s: save %d of the group expires at %s, want %s", test.what, i, grouped.ExpiresAt, want)
					}
				}
				if grouped.ExpiresAt.IsZero() != alone.ExpiresAt.IsZero() || grouped.Version != alone.Version ||
					grouped.Principal != alone.Principal || grouped.Node != alone.Node || grouped.Idle != alone.Idle ||
					grouped.Lifetime != alone.Lifetime || !bytes.Equal(grouped.Data, alone.Data) {
					t.Errorf("%s: save %d of the group stored %+v, the lone one %+v", test.what, i, grouped, alone)
				}
			}
		}
	})
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// TestOneBadValueFailsAlone sends one save that the database refuses in the middle of
// a group.
func TestOneBadValueFailsAlone(t *testing.T) {
	onEachServer(t, func(t *testing.T, db database) {
		poison := func(rec *sessionstore.Record) { rec.Node = strings.Repeat("long", 100) }
		if db.name == "PostgreSQL" {
			poison = func(rec *sessionstore.Record) { rec.Node = "a\x00b" }
		}
		expectOneFails(t, db.open(t).(groupBackend), poison, 2, 3, 16, 33)
	})
}

// TestOneTooLargePacketFailsAlone also covers the servers that answer such a packet by
// cutting the connection.
func TestOneTooLargePacketFailsAlone(t *testing.T) {
	for _, name := range []string{"MySQL", "MariaDB"} {
		t.Run(name, func(t *testing.T) {
			db := databases[name](t)
			var was int64
			if err := db.raw.QueryRow("SELECT @@GLOBAL.max_allowed_packet").Scan(&was); err != nil {
				t.Fatal(err)
			}
			setPacket := func(bytes int64) {
				if _, err := db.raw.Exec("SET GLOBAL max_allowed_packet = ?", bytes); err != nil {
					t.Fatal(err)
				}
			}
			setPacket(1 << 20) // for connections to come
			defer setPacket(was)
			for _, open := range []func(testing.TB) backend{db.open, db.openInterpolating} {
				for _, bytes := range []int{1 << 20, 4 << 20} {
					expectOneFails(t, open(t).(groupBackend), func(rec *sessionstore.Record) { rec.Data = make([]byte, bytes) }, 2, 7)
				}
			}
		})
	}
}

// TestAGroupThatIsTooLargeIsDivided has a group of which each part is small enough.
func TestAGroupThatIsTooLargeIsDivided(t *testing.T) {
	db := databases["MariaDB"](t)
	if _, err := db.raw.Exec("SET GLOBAL max_allowed_packet = 1 << 20"); err != nil {
		t.Fatal(err)
	}
	defer db.raw.Exec("SET GLOBAL max_allowed_packet = 16 << 20")
	b := db.openInterpolating(t).(groupBackend)
	var recs []*sessionstore.Record
	var conds []sessionstore.Condition
	for range 8 {
		rec := newRecord(newID(), "shop", "")
		create(t, b, rec, sessionstore.Condition{})
		rec.Data = bytes.Repeat([]byte("x"), 400<<10)
		recs, conds = append(recs, rec), append(conds, sessionstore.Condition{Version: 1, SecretHash: rec.SecretHash})
	}
	if err := errors.Join(b.UpdateTogether(t.Context(), recs, conds)...); err != nil {
		t.Error(err)
	}
}

// expectOneFails stores groups of saves of which one is spoilt.
func expectOneFails(t *testing.T, b groupBackend, spoil func(*sessionstore.Record), sizes ...int) {
	t.Helper()
	for _, n := range sizes {
		var recs []*sessionstore.Record
		var conds []sessionstore.Condition
		bad := rand.N(n)
		for i := range n {
			rec := newRecord(newID(), "shop", "")
			create(t, b, rec, sessionstore.Condition{})
			rec.Data = []byte("new")
			if i == bad {
				spoil(rec)
			}
			recs = append(recs, rec)
			conds = append(conds, sessionstore.Condition{Version: 1, SecretHash: rec.SecretHash, Announce: i%2 == 0})
		}
		for i, err := range b.UpdateTogether(t.Context(), recs, conds) {
			if (i == bad) != (err != nil) {
				t.Errorf("save %d of %d returned %v, the bad one is %d", i, n, err, bad)
			}
			got, err := b.Load(t.Context(), recs[i].Key, 0)
			if err != nil { // on a connection that the server closed after its complaint
				got, err = b.Load(t.Context(), recs[i].Key, 0)
			}
			if err != nil {
				t.Fatal(err)
			}
			if stored := bytes.Equal(got.Data, []byte("new")) && got.Version == 2; stored == (i == bad) {
				t.Errorf("save %d of %d: version %d, the bad one is %d", i, n, got.Version, bad)
			}
		}
	}
}

// TestAGroupAnnouncesWhatItHasStored also counts how often it rings the doorbell, which
// PostgreSQL's transactions queue up for.
func TestAGroupAnnouncesWhatItHasStored(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		b := db.open(t).(groupBackend)
		r := newReader(t, b)
		rings, ended := make(chan struct{}, 100), make(chan error, 1)
		bell, rung := b.(sessionstore.Doorbell)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if rung {
			go func() { ended <- bell.Listen(ctx, func() { rings <- struct{}{} }) }()
			<-rings // it listens
		}
		var recs []*sessionstore.Record
		var quiet, loud []sessionstore.Condition
		var want []sessionstore.Event
		for i := range 12 {
			rec := newRecord(newID(), "shop", "")
			create(t, b, rec, sessionstore.Condition{})
			cond := sessionstore.Condition{Version: 1, SecretHash: rec.SecretHash}
			recs, quiet = append(recs, rec), append(quiet, cond)
			cond.Version = 2
			if i%4 == 3 {
				cond.Version = 1 // conflicts
			}
			if cond.Announce = i%2 == 1; cond.Announce && cond.Version == 2 {
				want = append(want, sessionstore.Event{Key: rec.Key, Version: 3})
			}
			loud = append(loud, cond)
		}
		if err := errors.Join(b.UpdateTogether(t.Context(), recs, quiet)...); err != nil {
			t.Fatal(err)
		}
		if events := r.read(); len(events) > 0 {
			t.Errorf("saves that were not to be announced stored %d events", len(events))
		}
		for i, err := range b.UpdateTogether(t.Context(), recs, loud) {
			if errors.Is(err, sessionstore.ErrConflict) != (i%4 == 3) {
				t.Errorf("save %d returned %v", i, err)
			}
		}
		if _, err := b.Delete(t.Context(), sessionstore.Selector{ID: recs[0].Key.ID}); err != nil {
			t.Fatal(err)
		}
		want = append(want, sessionstore.Event{Key: sessionstore.Key{ID: recs[0].Key.ID}})
		var got []sessionstore.Event
		for _, e := range r.read() {
			e.Seq = 0
			got = append(got, e)
		}
		inOrder := func(x, y sessionstore.Event) int { return strings.Compare(fmt.Sprint(x), fmt.Sprint(y)) }
		slices.SortFunc(got, inOrder)
		slices.SortFunc(want, inOrder)
		if !slices.Equal(got, want) {
			t.Errorf("events are %v, want %v", got, want)
		}
		if rung {
			<-rings // of the group
			<-rings // of the deletion
			if cancel(); !errors.Is(<-ended, context.Canceled) || len(rings) > 0 {
				t.Errorf("a group rang %d times", 1+len(rings))
			}
		}
	})
}

// TestALostConnectionLeavesNothingHalfDone kills the connections that groups of saves
// are waiting on for a lock, so before the commit. Where it is sent apart, the rest of
// a group may be tried again, and succeed; but what failed has not happened.
func TestALostConnectionLeavesNothingHalfDone(t *testing.T) {
	onEachServer(t, func(t *testing.T, db database) {
		const saves = 16
		b := db.open(t).(groupBackend)
		var recs []*sessionstore.Record
		var conds []sessionstore.Condition
		for range saves {
			rec := newRecord(newID(), "shop", "")
			create(t, b, rec, sessionstore.Condition{})
			rec.Data = []byte("new")
			recs = append(recs, rec)
			conds = append(conds, sessionstore.Condition{Version: 1, SecretHash: rec.SecretHash, Announce: true})
		}
		slices.SortFunc(recs, func(x, y *sessionstore.Record) int { return bytes.Compare(x.Key.ID[:], y.Key.ID[:]) })
		for i, rec := range recs {
			conds[i].SecretHash = rec.SecretHash
		}
		tx := holdUpEvents(t, db) // so that the group has changed all its rows when it waits
		done := make(chan []error)
		go func() { done <- b.UpdateTogether(t.Context(), recs, conds) }()
		for killWaiters(t, db) == 0 { // until it waits
		}
		var errs []error
		for errs == nil {
			select {
			case errs = <-done:
			default:
				killWaiters(t, db) // those that were retried
			}
		}
		for killWaiters(t, db) > 0 { // who timed out may still wait, and would get the lock now
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		// So many lost connections look like a database that is away.
		for errors.Is(load(t, b, recs[0].Key), sqlbackend.ErrUnavailable) {
		}
		for i, err := range errs {
			got, loadErr := b.Load(t.Context(), recs[i].Key, 0)
			if loadErr != nil {
				t.Fatal(loadErr)
			}
			if stored := got.Version == 2 && bytes.Equal(got.Data, recs[i].Data); stored != (err == nil) {
				t.Errorf("save %d returned %v, and the version is %d", i, err, got.Version)
			}
			if err == nil && db.name == "PostgreSQL" {
				t.Errorf("save %d was tried again after its outcome was unknown", i)
			}
			conds[i].Version = got.Version
		}
		if errs := b.UpdateTogether(t.Context(), recs, conds); errors.Join(errs...) != nil {
			t.Errorf("after that: %v", errors.Join(errs...))
		}
	})
}
