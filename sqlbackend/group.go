package sqlbackend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

const (
	// groupBytes bounds the data of one group, whose statement the database has to
	// hold in memory as a whole.
	groupBytes = 4 << 20

	// queuedGroups bounds how many full groups wait. Calls beyond are refused at
	// once: their turn would hardly come before they time out, and meanwhile each
	// holds its data in memory.
	queuedGroups = 64

	// crowd is how many calls must wait at least for a second flight to set out beside
	// one that is no larger: they would lose by waiting, and gain little by becoming more.
	// Few calls gain more by travelling together: measured on PostgreSQL with 64 callers
	// that do nothing else, and the server on the same two cores, 52,000 saves/s one
	// flight at a time, two as soon as anybody waits 43,000, four 35,000. But whoever
	// does something between two calls leaves the database idle meanwhile: with this
	// crowd there are more saves over HTTP, on PostgreSQL and on MySQL, and with smaller
	// and larger ones the gain is smaller; docs/design.md has the figures.
	crowd = 24

	// patience is how long a flight may take until another sets out beside it anyway: one
	// that waits for somebody's lock must not keep everybody else. Longer than
	// a flight takes where the processors are overloaded, or there would be more, and
	// smaller groups, when it is least welcome.
	patience = 50 * time.Millisecond

	// maxOvertaken bounds the flights beside which another has set out, so that there are
	// connections left for other work.
	maxOvertaken = 3
)

// groupable is what a grouper need know of a call. The call's results are part of it.
type groupable interface {
	// key is what no two calls of a group have in common.
	key() sessionstore.Key
	// size is how many bytes of data the call brings.
	size() int
	// keep makes the call independent of its caller's memory, because the caller may
	// give up and go on while the call is in flight.
	keep()
	// fail makes err the call's result, in place of any other.
	fail(err error)
}

// A grouper lets calls that arrive while another is in flight travel together in the
// next flight. A call that meets none goes at once, alone. Where flights may run side by
// side, one that makes a crowd complete goes at once too, with all of them.
//
// It has no goroutines of its own. One of the calls of a flight leads it, and the
// others are its companions; when it is over, the leader hands on to the first of
// those that have come meanwhile:
//
//	          nobody in flight,
//	          or a crowd is complete                      flight is over
//	call ───────────────────────────────────► leads ───────────────────────► done
//	 │                                          ▲                             ▲
//	 │ somebody in flight                       │ is handed the lead, or      │
//	 ▼                                          │ overtakes a slow flight     │
//	waits ──────────────────────────────────────┤                             │
//	 │ context ends, or timeout                 │ is taken along              │
//	 ▼                                          ▼                             │
//	gives up: nothing happened                travels ────────────────────────┘
//	                                            │ context ends, and it may leave
//	                                            ▼
//	                                          gives up: outcome unknown
type grouper[T groupable] struct {
	rows       int           // how many calls may travel together
	sideBySide bool          // flights gain by not waiting for each other
	timeout    time.Duration // of waiting, and of a flight
	// run does what the calls ask for and puts the results into them.
	run func(ctx context.Context, calls []T)
	// stay says that callers whose context ends stay until their flight is over, since
	// nobody else looks after their results.
	stay bool

	groups, members atomic.Int64

	mu           sync.Mutex // guards everything below
	current      *flight    // the last one that set out, nil if it is over
	overtaken    int        // how many others are under way, beside which a later one has set out
	waiting      []*passenger[T]
	waitingBytes int
}

// A passenger is a call that does not go at once.
type passenger[T groupable] struct {
	call T
	wake chan struct{} // closed when it is to lead, or when its flight is over
	// Guarded by the grouper:
	flight   *flight // that it travels in or is to lead
	leads    bool
	finished bool  // its flight is over
	err      error // why there are no results
}

// A flight is cancelled when all that travel in it have given up.
type flight struct {
	began  time.Time
	size   int          // how many set out in it
	aboard atomic.Int32 // how many have not given up
	cancel context.CancelFunc
}

