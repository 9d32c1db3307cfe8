package membackend

import (
	"context"
	"slices"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

var _ sessionstore.EventSource = (*Backend)(nil)

// A storedEvent is an event and when it was stored.
type storedEvent struct {
	sessionstore.Event
	at time.Time
}

// Events implements [sessionstore.EventSource]. One lock guards everything, so
// events are committed in order and the cursor is a sequence number.
func (b *Backend) Events(ctx context.Context, after sessionstore.Cursor) ([]sessionstore.Event, sessionstore.Cursor, error) {
	if err := ctx.Err(); err != nil {
		return nil, after, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	next := sessionstore.Cursor(b.lastEvent + 1) // never the zero Cursor
	if after == 0 {
		return nil, next, nil
	}
	i, _ := slices.BinarySearchFunc(b.events, int64(after), func(e storedEvent, seq int64) int {
		return int(e.Seq - seq)
	})
	var events []sessionstore.Event
	for _, e := range b.events[i:] {
		events = append(events, e.Event)
	}
	return events, next, nil
}

// PruneEvents implements [sessionstore.EventSource].
func (b *Backend) PruneEvents(ctx context.Context, age time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	limit := b.nowLocked().Add(-age)
	b.events = slices.DeleteFunc(b.events, func(e storedEvent) bool { return e.at.Before(limit) })
	return nil
}

// announceLocked stores an event.
func (b *Backend) announceLocked(key sessionstore.Key, version sessionstore.Version) {
	b.lastEvent++
	b.events = append(b.events, storedEvent{sessionstore.Event{Seq: b.lastEvent, Key: key, Version: version}, b.nowLocked()})
}
