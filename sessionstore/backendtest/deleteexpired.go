package backendtest

import (
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

const sweepSentence = "DeleteExpired removes at most sweep.Limit records that are no longer live and returns them, whole."

var deleteExpiredSubtests = []subtest{
	{"returns what it removes whole", sweepSentence, func(c *check) {
		rec := c.session(c.name("app"))
		rec.Principal, rec.Data = c.name("bob"), []byte("\x00whole\xff")
		rec = c.update(c.create(rec))
		c.advance(idle)
		c.expectSweptAs(rec)
	}},
	{"may be told to omit data", "OmitData says that nobody will look at the Data of the records removed", func(c *check) {
		one, other := c.created(c.name("app")), c.created(c.name("app"))
		c.advance(idle)
		sweep := sessionstore.Sweep{ID: one.Key.ID, Apps: []string{one.Key.App, other.Key.App}, Limit: 10, OmitData: true}
		c.expectKeys("DeleteExpired for an ID, without data", keysOf(c.sweepAfter(sweepSlack, sweep)), one.Key)
		sweep.ID = sessionstore.ID{}
		c.expectKeys("DeleteExpired without data", keysOf(c.sweep(sweep)), other.Key)
	}},
	{"removes what it returns", sweepSentence, func(c *check) {
		recs := c.siblings(2)
		c.advance(idle)
		removed := c.sweepAfter(sweepSlack, sessionstore.Sweep{Apps: []string{recs[0].Key.App, recs[1].Key.App}, Limit: 10})
		c.expectKeys("DeleteExpired", keysOf(removed), keysOf(recs)...)
		c.create(c.part(recs[0].Key.App, recs[0].Key.ID, newHash())) // a record left would be in the way
	}},
	{"leaves live records alone", sweepSentence, func(c *check) {
		app := c.name("app")
		expired, used := c.created(app), c.created(app)
		young, immortal := c.session(app), c.session(app)
		young.Idle, immortal.Idle, immortal.Lifetime = 3*idle, 0, 0
		young, immortal = c.create(young), c.create(immortal)
		c.advance(idle - time.Minute)
		c.touch(sessionstore.Touch{Key: used.Key})
		removed := c.sweepAfter(time.Minute+sweepSlack, sessionstore.Sweep{Apps: []string{app}, Limit: 10})
		c.expectKeys("DeleteExpired", keysOf(removed), expired.Key)
		for _, rec := range []*sessionstore.Record{used, young, immortal} {
			c.load(rec.Key)
		}
	}},
	{"what it returns had expired by its Now", "Now is the database's clock when it answered.", func(c *check) {
		rec := c.created(c.name("app"))
		c.advance(idle)
		for _, rec := range c.sweepAfter(sweepSlack, sessionstore.Sweep{Apps: []string{rec.Key.App}, Limit: 10}) {
			if rec.ExpiresAt.IsZero() || rec.ExpiresAt.After(rec.Now) {
				c.Errorf("DeleteExpired removed at %v what expires at %v", rec.Now, rec.ExpiresAt)
			}
		}
	}},
	{"removes at most Limit", sweepSentence, func(c *check) {
		app := c.name("app")
		var recs []*sessionstore.Record
		for range 10 {
			recs = append(recs, c.session(app))
		}
		c.createAll(recs)
		c.advance(idle + sweepSlack)
		var all []*sessionstore.Record
		for _, limit := range []int{5, 3, 1, 1} {
			removed, more, err := c.b.DeleteExpired(c.ctx, sessionstore.Sweep{Apps: []string{app}, Limit: limit})
			if err != nil {
				c.Fatalf("DeleteExpired returned %v", err)
			}
			if len(removed) != limit {
				c.Errorf("DeleteExpired with limit %d removed %d of at least as many", limit, len(removed))
			}
			all = append(all, removed...)
			if !more && len(all) < len(recs) {
				c.Errorf("DeleteExpired reports that no other call is worthwhile after %d of 10", len(all))
			}
		}
		c.expectKeys("DeleteExpired, called four times,", keysOf(all), keysOf(recs)...)
	}},
	{"reports whether another call is worthwhile", "More reports whether another call is worthwhile.", func(c *check) {
		app := c.name("app")
		sweep := sessionstore.Sweep{Apps: []string{app}, Limit: 4}
		expectNone := func() {
			c.Helper()
			if removed, more, err := c.b.DeleteExpired(c.ctx, sweep); err != nil || more || len(removed) > 0 {
				c.Errorf("DeleteExpired of nothing gave %d records, more %t, %v", len(removed), more, err)
			}
		}
		expectNone()
		var recs []*sessionstore.Record
		for range 10 {
			recs = append(recs, c.session(app))
		}
		c.createAll(recs)
		expectNone()
		c.advance(idle + sweepSlack)
		c.expectKeys("DeleteExpired until no more", keysOf(c.sweep(sweep)), keysOf(recs)...)
		expectNone()
	}},
	{"never returns a record twice", "No record is ever returned twice, whoever sweeps at the same time (P11)", func(c *check) {
		recs := c.siblings(2)
		sweep := sessionstore.Sweep{Apps: []string{recs[0].Key.App, recs[1].Key.App}, Limit: 10}
		c.advance(idle)
		c.expectKeys("DeleteExpired", keysOf(c.sweepAfter(sweepSlack, sweep)), keysOf(recs)...)
		c.expectKeys("DeleteExpired after all was removed", keysOf(c.sweepAfter(sweepSlack, sweep)))
	}},
	{"sweeps only the applications named", "Apps are the applications whose expired records are removed.", func(c *check) {
		recs := c.siblings(3)
		apps := []string{recs[0].Key.App, recs[1].Key.App, recs[2].Key.App}
		c.advance(idle)
		c.expectKeys("DeleteExpired for no application", keysOf(c.sweepAfter(sweepSlack, sessionstore.Sweep{Limit: 10})))
		c.expectKeys("DeleteExpired for another application", keysOf(c.sweep(sessionstore.Sweep{Apps: []string{c.name("app")}, Limit: 10})))
		c.expectKeys("DeleteExpired for one application", keysOf(c.sweep(sessionstore.Sweep{Apps: apps[1:2], Limit: 10})), recs[1].Key)
		c.expectKeys("DeleteExpired for all three", keysOf(c.sweep(sessionstore.Sweep{Apps: apps, Limit: 10})), recs[0].Key, recs[2].Key)
	}},
	{"sweeps applications by their exact names", "Names and principals are compared byte by byte", func(c *check) {
		first := c.created(c.name("app"))
		var recs []*sessionstore.Record
		for _, app := range alikes {
			recs = append(recs, c.join(c.part(app, first.Key.ID, first.SecretHash)))
		}
		c.advance(idle + sweepSlack)
		for _, rec := range recs {
			removed := c.sweep(sessionstore.Sweep{ID: rec.Key.ID, Apps: []string{rec.Key.App}, Limit: 100})
			c.expectKeys("DeleteExpired for "+rec.Key.App, keysOf(removed), rec.Key)
		}
	}},
	{"sweeps only the ID given", "if not zero, narrows the sweep to the records under this ID.", func(c *check) {
		recs := c.siblings(2)
		app := recs[0].Key.App
		other := c.created(app)
		c.advance(idle)
		sweep := sessionstore.Sweep{ID: recs[0].Key.ID, Apps: []string{app}, Limit: 10}
		c.expectKeys("DeleteExpired for an ID", keysOf(c.sweepAfter(sweepSlack, sweep)), recs[0].Key)
		sweep.ID = newID()
		c.expectKeys("DeleteExpired for an unknown ID", keysOf(c.sweep(sweep)))
		sweep.ID = sessionstore.ID{}
		c.expectKeys("DeleteExpired for all IDs", keysOf(c.sweep(sweep)), other.Key)
	}},
	{"sweeps orphans of any application", "extends it to the records of any application that expired at least this long ago", func(c *check) {
		const orphans = 3 * time.Hour
		recs := c.siblings(2)
		sweep := sessionstore.Sweep{Apps: []string{recs[0].Key.App}, Orphans: orphans, Limit: 50}
		c.advance(idle + sweepSlack)
		c.expectKeysAmong("DeleteExpired", recs, c.sweep(sweep), recs[0].Key)
		c.expectKeysAmong("DeleteExpired well before Orphans has passed", recs, c.sweepAfter(orphans-sweepSlack-subtestTimeout, sweep))
		c.expectKeysAmong("DeleteExpired after Orphans has passed", recs, c.sweepAfter(sweepSlack+subtestTimeout, sweep), recs[1].Key)
	}},
	{"orphans are never live", "extends it to the records of any application that expired at least this long ago", func(c *check) {
		rec := c.session(c.name("app"))
		rec.Idle, rec.Lifetime = 0, 0
		long := c.session(c.name("app"))
		long.Idle, long.Lifetime = forever, 0
		recs := []*sessionstore.Record{c.create(rec), c.create(long)}
		sweep := sessionstore.Sweep{Orphans: time.Nanosecond, Limit: 50}
		c.expectKeysAmong("DeleteExpired of orphans", recs, c.sweepAfter(1000*24*time.Hour, sweep))
		for _, rec := range recs {
			c.load(rec.Key)
		}
	}},
}

// expectKeysAmong is expectKeys for what concerns recs: a sweep of orphans also
// finds what earlier subtests left.
func (c *check) expectKeysAmong(call string, recs, got []*sessionstore.Record, want ...sessionstore.Key) {
	c.Helper()
	mine := make(map[sessionstore.Key]bool)
	for _, rec := range recs {
		mine[rec.Key] = true
	}
	var keys []sessionstore.Key
	for _, rec := range got {
		if mine[rec.Key] {
			keys = append(keys, rec.Key)
		}
	}
	c.expectKeys(call, keys, want...)
}
