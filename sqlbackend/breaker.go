package sqlbackend

import (
	"fmt"
	"sync"
	"time"
)

const (
	// tripAfter is how many failures in a row, without an answer between them, mean
	// that the database is away. More than one, because a connection that broke or a
	// statement that waited for a lock tells nothing about the others.
	tripAfter = 5

	// firstPause is the pause before the first trial; it doubles up to longestPause.
	firstPause = 100 * time.Millisecond
	// longestPause is shorter than the interval in which nodes poll events, so that on
	// a node without requests each poll is a trial.
	longestPause = 800 * time.Millisecond
)

// A BreakerState is the state of a [Backend]'s circuit breaker.
type BreakerState int

// The states of a circuit breaker.
const (
	// BreakerClosed: calls reach the database.
	BreakerClosed BreakerState = iota
	// BreakerOpen: calls fail at once, with ErrUnavailable.
	BreakerOpen
	// BreakerHalfOpen: one call is tried, the others fail at once.
	BreakerHalfOpen
)

// String returns closed, open or half-open.
func (s BreakerState) String() string {
	switch s {
	case BreakerClosed:
		return "closed"
	case BreakerOpen:
		return "open"
	case BreakerHalfOpen:
		return "half-open"
	default:
		return "unknown"
	}
}

// Availability is what a [Backend] knows about whether its database answers.
type Availability struct {
	// Breaker is the state of the circuit breaker.
	Breaker BreakerState
	// Since is when the failures began that have no answer after them; the zero time
	// if there are none.
	Since time.Time
	// Err is the latest of these failures, nil if there are none.
	Err error
	// Opened is how often the breaker has left BreakerClosed.
	Opened int64
	// Refused is how often it kept a call, or another try of one, from the database.
	Refused int64
}

// A breaker keeps a database that is away from holding every request for a whole
// StatementTimeout.
//
//	          tripAfter failures in a row              a pause is over, a call comes
//	closed --------------------------------> open ----------------------------------> half-open
//	  ^                                       ^                                           |
//	  |                                       |         the trial failed: longer pause    |
//	  |                                       +-------------------------------------------+
//	  |                any answer                                                         |
//	  +-----------------------------------------------------------------------------------+
//
// An answer is whatever only a database that works can say, "no" included. A call
// that its caller gave up is neither an answer nor a failure. There is one trial at a
// time; one that hangs for longer than longestPause does not keep out the next.
//
// It starts no goroutine: calls are the trials, among them the polls for events.
type breaker struct {
	mu       sync.Mutex // guards what follows
	state    BreakerState
	epoch    int           // counts how often it closed: failures of calls from before do not count
	failures int           // in a row
	since    time.Time     // of the first of them
	last     error         // the latest of them
	pause    time.Duration // before the next trial
	next     time.Time     // no trial before
	opened   int64
	refused  int64
}

// A call is one that the breaker has admitted.
type call struct {
	epoch int
	trial bool
}

// A verdict is what the outcome of a call says about the database.
type verdict int

const (
	unclear verdict = iota
	answered
	failed
)

// admit lets a call through, or returns an error that wraps ErrUnavailable.
func (b *breaker) admit() (call, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == BreakerClosed {
		return call{epoch: b.epoch}, nil
	}
	now := time.Now()
	if now.Before(b.next) {
		b.refused++
		// Not wrapped: what has become of an earlier call is no part of this one's error.
		return call{}, fmt.Errorf("%w for %s: %v", ErrUnavailable, now.Sub(b.since).Round(time.Millisecond), b.last)
	}
	b.state, b.next = BreakerHalfOpen, now.Add(longestPause)
	return call{epoch: b.epoch, trial: true}, nil
}

// report tells what has become of a call, with the error if that is failed.
func (b *breaker) report(c call, v verdict, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case v == answered:
		if b.state != BreakerClosed {
			b.state = BreakerClosed
			b.epoch++
		}
		b.failures, b.since, b.last = 0, time.Time{}, nil
	case c.epoch != b.epoch: // the database has answered since
	case v == unclear:
		if c.trial && b.state == BreakerHalfOpen {
			b.state, b.next = BreakerOpen, time.Now() // another call may try
		}
	default:
		b.failLocked(c, err)
	}
}

func (b *breaker) failLocked(c call, err error) {
	now := time.Now()
	if b.failures++; b.failures == 1 {
		b.since = now
	}
	b.last = err
	switch {
	case b.state == BreakerClosed && b.failures >= tripAfter:
		b.opened++
		b.pause = firstPause
	case b.state == BreakerHalfOpen && c.trial:
		b.pause = min(2*b.pause, longestPause)
	default:
		return
	}
	b.state, b.next = BreakerOpen, now.Add(b.pause)
}

func (b *breaker) availability() Availability {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Availability{Breaker: b.state, Since: b.since, Err: b.last, Opened: b.opened, Refused: b.refused}
}

// Availability returns whether the database answers, as far as the Backend's calls
// have shown.
func (b *Backend) Availability() Availability { return b.breaker.availability() }
