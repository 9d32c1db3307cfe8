package idmanager

import (
	"testing"
	"time"
)

// A machine that was suspended cannot be had in a test, but what its clocks say can.
func TestMissed(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f := &feed{cfg: &Config{EventRetention: time.Hour, FeedTimeout: 5 * time.Second}, wall: start}
	f.at.Store(int64(10 * time.Minute))
	for _, test := range []struct {
		what         string
		passed, wall time.Duration // by the monotonic clock, by the wall clock
		want         bool
	}{
		{"a second", time.Second, time.Second, false},
		{"a long outage", 29 * time.Minute, 29 * time.Minute, false},
		{"a longer one", 31 * time.Minute, 31 * time.Minute, true},
		{"asleep for a moment", time.Second, 4 * time.Second, false},
		{"asleep", time.Second, 7 * time.Second, true},
		{"asleep for a night", time.Second, 8 * time.Hour, true},
		{"the clock was set back", time.Second, -time.Hour, false},
	} {
		if got := f.missed(10*time.Minute+test.passed, start.Add(test.wall)); got != test.want {
			t.Errorf("%s: missed is %t, want %t", test.what, got, test.want)
		}
	}
}
