package sessionstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Pauses spread the attempts of nodes that collide again and again. Saves of one node
// queue up, so each conflict is another node's success. A pause is up to firstJitter, and
// up to twice as long after each jitterSteps conflicts more, at most maxJitter: a node that
// has lost often waits longer than those that have just come.
const (
	firstJitter = 20 * time.Millisecond
	jitterSteps = 8
	maxJitter   = 160 * time.Millisecond
)

func jitter(conflicts int) time.Duration {
	return rand.N(min(firstJitter<<min(conflicts/jitterSteps, 8), maxJitter))
}

// A write is one commit on its way to the database.
type write struct {
	pending    pending
	base       *snapshot  // what is known to be stored, nil if nothing
	seen       Version    // the version that pending was computed on, 0 if on none or a view
	hash       SecretHash // of the secret that the client has presented
	token      Token      // the client's; a new one is put here
	tried      Token      // an earlier attempt's new one, zero if there was none
	joins      bool       // hash was proven by a sibling application
	sealed     bool       // the client can be given no new token any more
	superseded bool       // the secret that the client has presented is known to be outdated
	deadline   time.Time  // until when it may take

	// The outcome. after stays nil if there was nothing to store.
	before, after    *snapshot
	created, renewed bool
	tooLate          bool
	unsure           bool // with err: whether it was stored is unknown
	err              error

	wake     chan struct{} // of one that waits: closed when it is finished, or to be run by its owner
	finished bool          // set before wake is closed
}

// alone reports whether the write must have a statement of its own.
func (w *write) alone() bool { return w.pending.mustWrite() }

// saves are the commits under way, one queue per session. While a statement is in
// flight, commits of the same session gather behind it and travel together in the
// next one; a lone commit never waits.
type saves struct {
	shard [shards]struct {
		mu     sync.Mutex // guards queues and what they hold
		queues map[ID]*saveQueue
	}
}

type saveQueue struct{ waiting []*write }

// store brings a write to the database.
func (m *Manager) store(ctx context.Context, w *write) error {
	if w.base != nil {
		if len(w.pending.attrs) == 0 && !w.alone() {
			return nil
		}
		return m.update(ctx, w)
	}
	attrs, err := w.pending.apply(nil, true)
	if err != nil {
		return err
	}
	anonymous := w.pending.principal == nil || *w.pending.principal == ""
	if len(attrs) == 0 && anonymous && !w.pending.start {
		return nil // P9
	}
	err = m.create(ctx, w, attrs)
	if errors.Is(err, ErrExists) && w.joins {
		// A request of this application has joined first, or an expired part of an
		// earlier visit is in the way.
		if err := m.ids.Expire(ctx, w.token.ID()); err != nil {
			return err
		}
		err = m.create(ctx, w, attrs)
	}
	again := !w.tried.IsZero()
	if errors.Is(err, ErrExists) && (w.joins || again) || errors.Is(err, ErrNotFound) && again {
		return m.updateFound(ctx, w, err)
	}
	return err
}

// updateFound stores a write in the session that was in the way of creating it: one that
// it joins, or that earlier attempts of unknown outcome have created. Refused is why it
// was not created.
func (m *Manager) updateFound(ctx context.Context, w *write, refused error) error {
	base, _, err := m.load(ctx, w.token.ID())
	if err != nil {
		return err
	}
	switch again := !w.tried.IsZero(); {
	case again && equalHash(base.hash, w.tried.SecretHash()):
		// With the secret that the client has presented, another request may have joined.
		w.created = !w.joins || !equalHash(base.hash, w.hash)
		w.token, w.hash = w.tried, base.hash
	case again && !w.joins && equalHash(base.hash, w.token.SecretHash()): // an attempt before that
		w.created, w.hash = true, base.hash
	case !w.joins:
		return refused
	case !equalHash(base.hash, w.hash):
		return fmt.Errorf("join session %s: %w", w.token.ID(), ErrNotFound)
	}
	w.base = base
	return m.update(ctx, w)
}

