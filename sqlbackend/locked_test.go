package sqlbackend_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sqlbackend"
)

// TestALockedRowHoldsUpNobodyElse has callers save at once while somebody keeps one of
// their rows locked, for longer than they wait for each other.
func TestALockedRowHoldsUpNobodyElse(t *testing.T) {
	onEachServer(t, func(t *testing.T, db database) {
		b := db.open(t).(groupBackend)
		for _, announce := range []bool{false, true} {
			recs := createMany(t, b, "")
			release := keepLocked(t, db, recs[0].Key.ID)
			save := func(rec *sessionstore.Record) error {
				for version := range sessionstore.Version(3) {
					err := b.Update(t.Context(), rec, sessionstore.Condition{Version: version + 1, SecretHash: rec.SecretHash, Announce: announce})
					if err != nil {
						return err
					}
				}
				return nil
			}
			locked := make(chan error, 1)
			go func() { locked <- save(recs[0]) }()
			var others sync.WaitGroup
			for _, rec := range recs[1:] {
				others.Go(func() {
					if err := save(rec); err != nil {
						t.Errorf("beside a locked row: %v", err)
					}
				})
			}
			others.Wait()
			if len(locked) > 0 {
				t.Fatalf("the save of the locked row did not wait: %v", <-locked)
			}
			release()
			if err := <-locked; err != nil {
				t.Errorf("after the lock: %v", err)
			}
		}
	})
}

// TestManyPassedOver is about more saves at once than a group takes along: those that
// conflict are told so at once, also while others wait for rows that somebody keeps
// locked, and those that were locked for a moment are stored.
func TestManyPassedOver(t *testing.T) {
	const many = 200
	onEachServer(t, func(t *testing.T, db database) {
		b := db.open(t).(groupBackend)
		var recs []*sessionstore.Record
		for range many {
			recs = append(recs, newRecord(newID(), "shop", ""))
		}
		if _, errs := b.CreateTogether(t.Context(), recs); errors.Join(errs...) != nil {
			t.Fatal(errors.Join(errs...))
		}
		save := func(recs []*sessionstore.Record, version sessionstore.Version, want error) {
			var wg sync.WaitGroup
			for _, rec := range recs {
				wg.Go(func() {
					err := b.Update(t.Context(), rec, sessionstore.Condition{Version: version, SecretHash: rec.SecretHash})
					if !errors.Is(err, want) {
						t.Errorf("saved in version %d: %v, want %v", version, err, want)
					}
				})
			}
			wg.Wait()
		}
		save(recs, 7, sessionstore.ErrConflict)

		release := keepLocked(t, db, recs[0].Key.ID, recs[1].Key.ID, recs[2].Key.ID, recs[3].Key.ID, recs[4].Key.ID, recs[5].Key.ID)
		var waiting sync.WaitGroup
		waiting.Go(func() { save(recs[:many/2], 1, nil) })
		start := time.Now()
		save(recs[many/2:], 7, sessionstore.ErrConflict)
		if took := time.Since(start); took > sqlbackend.DefaultStatementTimeout/2 {
			t.Errorf("those that conflict were told so after %v", took)
		}
		release()
		waiting.Wait()
	})
}

// TestLockedRowsLeaveFlights saves locked rows one after the other, so that none meets
// another.
func TestLockedRowsLeaveFlights(t *testing.T) {
	onEachServer(t, func(t *testing.T, db database) {
		b := db.open(t).(groupBackend)
		recs := createMany(t, b, "")
		locked, free := recs[:6], recs[6]
		var ids []sessionstore.ID
		for _, rec := range locked {
			ids = append(ids, rec.Key.ID)
		}
		release := keepLocked(t, db, ids...)
		save := func(rec *sessionstore.Record) {
			if err := b.Update(t.Context(), rec, sessionstore.Condition{Version: 1, SecretHash: rec.SecretHash}); err != nil {
				t.Error(err)
			}
		}
		var waiting sync.WaitGroup
		for _, rec := range locked {
			before := b.Groups().Updates.Groups
			waiting.Go(func() { save(rec) })
			for b.Groups().Updates.Groups == before { // until it has set out
				<-time.After(time.Millisecond)
			}
		}
		start := time.Now()
		save(free)
		if took := time.Since(start); took > time.Second {
			t.Errorf("a session that nobody has locked was saved after %v", took)
		}
		release()
		waiting.Wait()
	})
}

// TestALockedSessionHoldsUpNoLogout is about sessions that end at once.
func TestALockedSessionHoldsUpNoLogout(t *testing.T) {
	onEachServer(t, func(t *testing.T, db database) {
		b := db.open(t).(groupBackend)
		recs := createMany(t, b, "")
		release := keepLocked(t, db, recs[0].Key.ID)
		end := func(rec *sessionstore.Record) error {
			removed, err := b.Delete(t.Context(), sessionstore.Selector{ID: rec.Key.ID})
			if err == nil && (len(removed) != 1 || removed[0].Key != rec.Key) {
				return fmt.Errorf("Delete of %v returned %v", rec.Key, removed)
			}
			return err
		}
		locked := make(chan error, 1)
		go func() { locked <- end(recs[0]) }()
		var others sync.WaitGroup
		for _, rec := range recs[1:] {
			others.Go(func() {
				if err := end(rec); err != nil {
					t.Errorf("beside a locked session: %v", err)
				}
			})
		}
		others.Wait()
		if len(locked) > 0 {
			t.Fatalf("the logout of the locked session did not wait: %v", <-locked)
		}
		release()
		if err := <-locked; err != nil {
			t.Errorf("after the lock: %v", err)
		}
	})
}

