package sessionstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// touchBatch bounds one Touch call, so that its transaction stays short.
const touchBatch = 256

// An activity is the use of one session on this node since its access time was
// last written back. While it is pending there is one per session, shared by all
// its snapshots. Times are since the manager's epoch, in nanoseconds.
type activity struct {
	id       ID
	inflight atomic.Int32 // requests between Begin and Release
	pending  atomic.Bool  // is in activities, to be written back
	begun    atomic.Int64 // when the latest request began, 0 if none has
	used     atomic.Int64 // the latest use
	written  atomic.Int64 // uses up to then are in the database

	mu   sync.Mutex    // guards done
	done chan struct{} // closed once the session has ended; nil until somebody asks
}

// closed is what done is if nobody had asked before the session ended.
var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// raise moves v forward to at least n.
func raise(v *atomic.Int64, n int64) {
	for old := v.Load(); old < n; old = v.Load() {
		if v.CompareAndSwap(old, n) {
			return
		}
	}
}

// end marks the session as ended and wakes those who wait for it.
func (a *activity) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-a.done: // it has ended before; nil blocks
	default:
		if a.done == nil {
			a.done = closed
		} else {
			close(a.done)
		}
	}
}

// hasEnded reports whether the session has ended.
func (a *activity) hasEnded() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-a.done:
		return true
	default: // nil too
		return false
	}
}

// bury forgets the activity of a record that has ended, because another one was begun
// under the session's ID.
func (as *activities) bury(id ID) {
	sh := &as.shard[id.shard()]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if a := sh.pending[id]; a != nil && a.hasEnded() {
		delete(sh.pending, id)
	}
}

// doneChan returns a channel that is closed once the session has ended.
func (a *activity) doneChan() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.done == nil {
		a.done = make(chan struct{})
	}
	return a.done
}

// activities are the sessions used on this node whose access times wait to be
// written back. They outlive evictions from the cache.
type activities struct {
	shard [shards]struct {
		mu      sync.Mutex // guards what follows
		pending map[ID]*activity
		taken   time.Duration // when it was emptied last, since the manager's epoch
	}
}

// of returns the session's activity: the pending one, that of a snapshot known
// before (which may be nil), or a new one.
func (as *activities) of(id ID, known *snapshot) *activity {
	sh := &as.shard[id.shard()]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if a, ok := sh.pending[id]; ok {
		return a
	}
	if known != nil {
		return known.activity
	}
	return &activity{id: id}
}

// find returns the pending activity, nil if there is none.
func (as *activities) find(id ID) *activity {
	sh := &as.shard[id.shard()]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.pending[id]
}

// enter notes that a request begins to use the session, and returns the activity that
// it is counted in, another one than a if that is in use already, and when the request
// before began, 0 if this node has seen none.
func (as *activities) enter(a *activity, at time.Duration) (entered *activity, previous time.Duration) {
	for {
		a.inflight.Add(1)
		raise(&a.used, int64(at))
		other := as.pend(a)
		if other == a {
			return a, time.Duration(a.begun.Swap(int64(at)))
		}
		a.inflight.Add(-1)
		a = other
	}
}

// leave notes that the request is over.
func (as *activities) leave(a *activity, at time.Duration) {
	raise(&a.used, int64(at))
	as.pend(a) // a flush may have taken it out while the request ran
	a.inflight.Add(-1)
}

// pend sees to it that the use of the session is written back, and returns the activity
// by which that happens: if a is in use, another one only if that is in use too.
func (as *activities) pend(a *activity) *activity {
	if a.pending.Load() || a.pending.Swap(true) {
		return a
	}
	sh := &as.shard[a.id.shard()]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if other := sh.pending[a.id]; other != nil && other != a {
		// The session was loaded anew while a was being written back, or before a request
		// entered it. One of the two goes on for both.
		inUse := other.inflight.Load() > 0 && !other.hasEnded()
		if inUse || a.inflight.Load() == 0 {
			raise(&other.used, a.used.Load())
			a.pending.Store(false)
			return other
		}
		raise(&a.used, other.used.Load())
		other.pending.Store(false)
	}
	if sh.pending == nil {
		sh.pending = make(map[ID]*activity)
	}
	sh.pending[a.id] = a
	return a
}

// overdue reports whether a shard was not emptied for longer than d.
func (as *activities) overdue(shard int, now, d time.Duration) bool {
	sh := &as.shard[shard]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return now-sh.taken > d
}

// take empties a shard and returns what was pending in it. A request in flight
// counts as use until it ends, so its session stays pending.
func (as *activities) take(shard int, now time.Duration) []*activity {
	sh := &as.shard[shard]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.taken = now
	taken := make([]*activity, 0, len(sh.pending))
	pending := sh.pending
	sh.pending = nil // a map never gives back memory
	for id, a := range pending {
		taken = append(taken, a)
		// First not pending, then the look at inflight: a request that begins in
		// between sees the one or is seen by the other.
		a.pending.Store(false)
		if a.inflight.Load() > 0 {
			a.pending.Store(true)
			if sh.pending == nil {
				sh.pending = make(map[ID]*activity)
			}
			sh.pending[id] = a
		} // else pend waits for the lock and puts it back
	}
	return taken
}

