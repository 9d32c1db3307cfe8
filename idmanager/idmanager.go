package idmanager

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// A Manager is the process's ID manager: it makes session IDs, knows the
// applications of the process, ends and renews sessions in all of them at once,
// and, while Run runs, writes access times back, sweeps what has expired, and keeps
// this process registered among the nodes.
//
// It is safe for concurrent use. New starts no goroutine and Shutdown never
// closes the backend. Use [New]; the zero Manager is not usable.
type Manager struct {
	backend sessionstore.Backend
	cfg     Config
	running atomic.Bool // Run is running
	feed    *feed       // nil if the backend has no events

	draining     atomic.Bool
	registration *registration // nil if there is no registry, or none is wanted

	mu       sync.Mutex // guards what follows
	apps     []sessionstore.Application
	attached chan struct{}      // closed and replaced when apps grows
	shutdown bool               // Shutdown was called
	cancel   context.CancelFunc // ends the running Run, nil if none runs
	stopped  chan struct{}      // closed when it has returned
}

var (
	_ sessionstore.IDManager   = (*Manager)(nil)
	_ sessionstore.Drainer     = (*Manager)(nil)
	_ sessionstore.NodeWatcher = (*Manager)(nil)
)

// New returns the ID manager of a process whose sessions are in backend. There
// should be one for each backend in a process. A nil cfg means the defaults; cfg
// is copied.
func New(backend sessionstore.Backend, cfg *Config) (*Manager, error) {
	if backend == nil {
		return nil, errors.New("idmanager: backend is nil")
	}
	c, err := cfg.resolved()
	if err != nil {
		return nil, err
	}
	m := &Manager{backend: backend, cfg: c, attached: make(chan struct{})}
	if source, ok := backend.(sessionstore.EventSource); ok {
		m.feed = newFeed(source, &m.cfg, m.applications)
	}
	if registry, ok := backend.(sessionstore.NodeRegistry); ok && c.HeartbeatInterval > 0 {
		m.registration = newRegistration(registry, &m.cfg, &m.draining)
	}
	return m, nil
}

// Backend returns where sessions are stored.
func (m *Manager) Backend() sessionstore.Backend { return m.backend }

// Node returns this process's name, "" if it has none.
func (m *Manager) Node() string { return m.cfg.Node }

// NewToken returns a token with a new ID and a new secret.
func (m *Manager) NewToken() sessionstore.Token {
	id := uuid.Must(uuid.NewRandom())
	if !m.cfg.RandomIDs {
		id = uuid.Must(uuid.NewV7())
	}
	return sessionstore.NewToken(sessionstore.ID(id), m.route())
}

// Attach makes an application known; [sessionstore.New] calls it.
func (m *Manager) Attach(app sessionstore.Application) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.shutdown {
		return fmt.Errorf("idmanager: attach application %q: %w", app.Name, sessionstore.ErrClosed)
	}
	for _, a := range m.apps {
		if a.Name == app.Name {
			return fmt.Errorf("idmanager: application %q is attached already", app.Name)
		}
	}
	m.apps = append(m.apps, app)
	close(m.attached)
	m.attached = make(chan struct{})
	return nil
}

// applications returns those attached now.
func (m *Manager) applications() []sessionstore.Application {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clip(m.apps)
}

// attachments returns a channel that is closed when the next one is attached.
func (m *Manager) attachments() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.attached
}

// Live reports whether cached copies may answer: Run is running and, where the
// backend has events, has read them within FeedTimeout. While it is not so, every
// request that presents a session asks the database.
func (m *Manager) Live() bool { return m.running.Load() && (m.feed == nil || m.feed.heard()) }

