package idmanager

import (
	"context"
	"log/slog"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

const (
	// sweepShare is how many times longer than the shortest so far a transaction may
	// always be, whatever SweepTime says: beginning and committing one takes MySQL two
	// milliseconds, and nothing would be left for the records.
	sweepShare = 3

	// sweepRest is how long the sweep rests at least after a transaction, as a part of the
	// time that took. A busy database takes longer, and so gets more rest.
	sweepRest = 0.1

	// sweepRate bounds how many records a process looks at per second. A quick database
	// could do several times as many, at the expense of others, and a million in half a
	// minute will do.
	sweepRate = 32_000

	// sweepLeast is how many records a batch looks at, however long that takes. A
	// database that is busy with others answers late whatever it is asked for: batches
	// would shrink to one record, and what expires would pile up.
	sweepLeast = 16
)

// runSweep removes expired sessions at every interval.
func (m *Manager) runSweep(ctx context.Context) {
	p := &pace{size: 1, most: m.cfg.SweepBatch, aim: m.cfg.SweepTime}
	every(ctx, m.cfg.SweepInterval, func() {
		if err := m.sweep(ctx, p); err != nil && ctx.Err() == nil {
			m.cfg.Logger.Warn("sweep of expired sessions failed", slog.Any("error", err))
		}
	})
}

// sweep removes what has expired, batch by batch, each a short transaction of its
// own with a pause after it, so that a backlog of millions harms nobody.
func (m *Manager) sweep(ctx context.Context, p *pace) error {
	for {
		apps := m.applications()
		start := time.Now()
		// Also if ctx ends meanwhile: what is removed has to be announced.
		begun := context.WithoutCancel(ctx)
		batch, cancel := context.WithTimeout(begun, m.cfg.Timeout)
		removed, more, err := m.backend.DeleteExpired(batch, m.sweepOf(apps, sessionstore.ID{}, p.size))
		cancel()
		took := time.Since(start)
		if err != nil {
			p.failed()
			return err
		}
		announce(begun, apps, removed, sessionstore.CauseExpired)
		if !more {
			return nil
		}
		rest := p.rest(took)
		p.done(took)
		if wait(ctx, rest, nil) != nil {
			return nil
		}
	}
}

// sweepOf says what a process with these applications sweeps.
func (m *Manager) sweepOf(apps []sessionstore.Application, id sessionstore.ID, limit int) sessionstore.Sweep {
	sweep := sessionstore.Sweep{ID: id, Orphans: max(0, m.cfg.OrphanAge), Limit: limit, OmitData: true}
	for _, app := range apps {
		sweep.Apps = append(sweep.Apps, app.Name)
		sweep.OmitData = sweep.OmitData && !app.NeedsData
	}
	return sweep
}

// A pace finds out how many records a sweeping transaction can look at in the time
// that it is to take.
type pace struct {
	size     int // of the next batch; the first is of 1
	most     int
	aim      time.Duration
	shortest time.Duration // that a full batch has taken, 0 before the first
}

// done judges a full batch by the time it took. One that was much too quick or too
// slow may have been an exception, so the next is at most twice or half as large.
func (p *pace) done(took time.Duration) {
	least := min(sweepLeast, 2*p.size)
	took = max(took, 1)
	if p.shortest == 0 || took < p.shortest {
		p.shortest = took
	}
	size := float64(p.size) * float64(max(p.aim, sweepShare*p.shortest)) / float64(took)
	p.size = int(min(max(size, float64(p.size)/2, float64(least)), float64(2*p.size), float64(p.most)))
	p.size = max(p.size, 1)
}

// rest returns how long to rest after a full batch that has taken so long.
func (p *pace) rest(took time.Duration) time.Duration {
	slowest := time.Duration(p.size) * time.Second / sweepRate
	return max(time.Duration(sweepRest*float64(took)), slowest-took)
}

// failed makes the next batch smaller: this one may have been more than the
// database can do before it times out.
func (p *pace) failed() { p.size = max(p.size/2, 1) }
