package sqlbackend

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// Load implements [sessionstore.Backend] with one primary-key query, which
// concurrent calls share.
func (b *Backend) Load(ctx context.Context, key sessionstore.Key, known sessionstore.Version) (*sessionstore.Record, error) {
	found, err := b.load(ctx, key, known)
	return answer(key, known, found, err)
}

// answer says what a record found for key means.
func answer(key sessionstore.Key, known sessionstore.Version, found *sessionstore.Record, err error) (*sessionstore.Record, error) {
	switch {
	case err != nil:
		return nil, fmt.Errorf("load session %s: %w", key.ID, err)
	case found == nil:
		return nil, fmt.Errorf("load session %s: %w", key.ID, sessionstore.ErrNotFound)
	case found.Key.App != key.App:
		return found, fmt.Errorf("load session %s: %w", key.ID, sessionstore.ErrSibling)
	case found.Version == known:
		return found, fmt.Errorf("load session %s: %w", key.ID, sessionstore.ErrNotModified)
	}
	return found, nil
}

func (b *Backend) load(ctx context.Context, key sessionstore.Key, known sessionstore.Version) (*sessionstore.Record, error) {
	if b.sql.loadMany == nil {
		return b.loadAlone(ctx, key, known)
	}
	q := &question{asked: key, known: known}
	if err := b.loads.do(ctx, q); err != nil {
		return nil, err
	}
	return q.found, q.err
}

func (b *Backend) loadAlone(ctx context.Context, key sessionstore.Key, known sessionstore.Version) (found *sessionstore.Record, err error) {
	a := args{"id": b.dialect.ID(key.ID), "app": b.dialect.Text(key.App), "version": int64(known)}
	err = b.read(ctx, &b.ran, b.sql.load, a, func() { found = nil }, func(scan Scan) (err error) {
		found, err = scanRecord(scan)
		return err
	})
	return found, err
}

// List implements [sessionstore.Backend]. It reads all records, some 300 bytes
// each without their data, before it yields the first. Pages would not do: a
// session used between two of them moves to the front and would be missed.
func (b *Backend) List(ctx context.Context, sel sessionstore.Selector) iter.Seq2[sessionstore.Info, error] {
	return func(yield func(sessionstore.Info, error) bool) {
		infos, err := b.list(ctx, sel)
		if err != nil {
			yield(sessionstore.Info{}, fmt.Errorf("list sessions: %w", err))
			return
		}
		for _, info := range infos {
			if err := ctx.Err(); err != nil {
				yield(sessionstore.Info{}, fmt.Errorf("list sessions: %w", err))
				return
			}
			if !yield(info, nil) {
				return
			}
		}
	}
}

func (b *Backend) list(ctx context.Context, sel sessionstore.Selector) ([]sessionstore.Info, error) {
	st := b.sql.listPrincipal
	if sel.Principal == "" {
		st = b.sql.listID
		if sel.ID.IsZero() {
			return nil, nil
		}
	}
	var infos []sessionstore.Info
	err := b.read(ctx, &b.ran, st, b.selectorArgs(sel), func() { infos = nil }, func(scan Scan) error {
		r, err := scanInfo(scan)
		if err == nil && selects(sel, r) {
			infos = append(infos, r.Info)
		}
		return err
	})
	return infos, err
}

func (b *Backend) selectorArgs(sel sessionstore.Selector) args {
	return args{"id": b.dialect.ID(sel.ID), "principal": b.dialect.Text(sel.Principal), "app": b.dialect.Text(sel.App)}
}

// selects reports whether sel matches a record that is live.
func selects(sel sessionstore.Selector, r *sessionstore.Record) bool {
	if sel.ID.IsZero() && sel.Principal == "" || spares(sel, r.Key.ID) {
		return false
	}
	return (sel.ID.IsZero() || sel.ID == r.Key.ID) &&
		(sel.Principal == "" || sel.Principal == r.Principal && (sel.App == "" || sel.App == r.Key.App))
}

// spares reports whether sel leaves a session alone, whatever else it is.
func spares(sel sessionstore.Selector, id sessionstore.ID) bool {
	return slices.Contains(sel.Except, id) || sel.Only != nil && !slices.Contains(sel.Only, id)
}
