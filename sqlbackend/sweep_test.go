package sqlbackend_test

import (
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/internal/dbtest"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// A sweep goes on where its last transaction ended, and the next one begins at the
// first slot.
func TestSweepGoesOn(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		b := db.open(t)
		left := map[sessionstore.ID]bool{}
		for _, principal := range []string{"1", "2", "3", "4", "last"} {
			rec := newRecord(newID(), "shop", principal)
			if _, err := b.Create(t.Context(), rec, sessionstore.Condition{}); err != nil {
				t.Fatal(err)
			}
			left[rec.Key.ID] = true
		}
		dbtest.Age(t, db.raw, "holdfast_sessions", 2*time.Hour)
		sweep := func(wantMore bool, want int) {
			t.Helper()
			removed, more, err := b.DeleteExpired(t.Context(), sessionstore.Sweep{Apps: []string{"shop"}, Limit: 2})
			if err != nil || more != wantMore || len(removed) != want {
				t.Fatalf("removed %d, more %t, %v; want %d, %t", len(removed), more, err, want, wantMore)
			}
			for _, rec := range removed {
				if !left[rec.Key.ID] {
					t.Errorf("removed %s, which is none of what is left", rec.Key.ID)
				}
				delete(left, rec.Key.ID)
			}
		}
		sweep(true, 2)
		// As if it had been locked when the sweep passed.
		if _, err := db.raw.ExecContext(t.Context(), "UPDATE holdfast_sessions SET expiry_slot = 1 WHERE principal = 'last'"); err != nil {
			t.Fatal(err)
		}
		sweep(true, 2)
		sweep(false, 0)
		sweep(false, 1)
		sweep(false, 0)
	})
}
