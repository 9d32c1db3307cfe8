package backendtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

const concurrentSentence = "All methods are safe for concurrent use"

var concurrentSubtests = []subtest{
	{"increments of one record lose nothing", conflictSentence, func(c *check) {
		const workers, each = 8, 8
		rec := c.session(c.name("app"))
		rec.Data = []byte("0")
		c.create(rec)
		c.parallel(workers, func(i int, b sessionstore.Backend) {
			other := c.b
			if i%2 == 0 {
				other = c.second
			}
			for range each {
				version, err := increment(c, b, rec.Key)
				if err != nil {
					c.Errorf("incrementing returned %v", err)
					return
				}
				if seen, err := other.Load(c.ctx, rec.Key, 0); err != nil || seen.Version < version {
					c.Errorf("after Update to version %d, Load through another handle gave an older one, or %v", version, err)
				}
			}
		})
		got := c.load(rec.Key)
		if string(got.Data) != strconv.Itoa(workers*each) || got.Version != workers*each+1 {
			c.Errorf("%d increments led to %s and version %d", workers*each, got.Data, got.Version)
		}
	}},
	{"of creations under one key exactly one wins", "If any application holds a record under the ID and cond has no secret hash, it returns [ErrExists] and stores nothing.", func(c *check) {
		app := c.name("app")
		c.race(10, 6, func(id sessionstore.ID, i int, b sessionstore.Backend) (sessionstore.Key, error) {
			rec := c.part(app, id, newHash())
			_, err := b.Create(c.ctx, rec, sessionstore.Condition{})
			return rec.Key, err
		}, sessionstore.ErrExists)
	}},
	{"of creations under one ID exactly one wins", "If any application holds a record under the ID and cond has no secret hash, it returns [ErrExists] and stores nothing.", func(c *check) {
		app := c.name("app")
		c.race(10, 6, func(id sessionstore.ID, i int, b sessionstore.Backend) (sessionstore.Key, error) {
			rec := c.part(fmt.Sprintf("%s-%d", app, i), id, newHash())
			_, err := b.Create(c.ctx, rec, sessionstore.Condition{})
			return rec.Key, err
		}, sessionstore.ErrExists)
	}},
	{"of joins under one key exactly one wins", "if this application holds a record already, live or not, it returns [ErrExists].", func(c *check) {
		for range 10 {
			first := c.created(c.name("app"))
			app := c.name("app")
			var won atomic.Int64
			c.parallel(6, func(_ int, b sessionstore.Backend) {
				_, err := b.Create(c.ctx, c.part(app, first.Key.ID, first.SecretHash), sessionstore.Condition{SecretHash: first.SecretHash})
				switch {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, sessionstore.ErrExists):
					c.Errorf("Create at once with others returned %v, want %v", err, sessionstore.ErrExists)
				}
			})
			if won.Load() != 1 {
				c.Errorf("%d of 6 joins under one key have won", won.Load())
			}
		}
	}},
	{"logins never exceed MaxSessions", limitSentence, func(c *check) {
		const logins, most = 8, 3
		for range 5 {
			app, bob := c.name("app"), c.name("bob")
			anonymous := make([]*sessionstore.Record, logins)
			for i := 0; i < logins; i += 2 {
				anonymous[i] = c.created(app)
			}
			var won atomic.Int64
			c.parallel(logins, func(i int, b sessionstore.Backend) {
				var err error
				if anonymous[i] != nil {
					rec, cond := *anonymous[i], matching(anonymous[i])
					rec.Principal, rec.SecretHash, cond.MaxSessions = bob, newHash(), most
					err = b.Update(c.ctx, &rec, cond)
				} else {
					rec := c.session(app)
					rec.Principal = bob
					_, err = b.Create(c.ctx, rec, sessionstore.Condition{MaxSessions: most})
				}
				switch {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, sessionstore.ErrLimit):
					c.Errorf("a login at once with others returned %v, want %v", err, sessionstore.ErrLimit)
				}
			})
			if live := len(c.list(sessionstore.Selector{Principal: bob, App: app})); won.Load() != most || live != most {
				c.Errorf("of %d logins at once, %d have won and %d sessions are live, want %d", logins, won.Load(), live, most)
			}
		}
	}},
	{"of renewals at once exactly one wins", renewalSentence, func(c *check) {
		for range 15 {
			recs := c.siblings(3)
			var won atomic.Pointer[sessionstore.SecretHash]
			c.parallel(len(recs), func(i int, b sessionstore.Backend) {
				rec, cond := *recs[i], matching(recs[i])
				rec.SecretHash = newHash()
				err := b.Update(c.ctx, &rec, cond)
				if err == nil && won.Swap(&rec.SecretHash) != nil {
					c.Errorf("two renewals at once of one session have both succeeded")
				}
				if err != nil && !errors.Is(err, sessionstore.ErrConflict) {
					c.Errorf("a renewal at once with others returned %v, want %v", err, sessionstore.ErrConflict)
				}
			})
			if won.Load() == nil {
				c.Fatalf("of three renewals at once none has succeeded")
			}
			for _, rec := range recs {
				if got := c.load(rec.Key); got.SecretHash != *won.Load() || got.Version != 2 {
					c.Errorf("after renewals at once, a record has another hash than the winner's, or version %d instead of 2", got.Version)
				}
			}
		}
	}},
	{"joins and renewals at once leave one hash", "the same in all records under one ID", func(c *check) {
		for range 30 {
			first := c.created(c.name("app"))
			joins := []*sessionstore.Record{
				c.part(c.name("app"), first.Key.ID, first.SecretHash), // plain
				c.part(c.name("app"), first.Key.ID, newHash()),        // with a renewal of its own
			}
			c.parallel(3, func(i int, b sessionstore.Backend) {
				if i == 0 {
					rec := *first
					rec.SecretHash = newHash()
					if err := b.Update(c.ctx, &rec, matching(first)); err != nil && !errors.Is(err, sessionstore.ErrConflict) {
						c.Errorf("a renewal at once with joins returned %v, want %v", err, sessionstore.ErrConflict)
					}
					return
				}
				if _, err := b.Create(c.ctx, joins[i-1], sessionstore.Condition{SecretHash: first.SecretHash}); err != nil && !errors.Is(err, sessionstore.ErrNotFound) {
					c.Errorf("a join at once with a renewal returned %v, want %v", err, sessionstore.ErrNotFound)
				}
			})
			hashes := make(map[sessionstore.SecretHash]bool)
			for _, info := range c.list(sessionstore.Selector{ID: first.Key.ID}) {
				hashes[c.load(info.Key).SecretHash] = true
			}
			if len(hashes) != 1 || hashes[first.SecretHash] {
				c.Errorf("records under one ID have %d hashes after a renewal, the old one among them: %t", len(hashes), hashes[first.SecretHash])
			}
		}
	}},
	{"all methods at once return no other error", concurrentSentence, func(c *check) {
		apps := []string{c.name("app"), c.name("app")}
		var keys []sessionstore.Key
		for range 12 {
			rec := c.created(apps[0])
			keys = append(keys, rec.Key, c.join(c.part(apps[1], rec.Key.ID, rec.SecretHash)).Key)
		}
		// What locks rows in different orders ends in deadlocks sooner or later.
		c.parallel(10, func(i int, b sessionstore.Backend) {
			for round := range 12 {
				var err error
				key := keys[rand.N(len(keys))]
				switch i / 2 {
				case 0:
					var touches []sessionstore.Touch
					for _, k := range rand.Perm(len(keys)) {
						touches = append(touches, sessionstore.Touch{Key: keys[k]})
					}
					err = b.Touch(c.ctx, touches)
				case 1, 2:
					var rec *sessionstore.Record
					if rec, err = b.Load(c.ctx, key, 0); err != nil {
						break
					}
					cond := matching(rec)
					if round%3 == 0 {
						rec.SecretHash = newHash()
					}
					err = b.Update(c.ctx, rec, cond)
				case 3:
					_, _, err = b.DeleteExpired(c.ctx, sessionstore.Sweep{Apps: apps, Orphans: idle, Limit: 10})
				case 4:
					if round%4 == 0 {
						_, err = b.Delete(c.ctx, sessionstore.Selector{ID: key.ID})
						break
					}
					rec := c.session(apps[0])
					if _, err = b.Create(c.ctx, rec, sessionstore.Condition{}); err == nil {
						_, err = b.Create(c.ctx, c.part(apps[1], rec.Key.ID, newHash()), sessionstore.Condition{SecretHash: rec.SecretHash})
					}
				}
				if err != nil && !errors.Is(err, sessionstore.ErrConflict) && !errors.Is(err, sessionstore.ErrNotFound) {
					c.Errorf("with all methods at once, one returned %v", err)
				}
			}
		})
	}},
}

