package sessionstore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// A Source says where a request's view of its session came from.
type Source int

const (
	// SourceNew: the request began without a stored session.
	SourceNew Source = iota
	// SourceCache: a cached copy answered, without the database.
	SourceCache
	// SourceDatabase: the database was asked.
	SourceDatabase
	// SourceOutage: the database was asked and did not answer, and a cached copy did
	// in its place, see ServeCached.
	SourceOutage
)

// String returns new, cache, database or outage.
func (s Source) String() string {
	switch s {
	case SourceCache:
		return "cache"
	case SourceDatabase:
		return "database"
	case SourceOutage:
		return "outage"
	default:
		return "new"
	}
}

// A Session is one request's view of a session: an immutable snapshot and the
// changes this request makes, which others see once they are committed. Reading
// and changing it never blocks and never fails; what cannot be stored (a value
// that does not encode, a principal that is too long) fails the commit, which
// package middleware makes before the response's first byte leaves.
//
// A Session is safe for concurrent use by the goroutines of its request, and
// must not be used after the request. There is no useful zero value: see
// [FromContext] and [Manager.Begin].
type Session struct {
	m        *Manager
	commitMu sync.Mutex // one commit at a time; taken before mu

	mu       sync.Mutex // guards what follows
	token    Token      // what the client holds, or will be given; zero until an ID is needed
	hash     SecretHash // of the token the client has presented; zero if none
	told     Version    // the version the client was last told of
	base     *snapshot  // what is stored, nil if nothing
	source   Source
	previous time.Duration // when the request before began on this node, 0 if unknown
	entered  *activity     // the session this request is counted as using
	keeper   *time.Timer   // touches it while the request runs, nil if Flush is enough

	pending  pending  // changes since the last commit
	writing  *pending // changes that a commit is writing now, nil if none is
	edits    uint32   // counts changes to pending
	resets   uint32   // counts resetLocked
	receipt  Receipt  // what the client has to be told and was not yet
	outdated *ending  // the client's session, if another secret of it is on its way to the client; else nil
	tried    Token    // the new one of a save that failed, which may be stored; zero if none
	unsure   error    // of a save that failed: what is pending may be stored, and must not be stored twice

	// Together, because each request has a Session: this makes it smaller.
	detached   bool // belongs to no request: what listeners read from; never changes
	joins      bool // nothing is stored here, but hash was proven by a sibling application
	released   bool // the request is over: it is counted no more
	superseded bool // another request renewed the session; this one sees its old view, or nothing
	sealed     bool // the response has begun: the client can be told nothing more
}

// ID returns the session's ID. Asking a session that is not stored yet reserves
// one; only a later change stores it.
func (s *Session) ID() ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.idLocked()
}

func (s *Session) idLocked() ID {
	if s.detached {
		return s.base.info.ID
	}
	if s.token.IsZero() {
		s.token = s.m.ids.NewToken()
	}
	return s.token.ID()
}

// IsNew reports whether nothing is stored for this session yet.
func (s *Session) IsNew() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.base == nil
}

// Claimed reports whether the client has proven this session to be its own: its
// claim was accepted, by this application's record or by a sibling application's,
// or it has been stored since. It is false again once the session has ended.
func (s *Session) Claimed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.base != nil || s.joins
}

// Superseded reports whether another request has given the session a new secret, which
// the client holds by now or is about to be told. This request sees the session as it was
// before, or, if it came after that, a new one; what it stores there is kept, and its
// client is told nothing of it, unless this request logs in.
func (s *Session) Superseded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.superseded
}

// Version returns the version this request sees, 0 if nothing is stored yet.
func (s *Session) Version() Version {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.base == nil {
		return 0
	}
	return s.base.info.Version
}

// Source tells where the request's view came from when it began or was last refreshed.
func (s *Session) Source() Source {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.source
}

// Principal returns whose session this is, "" while it is anonymous.
func (s *Session) Principal() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.principalLocked()
}

func (s *Session) principalLocked() string {
	switch {
	case s.pending.principal != nil:
		return *s.pending.principal
	case s.writing != nil && s.writing.principal != nil:
		return *s.writing.principal
	case s.base != nil:
		return s.base.info.Principal
	}
	return ""
}

