package backendtest

import "github.com/holdfast-sessions/holdfast/sessionstore"

const limitSentence = "MaxSessions, if positive and the record to be written has a principal, is the number of live sessions that this principal may have in this application after the write, or else nothing is written."

var maxSessionsSubtests = []subtest{
	{"Create returns ErrLimit and stores nothing", "If cond.MaxSessions would be exceeded, it returns [ErrLimit] and stores nothing.", func(c *check) {
		app, bob := c.name("app"), c.name("bob")
		recs := []*sessionstore.Record{c.login(app, bob, 2), c.login(app, bob, 2)}
		rec := c.session(app)
		rec.Principal = bob
		_, err := c.b.Create(c.ctx, rec, sessionstore.Condition{MaxSessions: 2})
		c.expect("Create of a third session of two", err, sessionstore.ErrLimit)
		c.expectNothing(rec.Key.ID)
		c.expectUnchanged(recs...)
		c.login(app, bob, 3)
	}},
	{"a joining Create returns ErrLimit and renews nothing", "If cond.MaxSessions would be exceeded, it returns [ErrLimit] and stores nothing.", func(c *check) {
		app, bob := c.name("app"), c.name("bob")
		c.login(app, bob, 1)
		sibling := c.created(c.name("app"))
		for _, hash := range []sessionstore.SecretHash{sibling.SecretHash, newHash()} {
			rec := c.part(app, sibling.Key.ID, hash)
			rec.Principal = bob
			_, err := c.b.Create(c.ctx, rec, sessionstore.Condition{SecretHash: sibling.SecretHash, MaxSessions: 1})
			c.expect("Create of a second session of one, beside a sibling", err, sessionstore.ErrLimit)
			c.expectGone(rec.Key)
		}
		c.expectUnchanged(sibling)
	}},
	{"Update returns ErrLimit and changes nothing", "If cond.MaxSessions would be exceeded, it returns [ErrLimit] and changes nothing.", func(c *check) {
		app, bob := c.name("app"), c.name("bob")
		c.login(app, bob, 1)
		anonymous := c.created(app)
		sibling := c.join(c.part(c.name("app"), anonymous.Key.ID, anonymous.SecretHash))
		for _, hash := range []sessionstore.SecretHash{anonymous.SecretHash, newHash()} {
			rec, cond := *anonymous, matching(anonymous)
			cond.MaxSessions = 1
			rec.Principal, rec.SecretHash, rec.Data = bob, hash, []byte("bob's")
			c.expect("Update to a second session of one", c.b.Update(c.ctx, &rec, cond), sessionstore.ErrLimit)
		}
		c.expectUnchanged(anonymous, sibling)
	}},
	{"the record itself is not counted twice", limitSentence, func(c *check) {
		app, bob := c.name("app"), c.name("bob")
		for range 2 {
			c.login(app, bob, 2)
		}
		rec := c.login(app, bob, 3)
		for range 2 {
			cond := matching(rec)
			cond.MaxSessions = 3
			if err := c.b.Update(c.ctx, rec, cond); err != nil {
				c.Fatalf("Update of one of three sessions of three returned %v", err)
			}
			rec = c.load(rec.Key)
		}
	}},
	{"only live sessions count", limitSentence, func(c *check) {
		app, bob := c.name("app"), c.name("bob")
		c.login(app, bob, 1)
		c.advance(idle)
		second := c.login(app, bob, 1)
		c.delete(sessionstore.Selector{ID: second.Key.ID})
		c.login(app, bob, 1)

		other := c.name("app")
		c.login(other, bob, 1)
		anonymous := c.created(other)
		c.advance(idle / 2)
		c.touch(sessionstore.Touch{Key: anonymous.Key})
		c.advance(idle / 2)
		rec := c.load(anonymous.Key)
		cond := matching(rec)
		rec.Principal, cond.MaxSessions = bob, 1
		if err := c.b.Update(c.ctx, rec, cond); err != nil {
			c.Errorf("Update to the one live session of one returned %v", err)
		}
	}},
	{"only this application's sessions count", limitSentence, func(c *check) {
		bob := c.name("bob")
		for range 3 {
			c.login(c.name("app"), bob, 1)
		}
		siblings := c.siblings(1)
		for range 2 {
			rec := c.part(c.name("app"), siblings[0].Key.ID, siblings[0].SecretHash)
			rec.Principal = bob
			if _, err := c.b.Create(c.ctx, rec, sessionstore.Condition{SecretHash: rec.SecretHash, MaxSessions: 1}); err != nil {
				c.Errorf("Create of the first session in an application returned %v", err)
			}
		}
	}},
	{"only this principal's sessions count", limitSentence, func(c *check) {
		app := c.name("app")
		c.created(app)
		for range 3 {
			c.login(app, c.name("bob"), 1)
		}
	}},
	{"anonymous sessions are not limited", limitSentence, func(c *check) {
		app := c.name("app")
		for range 3 {
			c.login(app, "", 1)
		}
		rec := c.created(app)
		cond := matching(rec)
		cond.MaxSessions = 1
		if err := c.b.Update(c.ctx, rec, cond); err != nil {
			c.Errorf("Update of an anonymous record returned %v", err)
		}
	}},
	{"0 is no limit", limitSentence, func(c *check) {
		app, bob := c.name("app"), c.name("bob")
		for range 3 {
			c.login(app, bob, 0)
		}
		rec := c.created(app)
		rec.Principal = bob
		c.update(rec)
	}},
}

// login stores a new session of a principal that may have most of them.
func (c *check) login(app, principal string, most int) *sessionstore.Record {
	c.Helper()
	rec := c.session(app)
	rec.Principal = principal
	if _, err := c.b.Create(c.ctx, rec, sessionstore.Condition{MaxSessions: most}); err != nil {
		c.Fatalf("Create of a session within the limit of %d returned %v", most, err)
	}
	return c.load(rec.Key)
}
