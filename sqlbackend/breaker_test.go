package sqlbackend

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

var (
	errDown    = errors.New("connection reset")
	errRefused = errors.New("read only")
)

// newBroken returns a Backend whose errors mean what their name says. It has no
// database: tests hand retry their own units of work.
func newBroken() *Backend {
	return &Backend{timeout: 5 * time.Second, dialect: &Dialect{Classify: func(err error) Class {
		switch {
		case errors.Is(err, errDown):
			return Unreachable
		case errors.Is(err, errRefused):
			return Refused
		}
		return Other
	}}}
}

// answering is a unit of work that ends with err.
func answering(err error) func(context.Context) error {
	return func(context.Context) error { return err }
}

// hang is a unit of work on a database that does not answer.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func (b *Backend) expectState(t *testing.T, want BreakerState) {
	t.Helper()
	if got := b.Availability().Breaker; got != want {
		t.Errorf("breaker is %v, want %v", got, want)
	}
}

func (b *Backend) trip(t *testing.T) {
	t.Helper()
	for range tripAfter {
		if err := b.retry(t.Context(), answering(errDown)); !errors.Is(err, errDown) {
			t.Fatalf("before the breaker opens: %v", err)
		}
	}
	b.expectState(t, BreakerOpen)
}

func TestBreakerOpensAfterFailuresInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroken()
		for range 3 * tripAfter { // never in a row
			b.retry(t.Context(), answering(errDown))
			b.retry(t.Context(), answering(sessionstore.ErrConflict))
		}
		b.expectState(t, BreakerClosed)
		b.trip(t)

		start, ran := time.Now(), false
		err := b.retry(t.Context(), func(context.Context) error { ran = true; return nil })
		if !errors.Is(err, ErrUnavailable) || ran || time.Since(start) > 0 {
			t.Errorf("open: ran is %t, error %v after %v", ran, err, time.Since(start))
		}
		if !strings.Contains(err.Error(), errDown.Error()) || errors.Is(err, errDown) {
			t.Errorf("error %q names, and does not wrap, the last failure", err)
		}
		if a := b.Availability(); a.Opened != 1 || a.Refused != 1 || a.Err == nil || a.Since.IsZero() {
			t.Errorf("Availability: %+v", a)
		}
	})
}

func TestBreakerTriesOneCallAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroken()
		b.trip(t)
		time.Sleep(firstPause)
		release, done := make(chan error), make(chan error)
		go func() { done <- b.retry(t.Context(), func(context.Context) error { return <-release }) }()
		synctest.Wait()
		b.expectState(t, BreakerHalfOpen)
		if err := b.retry(t.Context(), answering(nil)); !errors.Is(err, ErrUnavailable) {
			t.Errorf("a second call during the trial: %v", err)
		}
		release <- errDown
		<-done
		b.expectState(t, BreakerOpen)
		time.Sleep(firstPause) // twice as long now
		if err := b.retry(t.Context(), answering(nil)); !errors.Is(err, ErrUnavailable) {
			t.Errorf("before the longer pause is over: %v", err)
		}
		time.Sleep(firstPause)
		if err := b.retry(t.Context(), answering(nil)); err != nil {
			t.Error(err)
		}
		b.expectState(t, BreakerClosed)
		if a := b.Availability(); !a.Since.IsZero() || a.Err != nil {
			t.Errorf("Availability after an answer: %+v", a)
		}
	})
}

func TestBreakerClosesWithinASecondOfRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroken()
		b.trip(t)
		for range 30 { // polls of a node without requests
			time.Sleep(time.Second)
			if err := b.retry(t.Context(), answering(errDown)); !errors.Is(err, errDown) {
				t.Fatalf("a poll each second is no trial: %v", err)
			}
		}
		time.Sleep(time.Second)
		if err := b.retry(t.Context(), answering(nil)); err != nil {
			t.Error(err)
		}
		b.expectState(t, BreakerClosed)
	})
}

