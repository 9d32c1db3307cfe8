package membackend

import (
	"context"
	"slices"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// endingFaults break Delete and DeleteExpired.
var endingFaults = []fault{
	{name: "Delete leaves siblings", fails: []string{
		"Delete/by ID and principal needs both",
		"Delete/by principal and application counts only this application's principal",
		"Delete/by principal removes the sessions in which some application holds it",
		"Concurrent endings/a join and a deletion at once leave no survivor",
	}, wreck: func(b *broken) {
		b.delete = func(ctx context.Context, sel sessionstore.Selector) ([]*sessionstore.Record, error) {
			matched := make(map[sessionstore.Key]bool)
			if sel.Principal != "" {
				b.locked(func(time.Time) {
					for key := range b.principals[sel.Principal] {
						matched[key] = sel.App == "" || key.App == sel.App
					}
				})
			}
			removed, err := b.Backend.Delete(ctx, sel)
			return b.undo(removed, func(r *sessionstore.Record) bool { return sel.Principal == "" || matched[r.Key] }), err
		}
	}},
	{name: "Delete by ID leaves siblings", fails: []string{
		"Events/Delete stores one event for each ID",
		"Create joining/fails once the session is deleted",
		"Create/stores under an ID whose records are all removed",
		"Delete/by ID removes the records of all applications",
		"Delete/does not return a record again",
		"Delete/returns what it removed whole",
		"Update/never inserts",
		"Concurrent endings/a join and a deletion at once leave no survivor",
		"Concurrent endings/an update and a deletion at once leave no survivor",
	}, wreck: func(b *broken) {
		b.delete = func(ctx context.Context, sel sessionstore.Selector) ([]*sessionstore.Record, error) {
			removed, err := b.Backend.Delete(ctx, sel)
			var first *sessionstore.Record
			return b.undo(removed, func(r *sessionstore.Record) bool {
				if first == nil {
					first = r
				}
				return sel.Principal != "" || r == first
			}), err
		}
	}},
	{name: "Delete removes expired records", fails: []string{"Delete/leaves records that are no longer live to DeleteExpired"}, wreck: func(b *broken) {
		b.delete = func(ctx context.Context, sel sessionstore.Selector) ([]*sessionstore.Record, error) {
			removed, err := b.Backend.Delete(ctx, sel)
			if err == nil && !sel.ID.IsZero() && sel.Principal == "" && len(sel.Except) == 0 && sel.Only == nil {
				for _, r := range b.remembered(sel.ID) {
					b.with(r.Key, func(r *sessionstore.Record, _ time.Time) { b.removeLocked(r) })
					removed = append(removed, r)
				}
			}
			return removed, err
		}
	}},
	{name: "Delete by principal finds expired records", fails: []string{"Delete/an expired record holds no principal"}, wreck: func(b *broken) {
		b.delete = func(ctx context.Context, sel sessionstore.Selector) ([]*sessionstore.Record, error) {
			removed, err := b.Backend.Delete(ctx, sel)
			var ids []sessionstore.ID
			b.locked(func(now time.Time) {
				for key, r := range b.principals[sel.Principal] {
					if !live(r, now) && sel.Principal != "" {
						ids = append(ids, key.ID)
					}
				}
			})
			for _, id := range ids {
				more, _ := b.Backend.Delete(ctx, sessionstore.Selector{ID: id})
				removed = append(removed, more...)
			}
			return removed, err
		}
	}},
	{name: "Delete returns nothing", fails: []string{
		"Delete/by ID and principal needs both",
		"Delete/by ID removes the records of all applications",
		"Delete/by principal and application counts only this application's principal",
		"Delete/by principal removes the sessions in which some application holds it",
		"Delete/does not return a record again",
		"Delete/leaves records that are no longer live to DeleteExpired",
		"Delete/leaves the exceptions alone",
		"Delete/many at once",
		"Delete/removes none but the only ones",
		"Delete/returns what it removed whole",
		"List/the backend may be called while it yields",
		"Record/principals are compared byte by byte",
		"Update/a replaced principal holds the session no more",
		"Concurrent endings/a deletion and a sweep at once return a record once",
		"Concurrent endings/a join and a deletion at once leave no survivor",
		"Concurrent endings/an update and a deletion at once leave no survivor",
		"Concurrent endings/of deletions exactly one returns a record",
	}, wreck: func(b *broken) {
		b.delete = func(ctx context.Context, sel sessionstore.Selector) ([]*sessionstore.Record, error) {
			_, err := b.Backend.Delete(ctx, sel)
			return nil, err
		}
	}},
	{name: "Delete returns no data", fails: []string{
		"Delete/returns what it removed whole",
		"Concurrent endings/an update and a deletion at once leave no survivor",
	}, wreck: func(b *broken) {
		b.delete = func(ctx context.Context, sel sessionstore.Selector) ([]*sessionstore.Record, error) {
			removed, err := b.Backend.Delete(ctx, sel)
			for _, r := range removed {
				r.Data = nil
			}
			return removed, err
		}
	}},
	{name: "Delete returns what it once removed again", fails: []string{
		"Delete/does not return a record again",
		"Delete/leaves records that are no longer live to DeleteExpired",
		"Concurrent endings/of deletions exactly one returns a record",
	}, wreck: func(b *broken) {
		var last []*sessionstore.Record
		b.delete = func(ctx context.Context, sel sessionstore.Selector) ([]*sessionstore.Record, error) {
			removed, err := b.Backend.Delete(ctx, sel)
			b.locked(func(time.Time) {
				if len(removed) == 0 && len(last) > 0 && last[0].Key.ID == sel.ID && sel.Principal == "" {
					removed = last
				}
				last = removed
			})
			return removed, err
		}
	}},
	{name: "Delete ignores Except", fails: []string{
		"Delete/leaves the exceptions alone",
		"Delete/many at once",
	}, wreck: func(b *broken) {
		b.delete = func(ctx context.Context, sel sessionstore.Selector) ([]*sessionstore.Record, error) {
			sel.Except = nil
			return b.Backend.Delete(ctx, sel)
		}
	}},
	{name: "Delete ignores Only", fails: []string{"Delete/removes none but the only ones"}, wreck: func(b *broken) {
		b.delete = func(ctx context.Context, sel sessionstore.Selector) ([]*sessionstore.Record, error) {
			sel.Only = nil
			return b.Backend.Delete(ctx, sel)
		}
	}},
	{name: "Delete takes Only for the selection", fails: []string{"Delete/removes none but the only ones"}, wreck: func(b *broken) {
		b.delete = func(ctx context.Context, sel sessionstore.Selector) (removed []*sessionstore.Record, err error) {
			if sel.Only == nil {
				return b.Backend.Delete(ctx, sel)
			}
			for _, id := range sel.Only {
				some, err := b.Backend.Delete(ctx, sessionstore.Selector{ID: id, Except: sel.Except})
				if err != nil {
					return removed, err
				}
				removed = append(removed, some...)
			}
			return removed, nil
		}
	}},
	{name: "Delete ignores App", fails: []string{"Delete/by principal and application counts only this application's principal"}, wreck: func(b *broken) {
		b.delete = func(ctx context.Context, sel sessionstore.Selector) ([]*sessionstore.Record, error) {
			sel.App = ""
			return b.Backend.Delete(ctx, sel)
		}
	}},
	{name: "Delete by ID ignores the principal", fails: []string{"Delete/by ID and principal needs both"}, wreck: func(b *broken) {
		b.delete = func(ctx context.Context, sel sessionstore.Selector) ([]*sessionstore.Record, error) {
			if !sel.ID.IsZero() {
				sel.Principal = ""
			}
			return b.Backend.Delete(ctx, sel)
		}
	}},
	{name: "Delete of nothing is all", fails: []string{"Delete/with neither ID nor principal removes nothing"}, wreck: func(b *broken) {
		b.delete = func(ctx context.Context, sel sessionstore.Selector) ([]*sessionstore.Record, error) {
			removed, err := b.Backend.Delete(ctx, sel)
			if sel.ID.IsZero() && sel.Principal == "" {
				b.locked(func(time.Time) {
					for _, records := range b.sessions {
						for _, r := range records {
							b.removeLocked(r)
							removed = append(removed, r)
						}
					}
				})
			}
			return removed, err
		}
	}},
	{name: "Delete stops after a batch", fails: []string{"Delete/many at once"}, wreck: func(b *broken) {
		b.delete = func(ctx context.Context, sel sessionstore.Selector) ([]*sessionstore.Record, error) {
			removed, err := b.Backend.Delete(ctx, sel)
			n := 0
			return b.undo(removed, func(*sessionstore.Record) bool { n++; return n <= 256 }), err
		}
	}},
	{name: "DeleteExpired ignores the limit", fails: []string{
		"DeleteExpired/removes at most Limit",
		"Concurrent endings/sweeps return each record once",
	}, wreck: func(b *broken) {
		b.swept(func(sweep *sessionstore.Sweep) { sweep.Limit = 1000 })
	}},
	{name: "DeleteExpired ignores the applications", fails: []string{
		"Create/returns ErrExists even if the record has expired",
		"Delete/leaves records that are no longer live to DeleteExpired",
		"DeleteExpired/leaves live records alone",
		"DeleteExpired/sweeps applications by their exact names",
		"DeleteExpired/sweeps only the ID given",
		"DeleteExpired/sweeps only the applications named",
		"DeleteExpired/sweeps orphans of any application",
		"Live/an expired record is never updated",
		"Live/timeouts of 0 are without limit",
		"Renewal/reaches records that are no longer live",
	}, wreck: func(b *broken) {
		b.swept(func(sweep *sessionstore.Sweep) { sweep.Orphans = 1 })
	}},
	{name: "DeleteExpired ignores the ID", fails: []string{"DeleteExpired/may be told to omit data", "DeleteExpired/sweeps only the ID given"}, wreck: func(b *broken) {
		b.swept(func(sweep *sessionstore.Sweep) { sweep.ID = sessionstore.ID{} })
	}},
	{name: "DeleteExpired ignores orphans", fails: []string{"DeleteExpired/sweeps orphans of any application"}, wreck: func(b *broken) {
		b.swept(func(sweep *sessionstore.Sweep) { sweep.Orphans = 0 })
	}},
	{name: "DeleteExpired takes orphans at once", fails: []string{"DeleteExpired/sweeps orphans of any application"}, wreck: func(b *broken) {
		b.swept(func(sweep *sessionstore.Sweep) { sweep.Orphans = min(sweep.Orphans, 1) })
	}},
	{name: "DeleteExpired takes the siblings too", fails: []string{"Live/each application has its own expiry"}, wreck: func(b *broken) {
		b.deleteExpired = func(ctx context.Context, sweep sessionstore.Sweep) ([]*sessionstore.Record, bool, error) {
			removed, more, err := b.Backend.DeleteExpired(ctx, sweep)
			for _, r := range slices.Clone(removed) {
				if others, err := b.Backend.Delete(ctx, sessionstore.Selector{ID: r.Key.ID}); err == nil {
					removed = append(removed, others...)
				}
			}
			return removed, more, err
		}
	}},
	{name: "DeleteExpired takes what will expire soon", fails: []string{
		"DeleteExpired/leaves live records alone",
		"Live/each application has its own expiry",
	}, wreck: func(b *broken) {
		b.deleteExpired = func(ctx context.Context, sweep sessionstore.Sweep) (removed []*sessionstore.Record, more bool, err error) {
			removed, more, err = b.Backend.DeleteExpired(ctx, sweep)
			b.locked(func(now time.Time) {
				for _, records := range b.sessions {
					for _, r := range records {
						mine := slices.Contains(sweep.Apps, r.Key.App) && (sweep.ID.IsZero() || sweep.ID == r.Key.ID)
						if mine && err == nil && len(removed) < sweep.Limit && !live(r, now.Add(20*time.Minute)) {
							b.removeLocked(r)
							removed = append(removed, copyOf(r, now))
						}
					}
				}
			})
			return removed, more, err
		}
	}},
	{name: "DeleteExpired takes what never expires", fails: []string{
		"DeleteExpired/leaves live records alone",
		"DeleteExpired/orphans are never live",
		"Live/timeouts of 0 are without limit",
	}, wreck: func(b *broken) {
		b.deleteExpired = func(ctx context.Context, sweep sessionstore.Sweep) (removed []*sessionstore.Record, more bool, err error) {
			removed, more, err = b.Backend.DeleteExpired(ctx, sweep)
			b.locked(func(now time.Time) {
				for _, records := range b.sessions {
					for _, r := range records {
						if r.ExpiresAt.IsZero() && err == nil && len(removed) < sweep.Limit && (sweep.Orphans > 0 || slices.Contains(sweep.Apps, r.Key.App)) {
							b.removeLocked(r)
							removed = append(removed, copyOf(r, now))
						}
					}
				}
			})
			return removed, more, err
		}
	}},
	{name: "DeleteExpired removes nothing", fails: []string{
		"DeleteExpired/may be told to omit data",
		"DeleteExpired/never returns a record twice",
		"DeleteExpired/removes at most Limit",
		"DeleteExpired/removes what it returns",
		"DeleteExpired/reports whether another call is worthwhile",
		"DeleteExpired/sweeps only the ID given",
		"DeleteExpired/sweeps only the applications named",
		"DeleteExpired/sweeps orphans of any application",
		"Concurrent endings/a deletion and a sweep at once return a record once",
		"Concurrent endings/a record live again is left alone by a sweep",
		"Concurrent endings/sweeps return each record once",
	}, wreck: func(b *broken) {
		b.deleteExpired = func(ctx context.Context, sweep sessionstore.Sweep) ([]*sessionstore.Record, bool, error) {
			removed, _, err := b.Backend.DeleteExpired(ctx, sweep)
			b.restore(removed, func(*sessionstore.Record) bool { return false })
			return removed, false, err
		}
	}},
	{name: "DeleteExpired returns nothing", fails: []string{
		"Create/returns ErrExists even if the record has expired",
		"Delete/leaves records that are no longer live to DeleteExpired",
		"DeleteExpired/leaves live records alone",
		"DeleteExpired/may be told to omit data",
		"DeleteExpired/never returns a record twice",
		"DeleteExpired/removes at most Limit",
		"DeleteExpired/removes what it returns",
		"DeleteExpired/reports whether another call is worthwhile",
		"DeleteExpired/returns what it removes whole",
		"DeleteExpired/sweeps applications by their exact names",
		"DeleteExpired/sweeps only the ID given",
		"DeleteExpired/sweeps only the applications named",
		"DeleteExpired/sweeps orphans of any application",
		"Live/an expired record is never accepted as a proof",
		"Live/an expired record is never touched",
		"Live/an expired record is never updated",
		"Live/each application has its own expiry",
		"Concurrent endings/a deletion and a sweep at once return a record once",
		"Concurrent endings/a record live again is left alone by a sweep",
		"Concurrent endings/sweeps return each record once",
	}, wreck: func(b *broken) {
		b.deleteExpired = func(ctx context.Context, sweep sessionstore.Sweep) ([]*sessionstore.Record, bool, error) {
			_, more, err := b.Backend.DeleteExpired(ctx, sweep)
			return nil, more, err
		}
	}},
	{name: "DeleteExpired returns no data", fails: []string{
		"Create/returns ErrExists even if the record has expired",
		"Delete/leaves records that are no longer live to DeleteExpired",
		"DeleteExpired/returns what it removes whole",
		"Live/an expired record is never accepted as a proof",
		"Live/an expired record is never touched",
		"Live/an expired record is never updated",
	}, wreck: func(b *broken) {
		b.deleteExpired = func(ctx context.Context, sweep sessionstore.Sweep) ([]*sessionstore.Record, bool, error) {
			removed, more, err := b.Backend.DeleteExpired(ctx, sweep)
			for _, r := range removed {
				r.Data = nil
			}
			return removed, more, err
		}
	}},
	{name: "DeleteExpired never wants another call", fails: []string{
		"DeleteExpired/removes at most Limit",
		"DeleteExpired/reports whether another call is worthwhile",
		"Concurrent endings/sweeps return each record once",
	}, wreck: func(b *broken) {
		b.deleteExpired = func(ctx context.Context, sweep sessionstore.Sweep) ([]*sessionstore.Record, bool, error) {
			removed, _, err := b.Backend.DeleteExpired(ctx, sweep)
			return removed, false, err
		}
	}},
	{name: "DeleteExpired wants another call when nothing is left", fails: []string{
		"Create/is the only method that inserts",
		"DeleteExpired/never returns a record twice",
		"DeleteExpired/orphans are never live",
		"DeleteExpired/reports whether another call is worthwhile",
		"DeleteExpired/sweeps only the ID given",
		"DeleteExpired/sweeps only the applications named",
		"Live/timeouts of 0 are without limit",
		"Concurrent endings/a deletion and a sweep at once return a record once",
		"Concurrent endings/a record live again is left alone by a sweep",
		"Concurrent endings/sweeps return each record once",
	}, wreck: func(b *broken) {
		b.deleteExpired = func(ctx context.Context, sweep sessionstore.Sweep) ([]*sessionstore.Record, bool, error) {
			removed, more, err := b.Backend.DeleteExpired(ctx, sweep)
			return removed, more || len(removed) == 0, err
		}
	}},
}

// undo stores the removed records again that really is not true of.
func (b *broken) undo(removed []*sessionstore.Record, really func(*sessionstore.Record) bool) []*sessionstore.Record {
	var gone []*sessionstore.Record
	b.locked(func(time.Time) {
		for _, r := range removed {
			if really(r) {
				gone = append(gone, r)
			} else {
				b.putLocked(r)
			}
		}
	})
	return gone
}

// swept lets change spoil what DeleteExpired is asked.
func (b *broken) swept(change func(*sessionstore.Sweep)) {
	b.deleteExpired = func(ctx context.Context, sweep sessionstore.Sweep) ([]*sessionstore.Record, bool, error) {
		change(&sweep)
		return b.Backend.DeleteExpired(ctx, sweep)
	}
}
