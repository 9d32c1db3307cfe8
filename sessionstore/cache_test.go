package sessionstore

import "testing"

// What was dropped stays out, by version, whether it is in the cache or on its way.
func TestCacheDrops_P3_P6(t *testing.T) {
	id, other := ID{1}, ID{2}
	if id.shard() != other.shard() {
		t.Fatal("they are of different shards")
	}
	snap := func(v Version) *snapshot { return &snapshot{info: compactInfo{ID: id, Version: v}} }
	for _, test := range []struct {
		name      string
		cached    Version // 0: none
		meanwhile func(*cache)
		put, want Version
	}{
		{"nothing happened", 0, func(*cache) {}, 2, 2},
		{"an older one is there", 1, func(*cache) {}, 2, 2},
		{"a newer one is there", 3, func(*cache) {}, 2, 3},
		{"it was dropped", 1, func(c *cache) { c.drop(id) }, 2, 0},
		{"another was dropped", 1, func(c *cache) { c.drop(other) }, 2, 2},
		{"it was doubted", 0, func(c *cache) { c.doubt(id) }, 2, 0},
		{"all were dropped", 1, func(c *cache) { c.reset() }, 2, 0},
		{"a newer version was heard of", 1, func(c *cache) { c.outdate(id, 3) }, 2, 0},
		{"its own version was heard of", 1, func(c *cache) { c.outdate(id, 2) }, 2, 2},
		{"an older version was heard of", 0, func(c *cache) { c.outdate(id, 1) }, 2, 2},
		{"an older version was heard of than what is there", 2, func(c *cache) { c.outdate(id, 2) }, 1, 2},
		{"its version, then a newer one", 1, func(c *cache) { c.outdate(id, 2); c.outdate(id, 3) }, 2, 0},
		{"a newer one, then its own", 1, func(c *cache) { c.outdate(id, 3); c.outdate(id, 2) }, 2, 0},
		{"as many others as are remembered", 1, func(c *cache) { dropOthers(c, id, len(drops{}.last)) }, 2, 2},
		{"it, and then others", 1, func(c *cache) { c.drop(id); dropOthers(c, id, len(drops{}.last)-1) }, 2, 0},
		{"it, and then more than are remembered", 1, func(c *cache) { c.drop(id); dropOthers(c, id, 100) }, 2, 0},
		{"more others than are remembered", 0, func(c *cache) { dropOthers(c, id, len(drops{}.last)+1) }, 2, 0},
		{"another one that changes all the time", 1, func(c *cache) { dropTimes(c, other, 100) }, 2, 2},
		{"it, and then that", 1, func(c *cache) { c.outdate(id, 3); dropTimes(c, other, 100) }, 2, 0},
		{"many versions of it before this one", 0, func(c *cache) {
			for v := range Version(3) {
				c.outdate(id, v)
			}
		}, 2, 2},
		{"all, and then more others than are remembered", 1, func(c *cache) { c.reset(); dropOthers(c, id, 3) }, 2, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := newCache(1 << 20)
			if err != nil {
				t.Fatal(err)
			}
			dropTimes(c, id, 5) // long ago
			if test.cached != 0 {
				c.put(snap(test.cached), c.epoch(id))
			}
			epoch := c.epoch(id)
			test.meanwhile(c)
			c.put(snap(test.put), epoch)
			got := Version(0)
			if sn := c.get(id); sn != nil {
				got = sn.info.Version
			}
			if got != test.want {
				t.Errorf("cached: version %d, want %d", got, test.want)
			}
			c.put(snap(9), c.epoch(id)) // asked of the database afterwards
			if sn := c.get(id); sn == nil || sn.info.Version != 9 {
				t.Errorf("what was asked afterwards is not cached: %v", sn)
			}
		})
	}
}

// dropOthers drops n sessions of id's shard.
func dropOthers(c *cache, id ID, n int) {
	for i := range n {
		other := id
		other[0], other[1] = byte(i), 0xff
		c.drop(other)
	}
}

func dropTimes(c *cache, id ID, n int) {
	for range n {
		c.drop(id)
	}
}

// A renewal is heard of while its copy is cached; the copy is evicted; then the answer to a
// question from before the renewal arrives, and is not kept.
func TestAnEvictedRenewal(t *testing.T) {
	c, err := newCache(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	m := &Manager{cache: c}
	id := ID{1}
	before := &snapshot{info: compactInfo{ID: id, Version: 4}, activity: &activity{id: id}}
	renewed := &snapshot{info: compactInfo{ID: id, Version: 5}, activity: before.activity}
	epoch := c.epoch(id) // the question is asked
	c.put(renewed, c.epoch(id))
	m.stale(id, 5)           // the event
	c.entries.Invalidate(id) // as an eviction does
	c.put(before, epoch)     // the answer
	if sn := c.get(id); sn != nil {
		t.Errorf("version %d is cached after version 5 was heard of", sn.info.Version)
	}
}
