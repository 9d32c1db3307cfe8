package backendtest

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

const listSentence = "List yields the live records that sel matches, one per key, the most recently used first."

var listSubtests = []subtest{
	{"by ID yields the records of all applications", listSentence, func(c *check) {
		recs := c.siblings(3)
		c.siblings(2)
		infos := c.list(sessionstore.Selector{ID: recs[0].Key.ID})
		c.expectKeys("List by ID", keysOfInfos(infos), keysOf(recs)...)
		for _, info := range infos {
			if diff := infoDifference(info, c.load(info.Key).Info); diff != "" {
				c.Errorf("List and Load disagree: %s", diff)
			}
		}
	}},
	{"by principal yields only records that hold it", "With a Principal, only records that hold this principal are listed.", func(c *check) {
		bob := c.name("bob")
		recs, others := c.siblings(3), c.siblings(2)
		recs[0].Principal, recs[1].Principal, others[0].Principal = bob, c.name("carol"), bob
		c.update(recs[0])
		c.update(recs[1])
		c.update(others[0])
		infos := c.list(sessionstore.Selector{Principal: bob})
		c.expectKeys("List by principal", keysOfInfos(infos), recs[0].Key, others[0].Key)
		for _, info := range infos {
			if diff := infoDifference(info, c.load(info.Key).Info); diff != "" {
				c.Errorf("List and Load disagree: %s", diff)
			}
		}
		infos = c.list(sessionstore.Selector{Principal: bob, App: others[0].Key.App})
		c.expectKeys("List by principal and application", keysOfInfos(infos), others[0].Key)
		infos = c.list(sessionstore.Selector{Principal: bob, ID: recs[0].Key.ID})
		c.expectKeys("List by principal and ID", keysOfInfos(infos), recs[0].Key)
		infos = c.list(sessionstore.Selector{Principal: bob, Except: []sessionstore.ID{recs[0].Key.ID}})
		c.expectKeys("List with an exception", keysOfInfos(infos), others[0].Key)
		infos = c.list(sessionstore.Selector{ID: recs[0].Key.ID, Except: []sessionstore.ID{recs[0].Key.ID}})
		c.expectKeys("List of an exception", keysOfInfos(infos))
		infos = c.list(sessionstore.Selector{Principal: bob, Only: []sessionstore.ID{recs[0].Key.ID, newID()}})
		c.expectKeys("List of some", keysOfInfos(infos), recs[0].Key)
		infos = c.list(sessionstore.Selector{ID: recs[0].Key.ID, Only: []sessionstore.ID{}})
		c.expectKeys("List of none", keysOfInfos(infos))
	}},
	{"yields the most recently used first", "the most recently used first", func(c *check) {
		bob := c.name("bob")
		var recs []*sessionstore.Record
		for range 4 {
			recs = append(recs, c.login(c.name("app"), bob, 0))
			c.advance(time.Minute)
		}
		c.update(recs[1])
		c.advance(time.Minute)
		c.touch(sessionstore.Touch{Key: recs[0].Key})
		want := []sessionstore.Key{recs[0].Key, recs[1].Key, recs[3].Key, recs[2].Key}
		if got := keysOfInfos(c.list(sessionstore.Selector{Principal: bob})); !slices.Equal(got, want) {
			c.Errorf("List yielded %v, want %v", got, want)
		}
	}},
	{"with neither ID nor principal yields nothing", "The zero Selector matches nothing, and so does one that has neither ID nor Principal.", func(c *check) {
		rec := c.created(c.name("app"))
		for _, sel := range emptySelectors(rec.Key.App) {
			c.expectKeys("List with neither ID nor principal", keysOfInfos(c.list(sel)))
		}
	}},
	{"yields many each once", "one per key", func(c *check) {
		bob := c.name("bob")
		var recs []*sessionstore.Record
		var touches []sessionstore.Touch
		for range 300 { // more than fit in one page
			rec := c.session("app")
			rec.Principal = bob
			recs = append(recs, rec)
			touches = append(touches, sessionstore.Touch{Key: rec.Key})
		}
		c.createAll(recs)
		c.advance(time.Minute)
		c.touch(touches...) // many equal access times, which a page may end among
		infos := c.list(sessionstore.Selector{Principal: bob})
		c.expectKeys("List of many", keysOfInfos(infos), keysOf(recs)...)
		if !slices.IsSortedFunc(infos, func(a, b sessionstore.Info) int { return b.AccessedAt.Compare(a.AccessedAt) }) {
			c.Errorf("List of many is not in order of use")
		}
	}},
	{"holds no resource while it yields", "It holds no resource of the database while it yields.", func(c *check) {
		bob := c.name("bob")
		recs := []*sessionstore.Record{c.login(c.name("app"), bob, 0), c.login(c.name("app"), bob, 0)}
		// More lists than a pool has connections stop in the middle, and are not
		// abandoned before the others have begun.
		for range 40 {
			next, stop := iter.Pull2(c.b.List(c.ctx, sessionstore.Selector{Principal: bob}))
			c.T.Cleanup(stop)
			if _, err, ok := next(); err != nil || !ok {
				c.Fatalf("List yielded %v, or nothing", err)
			}
		}
		rec := c.load(recs[0].Key)
		c.update(rec)
		c.touch(sessionstore.Touch{Key: rec.Key})
	}},
	{"may be left early", "It holds no resource of the database while it yields.", func(c *check) {
		bob := c.name("bob")
		c.login(c.name("app"), bob, 0)
		c.login(c.name("app"), bob, 0)
		for range 40 {
			for _, err := range c.b.List(c.ctx, sessionstore.Selector{Principal: bob}) {
				if err != nil {
					c.Fatalf("List yielded %v", err)
				}
				break
			}
		}
	}},
	{"the backend may be called while it yields", "It holds no resource of the database while it yields.", func(c *check) {
		bob := c.name("bob")
		for range 3 {
			c.login(c.name("app"), bob, 0)
		}
		n := 0
		for info, err := range c.b.List(c.ctx, sessionstore.Selector{Principal: bob}) {
			if err != nil {
				c.Fatalf("List yielded %v", err)
			}
			n++
			c.update(c.load(info.Key))
			c.created(c.name("app"))
			c.list(sessionstore.Selector{Principal: bob})
			c.expectKeys("Delete", keysOf(c.delete(sessionstore.Selector{ID: info.Key.ID})), info.Key)
		}
		if n != 3 {
			c.Errorf("List yielded %d of 3 records, although each was there until it was yielded", n)
		}
	}},
	{"yields nothing after an error", "After an error it yields nothing more.", func(c *check) {
		bob := c.name("bob")
		c.login(c.name("app"), bob, 0)
		c.login(c.name("app"), bob, 0)
		ctx, cancel := context.WithCancel(c.ctx)
		cancel()
		var errs int
		for info, err := range c.b.List(ctx, sessionstore.Selector{Principal: bob}) {
			if errs > 0 {
				c.Errorf("List yielded %v, %v after an error", info.Key, err)
			}
			if err != nil {
				errs++
			}
		}
		if errs == 0 {
			c.Errorf("List with a cancelled context yielded no error")
		}
	}},
}
