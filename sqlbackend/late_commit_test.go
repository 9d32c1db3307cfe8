package sqlbackend_test

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// TestNothingIsMissedHoweverLateItCommits holds transactions open while the reader
// goes on, commits them in another order than they were begun, or rolls them back.
func TestNothingIsMissedHoweverLateItCommits(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		ctx := t.Context()
		const writers, rounds = 12, 30
		var (
			wg      sync.WaitGroup
			polls   atomic.Int64
			turn    = sync.NewCond(new(sync.Mutex))
			mu      sync.Mutex // guards everything below
			want    = make(map[sessionstore.ID]bool)
			never   = make(map[sessionstore.ID]bool)
			unended atomic.Int64
		)
		r := newReader(t, db.open(t))
		unended.Store(writers)
		// await returns after the reader has read n times, or at once where only one
		// may write: the others would wait for it.
		await := func(n int64) {
			if db.serial {
				return
			}
			turn.L.Lock()
			defer turn.L.Unlock()
			for until := polls.Load() + n; polls.Load() < until; {
				turn.Wait()
			}
		}
		for w := range writers {
			b := db.open(t)
			wg.Go(func() {
				defer unended.Add(-1)
				for n := range rounds {
					if w%3 == 0 { // the library's own, which commit at once
						rec := newRecord(newID(), "shop", "")
						if _, err := b.Create(ctx, rec, sessionstore.Condition{}); err != nil {
							t.Error(err)
							return
						}
						mu.Lock()
						want[rec.Key.ID] = true
						mu.Unlock()
						cond := sessionstore.Condition{Version: 1, SecretHash: rec.SecretHash, Announce: true}
						if err := b.Update(ctx, rec, cond); err != nil {
							t.Error(err)
							return
						}
						continue
					}
					id := newID()
					tx, err := db.raw.BeginTx(ctx, nil)
					if err != nil {
						t.Error(err)
						return
					}
					if _, err := tx.ExecContext(ctx, db.insert(hex.EncodeToString(id[:]))); err != nil {
						t.Error(err)
						return
					}
					await(int64(1 + (w+n)%4))
					end := tx.Commit
					mu.Lock()
					if n%5 == 4 {
						end, never[id] = tx.Rollback, true
					} else {
						want[id] = true
					}
					mu.Unlock()
					if err := end(); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		seen, returned := make(map[int64]bool), 0
		for last := false; ; {
			ended := unended.Load() == 0
			for _, id := range r.readIDs(seen) {
				returned++
				mu.Lock()
				if !want[id] || never[id] {
					t.Errorf("an event was returned that is not committed, or twice under two numbers")
				}
				delete(want, id)
				mu.Unlock()
			}
			turn.L.Lock()
			polls.Add(1)
			turn.L.Unlock()
			turn.Broadcast()
			if last {
				break
			}
			last = ended
		}
		wg.Wait()
		t.Logf("%d events in %d polls", returned, polls.Load())
		if len(want) > 0 {
			t.Errorf("%d of %d events were missed", len(want), len(want)+returned)
		}
	})
}

// TestALateCommitIsReturnedAfterLaterOnes is the same once, step by step, also with
// a cursor that was taken in the middle.
func TestALateCommitIsReturnedAfterLaterOnes(t *testing.T) {
	onEachServer(t, func(t *testing.T, db database) {
		b := db.open(t)
		r, seen := newReader(t, b), make(map[int64]bool)
		late, rolled := newID(), newID()
		hold := func(id sessionstore.ID) *sql.Tx {
			tx, err := db.raw.BeginTx(context.Background(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(db.insert(hex.EncodeToString(id[:]))); err != nil {
				t.Fatal(err)
			}
			return tx
		}
		lateTx, rolledTx := hold(late), hold(rolled)
		middle := newReader(t, b)
		for range 20 {
			rec := newRecord(newID(), "shop", "")
			create(t, b, rec, sessionstore.Condition{})
			if _, err := b.Delete(t.Context(), sessionstore.Selector{ID: rec.Key.ID}); err != nil {
				t.Fatal(err)
			}
			if got := r.readIDs(seen); !slices.Equal(got, []sessionstore.ID{rec.Key.ID}) {
				t.Fatalf("read %v, want %v", got, rec.Key.ID)
			}
		}
		middle.read()
		if err := errors.Join(rolledTx.Rollback(), lateTx.Commit()); err != nil {
			t.Fatal(err)
		}
		if got := r.readIDs(seen); !slices.Equal(got, []sessionstore.ID{late}) {
			t.Errorf("after the late commit read %v, want %v", got, late)
		}
		if got := middle.readIDs(make(map[int64]bool)); !slices.Contains(got, late) {
			t.Errorf("a reader that began in between missed it")
		}

		// What is settled is not read again: at once where the database tells, and
		// else when the gap is old.
		if db.gaps {
			dbtest.AgeEvents(t, db.raw, "holdfast_events", 2*time.Minute)
			r.read()
		}
		if events := r.read(); len(events) != 0 {
			t.Errorf("%d events are read for ever", len(events))
		}
	})
}

func TestAnAnnouncedUpdateThatWaitedIsNotMissed(t *testing.T) {
	onEachServer(t, func(t *testing.T, db database) {
		b := db.open(t)
		r, seen := newReader(t, b), make(map[int64]bool)
		rec := newRecord(newID(), "shop", "")
		create(t, b, rec, sessionstore.Condition{})
		for v := range sessionstore.Version(10) {
			tx, err := db.raw.Begin()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec("UPDATE holdfast_sessions SET node = 'x'"); err != nil { // locks the row
				t.Fatal(err)
			}
			done := make(chan error)
			go func() {
				done <- b.Update(t.Context(), rec, sessionstore.Condition{Version: v + 1, SecretHash: rec.SecretHash, Announce: true})
			}()
			other := newID()
			if _, err := db.raw.Exec(db.insert(hex.EncodeToString(other[:]))); err != nil {
				t.Fatal(err)
			}
			if got := r.readIDs(seen); !slices.Equal(got, []sessionstore.ID{other}) {
				t.Errorf("read %v, want %v", got, other)
			}
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if got := r.readIDs(seen); !slices.Equal(got, []sessionstore.ID{rec.Key.ID}) {
				t.Errorf("read %v, want %v", got, rec.Key.ID)
			}
		}
	})
}
