package middleware

import (
	"sync"
	"time"
)

// logInterval is how often a database that does not answer is logged: during an outage
// every request fails the same way, and the thousandth line says nothing that the first
// did not. So it is with what anybody may send as often as he likes.
const logInterval = time.Second

// A sparseLog admits one line in each interval. The zero value is ready for use.
type sparseLog struct {
	mu      sync.Mutex // guards what follows
	next    time.Time
	omitted int
}

// admit reports whether a line may be logged now, and how many were not since the
// last one.
func (l *sparseLog) admit() (omitted int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Before(l.next) {
		l.omitted++
		return 0, false
	}
	l.next = now.Add(logInterval)
	omitted, l.omitted = l.omitted, 0
	return omitted, true
}