// SetPrincipal binds the session to a principal, a user's name or key, and
// renews it, so that a token that was known before the login is worth nothing
// after it (P7). "" makes the session anonymous again. A principal belongs to
// this application: siblings under the same ID have their own. Attributes and timeouts
// stay as they are, and the lifetime is counted from the session's creation: whoever
// takes a session over from another principal should Invalidate it first. (Then a request
// from before, if it stores something after that, begins a session of its own and may
// take the login's place in the browser. A session that only gets another secret is not
// replaced so.)
func (s *Session) SetPrincipal(principal string) {
	s.change(func(p *pending) {
		if err := ValidatePrincipal(principal); err != nil {
			p.fail(err)
			return
		}
		p.principal = &principal
		p.renew = true
	})
}

// Renew replaces the session's secret, in all applications. The ID, the
// attributes and the lifetime stay. If another request has renewed the session
// since this one began, the old secret is worth nothing already, and nothing more
// happens.
func (s *Session) Renew() { s.change(func(p *pending) { p.renew = true }) }

// Start asks for the session to be stored, and its cookie to be set, even if
// nothing is set in it.
func (s *Session) Start() { s.change(func(p *pending) { p.start = s.base == nil }) }

// SetIdleTimeout changes how long this session lives after its last use, in this
// application. 0 restores the application's IdleTimeout; the special value -1
// means no idle timeout. A session with a timeout shorter than two of the
// application's touch intervals is written back on its own requests' time. A timeout
// must be between 1 ms and 100 years, or the commit fails ([ErrUnstorable]).
func (s *Session) SetIdleTimeout(d time.Duration) {
	s.change(func(p *pending) { p.idle = p.limit("idle timeout", d, s.m.cfg.IdleTimeout) })
}

// SetLifetime changes how long after its creation this session ends, in this
// application. 0 restores the application's Lifetime; the special value -1 means
// no limit. It must be between 1 ms and 100 years, or the commit fails
// ([ErrUnstorable]).
func (s *Session) SetLifetime(d time.Duration) {
	s.change(func(p *pending) { p.lifetime = p.limit("lifetime", d, s.m.cfg.Lifetime) })
}

// Invalidate ends the session, in all applications. From here on s is a new,
// empty session: what is set in it afterwards (a parting message, say) is stored
// under a new ID.
func (s *Session) Invalidate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.detached {
		return
	}
	if s.outdated != nil { // the commit refuses to end what it became meanwhile
		s.pending.ends = append(s.pending.ends, *s.outdated) // first: the client is told of no other end
	}
	if s.base != nil || s.joins {
		e := ending{id: s.token.ID(), hash: s.hash}
		if s.base != nil {
			e.principal = s.base.info.Principal
		}
		s.pending.ends = append(s.pending.ends, e)
	}
	s.resetLocked(s.pending.ends)
}

// resetLocked makes s a new, empty session.
func (s *Session) resetLocked(ends []ending) {
	s.leaveLocked()
	s.token, s.hash, s.told, s.joins, s.base = Token{}, SecretHash{}, 0, false, nil
	s.source, s.previous, s.superseded, s.outdated = SourceNew, 0, false, nil
	s.pending, s.unsure, s.tried = pending{ends: ends}, nil, Token{}
	s.edits++
	s.resets++
}

// change lets f change what is pending.
func (s *Session) change(f func(*pending)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.detached {
		return
	}
	s.edits++
	f(&s.pending)
}

// Discard drops the changes that were not committed yet, those of a commit that
// failed included. An Invalidate that was not committed yet stays.
func (s *Session) Discard() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.edits++
	s.pending, s.unsure = pending{ends: s.pending.ends}, nil
}

// Info returns what is known about the session but its data. AccessedAt is the
// time of the previous request. A session that is not stored yet has only a Key
// and its timeouts.
func (s *Session) Info() Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.base == nil {
		return Info{
			Key:  Key{s.idLocked(), s.m.app},
			Idle: s.m.cfg.IdleTimeout, Lifetime: s.m.cfg.Lifetime,
		}
	}
	info := s.base.info.of(s.m.app)
	if s.previous > 0 {
		if t := s.base.databaseTime(s.previous); t.After(info.AccessedAt) {
			info.AccessedAt = t
		}
	}
	if !s.detached && info.Idle > 0 {
		// The request in flight is a use that will be written back.
		now := s.base.databaseTime(s.m.now())
		current := Info{CreatedAt: info.CreatedAt, AccessedAt: now, Idle: info.Idle, Lifetime: info.Lifetime}
		current.setExpiresAt()
		info.ExpiresAt = current.ExpiresAt
	}
	return info
}

