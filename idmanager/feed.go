package idmanager

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

const (
	// pruneInterval is how often each node prunes events. Pruning finds little,
	// since all nodes do it.
	pruneInterval = time.Minute
	// firstBackoff and longestBackoff bound the pause before a doorbell that was
	// lost is tried again.
	firstBackoff   = 100 * time.Millisecond
	longestBackoff = 30 * time.Second
)

// A feed reads the events of other nodes and lets the applications forget what is
// outdated. The table of events is the truth and is polled; a doorbell, where there
// is one, only makes the next poll happen now.
//
//	        first poll                 no answer within FeedTimeout
//	silent ------------> heard -----------------------------------+
//	  ^                    ^                                      |
//	  |                    | poll answered: on from the cursor,   v
//	  |                    | or, after half of EventRetention,  unheard
//	  | start              | all copies are dropped               |
//	  +-- (Run)            +--------------------------------------+
type feed struct {
	source       sessionstore.EventSource
	cfg          *Config
	applications func() []sessionstore.Application

	epoch time.Time    // what at counts from
	at    atomic.Int64 // nanoseconds since epoch when the latest answered poll began, 0 if none was

	// Only run uses what follows.
	wall   time.Time // the wall clock when the latest answered poll began
	cursor sessionstore.Cursor
	seen   map[int64]bool // events that the poll before returned
}

func newFeed(source sessionstore.EventSource, cfg *Config, applications func() []sessionstore.Application) *feed {
	return &feed{source: source, cfg: cfg, applications: applications, epoch: time.Now()}
}

// start forgets an earlier Run's place: what happened since is unknown.
func (f *feed) start() {
	f.at.Store(0)
	f.cursor, f.seen = 0, nil
}

// heard reports whether nothing older than FeedTimeout can have been missed (P6).
func (f *feed) heard() bool {
	at := f.at.Load()
	return at > 0 && time.Since(f.epoch)-time.Duration(at) <= f.cfg.FeedTimeout
}

// run polls until ctx ends.
func (f *feed) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	rung := make(chan struct{}, 1)
	if bell, ok := f.source.(sessionstore.Doorbell); ok {
		wg.Go(func() { f.listen(ctx, bell, rung) })
	}
	wg.Go(func() { every(ctx, pruneInterval, func() { f.prune(ctx) }) })
	for failures := 0; ; {
		if err := f.poll(ctx); err == nil {
			failures = 0
		} else if failures++; failures == 1 && ctx.Err() == nil {
			f.cfg.Logger.Warn("events of other nodes cannot be read", slog.Any("error", err))
		}
		if wait(ctx, early(f.cfg.PollInterval), rung) != nil {
			return
		}
	}
}

// poll reads events once and applies them.
func (f *feed) poll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	now := time.Now()
	began, wall := now.Sub(f.epoch), now.Round(0)
	events, next, err := f.source.Events(ctx, f.cursor)
	if err != nil {
		return err
	}
	apps := f.applications()
	if f.cursor == 0 || f.missed(began, wall) {
		for _, app := range apps {
			app.Reset()
		}
	}
	seen := make(map[int64]bool, len(events))
	for _, e := range events {
		seen[e.Seq] = true
		if !f.seen[e.Seq] {
			apply(apps, e)
		}
	}
	f.wall, f.cursor, f.seen = wall, next, seen
	f.at.Store(int64(max(began, 1)))
	return nil
}

// missed reports whether events may have been pruned since the latest answered poll, or
// the machine was asleep meanwhile: a suspended one's monotonic clock stands still, by
// which copies do not expire.
func (f *feed) missed(began time.Duration, wall time.Time) bool {
	passed := began - time.Duration(f.at.Load())
	return passed > f.cfg.EventRetention/2 || wall.Sub(f.wall)-passed > f.cfg.FeedTimeout
}

// apply tells the applications of an event. Applying one twice does no harm.
func apply(apps []sessionstore.Application, e sessionstore.Event) {
	for _, app := range apps {
		switch {
		case e.Version == 0:
			app.Forget(e.Key.ID, true)
		case e.Key.App == app.Name:
			app.Stale(e.Key.ID, e.Version)
		}
	}
}

// listen lets the doorbell ring, and returns to it when it was lost, unless it was
// switched off.
func (f *feed) listen(ctx context.Context, bell sessionstore.Doorbell, rung chan<- struct{}) {
	backoff := firstBackoff
	for {
		start := time.Now()
		err := bell.Listen(ctx, func() {
			select {
			case rung <- struct{}{}:
			default: // it has rung and was not answered yet
			}
		})
		if ctx.Err() != nil || errors.Is(err, errors.ErrUnsupported) {
			return
		}
		if time.Since(start) > longestBackoff {
			backoff = firstBackoff
		}
		f.cfg.Logger.Warn("doorbell lost, events are polled meanwhile", slog.Any("error", err))
		if wait(ctx, backoff/2+rand.N(backoff), nil) != nil {
			return
		}
		backoff = min(2*backoff, longestBackoff)
	}
}

func (f *feed) prune(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	if err := f.source.PruneEvents(ctx, f.cfg.EventRetention); err != nil && ctx.Err() == nil {
		f.cfg.Logger.Warn("old events stay", slog.Any("error", err))
	}
}