// create stores a new session, or this application's part of one.
func (m *Manager) create(ctx context.Context, w *write, attrs attributes) error {
	if w.token.IsZero() {
		w.token = m.ids.NewToken()
	}
	if w.sealed && !w.joins {
		return ErrTooLate
	}
	id, token := w.token.ID(), w.token
	rec := &Record{Info: Info{
		Key: Key{id, m.app}, Node: m.ids.Node(),
		Idle: m.cfg.IdleTimeout, Lifetime: m.cfg.Lifetime,
	}}
	cond := Condition{}
	if w.joins {
		cond.SecretHash = w.hash
		if w.pending.renew && w.sealed {
			return ErrTooLate
		}
		if w.pending.renew {
			// P7: the old one may have been known while anonymous.
			if token = w.tried; token.IsZero() || equalHash(token.SecretHash(), w.hash) {
				token = NewToken(id, m.route())
			}
		}
	}
	amend(rec, &w.pending)
	rec.SecretHash = token.SecretHash()
	cond.MaxSessions = m.limit(&w.pending)
	if err := m.encode(rec, attrs); err != nil {
		return err
	}
	epoch, anchor := m.cache.epoch(id), m.now()
	created, err := m.backend.Create(ctx, rec, cond)
	if err != nil {
		w.unsure = !errors.Is(err, ErrExists) && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrLimit)
		if w.unsure {
			w.renewed, w.token = true, token
		}
		return err
	}
	m.stats.created.Add(1)
	w.created, w.renewed, w.token = true, token != w.token, token
	m.activities.bury(id)
	w.after = m.written(rec, attrs, 1, anchor, created, nil)
	m.cache.put(w.after, epoch)
	m.afterLogin(ctx, w)
	return nil
}

// amend makes the changes that concern no attribute.
func amend(rec *Record, p *pending) {
	if p.principal != nil {
		rec.Principal = *p.principal
	}
	if p.idle != nil {
		rec.Idle = *p.idle
	}
	if p.lifetime != nil {
		rec.Lifetime = *p.lifetime
	}
}

// limit is the number of sessions that the change's principal may have, strictly.
func (m *Manager) limit(p *pending) int {
	if p.principal == nil || m.cfg.LimitPolicy != RefuseNew {
		return 0
	}
	return m.cfg.MaxSessions
}

func (m *Manager) encode(rec *Record, attrs attributes) error {
	if n := attrs.encodedSize(); n > m.cfg.MaxDataBytes {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, n, m.cfg.MaxDataBytes)
	}
	rec.Data = attrs.encode()
	return nil
}

// afterLogin does what a new principal or secret entails, once it is stored.
func (m *Manager) afterLogin(ctx context.Context, w *write) {
	if w.renewed {
		m.stats.renewed.Add(1)
		m.ids.Renewed(w.after.info.ID, m.app)
	}
	if p := w.pending.principal; p != nil && *p != "" && m.cfg.LimitPolicy == EvictOldest {
		m.evictOldest(ctx, w.after.info.ID, *p)
	}
}

// update saves changes of a stored session, alone or together with others.
func (m *Manager) update(ctx context.Context, w *write) error {
	id := w.base.info.ID
	w.deadline, _ = ctx.Deadline()
	sh := &m.saves.shard[id.shard()]
	sh.mu.Lock()
	if q := sh.queues[id]; q != nil {
		w.wake = make(chan struct{})
		q.waiting = append(q.waiting, w)
		sh.mu.Unlock()
		if err := m.queued(ctx, id, w); err != nil {
			return err
		}
		if w.finished {
			return w.err
		}
		sh.mu.Lock()
	} else {
		if sh.queues == nil {
			sh.queues = make(map[ID]*saveQueue)
		}
		sh.queues[id] = &saveQueue{}
	}

	// This write's owner now runs it, and those that may travel with it.
	q := sh.queues[id]
	group := []*write{w}
	for !w.alone() && len(q.waiting) > 0 && !q.waiting[0].alone() {
		group = append(group, q.waiting[0])
		q.waiting = q.waiting[1:]
	}
	sh.mu.Unlock()
	defer func() {
		for _, other := range group[1:] {
			other.finished = true
			close(other.wake)
		}
		sh.mu.Lock()
		defer sh.mu.Unlock()
		if len(q.waiting) == 0 {
			delete(sh.queues, id)
			return
		}
		next := q.waiting[0]
		q.waiting = q.waiting[1:]
		close(next.wake)
	}()
	if last := group[len(group)-1]; last != w { // it came last, so it has most time left
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(context.WithoutCancel(ctx), last.deadline)
		defer cancel()
	}
	m.saveGroup(ctx, id, group)
	return w.err
}