// End removes the sessions that sel matches, in every application, and announces
// them to the attached ones with cause. It returns what it removed, one Info for
// each application's part; beside an error, what was removed before it.
//
// The end of ctx does not cut it short: once begun it takes up to Config.Timeout, so that
// the listeners are told of what it has removed (P11).
func (m *Manager) End(ctx context.Context, sel sessionstore.Selector, cause sessionstore.Cause) ([]sessionstore.Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx)
	apps := m.applications()
	within, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	removed, err := m.backend.Delete(within, sel)
	// Also if nothing was removed: then they had ended elsewhere. And if it is unknown what
	// happened, the database is to be asked.
	for _, app := range apps {
		if !sel.ID.IsZero() {
			app.Forget(sel.ID, err == nil && sel.Principal == "" && len(sel.Except) == 0 && sel.Only == nil)
		}
		for _, id := range sel.Only {
			app.Forget(id, false)
		}
	}
	announce(ctx, apps, removed, cause) // beside an error, what went before it
	infos := make([]sessionstore.Info, len(removed))
	for i, rec := range removed {
		infos[i] = rec.Info
	}
	return infos, err
}

// announce tells the applications of records that are gone from the database:
// first that nothing may be served from copies of them, then the listeners.
func announce(ctx context.Context, apps []sessionstore.Application, removed []*sessionstore.Record, cause sessionstore.Cause) {
	if len(removed) == 0 {
		return
	}
	if cause != sessionstore.CauseExpired { // an expiry is one application's own
		for _, app := range apps {
			for _, rec := range removed {
				app.Forget(rec.Key.ID, true)
			}
		}
	}
	for _, app := range apps {
		var own []*sessionstore.Record
		for _, rec := range removed {
			if rec.Key.App == app.Name {
				own = append(own, rec)
			}
		}
		if len(own) > 0 {
			app.Ended(ctx, own, cause)
		}
	}
}

// Renewed tells the other attached applications that app gave id a new secret.
func (m *Manager) Renewed(id sessionstore.ID, app string) {
	apps := m.applications()
	for _, a := range apps {
		if a.Name != app {
			a.Forget(id, false)
		}
	}
}

// Expire removes what has expired under id and announces it. Like End it goes on if its
// caller gives up.
func (m *Manager) Expire(ctx context.Context, id sessionstore.ID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	apps := m.applications()
	within, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	removed, _, err := m.backend.DeleteExpired(within, m.sweepOf(apps, id, m.cfg.SweepBatch))
	if err != nil {
		return err
	}
	announce(ctx, apps, removed, sessionstore.CauseExpired)
	return nil
}

// Invalidate ends the session with this ID in all applications
// ([sessionstore.CauseRevoked]). An ID that names no live session is no error.
func (m *Manager) Invalidate(ctx context.Context, id sessionstore.ID) error {
	_, err := m.End(ctx, sessionstore.Selector{ID: id}, sessionstore.CauseRevoked)
	return err
}

// InvalidatePrincipal ends all sessions in which some application holds this
// principal, but those to keep, and returns how many it ended, beside an error too
// ([sessionstore.CauseRevoked]). The anonymous principal "" is an error. A handler that
// ends its own session this way too calls the session's Invalidate afterwards, or
// whatever else it changes is refused with [sessionstore.ErrNotFound].
func (m *Manager) InvalidatePrincipal(ctx context.Context, principal string, keep ...sessionstore.ID) (int, error) {
	if principal == "" {
		return 0, errors.New("idmanager: the anonymous principal has no sessions to end")
	}
	if err := sessionstore.ValidatePrincipal(principal); err != nil {
		return 0, err
	}
	removed, err := m.End(ctx, sessionstore.Selector{Principal: principal, Except: keep}, sessionstore.CauseRevoked)
	ids := make(map[sessionstore.ID]bool)
	for _, info := range removed {
		ids[info.Key.ID] = true
	}
	return len(ids), err
}

// Sessions yields the live sessions in which some application holds this
// principal, each once, by the application that used it last, the most recently
// used first. After an error it yields nothing more.
func (m *Manager) Sessions(ctx context.Context, principal string) iter.Seq2[sessionstore.Info, error] {
	return func(yield func(sessionstore.Info, error) bool) {
		if err := sessionstore.ValidatePrincipal(principal); err != nil {
			yield(sessionstore.Info{}, err)
			return
		}
		seen := make(map[sessionstore.ID]bool)
		for info, err := range m.backend.List(ctx, sessionstore.Selector{Principal: principal}) {
			if err == nil && seen[info.Key.ID] {
				continue
			}
			seen[info.Key.ID] = true
			if !yield(info, err) || err != nil {
				return
			}
		}
	}
}
