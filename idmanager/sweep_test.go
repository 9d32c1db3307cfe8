package idmanager_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-sessions/holdfast/idmanager"
	"github.com/holdfast-sessions/holdfast/sessionstore"
	"github.com/holdfast-sessions/holdfast/sessionstore/membackend"
)

// A backlog is a backend that never runs out of expired sessions. It takes its time
// for each it looks at, and remembers its batches.
type backlog struct {
	sessionstore.Backend

	mu       sync.Mutex    // guards what follows
	overhead time.Duration // of each batch
	perRow   time.Duration
	refuse   error
	batches  []sweepBatch
	omitted  bool // the last one was asked to omit data
}

type sweepBatch struct {
	size       int
	begun, end time.Time
}

func (b *backlog) DeleteExpired(_ context.Context, sweep sessionstore.Sweep) ([]*sessionstore.Record, bool, error) {
	b.mu.Lock()
	overhead, perRow, refuse := b.overhead, b.perRow, b.refuse
	b.mu.Unlock()
	begun := time.Now()
	time.Sleep(overhead + time.Duration(sweep.Limit)*perRow)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.omitted = sweep.OmitData
	b.batches = append(b.batches, sweepBatch{sweep.Limit, begun, time.Now()})
	return nil, true, refuse
}

// become changes how quick the backend is and whether it refuses.
func (b *backlog) become(perRow time.Duration, refuse error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.perRow, b.refuse = perRow, refuse
}

// answerAfter changes what a statement takes beside its rows.
func (b *backlog) answerAfter(overhead time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.overhead = overhead
}

func (b *backlog) seen() []sweepBatch {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.batches)
}

// sweepFor lets a node sweep for a while and returns the batches of that time.
func (b *backlog) sweepFor(d time.Duration) []sweepBatch {
	before := len(b.seen())
	time.Sleep(d)
	return b.seen()[before:]
}

// startSweep runs a node on a backlog and lets the first interval pass.
func startSweep(t *testing.T, perRow time.Duration, cfg idmanager.Config) *backlog {
	b := &backlog{Backend: membackend.New(), perRow: perRow}
	b.start(t, cfg)
	return b
}

func (b *backlog) start(t *testing.T, cfg idmanager.Config, listeners ...sessionstore.Listener) {
	m := newManager(t, b, cfg)
	for _, app := range []string{"app", "other"} {
		if _, err := sessionstore.New(m, app, &sessionstore.Config{Logger: quiet, Listeners: listeners}); err != nil {
			t.Fatal(err)
		}
		listeners = nil // only the first application's
	}
	go m.Run(t.Context())
	t.Cleanup(func() { m.Shutdown(context.Background()) })
	for len(b.seen()) == 0 {
		time.Sleep(time.Second)
	}
}

func TestSweepLeavesTimeBesideTheOverhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const overhead = 10 * time.Millisecond
		b := &backlog{Backend: membackend.New(), perRow: 100 * time.Microsecond, overhead: overhead}
		b.start(t, idmanager.Config{SweepTime: time.Millisecond})
		batches := b.sweepFor(10 * time.Second)
		last := batches[len(batches)-1]
		if took := last.end.Sub(last.begun); took < 29*overhead/10 || took > 31*overhead/10 {
			t.Errorf("with an overhead of %v a batch of %d takes %v", overhead, last.size, took)
		}
	})
}

func TestSweepAsksForDataThatIsListenedFor(t *testing.T) {
	for name, test := range map[string]struct {
		listener sessionstore.Listener
		omits    bool
	}{
		"none":      {sessionstore.Listener{}, true},
		"created":   {sessionstore.Listener{Created: func(context.Context, sessionstore.SessionEvent) {}}, true},
		"destroyed": {sessionstore.Listener{Destroyed: func(context.Context, sessionstore.SessionEvent) {}}, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := &backlog{Backend: membackend.New(), perRow: time.Millisecond}
			b.start(t, idmanager.Config{}, test.listener)
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.omitted != test.omits {
				t.Errorf("%s: the sweep omits data: %t, want %t", name, b.omitted, test.omits)
			}
		})
	}
}

func TestSweepBatchesTakeAboutSweepTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const aim = 40 * time.Millisecond
		b := startSweep(t, 100*time.Microsecond, idmanager.Config{SweepTime: aim})
		first := b.seen()
		for i, batch := range first[1:] {
			if batch.size > 2*first[i].size {
				t.Errorf("after a batch of %d comes one of %d", first[i].size, batch.size)
			}
		}
		expectAbout := func(when string, batches []sweepBatch) {
			t.Helper()
			for _, batch := range batches {
				if took := batch.end.Sub(batch.begun); took < aim*9/10 || took > aim*11/10 {
					t.Errorf("%s, a batch of %d took %v", when, batch.size, took)
				}
			}
		}
		warm := b.sweepFor(10 * time.Second)
		expectAbout("with 100 µs per row", warm[len(warm)-20:])
		b.become(2*time.Millisecond, nil)
		slow := b.sweepFor(10 * time.Second)
		expectAbout("with 2 ms per row", slow[len(slow)-20:])
		b.become(50*time.Microsecond, nil)
		quick := b.sweepFor(10 * time.Second)
		expectAbout("with 50 µs per row", quick[len(quick)-20:])
	})
}

// A database that is busy with others answers late, whatever it is asked for. Batches do not
// shrink to nothing for that, or what expires would pile up.
func TestSweepBesideABusyDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startSweep(t, 20*time.Microsecond, idmanager.Config{})
		b.sweepFor(10 * time.Second)
		b.answerAfter(20 * time.Millisecond)
		busy := b.sweepFor(10 * time.Second)
		rows := 0
		for _, batch := range busy {
			rows += batch.size
		}
		if rows < 10*600 {
			t.Errorf("in 10 s, the sweep looked at %d rows", rows)
		}
	})
}

func TestSweepRestsBetweenBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startSweep(t, time.Millisecond, idmanager.Config{})
		batches := b.sweepFor(10 * time.Second)
		for i, batch := range batches[1:] {
			took, rest := batches[i].end.Sub(batches[i].begun), batch.begun.Sub(batches[i].end)
			if rest != took/10 {
				t.Errorf("after %v of work the sweep rests for %v, want a tenth of it", took, rest)
			}
		}
	})
}

func TestSweepRateIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startSweep(t, time.Microsecond, idmanager.Config{})
		rows := 0
		for _, batch := range b.sweepFor(10 * time.Second) {
			rows += batch.size
		}
		if rows < 310_000 || rows > 330_000 {
			t.Errorf("a quick database is swept of %d rows in 10 seconds, want 320,000", rows)
		}
	})
}

func TestSweepBatchIsAnUpperBound(t *testing.T) {
	for _, most := range []int{10, 500} {
		synctest.Test(t, func(t *testing.T) {
			b := startSweep(t, 10*time.Microsecond, idmanager.Config{SweepBatch: most, SweepTime: 10 * time.Millisecond})
			b.sweepFor(time.Second)
			all := b.seen()
			for _, batch := range all {
				if batch.size > most {
					t.Fatalf("batch of %d, want at most %d", batch.size, most)
				}
			}
			if last := all[len(all)-1].size; last != most {
				t.Errorf("a quick database gets batches of %d, want %d", last, most)
			}
		})
	}
}

func TestSweepAsksForLessAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startSweep(t, 5*time.Microsecond, idmanager.Config{SweepBatch: 1000, SweepTime: 10 * time.Millisecond})
		b.become(5*time.Microsecond, errors.New("too much"))
		b.sweepFor(time.Second)                // the batch that was under way
		failed := b.sweepFor(20 * time.Minute) // one batch in each interval
		for i, batch := range failed[1:] {
			if batch.size != max(failed[i].size/2, 1) {
				t.Errorf("after a failed batch of %d comes one of %d", failed[i].size, batch.size)
			}
		}
		if len(failed) < 12 || failed[len(failed)-1].size != 1 {
			t.Errorf("%d batches failed", len(failed))
		}
		b.become(5*time.Microsecond, nil)
		b.sweepFor(2 * time.Minute)
		if all := b.seen(); all[len(all)-1].size != 1000 {
			t.Errorf("afterwards batches are of %d, want 1000", all[len(all)-1].size)
		}
	})
}
