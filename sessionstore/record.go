package sessionstore

import (
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

// An ID names a session in the database, in logs and on "your devices" pages. It
// stays the same for the session's life, also across renewals, and is no secret:
// knowing it lets nobody use the session. The zero ID names no session.
type ID uuid.UUID

// ParseID reads the canonical 36-character form that [ID.String] writes.
func ParseID(s string) (ID, error) {
	if len(s) != 36 { // uuid.Parse accepts other spellings; an ID has one
		return ID{}, fmt.Errorf("sessionstore: session ID has %d bytes, want 36", len(s))
	}
	u, err := uuid.Parse(s)
	if err != nil {
		return ID{}, fmt.Errorf("sessionstore: session ID is no UUID: %w", err)
	}
	if u.String() != s {
		return ID{}, fmt.Errorf("sessionstore: session ID is not in lower case")
	}
	return ID(u), nil
}

// String returns the canonical form, for example 0198f6a4-7f3e-7c1b-9e58-3f0d8a6b2c11.
func (id ID) String() string { return uuid.UUID(id).String() }

// IsZero reports whether id is the zero ID.
func (id ID) IsZero() bool { return id == ID{} }

// MarshalText returns the canonical form.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads the canonical form.
func (id *ID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseID(string(b))
	return err
}

// A Key names one application's view of a session: the primary key of a [Record].
type Key struct {
	ID  ID
	App string // application name, 1 to MaxNameBytes bytes of UTF-8
}

// A Version counts the times a record has been stored. The first is 1. A
// renewal raises the version of every record under its ID.
type Version int64

// MaxNameBytes bounds application names, attribute names and principals: what an
// indexed, byte-exact column holds on every database.
const MaxNameBytes = 255

// ValidateName reports why name cannot be an application's or attribute's name:
// it must be 1 to [MaxNameBytes] bytes of UTF-8 without NUL (which PostgreSQL
// cannot store).
func ValidateName(name string) error {
	if name == "" {
		return fmt.Errorf("sessionstore: name is empty")
	}
	return validateText("name", name)
}

// ValidatePrincipal reports why principal cannot be stored: it must be at most
// [MaxNameBytes] bytes of UTF-8 without NUL. "" stands for anonymous and is valid.
func ValidatePrincipal(principal string) error { return validateText("principal", principal) }

func validateText(what, s string) error {
	if len(s) > MaxNameBytes {
		return fmt.Errorf("sessionstore: %s has %d bytes, want at most %d", what, len(s), MaxNameBytes)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("sessionstore: %s is not valid UTF-8", what)
	}
	for i := range len(s) {
		if s[i] == 0 {
			return fmt.Errorf("sessionstore: %s contains a NUL byte", what)
		}
	}
	return nil
}

// Info is everything about a session except its secret and its data. All times
// are UTC with microsecond precision, by the database's clock (P12).
type Info struct {
	Key       Key
	Version   Version
	Principal string // "" while anonymous; compared byte by byte
	Node      string // node that stored it last, "" if that node has no name

	CreatedAt  time.Time
	AccessedAt time.Time
	ExpiresAt  time.Time // the zero Time if it never expires

	// Idle is how long the session lives after its last use, Lifetime how long
	// after its creation, whichever ends first. 0 means without limit.
	Idle, Lifetime time.Duration
}

// A Record is what a [Backend] stores for one [Key].
type Record struct {
	Info
	SecretHash SecretHash // the same in all records under one ID
	Data       []byte     // encoded attributes, opaque to the backend

	// Now is the database's clock when it answered. A node adds to it the time
	// that has passed on its own monotonic clock, and so never compares wall
	// clocks (P12). It is not stored.
	Now time.Time
}

// A Condition is what must be true in the database for a write to happen.
type Condition struct {
	// Version is the version the stored record must have. Update only.
	Version Version

	// SecretHash is the hash that the live records under the ID must have. If the
	// record to be written has another one, this is a renewal: in the same
	// transaction every other record under the ID gets the new hash and a version
	// raised by one.
	//
	// For Create, the zero hash means that the ID is new to the database; any
	// other hash that a sibling application's live record must prove the claim.
	SecretHash SecretHash

	// MaxSessions, if positive and the record to be written has a principal, is
	// the number of live sessions that this principal may have in this
	// application after the write, or else nothing is written.
	MaxSessions int

	// Announce asks for an event to be stored in the same transaction, on backends
	// that are an [EventSource]. Update only; renewals announce themselves.
	Announce bool
}

// A Touch reports that a session was used Ago before the touch is applied, as
// measured by the node's monotonic clock.
type Touch struct {
	Key Key
	Ago time.Duration // never negative
}

// A Selector chooses sessions by ID or by principal; if it has both, both must
// match. The zero Selector matches nothing, and so does one that has neither ID
// nor Principal.
type Selector struct {
	ID        ID     // if not zero: the session with this ID
	Principal string // if not "": the sessions in which some application holds this principal
	App       string // with Principal, if not "": only this application's principal counts
	Except    []ID   // sessions left alone
	Only      []ID   // if not nil: no sessions but these
}

// A Sweep says which expired records DeleteExpired removes.
type Sweep struct {
	// ID, if not zero, narrows the sweep to the records under this ID.
	ID ID
	// Apps are the applications whose expired records are removed.
	Apps []string
	// Orphans, if positive, extends it to the records of any application that
	// expired at least this long ago: those of applications that run nowhere
	// any more.
	Orphans time.Duration
	// Limit is the most records that one call looks at, at least 1.
	Limit int
	// OmitData says that nobody will look at the Data of the records removed: a
	// backend may return them without.
	OmitData bool
}
