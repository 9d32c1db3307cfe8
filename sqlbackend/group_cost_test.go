package sqlbackend_test

import (
	"errors"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// TestStatementsPerGroup is what calls cost that travel together, exactly: more is a
// regression, less is to be written down here.
func TestStatementsPerGroup(t *testing.T) {
	const calls = 9
	type costs struct{ saves, loads, creations, deletions, touches int64 }
	want := map[string]costs{
		"SQLite":     {saves: 9, loads: 1, creations: 11, deletions: 4, touches: 2},
		"PostgreSQL": {saves: 1, loads: 1, creations: 1, deletions: 2, touches: 2},
		"MySQL":      {saves: 1, loads: 1, creations: 3, deletions: 4, touches: 2},
		"MariaDB":    {saves: 2, loads: 1, creations: 3, deletions: 4, touches: 2},
	}
	onEachDatabase(t, func(t *testing.T, db database) {
		b := db.open(t).(groupBackend)
		recs, conds := make([]*sessionstore.Record, calls), make([]sessionstore.Condition, calls)
		keys, ids := make([]sessionstore.Key, calls), make([]sessionstore.ID, calls)
		for i := range recs {
			recs[i] = newRecord(newID(), "shop", "")
			conds[i] = sessionstore.Condition{Version: 1, SecretHash: recs[i].SecretHash}
			keys[i], ids[i] = recs[i].Key, recs[i].Key.ID
		}
		touches := make([]sessionstore.Touch, 257) // one more than a statement takes
		for i := range touches {
			touches[i] = sessionstore.Touch{Key: sessionstore.Key{ID: newID(), App: "shop"}, Ago: time.Second}
		}
		var got costs
		for _, step := range []struct {
			cost *int64
			run  func() error
		}{
			{&got.creations, func() error { _, errs := b.CreateTogether(t.Context(), recs); return errors.Join(errs...) }},
			{&got.saves, func() error { return errors.Join(b.UpdateTogether(t.Context(), recs, conds)...) }},
			// On SQLite each question travels alone, and this is the one.
			{&got.loads, func() error { _, err := b.LoadTogether(t.Context(), keys[0], 0, keys[1:]...); return err }},
			{&got.touches, func() error { return b.Touch(t.Context(), touches) }},
			{&got.deletions, func() error { _, errs := b.DeleteTogether(t.Context(), ids); return errors.Join(errs...) }},
		} {
			before := b.Statements()
			if err := step.run(); err != nil {
				t.Fatal(err)
			}
			*step.cost = b.Statements() - before
		}
		if want := want[db.name]; got != want {
			t.Errorf("%s: %+v statements, want %+v", db.name, got, want)
		}
	})
}
