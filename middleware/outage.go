package middleware

import (
	"errors"
	"sync"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// outageLogInterval is how often a database that does not answer is logged: during
// an outage every request fails the same way, and the thousandth line says nothing
// that the first did not.
const outageLogInterval = time.Second

// An outageLog admits one line in each interval. The zero value is ready for use.
type outageLog struct {
	mu      sync.Mutex // guards what follows
	next    time.Time
	omitted int
}

// admit reports whether a line may be logged now, and how many were not since the
// last one.
func (o *outageLog) admit() (omitted int, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if now.Before(o.next) {
		o.omitted++
		return 0, false
	}
	o.next = now.Add(outageLogInterval)
	omitted, o.omitted = o.omitted, 0
	return omitted, true
}

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
