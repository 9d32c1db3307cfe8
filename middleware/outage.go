package middleware

import (
	"errors"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// isOutage reports whether err is none of those that say what is wrong with this
// one request: then the database has failed, and does so for others too.
func isOutage(err error) bool {
	for _, known := range []error{
		sessionstore.ErrNotFound, sessionstore.ErrConflict, sessionstore.ErrLimit, sessionstore.ErrTooLarge,
		sessionstore.ErrUnstorable, sessionstore.ErrCorrupt, sessionstore.ErrTooLate,
	} {
		if errors.Is(err, known) {
			return false
		}
	}
	return true
}
