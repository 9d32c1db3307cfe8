package sessionstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Receipt is what a client must hold from now on. The zero Receipt means: what
// it holds.
type Receipt struct {
	// ID is the session's that Token or Version is about.
	ID ID
	// Token, if not zero, is the client's new token.
	Token Token
	// Version, if not 0, is the version the client is to be told of.
	Version Version
	// Clear says that the client's session has ended and it holds none.
	Clear bool
}

// Commit stores what s has changed, as [Session.Save] does with the same errors,
// and returns what the client must be told before the response's first byte. It
// is to be called right before that byte, and again after the handler for
// changes made since; what such late changes would have to tell the client is
// not stored and reported as [ErrTooLate]. Beside an error, the receipt is about what
// the request has read, and what earlier Saves of it have stored.
//
// A request without changes runs no statement here, with two exceptions: a touch where
// nobody runs the ID manager, or where the session's idle timeout is short or nearly over;
// and a question before the client's token is given another route, after a node's end.
func (m *Manager) Commit(ctx context.Context, s *Session) (Receipt, error) {
	node, route := m.ids.Node(), m.route()
	s.mu.Lock()
	idle, base, source := s.pending.isEmpty(), s.base, s.source
	asks := !s.sealed && source != SourceOutage // else the database would be asked in vain once more
	moves := asks && s.movesLocked(node, route)
	if idle && !moves { // as most requests
		receipt := s.sealLocked(Token{})
		s.mu.Unlock()
		if asks && base != nil {
			m.touchIdle(ctx, base, source)
		}
		return receipt, nil
	}
	unsure := s.unsure
	s.mu.Unlock()
	if !idle {
		err := unsure
		if err == nil {
			err = m.save(ctx, s)
		}
		if err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.sealLocked(Token{}), err
		}
	}
	var moved Token
	if asks {
		if idle && base != nil {
			m.touchIdle(ctx, base, source)
		}
		moved = m.moved(ctx, s, node, route)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sealLocked(moved), nil
}

// Abandon drops what s has changed and not stored, and returns what the client must be
// told of what earlier Saves have stored, as [Manager.Commit] does.
func (m *Manager) Abandon(s *Session) Receipt {
	s.Discard()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending.ends = nil
	return s.sealLocked(Token{})
}

// touchIdle writes back the use of a session in which a request stores nothing, where
// nothing else does.
func (m *Manager) touchIdle(ctx context.Context, base *snapshot, source Source) {
	flushed := source == SourceCache || m.ids.Live() // a cached copy answers only then
	m.touchNow(ctx, base, flushed)
}

// routeGrace is how long after the database has confirmed a secret it is sent to
// the client again without another look.
const routeGrace = time.Millisecond

// movesLocked reports whether the client's token is to be given another route: this
// node's, if it has none or that of a node that does not serve any more, or none, if it
// has this node's and the node drains. The former is done only by a request for which this
// node had to ask the database, the first that lands here.
//
// Routes of nodes that serve stay: no balancer led the client here by mistake, and a
// response with the secret of before a login must not be under way without need (P7).
func (s *Session) movesLocked(node, route string) bool {
	if s.base == nil || s.superseded || !s.receipt.Token.IsZero() || s.token.Route() == route {
		return false
	}
	if route == node {
		return s.source == SourceDatabase && (s.m.watcher == nil || !s.m.watcher.Serves(s.token.Route()))
	}
	return s.token.Route() == node
}

// moved returns the client's token with the route it is to be given, and else the
// zero Token. It does so only if the secret has just been confirmed: a response that
// brings an outdated one would take the place of the token that a login has set
// meanwhile (P7).
func (m *Manager) moved(ctx context.Context, s *Session, node, route string) Token {
	s.mu.Lock()
	base, token, hash, moves := s.base, s.token, s.hash, s.movesLocked(node, route)
	s.mu.Unlock()
	if !moves {
		return Token{}
	}
	if m.now()-base.anchor > routeGrace {
		sn, _, err := m.load(ctx, token.ID())
		if err != nil || !equalHash(sn.hash, hash) {
			return Token{}
		}
	}
	return token.WithRoute(route)
}

// sealLocked returns what the client is to be told, once. moved, if not zero, is its
// token with another route.
func (s *Session) sealLocked(moved Token) Receipt {
	if s.sealed {
		return Receipt{}
	}
	s.sealed = true
	r := s.receipt
	if s.base == nil || s.superseded {
		return Receipt{Clear: r.Clear && !s.superseded}
	}
	r.Clear = false
	if r.Token.IsZero() {
		r.Token = moved
	}
	// Less than it was told of, only if the database has lost what it had acknowledged:
	// then the client must stop asking for it.
	if s.base.info.Version != s.told {
		r.Version = s.base.info.Version
	}
	if r != (Receipt{}) {
		r.ID = s.base.info.ID
	}
	return r
}

