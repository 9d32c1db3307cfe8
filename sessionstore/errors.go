package sessionstore

import (
	"errors"
	"fmt"
)

// The errors of this package and of every [Backend]; test for them with [errors.Is].
var (
	// ErrNotFound says that no live session is stored under this key: there never
	// was one, it was invalidated, or it expired.
	ErrNotFound = errors.New("sessionstore: session not found")

	// ErrSibling is an [ErrNotFound] that adds: another application holds the same
	// ID, so this application may begin its part of that session.
	ErrSibling = fmt.Errorf("%w in this application, but in another one", ErrNotFound)

	// ErrExists says that a session is already stored under this ID.
	ErrExists = errors.New("sessionstore: session exists already")

	// ErrConflict says that the stored record is no longer the one that a write
	// was conditional on.
	ErrConflict = errors.New("sessionstore: session changed meanwhile")

	// ErrNotModified says that the stored record still has the version the caller knows.
	ErrNotModified = errors.New("sessionstore: session not modified")

	// ErrTooLarge says that a session's encoded attributes exceed Config.MaxDataBytes.
	// Nothing was stored.
	ErrTooLarge = errors.New("sessionstore: session too large")

	// ErrLimit says that a principal has as many sessions as Config.MaxSessions allows.
	// Nothing was stored.
	ErrLimit = errors.New("sessionstore: too many sessions for this principal")

	// ErrCorrupt says that stored data is not in the envelope format of this
	// version of the library. The stored bytes are kept: until somebody has seen to
	// them, the session has no attributes, and changes of attributes fail.
	ErrCorrupt = errors.New("sessionstore: stored session data is unreadable")

	// ErrUnstorable says that a change can never be stored: a value that does not
	// encode, a principal or timeout outside its bounds. Nothing was stored.
	ErrUnstorable = errors.New("sessionstore: change cannot be stored")

	// ErrTooLate says that a change needs the client to be told a new token, and
	// the response has already begun. That change was not stored.
	ErrTooLate = errors.New("sessionstore: response has begun, the client cannot be given a new token")

	// ErrMalformedToken says that a string does not have the form of a token.
	ErrMalformedToken = errors.New("sessionstore: malformed token")

	// ErrUndecryptable says that a stored value was not sealed by one of the keys
	// at hand for this session, application and attribute.
	ErrUndecryptable = errors.New("sessionstore: value cannot be decrypted")

	// ErrNodeNameTaken says that another process that is alive has this node's name.
	ErrNodeNameTaken = errors.New("sessionstore: node name is taken")

	// ErrClosed says that the component was shut down.
	ErrClosed = errors.New("sessionstore: closed")
)
