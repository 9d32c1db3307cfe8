package sessionstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// touchBatch bounds one Touch call, so that its transaction stays short.
const touchBatch = 256

// flushTouches writes back the latest use of every session used since the last
// call, in batches. What could not be written stays pending; the error says how
// many that are.
func (m *Manager) flushTouches(ctx context.Context) error {
	if !m.mayFlush() {
		select {
		case m.flushing <- struct{}{}:
		case <-ctx.Done():
			return fmt.Errorf("write back up to %d access times of application %s, while others are written back: %w",
				m.activities.size(), m.app, ctx.Err())
		}
	}
	defer m.flushed()
	return m.flushShards(ctx, 0, shards)
}

// mayFlush reports whether nobody flushes. Then the caller does, and must call flushed
// afterwards.
func (m *Manager) mayFlush() bool {
	select {
	case m.flushing <- struct{}{}:
		return true
	default:
		return false
	}
}

func (m *Manager) flushed() { <-m.flushing }

// flushOverdue does so for one shard, where nobody calls Flush: what is pending would
// become more and more.
func (m *Manager) flushOverdue(ctx context.Context, shard int) {
	if !m.activities.overdue(shard, m.now(), 2*m.cfg.TouchInterval) || !m.mayFlush() {
		return
	}
	defer m.flushed()
	if err := m.flushShards(ctx, shard, shard+1); err != nil {
		m.cfg.Logger.Warn("session access times not written back", slog.String("app", m.app), slog.Any("error", err))
	}
}

// flushShards does so for the shards from first on, up to end, which it does not
// include. One call at a time, see mayFlush.
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
	var streams []ID
	for i, a := range batch {
		sn := m.cache.peek(a.id)
		expired := sn != nil && sn.expired(after)
		if expired {
			m.cache.doubt(a.id) // the database may have found it dead, and ignored the touch (P3)
		} else {
			raise(&a.written, int64(uses[i]))
		}
		if (expired || sn == nil) && a.inflight.Load() > 0 && a.state.is(isStored) {
			streams = append(streams, a.id)
		}
	}
	for _, id := range streams {
		if ctx.Err() != nil {
			break // until the next time
		}
		// It may have ended without this node's having heard of it: another one has swept
		// it, or events were missed. Whoever waits for Done is told if it has.
		_, _, _ = m.load(ctx, id)
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
