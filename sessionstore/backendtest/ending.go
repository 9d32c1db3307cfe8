package backendtest

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// A tally counts how often each record was returned as removed.
type tally struct {
	mu    sync.Mutex // guards times
	times map[sessionstore.Key]int
}

func (t *tally) add(recs []*sessionstore.Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.times == nil {
		t.times = make(map[sessionstore.Key]int)
	}
	for _, rec := range recs {
		t.times[rec.Key]++
	}
}

func (t *tally) of(key sessionstore.Key) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.times[key]
}

// endingSubtests race the methods that remove records against each other and
// against those that write them.
var endingSubtests = []subtest{
	{"of deletions exactly one returns a record", "Of concurrent calls, exactly one returns a given record.", func(c *check) {
		for range 10 {
			bob := c.name("bob")
			recs := c.siblings(2)
			recs[0].Principal = bob
			c.update(recs[0])
			var removed tally
			c.parallel(6, func(i int, b sessionstore.Backend) {
				sel := sessionstore.Selector{ID: recs[0].Key.ID}
				if i%3 == 0 {
					sel = sessionstore.Selector{Principal: bob}
				}
				got, err := b.Delete(c.ctx, sel)
				if err != nil {
					c.Errorf("Delete at once with others returned %v", err)
				}
				removed.add(got)
			})
			for _, rec := range recs {
				if n := removed.of(rec.Key); n != 1 {
					c.Errorf("6 deletions at once returned a record %d times, want once", n)
				}
			}
			c.expectNothing(recs[0].Key.ID)
		}
	}},
	{"a join and a deletion at once leave no survivor", "A Create that joins a deleted session fails, even if both run at once (P3).", func(c *check) {
		for range 40 {
			bob := c.name("bob")
			first := c.login(c.name("app"), bob, 0)
			joins := []*sessionstore.Record{
				c.part(c.name("app"), first.Key.ID, first.SecretHash), c.part(c.name("app"), first.Key.ID, first.SecretHash),
			}
			var removed tally
			joined := make([]bool, len(joins))
			c.parallel(3, func(i int, b sessionstore.Backend) {
				if i == 2 {
					sel := sessionstore.Selector{ID: first.Key.ID}
					if first.Key.ID[15]%2 == 0 {
						sel = sessionstore.Selector{Principal: bob}
					}
					got, err := b.Delete(c.ctx, sel)
					if err != nil {
						c.Errorf("Delete at once with a join returned %v", err)
					}
					removed.add(got)
					return
				}
				_, err := b.Create(c.ctx, joins[i], sessionstore.Condition{SecretHash: first.SecretHash})
				if err != nil && !errors.Is(err, sessionstore.ErrNotFound) {
					c.Errorf("Create at once with a deletion returned %v, want %v", err, sessionstore.ErrNotFound)
				}
				joined[i] = err == nil
			})
			c.expectNothing(first.Key.ID)
			if removed.of(first.Key) != 1 {
				c.Errorf("Delete did not return the record that was there before it")
			}
			for i, rec := range joins {
				if n := removed.of(rec.Key); joined[i] != (n == 1) {
					c.Errorf("a record joined: %t, but Delete returned it %d times", joined[i], n)
				}
			}
		}
	}},
	{"an update and a deletion at once leave no survivor", "Update never inserts (P3)", func(c *check) {
		for round := range 30 {
			recs := c.siblings(2)
			var removed []*sessionstore.Record
			updated := make([]bool, len(recs))
			c.parallel(3, func(i int, b sessionstore.Backend) {
				if i == 2 {
					var err error
					if removed, err = b.Delete(c.ctx, sessionstore.Selector{ID: recs[0].Key.ID}); err != nil {
						c.Errorf("Delete at once with updates returned %v", err)
					}
					return
				}
				rec, cond := *recs[i], matching(recs[i])
				rec.Data = []byte("updated")
				if round%2 == 0 && i == 0 {
					rec.SecretHash = newHash()
				}
				err := b.Update(c.ctx, &rec, cond)
				if err != nil && !errors.Is(err, sessionstore.ErrConflict) {
					c.Errorf("Update at once with a deletion returned %v, want %v", err, sessionstore.ErrConflict)
				}
				updated[i] = err == nil
			})
			c.expectKeys("Delete", keysOf(removed), keysOf(recs)...)
			c.expectNothing(recs[0].Key.ID)
			for _, rec := range removed {
				i := 0
				if rec.Key == recs[1].Key {
					i = 1
				}
				if got := string(rec.Data) == "updated"; got != updated[i] {
					c.Errorf("Update succeeded: %t, but Delete returned the updated record: %t", updated[i], got)
				}
			}
		}
	}},
	{"sweeps return each record once", "No record is ever returned twice, whoever sweeps at the same time (P11)", func(c *check) {
		app := c.name("app")
		var recs []*sessionstore.Record
		for range 60 {
			recs = append(recs, c.session(app))
		}
		c.createAll(recs)
		c.advance(idle + sweepSlack)
		sweep := sessionstore.Sweep{Apps: []string{app}, Limit: 7}
		var removed tally
		c.parallel(4, func(_ int, b sessionstore.Backend) {
			for range maxSweeps {
				got, more, err := b.DeleteExpired(c.ctx, sweep)
				if err != nil {
					c.Errorf("DeleteExpired at once with others returned %v", err)
					return
				}
				if len(got) > sweep.Limit {
					c.Errorf("DeleteExpired with limit %d removed %d", sweep.Limit, len(got))
				}
				removed.add(got)
				if !more {
					return
				}
			}
		})
		removed.add(c.sweep(sweep)) // of what the others may have left to each other
		for _, rec := range recs {
			if n := removed.of(rec.Key); n != 1 {
				c.Errorf("sweeps at once returned a record %d times, want once", n)
			}
		}
	}},
	{"a record live again is left alone by a sweep", "and a record that becomes live again before its removal is left alone.", func(c *check) {
		c.raceExpiry(func(b sessionstore.Backend, rec *sessionstore.Record, _ *tally) (kept bool) {
			cond := matching(rec)
			rec.Idle = idle
			err := b.Update(c.ctx, rec, cond)
			if err != nil && !errors.Is(err, sessionstore.ErrConflict) {
				c.Errorf("Update at once with a sweep returned %v, want %v", err, sessionstore.ErrConflict)
			}
			return err == nil
		})
	}},
	{"a deletion and a sweep at once return a record once", "No record is ever returned twice, whoever sweeps at the same time (P11)", func(c *check) {
		c.raceExpiry(func(b sessionstore.Backend, rec *sessionstore.Record, removed *tally) (kept bool) {
			got, err := b.Delete(c.ctx, sessionstore.Selector{ID: rec.Key.ID})
			if err != nil {
				c.Errorf("Delete at once with a sweep returned %v", err)
			}
			removed.add(got)
			return false
		})
	}},
}