// Whether a trial hangs or its caller gives up, others follow.
func TestBreakerOutlivesItsTrials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroken()
		b.trip(t)
		time.Sleep(firstPause)
		hung := make(chan error)
		go func() { hung <- b.retry(context.Background(), hang) }()
		time.Sleep(longestPause)
		if err := b.retry(t.Context(), answering(nil)); err != nil {
			t.Errorf("after the trial hung: %v", err)
		}
		b.expectState(t, BreakerClosed)
		for range tripAfter - 1 {
			b.retry(t.Context(), answering(errDown))
		}
		<-hung // a failure of the outage before
		b.expectState(t, BreakerClosed)

		b.retry(t.Context(), answering(nil))
		b.trip(t)
		time.Sleep(firstPause)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		b.retry(ctx, hang)
		if err := b.retry(t.Context(), answering(nil)); err != nil {
			t.Errorf("after a trial was given up: %v", err)
		}
	})
}

func TestBreakerKnowsWhatIsNoFailure(t *testing.T) {
	for name, err := range map[string]error{
		"conflict": sessionstore.ErrConflict, "not found": sessionstore.ErrNotFound,
		"limit": sessionstore.ErrLimit, "syntax": errors.New("syntax error"),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBroken()
			for range 2 * tripAfter {
				b.retry(t.Context(), answering(err))
			}
			b.expectState(t, BreakerClosed)
		})
	}
	t.Run("given up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBroken()
			for range 2 * tripAfter {
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(4*time.Second, cancel)
				b.retry(ctx, hang)
			}
			b.expectState(t, BreakerClosed)
		})
	})
	t.Run("short deadline", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBroken()
			for range 2 * tripAfter {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				b.retry(ctx, hang)
				cancel()
			}
			b.expectState(t, BreakerClosed)
		})
	})
	t.Run("one slow statement", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBroken()
			for range 2 * tripAfter {
				b.retry(t.Context(), hang)
				b.retry(t.Context(), answering(nil))
			}
			b.expectState(t, BreakerClosed)
		})
	})
}

func TestBreakerOpensWhenNothingIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroken()
		for range tripAfter { // sessionstore's own timeout is as long as ours
			ctx, cancel := context.WithTimeout(t.Context(), b.timeout)
			b.retry(ctx, hang)
			cancel()
		}
		b.expectState(t, BreakerOpen)
	})
}

func TestPanicIsNoAnswer(t *testing.T) {
	b := newBroken()
	b.trip(t)
	b.breaker.next = time.Now()
	func() {
		defer func() { recover() }()
		b.retry(t.Context(), func(context.Context) error { panic("in a scan") })
	}()
	b.expectState(t, BreakerOpen)
}

// In a failover the work that has begun waits for the new primary, as long as its
// time lasts; new work fails at once.
func TestRefusedWorkWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroken()
		start, tries := time.Now(), 0
		done := make(chan error)
		go func() {
			done <- b.retry(t.Context(), func(context.Context) error {
				if tries++; time.Since(start) < 3*time.Second {
					return errRefused
				}
				return nil
			})
		}()
		time.Sleep(time.Second)
		b.expectState(t, BreakerOpen)
		begun := time.Now()
		if err := b.retry(t.Context(), answering(errRefused)); !errors.Is(err, ErrUnavailable) && !errors.Is(err, errRefused) || time.Since(begun) > 0 {
			t.Errorf("new work: %v after %v", err, time.Since(begun))
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took < 3*time.Second || took > 3*time.Second+longestPause+longestWait || tries > 20 {
			t.Errorf("done after %v and %d tries", took, tries)
		}
		b.expectState(t, BreakerClosed)

		if err := b.retry(t.Context(), answering(errRefused)); !errors.Is(err, errRefused) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("refused for ever: %v", err)
		}
	})
}

func TestRefusedCommitIsNotRepeated(t *testing.T) {
	b, tries := newBroken(), 0
	err := b.retry(t.Context(), func(context.Context) error { tries++; return &CommitError{errRefused} })
	if !errors.Is(err, errRefused) || tries != 1 {
		t.Errorf("%d tries, error %v", tries, err)
	}
}
