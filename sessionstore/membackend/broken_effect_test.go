package membackend

import (
	"context"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// created lets change spoil the record r that Create made of rec.
func (b *broken) created(change func(rec, r *sessionstore.Record)) {
	b.create = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error) {
		created, err := b.Backend.Create(ctx, rec, cond)
		if err == nil {
			b.with(rec.Key, func(r *sessionstore.Record, _ time.Time) { change(rec, r) })
		}
		return created, err
	}
}

// updated lets change spoil the record r that Update has stored in place of was.
func (b *broken) updated(change func(was, r *sessionstore.Record)) {
	b.update = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
		was := b.stored(rec.Key)
		err := b.Backend.Update(ctx, rec, cond)
		if err == nil && was != nil {
			b.with(rec.Key, func(r *sessionstore.Record, _ time.Time) { change(was, r) })
		}
		return err
	}
}

// limited lets change spoil the condition of Create and Update, or refuse, with
// the lock held.
func (b *broken) limited(change func(rec *sessionstore.Record, cond *sessionstore.Condition, now time.Time) (refuse bool)) {
	b.create = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error) {
		refuse := false
		b.locked(func(now time.Time) { refuse = change(rec, &cond, now) })
		if refuse {
			return time.Time{}, sessionstore.ErrLimit
		}
		return b.Backend.Create(ctx, rec, cond)
	}
	b.update = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
		refuse := false
		b.locked(func(now time.Time) { refuse = change(rec, &cond, now) })
		if refuse {
			return sessionstore.ErrLimit
		}
		return b.Backend.Update(ctx, rec, cond)
	}
}

// counted refuses what goes beyond a limit by another way of counting.
func (b *broken) counted(counts func(rec, r *sessionstore.Record, now time.Time) bool) {
	b.limited(func(rec *sessionstore.Record, cond *sessionstore.Condition, now time.Time) bool {
		n := 1
		for _, r := range b.principals[rec.Principal] {
			if counts(rec, r, now) {
				n++
			}
		}
		return cond.MaxSessions > 0 && n > cond.MaxSessions
	})
}

// touched lets change spoil each record that a right touch has named.
func (b *broken) touched(change func(r *sessionstore.Record, now, at time.Time)) {
	b.touch = func(ctx context.Context, touches []sessionstore.Touch) error {
		err := b.Backend.Touch(ctx, touches)
		b.locked(func(now time.Time) {
			for _, t := range touches {
				if r := b.sessions[t.Key.ID][t.Key.App]; r != nil && err == nil {
					change(r, now, now.Add(-t.Ago))
				}
			}
		})
		return err
	}
}
