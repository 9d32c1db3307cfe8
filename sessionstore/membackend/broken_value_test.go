package membackend

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// valueFaults break what is stored, as columns of the wrong type do, and errors.
var valueFaults = []fault{
	{name: "principals are folded to lower case", fails: []string{"Record/principals are compared byte by byte"}, wreck: func(b *broken) {
		b.principal(strings.ToLower)
	}},
	{name: "trailing spaces of principals are lost", fails: []string{"Record/principals are compared byte by byte"}, wreck: func(b *broken) {
		b.principal(func(s string) string { return strings.TrimRight(s, " ") })
	}},
	{name: "principals are cut", fails: []string{"Record/principals are compared byte by byte"}, wreck: func(b *broken) {
		b.principal(func(s string) string { return s[:min(len(s), 200)] })
	}},
	{name: "trailing spaces of application names are ignored", fails: []string{
		"DeleteExpired/sweeps applications by their exact names",
		"Record/application names are compared byte by byte",
	}, wreck: func(b *broken) {
		b.load = func(ctx context.Context, key sessionstore.Key, known sessionstore.Version) (*sessionstore.Record, error) {
			key.App = strings.TrimRight(key.App, " ")
			return b.Backend.Load(ctx, key, known)
		}
		b.create = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error) {
			trimmed := *rec
			trimmed.Key.App = strings.TrimRight(rec.Key.App, " ")
			return b.Backend.Create(ctx, &trimmed, cond)
		}
	}},
	{name: "a sweep folds application names", fails: []string{"DeleteExpired/sweeps applications by their exact names"}, wreck: func(b *broken) {
		b.swept(func(sweep *sessionstore.Sweep) {
			var all []string
			b.locked(func(time.Time) {
				for app := range b.sessions[sweep.ID] {
					for _, a := range sweep.Apps {
						if strings.EqualFold(a, app) {
							all = append(all, app)
						}
					}
				}
			})
			sweep.Apps = append(all, sweep.Apps...)
		})
	}},
	{name: "data ends at 64 KiB", fails: []string{"Record/data is stored byte by byte"}, wreck: func(b *broken) {
		b.data(func(data []byte) []byte { return data[:min(len(data), 1<<16-1)] })
	}},
	{name: "data ends at a NUL byte", fails: []string{"Record/data is stored byte by byte"}, wreck: func(b *broken) {
		b.data(func(data []byte) []byte { before, _, _ := bytes.Cut(data, []byte{0}); return before })
	}},
	{name: "data is made valid UTF-8", fails: []string{"Record/data is stored byte by byte"}, wreck: func(b *broken) {
		b.data(func(data []byte) []byte { return bytes.ToValidUTF8(data, []byte("?")) })
	}},
	{name: "data is shared with the caller", fails: []string{"Record/data belongs to the caller"}, wreck: func(b *broken) {
		b.created(func(rec, r *sessionstore.Record) { r.Data = rec.Data })
	}},
	{name: "loaded data is shared with the store", fails: []string{"Record/data belongs to the caller"}, wreck: func(b *broken) {
		b.loaded(func(r *sessionstore.Record) {
			if len(r.Data) > 0 {
				b.with(r.Key, func(stored *sessionstore.Record, _ time.Time) { r.Data = stored.Data })
			}
		})
	}},
	{name: "times are local", fails: []string{"Record/times are UTC with microsecond precision"}, wreck: func(b *broken) {
		zone := time.FixedZone("CET", 3600)
		b.loaded(func(r *sessionstore.Record) {
			r.CreatedAt, r.AccessedAt = r.CreatedAt.In(zone), r.AccessedAt.In(zone)
		})
	}},
	{name: "times are finer than microseconds", fails: []string{"Record/times are UTC with microsecond precision"}, wreck: func(b *broken) {
		b.loaded(func(r *sessionstore.Record) {
			if r.Idle%time.Second != 0 { // else it would show, at random, in what compares clocks
				r.Now = r.Now.Add(time.Nanosecond)
			}
		})
	}},
	{name: "timeouts are whole seconds", fails: []string{
		"Live/expiry is idle or lifetime whichever is earlier",
		"Record/times are UTC with microsecond precision",
		"Concurrent endings/a deletion and a sweep at once return a record once",
		"Concurrent endings/a record live again is left alone by a sweep",
	}, wreck: func(b *broken) {
		b.created(func(_, r *sessionstore.Record) { r.Idle = r.Idle.Truncate(time.Second); setExpiry(r) })
	}},
	{name: "Now is the node's clock", fails: []string{
		"Record/now is the clock of the answer",
		"Record/the clock is the store's",
		"Touch/moves access times and expiry forward to the clock less Ago",
		"Update/sets the access time to the clock",
		"Concurrent endings/a deletion and a sweep at once return a record once",
		"Concurrent endings/a record live again is left alone by a sweep",
	}, wreck: func(b *broken) {
		b.loaded(func(r *sessionstore.Record) { r.Now = time.Now().UTC().Truncate(time.Microsecond) })
	}},
	{name: "expiry is idle plus lifetime", fails: []string{
		"Create joining/stores beside a live record that has the secret hash",
		"Create/ignores the record's version times and now",
		"Create/returns ErrExists even if the record has expired",
		"Delete/leaves records that are no longer live to DeleteExpired",
		"Delete/returns what it removed whole",
		"DeleteExpired/returns what it removes whole",
		"List/by ID yields the records of all applications",
		"List/by principal yields only records that hold it",
		"Live/a changed idle timeout counts from the change",
		"Live/a renewal never extends a lifetime",
		"Live/an expired record is never accepted as a proof",
		"Live/an expired record is never touched",
		"Live/an expired record is never updated",
		"Live/expiry is idle or lifetime whichever is earlier",
		"Live/use never extends a lifetime",
		"Load/returns the live record under key",
		"Touch/moves access times and expiry forward to the clock less Ago",
		"Touch/never extends a lifetime",
		"Update/replaces principal node timeouts secret hash and data",
		"Update/sets the access time to the clock",
		"Concurrent endings/a deletion and a sweep at once return a record once",
		"Concurrent endings/a record live again is left alone by a sweep",
	}, wreck: func(b *broken) {
		b.loaded(func(r *sessionstore.Record) {
			if !r.ExpiresAt.IsZero() {
				r.ExpiresAt = r.AccessedAt.Add(r.Idle + r.Lifetime)
			}
		})
	}},
	{name: "what never expires expires at the epoch", fails: []string{
		"Live/a changed idle timeout counts from the change",
		"Live/timeouts of 0 are without limit",
	}, wreck: func(b *broken) {
		b.loaded(func(r *sessionstore.Record) {
			if r.ExpiresAt.IsZero() {
				r.ExpiresAt = time.Unix(0, 0).UTC()
			}
		})
	}},
	{name: "the node is not stored", fails: []string{
		"Create joining/stores beside a live record that has the secret hash",
		"Load/returns the live record under key",
		"Record/node is stored",
	}, wreck: func(b *broken) {
		b.created(func(_, r *sessionstore.Record) { r.Node = "" })
	}},
	{name: "Load ignores the context", fails: []string{"Errors/every method honours the context's end"}, wreck: func(b *broken) {
		b.load = func(ctx context.Context, key sessionstore.Key, known sessionstore.Version) (*sessionstore.Record, error) {
			return b.Backend.Load(context.WithoutCancel(ctx), key, known)
		}
	}},
	{name: "List ignores the context", fails: []string{
		"Errors/every method honours the context's end",
		"List/yields nothing after an error",
	}, wreck: func(b *broken) {
		b.list = func(ctx context.Context, sel sessionstore.Selector) iter.Seq2[sessionstore.Info, error] {
			return b.Backend.List(context.WithoutCancel(ctx), sel)
		}
	}},
	{name: "errors quote the data", fails: []string{"Errors/no error text contains a secret hash or data"}, wreck: func(b *broken) {
		b.create = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error) {
			created, err := b.Backend.Create(ctx, rec, cond)
			if err != nil {
				err = fmt.Errorf("insert %s %q: %w", rec.Key.ID, rec.Data, err)
			}
			return created, err
		}
	}},
	{name: "errors quote the secret hash", fails: []string{"Errors/no error text contains a secret hash or data"}, wreck: func(b *broken) {
		b.update = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
			if err := b.Backend.Update(ctx, rec, cond); err != nil {
				return fmt.Errorf("update %s with %x: %w", rec.Key.ID, cond.SecretHash, err)
			}
			return nil
		}
	}},
}

