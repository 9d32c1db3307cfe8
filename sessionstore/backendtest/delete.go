package backendtest

import (
	"github.com/holdfast-sessions/holdfast/sessionstore"
)

const deleteSentence = "Delete removes every live record under the IDs that sel matches, of whichever application (sibling applications share a session's fate), and returns what it removed, whole."

var deleteSubtests = []subtest{
	{"by ID removes the records of all applications", deleteSentence, func(c *check) {
		recs, others := c.siblings(3), c.siblings(2)
		removed := c.delete(sessionstore.Selector{ID: recs[0].Key.ID})
		c.expectKeys("Delete", keysOf(removed), keysOf(recs)...)
		c.expectNothing(recs[0].Key.ID)
		for _, rec := range recs {
			c.expectGone(rec.Key)
		}
		c.expectUnchanged(others...)
	}},
	{"returns what it removed whole", "and returns what it removed, whole.", func(c *check) {
		rec := c.session(c.name("app"))
		rec.Principal, rec.Data = c.name("bob"), []byte("\x00whole\xff")
		was := map[sessionstore.Key]*sessionstore.Record{rec.Key: c.create(rec)}
		sibling := c.join(c.part(c.name("app"), rec.Key.ID, rec.SecretHash))
		was[sibling.Key] = c.update(sibling)
		for _, got := range c.delete(sessionstore.Selector{ID: rec.Key.ID}) {
			want := was[got.Key]
			if want == nil {
				c.Errorf("Delete returned a record that was never stored")
				continue
			}
			if diff := difference(got, want); diff != "" {
				c.Errorf("Delete returned another record than the one stored: %s", diff)
			}
			if got.Now.Before(want.Now) {
				c.Errorf("the removed record's Now is %v, want the database's clock", got.Now)
			}
			delete(was, got.Key)
		}
		if len(was) > 0 {
			c.Errorf("Delete did not return %d of 2 removed records", len(was))
		}
	}},
	{"by principal removes the sessions in which some application holds it", `if not "": the sessions in which some application holds this principal`, func(c *check) {
		bob := c.name("bob")
		var want []sessionstore.Key
		for range 3 {
			recs := c.siblings(3)
			recs[1].Principal, recs[2].Principal = bob, c.name("carol")
			c.update(recs[1])
			c.update(recs[2])
			want = append(want, keysOf(recs)...)
		}
		others := c.siblings(2)
		removed := c.delete(sessionstore.Selector{Principal: bob})
		c.expectKeys("Delete by principal", keysOf(removed), want...)
		for _, key := range want {
			c.expectGone(key)
		}
		c.expectUnchanged(others...)
	}},
	{"by principal and application counts only this application's principal", `with Principal, if not "": only this application's principal counts`, func(c *check) {
		bob := c.name("bob")
		shop, office := c.siblings(2), c.siblings(2)
		shop[0].Principal, office[1].Principal = bob, bob
		c.update(shop[0])
		office[1] = c.update(office[1])
		c.expectKeys("Delete for an application of neither", keysOf(c.delete(sessionstore.Selector{Principal: bob, App: c.name("app")})))
		removed := c.delete(sessionstore.Selector{Principal: bob, App: shop[0].Key.App})
		c.expectKeys("Delete by principal and application", keysOf(removed), keysOf(shop)...)
		c.expectUnchanged(office...)
	}},
	{"by ID and principal needs both", `if not "": the sessions in which some application holds this principal`, func(c *check) {
		bob := c.name("bob")
		his, others := c.siblings(2), c.siblings(2)
		his[0].Principal, others[0].Principal = bob, c.name("carol")
		his[0], others[0] = c.update(his[0]), c.update(others[0])
		c.expectKeys("Delete of another's session", keysOf(c.delete(sessionstore.Selector{ID: others[0].Key.ID, Principal: bob})))
		c.expectUnchanged(others...)
		c.expectUnchanged(his...)
		removed := c.delete(sessionstore.Selector{ID: his[0].Key.ID, Principal: bob})
		c.expectKeys("Delete of his own session", keysOf(removed), keysOf(his)...)
	}},
	{"leaves the exceptions alone", "sessions left alone", func(c *check) {
		bob := c.name("bob")
		var recs []*sessionstore.Record
		for range 4 {
			recs = append(recs, c.login(c.name("app"), bob, 0))
		}
		removed := c.delete(sessionstore.Selector{Principal: bob, Except: []sessionstore.ID{recs[1].Key.ID, newID(), recs[3].Key.ID}})
		c.expectKeys("Delete with exceptions", keysOf(removed), recs[0].Key, recs[2].Key)
		c.expectUnchanged(recs[1], recs[3])
		removed = c.delete(sessionstore.Selector{ID: recs[1].Key.ID, Except: []sessionstore.ID{recs[1].Key.ID}})
		c.expectKeys("Delete of an exception", keysOf(removed))
		c.expectUnchanged(recs[1], recs[3])
	}},
	{"removes none but the only ones", "if not nil: no sessions but these", func(c *check) {
		bob := c.name("bob")
		his, rest, another := c.login(c.name("app"), bob, 0), c.login(c.name("app"), bob, 0), c.login(c.name("app"), c.name("carol"), 0)
		some := []sessionstore.ID{another.Key.ID, newID(), his.Key.ID, his.Key.ID}
		c.expectKeys("Delete of none", keysOf(c.delete(sessionstore.Selector{Principal: bob, Only: []sessionstore.ID{}})))
		c.expectKeys("Delete of another's", keysOf(c.delete(sessionstore.Selector{Principal: bob, Only: some[:2]})))
		c.expectKeys("Delete of another ID", keysOf(c.delete(sessionstore.Selector{ID: rest.Key.ID, Only: some})))
		c.expectUnchanged(his)
		c.expectKeys("Delete of some", keysOf(c.delete(sessionstore.Selector{Principal: bob, Only: some})), his.Key)
		c.expectUnchanged(rest, another)
	}},
	{"with neither ID nor principal removes nothing", "The zero Selector matches nothing, and so does one that has neither ID nor Principal.", func(c *check) {
		recs := c.siblings(2)
		for _, sel := range emptySelectors(recs[0].Key.App) {
			c.expectKeys("Delete with neither ID nor principal", keysOf(c.delete(sel)))
		}
		c.expectUnchanged(recs...)
	}},
	{"leaves records that are no longer live to DeleteExpired", "Records that are no longer live are left to DeleteExpired.", func(c *check) {
		bob := c.name("bob")
		expired := c.login(c.name("app"), bob, 0)
		alive := c.part(c.name("app"), expired.Key.ID, expired.SecretHash)
		alive.Principal, alive.Idle = bob, 2*idle
		alive = c.join(alive)
		c.advance(idle)
		c.expectKeys("Delete", keysOf(c.delete(sessionstore.Selector{ID: alive.Key.ID})), alive.Key)
		c.expectKeys("Delete", keysOf(c.delete(sessionstore.Selector{ID: alive.Key.ID})))
		c.expectKeys("Delete by principal", keysOf(c.delete(sessionstore.Selector{Principal: bob})))
		c.expectSweptAs(expired)
	}},
	{"an expired record holds no principal", absentSentence, func(c *check) {
		bob := c.name("bob")
		expired := c.login(c.name("app"), bob, 0)
		alive := c.part(c.name("app"), expired.Key.ID, expired.SecretHash)
		alive.Idle = 2 * idle
		alive = c.join(alive)
		c.advance(idle)
		c.expectKeys("Delete by the principal of an expired record", keysOf(c.delete(sessionstore.Selector{Principal: bob})))
		c.load(alive.Key)
	}},
	{"matching nothing is no error", "Matching nothing is no error.", func(c *check) {
		rec := c.created(c.name("app"))
		for _, sel := range []sessionstore.Selector{{ID: newID()}, {Principal: c.name("bob")}} {
			c.expectKeys("Delete that matches nothing", keysOf(c.delete(sel)))
		}
		c.expectUnchanged(rec)
	}},
	{"does not return a record again", "Of concurrent calls, exactly one returns a given record.", func(c *check) {
		recs := c.siblings(2)
		sel := sessionstore.Selector{ID: recs[0].Key.ID}
		c.expectKeys("the first Delete", keysOf(c.delete(sel)), keysOf(recs)...)
		c.expectKeys("the second Delete", keysOf(c.delete(sel)))
	}},
	{"many at once", deleteSentence, func(c *check) {
		bob := c.name("bob")
		var recs []*sessionstore.Record
		for range 300 { // more than fit in one batch
			rec := c.session("app")
			rec.Principal = bob
			recs = append(recs, rec)
		}
		c.createAll(recs)
		var except []sessionstore.ID
		for _, rec := range recs[:40] {
			except = append(except, rec.Key.ID)
		}
		removed := c.delete(sessionstore.Selector{Principal: bob, Except: except})
		c.expectKeys("Delete of many", keysOf(removed), keysOf(recs[40:])...)
		c.expectKeys("List after Delete of many", keysOfInfos(c.list(sessionstore.Selector{Principal: bob})), keysOf(recs[:40])...)
	}},
}

func emptySelectors(app string) []sessionstore.Selector {
	ids := []sessionstore.ID{newID()}
	return []sessionstore.Selector{{}, {App: app}, {Except: ids}, {App: app, Except: ids}, {Only: ids}, {App: app, Only: ids}}
}
