package membackend

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

var noHash sessionstore.SecretHash

// writeFaults break Create, Update and Touch.
var writeFaults = []fault{
	{name: "Create keeps the version it is given", fails: []string{"Create/ignores the record's version times and now"}, wreck: func(b *broken) {
		b.created(func(rec *sessionstore.Record, r *sessionstore.Record) { r.Version = max(rec.Version, 1) })
	}},
	{name: "Create keeps the times it is given", fails: []string{"Create/ignores the record's version times and now"}, wreck: func(b *broken) {
		b.created(func(rec *sessionstore.Record, r *sessionstore.Record) {
			if !rec.CreatedAt.IsZero() && rec.Version == 7 {
				r.CreatedAt = rec.CreatedAt
			}
		})
	}},
	{name: "Create replaces an existing record", fails: []string{
		"Create joining/its own record is no proof",
		"Create joining/returns ErrExists if this application holds a record",
		"Create joining/returns ErrExists if this application holds an expired record",
		"Create/returns ErrExists even if the record has expired",
		"Create/returns ErrExists if this application holds a record",
		"Concurrent/of creations under one key exactly one wins",
		"Concurrent/of joins under one key exactly one wins",
	}, wreck: func(b *broken) {
		b.create = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error) {
			b.with(rec.Key, func(r *sessionstore.Record, _ time.Time) { b.removeLocked(r) })
			return b.Backend.Create(ctx, rec, cond)
		}
	}},
	{name: "Create asks for no proof", fails: []string{
		"Create joining/returns ErrNotFound for a wrong secret hash",
		"Renewal/makes the old hash worthless",
		"Concurrent/joins and renewals at once leave one hash",
	}, wreck: func(b *broken) {
		b.create = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error) {
			b.locked(func(now time.Time) {
				for _, r := range b.sessions[rec.Key.ID] {
					if cond.SecretHash != noHash && live(r, now) {
						cond.SecretHash = r.SecretHash
					}
				}
			})
			return b.Backend.Create(ctx, rec, cond)
		}
	}},
	{name: "Create needs no sibling", fails: []string{
		"Create joining/fails once the session is deleted",
		"Create joining/returns ErrNotFound under an unknown ID",
		"Concurrent endings/a join and a deletion at once leave no survivor",
	}, wreck: func(b *broken) {
		b.create = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error) {
			if len(b.remembered(rec.Key.ID)) == 0 {
				cond.SecretHash = noHash
			}
			return b.Backend.Create(ctx, rec, cond)
		}
	}},
	{name: "Create without proof ignores siblings", fails: []string{
		"Create/returns ErrExists if another application holds a record",
		"Concurrent/of creations under one ID exactly one wins",
	}, wreck: func(b *broken) {
		b.create = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error) {
			b.locked(func(now time.Time) {
				for _, r := range b.sessions[rec.Key.ID] {
					if live(r, now) && r.Key != rec.Key && cond.SecretHash == noHash {
						cond.SecretHash = r.SecretHash
					}
				}
			})
			return b.Backend.Create(ctx, rec, cond)
		}
	}},
	{name: "Create without proof ignores expired siblings", fails: []string{"Create/returns ErrExists even if the record has expired"}, wreck: func(b *broken) {
		b.create = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error) {
			b.locked(func(now time.Time) {
				for _, r := range b.sessions[rec.Key.ID] {
					if cond.SecretHash == noHash && !live(r, now) {
						b.removeLocked(r)
					}
				}
			})
			return b.Backend.Create(ctx, rec, cond)
		}
	}},
	{name: "Create accepts an expired proof", fails: []string{
		"Create joining/fails even if an expired record outlives the deleted session",
		"Live/an expired record is never accepted as a proof",
	}, wreck: func(b *broken) {
		b.create = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (created time.Time, err error) {
			created, err = b.Backend.Create(ctx, rec, cond)
			if was := b.remembered(rec.Key.ID); errors.Is(err, sessionstore.ErrNotFound) && b.stored(rec.Key) == nil {
				for _, r := range was {
					if r.SecretHash == cond.SecretHash {
						b.with(r.Key, func(r *sessionstore.Record, _ time.Time) { b.removeLocked(r) })
						cond.SecretHash = noHash
						created, err = b.Backend.Create(ctx, rec, cond)
						b.restore(was, func(*sessionstore.Record) bool { return false })
						return created, err
					}
				}
			}
			return created, err
		}
	}},
	{name: "Create joins over an expired record", fails: []string{"Create joining/returns ErrExists if this application holds an expired record"}, wreck: func(b *broken) {
		b.create = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error) {
			b.with(rec.Key, func(r *sessionstore.Record, now time.Time) {
				if !live(r, now) && cond.SecretHash != noHash {
					b.removeLocked(r)
				}
			})
			return b.Backend.Create(ctx, rec, cond)
		}
	}},
	{name: "Create renews without its siblings", fails: []string{"Renewal/by Create gives all siblings the new hash and raises their versions"}, wreck: func(b *broken) {
		b.create = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error) {
			was := b.remembered(rec.Key.ID)
			created, err := b.Backend.Create(ctx, rec, cond)
			b.restore(was, func(r *sessionstore.Record) bool { return err != nil || r.Key == rec.Key })
			return created, err
		}
	}},
	{name: "Update ignores the version", fails: []string{
		"Events/Update stores an event if asked",
		"Update/returns ErrConflict for a wrong version",
		"Update/returns ErrConflict for the version before the last",
	}, wreck: func(b *broken) {
		b.update = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
			b.with(rec.Key, func(r *sessionstore.Record, _ time.Time) { cond.Version = r.Version })
			return b.Backend.Update(ctx, rec, cond)
		}
	}},
	{name: "Update ignores the secret hash", fails: []string{
		"Renewal/makes the old hash worthless",
		"Update/returns ErrConflict for a wrong secret hash",
	}, wreck: func(b *broken) {
		b.update = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
			b.with(rec.Key, func(r *sessionstore.Record, _ time.Time) { cond.SecretHash = r.SecretHash })
			return b.Backend.Update(ctx, rec, cond)
		}
	}},
	{name: "Update inserts", fails: []string{
		"Create/is the only method that inserts",
		"Update/never inserts",
		"Update/returns ErrConflict for the version before the last",
		"Concurrent endings/an update and a deletion at once leave no survivor",
	}, wreck: func(b *broken) {
		b.update = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
			err := b.Backend.Update(ctx, rec, cond)
			if b.stored(rec.Key) == nil {
				_, err = b.Backend.Create(ctx, rec, sessionstore.Condition{})
			}
			return err
		}
	}},
	{name: "Update revives expired records", fails: []string{
		"Live/an expired record is never updated",
		"MaxSessions/Update returns ErrLimit and changes nothing",
		"Renewal/makes the old hash worthless",
		"Update/never moves an access time backwards",
		"Update/returns ErrConflict for a wrong secret hash",
		"Update/returns ErrConflict for a wrong version",
		"Update/returns ErrConflict for an expired record",
		"Update/returns ErrConflict for the version before the last",
	}, wreck: func(b *broken) {
		b.update = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
			b.with(rec.Key, func(r *sessionstore.Record, now time.Time) {
				r.AccessedAt = now
				setExpiry(r)
			})
			return b.Backend.Update(ctx, rec, cond)
		}
	}},
	{name: "Update leaves the version", fails: []string{
		"Events/renewals store one event for each record",
		"Events/Update stores an event if asked",
		"Load/returns the record with data if another version is known",
		"Record/all handles share one store",
		"Renewal/by Update gives all siblings the new hash and raises their versions",
		"Renewal/raises the version of every record under its ID",
		"Update/replaces principal node timeouts secret hash and data",
		"Update/returns ErrConflict for the version before the last",
		"Update/sets the version to the condition's plus 1",
		"Concurrent/increments of one record lose nothing",
		"Concurrent/of renewals at once exactly one wins",
	}, wreck: func(b *broken) {
		b.updated(func(was, r *sessionstore.Record) { r.Version = was.Version })
	}},
	{name: "Update leaves the node", fails: []string{
		"Record/node is stored",
		"Update/replaces principal node timeouts secret hash and data",
	}, wreck: func(b *broken) {
		b.updated(func(was, r *sessionstore.Record) { r.Node = was.Node })
	}},
	{name: "Update leaves the data if it is empty", fails: []string{
		"Record/data is stored byte by byte",
		"Update/replaces principal node timeouts secret hash and data",
	}, wreck: func(b *broken) {
		b.updated(func(was, r *sessionstore.Record) {
			if len(r.Data) == 0 {
				r.Data = was.Data
			}
		})
	}},
	{name: "Update leaves the access time", fails: []string{
		"List/yields the most recently used first",
		"Live/use extends an idle timeout",
		"Update/sets the access time to the clock",
	}, wreck: func(b *broken) {
		b.updated(func(was, r *sessionstore.Record) { r.AccessedAt = was.AccessedAt; setExpiry(r) })
	}},
	{name: "Update moves the access time backwards", fails: []string{"Update/never moves an access time backwards"}, wreck: func(b *broken) {
		b.updated(func(_, r *sessionstore.Record) { r.AccessedAt = b.nowLocked(); setExpiry(r) })
	}},
	{name: "Update begins the lifetime anew", fails: []string{
		"Live/use never extends a lifetime",
		"Update/never changes CreatedAt",
		"Update/replaces principal node timeouts secret hash and data",
	}, wreck: func(b *broken) {
		b.updated(func(_, r *sessionstore.Record) { r.CreatedAt = r.AccessedAt; setExpiry(r) })
	}},
	{name: "Update keeps the CreatedAt it is given", fails: []string{"Update/never changes CreatedAt"}, wreck: func(b *broken) {
		b.update = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
			err := b.Backend.Update(ctx, rec, cond)
			if err == nil {
				b.with(rec.Key, func(r *sessionstore.Record, _ time.Time) { r.CreatedAt = rec.CreatedAt })
			}
			return err
		}
	}},
	{name: "Update renews without its siblings", fails: []string{
		"Events/renewals store one event for each record",
		"Renewal/by Update gives all siblings the new hash and raises their versions",
		"Renewal/makes the old hash worthless",
		"Renewal/raises the version of every record under its ID",
		"Renewal/reaches records that are no longer live",
		"Concurrent/of renewals at once exactly one wins",
	}, wreck: func(b *broken) {
		b.update = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
			was := b.remembered(rec.Key.ID)
			err := b.Backend.Update(ctx, rec, cond)
			b.restore(was, func(r *sessionstore.Record) bool { return err != nil || r.Key == rec.Key })
			return err
		}
	}},
	{name: "a renewal leaves the siblings' versions", fails: []string{
		"Events/renewals store one event for each record",
		"Renewal/by Update gives all siblings the new hash and raises their versions",
		"Renewal/raises the version of every record under its ID",
		"Concurrent/of renewals at once exactly one wins",
	}, wreck: func(b *broken) {
		b.update = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
			err := b.Backend.Update(ctx, rec, cond)
			b.locked(func(time.Time) {
				for app, r := range b.sessions[rec.Key.ID] {
					if err == nil && app != rec.Key.App && rec.SecretHash != cond.SecretHash {
						r.Version--
					}
				}
			})
			return err
		}
	}},
	{name: "a renewal leaves expired siblings", fails: []string{"Renewal/reaches records that are no longer live"}, wreck: func(b *broken) {
		b.update = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
			was := b.remembered(rec.Key.ID)
			err := b.Backend.Update(ctx, rec, cond)
			b.restore(was, func(r *sessionstore.Record) bool { return live(r, r.Now) })
			return err
		}
	}},
	{name: "a refused Update has renewed the siblings", fails: []string{
		"MaxSessions/Update returns ErrLimit and changes nothing",
		"Update/returns ErrConflict for a wrong secret hash",
		"Update/returns ErrConflict for a wrong version",
		"Update/returns ErrConflict for an expired record",
		"Concurrent/joins and renewals at once leave one hash",
		"Concurrent/of renewals at once exactly one wins",
	}, wreck: func(b *broken) {
		b.update = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
			err := b.Backend.Update(ctx, rec, cond)
			if err != nil && ctx.Err() == nil {
				b.locked(func(time.Time) { b.renewLocked(rec, cond) })
			}
			return err
		}
	}},
	{name: "MaxSessions is ignored", fails: []string{
		"MaxSessions/Create returns ErrLimit and stores nothing",
		"MaxSessions/Update returns ErrLimit and changes nothing",
		"MaxSessions/a joining Create returns ErrLimit and renews nothing",
		"Concurrent/logins never exceed MaxSessions",
	}, wreck: func(b *broken) {
		b.limited(func(_ *sessionstore.Record, cond *sessionstore.Condition, _ time.Time) bool {
			cond.MaxSessions = 0
			return false
		})
	}},
	{name: "MaxSessions is ignored by Update", fails: []string{
		"MaxSessions/Update returns ErrLimit and changes nothing",
		"Concurrent/logins never exceed MaxSessions",
	}, wreck: func(b *broken) {
		b.update = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
			cond.MaxSessions = 0
			return b.Backend.Update(ctx, rec, cond)
		}
	}},
	{name: "MaxSessions counts the record itself twice", fails: []string{"MaxSessions/the record itself is not counted twice"}, wreck: func(b *broken) {
		b.counted(func(rec, r *sessionstore.Record, now time.Time) bool { return r.Key.App == rec.Key.App && live(r, now) })
	}},
	{name: "MaxSessions counts expired sessions", fails: []string{"MaxSessions/only live sessions count"}, wreck: func(b *broken) {
		b.counted(func(rec, r *sessionstore.Record, _ time.Time) bool {
			return r.Key.App == rec.Key.App && r.Key != rec.Key
		})
	}},
	{name: "MaxSessions counts other applications", fails: []string{
		"MaxSessions/only live sessions count",
		"MaxSessions/only this application's sessions count",
	}, wreck: func(b *broken) {
		b.counted(func(rec, r *sessionstore.Record, now time.Time) bool { return r.Key != rec.Key && live(r, now) })
	}},
	{name: "MaxSessions counts anonymous sessions", fails: []string{"MaxSessions/anonymous sessions are not limited"}, wreck: func(b *broken) {
		b.limited(func(rec *sessionstore.Record, cond *sessionstore.Condition, now time.Time) bool {
			n := 1
			for _, records := range b.sessions {
				for _, r := range records {
					if r.Key.App == rec.Key.App && r.Key != rec.Key && r.Principal == "" && live(r, now) {
						n++
					}
				}
			}
			return rec.Principal == "" && cond.MaxSessions > 0 && n > cond.MaxSessions
		})
	}},
	{name: "Touch inserts", fails: []string{"Touch/never inserts"}, wreck: func(b *broken) {
		b.touch = func(ctx context.Context, touches []sessionstore.Touch) error {
			for _, t := range touches {
				if b.stored(t.Key) == nil {
					rec := &sessionstore.Record{Info: sessionstore.Info{Key: t.Key, Idle: time.Hour}}
					b.locked(func(now time.Time) {
						rec.CreatedAt, rec.AccessedAt, rec.Version = now, now, 1
						setExpiry(rec)
						b.putLocked(rec)
					})
				}
			}
			return b.Backend.Touch(ctx, touches)
		}
	}},
	{name: "Touch moves backwards", fails: []string{
		"Touch/never moves an access time backwards",
		"Touch/never moves an access time backwards when the clock was set back",
		"Touch/one key twice counts as used last",
	}, wreck: func(b *broken) {
		b.touched(func(r *sessionstore.Record, now, at time.Time) {
			if live(r, now) {
				r.AccessedAt = at
				setExpiry(r)
			}
		})
	}},
	{name: "Touch revives expired records", fails: []string{
		"Live/an expired record is never touched",
		"Touch/ignores keys that have no live record",
	}, wreck: func(b *broken) {
		b.touched(func(r *sessionstore.Record, _, at time.Time) {
			if at.After(r.AccessedAt) {
				r.AccessedAt = at
				setExpiry(r)
			}
		})
	}},
	{name: "Touch raises the version", fails: []string{
		"Touch/never changes a version or data",
		"Touch/never moves an access time backwards",
		"Touch/never moves an access time backwards when the clock was set back",
	}, wreck: func(b *broken) {
		b.touched(func(r *sessionstore.Record, now, _ time.Time) {
			if live(r, now) {
				r.Version++
			}
		})
	}},
	{name: "Touch extends the lifetime", fails: []string{"Touch/never extends a lifetime"}, wreck: func(b *broken) {
		b.touched(func(r *sessionstore.Record, now, at time.Time) {
			if live(r, now) && r.Idle > 0 && !at.Before(r.AccessedAt) {
				r.ExpiresAt = r.AccessedAt.Add(r.Idle)
			}
		})
	}},
	{name: "Touch leaves the expiry", fails: []string{
		"Create joining/returns ErrExists if this application holds an expired record",
		"DeleteExpired/leaves live records alone",
		"Live/use extends an idle timeout",
		"Live/use never extends a lifetime",
		"Load/the sibling shown is a live one",
		"MaxSessions/only live sessions count",
		"Renewal/reaches records that are no longer live",
		"Touch/moves access times and expiry forward to the clock less Ago",
		"Touch/never extends a lifetime",
		"Update/returns ErrConflict for an expired record",
	}, wreck: func(b *broken) {
		b.touch = func(ctx context.Context, touches []sessionstore.Touch) error {
			for _, t := range touches {
				b.with(t.Key, func(r *sessionstore.Record, now time.Time) {
					if at := now.Add(-t.Ago); live(r, now) && at.After(r.AccessedAt) {
						r.AccessedAt = at
					}
				})
			}
			return ctx.Err()
		}
	}},
	{name: "Touch ignores Ago", fails: []string{
		"Touch/moves access times and expiry forward to the clock less Ago",
		"Touch/never moves an access time backwards",
	}, wreck: func(b *broken) {
		b.touch = func(ctx context.Context, touches []sessionstore.Touch) error {
			var all []sessionstore.Touch
			for _, t := range touches {
				all = append(all, sessionstore.Touch{Key: t.Key})
			}
			return b.Backend.Touch(ctx, all)
		}
	}},
	{name: "Touch takes the first of two", fails: []string{"Touch/one key twice counts as used last"}, wreck: func(b *broken) {
		b.touch = func(ctx context.Context, touches []sessionstore.Touch) error {
			var all []sessionstore.Touch
			seen := make(map[sessionstore.Key]bool)
			for _, t := range touches {
				if !seen[t.Key] {
					all = append(all, t)
				}
				seen[t.Key] = true
			}
			return b.Backend.Touch(ctx, all)
		}
	}},
	{name: "Touch drops what is beyond a batch", fails: []string{"Touch/a thousand at once"}, wreck: func(b *broken) {
		b.touch = func(ctx context.Context, touches []sessionstore.Touch) error {
			return b.Backend.Touch(ctx, touches[:min(len(touches), 256)])
		}
	}},
	{name: "Touch is for all siblings", fails: []string{
		"Create joining/returns ErrExists if this application holds an expired record",
		"Load/the sibling shown is a live one",
		"Renewal/reaches records that are no longer live",
		"Touch/is only for the application touched",
		"Update/returns ErrConflict for an expired record",
	}, wreck: func(b *broken) {
		b.touch = func(ctx context.Context, touches []sessionstore.Touch) error {
			all := touches
			for _, t := range touches {
				for _, r := range b.remembered(t.Key.ID) {
					all = append(all[:len(all):len(all)], sessionstore.Touch{Key: r.Key, Ago: t.Ago})
				}
			}
			return b.Backend.Touch(ctx, all)
		}
	}},
	{name: "Touch of nothing is an error", fails: []string{"Touch/no touches is no error"}, wreck: func(b *broken) {
		b.touch = func(ctx context.Context, touches []sessionstore.Touch) error {
			if len(touches) == 0 {
				return errors.New("syntax error near )")
			}
			return b.Backend.Touch(ctx, touches)
		}
	}},
}