// increment adds 1 to the number that is the record's data, and returns the
// version it stored.
func increment(c *check, b sessionstore.Backend, key sessionstore.Key) (sessionstore.Version, error) {
	for {
		rec, err := b.Load(c.ctx, key, 0)
		if err != nil {
			return 0, err
		}
		n, err := strconv.Atoi(string(rec.Data))
		if err != nil {
			return 0, err
		}
		rec.Data = strconv.AppendInt(nil, int64(n)+1, 10)
		if err = b.Update(c.ctx, rec, matching(rec)); err == nil {
			return rec.Version + 1, nil
		}
		if !errors.Is(err, sessionstore.ErrConflict) {
			return 0, err
		}
	}
}

// race has n callers insert under one ID, some times over, and reports when not
// exactly one of them has won and left its record.
func (c *check) race(rounds, n int, insert func(id sessionstore.ID, i int, b sessionstore.Backend) (sessionstore.Key, error), refusal error) {
	c.Helper()
	for range rounds {
		id := newID()
		var mu sync.Mutex // guards won
		var won []sessionstore.Key
		c.parallel(n, func(i int, b sessionstore.Backend) {
			key, err := insert(id, i, b)
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				won = append(won, key)
			} else if !errors.Is(err, refusal) {
				c.Errorf("one of %d calls at once returned %v, want %v", n, err, refusal)
			}
		})
		if len(won) != 1 {
			c.Errorf("of %d calls at once, %d have won", n, len(won))
		}
		c.expectKeys("List", keysOfInfos(c.list(sessionstore.Selector{ID: id})), won...)
	}
}