// TestALockedNeighbourHoldsUpNobody is about sessions that stand between two that somebody
// keeps locked, in the order of IDs.
func TestALockedNeighbourHoldsUpNobody(t *testing.T) {
	onEachServer(t, func(t *testing.T, db database) {
		b := db.open(t).(groupBackend)
		recs := createMany(t, b, "")
		var locked []sessionstore.ID
		for i := 0; i < len(recs); i += 2 {
			locked = append(locked, recs[i].Key.ID)
		}
		defer keepLocked(t, db, locked...)()
		for i, what := range []string{"save", "touch", "login", "counted login", "join", "renewing join", "logout", "logout everywhere"} {
			rec := recs[2*i+1]
			renewed, joining := *rec, newRecord(rec.Key.ID, "office", "ann")
			renewed.SecretHash, renewed.Principal = newHash(), "ann"
			cond := sessionstore.Condition{Version: 1, SecretHash: rec.SecretHash}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			var err error
			switch what {
			case "save":
				err = b.Update(ctx, rec, cond)
			case "touch":
				err = b.Touch(ctx, []sessionstore.Touch{{Key: rec.Key}})
			case "counted login":
				cond.MaxSessions = 100
				fallthrough
			case "login":
				err = b.Update(ctx, &renewed, cond)
			case "join":
				joining.SecretHash = rec.SecretHash
				fallthrough
			case "renewing join":
				_, err = b.Create(ctx, joining, sessionstore.Condition{SecretHash: rec.SecretHash})
			case "logout":
				_, err = b.Delete(ctx, sessionstore.Selector{ID: rec.Key.ID})
			case "logout everywhere":
				_, err = b.Delete(ctx, sessionstore.Selector{Principal: "ann"})
			}
			cancel()
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

// TestWhoGivesUpHoldsNobody has calls that concern many sessions wait in vain for one of
// them. What the others are to be done happens, and afterwards they are free.
func TestWhoGivesUpHoldsNobody(t *testing.T) {
	onEachServer(t, func(t *testing.T, db database) {
		b := db.open(t).(groupBackend)
		inVain := func(call func(context.Context) error) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("with a session locked: %v", err)
			}
		}

		t.Run("touch", func(t *testing.T) {
			recs := createMany(t, b, "")
			last := len(recs) - 1
			var touches []sessionstore.Touch
			for _, rec := range recs {
				touches = append(touches, sessionstore.Touch{Key: rec.Key})
			}
			var before []time.Time
			for _, rec := range recs {
				before = append(before, stored(t, b, rec).AccessedAt)
			}
			release := keepLocked(t, db, recs[last].Key.ID)
			inVain(func(ctx context.Context) error { return b.Touch(ctx, touches) })
			for i, rec := range recs[:last] {
				if after := stored(t, b, rec).AccessedAt; !after.After(before[i]) {
					t.Errorf("session %d was not touched: %v, before %v", i, after, before[i])
				}
				if err := b.Update(t.Context(), rec, sessionstore.Condition{Version: 1, SecretHash: rec.SecretHash}); err != nil {
					t.Errorf("a save of session %d: %v", i, err)
				}
			}
			release()
			if err := b.Touch(t.Context(), touches); err != nil {
				t.Errorf("after the lock: %v", err)
			}
			if after := stored(t, b, recs[last]).AccessedAt; !after.After(before[last]) {
				t.Errorf("the locked session was not touched: %v, before %v", after, before[last])
			}
		})

		t.Run("log out everywhere", func(t *testing.T) {
			recs := createMany(t, b, "ann")
			last := len(recs) - 1
			release := keepLocked(t, db, recs[last].Key.ID)
			inVain(func(ctx context.Context) error {
				removed, err := b.Delete(ctx, sessionstore.Selector{Principal: "ann"})
				if len(removed) != last {
					t.Errorf("%d sessions were removed, want %d", len(removed), last)
				}
				return err
			})
			for i, rec := range recs[:last] {
				if err := load(t, b, rec.Key); !errors.Is(err, sessionstore.ErrNotFound) {
					t.Errorf("session %d is still there: %v", i, err)
				}
			}
			release()
			removed, err := b.Delete(t.Context(), sessionstore.Selector{Principal: "ann"})
			if err != nil || len(removed) != 1 {
				t.Errorf("after the lock, %d sessions were removed: %v", len(removed), err)
			}
		})
	})
}

// TestNothingRevivesWhileItWaits has writes wait for the lock of a row until it has
// expired, and others have been told so (P3).
func TestNothingRevivesWhileItWaits(t *testing.T) {
	onEachServer(t, func(t *testing.T, db database) {
		b := db.open(t).(groupBackend)
		tx, err := db.raw.Begin()
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		began := func(idle time.Duration) (*sessionstore.Record, sessionstore.Condition) {
			t.Helper()
			rec := newRecord(newID(), "shop", "")
			rec.Idle = idle
			create(t, b, rec, sessionstore.Condition{})
			return rec, sessionstore.Condition{Version: 1, SecretHash: rec.SecretHash}
		}
		companion, itsCond := began(time.Hour)
		writes := map[string]func(*sessionstore.Record, sessionstore.Condition) error{
			"update": func(rec *sessionstore.Record, cond sessionstore.Condition) error {
				return b.Update(t.Context(), rec, cond)
			},
			"group": func(rec *sessionstore.Record, cond sessionstore.Condition) error {
				errs := b.UpdateTogether(t.Context(), []*sessionstore.Record{rec, companion}, []sessionstore.Condition{cond, itsCond})
				if errs[1] != nil {
					t.Errorf("its companion: %v", errs[1])
				}
				return errs[0]
			},
			"touch": func(rec *sessionstore.Record, _ sessionstore.Condition) error {
				return b.Touch(t.Context(), []sessionstore.Touch{{Key: rec.Key}})
			},
		}
		if db.name == "PostgreSQL" {
			delete(writes, "update") // judges a row again only if it has changed
		}
		dying, results := make(map[string]*sessionstore.Record), make(map[string]chan error)
		for what := range writes {
			dying[what], _ = began(time.Second)
		}
		for what, rec := range dying {
			if _, err := tx.Exec(lockRow[db.name], lockArg(db.name, rec.Key.ID)); err != nil {
				t.Fatal(err)
			}
			later := *rec
			later.Idle = time.Hour
			result := make(chan error, 1)
			go func() {
				result <- writes[what](&later, sessionstore.Condition{Version: 1, SecretHash: rec.SecretHash})
			}()
			results[what] = result
		}
		for what, rec := range dying {
			for !errors.Is(load(t, b, rec.Key), sessionstore.ErrNotFound) { // until it has expired
			}
			if len(results[what]) > 0 {
				err := <-results[what]
				t.Errorf("%s did not wait: %v", what, err)
				results[what] <- err
			}
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		for what, rec := range dying {
			if err := <-results[what]; what != "touch" && !errors.Is(err, sessionstore.ErrConflict) {
				t.Errorf("%s returned %v", what, err)
			}
			if err := load(t, b, rec.Key); !errors.Is(err, sessionstore.ErrNotFound) {
				t.Errorf("%s: expired, then loaded: %v", what, err)
			}
		}
	})
}

// A save whose caller gave up while it waited for its row is not stored when the row is free
// at last. MySQL goes on waiting for it.
func TestWhatWasGivenUpIsNotStored(t *testing.T) {
	onEachServer(t, func(t *testing.T, db database) {
		b := db.open(t)
		rec := newRecord(newID(), "shop", "")
		create(t, b, rec, sessionstore.Condition{})
		release := keepLocked(t, db, rec.Key.ID)
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		err := b.Update(ctx, rec, sessionstore.Condition{Version: 1, SecretHash: rec.SecretHash})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with the session locked: %v", err)
		}
		<-time.After(100 * time.Millisecond) // more than the way to the server
		release()
		keepLocked(t, db, rec.Key.ID)() // when those who waited have had their turn
		if got := stored(t, b, rec); got.Version != 1 {
			t.Errorf("what had been given up was stored, as version %d", got.Version)
		}
		if err := b.Update(t.Context(), rec, sessionstore.Condition{Version: 1, SecretHash: rec.SecretHash}); err != nil {
			t.Errorf("after that: %v", err)
		}
	})
}

// A login whose connection is lost before its COMMIT has not happened, and is tried again.
func TestALoginOutlivesItsConnection(t *testing.T) {
	onEachServer(t, func(t *testing.T, db database) {
		b := db.open(t)
		rec := newRecord(newID(), "shop", "")
		create(t, b, rec, sessionstore.Condition{})
		release := keepLocked(t, db, rec.Key.ID)
		done := make(chan error, 1)
		go func() {
			renewed := *rec
			renewed.SecretHash, renewed.Principal = newHash(), "ann"
			done <- b.Update(t.Context(), &renewed, sessionstore.Condition{Version: 1, SecretHash: rec.SecretHash})
		}()
		for killWaiters(t, db) == 0 { // until it waits
		}
		for len(done) == 0 && len(findWaiters(t, db)) == 0 { // until it waits again
		}
		release()
		if err := <-done; err != nil {
			t.Errorf("a login whose connection was lost: %v", err)
		}
		if got := stored(t, b, rec); got.Principal != "ann" || got.Version != 2 {
			t.Errorf("stored version %d of %q", got.Version, got.Principal)
		}
	})
}