func (f *flight) leave() {
	if f.aboard.Add(-1) == 0 {
		f.cancel()
	}
}

// A GroupCount says how many groups ran, and how many calls travelled in them.
type GroupCount struct{ Groups, Calls int64 }

func (g *grouper[T]) count() GroupCount { return GroupCount{g.groups.Load(), g.members.Load()} }

// errAbandoned is what companions hear if run panics.
var errAbandoned = errors.New("sqlbackend: the call that led this one's group panicked")

// do returns nil when the call has its results. An error says that it has none, and
// then the caller must not look at the call again.
func (g *grouper[T]) do(ctx context.Context, call T) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	g.mu.Lock()
	if g.current == nil {
		g.current = &flight{began: time.Now()}
		g.lead(ctx, call, g.current)
		return nil
	}
	if g.crowdedLocked(call) {
		g.overtakeLocked(ctx, call)
		return nil
	}
	size := call.size()
	if len(g.waiting) >= queuedGroups*g.rows || g.waitingBytes+size > queuedGroups*groupBytes {
		n := len(g.waiting)
		g.mu.Unlock()
		return fmt.Errorf("%w: %d others are waiting", ErrBusy, n)
	}
	call.keep()
	p := &passenger[T]{call: call, wake: make(chan struct{})}
	g.waiting = append(g.waiting, p)
	g.waitingBytes += size
	g.mu.Unlock()
	return g.wait(ctx, p)
}

// crowdedLocked reports whether one call more makes a crowd that is worth a flight beside
// the only one under way.
func (g *grouper[T]) crowdedLocked(call T) bool {
	switch {
	case !g.sideBySide || g.overtaken > 0 || len(g.waiting)+1 < max(crowd, g.current.size):
		return false
	case g.current.size == 0:
		return false // its leader has not woken up yet, and will take them along
	}
	// Who has waited longest must come along. While crowds follow one another, no flight
	// hands on the lead, and somebody who only fits a flight of his own would wait for ever.
	first := g.waiting[0].call
	return first.key() != call.key() && first.size()+call.size() <= groupBytes
}

// overtakeLocked lets call lead a flight beside the current one. It unlocks mu.
func (g *grouper[T]) overtakeLocked(ctx context.Context, call T) {
	g.overtaken++
	g.current = &flight{began: time.Now()}
	g.lead(ctx, call, g.current)
}

// wait returns when p has travelled, as a companion or as a leader, or has given up.
func (g *grouper[T]) wait(ctx context.Context, p *passenger[T]) error {
	arrived, pause := time.Now(), min(patience, g.timeout)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-p.wake:
		case <-ctx.Done():
		case <-timer.C:
		}
		g.mu.Lock()
		waited := time.Since(arrived)
		switch {
		case p.finished:
			g.mu.Unlock()
			return p.err
		case p.leads && ctx.Err() != nil:
			g.landLocked(p.flight)
			g.mu.Unlock()
			return ctx.Err()
		case p.leads:
			g.lead(ctx, p.call, p.flight)
			return nil
		case p.flight != nil:
			f := p.flight
			g.mu.Unlock()
			return g.travel(ctx, p, f)
		case ctx.Err() != nil:
			g.removeLocked(p)
			g.mu.Unlock()
			return ctx.Err()
		case waited >= g.timeout:
			g.removeLocked(p)
			g.mu.Unlock()
			return fmt.Errorf("%w: no turn for %s: %w", ErrBusy, g.timeout, context.DeadlineExceeded)
		case time.Since(g.current.began) >= patience && g.overtaken < maxOvertaken:
			g.removeLocked(p)
			g.overtakeLocked(ctx, p.call)
			return nil
		}
		g.mu.Unlock()
		pause = min(2*pause, g.timeout-waited) // seldom, where many wait for long
		timer.Reset(pause)
	}
}

func (g *grouper[T]) removeLocked(p *passenger[T]) {
	if i := slices.Index(g.waiting, p); i >= 0 {
		g.waiting = slices.Delete(g.waiting, i, i+1)
		g.waitingBytes -= p.call.size()
	}
}

