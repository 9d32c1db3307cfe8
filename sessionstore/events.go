package sessionstore

import (
	"context"
	"time"
)

// A Cursor is a place in a database's stream of events. The zero Cursor is no
// place; others mean something only to the EventSource that returned them.
type Cursor int64

// An Event says that a session was changed or has ended, so that other nodes'
// copies of it must not answer any more. It is stored in the transaction that
// made it true.
type Event struct {
	// Seq tells events apart. It says nothing about their order.
	Seq int64
	// Key is whose record changed; if the session ended, it did in all
	// applications, and Key.App is "".
	Key Key
	// Version is the record's new version, 0 if the session ended.
	Version Version
}

// An EventSource is a [Backend] that tells nodes what others did. Without it,
// nodes find out when they ask, within [Config.MaxStale] at the latest.
//
// These writes store events, in their own transaction: Delete, one for each ID it
// removes; renewals, one for each record under the ID; and an Update with
// [Condition.Announce], one for its record. Expiries store none: every node knows
// its copies' deadlines. Managers have changed timeouts announced.
type EventSource interface {
	// Events returns the events that were committed since the call that returned
	// after, and where to go on. It may return events that were returned before,
	// and a transaction that commits late is not missed. For the zero Cursor it
	// returns none, and the cursor from which on nothing is missed.
	Events(ctx context.Context, after Cursor) ([]Event, Cursor, error)

	// PruneEvents removes events stored longer than age ago. A node that last read
	// events longer ago may have missed some.
	PruneEvents(ctx context.Context, age time.Duration) error
}

// A Doorbell is an [EventSource] that can tell when there are new events.
type Doorbell interface {
	// Listen calls ring whenever there may be new events, until ctx ends or it
	// loses the ability; it then returns why. It holds what it needs, such as a
	// connection of its own, only meanwhile. It returns [errors.ErrUnsupported] if
	// it is switched off. Ring returns at once. A Doorbell that rings too seldom costs
	// time, never correctness.
	Listen(ctx context.Context, ring func()) error
}
