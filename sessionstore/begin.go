package sessionstore

import (
	"context"
	"crypto/subtle"
	"errors"
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
			return m.loadAtLeast(ctx, id, hash, claim.Version)
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
