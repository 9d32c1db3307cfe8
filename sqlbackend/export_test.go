package sqlbackend

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// UpdateAlone is Update without company, for comparison.
func (b *Backend) UpdateAlone(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
	return b.updateAlone(ctx, rec, cond, b.sql.lockIDs)
}

// LoadAlone is Load without company, for comparison.
func (b *Backend) LoadAlone(ctx context.Context, key sessionstore.Key, known sessionstore.Version) (*sessionstore.Record, error) {
	return b.loadAlone(ctx, key, known)
}

// LoadTogether is Load in the company of others for other keys, on databases where
// there is such a thing.
func (b *Backend) LoadTogether(ctx context.Context, key sessionstore.Key, known sessionstore.Version, others ...sessionstore.Key) (*sessionstore.Record, error) {
	if b.sql.loadMany == nil {
		return b.Load(ctx, key, known)
	}
	q := &question{asked: key, known: known}
	group := []*question{q}
	for _, k := range others {
		group = append(group, &question{asked: k})
	}
	b.loadGroup(ctx, group)
	return answer(q.asked, q.known, q.found, q.err)
}

// UpdateTogether is a group of concurrent calls of Update. They must be of those that
// travel in groups, and their keys must differ.
func (b *Backend) UpdateTogether(ctx context.Context, recs []*sessionstore.Record, conds []sessionstore.Condition) []error {
	saves := make([]*save, len(recs))
	for i := range saves {
		saves[i] = &save{rec: recs[i], cond: conds[i]}
	}
	b.saveGroup(ctx, append([]*save{}, saves...))
	errs := make([]error, len(saves))
	for i, s := range saves {
		if errors.Is(s.err, errPassedOver) {
			s.err = b.updateLate(ctx, s)
		}
		errs[i] = s.err
	}
	return errs
}

// HoldLimit takes the mutex under which a principal's sessions are counted, calls held, and
// keeps it until a channel is closed.
func (b *Backend) HoldLimit(ctx context.Context, app, principal string, held func(), until <-chan struct{}) error {
	return b.db.InTx(ctx, func(tx Tx) error {
		if err := tx.Lock(ctx, []string{b.mutex("limit", app, principal)}); err != nil {
			return err
		}
		held()
		<-until
		return nil
	})
}

// CreateAlone is Create without company, for comparison.
func (b *Backend) CreateAlone(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error) {
	created, err := b.createAlone(ctx, rec, cond, b.sql.lockIDs)
	return fromMicros(created), err
}

// CreateTogether is a group of concurrent calls of Create, of sessions whose IDs are
// new to the database and differ.
func (b *Backend) CreateTogether(ctx context.Context, recs []*sessionstore.Record) ([]time.Time, []error) {
	creations := make([]*creation, len(recs))
	for i := range creations {
		creations[i] = &creation{rec: recs[i]}
	}
	b.createGroup(ctx, append([]*creation{}, creations...))
	created, errs := make([]time.Time, len(recs)), make([]error, len(recs))
	for i, c := range creations {
		if errs[i] = c.err; c.err == nil {
			created[i] = fromMicros(c.created)
		}
	}
	return created, errs
}

// DeleteTogether is a group of concurrent calls of Delete, of different sessions.
func (b *Backend) DeleteTogether(ctx context.Context, ids []sessionstore.ID) ([][]*sessionstore.Record, []error) {
	deletions := make([]*deletion, len(ids))
	for i := range deletions {
		deletions[i] = &deletion{id: ids[i]}
	}
	b.deleteGroup(ctx, append([]*deletion{}, deletions...))
	removed, errs := make([][]*sessionstore.Record, len(ids)), make([]error, len(ids))
	for i, d := range deletions {
		if errors.Is(d.err, errPassedOver) {
			d.removed, d.err = b.deleteID(ctx, d.id)
		}
		removed[i], errs[i] = d.removed, d.err
	}
	return removed, errs
}
