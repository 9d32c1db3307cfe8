package middleware

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

func TestOutagesAreLoggedOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o sparseLog
		for second := range 3 {
			lines, omitted := 0, 0
			for range 500 {
				if n, ok := o.admit(); ok {
					lines, omitted = lines+1, n
				}
				time.Sleep(2 * time.Millisecond)
			}
			wantOmitted := 499
			if second == 0 {
				wantOmitted = 0
			}
			if lines != 1 || omitted != wantOmitted {
				t.Errorf("second %d: %d lines, %d omitted before", second, lines, omitted)
			}
		}
	})
}

func TestWhatARequestDidItselfIsNoOutage(t *testing.T) {
	for err, want := range map[error]bool{
		errors.New("connection refused"):                                  true,
		fmt.Errorf("save: %w", sessionstore.ErrTooLarge):                  false,
		fmt.Errorf("save: %w", sessionstore.ErrNotFound):                  false,
		fmt.Errorf("%w: %w", sessionstore.ErrUnstorable, errors.New("x")): false,
	} {
		if got := isOutage(err); got != want {
			t.Errorf("isOutage(%v) = %t", err, got)
		}
	}
}
