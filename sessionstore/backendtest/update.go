package backendtest

import (
	"bytes"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

const (
	conflictSentence = "If no live record has the key, the version and the secret hash of cond, it returns [ErrConflict] and changes nothing;"
	renewalSentence  = "in the same transaction every other record under the ID gets the new hash and a version raised by one."
)

var updateSubtests = []subtest{
	{"replaces principal node timeouts secret hash and data", "Update replaces the principal, node, timeouts, secret hash and data of the live record under rec's key", func(c *check) {
		was := c.created(c.name("app"))
		rec := *was
		rec.Principal, rec.Node, rec.Idle, rec.Lifetime = c.name("bob"), "node2", 2*idle, lifetime/2
		rec.SecretHash, rec.Data = newHash(), bytes.Repeat([]byte("longer "), 100)
		if err := c.b.Update(c.ctx, &rec, matching(was)); err != nil {
			c.Fatalf("Update with the stored version and secret hash returned %v", err)
		}
		got := c.load(rec.Key)
		rec.Version, rec.AccessedAt, rec.ExpiresAt = 2, got.AccessedAt, got.AccessedAt.Add(2*idle)
		if diff := difference(got, &rec); diff != "" {
			c.Errorf("Update stored something else: %s", diff)
		}

		was, rec.Data, rec.Principal = got, nil, "" // back to nothing
		if err := c.b.Update(c.ctx, &rec, matching(was)); err != nil {
			c.Fatalf("Update that empties the record returned %v", err)
		}
		if got = c.load(rec.Key); len(got.Data) > 0 || got.Principal != "" {
			c.Errorf("Update left principal %q and %d bytes of data, want none", got.Principal, len(got.Data))
		}
	}},
	{"a replaced principal holds the session no more", "Update replaces the principal", func(c *check) {
		rec := c.session(c.name("app"))
		before, after := c.name("bob"), c.name("bob")
		rec.Principal = before
		rec = c.create(rec)
		rec.Principal = after
		c.update(rec)
		c.expectKeys("List for the former principal", keysOfInfos(c.list(sessionstore.Selector{Principal: before})))
		c.expectKeys("List for the new principal", keysOfInfos(c.list(sessionstore.Selector{Principal: after})), rec.Key)
		c.expectKeys("Delete for the former principal", keysOf(c.delete(sessionstore.Selector{Principal: before})))
		c.expectKeys("Delete for the new principal", keysOf(c.delete(sessionstore.Selector{Principal: after})), rec.Key)
	}},
	{"sets the version to the condition's plus 1", "sets its version to cond.Version+1 and its access time to the database's clock", func(c *check) {
		rec := c.created(c.name("app"))
		for want := sessionstore.Version(2); want < 6; want++ {
			cond := matching(rec)
			rec.Version = 99 // of no importance
			if err := c.b.Update(c.ctx, rec, cond); err != nil {
				c.Fatalf("Update returned %v", err)
			}
			if rec = c.load(rec.Key); rec.Version != want {
				c.Fatalf("version is %d, want %d", rec.Version, want)
			}
		}
	}},
	{"sets the access time to the clock", "its access time to the database's clock", func(c *check) {
		rec := c.created(c.name("app"))
		c.advance(idle / 2)
		before := c.load(rec.Key).Now
		rec.AccessedAt, rec.ExpiresAt, rec.Now = time.Time{}, time.Time{}, time.Time{} // of no importance
		got := c.update(rec)
		if got.AccessedAt.Before(before) || got.AccessedAt.After(got.Now) {
			c.Errorf("access time is %v, but the clock went from %v to %v meanwhile", got.AccessedAt, before, got.Now)
		}
		c.expectArithmetic(got, idle, lifetime)
	}},
	{"never changes CreatedAt", "and never changes CreatedAt.", func(c *check) {
		was := c.created(c.name("app"))
		rec := *was
		rec.CreatedAt = time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
		if got := c.update(&rec); !got.CreatedAt.Equal(was.CreatedAt) {
			c.Errorf("CreatedAt went from %v to %v", was.CreatedAt, got.CreatedAt)
		}
	}},
	{"never moves an access time backwards", "never moves an access time backwards", func(c *check) {
		rec := c.created(c.name("app"))
		c.advance(-time.Hour) // the database's clock was set back
		c.T.Cleanup(func() { c.advance(time.Hour) })
		rec = c.load(rec.Key)
		if got := c.update(rec); got.AccessedAt.Before(rec.AccessedAt) {
			c.Errorf("access time went from %v to %v", rec.AccessedAt, got.AccessedAt)
		}
	}},
	{"never inserts", "Update never inserts (P3)", func(c *check) {
		recs := c.siblings(2)
		missing := c.part(c.name("app"), recs[0].Key.ID, recs[0].SecretHash)
		c.expect("Update beside siblings", c.b.Update(c.ctx, missing, matching(recs[0])), sessionstore.ErrConflict)
		c.expectGone(missing.Key)

		c.delete(sessionstore.Selector{ID: recs[0].Key.ID})
		for _, rec := range recs {
			c.expect("Update of a deleted record", c.b.Update(c.ctx, rec, matching(rec)), sessionstore.ErrConflict)
		}
		c.expectNothing(recs[0].Key.ID)
	}},
	{"an unchanged record is a success", "Update replaces the principal, node, timeouts, secret hash and data of the live record under rec's key", func(c *check) {
		rec := c.created(c.name("app"))
		for range 3 { // some drivers count only rows that an UPDATE has changed
			rec = c.update(rec)
		}
	}},
	{"returns ErrConflict for a wrong version", conflictSentence, func(c *check) {
		c.expectConflicts(func(cond *sessionstore.Condition) { cond.Version-- })
		c.expectConflicts(func(cond *sessionstore.Condition) { cond.Version++ })
		c.expectConflicts(func(cond *sessionstore.Condition) { cond.Version = 0 })
	}},
	{"returns ErrConflict for a wrong secret hash", conflictSentence, func(c *check) {
		c.expectConflicts(func(cond *sessionstore.Condition) { cond.SecretHash = newHash() })
		c.expectConflicts(func(cond *sessionstore.Condition) { cond.SecretHash[31]++ })
		c.expectConflicts(func(cond *sessionstore.Condition) { cond.SecretHash = sessionstore.SecretHash{} })
	}},
	{"returns ErrConflict for an expired record", conflictSentence, func(c *check) {
		recs := c.siblings(2)
		c.advance(idle / 2)
		c.touch(sessionstore.Touch{Key: recs[0].Key})
		c.advance(idle / 2)
		alive := c.load(recs[0].Key)
		rec := *recs[1]
		rec.SecretHash = newHash()
		for _, rec := range []*sessionstore.Record{recs[1], &rec} {
			c.expect("Update of an expired record", c.b.Update(c.ctx, rec, matching(recs[1])), sessionstore.ErrConflict)
		}
		c.expectUnchanged(alive)
		c.expectGone(rec.Key)
	}},
	{"returns ErrConflict for the version before the last", "Load tells whether the session changed or ended.", func(c *check) {
		first := c.created(c.name("app"))
		second := c.update(first)
		c.expect("Update on an outdated copy", c.b.Update(c.ctx, first, matching(first)), sessionstore.ErrConflict)
		c.expectUnchanged(second)
		c.delete(sessionstore.Selector{ID: first.Key.ID})
		c.expect("Update of an ended session", c.b.Update(c.ctx, second, matching(second)), sessionstore.ErrConflict)
		c.expectGone(first.Key)
	}},
}

// expectConflicts reports an Update, plain or with a renewal, that succeeds or
// changes something although a condition was spoilt.
func (c *check) expectConflicts(spoil func(*sessionstore.Condition)) {
	c.Helper()
	recs := c.siblings(2)
	recs[0] = c.update(recs[0])
	cond := matching(recs[0])
	spoil(&cond)
	rec := *recs[0]
	rec.Principal, rec.Node, rec.Idle, rec.Data = "mallory", "node2", 2*idle, []byte("usurped")
	for _, hash := range []sessionstore.SecretHash{rec.SecretHash, cond.SecretHash, newHash()} {
		rec.SecretHash = hash
		c.expect("Update with a wrong condition", c.b.Update(c.ctx, &rec, cond), sessionstore.ErrConflict)
	}
	c.expectUnchanged(recs...)
}

var renewalSubtests = []subtest{
	{"by Update gives all siblings the new hash and raises their versions", renewalSentence, func(c *check) {
		recs := c.siblings(3)
		rec, cond := *recs[1], matching(recs[1])
		rec.SecretHash, rec.Data, rec.Principal = newHash(), []byte("renewed"), c.name("bob")
		if err := c.b.Update(c.ctx, &rec, cond); err != nil {
			c.Fatalf("Update that renews returned %v", err)
		}
		got := c.load(rec.Key)
		if got.SecretHash != rec.SecretHash || got.Version != 2 || got.Principal != rec.Principal || !bytes.Equal(got.Data, rec.Data) {
			c.Errorf("the renewed record is not the one that was to be stored")
		}
		c.expectRenewed(rec.SecretHash, recs[0], recs[2])
	}},
	{"by Create gives all siblings the new hash and raises their versions", renewalSentence, func(c *check) {
		recs := c.siblings(2)
		rec := c.part(c.name("app"), recs[0].Key.ID, newHash())
		if _, err := c.b.Create(c.ctx, rec, matching(recs[0])); err != nil {
			c.Fatalf("Create that renews returned %v", err)
		}
		if got := c.load(rec.Key); got.SecretHash != rec.SecretHash || got.Version != 1 {
			c.Errorf("the new record has another secret hash, or version %d instead of 1", got.Version)
		}
		c.expectRenewed(rec.SecretHash, recs...)
	}},
	{"reaches records that are no longer live", "every other record under the ID gets the new hash", func(c *check) {
		recs := c.siblings(2)
		c.advance(idle / 2)
		c.touch(sessionstore.Touch{Key: recs[0].Key})
		c.advance(idle / 2)
		rec := c.load(recs[0].Key)
		cond := matching(rec)
		rec.SecretHash = newHash()
		if err := c.b.Update(c.ctx, rec, cond); err != nil {
			c.Fatalf("Update that renews returned %v", err)
		}
		c.expectGone(recs[1].Key)
		for _, swept := range c.sweepAfter(sweepSlack, sessionstore.Sweep{Apps: []string{recs[1].Key.App}, Limit: 10}) {
			if swept.SecretHash != rec.SecretHash {
				c.Errorf("an expired record kept the old secret hash")
			}
		}
	}},
	{"makes the old hash worthless", "SecretHash is the hash that the live records under the ID must have.", func(c *check) {
		recs := c.siblings(2)
		old := recs[0].SecretHash
		rec, cond := *recs[0], matching(recs[0])
		rec.SecretHash = newHash()
		if err := c.b.Update(c.ctx, &rec, cond); err != nil {
			c.Fatalf("Update that renews returned %v", err)
		}
		join := c.part(c.name("app"), rec.Key.ID, old)
		_, err := c.b.Create(c.ctx, join, sessionstore.Condition{SecretHash: old})
		c.expect("Create proven by the old hash", err, sessionstore.ErrNotFound)
		for _, key := range []sessionstore.Key{rec.Key, recs[1].Key} {
			now := c.load(key)
			stale := *now
			stale.SecretHash = old
			c.expect("Update with the old hash", c.b.Update(c.ctx, &stale, matching(&stale)), sessionstore.ErrConflict)
			c.expectUnchanged(now)
			c.update(now)
		}
		c.join(c.part(c.name("app"), rec.Key.ID, rec.SecretHash))
	}},
	{"leaves siblings alone without a new hash", "If the record to be written has another one, this is a renewal", func(c *check) {
		recs := c.siblings(3)
		c.update(recs[0])
		c.expectUnchanged(recs[1:]...)
	}},
	{"raises the version of every record under its ID", "A renewal raises the version of every record under its ID.", func(c *check) {
		recs, others := c.siblings(2), c.siblings(2)
		for round := range sessionstore.Version(3) {
			rec := c.load(recs[round%2].Key)
			cond := matching(rec)
			rec.SecretHash = newHash()
			if err := c.b.Update(c.ctx, rec, cond); err != nil {
				c.Fatalf("Update that renews returned %v", err)
			}
			for _, rec := range recs {
				if got := c.load(rec.Key); got.Version != round+2 {
					c.Errorf("version is %d after %d renewals", got.Version, round+1)
				}
			}
		}
		c.expectUnchanged(others...)
	}},
}

// expectRenewed reports siblings that are not as they were, but for the hash and
// the version that a renewal gives them.
func (c *check) expectRenewed(hash sessionstore.SecretHash, was ...*sessionstore.Record) {
	c.Helper()
	for _, rec := range was {
		want := *rec
		want.SecretHash = hash
		want.Version++
		if diff := difference(c.load(rec.Key), &want); diff != "" {
			c.Errorf("after a renewal, a sibling's record is wrong: %s", diff)
		}
	}
}
