package sessionstore

import (
	"sync"
	"sync/atomic"
	"time"
)

// An activity is the use of one session on this node since its access time was
// last written back. While it is pending there is one per session, shared by all
// its snapshots. Times are since the manager's epoch, in nanoseconds.
type activity struct {
	id       ID
	inflight atomic.Int32 // requests between Begin and Release
	state    state        // isPending, isStored
	begun    atomic.Int64 // when the latest request began, 0 if none has
	used     atomic.Int64 // the latest use
	written  atomic.Int64 // uses up to then are in the database

	mu   sync.Mutex    // guards done
	done chan struct{} // closed once the session has ended; nil until somebody asks
}

// A state is what is true of an activity. Its bits are set and cleared atomically.
type state struct{ bits atomic.Uint32 }

const (
	isPending uint32 = 1 << iota // is in activities, to be written back
	isStored                     // this application has a record of the session, or had one
)

func (s *state) is(bit uint32) bool { return s.bits.Load()&bit != 0 }
func (s *state) set(bit uint32)     { s.bits.Or(bit) }
func (s *state) clear(bit uint32)   { s.bits.And(^bit) }

// closed is what done is if nobody had asked before the session ended.
var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// raise moves v forward to at least n.
func raise(v *atomic.Int64, n int64) {
	for old := v.Load(); old < n; old = v.Load() {
		if v.CompareAndSwap(old, n) {
			return
		}
	}
}

// end marks the session as ended and wakes those who wait for it.
func (a *activity) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-a.done: // it has ended before; nil blocks
	default:
		if a.done == nil {
			a.done = closed
		} else {
			close(a.done)
		}
	}
}

// hasEnded reports whether the session has ended.
func (a *activity) hasEnded() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-a.done:
		return true
	default: // nil too
		return false
	}
}

// bury forgets the activity of a record that has ended, because another one was begun
// under the session's ID.
func (as *activities) bury(id ID) {
	sh := &as.shard[id.shard()]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if a := sh.pending[id]; a != nil && a.hasEnded() {
		delete(sh.pending, id)
	}
}

// doneChan returns a channel that is closed once the session has ended.
func (a *activity) doneChan() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.done == nil {
		a.done = make(chan struct{})
	}
	return a.done
}

// activities are the sessions used on this node whose access times wait to be
// written back. They outlive evictions from the cache.
type activities struct {
	shard [shards]struct {
		mu      sync.Mutex // guards what follows
		pending map[ID]*activity
		taken   time.Duration // when it was emptied last, since the manager's epoch
	}
}

// of returns the session's activity: the pending one, that of a snapshot known
// before (which may be nil), or a new one.
func (as *activities) of(id ID, known *snapshot) *activity {
	sh := &as.shard[id.shard()]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if a, ok := sh.pending[id]; ok {
		return a
	}
	if known != nil {
		return known.activity
	}
	return &activity{id: id}
}

// find returns the pending activity, nil if there is none.
func (as *activities) find(id ID) *activity {
	sh := &as.shard[id.shard()]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.pending[id]
}

// enter notes that a request begins to use the session, and returns the activity that
// it is counted in, another one than a if that is in use already, and when the request
// before began, 0 if this node has seen none.
func (as *activities) enter(a *activity, at time.Duration) (entered *activity, previous time.Duration) {
	for {
		a.inflight.Add(1)
		raise(&a.used, int64(at))
		other := as.pend(a)
		if other == a {
			return a, time.Duration(a.begun.Swap(int64(at)))
		}
		a.inflight.Add(-1)
		a = other
	}
}

// leave notes that the request is over.
func (as *activities) leave(a *activity, at time.Duration) {
	raise(&a.used, int64(at))
	as.pend(a) // a flush may have taken it out while the request ran
	a.inflight.Add(-1)
}

// pend sees to it that the use of the session is written back, and returns the activity
// by which that happens: if a is in use, another one only if that is in use too.
func (as *activities) pend(a *activity) *activity {
	if a.state.is(isPending) {
		return a
	}
	sh := &as.shard[a.id.shard()]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if a.state.is(isPending) {
		return a
	}
	if other := sh.pending[a.id]; other != nil && other != a {
		// The session was loaded anew while a was being written back, or before a request
		// entered it. One of the two goes on for both. As in take, first not pending, then the
		// look at inflight: a request that enters it at the same time is seen, or waits.
		other.state.clear(isPending)
		if other.inflight.Load() > 0 && !other.hasEnded() || a.inflight.Load() == 0 {
			raise(&other.used, a.used.Load())
			other.state.set(isPending)
			return other
		}
		raise(&a.used, other.used.Load())
	}
	if sh.pending == nil {
		sh.pending = make(map[ID]*activity)
	}
	sh.pending[a.id] = a
	a.state.set(isPending)
	return a
}

// size returns how many are pending.
func (as *activities) size() (n int) {
	for i := range as.shard {
		sh := &as.shard[i]
		sh.mu.Lock()
		n += len(sh.pending)
		sh.mu.Unlock()
	}
	return n
}

// overdue reports whether a shard was not emptied for longer than d.
func (as *activities) overdue(shard int, now, d time.Duration) bool {
	sh := &as.shard[shard]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return now-sh.taken > d
}

// take empties a shard and returns what was pending in it. A request in flight
// counts as use until it ends, so its session stays pending.
func (as *activities) take(shard int, now time.Duration) []*activity {
	sh := &as.shard[shard]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.taken = now
	taken := make([]*activity, 0, len(sh.pending))
	pending := sh.pending
	sh.pending = nil // a map never gives back memory
	for id, a := range pending {
		taken = append(taken, a)
		// First not pending, then the look at inflight: a request that begins in
		// between sees the one or is seen by the other.
		a.state.clear(isPending)
		if a.inflight.Load() > 0 {
			a.state.set(isPending)
			if sh.pending == nil {
				sh.pending = make(map[ID]*activity)
			}
			sh.pending[id] = a
		} // else pend waits for the lock and puts it back
	}
	return taken
}
