package backendtest

import (
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

const forwardSentence = "Touch moves the access times of live records forward, to the database's clock less Ago, and with them their expiry."

var touchSubtests = []subtest{
	{"moves access times and expiry forward to the clock less Ago", forwardSentence, func(c *check) {
		const ago = 2 * time.Minute
		was := []*sessionstore.Record{c.created(c.name("app")), c.created(c.name("app")), c.created(c.name("app"))}
		c.advance(idle / 2)
		before := c.load(was[0].Key).Now
		c.touch(sessionstore.Touch{Key: was[0].Key}, sessionstore.Touch{Key: was[1].Key, Ago: ago})
		for i, ago := range []time.Duration{0, ago} {
			got := c.load(was[i].Key)
			if earliest, latest := before.Add(-ago), got.Now.Add(-ago); got.AccessedAt.Before(earliest) || got.AccessedAt.After(latest) {
				c.Errorf("touched as of %v ago: access time is %v, want %v to %v", ago, got.AccessedAt, earliest, latest)
			}
			c.expectArithmetic(got, idle, lifetime)
		}
		if got := c.load(was[2].Key); !got.AccessedAt.Equal(got.CreatedAt) {
			c.Errorf("a record that was not touched was accessed %v after its creation", got.AccessedAt.Sub(got.CreatedAt))
		}
		c.advance(idle / 2)
		c.load(was[0].Key)
		c.load(was[1].Key)
		c.expectGone(was[2].Key)
	}},
	{"is only for the application touched", forwardSentence, func(c *check) {
		recs := c.siblings(2)
		c.advance(idle / 2)
		untouched := c.load(recs[1].Key)
		c.touch(sessionstore.Touch{Key: recs[0].Key})
		c.expectUnchanged(untouched)
	}},
	{"never extends a lifetime", "and with them their expiry", func(c *check) {
		rec := c.session(c.name("app"))
		rec.Lifetime = idle + idle/2
		c.create(rec)
		c.advance(idle - time.Minute)
		c.touch(sessionstore.Touch{Key: rec.Key})
		c.expectArithmetic(c.load(rec.Key), idle, rec.Lifetime)
	}},
	{"never moves an access time backwards", "It never moves one backwards", func(c *check) {
		rec := c.created(c.name("app"))
		for _, ago := range []time.Duration{time.Hour, idle, time.Minute, 24 * time.Hour, forever} {
			c.touch(sessionstore.Touch{Key: rec.Key, Ago: ago})
		}
		c.expectUnchanged(rec)
	}},
	{"never moves an access time backwards when the clock was set back", "It never moves one backwards", func(c *check) {
		rec := c.created(c.name("app"))
		c.advance(-time.Hour)
		c.T.Cleanup(func() { c.advance(time.Hour) })
		rec = c.load(rec.Key)
		c.touch(sessionstore.Touch{Key: rec.Key})
		c.expectUnchanged(rec)
	}},
	{"never inserts", "never inserts", func(c *check) {
		rec := c.created(c.name("app"))
		unknown := sessionstore.Key{ID: newID(), App: rec.Key.App}
		sibling := sessionstore.Key{ID: rec.Key.ID, App: c.name("app")}
		c.touch(sessionstore.Touch{Key: unknown}, sessionstore.Touch{Key: sibling})
		c.expectGone(unknown)
		c.expectGone(sibling)
		c.delete(sessionstore.Selector{ID: rec.Key.ID})
		c.touch(sessionstore.Touch{Key: rec.Key})
		c.expectNothing(rec.Key.ID)
		c.create(c.part(unknown.App, unknown.ID, newHash())) // an expired leftover would be in the way
	}},
	{"never changes a version or data", "never changes a version or data", func(c *check) {
		rec := c.session(c.name("app"))
		rec.Principal = c.name("bob")
		rec = c.create(rec)
		c.advance(time.Minute)
		was := c.load(rec.Key)
		c.touch(sessionstore.Touch{Key: rec.Key})
		got := c.load(rec.Key)
		was.AccessedAt, was.ExpiresAt = got.AccessedAt, got.ExpiresAt
		if diff := difference(got, was); diff != "" {
			c.Errorf("Touch changed more than the access time: %s", diff)
		}
		c.update(rec) // whose version is still the one known before the touch
	}},
	{"ignores keys that have no live record", "and ignores keys that have no live record.", func(c *check) {
		alive, expired := c.created(c.name("app")), c.session(c.name("app"))
		expired.Idle = idle / 2
		expired = c.create(expired)
		c.advance(idle / 2)
		c.touch(sessionstore.Touch{Key: sessionstore.Key{ID: newID(), App: alive.Key.App}}, sessionstore.Touch{Key: expired.Key},
			sessionstore.Touch{Key: alive.Key}, sessionstore.Touch{Key: expired.Key, Ago: time.Minute})
		c.expectGone(expired.Key)
		if got := c.load(alive.Key); got.AccessedAt.Sub(got.CreatedAt) < idle/2 {
			c.Errorf("a live record beside others was not touched")
		}
	}},
	{"no touches is no error", "No touches is no error.", func(c *check) {
		c.touch()
		c.touch([]sessionstore.Touch{}...)
	}},
	{"one key twice counts as used last", "Touches may name one key twice.", func(c *check) {
		first, second := c.created(c.name("app")), c.created(c.name("app"))
		c.advance(idle / 2)
		before := c.load(first.Key).Now
		recent, old := time.Minute, 10*time.Minute
		c.touch(
			sessionstore.Touch{Key: first.Key, Ago: recent}, sessionstore.Touch{Key: second.Key, Ago: old},
			sessionstore.Touch{Key: first.Key, Ago: old}, sessionstore.Touch{Key: second.Key, Ago: recent})
		for _, rec := range []*sessionstore.Record{first, second} {
			if got := c.load(rec.Key); got.AccessedAt.Before(before.Add(-recent)) {
				c.Errorf("access time is %v, want the later of the two touches", got.AccessedAt)
			}
		}
	}},
	{"a thousand at once", forwardSentence, func(c *check) {
		var recs []*sessionstore.Record
		for range 50 {
			recs = append(recs, c.session(c.name("app")))
		}
		c.createAll(recs)
		c.advance(idle / 2)
		var touches []sessionstore.Touch
		for i := range 1000 {
			key := sessionstore.Key{ID: newID(), App: "app"}
			if i%10 == 0 {
				key = recs[i/10%len(recs)].Key
			}
			touches = append(touches, sessionstore.Touch{Key: key, Ago: time.Duration(i) * time.Millisecond})
		}
		c.touch(touches...)
		for _, rec := range recs {
			if got := c.load(rec.Key); got.AccessedAt.Sub(got.CreatedAt) < idle/2-subtestTimeout {
				c.Errorf("a record among 1000 touches was not touched")
			}
		}
	}},
}
