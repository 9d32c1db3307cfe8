package sessionstore

import (
	"context"
	"iter"
	"time"
)

// A Backend stores records in a database that all nodes share. Its sentences are
// its specification: package backendtest holds every implementation to each of them.
//
// All methods are safe for concurrent use, honour the context's end, and return
// errors that wrap this package's sentinels where a sentence names one; any other
// error means that the database did not answer or refused, and that a write may
// or may not have happened. No error text contains a secret, a secret's hash or
// data. A Backend starts no goroutine that outlives a call, and its database's
// clock is the only clock that decides anything (P12).
//
// A record is live while the database's clock is before its ExpiresAt, which is
// AccessedAt+Idle or CreatedAt+Lifetime, whichever is earlier. A record that is
// not live is never loaded, listed, updated, touched or accepted as a proof.
// Names and principals are compared byte by byte: case, trailing spaces and
// Unicode forms all tell them apart.
type Backend interface {
	// Load returns the live record under key.
	//
	// If its version is known, Load returns [ErrNotModified] beside the record
	// without its Data. If there is none, Load returns [ErrNotFound]; if another
	// application holds a live record under the same ID, it returns [ErrSibling]
	// beside that record without its Data. Otherwise an error comes with nil.
	// Known versions start at 1; 0 knows none.
	Load(ctx context.Context, key Key, known Version) (*Record, error)

	// Create stores rec under a key that does not exist yet, and is the only
	// method that inserts (P3).
	//
	// It ignores rec's Version, times and Now: the stored version is 1, and the
	// database's clock becomes CreatedAt and AccessedAt and is returned. If any
	// application holds a record under the ID and cond has no secret hash, it
	// returns [ErrExists] and stores nothing. If cond has a secret hash and no
	// live record of another application under the ID has it, it returns
	// [ErrNotFound] and stores nothing; if this application holds a record
	// already, live or not, it returns [ErrExists]. If cond.MaxSessions would be
	// exceeded, it returns [ErrLimit] and stores nothing.
	Create(ctx context.Context, rec *Record, cond Condition) (created time.Time, err error)

	// Update replaces the principal, node, timeouts, secret hash and data of the
	// live record under rec's key, sets its version to cond.Version+1 and its
	// access time to the database's clock, all in one transaction.
	//
	// If no live record has the key, the version and the secret hash of cond, it
	// returns [ErrConflict] and changes nothing; Load tells whether the session
	// changed or ended. If cond.MaxSessions would be exceeded, it returns
	// [ErrLimit] and changes nothing. Update never inserts (P3), never moves an
	// access time backwards, and never changes CreatedAt.
	Update(ctx context.Context, rec *Record, cond Condition) error

	// Touch moves the access times of live records forward, to the database's
	// clock less Ago, and with them their expiry. It never moves one backwards,
	// never inserts, never changes a version or data, and ignores keys that have
	// no live record. No touches is no error. Touches may name one key twice.
	Touch(ctx context.Context, touches []Touch) error

	// Delete removes every live record under the IDs that sel matches, of
	// whichever application (sibling applications share a session's fate), and
	// returns what it removed, whole. Records that are no longer live are left to
	// DeleteExpired. Matching nothing is no error. Of concurrent calls, exactly
	// one returns a given record. A Create that joins a deleted session fails,
	// even if both run at once (P3).
	Delete(ctx context.Context, sel Selector) ([]*Record, error)

	// List yields the live records that sel matches, one per key, the most
	// recently used first. With a Principal, only records that hold this
	// principal are listed. It holds no resource of the database while it
	// yields. After an error it yields nothing more.
	List(ctx context.Context, sel Selector) iter.Seq2[Info, error]

	// DeleteExpired removes at most sweep.Limit records that are no longer live
	// and returns them, whole. No record is ever returned twice, whoever sweeps
	// at the same time (P11), and a record that becomes live again before its
	// removal is left alone. More reports whether another call is worthwhile.
	DeleteExpired(ctx context.Context, sweep Sweep) (removed []*Record, more bool, err error)
}