// endsKey finds, in the context of a commit, its ends.
type endsKey struct{}

// ends are what listeners are to hear of sessions that a commit ends.
type ends struct {
	others []end // before they hear of what it stores
	own    []end // after that: a login that was beyond the limit
}

type end struct {
	id       ID
	announce func(context.Context)
}

// save commits what is pending.
func (m *Manager) save(ctx context.Context, s *Session) (err error) {
	var ended ends
	var announce []func(context.Context)
	// Listeners run without any lock: they may use the session. They hear of ends even if
	// the backend panics afterwards (P11).
	defer func() {
		ctx := context.WithoutCancel(ctx)
		for _, end := range ended.others {
			end.announce(ctx)
		}
		for _, f := range announce {
			f(ctx)
		}
		for _, end := range ended.own {
			end.announce(ctx)
		}
	}()
	announce, err = m.saveOnce(context.WithValue(ctx, endsKey{}, &ended), s)
	return err
}

// saveOnce is save under the session's commitMu. It returns what is to be
// announced after it.
func (m *Manager) saveOnce(ctx context.Context, s *Session) ([]func(context.Context), error) {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	w, resets, err := s.beginWrite()
	if w == nil {
		return nil, err
	}
	returned := false
	defer func() {
		if !returned { // the backend has panicked
			s.keep(w, resets)
		}
	}()
	outdated, err := m.perform(ctx, s, w)
	returned = true
	return s.settle(w, resets, outdated, err)
}

// beginWrite takes what is pending for a write. It returns none if there is nothing to be
// stored, or what a function of the handler's has made cannot be. Resets tells whether
// the request invalidates its session meanwhile.
func (s *Session) beginWrite() (w *write, resets uint32, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pending
	if s.detached || p.err != nil {
		return nil, 0, p.err
	}
	s.writing, s.pending, s.unsure = &p, pending{}, nil
	w = &write{
		pending: p, hash: s.hash, token: s.token,
		joins: s.joins, sealed: s.sealed, superseded: s.superseded, tried: s.tried,
	}
	if s.base != nil {
		if w.base = s.base.whole(); w.base == s.base {
			w.seen = s.base.info.Version
		}
	}
	return w, s.resets, nil
}

// perform does in the database what w says. If there is no such session, outdated is what
// the client had, nil if it has ended.
func (m *Manager) perform(ctx context.Context, s *Session, w *write) (outdated *ending, err error) {
	// Nobody's hang-up undoes what a handler has decided.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.cfg.Timeout)
	defer cancel()
	if err = m.end(ctx, s, w); err == nil {
		err = m.store(ctx, w)
	}
	if err != nil && w.base != nil && (w.pending.principal != nil || w.pending.renew) {
		m.cache.drop(w.base.info.ID) // as after a failed logout
	}
	if errors.Is(err, ErrNotFound) && (w.joins || w.base != nil) {
		outdated = m.outdatedBy(ctx, w)
	}
	return outdated, err
}

// settle makes the outcome of a write that has returned, err and what w says, the
// session's, and returns what is to be announced and the error for the handler.
func (s *Session) settle(w *write, resets uint32, outdated *ending, err error) ([]func(context.Context), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = nil
	s.edits++
	if s.resets != resets {
		s.endLocked(w)
		return s.m.announcements(w), err
	}
	if w.tooLate && err == nil {
		err = ErrTooLate
	}
	if errors.Is(err, ErrTooLate) {
		s.m.stats.tooLate.Add(1)
	}
	switch {
	case w.tooLate && w.after != nil: // the rest was stored
		s.installLocked(w)
	case errors.Is(err, ErrNotFound):
		// Gone: the changes are dropped (P3), and the client's cookie is left
		// alone: by now it may be that of a session begun elsewhere.
		s.resetLocked(s.pending.ends)
		s.outdated, s.superseded = outdated, outdated != nil
		return nil, err
	case err != nil:
		if w.unsure && w.renewed {
			s.tried = w.token
			if s.token.IsZero() {
				s.token = w.token // another attempt is to create the same session
			}
		}
		if s.pending = w.pending.before(s.pending); w.unsure && !w.pending.isIdempotent() {
			s.unsure = fmt.Errorf("changes are not stored twice after: %w", err)
		}
		return nil, err
	case w.after == nil: // nothing had to be stored
		s.pending = w.pending.before(s.pending)
	default:
		s.installLocked(w)
	}
	return s.m.announcements(w), err
}

// keep puts back what a write that did not return was to store, and may have stored.
func (s *Session) keep(w *write, resets uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = nil
	s.edits++
	if s.resets == resets {
		s.pending, s.unsure = w.pending.before(s.pending), errPanicked
	}
}

