package membackend

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync/atomic"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

var readFaults = []fault{
	{name: "Load returns expired records", fails: []string{
		"Create joining/returns ErrExists if this application holds an expired record",
		"Create/returns ErrExists even if the record has expired",
		"Live/a changed idle timeout counts from the change",
		"Live/an expired record is never loaded",
		"Live/an expired record is never touched",
		"Live/an expired record is never updated",
		"Live/an idle record ends",
		"Live/each application has its own expiry",
		"Live/use extends an idle timeout",
		"Live/use never extends a lifetime",
		"Renewal/reaches records that are no longer live",
		"Touch/ignores keys that have no live record",
		"Touch/moves access times and expiry forward to the clock less Ago",
		"Update/returns ErrConflict for an expired record",
	}, wreck: func(b *broken) {
		b.load = func(ctx context.Context, key sessionstore.Key, known sessionstore.Version) (*sessionstore.Record, error) {
			rec, err := b.Backend.Load(ctx, key, known)
			if r := b.stored(key); errors.Is(err, sessionstore.ErrNotFound) && r != nil {
				return r, nil
			}
			return rec, err
		}
	}},
	{name: "Load never says not modified", fails: []string{
		"Load/returns ErrNotModified and no data if the version is known",
		"Record/now is the clock of the answer",
	}, wreck: func(b *broken) {
		b.load = func(ctx context.Context, key sessionstore.Key, _ sessionstore.Version) (*sessionstore.Record, error) {
			return b.Backend.Load(ctx, key, 0)
		}
	}},
	{name: "Load says not modified to whoever knows a later version", fails: []string{"Load/returns the record with data if another version is known"}, wreck: func(b *broken) {
		b.load = func(ctx context.Context, key sessionstore.Key, known sessionstore.Version) (*sessionstore.Record, error) {
			if r := b.stored(key); r != nil && known > r.Version {
				known = r.Version
			}
			return b.Backend.Load(ctx, key, known)
		}
	}},
	{name: "Load moves data that is not modified", fails: []string{"Load/returns ErrNotModified and no data if the version is known"}, wreck: func(b *broken) {
		b.load = func(ctx context.Context, key sessionstore.Key, known sessionstore.Version) (*sessionstore.Record, error) {
			rec, err := b.Backend.Load(ctx, key, known)
			if errors.Is(err, sessionstore.ErrNotModified) {
				rec.Data = b.stored(key).Data
			}
			return rec, err
		}
	}},
	{name: "Load knows no siblings", fails: []string{
		"Live/each application has its own expiry",
		"Load/returns ErrSibling and no data if another application holds one",
		"Load/the sibling shown is a live one",
	}, wreck: func(b *broken) {
		b.load = func(ctx context.Context, key sessionstore.Key, known sessionstore.Version) (*sessionstore.Record, error) {
			rec, err := b.Backend.Load(ctx, key, known)
			if errors.Is(err, sessionstore.ErrSibling) {
				return nil, sessionstore.ErrNotFound
			}
			return rec, err
		}
	}},
	{name: "Load shows expired siblings", fails: []string{
		"Live/an expired record is never loaded",
		"Load/an expired sibling is none",
		"Load/the sibling shown is a live one",
	}, wreck: func(b *broken) {
		b.load = func(ctx context.Context, key sessionstore.Key, known sessionstore.Version) (*sessionstore.Record, error) {
			rec, err := b.Backend.Load(ctx, key, known)
			if errors.Is(err, sessionstore.ErrNotFound) {
				for _, r := range b.remembered(key.ID) {
					if r.Key != key {
						r.Data = nil
						return r, sessionstore.ErrSibling
					}
				}
			}
			return rec, err
		}
	}},
	{name: "Load returns a record beside an error", fails: []string{
		"Live/an expired record is never loaded",
		"Load/an expired sibling is none",
		"Load/otherwise an error comes with nil",
	}, wreck: func(b *broken) {
		b.load = func(ctx context.Context, key sessionstore.Key, known sessionstore.Version) (*sessionstore.Record, error) {
			rec, err := b.Backend.Load(ctx, key, known)
			if rec == nil {
				rec = new(sessionstore.Record)
			}
			return rec, err
		}
	}},
	{name: "List is in the wrong order", fails: []string{"List/yields the most recently used first"}, wreck: func(b *broken) {
		b.listed(func(_ sessionstore.Selector, infos []sessionstore.Info) []sessionstore.Info {
			slices.Reverse(infos)
			return infos
		})
	}},
	{name: "List by principal shows siblings", fails: []string{
		"List/by ID yields the records of all applications",
		"List/by principal yields only records that hold it",
	}, wreck: func(b *broken) {
		b.listed(func(sel sessionstore.Selector, infos []sessionstore.Info) []sessionstore.Info {
			var all []sessionstore.Info
			for _, info := range infos {
				all = append(all, b.infos(sessionstore.Selector{ID: info.Key.ID})...)
			}
			return all
		})
	}},
	{name: "List shows expired records", fails: []string{
		"Create joining/fails even if an expired record outlives the deleted session",
		"Live/an expired record is never listed",
	}, wreck: func(b *broken) {
		b.listed(func(sel sessionstore.Selector, infos []sessionstore.Info) []sessionstore.Info {
			b.locked(func(now time.Time) {
				for _, r := range b.principals[sel.Principal] {
					if !live(r, now) {
						infos = append(infos, r.Info)
					}
				}
				for _, r := range b.sessions[sel.ID] {
					if !live(r, now) {
						infos = append(infos, r.Info)
					}
				}
			})
			return infos
		})
	}},
	{name: "List ends after a page", fails: []string{"List/yields many each once"}, wreck: func(b *broken) {
		b.listed(func(_ sessionstore.Selector, infos []sessionstore.Info) []sessionstore.Info {
			return infos[:min(len(infos), 100)]
		})
	}},
	{name: "List repeats the last of a page", fails: []string{"List/yields many each once"}, wreck: func(b *broken) {
		b.listed(func(_ sessionstore.Selector, infos []sessionstore.Info) []sessionstore.Info {
			if len(infos) > 100 {
				infos = slices.Insert(infos, 100, infos[99])
			}
			return infos
		})
	}},
	{name: "List ignores Except", fails: []string{"List/by principal yields only records that hold it"}, wreck: func(b *broken) {
		b.list = func(ctx context.Context, sel sessionstore.Selector) iter.Seq2[sessionstore.Info, error] {
			sel.Except = nil
			return b.Backend.List(ctx, sel)
		}
	}},
	{name: "List ignores Only", fails: []string{"List/by principal yields only records that hold it"}, wreck: func(b *broken) {
		b.list = func(ctx context.Context, sel sessionstore.Selector) iter.Seq2[sessionstore.Info, error] {
			sel.Only = nil
			return b.Backend.List(ctx, sel)
		}
	}},
	{name: "List of nothing is all", fails: []string{"List/with neither ID nor principal yields nothing"}, wreck: func(b *broken) {
		b.listed(func(sel sessionstore.Selector, infos []sessionstore.Info) []sessionstore.Info {
			if sel.ID.IsZero() && sel.Principal == "" {
				b.locked(func(now time.Time) {
					for _, records := range b.sessions {
						for _, r := range records {
							if live(r, now) {
								infos = append(infos, r.Info)
							}
						}
					}
				})
			}
			return infos
		})
	}},
	{name: "List holds a connection while it yields", fails: []string{"List/holds no resource while it yields"}, wreck: func(b *broken) {
		var open atomic.Int64
		b.list = func(ctx context.Context, sel sessionstore.Selector) iter.Seq2[sessionstore.Info, error] {
			return func(yield func(sessionstore.Info, error) bool) {
				if open.Add(1) > 20 {
					open.Add(-1)
					yield(sessionstore.Info{}, errors.New("too many connections"))
					return
				}
				defer open.Add(-1)
				b.Backend.List(ctx, sel)(yield)
			}
		}
	}},
	{name: "List leaks a connection if left early", fails: []string{
		"List/may be left early",
		"List/the backend may be called while it yields",
	}, wreck: func(b *broken) {
		var open atomic.Int64
		b.list = func(ctx context.Context, sel sessionstore.Selector) iter.Seq2[sessionstore.Info, error] {
			return func(yield func(sessionstore.Info, error) bool) {
				if open.Load() > 20 {
					yield(sessionstore.Info{}, errors.New("too many connections"))
					return
				}
				for info, err := range b.Backend.List(ctx, sel) {
					if !yield(info, err) {
						open.Add(1)
						return
					}
				}
			}
		}
	}},
	{name: "List goes on after an error", fails: []string{"List/yields nothing after an error"}, wreck: func(b *broken) {
		b.list = func(ctx context.Context, sel sessionstore.Selector) iter.Seq2[sessionstore.Info, error] {
			return func(yield func(sessionstore.Info, error) bool) {
				if err := ctx.Err(); err != nil && !yield(sessionstore.Info{}, err) {
					return
				}
				b.Backend.List(ctx, sel)(yield)
			}
		}
	}},
}

// listed lets change spoil what List yields.
func (b *broken) listed(change func(sessionstore.Selector, []sessionstore.Info) []sessionstore.Info) {
	b.list = func(ctx context.Context, sel sessionstore.Selector) iter.Seq2[sessionstore.Info, error] {
		return func(yield func(sessionstore.Info, error) bool) {
			if err := ctx.Err(); err != nil {
				yield(sessionstore.Info{}, err)
				return
			}
			for _, info := range change(sel, b.infos(sel)) {
				if !yield(info, nil) {
					return
				}
			}
		}
	}
}