// raceExpiry lets records expire by themselves and calls end just before that,
// while others sweep. It reports a record that end has kept and that is gone, or
// one that it has not kept and that was not returned exactly once.
func (c *check) raceExpiry(end func(b sessionstore.Backend, rec *sessionstore.Record, removed *tally) (kept bool)) {
	c.Helper()
	const shortly = 40 * time.Millisecond
	rounds := 5
	if testing.Short() {
		rounds = 1 // each takes as long as a record lives
	}
	type outcome struct {
		key  sessionstore.Key
		kept bool
	}
	var removed tally
	outcomes := make([][]outcome, 4)
	c.parallel(len(outcomes), func(i int, b sessionstore.Backend) {
		for range rounds {
			rec := c.session("app")
			rec.Idle = shortly
			if _, err := b.Create(c.ctx, rec, sessionstore.Condition{}); err != nil {
				c.Errorf("Create returned %v", err)
				return
			}
			soon := rand.N(time.Duration(i+1) * 8 * time.Millisecond)
			done := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					got, _, err := c.second.DeleteExpired(c.ctx, sessionstore.Sweep{ID: rec.Key.ID, Apps: []string{"app"}, Limit: 10})
					if err != nil {
						c.Errorf("DeleteExpired returned %v", err)
						return
					}
					removed.add(got)
					runtime.Gosched() // a backend in memory never waits
				}
			})
			kept := false
			for ; ; runtime.Gosched() {
				got, err := b.Load(c.ctx, rec.Key, 0)
				if err != nil {
					break // too late already
				}
				left := got.ExpiresAt.Sub(got.Now)
				if left > shortly || got.ExpiresAt.IsZero() {
					c.Errorf("a record that lives for %v expires at %v, but it is %v", shortly, got.ExpiresAt, got.Now)
					break
				}
				if left < soon {
					kept = end(b, got, &removed)
					break
				}
			}
			close(done)
			wg.Wait()
			outcomes[i] = append(outcomes[i], outcome{rec.Key, kept})
		}
	})
	c.advance(sweepSlack)
	for _, worker := range outcomes {
		for _, o := range worker {
			removed.add(c.sweep(sessionstore.Sweep{ID: o.key.ID, Apps: []string{"app"}, Limit: 10}))
			n := removed.of(o.key)
			switch {
			case o.kept && n > 0:
				c.Errorf("a sweep removed a record that had become live again")
			case o.kept:
				c.load(o.key)
			case n != 1:
				c.Errorf("a record was returned as removed %d times, want once", n)
			}
		}
	}
}
