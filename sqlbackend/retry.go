package sqlbackend

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	// maxAttempts bounds retries. A deadlock has a winner, so with n transactions
	// in each other's way one is through after each round.
	maxAttempts = 12

	// maxLosses is after how many connections that are lost in mid-transaction its
	// statements are to blame.
	maxLosses = 2

	// firstWait is the longest wait before the first retry; it doubles up to
	// longestWait. Transactions here take a millisecond or two.
	firstWait   = 4 * time.Millisecond
	longestWait = 250 * time.Millisecond
)

// retry repeats a unit of work while the database says that it has undone it, or
// that another connection must be tried: in a failover that may last as long as the
// unit's time. A breaker that is open refuses new work, and lets what has begun wait.
func (b *Backend) retry(ctx context.Context, do func(context.Context) error) error {
	inner, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	var last error
	wait, losses := firstWait, 0
	for attempt := 1; ; attempt++ {
		c, err := b.breaker.admit()
		if err == nil {
			var class Class
			class, err = b.try(inner, c, do)
			last = following(last, err)
			if isLost(err) {
				if losses++; losses == maxLosses {
					return last
				}
				class = Retryable
			}
			// A trial is not repeated: others are to follow, each holding its request shortly.
			if !again(class, last, attempt) || class == Refused && c.trial && attempt == 1 {
				return last
			}
		} else if last == nil {
			return err
		}
		if err := pause(inner, rand.N(wait)); err != nil { // jitter parts those that met
			return fmt.Errorf("%w: %w", err, last)
		}
		wait = min(2*wait, longestWait)
	}
}

// pause returns after d, or fails when ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// following says of an attempt that ran out of time why it was not the first.
func following(earlier, err error) error {
	if earlier == nil || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	// Only what became of the last attempt can be asked of the error.
	return fmt.Errorf("%w, after: %v", err, earlier)
}

// try runs a unit of work once, and reports what that says about the database.
func (b *Backend) try(ctx context.Context, c call, do func(context.Context) error) (Class, error) {
	class, v, start := Other, unclear, time.Now()
	var err error
	defer func() { b.breaker.report(c, v, err) }() // also if do panics
	if err = do(ctx); err != nil {
		class = b.dialect.Classify(err)
		if _, ok := errors.AsType[*lostAnswer](err); ok {
			class = Refused
		}
	}
	switch {
	case ctx.Err() != nil && err != nil:
		// A caller who gave up, or whose time was short, says nothing about the database.
		_, waited := errors.AsType[*lockWait](err)
		if errors.Is(ctx.Err(), context.DeadlineExceeded) && time.Since(start) >= b.timeout/2 && !waited {
			v = failed
		}
	case isLost(err): // of the database's doing, or of the unit's
	case class == Refused || class == Unreachable:
		v = failed
	default:
		v = answered
	}
	return class, err
}

// again reports whether a unit of work that failed is to be repeated.
func again(class Class, err error, attempt int) bool {
	switch class {
	case Retryable, Locked:
		return attempt < maxAttempts
	case Refused:
		// A server that shuts down may have committed before it said so.
		_, commit := errors.AsType[*CommitError](err)
		return !commit
	default:
		return false
	}
}