// outdatedBy returns what the client of a write had that found no such session: nil if it
// has ended, but perhaps it only has another secret. If that cannot be told, it may have.
func (m *Manager) outdatedBy(ctx context.Context, w *write) *ending {
	id := w.token.ID()
	sn, sibling, err := m.load(ctx, id)
	switch {
	case err == nil && equalHash(sn.hash, w.hash):
		return nil // begun anew
	case err == nil || errors.Is(err, ErrNotFound):
		if outdated, err := m.outdated(ctx, id, w.hash, sn, sibling); err == nil {
			return outdated
		}
	}
	return &ending{id: id, hash: w.hash, outdated: true}
}

// endLocked takes down what is left to be ended after a write during which the request
// has invalidated its session: what the write could not end, and what it has stored.
func (s *Session) endLocked(w *write) {
	ends := append(slices.Clip(w.pending.ends), s.pending.ends...)
	if after := w.after; after != nil && (w.created || w.renewed || w.hash == after.hash) { // and not superseded (P7)
		e := ending{id: after.info.ID, hash: after.hash, principal: after.info.Principal}
		if i := slices.IndexFunc(ends, func(other ending) bool { return other.id == e.id }); i >= 0 {
			ends[i] = e // as it was before the write
		} else {
			ends = append(ends, e)
		}
	}
	s.pending.ends = ends
}

// end ends the sessions that the request has invalidated.
func (m *Manager) end(ctx context.Context, s *Session, w *write) error {
	for len(w.pending.ends) > 0 {
		e := w.pending.ends[0]
		if e.outdated && w.pending.principal != nil && *w.pending.principal != "" {
			// A login takes the place of whatever the client had. Only a logout that ends
			// nothing must not be acknowledged.
			w.pending.ends = w.pending.ends[1:]
			continue
		}
		if err := m.mayEnd(ctx, e); err != nil {
			m.cache.drop(e.id) // whoever wanted to be logged out is not served from a copy
			return fmt.Errorf("invalidate session %s: %w", e.id, err)
		}
		if _, err := m.ids.End(ctx, Selector{ID: e.id}, CauseInvalidated); err != nil {
			return fmt.Errorf("invalidate session %s: %w", e.id, err)
		}
		w.pending.ends = w.pending.ends[1:]
		s.mu.Lock()
		s.receipt = Receipt{Clear: true}
		s.mu.Unlock()
	}
	return nil
}

// mayEnd refuses to end a session that may have become somebody else's since the
// request began: it was renewed, and has another principal or, if the request was
// anonymous, perhaps one in another application (P7).
func (m *Manager) mayEnd(ctx context.Context, e ending) error {
	sn, sibling, err := m.load(ctx, e.id)
	switch {
	case err == nil && !equalHash(sn.hash, e.hash) && (sn.info.Principal != e.principal || e.principal == ""),
		errors.Is(err, ErrSibling) && !equalHash(sibling.SecretHash, e.hash):
		return fmt.Errorf("%w: another request has renewed the session", ErrConflict)
	case err == nil || errors.Is(err, ErrNotFound):
		return nil
	}
	return err
}

// installLocked lets the request see what it has stored.
func (s *Session) installLocked(w *write) {
	after := w.after
	s.tried = Token{}
	switch {
	case w.renewed || w.created && (!w.joins || w.token != s.token):
		s.token, s.hash = w.token, after.hash
		// A client whose login is on its way is told of no other session than that, unless
		// this is a login too.
		s.superseded = w.superseded && after.info.Principal == ""
		if !s.superseded {
			s.outdated = nil
		}
		if !w.sealed && !s.superseded {
			s.receipt.Token = w.token
		}
	case s.hash != after.hash:
		// Another request has renewed the session meanwhile. The changes are in,
		// but the secret this client presented no longer opens it: it sees nothing
		// newer, and is told nothing (P7).
		s.superseded = true
		if s.base == nil { // it joined
			s.base, s.joins = w.base, false
			s.enterLocked(w.base.activity, w.base, s.m.now())
		}
		if attrs, err := w.pending.apply(s.base.attrs, false); err == nil {
			s.base = s.base.viewing(attrs)
		}
		return
	}
	s.joins = false
	s.base = after
	s.enterLocked(after.activity, after, s.m.now())
	s.keepLocked() // its timeout may be another now
	s.rebaseLocked()
}

// announcements are the listener calls that a write gives rise to, in order.
func (m *Manager) announcements(w *write) []func(context.Context) {
	if w.after == nil || len(m.cfg.Listeners) == 0 {
		return nil
	}
	var fs []func(context.Context)
	if w.created {
		fs = append(fs, func(ctx context.Context) { m.notifyCreated(ctx, w.after) })
	}
	if w.renewed && !w.created {
		fs = append(fs, func(ctx context.Context) { m.notifyRenewed(ctx, w.after) })
	}
	return append(fs, func(ctx context.Context) { m.notifyAttributes(ctx, w.before, w.after) })
}
