package sessionstore

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
)

// A Listener is told what happened to the sessions of one application. Any of
// its funcs may be nil.
//
// They are called after the database has changed, on the goroutine that changed
// it, in the order of [Config.Listeners], with a context that carries the
// request's values but not its cancellation. The events of one commit come in
// the order Created, Renewed, AttributeChanged; Destroyed comes before them, unless the
// session itself was beyond [Config.MaxSessions] and ended before the commit was over. A
// func that panics is contained, logged and counted; the others are still called. An event
// is announced at most once in a cluster, on the node that made the change; a node that dies between
// the change and the announcement announces nothing (P11).
type Listener struct {
	// Created is called when a session is first stored in this application.
	Created func(context.Context, SessionEvent)
	// Renewed is called when a request of this application gave the session a new secret.
	Renewed func(context.Context, SessionEvent)
	// Destroyed is called when a session of this application has ended. The
	// session's last data can be read from the event.
	Destroyed func(context.Context, SessionEvent)
	// AttributeChanged is called once for each attribute that a commit set,
	// changed or deleted, in the order of their names.
	AttributeChanged func(context.Context, AttributeEvent)
}

// A SessionEvent says what happened to a session.
type SessionEvent struct {
	Info  Info
	Cause Cause // of Destroyed; 0 otherwise
	// Session is for reading the attributes as the event left or found them.
	// What is done to it is never stored.
	Session *Session
}

// An AttributeEvent says that an attribute changed.
type AttributeEvent struct {
	Info Info
	Name string
	// Before and After are for reading the attributes before and after the
	// change. What is done to them is never stored.
	Before, After *Session
}

// notify calls f for each listener and contains its panics.
func (m *Manager) notify(event string, id ID, f func(Listener)) {
	for _, l := range m.cfg.Listeners {
		func() {
			defer func() {
				if p := recover(); p != nil {
					m.stats.listenerPanics.Add(1)
					m.cfg.Logger.Error("session listener panicked", slog.String("event", event),
						slog.String("app", m.app), slog.String("session", id.String()),
						slog.String("panic", fmt.Sprint(p)), slog.String("stack", string(debug.Stack())))
				}
			}()
			f(l)
		}()
	}
}

func (m *Manager) notifyCreated(ctx context.Context, snap *snapshot) {
	ev := SessionEvent{Info: snap.info.of(m.app), Session: m.detached(snap)}
	m.notify("created", snap.info.ID, func(l Listener) {
		if l.Created != nil {
			l.Created(ctx, ev)
		}
	})
}

func (m *Manager) notifyRenewed(ctx context.Context, snap *snapshot) {
	ev := SessionEvent{Info: snap.info.of(m.app), Session: m.detached(snap)}
	m.notify("renewed", snap.info.ID, func(l Listener) {
		if l.Renewed != nil {
			l.Renewed(ctx, ev)
		}
	})
}

// hearsEnds reports whether a listener wants to know of sessions that ended.
func (m *Manager) hearsEnds() bool {
	return slices.ContainsFunc(m.cfg.Listeners, func(l Listener) bool { return l.Destroyed != nil })
}

func (m *Manager) notifyDestroyed(ctx context.Context, snap *snapshot, cause Cause) {
	ev := SessionEvent{Info: snap.info.of(m.app), Cause: cause, Session: m.detached(snap)}
	m.notify("destroyed", snap.info.ID, func(l Listener) {
		if l.Destroyed != nil {
			l.Destroyed(ctx, ev)
		}
	})
}

func (m *Manager) notifyAttributes(ctx context.Context, before, after *snapshot) {
	names := changedAttributes(before.attributes(), after.attrs)
	if len(names) == 0 {
		return
	}
	from, to := m.detached(before), m.detached(after)
	for _, name := range names {
		ev := AttributeEvent{Info: after.info.of(m.app), Name: name, Before: from, After: to}
		m.notify("attribute changed", after.info.ID, func(l Listener) {
			if l.AttributeChanged != nil {
				l.AttributeChanged(ctx, ev)
			}
		})
	}
}