// queued waits until w is finished or is to be run by its owner, or fails when
// ctx ends first.
func (m *Manager) queued(ctx context.Context, id ID, w *write) error {
	select {
	case <-w.wake:
		return nil
	case <-ctx.Done():
	}
	sh := &m.saves.shard[id.shard()]
	sh.mu.Lock()
	q := sh.queues[id]
	i := -1
	if q != nil {
		i = slices.Index(q.waiting, w)
	}
	if i < 0 { // taken already
		sh.mu.Unlock()
		<-w.wake
		return nil
	}
	q.waiting = slices.Delete(q.waiting, i, i+1)
	sh.mu.Unlock()
	return fmt.Errorf("save session %s: waiting for earlier saves of it: %w", id, ctx.Err())
}

var errPanicked = errors.New("sessionstore: save panicked")

// saveGroup saves a group of writes of one session with one statement, each as if
// it came after the one before it. It replays all on a newer version as long as
// other nodes come first (P2).
func (m *Manager) saveGroup(ctx context.Context, id ID, group []*write) {
	g := &mergedSave{m: m, id: id, group: group, base: group[0].base}
	for _, w := range group {
		w.err = errPanicked // unless this returns
		if w.base.follows(g.base) {
			g.base = w.base
		}
	}
	if sn := m.cache.get(id); sn != nil && sn.follows(g.base) {
		g.base = sn
	}
	defer func() {
		if p := recover(); p != nil {
			g.unsure = true
			g.fail(errPanicked)
			panic(p)
		}
	}()
	if g.base.expired(m.now()) && !g.load(ctx) { // perhaps another record stands in its place
		return
	}
	for conflicts := 0; ; {
		rec, attrs, cond := m.prepare(g.base, group)
		if rec == nil && g.asked { // nothing is to be stored, or can be
			for _, w := range group {
				w.after = w.before // this is the outcome
			}
			return
		}
		if rec != nil {
			err := g.store(ctx, rec, attrs, cond)
			if err == nil {
				return
			}
			if !errors.Is(err, ErrConflict) {
				g.fail(err)
				return
			}
			m.stats.conflicts.Add(1)
			if conflicts++; conflicts > 1 && pause(ctx, jitter(conflicts)) != nil {
				g.fail(fmt.Errorf("save session %s: %d times in a row: %w: %w", id, conflicts, ErrConflict, ctx.Err()))
				return
			}
		}
		if !g.load(ctx) { // this node's copy is outdated, or may be
			return
		}
	}
}

// A mergedSave stores a group of writes as one.
type mergedSave struct {
	m      *Manager
	id     ID
	group  []*write
	base   *snapshot // what they change
	asked  bool      // the database is the source of base
	unsure bool      // whether they were stored is unknown
}

// load makes the stored session the base. It fails the writes if there is none: gone is
// gone (P3).
func (g *mergedSave) load(ctx context.Context) (ok bool) {
	sn, _, err := g.m.load(ctx, g.id)
	if err != nil {
		g.fail(err)
		return false
	}
	g.base, g.asked = sn, true
	return true
}

// store stores rec, which prepare has made of the writes and of base, and tells them.
func (g *mergedSave) store(ctx context.Context, rec *Record, attrs attributes, cond Condition) error {
	m := g.m
	epoch, anchor := m.cache.epoch(g.id), m.now()
	err := m.backend.Update(ctx, rec, cond)
	switch {
	case err == nil:
		m.stats.saved.Add(1)
		after := m.written(rec, attrs, cond.Version+1, anchor, g.base.databaseTime(anchor), g.base)
		after.unreadable = g.base.unreadable
		m.cache.put(after, epoch)
		m.saved(ctx, g.group, after)
	case !errors.Is(err, ErrConflict) && !errors.Is(err, ErrLimit):
		m.cache.doubt(g.id) // it is unknown what is stored now
		g.unsure = true
	}
	return err
}

