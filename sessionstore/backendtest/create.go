package backendtest

import (
	"errors"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

var createSubtests = []subtest{
	{"ignores the record's version times and now", "It ignores rec's Version, times and Now: the stored version is 1, and the database's clock becomes CreatedAt and AccessedAt and is returned.", func(c *check) {
		before := c.created(c.name("app")).Now
		rec := c.session(c.name("app"))
		rec.Version = 7
		rec.CreatedAt = time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
		rec.AccessedAt, rec.ExpiresAt, rec.Now = rec.CreatedAt.Add(1), rec.CreatedAt.Add(2), rec.CreatedAt.Add(3)
		created, err := c.b.Create(c.ctx, rec, sessionstore.Condition{Version: 9})
		if err != nil {
			c.Fatalf("Create returned %v", err)
		}
		got := c.load(rec.Key)
		if got.Version != 1 {
			c.Errorf("the stored version is %d, want 1", got.Version)
		}
		if !got.CreatedAt.Equal(created) || !got.AccessedAt.Equal(created) {
			c.Errorf("CreatedAt is %v and AccessedAt %v, but Create returned %v", got.CreatedAt, got.AccessedAt, created)
		}
		if created.Before(before) || created.After(got.Now) {
			c.Errorf("Create returned %v, but the clock went from %v to %v meanwhile", created, before, got.Now)
		}
		c.expectArithmetic(got, idle, lifetime)
	}},
	{"returns ErrExists if this application holds a record", "If any application holds a record under the ID and cond has no secret hash, it returns [ErrExists] and stores nothing.", func(c *check) {
		stored := c.created(c.name("app"))
		rec := *stored
		rec.Data = []byte("usurped")
		_, err := c.b.Create(c.ctx, &rec, sessionstore.Condition{})
		c.expect("Create under a key that exists", err, sessionstore.ErrExists)
		c.expectUnchanged(stored)
	}},
	{"returns ErrExists if another application holds a record", "If any application holds a record under the ID and cond has no secret hash, it returns [ErrExists] and stores nothing.", func(c *check) {
		stored := c.created(c.name("app"))
		for _, hash := range []sessionstore.SecretHash{stored.SecretHash, newHash()} {
			rec := c.part(c.name("app"), stored.Key.ID, hash)
			_, err := c.b.Create(c.ctx, rec, sessionstore.Condition{})
			c.expect("Create under another application's ID", err, sessionstore.ErrExists)
			c.expectGone(rec.Key)
		}
		c.expectUnchanged(stored)
	}},
	{"returns ErrExists even if the record has expired", "If any application holds a record under the ID and cond has no secret hash, it returns [ErrExists] and stores nothing.", func(c *check) {
		stored := c.created(c.name("app"))
		c.advance(idle)
		for _, app := range []string{stored.Key.App, c.name("app")} {
			rec := c.part(app, stored.Key.ID, newHash())
			_, err := c.b.Create(c.ctx, rec, sessionstore.Condition{})
			c.expect("Create under the ID of an expired record", err, sessionstore.ErrExists)
			c.expectGone(rec.Key)
		}
		c.expectSweptAs(stored)
	}},
	{"stores under an ID whose records are all removed", "Create stores rec under a key that does not exist yet", func(c *check) {
		recs := c.siblings(2)
		c.delete(sessionstore.Selector{ID: recs[0].Key.ID})
		c.create(c.part(recs[0].Key.App, recs[0].Key.ID, newHash()))
	}},
	{"is the only method that inserts", "and is the only method that inserts (P3).", func(c *check) {
		key := sessionstore.Key{ID: newID(), App: c.name("app")}
		rec := c.part(key.App, key.ID, newHash())
		for version := range sessionstore.Version(2) {
			c.expect("Update of no record", c.b.Update(c.ctx, rec, sessionstore.Condition{Version: version, SecretHash: rec.SecretHash}), sessionstore.ErrConflict)
			c.expect("Update of no record", c.b.Update(c.ctx, rec, sessionstore.Condition{Version: version}), sessionstore.ErrConflict)
		}
		c.touch(sessionstore.Touch{Key: key})
		c.delete(sessionstore.Selector{ID: key.ID})
		c.sweep(sessionstore.Sweep{ID: key.ID, Apps: []string{key.App}, Limit: 10})
		c.expectNothing(key.ID)
		c.create(rec) // an expired leftover would be in the way
	}},
}

// joinSubtests are about Create with a condition on a sibling's secret hash.
var joinSubtests = []subtest{
	{"stores beside a live record that has the secret hash", "any other hash that a sibling application's live record must prove the claim.", func(c *check) {
		first := c.siblings(2)
		rec := c.part(c.name("app"), first[0].Key.ID, first[0].SecretHash)
		rec.Data, rec.Principal, rec.Idle = []byte("joined"), c.name("bob"), 2*idle
		got := c.join(rec)
		want := *rec
		want.Version, want.CreatedAt, want.AccessedAt, want.ExpiresAt = 1, got.CreatedAt, got.CreatedAt, got.CreatedAt.Add(2*idle)
		if diff := difference(got, &want); diff != "" {
			c.Errorf("Load gave another record than the one stored: %s", diff)
		}
		c.expectUnchanged(first...)
	}},
	{"returns ErrNotFound for a wrong secret hash", "If cond has a secret hash and no live record of another application under the ID has it, it returns [ErrNotFound] and stores nothing;", func(c *check) {
		first := c.siblings(2)
		wrong := newHash()
		for _, hash := range []sessionstore.SecretHash{wrong, first[0].SecretHash} {
			rec := c.part(c.name("app"), first[0].Key.ID, hash)
			_, err := c.b.Create(c.ctx, rec, sessionstore.Condition{SecretHash: wrong})
			c.expect("Create with a wrong secret hash", err, sessionstore.ErrNotFound)
			c.expectGone(rec.Key)
		}
		c.expectUnchanged(first...)
	}},
	{"returns ErrNotFound under an unknown ID", "If cond has a secret hash and no live record of another application under the ID has it, it returns [ErrNotFound] and stores nothing;", func(c *check) {
		rec := c.session(c.name("app"))
		_, err := c.b.Create(c.ctx, rec, sessionstore.Condition{SecretHash: rec.SecretHash})
		c.expect("Create with a secret hash under an unknown ID", err, sessionstore.ErrNotFound)
		c.expectGone(rec.Key)
		c.expectNothing(rec.Key.ID)
	}},
	{"its own record is no proof", "no live record of another application under the ID has it", func(c *check) {
		stored := c.created(c.name("app"))
		_, err := c.b.Create(c.ctx, stored, sessionstore.Condition{SecretHash: stored.SecretHash})
		// Two sentences apply, and which of their errors comes does not matter.
		if !errors.Is(err, sessionstore.ErrNotFound) && !errors.Is(err, sessionstore.ErrExists) {
			c.Errorf("Create proven by its own record returned %v, want %v or %v", err, sessionstore.ErrNotFound, sessionstore.ErrExists)
		}
		c.expectUnchanged(stored)
	}},
	{"returns ErrExists if this application holds a record", "if this application holds a record already, live or not, it returns [ErrExists].", func(c *check) {
		recs := c.siblings(2)
		rec := *recs[1]
		rec.Data = []byte("usurped")
		_, err := c.b.Create(c.ctx, &rec, sessionstore.Condition{SecretHash: rec.SecretHash})
		c.expect("Create under a key that exists", err, sessionstore.ErrExists)
		rec.SecretHash = newHash()
		_, err = c.b.Create(c.ctx, &rec, matching(recs[1]))
		c.expect("Create with a renewal under a key that exists", err, sessionstore.ErrExists)
		c.expectUnchanged(recs...)
	}},
	{"returns ErrExists if this application holds an expired record", "if this application holds a record already, live or not, it returns [ErrExists].", func(c *check) {
		recs := c.siblings(2)
		c.advance(idle / 2)
		c.touch(sessionstore.Touch{Key: recs[0].Key})
		c.advance(idle / 2)
		rec := c.part(recs[1].Key.App, recs[1].Key.ID, recs[1].SecretHash)
		_, err := c.b.Create(c.ctx, rec, sessionstore.Condition{SecretHash: rec.SecretHash})
		c.expect("Create under the key of an expired record", err, sessionstore.ErrExists)
		c.expectGone(rec.Key)
	}},
	{"fails once the session is deleted", "A Create that joins a deleted session fails, even if both run at once (P3).", func(c *check) {
		recs := c.siblings(2)
		c.delete(sessionstore.Selector{ID: recs[0].Key.ID})
		rec := c.part(c.name("app"), recs[0].Key.ID, recs[0].SecretHash)
		_, err := c.b.Create(c.ctx, rec, sessionstore.Condition{SecretHash: rec.SecretHash})
		c.expect("Create that joins a deleted session", err, sessionstore.ErrNotFound)
		c.expectNothing(rec.Key.ID)
	}},
	{"fails even if an expired record outlives the deleted session", "A Create that joins a deleted session fails, even if both run at once (P3).", func(c *check) {
		recs := c.siblings(2)
		c.advance(idle / 2)
		c.touch(sessionstore.Touch{Key: recs[0].Key})
		c.advance(idle / 2) // recs[1] has expired and is not deleted
		c.delete(sessionstore.Selector{ID: recs[0].Key.ID})
		rec := c.part(c.name("app"), recs[0].Key.ID, recs[0].SecretHash)
		_, err := c.b.Create(c.ctx, rec, sessionstore.Condition{SecretHash: rec.SecretHash})
		c.expect("Create that joins a deleted session", err, sessionstore.ErrNotFound)
		c.expectNothing(rec.Key.ID)
	}},
}