// flushTouches writes back the latest use of every session used since the last
// call, in batches. What could not be written stays pending; the error says how
// many that are.
func (m *Manager) flushTouches(ctx context.Context) error {
	m.flushMu.Lock()
	defer m.flushMu.Unlock()
	return m.flushShards(ctx, 0, shards)
}

// flushOverdue does so for one shard, where nobody calls Flush: what is pending would
// become more and more.
func (m *Manager) flushOverdue(ctx context.Context, shard int) {
	if !m.activities.overdue(shard, m.now(), 2*m.cfg.TouchInterval) || !m.flushMu.TryLock() {
		return
	}
	defer m.flushMu.Unlock()
	if err := m.flushShards(ctx, shard, shard+1); err != nil {
		m.cfg.Logger.Warn("session access times not written back", slog.String("app", m.app), slog.Any("error", err))
	}
}

// flushShards does so for the shards from first on, up to end, which it does not
// include. It is called with flushMu locked.
func (m *Manager) flushShards(ctx context.Context, first, end int) error {
	var (
		batch  []*activity
		failed int
		errs   []error
	)
	send := func() {
		if len(batch) == 0 {
			return
		}
		if err := m.touch(ctx, batch); err != nil {
			failed += len(batch)
			errs = append(errs, err)
			for _, a := range batch {
				m.activities.pend(a)
			}
		}
		batch = batch[:0]
	}
	for shard := first; shard < end; shard++ {
		for _, a := range m.activities.take(shard, m.now()) {
			if a.inflight.Load() == 0 && a.used.Load() <= a.written.Load() {
				continue // a save has written it
			}
			if len(errs) > 0 && ctx.Err() != nil {
				failed++
				m.activities.pend(a)
				continue
			}
			if batch = append(batch, a); len(batch) == touchBatch {
				send()
			}
		}
	}
	send()
	if failed > 0 {
		return fmt.Errorf("write back %d access times of application %s: %w", failed, m.app, errors.Join(errs...))
	}
	return nil
}

// touch writes back one batch.
func (m *Manager) touch(ctx context.Context, batch []*activity) error {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	touches := make([]Touch, len(batch))
	uses := make([]time.Duration, len(batch))
	now := m.now()
	for i, a := range batch {
		used := time.Duration(a.used.Load())
		if a.inflight.Load() > 0 {
			used = now
			raise(&a.used, int64(now))
		}
		uses[i] = used
		touches[i] = Touch{Key: Key{a.id, m.app}, Ago: max(0, now-used)}
	}
	if err := m.backend.Touch(ctx, touches); err != nil {
		return err
	}
	m.stats.touched.Add(int64(len(batch)))
	after := m.now()
	for i, a := range batch {
		if sn := m.cache.peek(a.id); sn != nil && sn.expired(after) {
			m.cache.doubt(a.id) // the database may have found it dead, and ignored the touch (P3)
			continue
		}
		raise(&a.written, int64(uses[i]))
	}
	return nil
}

// touchNow writes back one session's use on the request's own time. It is needed
// where nobody calls Flush, for sessions whose own idle timeout is too short for the
// application's touch interval, and for those that would expire before the next Flush:
// intervals are up to a quarter longer, and a flush takes its time.
//
// flushed says that Flush is being called. Then the request's beginning can stand for
// the present: a request that goes on for long is met by the next Flush.
func (m *Manager) touchNow(ctx context.Context, sn *snapshot, flushed bool) {
	a, interval := sn.activity, m.cfg.TouchInterval
	if !flushed {
		m.flushOverdue(ctx, a.id.shard())
	}
	if flushed && !m.needsOwnTouches(sn.info.Idle) && !sn.expired(time.Duration(a.begun.Load())+interval+interval/2) {
		return
	}
	if sn.info.Idle > 0 {
		interval = min(interval, sn.info.Idle/10)
	}
	last := max(a.written.Load(), int64(sn.anchor-sn.now.sub(sn.info.AccessedAt)))
	if m.now()-time.Duration(last) < interval {
		return
	}
	m.touchOne(ctx, a)
}

// keeps is how often a session whose own idle timeout is short is touched in the
// time of one, while a request runs: twice may fail.
const keeps = 3

// needsOwnTouches reports whether an idle timeout might pass between two calls of
// Flush.
func (m *Manager) needsOwnTouches(idle time.Duration) bool {
	return idle > 0 && idle < 2*m.cfg.TouchInterval
}

// touchOne writes back one session's use.
func (m *Manager) touchOne(ctx context.Context, a *activity) {
	if err := m.touch(ctx, []*activity{a}); err != nil {
		// The access stays pending; the next request or Shutdown tries again.
		m.cfg.Logger.Warn("session access time not written back", slog.String("app", m.app),
			slog.String("session", a.id.String()), slog.Any("error", err))
	}
}
