package idmanager

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// Run reads events, writes access times back, sweeps expired sessions and keeps this
// node registered until ctx ends or Shutdown is called, then returns nil; the pending
// access times are written back by Shutdown. It returns [sessionstore.ErrClosed]
// after a Shutdown, and an error if it is running already. While nothing runs it,
// requests ask the database each time and write their own access times: slower, and
// as correct.
//
// If another process has this node's name and is seen to be alive, Run ends with an
// error that is [sessionstore.ErrNodeNameTaken] and names it. That takes some
// heartbeats, since what is there may be left from a process that was killed: its name
// is free once its NodeTTL has passed. Meanwhile everything works, as it does after
// that error; only balancers cannot tell the two apart.
func (m *Manager) Run(ctx context.Context) error {
	m.mu.Lock()
	if m.shutdown {
		m.mu.Unlock()
		return sessionstore.ErrClosed
	}
	if m.cancel != nil {
		m.mu.Unlock()
		return errors.New("idmanager: Run is running already")
	}
	ctx, cancel := context.WithCancel(ctx)
	stopped := make(chan struct{})
	m.cancel, m.stopped = cancel, stopped
	m.mu.Unlock()

	if m.feed != nil {
		m.feed.start()
	}
	m.running.Store(true)
	var wg sync.WaitGroup
	wg.Go(func() { m.runTouches(ctx) })
	if m.cfg.SweepInterval > 0 {
		wg.Go(func() { m.runSweep(ctx) })
	}
	if m.feed != nil {
		wg.Go(func() { m.feed.run(ctx) })
	}
	var failure error
	if m.registration != nil {
		wg.Go(func() {
			if failure = m.registration.run(ctx); failure != nil {
				// Not everybody looks at what a goroutine returns.
				m.cfg.Logger.Error("the ID manager stops running, requests ask the database each time", slog.Any("error", failure))
				cancel()
			}
		})
	}
	<-ctx.Done()
	m.running.Store(false)
	wg.Wait()

	m.mu.Lock()
	defer m.mu.Unlock()
	m.cancel = nil
	cancel()
	close(stopped)
	return failure
}

// Shutdown stops Run, waits for it, writes back what is pending in every application
// (P14), and gives up the node's name. Its error says what could not be written. Requests that are
// still served afterwards work without Run. It may be called more than once, and
// without Run; it waits no longer than ctx.
func (m *Manager) Shutdown(ctx context.Context) error {
	m.mu.Lock()
	m.shutdown = true
	var stopped chan struct{}
	if m.cancel != nil {
		m.cancel()
		stopped = m.stopped
	}
	m.mu.Unlock()
	if stopped != nil {
		select {
		case <-stopped:
		case <-ctx.Done(): // write back what can be written all the same
		}
	}
	var errs []error
	for _, app := range m.applications() {
		errs = append(errs, app.Flush(ctx))
	}
	if m.registration != nil {
		m.registration.leave(ctx)
	}
	return errors.Join(errs...)
}

// runTouches lets each application write back its access times at its own interval.
func (m *Manager) runTouches(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	started := 0
	for {
		more := m.attachments() // first, so that none is missed
		apps := m.applications()
		for _, app := range apps[started:] {
			wg.Go(func() {
				every(ctx, app.TouchInterval, func() {
					if err := app.Flush(ctx); err != nil && ctx.Err() == nil {
						m.cfg.Logger.Warn("access times stay pending", slog.String("app", app.Name), slog.Any("error", err))
					}
				})
			})
		}
		started = len(apps)
		select {
		case <-more:
		case <-ctx.Done():
			return
		}
	}
}

// early returns up to an eighth less than d, so that nodes do not act in step.
func early(d time.Duration) time.Duration { return d - rand.N(d/8+1) }

// every calls f after each interval, which is up to a quarter longer, until ctx ends.
func every(ctx context.Context, interval time.Duration, f func()) {
	for wait(ctx, interval+rand.N(interval/4+1), nil) == nil {
		f()
	}
}

// wait returns after d, or earlier if something comes from wake, which may be nil. It
// fails if ctx ends first.
func wait(ctx context.Context, d time.Duration, wake <-chan struct{}) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-wake:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
