// Package membackend keeps sessions in the memory of one process.
//
// It is a complete [sessionstore.Backend], held to the same conformance suite as
// the SQL backends, for tests and for single-process programs whose sessions need
// not outlive them:
//
//	backend := membackend.New()
//
// Nothing is durable and no other process sees the sessions. Everything stays
// until it is deleted or swept, so a program that runs for long must sweep.
//
// Its clock is [time.Now], which inside a testing/synctest bubble is the bubble's
// clock; [Backend.Advance] moves it in tests that run outside of one.
package membackend

import (
	"context"
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// A Backend is a [sessionstore.Backend] in memory. It is safe for concurrent use,
// holds nothing that needs closing, and copies all data in and out, so that
// callers may reuse their buffers. Use [New]; the zero Backend panics.
type Backend struct {
	statements atomic.Int64

	mu sync.Mutex // guards everything below
	// sessions holds the records by ID and application, because an ID's records
	// share a secret and a fate.
	sessions map[sessionstore.ID]map[string]*sessionstore.Record
	// principals finds the records that hold a principal without a scan; "" is
	// not in it.
	principals map[string]map[sessionstore.Key]*sessionstore.Record
	offset     time.Duration // of the clock, set by Advance
	events     []storedEvent // in order
	lastEvent  int64         // sequence number of the latest event, pruned or not
	nodes      map[string]sessionstore.Node
}

var _ sessionstore.Backend = (*Backend)(nil)

// New returns an empty Backend.
func New() *Backend {
	return &Backend{
		sessions:   make(map[sessionstore.ID]map[string]*sessionstore.Record),
		principals: make(map[string]map[sessionstore.Key]*sessionstore.Record),
		nodes:      make(map[string]sessionstore.Node),
	}
}

// Advance moves the backend's clock by d, for tests that are not in a
// testing/synctest bubble. A negative d sets it back. A manager's cached copies go by the
// process's clock and do not notice: if a test is about expiry, its
// [sessionstore.Config] wants CacheBytes -1.
func (b *Backend) Advance(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.offset += d
}

// Statements returns how many calls have asked something of this Backend: the
// statements that a database would have run. Ranging over a list counts once; the
// polling of events and the registry of nodes, which no request causes, do not count.
func (b *Backend) Statements() int64 { return b.statements.Load() }

// Load implements [sessionstore.Backend].
func (b *Backend) Load(ctx context.Context, key sessionstore.Key, known sessionstore.Version) (*sessionstore.Record, error) {
	if err := b.begin(ctx); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.nowLocked()
	if r := b.sessions[key.ID][key.App]; r != nil && live(r, now) {
		if r.Version == known {
			return copyWithoutData(r, now), sessionstore.ErrNotModified
		}
		return copyOf(r, now), nil
	}
	for _, r := range b.sessions[key.ID] {
		if live(r, now) {
			return copyWithoutData(r, now), sessionstore.ErrSibling
		}
	}
	return nil, sessionstore.ErrNotFound
}

// Create implements [sessionstore.Backend].
func (b *Backend) Create(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) (time.Time, error) {
	if err := b.begin(ctx); err != nil {
		return time.Time{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.nowLocked()
	records := b.sessions[rec.Key.ID]
	joins := !cond.SecretHash.IsZero()
	if joins {
		proven := false
		for app, r := range records {
			proven = proven || app != rec.Key.App && live(r, now) && r.SecretHash == cond.SecretHash
		}
		if !proven {
			return time.Time{}, sessionstore.ErrNotFound
		}
		if records[rec.Key.App] != nil {
			return time.Time{}, sessionstore.ErrExists
		}
	} else if len(records) > 0 {
		return time.Time{}, sessionstore.ErrExists
	}
	if b.exceedsLocked(rec, cond, now) {
		return time.Time{}, sessionstore.ErrLimit
	}

	if joins {
		b.renewLocked(rec, cond)
	}
	r := copyOf(rec, time.Time{})
	r.Version, r.CreatedAt, r.AccessedAt = 1, now, now
	setExpiry(r)
	b.putLocked(r)
	return now, nil
}

// Update implements [sessionstore.Backend].
func (b *Backend) Update(ctx context.Context, rec *sessionstore.Record, cond sessionstore.Condition) error {
	if err := b.begin(ctx); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.nowLocked()
	old := b.sessions[rec.Key.ID][rec.Key.App]
	if old == nil || !live(old, now) || old.Version != cond.Version || old.SecretHash != cond.SecretHash {
		return sessionstore.ErrConflict
	}
	if b.exceedsLocked(rec, cond, now) {
		return sessionstore.ErrLimit
	}

	b.renewLocked(rec, cond)
	if cond.Announce || rec.SecretHash != cond.SecretHash {
		b.announceLocked(rec.Key, cond.Version+1)
	}
	r := copyOf(rec, time.Time{})
	r.Version, r.CreatedAt, r.AccessedAt = cond.Version+1, old.CreatedAt, old.AccessedAt
	if now.After(r.AccessedAt) {
		r.AccessedAt = now
	}
	setExpiry(r)
	b.removeLocked(old)
	b.putLocked(r)
	return nil
}

// Touch implements [sessionstore.Backend].
func (b *Backend) Touch(ctx context.Context, touches []sessionstore.Touch) error {
	if err := b.begin(ctx); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.nowLocked()
	for _, t := range touches {
		r := b.sessions[t.Key.ID][t.Key.App]
		if r == nil || !live(r, now) {
			continue
		}
		if at := now.Add(-t.Ago).Truncate(time.Microsecond); at.After(r.AccessedAt) {
			r.AccessedAt = at
			setExpiry(r)
		}
	}
	return nil
}

// Delete implements [sessionstore.Backend].
func (b *Backend) Delete(ctx context.Context, sel sessionstore.Selector) ([]*sessionstore.Record, error) {
	if err := b.begin(ctx); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.nowLocked()
	ids := make(map[sessionstore.ID]bool)
	for _, r := range b.selectLocked(sel, now) {
		ids[r.Key.ID] = true
	}
	var removed []*sessionstore.Record
	for id := range ids {
		for _, r := range b.sessions[id] {
			if live(r, now) {
				b.removeLocked(r)
				removed = append(removed, copyOf(r, now))
			}
		}
		b.announceLocked(sessionstore.Key{ID: id}, 0)
	}
	return removed, nil
}

// List implements [sessionstore.Backend].
func (b *Backend) List(ctx context.Context, sel sessionstore.Selector) iter.Seq2[sessionstore.Info, error] {
	return func(yield func(sessionstore.Info, error) bool) {
		if err := b.begin(ctx); err != nil {
			yield(sessionstore.Info{}, err)
			return
		}
		for _, info := range b.infos(sel) {
			if err := ctx.Err(); err != nil {
				yield(sessionstore.Info{}, err)
				return
			}
			if !yield(info, nil) {
				return
			}
		}
	}
}

// infos returns a snapshot, so that List yields without holding the lock.
func (b *Backend) infos(sel sessionstore.Selector) []sessionstore.Info {
	b.mu.Lock()
	defer b.mu.Unlock()
	var infos []sessionstore.Info
	for _, r := range b.selectLocked(sel, b.nowLocked()) {
		infos = append(infos, r.Info)
	}
	slices.SortFunc(infos, func(x, y sessionstore.Info) int { return y.AccessedAt.Compare(x.AccessedAt) })
	return infos
}

// DeleteExpired implements [sessionstore.Backend]. It looks at every record,
// which for the number of sessions that fit in one process's memory is cheaper
// than keeping them in order of expiry at each touch.
func (b *Backend) DeleteExpired(ctx context.Context, sweep sessionstore.Sweep) (removed []*sessionstore.Record, more bool, err error) {
	if err := b.begin(ctx); err != nil {
		return nil, false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.nowLocked()
	candidates := maps.Values(b.sessions)
	if !sweep.ID.IsZero() {
		candidates = slices.Values([]map[string]*sessionstore.Record{b.sessions[sweep.ID]})
	}
	for records := range candidates {
		for _, r := range records {
			if live(r, now) || !slices.Contains(sweep.Apps, r.Key.App) && !isOrphan(r, sweep, now) {
				continue
			}
			if len(removed) >= sweep.Limit {
				return removed, true, nil
			}
			b.removeLocked(r)
			last := copyOf(r, now)
			if sweep.OmitData {
				last.Data = nil
			}
			removed = append(removed, last)
		}
	}
	return removed, false, nil
}

// begin counts a call and refuses it if its context has ended.
func (b *Backend) begin(ctx context.Context) error {
	b.statements.Add(1)
	return ctx.Err()
}

// nowLocked is the clock that decides everything here (P12).
func (b *Backend) nowLocked() time.Time {
	return time.Now().UTC().Add(b.offset).Truncate(time.Microsecond)
}

// selectLocked returns the live records that sel matches.
func (b *Backend) selectLocked(sel sessionstore.Selector, now time.Time) []*sessionstore.Record {
	var found []*sessionstore.Record
	add := func(r *sessionstore.Record) {
		only := sel.Only == nil || slices.Contains(sel.Only, r.Key.ID)
		if live(r, now) && only && !slices.Contains(sel.Except, r.Key.ID) {
			found = append(found, r)
		}
	}
	switch {
	case sel.Principal != "":
		for key, r := range b.principals[sel.Principal] {
			if (sel.App == "" || sel.App == key.App) && (sel.ID.IsZero() || sel.ID == key.ID) {
				add(r)
			}
		}
	case !sel.ID.IsZero():
		for _, r := range b.sessions[sel.ID] {
			add(r)
		}
	}
	return found
}

// exceedsLocked reports whether writing rec would give its principal more live
// sessions in its application than cond allows.
func (b *Backend) exceedsLocked(rec *sessionstore.Record, cond sessionstore.Condition, now time.Time) bool {
	if cond.MaxSessions <= 0 || rec.Principal == "" {
		return false
	}
	n := 1 // rec itself, once written
	for key, r := range b.principals[rec.Principal] {
		if key != rec.Key && key.App == rec.Key.App && live(r, now) {
			n++
		}
	}
	return n > cond.MaxSessions
}

// renewLocked gives the other records under rec's ID its secret hash, if that is
// not the one the write was conditional on. It renews records that are no longer
// live too: all records under an ID have one hash.
func (b *Backend) renewLocked(rec *sessionstore.Record, cond sessionstore.Condition) {
	if rec.SecretHash == cond.SecretHash {
		return
	}
	for app, r := range b.sessions[rec.Key.ID] {
		if app != rec.Key.App {
			r.SecretHash = rec.SecretHash
			r.Version++
			b.announceLocked(r.Key, r.Version)
		}
	}
}

func (b *Backend) putLocked(r *sessionstore.Record) {
	if b.sessions[r.Key.ID] == nil {
		b.sessions[r.Key.ID] = make(map[string]*sessionstore.Record)
	}
	b.sessions[r.Key.ID][r.Key.App] = r
	if r.Principal == "" {
		return
	}
	if b.principals[r.Principal] == nil {
		b.principals[r.Principal] = make(map[sessionstore.Key]*sessionstore.Record)
	}
	b.principals[r.Principal][r.Key] = r
}

func (b *Backend) removeLocked(r *sessionstore.Record) {
	delete(b.sessions[r.Key.ID], r.Key.App)
	if len(b.sessions[r.Key.ID]) == 0 {
		delete(b.sessions, r.Key.ID)
	}
	delete(b.principals[r.Principal], r.Key)
	if len(b.principals[r.Principal]) == 0 {
		delete(b.principals, r.Principal)
	}
}

func live(r *sessionstore.Record, now time.Time) bool {
	return r.ExpiresAt.IsZero() || now.Before(r.ExpiresAt)
}

// isOrphan reports whether a record that is no longer live expired so long ago
// that the sweep takes it whatever its application is.
func isOrphan(r *sessionstore.Record, sweep sessionstore.Sweep, now time.Time) bool {
	return sweep.Orphans > 0 && !now.Before(r.ExpiresAt.Add(sweep.Orphans))
}

// setExpiry sets ExpiresAt from the other times.
func setExpiry(r *sessionstore.Record) {
	r.ExpiresAt = time.Time{}
	if r.Idle > 0 {
		r.ExpiresAt = r.AccessedAt.Add(r.Idle)
	}
	if end := r.CreatedAt.Add(r.Lifetime); r.Lifetime > 0 && (r.ExpiresAt.IsZero() || end.Before(r.ExpiresAt)) {
		r.ExpiresAt = end
	}
}

func copyOf(r *sessionstore.Record, now time.Time) *sessionstore.Record {
	c := *r
	c.Data, c.Now = slices.Clone(r.Data), now
	return &c
}

func copyWithoutData(r *sessionstore.Record, now time.Time) *sessionstore.Record {
	c := *r
	c.Data, c.Now = nil, now
	return &c
}