// principal folds principals wherever they are stored or compared.
func (b *broken) principal(fold func(string) string) {
	b.create = func(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error) {
		folded := *rec
		folded.Principal = fold(rec.Principal)
		return b.Backend.Create(ctx, &folded, cond)
	}
	b.delete = func(ctx context.Context, sel sessionstore.Selector) ([]*sessionstore.Record, error) {
		sel.Principal = fold(sel.Principal)
		return b.Backend.Delete(ctx, sel)
	}
	b.list = func(ctx context.Context, sel sessionstore.Selector) iter.Seq2[sessionstore.Info, error] {
		sel.Principal = fold(sel.Principal)
		return b.Backend.List(ctx, sel)
	}
}

// data lets change spoil the data that is stored.
func (b *broken) data(change func([]byte) []byte) {
	b.created(func(_, r *sessionstore.Record) { r.Data = change(r.Data) })
	b.updated(func(_, r *sessionstore.Record) { r.Data = change(r.Data) })
}

// loaded lets change spoil what Load returns.
func (b *broken) loaded(change func(*sessionstore.Record)) {
	b.load = func(ctx context.Context, key sessionstore.Key, known sessionstore.Version) (*sessionstore.Record, error) {
		rec, err := b.Backend.Load(ctx, key, known)
		if rec != nil {
			change(rec)
		}
		return rec, err
	}
}