// travel waits for the end of the flight, which has a timeout of its own.
func (g *grouper[T]) travel(ctx context.Context, p *passenger[T], f *flight) error {
	if g.stay {
		<-p.wake
		return p.err
	}
	select {
	case <-p.wake:
		return p.err
	case <-ctx.Done():
		f.leave()
		return fmt.Errorf("in flight together with others: %w", ctx.Err())
	}
}

// lead runs call and those that wait, in f. It is called with mu locked, and unlocks it.
func (g *grouper[T]) lead(ctx context.Context, call T, f *flight) {
	calls, companions := g.boardLocked(call, f)
	f.size = len(calls)
	g.mu.Unlock()
	g.groups.Add(1)
	g.members.Add(int64(len(calls)))

	landed := false
	defer func() { // also if run panics
		g.mu.Lock()
		for _, p := range companions {
			if !landed {
				p.err = errAbandoned
			}
			p.finished = true
			close(p.wake)
		}
		g.landLocked(f)
		g.mu.Unlock()
	}()
	if len(companions) == 0 {
		g.run(ctx, calls) // which ends with the only caller's context
	} else {
		g.fly(ctx, calls, f)
	}
	landed = true
}

// fly runs calls until their timeout, or until all their callers have given up. The
// leader cannot go before the end, but others decide whether it is worth waiting for.
func (g *grouper[T]) fly(ctx context.Context, calls []T, f *flight) {
	flying, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.timeout)
	defer cancel()
	f.cancel = cancel
	left := make(chan struct{})
	stay := context.AfterFunc(ctx, func() {
		defer close(left)
		f.leave()
	})
	defer func() {
		if !stay() {
			<-left
		}
	}()
	g.run(flying, calls)
}

// boardLocked takes those along that have waited longest, as far as there is room and
// their keys differ.
func (g *grouper[T]) boardLocked(leader T, f *flight) (calls []T, companions []*passenger[T]) {
	calls = append(make([]T, 0, min(len(g.waiting)+1, g.rows)), leader)
	if len(g.waiting) == 0 {
		return calls, nil
	}
	bytes, keys := leader.size(), map[sessionstore.Key]bool{leader.key(): true}
	stay := g.waiting[:0]
	for i, p := range g.waiting {
		if len(calls) == g.rows {
			stay = append(stay, g.waiting[i:]...)
			break
		}
		size, key := p.call.size(), p.call.key()
		if keys[key] || bytes+size > groupBytes {
			stay = append(stay, p)
			continue
		}
		p.flight, keys[key], bytes = f, true, bytes+size
		g.waitingBytes -= size
		calls, companions = append(calls, p.call), append(companions, p)
	}
	clear(g.waiting[len(stay):])
	g.waiting = stay
	f.aboard.Store(int32(len(calls)))
	return calls, companions
}

// landLocked ends a flight, and hands the lead to the one that has waited longest,
// unless f was overtaken and another one does that.
func (g *grouper[T]) landLocked(f *flight) {
	if g.current != f {
		g.overtaken--
		return
	}
	g.current = nil
	if len(g.waiting) > 0 {
		p := g.waiting[0]
		g.removeLocked(p)
		g.current = &flight{began: time.Now()}
		p.flight, p.leads = g.current, true
		close(p.wake)
	}
}

// together has run do what calls ask for, all at once. If a value among them is
// refused, nothing has happened, and they are halved until the one that brought it is
// alone with its error. Other errors are everyone's.
func together[T groupable](ctx context.Context, calls []T, run func([]T) error, refused func(error) bool) {
	err := run(calls)
	if err == nil {
		return
	}
	if len(calls) > 1 && refused(err) && ctx.Err() == nil {
		half := len(calls) / 2
		together(ctx, calls[:half], run, refused)
		together(ctx, calls[half:], run, refused)
		return
	}
	for _, c := range calls {
		c.fail(err)
	}
}
