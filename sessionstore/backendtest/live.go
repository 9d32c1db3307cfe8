package backendtest

import (
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

const (
	// liveSentence is what all expiry arithmetic follows from.
	liveSentence = "A record is live while the database's clock is before its ExpiresAt, which is AccessedAt+Idle or CreatedAt+Lifetime, whichever is earlier."
	// absentSentence is cited once for each thing that must not happen.
	absentSentence = "A record that is not live is never loaded, listed, updated, touched or accepted as a proof."
)

// forever is the longest timeout that package sessionstore hands to a backend.
const forever = 100 * 365 * 24 * time.Hour

var liveSubtests = []subtest{
	{"expiry is idle or lifetime whichever is earlier", liveSentence, func(c *check) {
		for _, tt := range []struct{ idle, lifetime time.Duration }{
			{time.Hour, 0}, {0, time.Hour}, {time.Hour, 2 * time.Hour}, {2 * time.Hour, time.Hour}, {time.Hour, time.Hour},
			{time.Minute + time.Microsecond, time.Hour}, {forever, forever}, {forever, 0}, {0, forever - time.Microsecond},
		} {
			rec := c.session(c.name("app"))
			rec.Idle, rec.Lifetime = tt.idle, tt.lifetime
			rec = c.create(rec)
			c.expectArithmetic(rec, tt.idle, tt.lifetime)
			c.expectArithmetic(c.update(rec), tt.idle, tt.lifetime)
		}
	}},
	{"timeouts of 0 are without limit", "0 means without limit.", func(c *check) {
		rec := c.session(c.name("app"))
		rec.Idle, rec.Lifetime = 0, 0
		rec = c.create(rec)
		if !rec.ExpiresAt.IsZero() {
			c.Errorf("ExpiresAt is %v, want the zero Time", rec.ExpiresAt)
		}
		c.advance(1000 * 24 * time.Hour)
		if removed := c.sweep(sessionstore.Sweep{Apps: []string{rec.Key.App}, Limit: 10}); len(removed) > 0 {
			c.Errorf("DeleteExpired removed a record that never expires")
		}
		if got := c.load(rec.Key); !got.ExpiresAt.IsZero() {
			c.Errorf("ExpiresAt became %v, want the zero Time", got.ExpiresAt)
		}
		c.touch(sessionstore.Touch{Key: rec.Key})
		if got := c.update(c.load(rec.Key)); !got.ExpiresAt.IsZero() {
			c.Errorf("ExpiresAt became %v by use, want the zero Time", got.ExpiresAt)
		}
	}},
	{"an idle record ends", "Idle is how long the session lives after its last use", func(c *check) {
		rec := c.created(c.name("app"))
		c.advance(idle - subtestTimeout)
		c.load(rec.Key)
		c.advance(subtestTimeout)
		c.expectGone(rec.Key)
	}},
	{"use extends an idle timeout", "Idle is how long the session lives after its last use", func(c *check) {
		rec := c.created(c.name("app"))
		for range 3 {
			c.advance(idle - subtestTimeout)
			c.touch(sessionstore.Touch{Key: rec.Key})
			c.advance(idle - subtestTimeout)
			rec = c.update(c.load(rec.Key))
		}
		c.advance(idle)
		c.expectGone(rec.Key)
	}},
	{"use never extends a lifetime", "Lifetime how long after its creation, whichever ends first.", func(c *check) {
		rec := c.session(c.name("app"))
		rec.Lifetime = 2 * idle
		c.create(rec)
		c.advance(idle - subtestTimeout)
		c.touch(sessionstore.Touch{Key: rec.Key})
		c.advance(idle - subtestTimeout)
		got := c.update(c.load(rec.Key))
		c.expectArithmetic(got, idle, 2*idle)
		c.advance(2 * subtestTimeout)
		c.expectGone(rec.Key)
	}},
	{"a renewal never extends a lifetime", "Lifetime how long after its creation, whichever ends first.", func(c *check) {
		rec := c.session(c.name("app"))
		rec.Lifetime = 2 * idle
		rec = c.create(rec)
		c.advance(idle - subtestTimeout)
		cond := matching(rec)
		rec.SecretHash, rec.Principal = newHash(), c.name("bob")
		if err := c.b.Update(c.ctx, rec, cond); err != nil {
			c.Fatalf("Update that renews returned %v", err)
		}
		c.expectArithmetic(c.load(rec.Key), idle, 2*idle)
	}},
	{"each application has its own expiry", "whichever is earlier", func(c *check) {
		short := c.created(c.name("short"))
		long := c.part(c.name("long"), short.Key.ID, short.SecretHash)
		long.Idle = 2 * idle
		long = c.join(long)
		c.advance(idle)
		_, err := c.b.Load(c.ctx, short.Key, 0)
		c.expect("Load of the application that expired", err, sessionstore.ErrSibling)
		if got := c.load(long.Key); got.Version != long.Version {
			c.Errorf("the sibling's version went from %d to %d", long.Version, got.Version)
		}
		c.expectKeys("DeleteExpired", keysOf(c.sweepAfter(sweepSlack, sessionstore.Sweep{ID: short.Key.ID, Apps: []string{short.Key.App, long.Key.App}, Limit: 10})), short.Key)
		c.load(long.Key)
	}},
	{"a changed idle timeout counts from the change", "Idle is how long the session lives after its last use", func(c *check) {
		shorter, longer := c.created(c.name("app")), c.created(c.name("app"))
		limited, unlimited := c.session(c.name("app")), c.created(c.name("app"))
		limited.Idle, limited.Lifetime = 0, 0
		limited = c.create(limited)

		shorter.Idle, longer.Idle, limited.Idle = idle/2, 2*idle, idle/2
		unlimited.Idle, unlimited.Lifetime = 0, 0
		for _, rec := range []*sessionstore.Record{shorter, longer, limited, unlimited} {
			got := c.update(rec)
			c.expectArithmetic(got, rec.Idle, rec.Lifetime)
		}
		c.advance(idle / 2)
		c.expectGone(shorter.Key)
		c.expectGone(limited.Key)
		c.advance(idle)
		c.load(longer.Key)
		c.advance(idle)
		c.expectGone(longer.Key)
		c.load(unlimited.Key)
	}},
	{"an expired record is never loaded", absentSentence, func(c *check) {
		recs := c.siblings(2)
		c.advance(idle)
		for _, rec := range recs {
			for _, known := range []sessionstore.Version{0, rec.Version, rec.Version + 1} {
				got, err := c.b.Load(c.ctx, rec.Key, known)
				c.expect("Load of an expired record", err, sessionstore.ErrNotFound)
				if got != nil {
					c.Errorf("Load of an expired record came with one, and %v", err)
				}
			}
		}
	}},
	{"an expired record is never listed", absentSentence, func(c *check) {
		rec := c.session(c.name("app"))
		rec.Principal = c.name("bob")
		c.create(rec)
		c.advance(idle)
		for _, sel := range []sessionstore.Selector{{ID: rec.Key.ID}, {Principal: rec.Principal}, {Principal: rec.Principal, App: rec.Key.App}} {
			if infos := c.list(sel); len(infos) > 0 {
				c.Errorf("List yielded an expired record")
			}
		}
	}},
	{"an expired record is never updated", absentSentence, func(c *check) {
		rec := c.created(c.name("app"))
		c.advance(idle)
		c.expect("Update of an expired record", c.b.Update(c.ctx, rec, matching(rec)), sessionstore.ErrConflict)
		c.expectGone(rec.Key)
		c.expectSweptAs(rec)
	}},
	{"an expired record is never touched", absentSentence, func(c *check) {
		rec := c.created(c.name("app"))
		c.advance(idle)
		c.touch(sessionstore.Touch{Key: rec.Key}, sessionstore.Touch{Key: rec.Key, Ago: idle / 2})
		c.expectGone(rec.Key)
		c.expectSweptAs(rec)
	}},
	{"an expired record is never accepted as a proof", absentSentence, func(c *check) {
		rec := c.created(c.name("app"))
		c.advance(idle)
		part := c.part(c.name("app"), rec.Key.ID, rec.SecretHash)
		_, err := c.b.Create(c.ctx, part, sessionstore.Condition{SecretHash: rec.SecretHash})
		c.expect("Create beside an expired sibling", err, sessionstore.ErrNotFound)
		c.expectGone(part.Key)
		c.expectSweptAs(rec)
	}},
}

// expectArithmetic reports a record whose times do not follow from its timeouts.
func (c *check) expectArithmetic(rec *sessionstore.Record, idle, lifetime time.Duration) {
	c.Helper()
	if rec.Idle != idle || rec.Lifetime != lifetime {
		c.Errorf("timeouts are %v and %v, want %v and %v", rec.Idle, rec.Lifetime, idle, lifetime)
	}
	var want time.Time
	if idle > 0 {
		want = rec.AccessedAt.Add(idle)
	}
	if end := rec.CreatedAt.Add(lifetime); lifetime > 0 && (idle == 0 || end.Before(want)) {
		want = end
	}
	if !rec.ExpiresAt.Equal(want) {
		c.Errorf("created %v, accessed %v, idle %v, lifetime %v: expires %v, want %v",
			rec.CreatedAt, rec.AccessedAt, idle, lifetime, rec.ExpiresAt, want)
	}
}

// sweepAfter sweeps once d has passed.
func (c *check) sweepAfter(d time.Duration, sweep sessionstore.Sweep) []*sessionstore.Record {
	c.Helper()
	c.advance(d)
	return c.sweep(sweep)
}

// expectSweptAs reports a sweep that does not find the expired record as it was
// before time passed.
func (c *check) expectSweptAs(was *sessionstore.Record) {
	c.Helper()
	swept := c.sweepAfter(sweepSlack, sessionstore.Sweep{Apps: []string{was.Key.App}, Limit: 10})
	c.expectKeys("DeleteExpired", keysOf(swept), was.Key)
	if len(swept) != 1 {
		return
	}
	got := *swept[0]
	if got.AccessedAt.Sub(got.CreatedAt) != was.AccessedAt.Sub(was.CreatedAt) || got.ExpiresAt.Sub(got.CreatedAt) != was.ExpiresAt.Sub(was.CreatedAt) {
		c.Errorf("the expired record's times have changed")
	}
	// Advance may have made the record older instead of moving the clock.
	got.CreatedAt, got.AccessedAt, got.ExpiresAt = was.CreatedAt, was.AccessedAt, was.ExpiresAt
	if diff := difference(&got, was); diff != "" {
		c.Errorf("the expired record has changed: %s", diff)
	}
}
