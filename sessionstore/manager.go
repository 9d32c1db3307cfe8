package sessionstore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"time"
)

// A Manager runs the lifecycle of one application's sessions: create, load,
// save, renew, invalidate, expire. It keeps copies in memory. It is safe for concurrent
// use, and needs no closing: shutting its ID manager down writes back what it holds. Use
// [New]; the zero Manager is not usable.
type Manager struct {
	ids     IDManager
	drainer Drainer     // ids too, nil if it is none
	watcher NodeWatcher // likewise
	backend Backend
	app     string
	cfg     Config

	epoch      time.Time // what m.now counts from; only its monotonic part matters
	cache      *cache
	activities activities
	flushing   chan struct{} // has room for one: whoever writes back access times
	loads      loads
	saves      saves
	evictions  evictions
	stats      counters

	outageLogged atomic.Int64 // when standIn logged last, 0 if never
}

// New returns the session manager of the application named app, attached to ids.
// The name is stored with each session: changing it abandons the application's
// sessions. A nil cfg means the defaults; cfg is copied. New fails if the name is
// invalid or taken, or if cfg is; it does not reach the database.
func New(ids IDManager, app string, cfg *Config) (*Manager, error) {
	if ids == nil {
		return nil, errors.New("sessionstore: ID manager is nil")
	}
	if err := ValidateName(app); err != nil {
		return nil, fmt.Errorf("application %q: %w", app, err)
	}
	c, err := cfg.resolved()
	if err != nil {
		return nil, err
	}
	m := &Manager{ids: ids, backend: ids.Backend(), app: app, cfg: c, epoch: time.Now(), flushing: make(chan struct{}, 1)}
	if m.cache, err = newCache(c.CacheBytes); err != nil {
		return nil, fmt.Errorf("sessionstore: cache of %d bytes: %w", c.CacheBytes, err)
	}
	m.drainer, _ = ids.(Drainer)
	m.watcher, _ = ids.(NodeWatcher)
	err = ids.Attach(Application{
		Name:          app,
		TouchInterval: c.TouchInterval,
		Flush:         m.flushTouches,
		Forget:        m.forget,
		Stale:         m.stale,
		Reset:         m.cache.reset,
		NeedsData:     m.hearsEnds(),
		Ended:         m.ended,
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// App returns the application's name.
func (m *Manager) App() string { return m.app }

// Node returns the name of this node, "" if it has none.
func (m *Manager) Node() string { return m.ids.Node() }

// route is what tokens given out now carry.
func (m *Manager) route() string {
	if m.drainer != nil && m.drainer.Draining() {
		return ""
	}
	return m.ids.Node()
}

// now is the time since the manager was made, by the monotonic clock.
func (m *Manager) now() time.Duration { return time.Since(m.epoch) }

// Invalidate ends the session with this ID in all applications, on behalf of
// somebody else than its own client ([CauseRevoked]). An ID that names no live
// session is no error.
func (m *Manager) Invalidate(ctx context.Context, id ID) error {
	_, err := m.ids.End(ctx, Selector{ID: id}, CauseRevoked)
	return err
}

// InvalidatePrincipal ends all sessions in which this application holds the
// principal, but those to keep, in all applications, and returns how many it ended
// ([CauseRevoked]); beside an error, how many before it. The anonymous principal ""
// is an error. A handler that ends its own session this way too calls the session's
// Invalidate afterwards, or whatever else it changes is refused with [ErrNotFound], 409 by
// default; to keep that session, it names its ID.
func (m *Manager) InvalidatePrincipal(ctx context.Context, principal string, keep ...ID) (int, error) {
	if principal == "" {
		return 0, errors.New("sessionstore: the anonymous principal has no sessions to end")
	}
	if err := ValidatePrincipal(principal); err != nil {
		return 0, err
	}
	removed, err := m.ids.End(ctx, Selector{Principal: principal, App: m.app, Except: keep}, CauseRevoked)
	ids := make(map[ID]bool)
	for _, info := range removed {
		ids[info.Key.ID] = true
	}
	return len(ids), err
}

// Sessions yields this application's live sessions of a principal, the most
// recently used first. After an error it yields nothing more. The anonymous
// principal "" has no list.
func (m *Manager) Sessions(ctx context.Context, principal string) iter.Seq2[Info, error] {
	if err := ValidatePrincipal(principal); err != nil {
		return func(yield func(Info, error) bool) { yield(Info{}, err) }
	}
	return m.backend.List(ctx, Selector{Principal: principal, App: m.app})
}

// forget drops what this node knows of a session.
func (m *Manager) forget(id ID, ended bool) {
	sn := m.cache.get(id)
	m.cache.drop(id)
	if !ended {
		return
	}
	if sn != nil {
		sn.activity.end()
	}
	if a := m.activities.find(id); a != nil {
		a.end()
	}
}

// stale drops what this node knows of a session if that is older than version.
func (m *Manager) stale(id ID, version Version) {
	m.cache.outdate(id, version) // also what is on its way into the cache
}

// ended announces records that were removed from the database.
func (m *Manager) ended(ctx context.Context, removed []*Record, cause Cause) {
	heard := m.hearsEnds()
	var inUse []ID
	for _, rec := range removed {
		id, over := rec.Key.ID, true
		if users := m.activities.find(id); users != nil && cause == CauseExpired {
			// Who has a sibling's session, of which nothing is stored here yet, keeps that. What
			// is in use may have been begun anew since: the database is to say.
			over = users.state.is(isStored)
			if over && users.inflight.Load() > 0 {
				over, inUse = false, append(inUse, id)
			}
		}
		m.forget(id, over)
		m.stats.destroyed.Add(1)
		if !heard {
			continue
		}
		sn := m.loaded(rec, m.now(), nil)
		if list, ok := ctx.Value(endsKey{}).(*ends); ok {
			list.others = append(list.others, end{sn.info.ID, func(ctx context.Context) { m.notifyDestroyed(ctx, sn, cause) }})
			continue
		}
		m.notifyDestroyed(context.WithoutCancel(ctx), sn, cause)
	}
	for _, id := range inUse {
		_, _, _ = m.load(ctx, id) // whoever waits for Done is told if it has ended
	}
}
