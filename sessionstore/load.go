package sessionstore

import (
	"context"
	"errors"
	"log/slog"
	"sync"
)

// loads are the questions to the database that are under way, one per session.
type loads struct{ shard [shards]loadShard }

type loadShard struct {
	mu      sync.Mutex // guards running
	running map[ID]*loading
}

// A loading is one question and those who wait for its answer.
type loading struct {
	done chan struct{} // closed when answered
	next *loading      // the question after this one, if somebody waits for it; guarded by the shard

	snap    *snapshot
	sibling *Record
	err     error
}

// load asks the database for a session. Concurrent callers share questions: one takes
// the first answer to a question asked after its call. So at most two questions answer
// any burst.
func (m *Manager) load(ctx context.Context, id ID) (*snapshot, *Record, error) {
	sh, current := m.loads.lock(id)
	if current == nil {
		return m.startLoad(ctx, id, sh)
	}
	l, first := current.next, false
	if l == nil {
		l, first = &loading{done: make(chan struct{})}, true
		current.next = l
	}
	sh.mu.Unlock()
	if !first {
		if err := await(ctx, l.done); err != nil {
			return nil, nil, err
		}
		return l.snap, l.sibling, l.err
	}
	<-current.done // bounded by its timeout; others count on this caller
	m.answer(ctx, id, l)
	return l.snap, l.sibling, l.err
}

// loadAtLeast is load for a client that is content with the answer on its way, or just
// arrived, if that has at least the version it was told of. So one question answers
// any burst of such clients.
func (m *Manager) loadAtLeast(ctx context.Context, id ID, hash SecretHash, told Version) (*snapshot, *Record, error) {
	sh, current := m.loads.lock(id)
	if current == nil {
		// An answer is in the cache before its question is no longer under way.
		if sn := m.cache.get(id); sn != nil && m.mayAnswer(sn, hash, told, m.now()) {
			sh.mu.Unlock()
			return sn, nil, nil
		}
		return m.startLoad(ctx, id, sh)
	}
	sh.mu.Unlock()
	if err := await(ctx, current.done); err != nil {
		return nil, nil, err
	}
	if current.err == nil && current.snap.info.Version >= told && equalHash(current.snap.hash, hash) { // P5
		return current.snap, nil, nil
	}
	return m.load(ctx, id)
}

// lock locks the session's shard and returns it, and the question under way, if any.
func (ls *loads) lock(id ID) (sh *loadShard, current *loading) {
	sh = &ls.shard[id.shard()]
	sh.mu.Lock()
	return sh, sh.running[id]
}

// startLoad asks while no question is under way. It unlocks the shard.
func (m *Manager) startLoad(ctx context.Context, id ID, sh *loadShard) (*snapshot, *Record, error) {
	l := &loading{done: make(chan struct{})}
	if sh.running == nil {
		sh.running = make(map[ID]*loading)
	}
	sh.running[id] = l
	sh.mu.Unlock()
	m.answer(ctx, id, l)
	return l.snap, l.sibling, l.err
}

func await(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// answer asks the database on behalf of all who wait for l.
func (m *Manager) answer(ctx context.Context, id ID, l *loading) {
	defer func() {
		sh := &m.loads.shard[id.shard()]
		sh.mu.Lock()
		if l.next != nil {
			sh.running[id] = l.next
		} else {
			delete(sh.running, id)
		}
		sh.mu.Unlock()
		close(l.done)
	}()
	// One caller's hang-up must not fail the others.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.cfg.Timeout)
	defer cancel()
	l.err = context.Canceled // what the others see if the backend panics
	for range maxAsks {
		epoch := m.cache.epoch(id)
		l.snap, l.sibling, l.err = m.ask(ctx, id)
		// What this node was told of meanwhile holds for whoever has joined since (P6).
		if l.err != nil || !m.cache.dropped(id, l.snap.info.Version, epoch) {
			return
		}
	}
}

// maxAsks bounds how often the database is asked because the session has changed or ended
// while its answer was on its way.
const maxAsks = 3

// ask asks the database once, and keeps the answer in the cache.
func (m *Manager) ask(ctx context.Context, id ID) (*snapshot, *Record, error) {
	epoch, anchor := m.cache.epoch(id), m.now()
	known, version := m.cache.get(id), Version(0)
	if known != nil {
		version = known.info.Version
	}
	// Those who use the session now; a part that a sibling request creates while
	// the question is under way is not among them.
	users := m.activities.find(id)
	if users == nil && known != nil {
		users = known.activity
	}
	hadEnded, hadRecord := users != nil && users.hasEnded(), users != nil && users.state.is(isStored)
	m.stats.loads.Add(1)
	rec, err := m.backend.Load(ctx, Key{id, m.app}, version)
	if errors.Is(err, ErrNotModified) && microsOf(rec.CreatedAt) != known.info.CreatedAt {
		// Begun anew under the same ID, the versions too: the copy is of a record that
		// has expired (P3).
		m.cache.drop(id)
		epoch, anchor, known = m.cache.epoch(id), m.now(), nil
		rec, err = m.backend.Load(ctx, Key{id, m.app}, 0)
	}
	switch {
	case err == nil:
		if hadEnded { // before the question, so this record is another one
			m.activities.bury(id)
		}
		m.outlived(known, rec)
		known = nil
	case errors.Is(err, ErrNotModified):
		m.stats.notModified.Add(1)
	case errors.Is(err, ErrNotFound):
		m.cache.drop(id)
		if users != nil && (hadRecord || rec == nil) { // else they use a sibling's session, which lives
			users.end()
		}
		return nil, rec, err
	default:
		return nil, nil, err
	}
	sn := m.loaded(rec, anchor, known)
	sn.activity.state.set(isStored)
	m.cache.put(sn, epoch)
	return sn, nil, nil
}

// outlived drops copies of what the database does not have any more. A copy that was
// there before the question and is newer than the answer is of an earlier record under
// the ID, or the database has lost what it had acknowledged: a standby that lagged
// behind has become the primary. Versions are given out anew then, so no copy tells.
func (m *Manager) outlived(known *snapshot, rec *Record) {
	switch {
	case known == nil || known.info.Version <= rec.Version:
	case known.info.CreatedAt != microsOf(rec.CreatedAt):
		m.cache.drop(rec.Key.ID)
	default:
		m.cache.reset()
		m.cfg.Logger.Error("the database has lost commits, all copies are dropped", slog.String("app", m.app),
			slog.String("session", rec.Key.ID.String()), slog.Int64("version", int64(known.info.Version)), slog.Int64("stored", int64(rec.Version)))
	}
}
