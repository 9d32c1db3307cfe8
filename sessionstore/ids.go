package sessionstore

import (
	"context"
	"time"
)

// IDManager is what a [Manager] needs from the ID manager that it shares with
// the other applications of its process. Package idmanager implements it. All
// methods are safe for concurrent use.
type IDManager interface {
	// Backend returns where sessions are stored.
	Backend() Backend
	// Node returns this node's name, "" if it has none: stored with each record
	// and appended to tokens as their route.
	Node() string
	// NewToken returns a token with a new ID and a new secret.
	NewToken() Token
	// Attach makes an application known. It fails if the name is taken or the ID
	// manager was shut down.
	Attach(app Application) error
	// Live reports whether this node is certain to hear of sessions that end or
	// are renewed elsewhere. While it is not, cached copies answer nothing.
	Live() bool
	// End removes the sessions that sel matches from the database, in every
	// application, tells the attached applications, and returns what it removed.
	End(ctx context.Context, sel Selector, cause Cause) ([]Info, error)
	// Renewed tells the other attached applications that app gave id a new secret.
	Renewed(id ID, app string)
	// Expire removes what has expired under id and announces it.
	Expire(ctx context.Context, id ID) error
}

// A Drainer is an [IDManager] of a node that can announce its end.
type Drainer interface {
	// Draining reports whether this node is about to stop and so must attract no
	// clients: from then on tokens carry no route. Once true, it stays so.
	Draining() bool
}

// A NodeWatcher is an [IDManager] that knows which other nodes serve.
type NodeWatcher interface {
	// Serves reports whether another node of that name is known to be alive, and not
	// about to stop. Tokens that carry its route keep it. It does not ask the database.
	Serves(node string) bool
}

// An Application is how an ID manager reaches an attached [Manager]. Its funcs
// are never nil, never block on the ID manager, and are safe for concurrent use.
type Application struct {
	// Name is the application's name, unique in the process.
	Name string
	// TouchInterval is how often Flush wants to be called.
	TouchInterval time.Duration
	// Flush writes back the access times of the sessions used since.
	Flush func(ctx context.Context) error
	// Forget drops what this node knows of a session: ended, or only changed.
	Forget func(id ID, ended bool)
	// Stale drops what this node knows of a session if that is older than version.
	Stale func(id ID, version Version)
	// Reset drops all copies: what happened to them meanwhile is unknown.
	Reset func()
	// NeedsData says that Ended wants records with their Data.
	NeedsData bool
	// Ended announces records of this application that the caller has removed
	// from the database.
	Ended func(ctx context.Context, removed []*Record, cause Cause)
}

// A Cause says why a session ended.
type Cause int

const (
	// CauseInvalidated: a request ended its own session, a logout.
	CauseInvalidated Cause = iota + 1
	// CauseExpired: its idle timeout or lifetime passed.
	CauseExpired
	// CauseRevoked: somebody else ended it, by its ID or its principal.
	CauseRevoked
	// CauseEvicted: its principal began more sessions than Config.MaxSessions.
	CauseEvicted
)

// String returns invalidated, expired, revoked or evicted, and unknown for any other Cause.
func (c Cause) String() string {
	switch c {
	case CauseInvalidated:
		return "invalidated"
	case CauseExpired:
		return "expired"
	case CauseRevoked:
		return "revoked"
	case CauseEvicted:
		return "evicted"
	default:
		return "unknown"
	}
}