// Names yields the names of the attributes that are set, sorted.
func (s *Session) Names() iter.Seq[string] {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, a := range s.base.attributes() {
		if _, _, changed := s.changedLocked(a.name); !changed {
			names = append(names, a.name)
		}
	}
	for _, p := range s.changesLocked() {
		for name := range p.attrs {
			if _, present, _ := s.changedLocked(name); present {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Values(slices.Compact(names))
}

// unchanged stands for changes where there are none. Nobody writes to it.
var unchanged pending

// changesLocked returns what this request has changed, the latest changes first.
func (s *Session) changesLocked() [2]*pending {
	if s.writing == nil {
		return [...]*pending{&s.pending, &unchanged}
	}
	return [...]*pending{&s.pending, s.writing}
}

// changedLocked returns what this request made of an attribute.
func (s *Session) changedLocked(name string) (data []byte, present, changed bool) {
	for _, p := range s.changesLocked() {
		if c, ok := p.attrs[name]; ok {
			return c.data, c.present, true
		}
	}
	return nil, false, false
}

// lookup returns an attribute's encoded value as this request sees it. stored is
// not nil if that is the value of the snapshot.
func (s *Session) lookup(name string) (data []byte, present bool, stored *attribute, edits uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if data, present, changed := s.changedLocked(name); changed {
		return data, present, nil, s.edits
	}
	if a, ok := s.base.attributes().find(name); ok {
		return a.data, true, a, s.edits
	}
	return nil, false, nil, s.edits
}

// place says where an attribute is stored.
func (s *Session) place(name string) Place {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Place{Key: Key{s.idLocked(), s.m.app}, Attr: name}
}

// Done returns a channel that is closed when this node learns that the session
// has ended: for requests that outlast many others, such as streams and
// WebSockets. Of an end that it can have heard of in no other way, because another node
// has swept the session or events were missed, it learns within about a touch interval.
// A login is no end, also not that of another principal; a stream finds that out by
// Refresh. It is not closed by the end of the request, nor for a session that
// is never stored.
func (s *Session) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.detached {
		return nil // a listener has nothing to wait for
	}
	if s.entered == nil {
		// Nothing is stored yet: count it as used from here on, so that the commit
		// that stores it finds the same activity.
		s.m.activities.bury(s.idLocked()) // that of a part that has expired
		s.enterLocked(s.m.activities.of(s.idLocked(), s.base), nil, s.m.now())
	}
	if s.entered == nil {
		return nil // the request is over
	}
	return s.entered.doneChan()
}

// Save commits the changes made so far, in the middle of a long request, and
// leaves this request seeing what was stored. Its error is errors.Is [ErrNotFound] if
// the session has ended, [ErrTooLarge], [ErrLimit], [ErrConflict], [ErrUnstorable] or
// [ErrCorrupt], and nothing was stored; or [ErrTooLate] if the response has begun and a
// change needs the client to be given a new token, and the other changes were stored.
// After any other error it is unknown whether the changes were stored. If [Attr.Update] or
// [Attr.Take] is among them, they might be done twice then, so the commit at the response's
// first byte fails, unless Save is called again or Discard.
//
// Changes that could not be stored stay pending; see Discard. Those of a session that has
// ended are dropped, and s is from then on a new, empty session.
//
// The context's values are handed on; its end does not cut a commit short, which
// [Config.Timeout] bounds.
func (s *Session) Save(ctx context.Context) error { return s.m.save(ctx, s) }

// Refresh confirms the session with the database and takes its newest version;
// changes that are not committed stay. If the session has ended, or was renewed
// by another request, it returns an error that is [ErrNotFound], and s is from
// then on a new, empty session. On any other error nothing has changed. Refreshing
// a session of which nothing is stored does nothing.
func (s *Session) Refresh(ctx context.Context) error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	s.mu.Lock()
	stored, id, hash := s.base != nil && !s.detached, ID{}, s.hash
	if stored {
		id = s.token.ID()
	}
	s.mu.Unlock()
	if !stored {
		return nil
	}
	sn, sibling, err := s.m.load(ctx, id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	s.mu.Lock()
	tried := s.tried
	s.mu.Unlock()
	own := err == nil && !tried.IsZero() && equalHash(sn.hash, tried.SecretHash()) // a save of unknown outcome has taken place
	gone := err != nil || !equalHash(sn.hash, hash) && !own
	var outdated *ending
	if gone {
		if outdated, err = s.m.outdated(ctx, id, hash, sn, sibling); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token.ID() != id || s.base == nil { // invalidated meanwhile
		return nil
	}
	if gone {
		s.resetLocked(nil)
		s.outdated, s.superseded = outdated, outdated != nil
		return fmt.Errorf("refresh session %s: %w", id, ErrNotFound)
	}
	if own {
		s.token, s.hash, s.tried = tried, sn.hash, Token{}
		if !s.sealed {
			s.receipt.Token = tried
		}
	}
	s.base, s.source = sn, SourceDatabase
	s.enterLocked(sn.activity, sn, s.m.now())
	s.keepLocked()
	s.rebaseLocked()
	return nil
}

// rebaseLocked recomputes what this request's pending functions make of a newer base.
func (s *Session) rebaseLocked() {
	for name, c := range s.pending.attrs {
		if c.absolute {
			continue
		}
		a, present := s.base.attributes().find(name)
		var data []byte
		if present {
			data = a.data
		}
		data, present, err := c.replay(data, present)
		if err != nil {
			s.pending.fail(err)
			continue
		}
		n := *c
		n.data, n.present = data, present
		s.pending.attrs[name] = &n
	}
	s.edits++
}

// enterLocked counts the request as using the session.
func (s *Session) enterLocked(a *activity, sn *snapshot, now time.Duration) {
	if s.entered == a || s.released {
		return
	}
	s.leaveLocked()
	a, previous := s.m.activities.enter(a, now)
	s.entered = a
	if sn != nil {
		s.previous = previous
	}
	s.m.stats.readsOf(a.id).active.Add(1)
	s.keepLocked()
}

// touchesPerIdle is how often a session whose own idle timeout is short is touched in the
// time of one, while a request runs: twice may fail.
const touchesPerIdle = 3

// keepLocked has the session touched again and again while the request runs, if its
// own idle timeout might pass before the next Flush.
func (s *Session) keepLocked() {
	if s.keeper != nil {
		s.keeper.Stop()
		s.keeper = nil
	}
	if s.base == nil || s.entered == nil || !s.m.needsOwnTouches(s.base.info.Idle) {
		return
	}
	a, every := s.entered, s.base.info.Idle/touchesPerIdle
	var keeper *time.Timer
	keeper = time.AfterFunc(every, func() {
		s.m.touchOne(context.Background(), a)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.keeper == keeper {
			keeper.Reset(every)
		}
	})
	s.keeper = keeper
}

func (s *Session) leaveLocked() {
	if s.entered == nil {
		return
	}
	s.m.activities.leave(s.entered, s.m.now())
	s.m.stats.readsOf(s.entered.id).active.Add(-1)
	s.entered = nil
	s.keepLocked()
}

// detached returns a view for listeners; sn may be nil.
func (m *Manager) detached(sn *snapshot) *Session {
	if sn == nil {
		sn = &snapshot{info: compact(Info{})}
	}
	return &Session{m: m, detached: true, base: sn}
}

// String names the session by its application and ID.
func (s *Session) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.base == nil {
		return s.m.app + "/new"
	}
	return s.m.app + "/" + s.base.info.ID.String()
}

// LogValue is what log/slog prints: application, ID and version.
func (s *Session) LogValue() slog.Value {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.base == nil {
		return slog.GroupValue(slog.String("app", s.m.app))
	}
	return slog.GroupValue(slog.String("app", s.m.app),
		slog.String("id", s.base.info.ID.String()),
		slog.Int64("version", int64(s.base.info.Version)))
}
