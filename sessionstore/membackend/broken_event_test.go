package membackend

import (
	"context"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// mute drops the events that f stored, or those of them that it chooses.
func (b *broken) mute(f func() error, drop func(sessionstore.Event) bool) error {
	b.locked(func(time.Time) { b.muting = b.lastEvent })
	err := f()
	b.locked(func(time.Time) {
		kept := b.events[:0]
		for _, e := range b.events {
			if e.Seq <= b.muting || !drop(e.Event) {
				kept = append(kept, e)
			}
		}
		b.events = kept
	})
	return err
}

func all(sessionstore.Event) bool { return true }

var eventFaults = []fault{
	{name: "Delete stores no event", fails: []string{
		"Events/Delete stores one event for each ID",
		"Events/PruneEvents removes old events only",
		"Events/nothing is missed at once with others",
	}, wreck: func(b *broken) {
		b.delete = func(ctx context.Context, sel sessionstore.Selector) (removed []*sessionstore.Record, err error) {
			err = b.mute(func() error { removed, err = b.Backend.Delete(ctx, sel); return err }, all)
			return removed, err
		}
	}},
	{name: "renewals store an event for their own record only", fails: []string{
		"Events/renewals store one event for each record",
	}, wreck: func(b *broken) {
		b.update = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
			return b.mute(func() error { return b.Backend.Update(ctx, rec, cond) },
				func(e sessionstore.Event) bool { return e.Key.App != rec.Key.App })
		}
	}},
	{name: "Update does not announce", fails: []string{
		"Events/Update stores an event if asked",
	}, wreck: func(b *broken) {
		b.update = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
			cond.Announce = false
			return b.Backend.Update(ctx, rec, cond)
		}
	}},
	{name: "Update announces unasked", fails: []string{
		"Events/Update stores an event if asked",
	}, wreck: func(b *broken) {
		b.update = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
			cond.Announce = true
			return b.Backend.Update(ctx, rec, cond)
		}
	}},
	{name: "Create stores an event", fails: []string{
		"Events/Delete stores one event for each ID",
		"Events/PruneEvents removes old events only",
		"Events/other writes store none",
	}, wreck: func(b *broken) {
		b.create = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error) {
			created, err := b.Backend.Create(ctx, rec, cond)
			if err == nil && cond.SecretHash == (sessionstore.SecretHash{}) {
				b.locked(func(time.Time) { b.announceLocked(rec.Key, 1) })
			}
			return created, err
		}
	}},
	{name: "the zero Cursor returns all events", fails: []string{
		"Events/Delete stores one event for each ID",
		"Events/PruneEvents removes old events only",
		"Events/Update stores an event if asked",
		"Events/nothing is missed at once with others",
		"Events/other writes store none",
		"Events/renewals store one event for each record",
		"Events/the zero Cursor returns none",
	}, wreck: func(b *broken) {
		b.locked(func(time.Time) { b.announceLocked(sessionstore.Key{}, 0) })
		b.heard = func(ctx context.Context, after sessionstore.Cursor) ([]sessionstore.Event, sessionstore.Cursor, error) {
			return b.Backend.Events(ctx, max(after, 1))
		}
	}},
}
