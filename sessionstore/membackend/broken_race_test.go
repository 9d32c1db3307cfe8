package membackend

import (
	"context"
	"runtime"
	"slices"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// raceFaults read, let others go first, and then act on what they have read.
var raceFaults = []fault{
	{name: "Update compares and then sets", fails: []string{"Concurrent/increments of one record lose nothing"}, wreck: func(b *broken) {
		b.update = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
			r := b.stored(rec.Key)
			if r == nil || r.Version != cond.Version || r.SecretHash != cond.SecretHash {
				return sessionstore.ErrConflict
			}
			letOthers()
			if r = b.stored(rec.Key); r == nil {
				return sessionstore.ErrConflict
			}
			cond.Version = r.Version
			return b.Backend.Update(ctx, rec, cond)
		}
	}},
	{name: "Create looks and then inserts", fails: []string{
		"Concurrent/of creations under one ID exactly one wins",
		"Concurrent/of creations under one key exactly one wins",
	}, wreck: func(b *broken) {
		b.create = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error) {
			b.mu.Lock()
			taken := len(b.sessions[rec.Key.ID]) > 0
			b.mu.Unlock()
			if cond.SecretHash != noHash || taken || cond.MaxSessions > 0 || ctx.Err() != nil {
				return b.Backend.Create(ctx, rec, cond)
			}
			letOthers()
			return b.insert(rec), nil
		}
	}},
	{name: "a join looks and then inserts", fails: []string{
		"Concurrent endings/a join and a deletion at once leave no survivor",
		"Concurrent/joins and renewals at once leave one hash",
		"Concurrent/of joins under one key exactly one wins",
	}, wreck: func(b *broken) {
		b.create = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error) {
			if cond.SecretHash == noHash {
				return b.Backend.Create(ctx, rec, cond)
			}
			proven := false
			b.locked(func(now time.Time) {
				for _, r := range b.sessions[rec.Key.ID] {
					proven = proven || r.SecretHash == cond.SecretHash && live(r, now) && r.Key != rec.Key
				}
				proven = proven && b.sessions[rec.Key.ID][rec.Key.App] == nil && !b.exceedsLocked(rec, cond, now)
			})
			if !proven || rec.SecretHash != cond.SecretHash {
				return b.Backend.Create(ctx, rec, cond)
			}
			letOthers()
			return b.insert(rec), nil
		}
	}},
	{name: "MaxSessions counts and then writes", fails: []string{"Concurrent/logins never exceed MaxSessions"}, wreck: func(b *broken) {
		within := func(rec *sessionstore.Record, cond *sessionstore.Condition) (exceeds bool) {
			b.locked(func(now time.Time) { exceeds = b.exceedsLocked(rec, *cond, now) })
			if !exceeds {
				cond.MaxSessions = 0
			}
			letOthers()
			return exceeds
		}
		b.create = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error) {
			within(rec, &cond)
			return b.Backend.Create(ctx, rec, cond)
		}
		b.update = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
			within(rec, &cond)
			return b.Backend.Update(ctx, rec, cond)
		}
	}},
	{name: "Delete reads and then removes", fails: []string{
		"Concurrent endings/a deletion and a sweep at once return a record once",
		"Concurrent endings/a join and a deletion at once leave no survivor",
		"Concurrent endings/an update and a deletion at once leave no survivor",
		"Concurrent endings/of deletions exactly one returns a record",
	}, wreck: func(b *broken) {
		b.delete = func(ctx context.Context, sel sessionstore.Selector) ([]*sessionstore.Record, error) {
			var found []*sessionstore.Record
			b.locked(func(now time.Time) {
				seen := make(map[sessionstore.ID]bool)
				for _, r := range b.selectLocked(sel, now) {
					for _, sibling := range b.sessions[r.Key.ID] {
						if live(sibling, now) && !seen[r.Key.ID] {
							found = append(found, copyOf(sibling, now))
						}
					}
					seen[r.Key.ID] = true
				}
			})
			letOthers()
			if _, err := b.Backend.Delete(ctx, sel); err != nil {
				return nil, err
			}
			return found, nil
		}
	}},
	{name: "DeleteExpired reads and then removes", fails: []string{"Concurrent endings/sweeps return each record once"}, wreck: func(b *broken) {
		b.deleteExpired = func(ctx context.Context, sweep sessionstore.Sweep) ([]*sessionstore.Record, bool, error) {
			if sweep.Orphans > 0 {
				return b.Backend.DeleteExpired(ctx, sweep)
			}
			var found []*sessionstore.Record
			more := false
			b.locked(func(now time.Time) {
				for _, records := range b.sessions {
					for _, r := range records {
						for _, app := range sweep.Apps {
							if app == r.Key.App && !live(r, now) && (sweep.ID.IsZero() || sweep.ID == r.Key.ID) {
								found = append(found, copyOf(r, now))
							}
						}
					}
				}
			})
			if len(found) > sweep.Limit {
				found, more = found[:sweep.Limit], true
			}
			letOthers()
			b.locked(func(time.Time) {
				for _, r := range found {
					if r = b.sessions[r.Key.ID][r.Key.App]; r != nil {
						b.removeLocked(r)
					}
				}
			})
			return found, more, ctx.Err()
		}
	}},
	{name: "DeleteExpired decides ahead", fails: []string{"Concurrent endings/a record live again is left alone by a sweep"}, wreck: func(b *broken) {
		due := make(map[sessionstore.Key]time.Time) // guarded by b.mu
		b.deleteExpired = func(ctx context.Context, sweep sessionstore.Sweep) ([]*sessionstore.Record, bool, error) {
			removed, more, err := b.Backend.DeleteExpired(ctx, sweep)
			b.locked(func(now time.Time) {
				for _, r := range b.sessions[sweep.ID] {
					if !slices.Contains(sweep.Apps, r.Key.App) {
						continue
					}
					if at, ok := due[r.Key]; ok && now.After(at) {
						b.removeLocked(r)
						removed = append(removed, copyOf(r, now))
					} else if !live(r, now.Add(time.Minute)) {
						due[r.Key] = r.ExpiresAt
					}
				}
			})
			return removed, more, err
		}
	}},
	{name: "a renewal reaches the siblings later", fails: []string{"Events/renewals store one event for each record", "Concurrent/of renewals at once exactly one wins"}, wreck: func(b *broken) {
		b.update = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
			renewed := *rec
			renewed.SecretHash = cond.SecretHash
			if err := b.Backend.Update(ctx, &renewed, cond); err != nil {
				return err
			}
			letOthers()
			b.locked(func(time.Time) {
				if r := b.sessions[rec.Key.ID][rec.Key.App]; r != nil {
					r.SecretHash = rec.SecretHash
					b.renewLocked(rec, cond)
				}
			})
			return nil
		}
	}},
}

// letOthers gives other goroutines the time that a round trip would.
func letOthers() {
	for range 50 {
		runtime.Gosched()
	}
}

// insert stores rec without a look at what is there.
func (b *broken) insert(rec *sessionstore.Record) (now time.Time) {
	b.locked(func(at time.Time) {
		now = at
		r := copyOf(rec, time.Time{})
		r.Version, r.CreatedAt, r.AccessedAt = 1, now, now
		setExpiry(r)
		b.putLocked(r)
	})
	return now
}
