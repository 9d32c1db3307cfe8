package sessionstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// evictBatch is how many sessions one call ends. Between calls the round looks at its time.
const evictBatch = 32

// evictions are the rounds under way that end sessions beyond the limit, at most one per
// principal. Logins that come while one is under way gather behind it and share the next;
// a lone login never waits. So any burst of logins takes few rounds, and each login
// is answered after one that began after it was stored.
type evictions struct {
	mu     sync.Mutex // guards queues and what they hold
	queues map[string]*evictionQueue
}

type evictionQueue struct {
	waiting []*eviction
	left    int // how many have given up waiting, and no round has begun since
}

// An eviction is what a login wants: a round that knows of it.
type eviction struct {
	login    ID
	deadline time.Time     // until when the login may take
	ends     *ends         // what the login announces
	wake     chan struct{} // closed when its round is over, or when it is to lead one
	round    []*eviction   // of one that leads: who shares its round, itself too; set before wake is closed
	gone     bool          // it has given up; guarded by mu
}

// evictOldest ends a principal's least recently used sessions beyond the limit, after a
// login. It returns when that is done, or when the login's time is up: the login itself
// is stored, and the next one of this principal tries again.
func (m *Manager) evictOldest(ctx context.Context, login ID, principal string) {
	es, e := &m.evictions, &eviction{login: login, wake: make(chan struct{})}
	e.deadline, _ = ctx.Deadline()
	e.ends = ctx.Value(endsKey{}).(*ends)
	es.mu.Lock()
	q := es.queues[principal]
	if q == nil {
		if es.queues == nil {
			es.queues = make(map[string]*evictionQueue)
		}
		q = &evictionQueue{}
		es.queues[principal] = q
		es.mu.Unlock()
		e.round = []*eviction{e}
	} else {
		q.waiting = append(q.waiting, e)
		es.mu.Unlock()
		es.wait(ctx, q, e)
	}
	if e.round != nil {
		m.leadEviction(ctx, q, e, principal)
	}
}

// wait returns when e's round is over, when e is to lead one, or when its time is up.
func (es *evictions) wait(ctx context.Context, q *evictionQueue, e *eviction) {
	select {
	case <-e.wake:
		return
	case <-ctx.Done():
	}
	es.mu.Lock()
	defer es.mu.Unlock()
	if i := slices.Index(q.waiting, e); i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
		q.left++ // who leads says so
	}
	e.gone = true
}

// leadEviction runs e's round and hands on to those that have come meanwhile.
func (m *Manager) leadEviction(ctx context.Context, q *evictionQueue, e *eviction, principal string) {
	es := &m.evictions
	var ended ends
	var err error
	defer func() { // also if the backend panics
		es.mu.Lock()
		e.ends.others = append(e.ends.others, handOver(ended.others, slices.Concat(e.round, q.waiting))...)
		left := es.handOnLocked(q, e, principal)
		es.mu.Unlock()
		if left > 0 {
			err = errors.Join(err, fmt.Errorf("%d logins have come since and could not wait: %w", left, context.DeadlineExceeded))
		}
		if err != nil { // once for all of them
			m.cfg.Logger.Error("sessions beyond the limit not ended", slog.String("app", m.app), slog.Any("error", err))
		}
	}()
	err = m.evict(context.WithValue(ctx, endsKey{}, &ended), principal, e.round)
}

// handOver leaves it to the logins that are under way to announce that they have been ended
// themselves, so that nobody hears of that before the login. It returns the other ends.
func handOver(ended []end, logins []*eviction) []end {
	byLogin := make(map[ID]*eviction, len(logins))
	for _, e := range logins {
		byLogin[e.login] = e
	}
	return slices.DeleteFunc(ended, func(end end) bool {
		e := byLogin[end.id]
		if e == nil || e.gone {
			return false
		}
		e.ends.own = append(e.ends.own, end)
		return true
	})
}

// handOnLocked ends e's round. All that wait share the next, led by the one that has most
// time left, so that no other one's is cut short. If nobody waits, it returns how many have
// given up waiting.
func (es *evictions) handOnLocked(q *evictionQueue, e *eviction, principal string) (left int) {
	for _, other := range e.round {
		if other != e {
			close(other.wake)
		}
	}
	if len(q.waiting) == 0 {
		delete(es.queues, principal)
		return q.left
	}
	next := slices.MaxFunc(q.waiting, func(x, y *eviction) int { return x.deadline.Compare(y.deadline) })
	next.round, q.waiting, q.left = q.waiting, nil, 0
	close(next.wake)
	return 0
}

// evict is one round. It ends what it has listed, and nothing else: by the time there may
// be newer logins. A session that another node has ended already is no error, and one that
// has become somebody else's stays.
func (m *Manager) evict(ctx context.Context, principal string, round []*eviction) error {
	var infos []Info
	for info, err := range m.Sessions(ctx, principal) {
		if err != nil {
			return err
		}
		infos = append(infos, info)
	}
	var errs []error
	for ids := range slices.Chunk(m.surplus(infos, round), evictBatch) {
		if ctx.Err() != nil {
			errs = append(errs, ctx.Err())
			break
		}
		_, err := m.ids.End(ctx, Selector{Principal: principal, App: m.app, Only: ids}, CauseEvicted)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// surplus returns which of a principal's sessions are beyond the limit: all but the most
// recently used. Every node sees them in the same order, so concurrent logins end the same
// ones.
//
// The latest login of the round stays even if others were used since; then there is one too
// many until the next login. To end another in its place could end both of two concurrent
// logins, on two nodes. It does not stay if the others are newer than itself.
func (m *Manager) surplus(infos []Info, round []*eviction) (ids []ID) {
	if len(infos) <= m.cfg.MaxSessions {
		return nil
	}
	slices.SortFunc(infos, func(x, y Info) int {
		if c := y.AccessedAt.Compare(x.AccessedAt); c != 0 {
			return c
		}
		return bytes.Compare(y.Key.ID[:], x.Key.ID[:])
	})
	logins := make(map[ID]bool, len(round))
	for _, e := range round {
		logins[e.login] = true
	}
	latest := slices.IndexFunc(infos, func(info Info) bool { return logins[info.Key.ID] })
	newer := 0
	for _, info := range infos[:max(latest, 0)] {
		if info.CreatedAt.After(infos[latest].AccessedAt) {
			newer++
		}
	}
	for i, info := range infos {
		if i >= m.cfg.MaxSessions && (i != latest || newer >= m.cfg.MaxSessions) {
			ids = append(ids, info.Key.ID)
		}
	}
	return ids
}
