package backendtest

import (
	"sync/atomic"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// A reader reads events as a node does, from a cursor on. Its store holds the
// events of other subtests too, which go by other IDs.
type reader struct {
	*check
	source sessionstore.EventSource
	cursor sessionstore.Cursor
	seen   map[int64]bool
}

// reader starts reading at the other handle; it skips the subtest if the backend
// has no events.
func (c *check) reader() *reader {
	c.Helper()
	source, ok := c.second.(sessionstore.EventSource)
	if !ok {
		c.Skip("the backend is no sessionstore.EventSource")
	}
	r := &reader{check: c, source: source, seen: make(map[int64]bool)}
	var id sessionstore.ID
	if events := r.read(id); len(events) > 0 {
		c.Errorf("Events of the zero Cursor returned %d events", len(events))
	}
	r.read(id) // what was stored before and may be returned all the same
	return r
}

// read returns what is new under id, each once: events may be returned again.
func (r *reader) read(id sessionstore.ID) map[sessionstore.Key]sessionstore.Version {
	r.Helper()
	events, next, err := r.source.Events(r.ctx, r.cursor)
	if err != nil {
		r.Fatalf("Events returned %v", err)
	}
	if next == 0 {
		r.Errorf("Events returned the zero Cursor")
	}
	r.cursor = next
	found := make(map[sessionstore.Key]sessionstore.Version)
	for _, e := range events {
		if e.Key.ID == id && !r.seen[e.Seq] {
			found[e.Key] = e.Version
		}
		r.seen[e.Seq] = true
	}
	return found
}

// expectEvents reports events under id that are not exactly the wanted ones.
func (r *reader) expectEvents(what string, id sessionstore.ID, want map[sessionstore.Key]sessionstore.Version) {
	r.Helper()
	got := r.read(id)
	for key, version := range want {
		if v, ok := got[key]; !ok || v != version {
			r.Errorf("%s: event of %q is version %d (%t), want %d", what, key.App, v, ok, version)
		}
	}
	for key, v := range got {
		if _, ok := want[key]; !ok {
			r.Errorf("%s: unexpected event of %q, version %d", what, key.App, v)
		}
	}
}

// versions is a shorthand for what expectEvents wants.
type versions = map[sessionstore.Key]sessionstore.Version

var eventSubtests = []subtest{
	{"Delete stores one event for each ID", "Delete, one for each ID it removes", func(c *check) {
		r := c.reader()
		recs := c.siblings(3)
		id := recs[0].Key.ID
		c.delete(sessionstore.Selector{ID: id})
		r.expectEvents("Delete", id, versions{{ID: id}: 0})
		r = c.reader()
		c.delete(sessionstore.Selector{ID: id})
		r.expectEvents("Delete of nothing", id, nil)
	}},
	{"renewals store one event for each record", "renewals, one for each record under the ID", func(c *check) {
		recs := c.siblings(3)
		id := recs[0].Key.ID
		r := c.reader()
		rec := *recs[0]
		rec.SecretHash = newHash()
		if err := c.b.Update(c.ctx, &rec, matching(recs[0])); err != nil {
			c.Fatalf("Update returned %v", err)
		}
		r.expectEvents("renewal", id, versions{recs[0].Key: 2, recs[1].Key: 2, recs[2].Key: 2})

		r = c.reader()
		joining := c.part(c.name("app"), id, newHash())
		if _, err := c.b.Create(c.ctx, joining, sessionstore.Condition{SecretHash: rec.SecretHash}); err != nil {
			c.Fatalf("Create returned %v", err)
		}
		got := r.read(id)
		for _, other := range recs {
			if got[other.Key] != 3 {
				c.Errorf("join with renewal: event of %q is version %d, want 3", other.Key.App, got[other.Key])
			}
		}
	}},
	{"Update stores an event if asked", "an Update with [Condition.Announce], one for its record", func(c *check) {
		recs := c.siblings(2)
		id := recs[0].Key.ID
		r := c.reader()
		c.update(recs[0])
		r.expectEvents("plain Update", id, nil)
		cond := matching(c.load(recs[0].Key))
		cond.Announce = true
		if err := c.b.Update(c.ctx, recs[0], cond); err != nil {
			c.Fatalf("Update returned %v", err)
		}
		r.expectEvents("announced Update", id, versions{recs[0].Key: 3})
		r = c.reader()
		if err := c.b.Update(c.ctx, recs[0], cond); err == nil {
			c.Fatalf("Update on an outdated version succeeded")
		}
		r.expectEvents("announced Update in conflict", id, nil)
	}},
	{"other writes store none", "Expiries store none: every node knows its copies' deadlines.", func(c *check) {
		r := c.reader()
		rec := c.created(c.name("app"))
		c.touch(sessionstore.Touch{Key: rec.Key})
		joined := c.join(c.part(c.name("app"), rec.Key.ID, rec.SecretHash))
		c.advance(2 * idle)
		c.sweep(sessionstore.Sweep{Apps: []string{rec.Key.App, joined.Key.App}, Limit: 100})
		r.expectEvents("create, touch, join, expiry", rec.Key.ID, nil)
	}},
	{"the zero Cursor returns none", "For the zero Cursor it returns none, and the cursor from which on nothing is missed.", func(c *check) {
		rec := c.created(c.name("app"))
		c.delete(sessionstore.Selector{ID: rec.Key.ID})
		c.reader()
	}},
	{"nothing is missed at once with others", "a transaction that commits late is not missed", func(c *check) {
		const writers, rounds = 8, 25
		recs := make([]*sessionstore.Record, writers*rounds)
		for i := range recs {
			recs[i] = c.session("app")
		}
		c.createAll(recs)
		r := c.reader()
		missing := make(map[sessionstore.ID]bool)
		for _, rec := range recs {
			missing[rec.Key.ID] = true
		}
		var running atomic.Int32
		running.Store(writers)
		finished := make(chan struct{})
		go func() {
			defer close(finished)
			c.parallel(writers, func(i int, b sessionstore.Backend) {
				defer running.Add(-1)
				for n := range rounds {
					if _, err := b.Delete(c.ctx, sessionstore.Selector{ID: recs[i*rounds+n].Key.ID}); err != nil {
						c.Errorf("Delete returned %v", err)
					}
				}
			})
		}()
		for last := false; ; {
			events, next, err := r.source.Events(c.ctx, r.cursor)
			if err != nil {
				c.Errorf("Events returned %v", err)
				break
			}
			r.cursor = next
			for _, e := range events {
				delete(missing, e.Key.ID)
			}
			if last {
				break
			}
			last = running.Load() == 0
		}
		<-finished
		if len(missing) > 0 {
			c.Errorf("%d of %d events were missed", len(missing), len(recs))
		}
	}},
	{"PruneEvents removes old events only", "PruneEvents removes events stored longer than age ago.", func(c *check) {
		r := c.reader()
		rec := c.created(c.name("app"))
		c.delete(sessionstore.Selector{ID: rec.Key.ID})
		if err := r.source.PruneEvents(c.ctx, time.Hour); err != nil {
			c.Fatalf("PruneEvents returned %v", err)
		}
		before := r.cursor
		r.expectEvents("after pruning older ones", rec.Key.ID, versions{{ID: rec.Key.ID}: 0})
		// A cursor goes on working whatever was pruned.
		other := c.created(c.name("app"))
		c.delete(sessionstore.Selector{ID: other.Key.ID})
		r.expectEvents("after pruning", other.Key.ID, versions{{ID: other.Key.ID}: 0})
		r.cursor = before
		if err := r.source.PruneEvents(c.ctx, time.Hour); err != nil {
			c.Fatalf("PruneEvents returned %v", err)
		}
		r.read(other.Key.ID)
	}},
}