// fail gives err to the writes that have no outcome of their own.
func (g *mergedSave) fail(err error) {
	for _, w := range g.group {
		if w.after == nil && (w.before != nil || w.err == errPanicked) { // was part of the statement, if any
			w.err, w.unsure = err, g.unsure
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// prepare computes what the group makes of base. A write that cannot be done
// fails alone. It returns no record if nothing is to be stored.
func (m *Manager) prepare(base *snapshot, group []*write) (*Record, attributes, Condition) {
	rec := &Record{Info: base.info.of(m.app), SecretHash: base.hash}
	rec.Node = m.ids.Node()
	was := rec.Info
	cond := Condition{Version: base.info.Version, SecretHash: base.hash}
	// Another node may hold a copy that a client with an outdated version cookie
	// would be content with: because that node wrote the version before, or because
	// the responses of overlapping requests may reach the client in any order (P6).
	cond.Announce = !base.own || base.activity.inflight.Load() > 1
	attrs, changed := base.attrs, false
	for i, w := range group {
		w.before, w.after, w.err = nil, nil, nil
		if w.base.info.CreatedAt != base.info.CreatedAt { // P3: of a record that has expired
			w.err = fmt.Errorf("save session %s: begun anew since: %w", base.info.ID, ErrNotFound)
			continue
		}
		next, err := w.pending.apply(attrs, i > 0 || w.seen != base.info.Version)
		if n := next.encodedSize(); err == nil && n > m.cfg.MaxDataBytes && n > attrs.encodedSize() {
			err = fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, next.encodedSize(), m.cfg.MaxDataBytes)
		}
		if err == nil && base.unreadable != "" && len(w.pending.attrs) > 0 {
			err = ErrCorrupt // changing one attribute would lose the others
		}
		if err == nil && w.alone() {
			err = m.prepareAlone(base, rec, &cond, w)
			changed = changed || err == nil && (rec.Info != was || rec.SecretHash != base.hash)
		}
		if err != nil {
			w.err = err
			continue
		}
		// If the client is not told of the version, other nodes must be (P4).
		cond.Announce = cond.Announce || w.sealed || w.hash != base.hash
		changed = changed || len(changedAttributes(attrs, next)) > 0
		if w.before = base; i > 0 {
			w.before = base.viewing(attrs)
		}
		attrs = next
	}
	if !changed {
		return nil, nil, cond
	}
	// Every node that has a copy must know when it expires (P3).
	cond.Announce = cond.Announce || rec.Idle != was.Idle || rec.Lifetime != was.Lifetime
	rec.Data = attrs.encode()
	if base.unreadable != "" {
		rec.Data = []byte(base.unreadable)
	}
	return rec, attrs, cond
}

// prepareAlone adds the changes that concern no attribute.
func (m *Manager) prepareAlone(base *snapshot, rec *Record, cond *Condition, w *write) error {
	p := &w.pending
	renew := p.renew
	if !w.tried.IsZero() && w.tried.SecretHash() == base.hash {
		w.hash = base.hash // renewed by this request: the attempt of unknown outcome has taken place
	}
	if base.hash != w.hash { // superseded: renewed by another request since, here or in a sibling application
		if p.principal != nil && (*p.principal != base.info.Principal || *p.principal != w.base.info.Principal) {
			return fmt.Errorf("%w: another request has renewed the session", ErrConflict)
		}
		renew = false // that renewal will do, and its token is not this client's to have (P7)
	}
	w.tooLate = false
	amend(rec, p)
	if renew && w.sealed && rec.Principal != "" {
		// The client could not be told, so it stays what it was. Giving up a
		// principal is done nevertheless: it ends what the old token could do.
		w.tooLate, renew = true, false
		rec.Principal = base.info.Principal
	}
	if renew && w.sealed {
		w.tooLate = rec.Principal == base.info.Principal
		renew = !w.tooLate
	}
	w.renewed = renew
	if renew {
		// One that was tried before nobody knows, and it may be stored already.
		if w.token = w.tried; w.token.IsZero() || w.token.ID() != rec.Key.ID {
			w.token = NewToken(rec.Key.ID, m.route())
		}
		rec.SecretHash = w.token.SecretHash() // P7
		cond.MaxSessions = m.limit(p)
	}
	return nil
}

// saved tells each write of the group what it has stored.
func (m *Manager) saved(ctx context.Context, group []*write, after *snapshot) {
	n := 0
	var last *write
	for _, w := range group {
		if w.before != nil {
			n++
			last = w
		}
	}
	m.stats.merged.Add(int64(n - 1))
	// Each sees what it left behind, so that counters read back in turn. What the
	// next one found is what this one left.
	view := after
	for _, w := range slices.Backward(group) {
		if w.before == nil {
			continue
		}
		if w == last {
			w.after = after
		} else {
			w.after = after.viewing(view.attrs)
		}
		view = w.before
		m.afterLogin(ctx, w)
	}
}
