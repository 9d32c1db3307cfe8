package sessionstore

import (
	"context"
	"crypto/subtle"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// onItsWay is how long after a login a request may arrive that was sent before the
// client was told its new secret. It counts from the session's last use: who presents an
// earlier secret of a session that nobody uses has perhaps never been told the new one.
const onItsWay = 30 * time.Second

// A Claim is what a client presents.
type Claim struct {
	// Token is the session it claims; the zero Token claims none.
	Token Token
	// Version is the version of the session it was last told of, 0 if unknown.
	// Without it every request asks the database.
	Version Version
	// Fresh makes this request confirm the session with the database, whatever
	// the manager's freshness.
	Fresh bool
}

// Begin returns the view of one request on the session it claims. The caller
// must call Release once when the request is over, after its last Commit.
//
// A claim of nothing, or one the database refuses (unknown, expired, wrong
// secret), yields a new, empty session under another ID, which costs no statement
// until something is stored in it (P7, P9). If the session it claims was just given a new
// secret, the client may hold that by now, and is not told of the new session unless that
// has a principal: its cookie would take the place of the login's. An error means that the database
// could not be asked, and that no copy stood in for it (see [Config.Outage]); what
// the client holds may be valid, so its cookie must be left alone.
func (m *Manager) Begin(ctx context.Context, claim Claim) (*Session, error) {
	s := &Session{m: m}
	if claim.Token.IsZero() {
		return s, nil // P9
	}
	id, hash, start := claim.Token.ID(), claim.Token.SecretHash(), m.now()
	if !claim.Fresh && m.cfg.Freshness == Causal {
		if sn := m.cache.get(id); sn != nil && m.mayAnswer(sn, hash, claim.Version, start) {
			m.stats.readsOf(id).hits.Add(1)
			m.claim(s, claim, hash, sn, SourceCache, start)
			return s, nil // P10
		}
	}
	// Who asks with a version is content with an answer to a question asked before
	// its own, if that is new enough. Everybody else waits for one asked after.
	ask := m.load
	if !claim.Fresh && m.cfg.Freshness == Causal && claim.Version > 0 {
		ask = func(ctx context.Context, id ID) (*snapshot, *Record, error) {
			return m.join(ctx, id, hash, claim.Version)
		}
	}
	sn, sibling, err := ask(ctx, id)
	switch {
	case err == nil && equalHash(sn.hash, hash):
		m.claim(s, claim, hash, sn, SourceDatabase, m.now())
	case errors.Is(err, ErrSibling) && equalHash(sibling.SecretHash, hash):
		s.token, s.hash, s.joins = claim.Token, hash, true
	case err == nil, errors.Is(err, ErrNotFound): // P5, the database has refused
		m.stats.refused.Add(1)
		if s.outdated, err = m.outdated(ctx, id, hash, sn, sibling); err != nil {
			return nil, err
		}
		s.superseded = s.outdated != nil
	default:
		if sn = m.standIn(ctx, claim, hash, err); sn == nil {
			return nil, err
		}
		m.claim(s, claim, hash, sn, SourceOutage, m.now())
	}
	return s, nil
}

// outdated returns what a client with a secret that the database has refused had, if a
// new secret may be on its way to it, else nil: if the session was just used, in this or
// in another application. Whoever gives it a new secret also uses it. sn and sibling are
// what was answered.
func (m *Manager) outdated(ctx context.Context, id ID, hash SecretHash, sn *snapshot, sibling *Record) (*ending, error) {
	var now, used time.Time
	switch {
	case sn != nil:
		now, used = sn.now.time(), sn.info.AccessedAt.time()
	case sibling != nil:
		now, used = sibling.Now, sibling.AccessedAt
	default:
		return nil, nil
	}
	if now.Sub(used) >= onItsWay {
		ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
		defer cancel()
		for info, err := range m.backend.List(ctx, Selector{ID: id}) {
			if err != nil {
				return nil, err
			}
			if info.AccessedAt.After(used) {
				used = info.AccessedAt
			}
		}
	}
	if now.Sub(used) >= onItsWay {
		return nil, nil
	}
	return &ending{id: id, hash: hash, outdated: true}, nil
}

// mayAnswer is the freshness rule: whether a cached copy may answer without the
// database. All four parts must hold.
func (m *Manager) mayAnswer(sn *snapshot, hash SecretHash, told Version, now time.Duration) bool {
	return equalHash(sn.hash, hash) && !sn.expired(now) && // 1
		told > 0 && sn.info.Version >= told && !sn.doubtful && // 2, P4
		m.ids.Live() && // 3, P6
		now-sn.anchor <= m.cfg.MaxStale // 4
}

func equalHash(a, b SecretHash) bool { return subtle.ConstantTimeCompare(a[:], b[:]) == 1 }

// claim gives the session the snapshot it has proven to own. now is the time.
func (m *Manager) claim(s *Session, claim Claim, hash SecretHash, sn *snapshot, source Source, now time.Duration) {
	s.token, s.hash, s.told = claim.Token, hash, claim.Version
	s.base, s.source = sn, source
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enterLocked(sn.activity, sn, now)
}

// Release ends the request's use of the session. It must be called once for each
// Begin, after the last Commit; what was not committed is lost. A handler that
// outlives its request (under http.TimeoutHandler, say) may go on using s, but no
// longer keeps the session from expiring.
func (m *Manager) Release(s *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaveLocked()
	s.released = true
}

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
		return m.begin(ctx, id, sh)
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

// join is load for a client that is content with the answer on its way, or just
// arrived, if that has at least the version it was told of. So one question answers
// any burst of such clients.
func (m *Manager) join(ctx context.Context, id ID, hash SecretHash, told Version) (*snapshot, *Record, error) {
	sh, current := m.loads.lock(id)
	if current == nil {
		// An answer is in the cache before its question is no longer under way.
		if sn := m.cache.get(id); sn != nil && m.mayAnswer(sn, hash, told, m.now()) {
			sh.mu.Unlock()
			return sn, nil, nil
		}
		return m.begin(ctx, id, sh)
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

// begin asks while no question is under way. It unlocks the shard.
func (m *Manager) begin(ctx context.Context, id ID, sh *loadShard) (*snapshot, *Record, error) {
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
	l.snap, l.sibling, l.err = m.ask(ctx, id)
}

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
	hadEnded := users != nil && users.hasEnded()
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
		if users != nil {
			users.end()
		}
		return nil, rec, err
	default:
		return nil, nil, err
	}
	sn := m.loaded(rec, anchor, known)
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
